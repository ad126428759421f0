use rand::{SeedableRng as _, rngs::StdRng};
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;

use super::*;
use crate::{
    identity::{request::key_hash, spiffe::Identity},
    store::{self, AuditQuery},
};

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn later(minutes: i64) -> OffsetDateTime {
    now() + time::Duration::minutes(minutes)
}

async fn enrolments() -> Enrolments {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(folder.path(), "test.example", now()).unwrap();
    Enrolments::new(store::open("sqlite::memory:").await.unwrap(), Some(authority))
}

fn key() -> RequestedKey {
    let request = CertificateParams::default().serialize_request(&KeyPair::generate().unwrap()).unwrap();
    RequestedKey::of(&request.pem().unwrap()).unwrap()
}

fn new(proxy: Option<&str>) -> NewEnrolment {
    let proxy = proxy.map(|proxy| proxy.parse().unwrap());
    let (life, ttl) = (time::Duration::minutes(30), time::Duration::minutes(60));
    NewEnrolment { fleet: "edge".parse().unwrap(), proxy, life, ttl }
}

async fn made(enrolments: &Enrolments, proxy: Option<&str>, seed: u64) -> Made {
    let by = By { name: "ada", address: None };
    enrolments.create(new(proxy), by, now(), &mut StdRng::seed_from_u64(seed)).await.unwrap()
}

async fn enrol(
    enrolments: &Enrolments,
    made: &Made,
    key: &RequestedKey,
    named: Option<&str>,
    at: OffsetDateTime,
) -> Result<Granted, EnrolmentError> {
    let enrolment = enrolments.of_token(made.token.expose()).await?;
    enrolments.enrol(enrolment, key, named.map(|name| name.parse().unwrap()), "10.0.0.2".to_owned(), at).await
}

fn refused(result: Result<Granted, EnrolmentError>) -> Refused {
    match result {
        Err(EnrolmentError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn identity(id: &str) -> ProxyIdentity {
    ProxyIdentity { trust_domain: "test.example".to_owned(), fleet: "edge".parse().unwrap(), id: id.parse().unwrap() }
}

fn der(pem: &str) -> Vec<u8> {
    x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

#[tokio::test]
async fn a_machine_with_a_token_becomes_the_proxy_that_was_meant() {
    let enrolments = enrolments().await;
    let (made, key) = (made(&enrolments, Some("edge-1"), 1).await, key());
    assert!(made.token.expose().starts_with("chye_"));
    let granted = enrol(&enrolments, &made, &key, None, now()).await.unwrap();
    let certificate = der(&granted.certified.certificate_pem);
    assert_eq!(Identity::from_certificate(&certificate).unwrap(), Identity::Proxy(identity("edge-1")));
    assert_eq!(key_hash(&certificate), Some(*key.hash()));
    let left = granted.certified.not_after - granted.renew_after;
    let third = time::Duration::minutes(10);
    assert!((left - third).abs() < time::Duration::seconds(5), "{left}");
    assert_eq!(
        refused(enrol(&enrolments, &made, &key, Some("edge-2"), now()).await),
        Refused::OtherProxy("edge-1".to_owned())
    );
    let log = enrolments.store.audit(AuditQuery { limit: 10, ..AuditQuery::default() }).await.unwrap();
    let seen: Vec<_> = log.iter().map(|entry| (entry.actor.as_str(), entry.action.as_str())).collect();
    assert_eq!(seen, [(actor(&made.id).as_str(), "enrol"), ("ada", "enrolment.create")]);
    let told: Value = serde_json::from_str(log[0].after.as_deref().unwrap()).unwrap();
    assert_eq!(told["identity"], "spiffe://test.example/fleet/edge/proxy/edge-1");
    assert!(!format!("{log:?}").contains(made.token.expose().as_str()));
}

#[tokio::test]
async fn a_token_is_good_for_one_key_and_for_its_time() {
    let enrolments = enrolments().await;
    let (made, mine, theirs) = (made(&enrolments, None, 1).await, key(), key());
    assert_eq!(refused(enrol(&enrolments, &made, &mine, None, now()).await), Refused::NoName);
    enrol(&enrolments, &made, &mine, Some("edge-1"), now()).await.unwrap();
    enrol(&enrolments, &made, &mine, Some("edge-1"), now()).await.expect("the answer may have been lost");
    assert_eq!(refused(enrol(&enrolments, &made, &theirs, Some("edge-1"), now()).await), Refused::Used);
    assert_eq!(refused(enrol(&enrolments, &made, &mine, Some("edge-2"), now()).await), Refused::Used);
    assert_eq!(refused(enrol(&enrolments, &made, &mine, Some("edge-1"), later(61)).await), Refused::Expired);
    assert!(matches!(enrolments.of_token("chye_nobody-has-it").await, Err(EnrolmentError::Refused(Refused::Unknown))));
    assert!(matches!(enrolments.of_token("chy_of-the-api").await, Err(EnrolmentError::Refused(Refused::Unknown))));
}

#[tokio::test]
async fn a_name_is_taken_as_long_as_its_certificate_is_good_unless_it_is_meant() {
    let enrolments = enrolments().await;
    let [first, second, named] = [
        made(&enrolments, None, 1).await,
        made(&enrolments, None, 2).await,
        made(&enrolments, Some("edge-1"), 3).await,
    ];
    let (one, two, three) = (key(), key(), key());
    enrol(&enrolments, &first, &one, Some("edge-1"), now()).await.unwrap();
    let taken = refused(enrol(&enrolments, &second, &two, Some("edge-1"), now()).await);
    assert_eq!(
        taken.to_string(),
        "proxy edge-1 of fleet edge has enrolled already; choose another name, or make an enrolment for it by name"
    );
    enrol(&enrolments, &second, &two, Some("edge-2"), now()).await.unwrap();
    enrol(&enrolments, &named, &three, None, now()).await.unwrap();
    assert_eq!(refused(enrol(&enrolments, &first, &one, Some("edge-1"), now()).await), Refused::Revoked);
    let renewed = enrolments.renew(identity("edge-1"), one.hash(), &key(), now()).await;
    assert_eq!(refused(renewed), Refused::OtherKey("edge/edge-1".to_owned()));
}

#[tokio::test]
async fn who_holds_the_key_gets_the_next_certificate_until_the_enrolment_is_revoked() {
    let enrolments = enrolments().await;
    let (made, first, second, third) = (made(&enrolments, None, 1).await, key(), key(), key());
    let renew = async |held: &RequestedKey, key: &RequestedKey| {
        enrolments.renew(identity("edge-1"), held.hash(), key, now()).await
    };
    assert_eq!(refused(renew(&first, &second).await), Refused::NotEnrolled("edge/edge-1".to_owned()));
    enrol(&enrolments, &made, &first, Some("edge-1"), now()).await.unwrap();
    let renewed = renew(&first, &second).await.unwrap();
    assert_eq!(key_hash(&der(&renewed.certified.certificate_pem)), Some(*second.hash()));
    assert_eq!(renewed.certified.uri, "spiffe://test.example/fleet/edge/proxy/edge-1");
    renew(&first, &third).await.expect("that answer may have been lost");
    assert_eq!(refused(renew(&second, &third).await), Refused::OtherKey("edge/edge-1".to_owned()));
    let by = By { name: "ada", address: None };
    let revoked = enrolments.revoke(&made.id, by, now()).await.unwrap();
    assert!(revoked.revoked_at.is_some());
    assert_eq!(refused(renew(&third, &second).await), Refused::NotEnrolled("edge/edge-1".to_owned()));
    assert!(matches!(enrolments.revoke(&made.id, by, now()).await, Err(EnrolmentError::NotFound(_))));
}

#[tokio::test]
async fn without_a_ca_nobody_enrols() {
    let enrolments = Enrolments::new(store::open("sqlite::memory:").await.unwrap(), None);
    let by = By { name: "ada", address: None };
    let made = enrolments.create(new(None), by, now(), &mut StdRng::seed_from_u64(1)).await;
    assert!(matches!(made, Err(EnrolmentError::NoAuthority)));
    let renewed = enrolments.renew(identity("edge-1"), &[0; 32], &key(), now()).await;
    assert!(matches!(renewed, Err(EnrolmentError::NoAuthority)));
}
