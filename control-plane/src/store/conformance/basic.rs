//! One store on a fresh database.

use std::{
    future::poll_fn,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use chancery_control_plane::{
    model::Document,
    store::{Change, HistoryQuery, Revision, SpanQuery, StoreError},
};
use serde_json::json;

use super::{change, commit, create, key, new_revision, open, service};

pub async fn an_empty_store_is_at_revision_zero(url: &str) {
    let store = open(url).await;
    assert_eq!(store.head().await.unwrap(), 0);
    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.resources.len()), (0, 0));
    assert_eq!(store.revisions_after(0).await.unwrap(), []);
    assert_eq!(store.revision(1).await.unwrap(), None);
    assert_eq!(store.history(HistoryQuery { limit: 10, ..HistoryQuery::default() }).await.unwrap(), []);
    assert_eq!(store.begin().await.unwrap().head(), 0);
    store.close().await;
}

pub async fn what_is_used_is_within_what_may_be(url: &str) {
    let store = open(url).await;
    let usage = store.usage().await.unwrap();
    for share in [Some(usage.pool), usage.server].into_iter().flatten() {
        assert!(share.used <= share.most && share.most > 0, "{usage:?}");
    }
    // The schema is there, and somebody asks for it.
    assert!(usage.bytes > 4096, "{usage:?}");
    assert!(usage.server.is_none_or(|server| server.used > 0), "{usage:?}");
}

pub async fn revisions_are_numbered_from_one(url: &str) {
    let store = open(url).await;
    for number in 1..=5 {
        let write = store.begin().await.unwrap();
        assert_eq!(write.head(), number - 1);
        let name = format!("s{number}");
        let document = service(&name, json!({}));
        let revision =
            write.commit(new_revision("one more", vec![change(&name, None, Some(&document))])).await.unwrap();
        assert_eq!(revision.summary.number, number);
        assert_eq!(store.head().await.unwrap(), number);
    }
}

pub async fn what_is_committed_is_read_back(url: &str) {
    let store = open(url).await;
    let mut checkout = (*service("checkout", json!({ "port": 80, "weights": [1, 2.5, null, true] }))).clone();
    checkout.team = Some("payments".parse().unwrap());
    checkout.labels = [("tier".to_owned(), "gold".to_owned())].into();
    let checkout = checkout.into();
    let cart = service("cart", json!({ "port": 81 }));
    let mut new =
        new_revision("two", vec![change("checkout", None, Some(&checkout)), change("cart", None, Some(&cart))]);
    new.at += time::Duration::nanoseconds(999); // finer than what is kept
    let first = store.begin().await.unwrap().commit(new.clone()).await.unwrap();

    assert_eq!((first.summary.author.as_str(), first.summary.message.as_str()), ("ada", "two"));
    assert_eq!(first.summary.change_count, 2);
    assert_eq!(first.summary.at, new.at - time::Duration::nanoseconds(999));
    let keys: Vec<_> = first.changes.iter().map(|change| change.key.clone()).collect();
    assert_eq!(keys, [key("cart"), key("checkout")], "changes are sorted");

    let moved = service("cart", json!({ "port": 82 }));
    let changes = vec![change("checkout", Some(&checkout), None), change("cart", Some(&cart), Some(&moved))];
    let second = commit(&store, "move", changes).await;
    assert_eq!(
        second.changes,
        [
            Change { key: key("cart"), before: Some(cart), after: Some(moved.clone()) },
            Change { key: key("checkout"), before: Some(checkout), after: None },
        ]
    );

    assert_eq!(store.revision(1).await.unwrap().as_ref(), Some(&first));
    assert_eq!(store.revision(2).await.unwrap().as_ref(), Some(&second));
    assert_eq!(store.revision(3).await.unwrap(), None);
    assert_eq!(store.revisions_after(0).await.unwrap(), [first, second.clone()]);
    assert_eq!(store.revisions_after(1).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(store.revisions_after(2).await.unwrap(), []);
    assert_eq!(store.revisions_after(u64::MAX).await.unwrap(), []);

    let loaded = store.load().await.unwrap();
    assert_eq!((loaded.revision, loaded.resources.len()), (2, 1));
    let cart = &loaded.resources[0];
    assert_eq!(cart.document, moved);
    assert_eq!((cart.revision, cart.updated_by.as_str()), (2, "ada"));
    assert_eq!(cart.updated_at, second.summary.at);
}

pub async fn a_dropped_write_leaves_nothing(url: &str) {
    let store = open(url).await;
    create(&store, "kept").await;
    for _ in 0..10 {
        drop(store.begin().await.unwrap());
    }
    assert_eq!(store.head().await.unwrap(), 1);
    assert_eq!(create(&store, "next").await.summary.number, 2);
}

pub async fn a_commit_that_is_dropped_midway_is_whole_or_nothing(url: &str) {
    let store = open(url).await;
    for round in 0..40 {
        let head = store.head().await.unwrap();
        let name = format!("s{round}");
        let document = service(&name, json!({}));
        let write = store.begin().await.unwrap();
        {
            // Polled `round / 4` times at most: dropped before, between and after its statements.
            let mut commit = write.commit(new_revision("dropped", vec![change(&name, None, Some(&document))]));
            let mut polls = round / 4;
            poll_fn(|context| {
                if polls == 0 {
                    return Poll::Ready(());
                }
                polls -= 1;
                commit.as_mut().poll(context).map(drop)
            })
            .await;
        }
        let write = store.begin().await.unwrap();
        let committed = write.head() - head;
        drop(write);
        assert!(committed <= 1);
        let loaded = store.load().await.unwrap();
        let found = loaded.resources.iter().filter(|stored| stored.document.name.as_str() == name).count();
        assert_eq!(found as u64, committed, "the resource and its revision come together");
        assert_eq!(store.revisions_after(head).await.unwrap().len() as u64, committed);
    }
}

pub async fn a_failed_commit_leaves_nothing(url: &str) {
    let store = open(url).await;
    let document = service("twice", json!({}));
    let twice = vec![change("twice", None, Some(&document)), change("twice", None, Some(&document))];
    let refused = store.begin().await.unwrap().commit(new_revision("twice", twice)).await;
    assert!(matches!(refused, Err(StoreError::Failed { .. })), "{refused:?}");
    assert_eq!(store.head().await.unwrap(), 0);
    assert!(store.load().await.unwrap().resources.is_empty());
    assert_eq!(create(&store, "next").await.summary.number, 1);
}

pub async fn what_was_deleted_can_be_created_again(url: &str) {
    let store = open(url).await;
    let first = service("phoenix", json!({ "life": 1 }));
    let second = service("phoenix", json!({ "life": 2 }));
    commit(&store, "create", vec![change("phoenix", None, Some(&first))]).await;
    commit(&store, "delete", vec![change("phoenix", Some(&first), None)]).await;
    assert!(store.load().await.unwrap().resources.is_empty());
    commit(&store, "create again", vec![change("phoenix", None, Some(&second))]).await;
    let loaded = store.load().await.unwrap();
    assert_eq!(loaded.resources.len(), 1);
    assert_eq!((&loaded.resources[0].document, loaded.resources[0].revision), (&second, 3));
    let lives: Vec<_> = store.revisions_after(0).await.unwrap().into_iter().flat_map(|r| r.changes).collect();
    assert_eq!(lives.iter().map(|c| c.before.is_some()).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(lives.iter().map(|c| c.after.is_some()).collect::<Vec<_>>(), [true, false, true]);
}

pub async fn history_is_filtered_and_paged(url: &str) {
    let store = open(url).await;
    for number in 1..=9 {
        let name = if number % 3 == 0 { "third".to_owned() } else { format!("s{number}") };
        let document = service(&name, json!({ "number": number }));
        commit(&store, &"m".repeat(number), vec![change(&name, None, Some(&document))]).await;
    }
    let numbers = async |key, before, limit| {
        let listed = store.history(HistoryQuery { key, before, limit }).await.unwrap();
        listed.iter().map(|revision| revision.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(None, None, 100).await, [9, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(numbers(None, None, 2).await, [9, 8]);
    assert_eq!(numbers(None, Some(8), 2).await, [7, 6]);
    assert_eq!(numbers(None, Some(1), 2).await, [0; 0]);
    assert_eq!(numbers(None, Some(u64::MAX), 1).await, [9]);
    assert_eq!(numbers(None, None, 0).await, [0; 0]);
    assert_eq!(numbers(Some(key("third")), None, 100).await, [9, 6, 3]);
    assert_eq!(numbers(Some(key("third")), Some(9), 1).await, [6]);
    assert_eq!(numbers(Some(key("nobody")), None, 100).await, [0; 0]);
    let newest = store.history(HistoryQuery { limit: 1, ..HistoryQuery::default() }).await.unwrap();
    assert_eq!(newest[0], store.revision(9).await.unwrap().unwrap().summary);
}

pub async fn the_changes_of_one_resource_come_alone(url: &str) {
    let store = open(url).await;
    let [first, second, third] = [1, 2, 3].map(|port| service("a", json!({ "port": port })));
    let other = service("b", json!({}));
    commit(&store, "one", vec![change("a", None, Some(&first)), change("b", None, Some(&other))]).await;
    commit(&store, "two", vec![change("a", Some(&first), Some(&second))]).await;
    commit(&store, "elsewhere", vec![change("b", Some(&other), None)]).await;
    commit(&store, "four", vec![change("a", Some(&second), Some(&third))]).await;
    let seen = async |before, limit| {
        let revisions = store.changes_of(&key("a"), before, limit).await.unwrap();
        assert!(revisions.iter().all(|revision| revision.changes.len() == 1));
        let told = |revision: Revision| (revision.summary.number, revision.changes[0].after.clone().unwrap());
        revisions.into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(seen(None, 10).await, [(4, third.clone()), (2, second.clone()), (1, first.clone())]);
    assert_eq!(seen(None, 1).await, [(4, third)]);
    assert_eq!(seen(Some(4), 10).await, [(2, second), (1, first)]);
    assert_eq!(store.changes_of(&key("c"), None, 10).await.unwrap(), []);
}

pub async fn revisions_are_compared(url: &str) {
    let store = open(url).await;
    let [old, new] = [1, 2].map(|port| service("a", json!({ "port": port })));
    let [b, c] = ["b", "c"].map(|name| service(name, json!({})));
    commit(&store, "1", vec![change("a", None, Some(&old)), change("b", None, Some(&b))]).await;
    commit(&store, "2", vec![change("a", Some(&old), Some(&new)), change("c", None, Some(&c))]).await;
    commit(&store, "3", vec![change("a", Some(&new), Some(&old)), change("b", Some(&b), None)]).await;
    let differ = |name: &str, before: Option<&Arc<Document>>, after: Option<&Arc<Document>>| Change {
        key: key(name),
        before: before.cloned(),
        after: after.cloned(),
    };
    let between = async |from, to, after: Option<&str>, limit| {
        let span = SpanQuery { from, to, after: after.map(key), limit };
        store.changes_between(span).await.unwrap()
    };
    assert_eq!(between(1, 2, None, 9).await, [differ("a", Some(&old), Some(&new)), differ("c", None, Some(&c))]);
    let all = [differ("a", Some(&old), Some(&old)), differ("b", Some(&b), None), differ("c", None, Some(&c))];
    assert_eq!(between(1, 3, None, 9).await, all, "what was changed back is told too");
    assert_eq!(between(1, 3, None, 2).await, all[..2]);
    assert_eq!(between(1, 3, Some("b"), 2).await, all[2..]);
    assert_eq!(between(0, 1, None, 9).await, [differ("a", None, Some(&old)), differ("b", None, Some(&b))]);
    assert_eq!(between(3, 3, None, 9).await, []);
}

pub async fn unusual_text_survives(url: &str) {
    let store = open(url).await;
    let text =
        "quotes ' \" `, back\\slash, \\u0000, \u{0}\u{1}\u{7f}, tab\t, line\r\n, ü, 漢字, 🦀, \u{202e}, $1 ?1 {}[]";
    let spec = json!({ text: [text, { "": "" }], "big": u64::MAX, "small": i64::MIN, "float": 1.5e300 });
    let document = service("unusual", spec);
    let message = text.replace('\0', "");
    let revision = commit(&store, &message, vec![change("unusual", None, Some(&document))]).await;
    assert_eq!(revision.summary.message, message);
    assert_eq!(store.load().await.unwrap().resources[0].document, document);
    assert_eq!(store.revision(1).await.unwrap().unwrap(), revision);

    // No text of Postgres holds U+0000, so no store keeps it outside a document.
    let mut new = new_revision("before\0after", vec![change("unusual", Some(&document), None)]);
    new.author = "a\0b".to_owned();
    let revision = store.begin().await.unwrap().commit(new).await.unwrap();
    assert_eq!(revision.summary.message, "before\u{fffd}after");
    assert_eq!(store.revision(2).await.unwrap().unwrap(), revision);
}

pub async fn a_large_document_survives(url: &str) {
    let store = open(url).await;
    let document = service("large", json!({ "text": "ä\"\\".repeat(256 * 1024) }));
    commit(&store, "large", vec![change("large", None, Some(&document))]).await;
    assert_eq!(store.load().await.unwrap().resources[0].document, document);
    let revision = store.revision(1).await.unwrap().unwrap();
    assert_eq!(revision.changes[0].after.as_ref(), Some(&document));
}

pub async fn a_thousand_changes_are_one_revision(url: &str) {
    let store = open(url).await;
    let documents: Vec<_> = (0..1000).map(|n| service(&format!("s{n:04}"), json!({ "n": n }))).collect();
    let created = documents.iter().map(|document| change(document.name.as_str(), None, Some(document)));
    let revision = commit(&store, "create", created.rev().collect()).await;
    assert_eq!(revision.summary.change_count, 1000);
    assert_eq!(store.revisions_after(0).await.unwrap(), [revision]);
    let loaded = store.load().await.unwrap();
    assert!(loaded.resources.iter().map(|stored| &stored.document).eq(&documents), "sorted by key");

    let deleted = documents.iter().map(|document| change(document.name.as_str(), Some(document), None));
    commit(&store, "delete", deleted.collect()).await;
    assert!(store.load().await.unwrap().resources.is_empty());
    assert_eq!(store.revision(2).await.unwrap().unwrap().changes.len(), 1000);
}

pub async fn a_second_writer_waits_for_the_first(url: &str) {
    let store = open(url).await;
    let first = store.begin().await.unwrap();
    let mut second = std::pin::pin!(store.begin());
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut second).await;
    assert!(waited.is_err(), "the lock is held");
    let document = service("a", json!({}));
    let revision = first.commit(new_revision("first", vec![change("a", None, Some(&document))])).await.unwrap();
    assert_eq!(revision.summary.number, 1);
    let second = second.await.unwrap();
    assert_eq!(second.head(), 1, "the head is read after the lock is taken");
    let revision = second.commit(new_revision("second", vec![change("a", Some(&document), None)])).await.unwrap();
    assert_eq!(revision.summary.number, 2);
}

pub async fn waiting_for_the_lock_has_a_deadline(url: &str) {
    let store = open(url).await;
    let held = store.begin().await.unwrap();
    let started = Instant::now();
    let refused = store.begin().await.err();
    assert!(matches!(refused, Some(StoreError::Unavailable(_))), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
    drop(held);
    create(&store, "next").await;
}

pub async fn a_held_write_sees_what_came_before_it(url: &str) {
    let store = open(url).await;
    let first = create(&store, "a").await;
    let second = create(&store, "b").await;
    let mut write = store.begin().await.unwrap();
    assert_eq!(write.revisions_after(0).await.unwrap(), [first, second.clone()]);
    assert_eq!(write.revisions_after(1).await.unwrap(), [second]);
    assert_eq!(write.revisions_after(2).await.unwrap(), []);
    let document = service("c", json!({}));
    let third = write.commit(new_revision("third", vec![change("c", None, Some(&document))])).await.unwrap();
    assert_eq!(third.summary.number, 3);
}

pub async fn reads_go_on_while_a_write_is_held(url: &str) {
    let store = open(url).await;
    create(&store, "a").await;
    let held = store.begin().await.unwrap();
    let started = Instant::now();
    assert_eq!(store.head().await.unwrap(), 1);
    assert_eq!(store.load().await.unwrap().resources.len(), 1);
    assert_eq!(store.revisions_after(0).await.unwrap().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    drop(held);
}
