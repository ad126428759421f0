//! What every store must do, whatever is below it: one suite, run over each back end.
//!
//! It is compiled into two crates, here for SQLite and, by path, into the end-to-end tests for
//! Postgres. So it uses public interfaces only, and the product carries none of it.
//!
//! A case takes the URL of a fresh database. Those of [`basic`] open one store on it, those of
//! [`shared`] several, which an in-memory database cannot offer; [`leases`] has some of both.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic here is the report of a failed test")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` at the call is easier to read")]
#![allow(missing_docs, unreachable_pub, reason = "test code, compiled into two crates")]

pub mod audit;
pub mod basic;
pub mod enrolments;
pub mod idempotency;
pub mod leases;
pub mod proxies;
pub mod quarantine;
pub mod rollouts;
pub mod schema;
pub mod shared;
pub mod tokens;
pub mod traces;

use std::sync::Arc;

use chancery_control_plane::{
    model::{Document, Key, Kind},
    store::{NewChange, NewRevision, Revision, Store, StoreError},
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// Declares a test per case. `$fresh` is an async function that answers with a guard and the URL of a
/// fresh database, or with `None` to skip.
macro_rules! conformance_tests {
    ($fresh:path, $suite:ident: $($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some((_guard, url)) = $fresh().await else { return };
                conformance::$suite::$case(&url).await;
            }
        )*
    };
}

/// Every case that opens one store.
macro_rules! basic_conformance_tests {
    ($fresh:path) => {
        conformance_tests!($fresh, basic:
            an_empty_store_is_at_revision_zero,
            what_is_used_is_within_what_may_be,
            revisions_are_numbered_from_one,
            what_is_committed_is_read_back,
            a_dropped_write_leaves_nothing,
            a_commit_that_is_dropped_midway_is_whole_or_nothing,
            a_failed_commit_leaves_nothing,
            what_was_deleted_can_be_created_again,
            history_is_filtered_and_paged,
            the_changes_of_one_resource_come_alone,
            revisions_are_compared,
            unusual_text_survives,
            a_large_document_survives,
            a_thousand_changes_are_one_revision,
            a_second_writer_waits_for_the_first,
            waiting_for_the_lock_has_a_deadline,
            a_held_write_sees_what_came_before_it,
            reads_go_on_while_a_write_is_held,
        );
        conformance_tests!($fresh, proxies:
            a_proxy_is_what_its_last_replica_said,
            a_replica_that_begins_or_ends_has_no_proxies,
            many_proxies_are_recorded_at_once_as_they_are,
            only_so_many_that_are_gone_are_remembered,
        );
        conformance_tests!($fresh, audit:
            every_change_has_its_entry_and_the_chain_holds,
            an_entry_is_kept_as_it_is,
            entries_are_filtered_and_paged,
            old_entries_go_and_the_chain_holds,
            nothing_else_can_be_taken_away,
        );
        conformance_tests!($fresh, quarantine:
            what_is_quarantined_is_kept_as_it_is,
            a_resource_is_quarantined_in_one_version,
        );
        conformance_tests!($fresh, tokens:
            a_token_is_kept_as_it_is,
            a_name_is_free_again_once_its_token_is_revoked,
            a_secret_before_the_last_is_good_no_longer_than_it_was,
            the_last_use_is_noted_and_changes_nothing_else,
            what_ended_long_ago_is_forgotten,
        );
        conformance_tests!($fresh, enrolments:
            an_enrolment_is_kept_as_it_is,
            an_enrolment_is_used_by_one_key,
            a_proxy_is_of_one_enrolment,
            an_enrolment_is_renewed_by_who_holds_its_key,
            enrolments_are_bounded_and_forgotten,
        );
        conformance_tests!($fresh, idempotency:
            a_key_is_kept_with_what_it_was_used_for,
            a_key_counts_for_a_day,
            what_is_dropped_keeps_no_key,
            only_so_many_keys_are_kept,
        );
        conformance_tests!($fresh, rollouts: a_rollout_is_moved_on_from_where_it_is);
        conformance_tests!($fresh, traces: a_trace_is_there_with_its_revision_or_not_at_all);
        conformance_tests!($fresh, leases:
            what_is_registered_is_read_back,
            changes_of_endpoints_are_numbered_and_renewals_are_not,
            who_is_not_registered_cannot_renew,
            a_lease_that_is_not_renewed_ends,
            a_lease_longer_than_renewals_were_possible_does_not_end,
            thousands_of_endpoints_are_one_batch,
        );
    };
}

/// Every case that opens several stores.
macro_rules! shared_conformance_tests {
    ($fresh:path) => {
        conformance_tests!($fresh, shared:
            what_is_committed_outlives_the_store,
            two_stores_see_each_others_revisions,
            the_lock_is_shared,
            stores_can_start_at_the_same_instant,
            concurrent_writers_leave_no_gap_and_a_reader_misses_none,
        );
        conformance_tests!($fresh, schema:
            the_program_of_the_version_before_goes_on_and_starts_again,
            the_program_of_two_versions_before_is_refused,
            replicas_of_two_versions_start_at_the_same_instant,
            no_table_is_left_out,
        );
        conformance_tests!($fresh, audit: stores_that_write_at_once_make_one_chain);
        conformance_tests!($fresh, idempotency: a_key_is_used_once_over_all_stores);
        conformance_tests!($fresh, tokens: a_change_through_one_store_is_seen_through_another);
        conformance_tests!($fresh, leases:
            stores_that_register_at_once_leave_no_gap_and_a_reader_misses_none,
        );
    };
}

/// Opens the store at `url`.
pub async fn open(url: &str) -> Arc<dyn Store> {
    chancery_control_plane::store::open(url).await.unwrap()
}

/// A service called `name`.
pub fn service(name: &str, spec: Value) -> Arc<Document> {
    let document = json!({ "kind": "Service", "name": name, "spec": spec });
    Arc::new(serde_json::from_value(document).unwrap())
}

/// The key of the service called `name`.
pub fn key(name: &str) -> Key {
    Key::new(Kind::Service, name.parse().unwrap())
}

/// `name` goes from `before` to `after`.
pub fn change(name: &str, before: Option<&Arc<Document>>, after: Option<&Arc<Document>>) -> NewChange {
    NewChange { key: key(name), before: before.cloned(), after: after.cloned() }
}

/// A revision of `changes`, committed at a time that is told apart from others by `message`'s length.
pub fn new_revision(message: &str, changes: Vec<NewChange>) -> NewRevision {
    let at = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::microseconds(message.len() as i64);
    NewRevision { author: "ada".to_owned(), message: message.to_owned(), at, changes, from: "10.0.0.1".to_owned() }
}

/// Commits `changes` as one revision.
pub async fn commit(store: &Arc<dyn Store>, message: &str, changes: Vec<NewChange>) -> Revision {
    try_commit(store, message, changes).await.unwrap()
}

/// As [`commit`], if the store is there.
pub async fn try_commit(
    store: &Arc<dyn Store>,
    message: &str,
    changes: Vec<NewChange>,
) -> Result<Revision, StoreError> {
    store.begin().await?.commit(new_revision(message, changes)).await
}

/// Creates the service `name`.
pub async fn create(store: &Arc<dyn Store>, name: &str) -> Revision {
    let document = service(name, json!({ "endpoints": [{ "address": "10.0.0.1", "port": 80 }] }));
    commit(store, &format!("create {name}"), vec![change(name, None, Some(&document))]).await
}
