//! Patches, put into what was translated.
//!
//! A message is shown as JSON, the patches are merged into it in the order of their names, and it is encoded again:
//! fields by number and maps by key, so the same catalog gives the same bytes. A patch that does not
//! fit is left out and told ([`Misfit`]): a commit refuses it, and a proxy is never without the resource because of it.

use bytes::Bytes;
use chancery_proto::describe::{Violation, json, types::Type};

use crate::model::{
    Name,
    envoy_patch::{EnvoyPatch, PatchChange},
};

/// A patch that does not fit the resource it is to change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Misfit {
    /// The patch.
    pub patch: Name,
    /// Where in the resource, and why.
    pub violation: Violation,
}

/// `message` of the type `type_url` with `patches` merged into it.
pub(super) fn merged<'a>(
    type_url: &str,
    message: Bytes,
    patches: impl IntoIterator<Item = &'a EnvoyPatch>,
    misfits: &mut Vec<Misfit>,
) -> Bytes {
    patches.into_iter().fold(message, |message, patch| match one(type_url, &message, patch) {
        Ok(merged) => merged,
        Err(found) => {
            misfits.extend(found.into_iter().map(|violation| Misfit { patch: patch.name.clone(), violation }));
            message
        }
    })
}

fn one(type_url: &str, message: &[u8], patch: &EnvoyPatch) -> Result<Bytes, Vec<Violation>> {
    let PatchChange::Merge { path, patch, .. } = &patch.change else { return Ok(Bytes::copy_from_slice(message)) };
    let unreadable = |reason: String| vec![Violation { path: String::new(), reason }];
    let of = Type::of_url(type_url).ok_or_else(|| unreadable(format!("{type_url} is not known")))?;
    let mut shown = json::decode(of, message).map_err(|error| unreadable(error.to_string()))?;
    json::merge(of, &mut shown, path, patch)?;
    json::encode(of, &shown).map(Bytes::from)
}
