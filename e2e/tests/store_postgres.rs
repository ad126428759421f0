//! The store's conformance suite over a real Postgres.

#[macro_use]
#[path = "../../control-plane/src/store/conformance/mod.rs"]
mod conformance;

use std::sync::Arc;

use chancery_e2e::postgres::Postgres;

basic_conformance_tests!(fresh);
shared_conformance_tests!(fresh);

/// A database of its own for each test, on one server.
async fn fresh() -> Option<(Arc<Postgres>, String)> {
    let postgres = Postgres::shared().await.expect("Postgres starts")?;
    let url = postgres.create_database().await.expect("Postgres creates a database");
    Some((postgres, url))
}
