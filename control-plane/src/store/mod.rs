//! Where configuration is kept: resources, revisions and the changes between them.
//!
//! One trait, two implementations (SQLite, Postgres), one conformance suite in `contract`.
//! Documents are stored as the user wrote them; what they mean is `model`'s business.

mod contract;

pub use contract::{
    Change, HistoryQuery, Loaded, NewChange, NewRevision, Revision, RevisionSummary, Store, StoreError, Stored, Write,
};
