use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::store;

fn at(minutes: i64) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000) + time::Duration::minutes(minutes)
}

fn new(name: &str) -> NewToken {
    let grants = Grants {
        role: Role::Owner,
        teams: vec!["payments".parse().unwrap()],
        scopes: vec!["routes:write".parse().unwrap()],
    };
    NewToken { name: name.parse().unwrap(), grants, ttl: time::Duration::minutes(60) }
}

/// Two replicas on one database, which lives as long as the folder.
async fn replicas() -> (tempfile::TempDir, [Tokens; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("db").display());
    let open = async || Tokens::load(store::open(&url).await.unwrap()).await.unwrap();
    let replicas = [open().await, open().await];
    (folder, replicas)
}

fn by(name: &str) -> By<'_> {
    By { name, address: None }
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

#[tokio::test]
async fn a_token_says_who_it_is_until_it_expires() {
    let (_folder, [here, there]) = replicas().await;
    let made = here.create(new("ci"), by("admin"), at(0), &mut rng()).await.unwrap();
    for replica in [&here, &there] {
        let (principal, until) = replica.identify(made.token.expose(), at(59)).await.unwrap();
        let [Grant { role, teams, scopes }] = principal.grants() else { panic!("one grant") };
        assert_eq!((principal.name.as_str(), *role, until), ("ci", Role::Owner, at(60)));
        assert!(teams.contains("payments") && scopes.len() == 1);
        assert_eq!(replica.identify(made.token.expose(), at(60)).await, Err(Refused::Expired));
    }
    for text in ["", "chy_", "nothing", &format!("{} ", made.token.expose())] {
        assert_eq!(here.identify(text, at(1)).await, Err(Refused::Unknown), "{text}");
    }
    let record = &here.list().await.unwrap()[0];
    assert_eq!(record.last_used_at, Some(at(59)));
    assert!(!format!("{record:?}").contains(made.token.expose().as_str()));
}

#[tokio::test]
async fn a_name_is_given_once() {
    let (_folder, [here, there]) = replicas().await;
    let mut rng = rng();
    let made = here.create(new("ci"), by("admin"), at(0), &mut rng).await.unwrap();
    let twice = there.create(new("ci"), by("admin"), at(0), &mut rng).await.unwrap_err();
    assert_eq!(twice.to_string(), "token ci exists already");
    here.revoke(&made.id, by("admin"), at(1)).await.unwrap();
    there.create(new("ci"), by("admin"), at(2), &mut rng).await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing_here_at_once_and_elsewhere_when_that_looks() {
    let (_folder, [here, there]) = replicas().await;
    let made = here.create(new("ci"), by("admin"), at(0), &mut rng()).await.unwrap();
    there.identify(made.token.expose(), at(1)).await.unwrap();
    here.revoke(&made.id, by("admin"), at(1)).await.unwrap();
    assert_eq!(here.identify(made.token.expose(), at(1)).await, Err(Refused::Unknown));
    there.catch_up().await.unwrap();
    assert_eq!(there.identify(made.token.expose(), at(1)).await, Err(Refused::Unknown));
    assert!(matches!(here.revoke(&made.id, by("admin"), at(2)).await, Err(TokenError::Unknown(_))));
    assert!(matches!(
        here.rotate(&made.id, time::Duration::ZERO, by("admin"), at(2), &mut rng()).await,
        Err(TokenError::Unknown(_))
    ));
}

#[tokio::test]
async fn a_replica_follows_what_others_do() {
    let (_folder, [here, there]) = replicas().await;
    let (there, stop) = (Arc::new(there), CancellationToken::new());
    let following = tokio::spawn(there.clone().run(stop.clone()));
    let made = here.create(new("ci"), by("admin"), at(0), &mut rng()).await.unwrap();
    there.identify(made.token.expose(), at(1)).await.unwrap();
    here.revoke(&made.id, by("admin"), at(1)).await.unwrap();
    let refused = async {
        while there.identify(made.token.expose(), at(1)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), refused).await.expect("it hears of the revocation");
    stop.cancel();
    following.await.unwrap();
    assert_eq!(here.list().await.unwrap()[0].last_used_at, Some(at(1)), "what was used is noted in the end");
}

#[tokio::test]
async fn the_secret_before_is_good_for_a_while() {
    let (_folder, [here, _]) = replicas().await;
    let mut rng = rng();
    let old = here.create(new("ci"), by("admin"), at(0), &mut rng).await.unwrap();
    let new = here.rotate(&old.id, time::Duration::minutes(10), by("admin"), at(30), &mut rng).await.unwrap();
    assert_eq!((&new.id, new.expires_at), (&old.id, at(90)));
    assert!(here.identify(old.token.expose(), at(39)).await.is_ok());
    assert_eq!(here.identify(old.token.expose(), at(40)).await, Err(Refused::Expired));
    assert!(here.identify(new.token.expose(), at(89)).await.is_ok());
    here.revoke(&new.id, by("admin"), at(31)).await.unwrap();
    for made in [&old, &new] {
        assert_eq!(here.identify(made.token.expose(), at(31)).await, Err(Refused::Unknown));
    }
}

#[tokio::test]
async fn without_the_database_what_is_known_goes_on_for_a_while() {
    let (_folder, [here, _]) = replicas().await;
    let made = here.create(new("ci"), by("admin"), at(0), &mut rng()).await.unwrap();
    here.store.close().await;
    assert!(here.catch_up().await.is_err());
    assert!(here.identify(made.token.expose(), at(1)).await.is_ok());
    assert_eq!(here.identify("chy_unknown", at(1)).await, Err(Refused::Unknown));
    *here.confirmed.lock() = Instant::now().checked_sub(GOES_ON + Duration::from_secs(1)).unwrap();
    assert_eq!(here.identify(made.token.expose(), at(1)).await, Err(Refused::Unsure));
}
