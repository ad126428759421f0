//! The secret of the fingerprints, which all replicas on one Redis share.
//!
//! A replica starts with a secret of its own, so that it can count before Redis is there. On its first connection, and
//! every second from then on, it proposes that one, and adopts whichever was there first. Cells it counted by its own secret until then were
//! local ones; they are forgotten with the outage.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::key::Salt;

/// The secret in force. Clones share it.
#[derive(Clone, Debug)]
pub struct SaltCell(Arc<ArcSwap<Salt>>);

impl SaltCell {
    /// Starts with `salt`.
    pub fn new(salt: Salt) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(salt)))
    }

    /// Starts with one that nobody knows.
    pub fn random() -> Self {
        Self::new(Salt(rand::random()))
    }

    /// The secret now. Costs a few nanoseconds; read it once per request, as it may change between two.
    pub fn current(&self) -> Salt {
        **self.0.load()
    }

    /// Takes over another one. Says whether that changed anything.
    pub(crate) fn adopt(&self, salt: Salt) -> bool {
        let changed = self.current() != salt;
        if changed {
            self.0.store(Arc::new(salt));
        }
        changed
    }
}
