//! What a store does: charge cells, each by its own limit, and say what became of it.
//!
//! A store answers at once where it can: [`Charging::Done`] costs no allocation and no task switch. It always
//! answers: what happens without Redis is the rule's policy, applied inside the store.

use std::{future::Future, pin::Pin, time::Duration};

use smallvec::SmallVec;

use crate::model::{descriptor::Hits, key::CellKey, limit::Limit, rule::Policy};

/// One charge to one cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The cell.
    pub key: CellKey,
    /// Its limit now.
    pub limit: Limit,
    /// How much.
    pub hits: Hits,
    /// How the limit behaves.
    pub policy: Policy,
}

/// What became of a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the hits are within the limit.
    pub admitted: bool,
    /// Hits that would still be admitted. With leases, an estimate: what is left here.
    pub remaining: u64,
    /// Until nothing is used any more; for a window, until it ends.
    pub reset: Duration,
    /// Until these hits would be admitted; zero if they were. `Duration::MAX`: never.
    pub retry: Duration,
    /// Who decided.
    pub source: Source,
}

/// Who decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// This process's own cells.
    Memory,
    /// Redis.
    Redis,
    /// Tokens borrowed from Redis.
    Lease,
    /// A refusal that was remembered.
    Denial,
    /// The rule's policy for when Redis is away: own cells, admit, or refuse.
    WithoutRedis,
}

/// Answers in the order of the asks.
pub type Outcomes = SmallVec<[Outcome; 4]>;

/// A charge under way.
pub enum Charging {
    /// Decided.
    Done(Outcomes),
    /// Waiting for Redis; it has a deadline and always ends. Dropping it abandons the answer, not the charge.
    Waiting(Pin<Box<dyn Future<Output = Outcomes> + Send>>),
}

/// Keeps cells.
pub trait Store: Send + Sync + 'static {
    /// Charges each ask to its cell, independently of the others. The charges are under way when this returns, whether
    /// or not anyone polls for the answer: what is given back is asked for and its answer dropped.
    fn charge(&self, asks: &[Ask]) -> Charging;

    /// Gives back what was charged without Redis ([`Source::WithoutRedis`]), to the cells that were charged then and to no
    /// other, even if Redis is there again.
    fn give_back_alone(&self, _refunds: &[Ask]) {}

    /// Ends when charges are decided by what replicas share, or when that may take a while: what is charged before, a
    /// policy without Redis answers. It ends soon in any case.
    fn settled(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}
