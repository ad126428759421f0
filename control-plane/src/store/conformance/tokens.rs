//! Who may use the API.

use chancery_control_plane::store::{Action, NewEntry, Rotation, TOKEN_KEPT_FOR, TokenRecord};
use time::{Duration, OffsetDateTime};

use super::open;

fn at(minutes: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::minutes(minutes)
}

fn entry(action: Action) -> NewEntry {
    NewEntry::done(action, "admin", "10.0.0.1", at(0))
}

fn record(id: &str, name: &str) -> TokenRecord {
    TokenRecord {
        id: id.to_owned(),
        name: name.to_owned(),
        grants: r#"{"role":"it's \"😀\""}"#.to_owned(),
        hash: vec![0, 255, 10],
        previous: None,
        created_by: "admin".to_owned(),
        created_at: at(0),
        ttl: Duration::minutes(60),
        expires_at: at(60),
        last_used_at: None,
        revoked_at: None,
    }
}

pub async fn a_token_is_kept_as_it_is(url: &str) {
    let store = open(url).await;
    assert_eq!(store.token_serial().await.unwrap(), 0);
    let (a, b) = (record("B", "one"), record("a", "two"));
    assert!(store.add_token(b.clone(), entry(Action::CreateToken)).await.unwrap());
    assert!(store.add_token(a.clone(), entry(Action::CreateToken)).await.unwrap());
    let table = store.tokens().await.unwrap();
    assert_eq!((table.serial, table.records), (2, vec![a, b]), "by bytes");
    assert_eq!(store.head().await.unwrap(), 0, "that is no revision");
}

pub async fn a_name_is_free_again_once_its_token_is_revoked(url: &str) {
    let store = open(url).await;
    assert!(store.add_token(record("a", "ci"), entry(Action::CreateToken)).await.unwrap());
    assert!(!store.add_token(record("b", "ci"), entry(Action::CreateToken)).await.unwrap());
    assert!(
        !store.add_token(record("a", "other"), entry(Action::CreateToken)).await.unwrap(),
        "an id is not given twice"
    );
    assert_eq!(store.token_serial().await.unwrap(), 1, "nothing changed");
    assert!(store.revoke_token("a", at(5), entry(Action::RevokeToken)).await.unwrap());
    assert!(!store.revoke_token("a", at(6), entry(Action::RevokeToken)).await.unwrap(), "it is revoked already");
    assert!(!store.revoke_token("none", at(6), entry(Action::RevokeToken)).await.unwrap());
    assert!(store.add_token(record("b", "ci"), entry(Action::CreateToken)).await.unwrap());
    let table = store.tokens().await.unwrap();
    let revoked: Vec<_> = table.records.iter().map(|record| record.revoked_at).collect();
    assert_eq!((table.serial, revoked), (3, vec![Some(at(5)), None]));
}

pub async fn a_secret_before_the_last_is_good_no_longer_than_it_was(url: &str) {
    let store = open(url).await;
    store.add_token(record("a", "ci"), entry(Action::CreateToken)).await.unwrap();
    let rotation = |hash: u8, expires_at, previous_until| Rotation { hash: vec![hash], expires_at, previous_until };
    assert!(store.rotate_token("a", rotation(1, at(80), at(30)), entry(Action::RotateToken)).await.unwrap());
    let seen = async || {
        let record = store.tokens().await.unwrap().records.remove(0);
        (record.hash, record.previous, record.expires_at)
    };
    assert_eq!(seen().await, (vec![1], Some((vec![0, 255, 10], at(30))), at(80)));
    assert!(store.rotate_token("a", rotation(2, at(120), at(100)), entry(Action::RotateToken)).await.unwrap());
    assert_eq!(seen().await, (vec![2], Some((vec![1], at(80))), at(120)), "it would have expired before");
    assert_eq!(store.token_serial().await.unwrap(), 3);
    store.revoke_token("a", at(40), entry(Action::RevokeToken)).await.unwrap();
    assert!(
        !store.rotate_token("a", rotation(3, at(120), at(100)), entry(Action::RotateToken)).await.unwrap(),
        "what is revoked stays so"
    );
    assert!(!store.rotate_token("none", rotation(3, at(120), at(100)), entry(Action::RotateToken)).await.unwrap());
    assert_eq!(store.token_serial().await.unwrap(), 4);
}

pub async fn the_last_use_is_noted_and_changes_nothing_else(url: &str) {
    let store = open(url).await;
    store.add_token(record("a", "ci"), entry(Action::CreateToken)).await.unwrap();
    let used = |minutes| vec![("a".to_owned(), at(minutes)), ("none".to_owned(), at(minutes))];
    for (minutes, last) in [(5, 5), (3, 5), (7, 7)] {
        store.tokens_used(used(minutes)).await.unwrap();
        assert_eq!(store.tokens().await.unwrap().records[0].last_used_at, Some(at(last)));
    }
    store.tokens_used(Vec::new()).await.unwrap();
    assert_eq!(store.token_serial().await.unwrap(), 1);
}

pub async fn what_ended_long_ago_is_forgotten(url: &str) {
    let store = open(url).await;
    store.add_token(record("expired", "one"), entry(Action::CreateToken)).await.unwrap();
    store
        .add_token(TokenRecord { expires_at: at(1000), ..record("revoked", "two") }, entry(Action::CreateToken))
        .await
        .unwrap();
    store.revoke_token("revoked", at(50), entry(Action::RevokeToken)).await.unwrap();
    let later = |minutes, id: &str| {
        let created_at = at(minutes) + TOKEN_KEPT_FOR;
        TokenRecord { created_at, expires_at: created_at + Duration::days(1), ..record(id, id) }
    };
    let ids = async || {
        let records = store.tokens().await.unwrap().records;
        records.into_iter().map(|record| record.id).collect::<Vec<_>>()
    };
    store.add_token(later(50, "c"), entry(Action::CreateToken)).await.unwrap();
    assert_eq!(ids().await, ["c", "expired", "revoked"]);
    store.add_token(later(60, "d"), entry(Action::CreateToken)).await.unwrap();
    assert_eq!(ids().await, ["c", "d", "expired"]);
    store.add_token(later(61, "e"), entry(Action::CreateToken)).await.unwrap();
    assert_eq!(ids().await, ["c", "d", "e"]);
}

/// Another process hears of it, or finds it by the serial.
pub async fn a_change_through_one_store_is_seen_through_another(url: &str) {
    let (left, right) = (open(url).await, open(url).await);
    left.add_token(record("a", "ci"), entry(Action::CreateToken)).await.unwrap();
    assert_eq!(right.token_serial().await.unwrap(), 1);
    right.revoke_token("a", at(5), entry(Action::RevokeToken)).await.unwrap();
    assert_eq!(left.tokens().await.unwrap(), right.tokens().await.unwrap());
    assert_eq!(left.tokens().await.unwrap().records[0].revoked_at, Some(at(5)));
}
