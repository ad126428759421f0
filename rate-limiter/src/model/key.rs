//! The name of a cell: which rule, and a keyed fingerprint of the values it counts by.
//!
//! The hash is keyed with a secret (SipHash, 128 bits), so that nobody can choose values that fall onto
//! another's cell. What the limit is, is not in the key: an edited limit goes on from the same cell. The
//! algorithm is, because a window's cell means nothing to a bucket.

use siphasher::sip128::SipHasher13;

use super::{descriptor::Entry, limit::Algorithm};

/// What is spelt without an allocation.
const SHORT: usize = 256;

/// The secret of the fingerprints. Replicas that share cells share it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

impl std::fmt::Debug for Salt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Salt(..)")
    }
}

/// The name of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CellKey(pub u128);

impl Salt {
    /// The key of what `entries` say within `domain`, the same on every machine.
    pub fn key<'a>(
        &self,
        algorithm: Algorithm,
        domain: &'a str,
        entries: impl Iterator<Item = Entry<'a>> + Clone,
    ) -> CellKey {
        let hasher = SipHasher13::new_with_key(&self.0);
        spell(algorithm, domain, entries, |spelt| CellKey(hasher.hash(spelt).as_u128()))
    }
}

/// Hands over what is hashed. Each text follows its length, so that no two lists are spelt alike.
fn spell<'a, T>(
    algorithm: Algorithm,
    domain: &'a str,
    entries: impl Iterator<Item = Entry<'a>> + Clone,
    read: impl FnOnce(&[u8]) -> T,
) -> T {
    let texts = std::iter::once(domain).chain(entries.flat_map(|entry| [entry.key, entry.value]));
    let length = 1 + texts.clone().map(|text| 8 + text.len()).sum::<usize>();
    // Most lists are short. Those that are not are worth an allocation.
    let (mut short, mut long);
    let spelt = if length <= SHORT {
        short = [0; SHORT];
        &mut short[..length]
    } else {
        long = vec![0; length];
        &mut long[..]
    };
    spelt[0] = match algorithm {
        Algorithm::TokenBucket => b'b',
        Algorithm::FixedWindow => b'w',
    };
    let mut at = 1;
    let mut put = |bytes: &[u8]| {
        spelt[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    for text in texts {
        put(&(text.len() as u64).to_le_bytes());
        put(text.as_bytes());
    }
    read(spelt)
}

#[cfg(test)]
mod tests;
