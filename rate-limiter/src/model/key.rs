//! The name of a cell: which rule, and a keyed fingerprint of the values it counts by.
//!
//! The hash is keyed with a secret (SipHash, 128 bits), so that nobody can choose values that fall onto
//! another's cell. How much a limit admits is not in the key: an edited limit goes on from the same cell. What is, is how
//! it is counted: a window's cell means nothing to a bucket, nor to windows of another length.

use std::time::Duration;

use siphasher::sip128::SipHasher13;

use super::{
    descriptor::Entry,
    limit::{Algorithm, Limit},
};

/// What is spelt without an allocation.
const SHORT: usize = 256;

const LENGTH_OF_WINDOW: usize = size_of::<u64>();

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
    pub fn key<'a>(&self, limit: &Limit, domain: &'a str, entries: impl Iterator<Item = Entry<'a>> + Clone) -> CellKey {
        let hasher = SipHasher13::new_with_key(&self.0);
        spell(window(limit), domain, entries, |spelt| CellKey(hasher.hash(spelt).as_u128()))
    }
}

/// How long the windows are that a limit is counted in; `None` for a bucket.
fn window(limit: &Limit) -> Option<Duration> {
    match limit.algorithm() {
        Algorithm::TokenBucket => None,
        Algorithm::FixedWindow => Some(limit.per()),
    }
}

/// Hands over what is hashed. Each text follows its length, so that no two lists are spelt alike.
fn spell<'a, T>(
    window: Option<Duration>,
    domain: &'a str,
    entries: impl Iterator<Item = Entry<'a>> + Clone,
    read: impl FnOnce(&[u8]) -> T,
) -> T {
    let texts = std::iter::once(domain).chain(entries.flat_map(|entry| [entry.key, entry.value]));
    let length = LENGTH_OF_WINDOW + texts.clone().map(|text| 8 + text.len()).sum::<usize>();
    // Most lists are short. Those that are not are worth an allocation.
    let (mut short, mut long);
    let spelt = if length <= SHORT {
        short = [0; SHORT];
        &mut short[..length]
    } else {
        long = vec![0; length];
        &mut long[..]
    };
    // No window is zero long.
    let window = window.unwrap_or_default().as_nanos() as u64;
    spelt[..LENGTH_OF_WINDOW].copy_from_slice(&window.to_le_bytes());
    let mut at = LENGTH_OF_WINDOW;
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
