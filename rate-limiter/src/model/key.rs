//! The name of a cell: which rule, and a keyed fingerprint of the values it counts by.
//!
//! The hash is keyed with a secret (SipHash, 128 bits), so that nobody can choose values that fall onto
//! another's cell. What the limit is, is not in the key: an edited limit goes on from the same cell.

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::descriptor::Entry;

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
    /// The key of what `entries` say within `domain`. Lengths are hashed too, so that no two lists run together.
    pub fn key<'a>(&self, domain: &str, entries: impl Iterator<Item = Entry<'a>>) -> CellKey {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        let mut text = |text: &str| {
            hasher.write_usize(text.len());
            hasher.write(text.as_bytes());
        };
        text(domain);
        for entry in entries {
            text(entry.key);
            text(entry.value);
        }
        CellKey(hasher.finish128().as_u128())
    }
}
