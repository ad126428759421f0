//! The one way in which every handler writes: a change set, its commit, and the wait for the proxies.

use std::time::{Duration, Instant};

use super::{
    Api,
    author::Author,
    error::ApiError,
    params::WriteParams,
    view::{ChangedResource, Written},
};
use crate::commit::{ChangeSet, Committed, Edit};

/// Commits `edits` as one revision, and waits for the proxies if that is asked for.
pub(super) async fn commit(
    api: &Api,
    author: Author,
    params: &WriteParams,
    message: Option<String>,
    edits: Vec<Edit>,
    if_revision: Option<u64>,
) -> Result<Written, ApiError> {
    let set = change_set(author, params, message, edits, if_revision)?;
    commit_set(api, params, set).await
}

/// `edits` as one change, of which `params` tell the rest.
pub(super) fn change_set(
    author: Author,
    params: &WriteParams,
    message: Option<String>,
    edits: Vec<Edit>,
    if_revision: Option<u64>,
) -> Result<ChangeSet, ApiError> {
    let (message, dry_run) = (params.message(message)?, params.dry_run);
    let Author { who: author, from, once, place, until: _ } = author;
    Ok(ChangeSet { author, from, message, edits, prune: None, if_revision, dry_run, once, place })
}

/// As [`commit`], of what is one change already.
pub(super) async fn commit_set(api: &Api, params: &WriteParams, set: ChangeSet) -> Result<Written, ApiError> {
    let (wait, dry_run) = (params.wait()?, set.dry_run);
    let committed = api.commit.commit(set).await?;
    Ok(arrived(api, wait, committed, dry_run).await)
}

/// The answer to a change that was committed, or would be; after the wait for the proxies, if there is one.
pub(super) async fn arrived(api: &Api, wait: Option<Duration>, committed: Committed, dry_run: bool) -> Written {
    let applied = match wait {
        Some(timeout) if !dry_run => {
            let deadline = Instant::now() + timeout;
            Some(api.proxies.wait_applied(&committed, &api.publisher.staged(), deadline).await)
        }
        _ => None,
    };
    let changed = committed.changed.into_iter().map(|changed| ChangedResource::new(changed, dry_run)).collect();
    Written { revision: committed.revision, changed, dry_run, applied }
}
