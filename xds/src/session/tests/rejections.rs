//! What a client rejects, or never answers, and what must wait for that.

use chancery_proto::google::rpc::Status;

use super::{proxy::route_to, *};

/// A client that has route `r` to cluster `a`.
struct World {
    cache: Cache,
    session: Session<Delta>,
    now: Instant,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self { cache: Cache::new(), session: session(now), now };
        world.apply(1, &[(type_url::CLUSTER, "a", "1"), (type_url::ROUTE, "r", &route_to("a"))], &[]);
        for type_url in [type_url::CLUSTER, type_url::LISTENER, type_url::ROUTE] {
            ask(&mut world.session, &world.cache, type_url).unwrap();
        }
        while !world.sends(&[]).is_empty() {}
        world
    }

    fn apply(&self, sequence: u64, set: &[(&str, &str, &str)], removed: &[(&str, &str)]) {
        let mut update = Update::default();
        for (type_url, name, body) in set {
            update.upsert(*type_url, Resource::new(type_url, *name, body.as_bytes()));
        }
        for (type_url, name) in removed {
            update.remove(*type_url, *name);
        }
        self.cache.apply(sequence, update);
    }

    /// What a turn sends, and the client answers. It rejects the responses that have one of the names `bad` in them.
    fn sends(&mut self, bad: &[&str]) -> Vec<String> {
        let replies = self.turn();
        self.answer(&replies, bad);
        lines(&replies)
    }

    fn turn(&mut self) -> Vec<Reply> {
        self.session.turn(&self.cache.snapshot(), self.now).unwrap().replies
    }

    fn answer(&mut self, replies: &[Reply], bad: &[&str]) {
        for (type_url, sent, _) in replies {
            let bad: Vec<&str> = sent.names.iter().map(|name| &**name).filter(|name| bad.contains(name)).collect();
            let message = format!("Error adding/updating cluster(s) {}: bad", bad.join(": bad, "));
            let request = DeltaDiscoveryRequest {
                response_nonce: sent.nonce.to_string(),
                error_detail: (!bad.is_empty()).then_some(Status { message, ..Status::default() }),
                ..DeltaDiscoveryRequest::default()
            };
            self.session.on_request(type_url, request, &self.cache.snapshot()).unwrap();
        }
    }
}

type Reply = (TypeUrl, Sent, DeltaReply);

/// Type, what is set and what is removed.
fn lines(replies: &[Reply]) -> Vec<String> {
    let line = |(type_url, _, reply): &Reply| {
        let set = reply.upserts.iter().map(|resource| resource.name().to_string());
        let names = set.chain(reply.removed.iter().map(|name| format!("-{name}"))).collect::<Vec<_>>();
        format!("{} {}", type_url::short_name(type_url), names.join(" "))
    };
    replies.iter().map(line).collect()
}

#[test]
fn a_route_that_is_rejected_keeps_its_old_cluster_until_another_is_taken() {
    let mut world = World::new();
    let b = [(type_url::CLUSTER, "b", "1"), (type_url::ROUTE, "r", &*route_to("b"))];
    world.apply(2, &b, &[(type_url::CLUSTER, "a")]);
    assert_eq!(world.sends(&[]), ["cluster b"]);
    assert_eq!(world.sends(&["r"]), ["route r"]);
    assert_eq!(world.sends(&[]), [""; 0]);
    for _ in 0..2 {
        world.now += PATIENCE;
        assert_eq!(world.sends(&[]), [""; 0], "however long it takes");
    }
    let turn = world.session.turn(&world.cache.snapshot(), world.now).unwrap();
    assert_eq!((turn.settled, turn.look_again), (Some(1), None));
    // Others go on.
    world.apply(3, &[(type_url::CLUSTER, "c", "1"), (type_url::ROUTE, "other", &route_to("c"))], &[]);
    assert_eq!(world.sends(&[]), ["cluster c"]);
    assert_eq!(world.sends(&[]), ["route other"]);
    assert_eq!(world.sends(&[]), [""; 0]);
    world.apply(4, &[(type_url::ROUTE, "r", &route_to("c"))], &[]);
    assert_eq!(world.sends(&[]), ["route r"]);
    assert_eq!(world.sends(&[]), ["cluster -a"]);
}

#[test]
fn a_rejected_route_that_is_removed_lets_go_of_its_cluster() {
    let mut world = World::new();
    world.apply(2, &[(type_url::ROUTE, "r", "?")], &[(type_url::CLUSTER, "a")]);
    assert_eq!(world.sends(&["r"]), ["route r"]);
    assert_eq!(world.sends(&[]), [""; 0]);
    world.apply(3, &[], &[(type_url::ROUTE, "r")]);
    assert_eq!(world.sends(&[]), ["route -r"]);
    assert_eq!(world.sends(&[]), ["cluster -a"]);
}

#[test]
fn a_host_that_is_kept_back_has_waited_since_it_changed() {
    let mut world = World::new();
    let hosts = [(type_url::ROUTE, "web", "1"), (type_url::VIRTUAL_HOST, "web/h", &*route_to("a"))];
    world.apply(2, &hosts, &[(type_url::ROUTE, "r")]);
    ask(&mut world.session, &world.cache, type_url::VIRTUAL_HOST).unwrap();
    while !world.sends(&[]).is_empty() {}
    let moved = [(type_url::CLUSTER, "b", "1"), (type_url::VIRTUAL_HOST, "web/h", &*route_to("b"))];
    world.apply(5, &moved, &[(type_url::CLUSTER, "a")]);
    assert_eq!(world.sends(&["b"]), ["cluster b"]);
    assert_eq!(world.sends(&[]), [""; 0]);
    world.apply(8, &[(type_url::ROUTE, "web", "2")], &[]);
    assert_eq!(world.sends(&[]), ["route web"], "and its host again, but that is kept back");
    assert_eq!(world.sends(&[]), [""; 0], "the host that the client has still goes to a");
}

#[test]
fn a_route_to_a_new_cluster_that_was_rejected_is_kept_back_and_no_other() {
    let mut world = World::new();
    let set = [
        (type_url::CLUSTER, "b", "1"),
        (type_url::CLUSTER, "c-1", "1"),
        (type_url::ROUTE, "r", &*route_to("b")),
        (type_url::ROUTE, "s", &*route_to("c-1")),
    ];
    world.apply(2, &set, &[(type_url::CLUSTER, "a")]);
    assert_eq!(world.sends(&["b"]), ["cluster b c-1"]);
    assert_eq!(world.sends(&[]), ["route s"]);
    world.now += PATIENCE;
    assert_eq!(world.sends(&[]), [""; 0], "nor is what the old route needs removed");
    world.apply(3, &[(type_url::ROUTE, "t", &route_to("b"))], &[]);
    assert_eq!(world.sends(&[]), [""; 0], "a later one as well");
    assert_eq!(world.session.turn(&world.cache.snapshot(), world.now).unwrap().kept_back, Some(3));
    world.apply(4, &[(type_url::ROUTE, "t", &route_to("c-1"))], &[]);
    assert_eq!(world.sends(&[]), ["route t"], "until it does not name it any more");
    world.apply(5, &[(type_url::CLUSTER, "b", "2")], &[]);
    assert_eq!(world.sends(&["b"]), ["cluster b"]);
    assert_eq!(world.sends(&[]), [""; 0], "a change that is rejected as well is no help");
    world.apply(6, &[(type_url::CLUSTER, "b", "3")], &[]);
    assert_eq!(world.sends(&[]), ["cluster b"]);
    assert_eq!(world.sends(&[]), ["route r"]);
    assert_eq!(world.sends(&[]), ["cluster -a"]);
    let turn = world.session.turn(&world.cache.snapshot(), world.now).unwrap();
    assert_eq!((turn.settled, turn.kept_back), (Some(6), None));
}

#[test]
fn a_rejected_change_of_a_cluster_that_the_client_has_keeps_no_route_back() {
    let mut world = World::new();
    world.apply(2, &[(type_url::CLUSTER, "a", "2"), (type_url::ROUTE, "s", &route_to("a"))], &[]);
    assert_eq!(world.sends(&["a"]), ["cluster a"]);
    assert_eq!(world.sends(&[]), ["route s"]);
}

#[test]
fn a_rejected_cluster_that_is_removed_keeps_nothing_back() {
    let mut world = World::new();
    world.apply(2, &[(type_url::CLUSTER, "b", "1"), (type_url::ROUTE, "r", &route_to("b"))], &[]);
    assert_eq!(world.sends(&["b"]), ["cluster b"]);
    assert_eq!(world.sends(&[]), [""; 0]);
    world.apply(3, &[(type_url::ROUTE, "r", &route_to("a"))], &[(type_url::CLUSTER, "b")]);
    assert_eq!(world.sends(&[]), ["route r"]);
    assert_eq!(world.sends(&[]), ["cluster -b"]);
}

#[test]
fn a_rejection_that_comes_while_a_removal_waits_stops_its_clock() {
    let mut world = World::new();
    world.apply(2, &[(type_url::ROUTE, "r", "?")], &[(type_url::CLUSTER, "a")]);
    let routes = world.turn();
    assert_eq!(lines(&routes), ["route r"]);
    assert_eq!(lines(&world.turn()), [""; 0]);
    world.answer(&routes, &["r"]);
    for _ in 0..2 {
        world.now += PATIENCE;
        assert_eq!(world.sends(&[]), [""; 0]);
    }
    world.apply(3, &[], &[(type_url::ROUTE, "r")]);
    assert_eq!(lines(&world.turn()), ["route -r"]);
    assert_eq!(lines(&world.turn()), [""; 0], "it begins anew");
    world.now += PATIENCE;
    assert_eq!(lines(&world.turn()), ["cluster -a"]);
}

#[test]
fn each_removal_waits_for_its_own_time() {
    let mut world = World::new();
    world.apply(2, &[(type_url::CLUSTER, "b", "1"), (type_url::ROUTE, "s", &route_to("b"))], &[]);
    while !world.sends(&[]).is_empty() {}
    world.apply(3, &[(type_url::ROUTE, "r", &route_to("b"))], &[(type_url::CLUSTER, "a")]);
    assert_eq!(lines(&world.turn()), ["route r"], "which is never answered");
    assert_eq!(lines(&world.turn()), [""; 0]);
    world.now += PATIENCE / 2;
    let c = [
        (type_url::CLUSTER, "c", "1"),
        (type_url::ROUTE, "r", &*route_to("c")),
        (type_url::ROUTE, "s", &*route_to("c")),
    ];
    world.apply(4, &c, &[(type_url::CLUSTER, "b")]);
    assert_eq!(world.sends(&[]), ["cluster c"]);
    assert_eq!(world.sends(&[]), [""; 0]);
    world.now += PATIENCE / 2;
    assert_eq!(world.sends(&[]), ["cluster -a"], "the client may still have a route to b");
    assert_eq!(lines(&world.turn()), ["route r s"]);
    assert_eq!(lines(&world.turn()), [""; 0]);
    world.now += PATIENCE - Duration::from_millis(1);
    assert_eq!(lines(&world.turn()), [""; 0], "its own time begins when the routes are sent");
    world.now += Duration::from_millis(1);
    assert_eq!(lines(&world.turn()), ["cluster -b"]);
}
