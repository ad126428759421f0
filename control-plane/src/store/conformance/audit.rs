//! Who did what.

use std::sync::Arc;

use chancery_control_plane::store::{
    Action, AuditQuery, Entry, NewEntry, Outcome, Rotation, Store, TokenRecord,
    audit::chain::{Chain, Verdict},
};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::{change, commit, create, open, service};

fn at(hours: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::hours(hours)
}

fn entry(actor: &str, hours: i64) -> NewEntry {
    NewEntry::done(Action::Promote, actor, "10.0.0.1", at(hours)).about("Rollout", "edge")
}

async fn all(store: &Arc<dyn Store>) -> Vec<Entry> {
    store.audit_after(0, 1000).await.unwrap()
}

async fn verify(store: &Arc<dyn Store>) -> Verdict {
    let head = store.head().await.unwrap();
    let mut chain = Chain::default();
    for entry in all(store).await {
        chain.entry(&entry);
        if let Some(revision) = entry.revision {
            let found = store.revision_digests(revision, revision).await.unwrap();
            chain.revision(&entry, found.first().map(|(_, digest)| digest));
        }
    }
    chain.end(Some(head))
}

pub async fn every_change_has_its_entry_and_the_chain_holds(url: &str) {
    let store = open(url).await;
    let unusual = "tab\t \"quoted\" \\ 😀 \u{2028} 'single' \u{1}";
    let [a, b] = ["10.0.0.1", "10.0.0.2"].map(|address| service("a", json!({ "address": address, "note": unusual })));
    commit(
        &store,
        unusual,
        vec![change("a", None, Some(&a)), change("b", None, Some(&service("b", json!({ "z": 1, "a": 2 }))))],
    )
    .await;
    commit(&store, "nul \0", vec![change("a", Some(&a), Some(&b))]).await;
    commit(&store, "", vec![change("a", Some(&b), None)]).await;
    let record = TokenRecord {
        id: "07".to_owned(),
        name: "ci".to_owned(),
        grants: "{}".to_owned(),
        hash: vec![1],
        previous: None,
        created_by: "admin".to_owned(),
        created_at: at(0),
        ttl: Duration::HOUR,
        expires_at: at(1),
        last_used_at: None,
        revoked_at: None,
    };
    let of_token = |action| NewEntry::done(action, "admin", "::1", at(0)).about("Token", "ci");
    assert!(store.add_token(record.clone(), of_token(Action::CreateToken)).await.unwrap());
    assert!(!store.add_token(record, of_token(Action::CreateToken)).await.unwrap());
    let rotation = Rotation { hash: vec![2], expires_at: at(2), previous_until: at(1) };
    assert!(store.rotate_token("07", rotation.clone(), of_token(Action::RotateToken)).await.unwrap());
    assert!(store.revoke_token("07", at(1), of_token(Action::RevokeToken)).await.unwrap());
    assert!(!store.rotate_token("07", rotation, of_token(Action::RotateToken)).await.unwrap());
    assert!(!store.revoke_token("07", at(1), of_token(Action::RevokeToken)).await.unwrap());
    let entries = all(&store).await;
    let said: Vec<_> = entries.iter().map(|entry| (entry.action.as_str(), entry.revision)).collect();
    let expected = [
        ("write", Some(1)),
        ("write", Some(2)),
        ("write", Some(3)),
        ("token.create", None),
        ("token.rotate", None),
        ("token.revoke", None),
    ];
    assert_eq!(said, expected, "what is not done has no entry");
    assert_eq!((entries[0].actor.as_str(), entries[0].address.as_str()), ("ada", "10.0.0.1"));
    assert_eq!((entries[0].detail.as_str(), entries[1].detail.as_str()), (unusual, "nul \u{fffd}"));
    let Verdict { entries, head, findings } = verify(&store).await;
    assert_eq!((entries, head.map(|(sequence, _)| sequence), findings), (6, Some(6), Vec::new()));
}

pub async fn an_entry_is_kept_as_it_is(url: &str) {
    let store = open(url).await;
    let refused = NewEntry {
        outcome: Outcome::Refused,
        detail: "nul \0 and 😀 \u{1} \"".to_owned(),
        before: Some(String::new()),
        after: Some("{\"a\": 1}".to_owned()),
        times: 7,
        at: at(3) + Duration::microseconds(1),
        ..entry("it's", 0)
    };
    store.append_audit(vec![entry("one", 0), refused]).await.unwrap();
    store.append_audit(Vec::new()).await.unwrap();
    let entries = all(&store).await;
    let found = &entries[1];
    assert_eq!((entries.len(), found.sequence, found.times), (2, 2, 7));
    assert_eq!(found.at, at(3) + Duration::microseconds(1));
    assert_eq!((found.actor.as_str(), found.outcome.as_str()), ("it's", "refused"));
    assert_eq!(found.detail, "nul \u{fffd} and 😀 \u{1} \"");
    assert_eq!((found.before.as_deref(), found.after.as_deref()), (Some(""), Some("{\"a\": 1}")));
    assert_eq!((found.revision, &found.digest, &found.previous), (None, &None, &entries[0].hash));
    assert_eq!(found.hash, found.computed_hash());
    assert!(verify(&store).await.findings.is_empty());
}

pub async fn entries_are_filtered_and_paged(url: &str) {
    let store = open(url).await;
    create(&store, "a").await;
    store.append_audit(vec![entry("bob", 0), entry("eve", 2), entry("bob", 4)]).await.unwrap();
    let refused =
        NewEntry { outcome: Outcome::Refused, action: Action::Write, ..entry("eve", 6).about("Service", "b") };
    store.append_audit(vec![refused]).await.unwrap();
    create(&store, "b").await;
    let found = async |query: AuditQuery| {
        let query = AuditQuery { limit: if query.limit == 0 { 100 } else { query.limit }, ..query };
        store.audit(query).await.unwrap().into_iter().map(|entry| entry.sequence).collect::<Vec<_>>()
    };
    let text = |text: &str| Some(text.to_owned());
    let none = AuditQuery::default;
    assert_eq!(found(none()).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(found(AuditQuery { limit: 2, before: Some(5), ..none() }).await, [4, 3]);
    assert_eq!(found(AuditQuery { actor: text("bob"), ..none() }).await, [4, 2]);
    assert_eq!(found(AuditQuery { action: text("write"), ..none() }).await, [6, 5, 1]);
    assert_eq!(found(AuditQuery { outcome: text("refused"), ..none() }).await, [5]);
    assert_eq!(found(AuditQuery { kind: text("service"), ..none() }).await, [6, 5, 1]);
    assert_eq!(found(AuditQuery { kind: text("Service"), name: text("b"), ..none() }).await, [6, 5]);
    assert_eq!(found(AuditQuery { name: text("edge"), ..none() }).await, [4, 3, 2]);
    let between = AuditQuery { since: Some(at(2)), until: Some(at(4)), actor: text("eve"), ..none() };
    assert_eq!(found(between).await, [3]);
    assert_eq!(found(AuditQuery { since: Some(at(2)), until: Some(at(2)), ..none() }).await, [0; 0]);
}

pub async fn old_entries_go_and_the_chain_holds(url: &str) {
    let store = open(url).await;
    create(&store, "a").await;
    store.append_audit((1..=5).map(|hours| entry("bob", hours)).collect()).await.unwrap();
    assert_eq!(store.trim_audit(at(-100), at(9)).await.unwrap(), 0, "nothing is so old, and nothing is said");
    assert_eq!(all(&store).await.len(), 6);
    assert_eq!(store.trim_audit(at(3), at(9)).await.unwrap(), 3);
    let entries = all(&store).await;
    let said: Vec<_> = entries.iter().map(|entry| (entry.sequence, entry.action.as_str())).collect();
    assert_eq!(said, [(4, "rollout.promote"), (5, "rollout.promote"), (6, "rollout.promote"), (7, "retention")]);
    assert_eq!((entries[3].name.as_str(), &entries[3].detail), ("3", &entries[0].previous));
    create(&store, "b").await;
    assert_eq!(verify(&store).await.findings, []);
    // All that is old, the entry about what went before included.
    assert_eq!(store.trim_audit(at(10), at(11)).await.unwrap(), 5);
    assert_eq!(all(&store).await[0].action, "retention");
    assert_eq!(store.trim_audit(at(10), at(12)).await.unwrap(), 0);
    assert_eq!(verify(&store).await.findings, []);
}

/// By what any store offers, that is: the tests of each back end ask its database.
pub async fn nothing_else_can_be_taken_away(url: &str) {
    let store = open(url).await;
    // A young entry keeps an old one behind it: entries go from the old end only.
    store.append_audit(vec![entry("young", 9), entry("old", 1)]).await.unwrap();
    assert_eq!(store.trim_audit(at(5), at(10)).await.unwrap(), 0);
    assert_eq!(all(&store).await.len(), 2);
}

pub async fn stores_that_write_at_once_make_one_chain(url: &str) {
    const EACH: usize = 12;
    let stores = [open(url).await, open(url).await];
    let mut tasks = tokio::task::JoinSet::new();
    for (index, store) in stores.iter().enumerate() {
        let (writer, noter) = (store.clone(), store.clone());
        tasks.spawn(async move {
            for number in 0..EACH {
                create(&writer, &format!("s{index}-{number}")).await;
            }
        });
        tasks.spawn(async move {
            for number in 0..EACH {
                noter.append_audit(vec![entry("x", 0); 1 + number % 3]).await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let Verdict { entries, head, findings } = verify(&stores[0]).await;
    let expected = 2 * (EACH + EACH * 2) as u64;
    assert_eq!((entries, head.map(|(sequence, _)| sequence), findings), (expected, Some(expected), Vec::new()));
}
