//! Who may become a proxy.

use chancery_control_plane::store::{
    Action, AuditQuery, ENROLMENT_KEPT_FOR, EnrolmentRecord, EnrolmentUse, NewEntry, Used,
};
use time::{Duration, OffsetDateTime};

use super::open;

const MOST: u32 = 100;

fn at(minutes: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::minutes(minutes)
}

fn entry(action: Action) -> NewEntry {
    NewEntry::done(action, "admin", "10.0.0.1", at(0))
}

fn record(id: &str, proxy: Option<&str>) -> EnrolmentRecord {
    EnrolmentRecord {
        id: id.to_owned(),
        fleet: "edge".to_owned(),
        proxy: proxy.map(str::to_owned),
        hash: [&[0, 255], id.as_bytes()].concat(),
        life: Duration::minutes(30),
        created_by: "admin".to_owned(),
        created_at: at(0),
        expires_at: at(60),
        used: None,
        revoked_at: None,
    }
}

fn by(proxy: &str, key: u8, minutes: i64) -> EnrolmentUse {
    EnrolmentUse {
        proxy: proxy.to_owned(),
        from: "10.0.0.2".to_owned(),
        at: at(minutes),
        key: vec![key],
        previous_key: None,
        valid_until: at(minutes + 30),
    }
}

pub async fn an_enrolment_is_kept_as_it_is(url: &str) {
    let store = open(url).await;
    let (a, b) = (record("B", None), record("a", Some("edge-1")));
    for record in [&b, &a] {
        assert!(store.add_enrolment(record.clone(), MOST, entry(Action::CreateEnrolment)).await.unwrap());
    }
    assert_eq!(store.enrolments("", 10).await.unwrap(), [a.clone(), b.clone()], "by bytes");
    assert_eq!(store.enrolments("", 1).await.unwrap().first(), Some(&a));
    assert_eq!(store.enrolments("B", 10).await.unwrap().as_slice(), std::slice::from_ref(&b));
    assert_eq!(store.enrolment("a").await.unwrap(), Some(b.clone()));
    assert_eq!(store.enrolment_of_token(&a.hash).await.unwrap(), Some(a));
    assert_eq!(store.enrolment("none").await.unwrap(), None);
    assert_eq!(store.enrolment_of_token(b"none").await.unwrap(), None);
    assert_eq!(store.enrolment_of_proxy("edge", "edge-1").await.unwrap(), None, "nobody has used it");
    let used = store.use_enrolment("a", by("edge-1", 1, 5), entry(Action::Enrol)).await.unwrap();
    assert_eq!(used, Used::Done);
    let expected = Some(EnrolmentRecord { used: Some(by("edge-1", 1, 5)), ..b });
    assert_eq!(store.enrolment_of_proxy("edge", "edge-1").await.unwrap(), expected);
    assert_eq!(store.head().await.unwrap(), 0, "that is no revision");
    let log = store.audit(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
    let actions: Vec<_> = log.iter().rev().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["enrolment.create", "enrolment.create", "enrol"]);
}

pub async fn an_enrolment_is_used_by_one_key(url: &str) {
    let store = open(url).await;
    store.add_enrolment(record("a", None), MOST, entry(Action::CreateEnrolment)).await.unwrap();
    let attempt = async |by| store.use_enrolment("a", by, entry(Action::Enrol)).await.unwrap();
    assert_eq!(attempt(by("edge-1", 1, 5)).await, Used::Done);
    assert_eq!(attempt(by("edge-1", 2, 6)).await, Used::Ended, "another key");
    assert_eq!(attempt(by("edge-2", 1, 6)).await, Used::Ended, "another proxy");
    assert_eq!(attempt(by("edge-1", 1, 10)).await, Used::Done, "the answer was lost");
    let used = store.enrolment("a").await.unwrap().unwrap().used.unwrap();
    assert_eq!((used.at, used.valid_until), (at(5), at(40)));
    assert_eq!(attempt(by("edge-1", 1, 60)).await, Used::Ended, "the token has expired");
    assert_eq!(store.use_enrolment("none", by("edge-9", 1, 5), entry(Action::Enrol)).await.unwrap(), Used::Ended);
    let log = store.audit(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
    assert_eq!(log.len(), 3, "what changed nothing is not written down: {log:?}");
}

pub async fn a_proxy_is_of_one_enrolment(url: &str) {
    let store = open(url).await;
    for (id, proxy) in [("any-1", None), ("any-2", None), ("named", Some("edge-1"))] {
        store.add_enrolment(record(id, proxy), MOST, entry(Action::CreateEnrolment)).await.unwrap();
    }
    let other = EnrolmentRecord { fleet: "other".to_owned(), ..record("other", None) };
    store.add_enrolment(other, MOST, entry(Action::CreateEnrolment)).await.unwrap();
    let attempt = async |id: &str, by| store.use_enrolment(id, by, entry(Action::Enrol)).await.unwrap();
    let owner = async || store.enrolment_of_proxy("edge", "edge-1").await.unwrap().map(|record| record.id);
    assert_eq!(attempt("any-1", by("edge-1", 1, 5)).await, Used::Done);
    assert_eq!(attempt("other", by("edge-1", 9, 5)).await, Used::Done, "that is another fleet");
    assert_eq!(attempt("any-2", by("edge-1", 2, 34)).await, Used::Taken, "its certificate is good until minute 35");
    assert_eq!(owner().await.as_deref(), Some("any-1"), "nothing is left of the attempt");
    assert_eq!(attempt("any-2", by("edge-1", 2, 35)).await, Used::Done, "now it is not");
    assert_eq!(owner().await.as_deref(), Some("any-2"));
    assert_eq!(attempt("named", by("edge-1", 3, 36)).await, Used::Done, "whoever made it has named the proxy");
    assert_eq!(owner().await.as_deref(), Some("named"));
    assert_eq!(store.enrolment("any-2").await.unwrap().unwrap().revoked_at, Some(at(36)));
    assert_eq!(store.enrolment("other").await.unwrap().unwrap().revoked_at, None);
}

pub async fn an_enrolment_is_renewed_by_who_holds_its_key(url: &str) {
    let store = open(url).await;
    store.add_enrolment(record("a", None), MOST, entry(Action::CreateEnrolment)).await.unwrap();
    assert!(!store.renew_enrolment("a", &[1], &[2], at(50)).await.unwrap(), "nobody has used it");
    store.use_enrolment("a", by("edge-1", 1, 5), entry(Action::Enrol)).await.unwrap();
    assert!(store.renew_enrolment("a", &[1], &[2], at(50)).await.unwrap());
    assert!(store.renew_enrolment("a", &[1], &[3], at(60)).await.unwrap(), "the answer was lost");
    assert!(!store.renew_enrolment("a", &[2], &[4], at(60)).await.unwrap(), "that key nobody has");
    assert!(store.renew_enrolment("a", &[3], &[4], at(70)).await.unwrap());
    let used = store.enrolment("a").await.unwrap().unwrap().used.unwrap();
    assert_eq!((used.key, used.previous_key, used.valid_until, used.at), (vec![4], Some(vec![3]), at(70), at(5)));
    assert!(store.revoke_enrolment("a", at(20), entry(Action::RevokeEnrolment)).await.unwrap());
    assert!(!store.renew_enrolment("a", &[4], &[5], at(80)).await.unwrap(), "it is revoked");
    assert!(!store.revoke_enrolment("a", at(21), entry(Action::RevokeEnrolment)).await.unwrap(), "once");
    assert_eq!(store.enrolment_of_proxy("edge", "edge-1").await.unwrap(), None);
    assert_eq!(store.enrolment("a").await.unwrap().unwrap().revoked_at, Some(at(20)));
}

pub async fn enrolments_are_bounded_and_forgotten(url: &str) {
    let store = open(url).await;
    let add = async |record| store.add_enrolment(record, 3, entry(Action::CreateEnrolment)).await.unwrap();
    for id in ["renewed", "revoked", "unused"] {
        assert!(add(record(id, None)).await);
    }
    assert!(!add(record("more", None)).await, "there are three");
    store.use_enrolment("renewed", by("edge-1", 1, 5), entry(Action::Enrol)).await.unwrap();
    store.renew_enrolment("renewed", &[1], &[2], at(100)).await.unwrap();
    store.revoke_enrolment("revoked", at(50), entry(Action::RevokeEnrolment)).await.unwrap();
    let later = |minutes, id: &str| {
        let created_at = at(minutes) + ENROLMENT_KEPT_FOR;
        EnrolmentRecord { created_at, expires_at: created_at + Duration::days(1), ..record(id, None) }
    };
    assert!(!add(later(50, "c")).await);
    assert!(add(later(51, "c")).await, "the revoked one went");
    assert!(add(later(61, "d")).await, "and the one that nobody used");
    let ids: Vec<_> = store.enrolments("", 10).await.unwrap().into_iter().map(|record| record.id).collect();
    assert_eq!(ids, ["c", "d", "renewed"]);
}
