//! The name of a cell: which rule, and a keyed fingerprint of the values it counts by.
//!
//! The hash is keyed with a secret (SipHash, 128 bits), so that nobody can choose values that fall onto
//! another's cell. What the limit is, is not in the key: an edited limit goes on from the same cell. The
//! algorithm is, because a window's cell means nothing to a bucket.

use siphasher::sip128::SipHasher13;
use smallvec::SmallVec;

use super::{descriptor::Entry, limit::Algorithm};

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
    pub fn key<'a>(&self, algorithm: Algorithm, domain: &str, entries: impl Iterator<Item = Entry<'a>>) -> CellKey {
        CellKey(SipHasher13::new_with_key(&self.0).hash(&spell(algorithm, domain, entries)).as_u128())
    }
}

/// What is hashed. Each text follows its length, so that no two lists are spelt alike.
fn spell<'a>(algorithm: Algorithm, domain: &str, entries: impl Iterator<Item = Entry<'a>>) -> SmallVec<[u8; 256]> {
    let mut spelt = SmallVec::new();
    spelt.push(match algorithm {
        Algorithm::TokenBucket => b'b',
        Algorithm::FixedWindow => b'w',
    });
    let mut text = |text: &str| {
        spelt.extend_from_slice(&(text.len() as u64).to_le_bytes());
        spelt.extend_from_slice(text.as_bytes());
    };
    text(domain);
    for entry in entries {
        text(entry.key);
        text(entry.value);
    }
    spelt
}

#[cfg(test)]
mod tests;
