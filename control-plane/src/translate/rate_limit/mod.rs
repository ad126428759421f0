//! Limits as the limiter sees them: one domain per fleet.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::model::{Catalog, Key, Name};

/// Every domain, encoded, by its name: that of the fleet.
pub fn all(_: &Catalog) -> BTreeMap<Name, Bytes> {
    BTreeMap::new()
}

/// What the changes to the resources `changed`, which lead from `before` to `after`, mean for each domain: its new bytes, or
/// none if it is gone. A domain that stays what it was is left out.
pub fn changes(_: &Catalog, _: &Catalog, _: &[Key]) -> BTreeMap<Name, Option<Bytes>> {
    BTreeMap::new()
}
