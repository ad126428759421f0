//! How far revisions have come to fleets.

use chancery_control_plane::store::RolloutRecord;

use super::open;

fn record(fleet: &str, step: u64, state: &str) -> RolloutRecord {
    RolloutRecord { fleet: fleet.to_owned(), step, state: format!("{{\"words\":\"it's {state} 😀\"}}") }
}

pub async fn a_rollout_is_moved_on_from_where_it_is(url: &str) {
    let store = open(url).await;
    assert_eq!(store.rollouts().await.unwrap(), []);
    assert!(!store.move_rollout(record("edge", 2, "nowhere")).await.unwrap(), "there is none yet");
    let (first, other) = (record("edge", 1, "tried"), record("Edge", 1, "other"));
    assert!(store.move_rollout(first.clone()).await.unwrap());
    assert!(store.move_rollout(other.clone()).await.unwrap());
    assert!(!store.move_rollout(record("edge", 1, "tried again")).await.unwrap(), "somebody was first");
    assert_eq!(store.rollouts().await.unwrap(), [other.clone(), first], "by bytes");
    let second = record("edge", 2, "good");
    assert!(store.move_rollout(second.clone()).await.unwrap());
    assert!(!store.move_rollout(record("edge", 2, "bad")).await.unwrap(), "somebody was first");
    assert!(!store.move_rollout(record("edge", 4, "far")).await.unwrap(), "there is no third");
    assert_eq!(store.rollouts().await.unwrap(), [other.clone(), second]);
    store.forget_rollout("edge").await.unwrap();
    assert_eq!(store.rollouts().await.unwrap(), [other]);
    assert_eq!(store.head().await.unwrap(), 0, "that is no revision");
}
