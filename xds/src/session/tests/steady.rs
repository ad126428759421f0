//! Edits that never stop: what is held back is sent all the same, in a state that once was, and nothing piles up.

use super::{
    laws::{Edit, Step, World},
    proxy::Dialect,
    *,
};

/// A route moves to a new service, and the one that it leaves is deleted, with every way that anything takes.
fn routes_move_on_with_their_clusters<D: Dialect<Request: std::fmt::Debug>>() {
    const EDITS: usize = 120;
    let mut world = World::<D>::new();
    world.quiesce();
    let mut versions = Vec::new();
    for edit in 0..EDITS {
        world.take(&Step::Edit(Edit::Swap(0, edit)));
        world.take(&Step::Wait);
        let held = world.proxy.held(type_url::ROUTE)["listener-0"].0.clone();
        if versions.last() != Some(&held) {
            versions.push(held);
        }
        let clusters = world.proxy.held(type_url::CLUSTER).len();
        assert!(clusters < 30, "{clusters} after {edit} edits");
    }
    // Six ways for each of two answers.
    assert!(versions.len() >= EDITS / 12, "{} of {EDITS} versions arrived", versions.len());
}

#[test]
fn routes_move_on_with_their_clusters_incrementally() {
    routes_move_on_with_their_clusters::<Delta>();
}

#[test]
fn routes_move_on_with_their_clusters_with_full_state() {
    routes_move_on_with_their_clusters::<Sotw>();
}

/// A stream that holds routes back for a cluster that was not answered for, and what it holds them in.
fn holding(cache: &Cache, now: Instant) -> (Session<Delta>, Arc<Tables>) {
    apply(cache, 1, &[type_url::CLUSTER, type_url::ROUTE], &[]);
    let mut session = session::<Delta>(now);
    ask(&mut session, cache, type_url::CLUSTER).unwrap();
    ask(&mut session, cache, type_url::ROUTE).unwrap();
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), ["cluster"]);
    let held = cache.snapshot();
    apply(cache, 2, &[type_url::CLUSTER, type_url::ROUTE], &[]);
    assert_eq!(names(&session.turn(&cache.snapshot(), now).unwrap()), [""; 0]);
    assert_eq!(Arc::strong_count(&held), 2, "the stream stays at it");
    (session, held)
}

#[test]
fn when_patience_ends_what_was_held_back_is_sent_and_no_other() {
    let (cache, now) = (Cache::new(), Instant::now());
    let (mut session, held) = holding(&cache, now);
    let turn = session.turn(&cache.snapshot(), now + PATIENCE).unwrap();
    let sent: Vec<_> = turn.replies.iter().map(|(type_url, sent, _)| (&**type_url, sent.sequence)).collect();
    assert_eq!(sent, [(type_url::ROUTE, 1), (type_url::CLUSTER, 2)]);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_stream_that_sends_nothing_keeps_nothing() {
    let (cache, now) = (Cache::new(), Instant::now());
    let (mut session, held) = holding(&cache, now);
    session.unpin();
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_type_that_is_asked_for_while_others_are_held_back_joins_them() {
    let (cache, now) = (Cache::new(), Instant::now());
    let (mut session, _) = holding(&cache, now);
    apply(&cache, 3, &[type_url::LISTENER, "unordered"], &[]);
    ask(&mut session, &cache, type_url::LISTENER).unwrap();
    ask(&mut session, &cache, "unordered").unwrap();
    let turn = session.turn(&cache.snapshot(), now).unwrap();
    let sent: Vec<_> = turn.replies.iter().map(|(t, sent, _)| (&**t, sent.sequence, sent.names.len())).collect();
    assert_eq!(sent, [(type_url::LISTENER, 1, 0), ("unordered", 3, 1)], "there was no listener yet");
}
