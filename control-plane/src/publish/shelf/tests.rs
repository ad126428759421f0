use std::time::SystemTime;

use super::*;

const ROUTES: &str = type_url::VIRTUAL_HOST;
const CLUSTERS: &str = type_url::CLUSTER;

/// A shelf, and a clock.
struct Bench {
    shelf: Shelf,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { shelf: Shelf::new(), now: Instant::now() }
    }

    fn publish(&self, revision: u64, changes: &[(&str, &str, Option<&str>)]) {
        let mut update = Update::default();
        for (type_url, name, body) in changes {
            match body {
                Some(body) => update.upsert(*type_url, Resource::new(type_url, *name, body.as_bytes())),
                None => update.remove(*type_url, *name),
            }
        }
        self.shelf.publish(revision, update, &BTreeMap::new());
    }

    fn set(&self, revision: u64, names: &[&str], body: &str) {
        self.publish(revision, &names.iter().map(|name| (ROUTES, *name, Some(body))).collect::<Vec<_>>());
    }

    fn ack(&self, names: &[&str]) -> bool {
        self.shelf.acknowledged(&ROUTES.into(), self.shelf.cache().head(), &texts(names), self.now)
    }

    fn nack_at(&self, type_url: &str, sequence: u64, set: &[&str], blamed: &[&str]) -> Vec<Name> {
        let (set, blamed) = (texts(set), texts(blamed));
        let rejected = Rejected {
            type_url: &type_url.into(),
            sequence,
            set: &set,
            blamed: &blamed,
            proxy: "one",
            words: "bad",
            at: SystemTime::UNIX_EPOCH,
        };
        self.shelf.rejected(&rejected, self.now)
    }

    fn nack(&self, set: &[&str], blamed: &[&str]) -> Vec<Name> {
        self.nack_at(ROUTES, self.shelf.cache().head(), set, blamed)
    }

    /// What is served, as `name=body`.
    fn served(&self, type_url: &str) -> Vec<String> {
        let known = ["0", "1", "2", "3", "bad"];
        let tables = self.shelf.cache().snapshot();
        let body = |resource: &Resource| {
            let body = known.iter().find(|body| Version::of(body.as_bytes()) == resource.version());
            format!("{}={}", resource.name(), body.unwrap_or(&"?"))
        };
        tables.table(type_url).resources().map(body).collect()
    }

    fn quarantined(&self) -> Vec<String> {
        self.shelf.quarantined().keys().map(|(_, name)| name.to_string()).collect()
    }
}

fn texts(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

#[test]
fn what_is_rejected_is_taken_back_and_all_else_stays() {
    let bench = Bench::new();
    bench.set(1, &["a", "b"], "1");
    bench.ack(&["a", "b"]);
    bench.publish(2, &[(ROUTES, "a", Some("bad")), (ROUTES, "b", Some("2"))]);
    assert_eq!(bench.served(ROUTES), ["a=bad", "b=2"]);
    assert_eq!(bench.nack(&["a", "b"], &["a"]), texts(&["a"]));
    assert_eq!(bench.served(ROUTES), ["a=1", "b=2"]);
    let quarantined = bench.shelf.quarantined();
    let (id, what) = quarantined.first_key_value().unwrap();
    assert_eq!((&*id.1, what.cause.revision, what.cause.words.as_str()), ("a", 2, "bad"));
    assert_eq!(revision_at(bench.shelf.cache().head()), 2, "a step is no revision");
}

#[test]
fn what_was_in_the_response_besides_is_sent_again() {
    let bench = Bench::new();
    bench.set(1, &["a", "b"], "1");
    bench.ack(&["a", "b"]);
    bench.publish(2, &[(ROUTES, "a", Some("bad")), (ROUTES, "b", Some("2"))]);
    let before = bench.shelf.cache().head();
    bench.nack(&["a", "b"], &["a"]);
    let tables = bench.shelf.cache().snapshot();
    let changed: Vec<_> = tables.table(ROUTES).changes_since(before).unwrap().map(|(name, _)| &**name).collect();
    assert_eq!(changed, ["a", "b"]);
}

#[test]
fn what_somebody_has_acknowledged_stays() {
    let bench = Bench::new();
    bench.set(1, &["a"], "1");
    bench.set(2, &["a"], "2");
    assert!(!bench.ack(&["a"]));
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&[]));
    assert_eq!(bench.served(ROUTES), ["a=2"]);
}

/// The proxy that rejects everything was quicker.
#[test]
fn what_somebody_acknowledges_after_it_was_rejected_is_served_again() {
    let bench = Bench::new();
    bench.set(1, &["a", "b"], "1");
    bench.ack(&["a", "b"]);
    let before = bench.shelf.cache().head();
    bench.set(2, &["a", "b"], "2");
    let sent = bench.shelf.cache().head();
    let ack_at = |sequence| bench.shelf.acknowledged(&ROUTES.into(), sequence, &texts(&["a", "b"]), bench.now);
    assert_eq!(bench.nack(&["a", "b"], &["a"]), texts(&["a"]));
    assert!(!ack_at(before) && bench.quarantined() == ["a"], "that was the version before");
    assert!(!ack_at(bench.shelf.cache().head()) && bench.quarantined() == ["a"], "that is the one before as well");
    assert!(ack_at(sent));
    assert_eq!((bench.served(ROUTES), bench.quarantined()), (vec!["a=2".into(), "b=2".into()], vec![]));
    assert_eq!(bench.nack(&["a", "b"], &["a"]), texts(&[]), "it is good");

    // The same for suspects, of which one is offered alone meanwhile.
    bench.set(3, &["a", "b"], "3");
    let sent = bench.shelf.cache().head();
    bench.nack(&["a", "b"], &[]);
    assert_eq!(bench.served(ROUTES), ["a=3", "b=2"]);
    assert!(ack_at(sent));
    assert_eq!((bench.served(ROUTES), bench.quarantined()), (vec!["a=3".into(), "b=3".into()], vec![]));
}

#[test]
fn the_verdict_on_an_older_version_says_nothing() {
    let bench = Bench::new();
    bench.set(1, &["a"], "1");
    bench.ack(&["a"]);
    bench.set(2, &["a"], "bad");
    let old = bench.shelf.cache().head();
    bench.set(3, &["a"], "3");
    assert_eq!(bench.nack_at(ROUTES, old, &["a"], &["a"]), texts(&[]));
    assert_eq!(bench.served(ROUTES), ["a=3"]);
    bench.shelf.acknowledged(&ROUTES.into(), old, &texts(&["a"]), bench.now);
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&["a"]), "it was not acknowledged");
    assert_eq!(bench.served(ROUTES), ["a=1"], "the last good one, not the last");
}

#[test]
fn a_revision_ends_a_quarantine_if_it_changes_the_resource() {
    let bench = Bench::new();
    bench.set(1, &["a", "b"], "1");
    bench.ack(&["a", "b"]);
    bench.set(2, &["a"], "bad");
    bench.nack(&["a"], &["a"]);
    bench.publish(3, &[(ROUTES, "a", Some("bad")), (ROUTES, "b", Some("2"))]);
    assert_eq!((bench.served(ROUTES), bench.quarantined()), (vec!["a=1".into(), "b=2".into()], vec!["a".into()]));
    bench.set(4, &["a"], "3");
    assert_eq!((bench.served(ROUTES), bench.quarantined()), (vec!["a=3".into(), "b=2".into()], vec![]));
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&["a"]));
    assert_eq!(bench.served(ROUTES), ["a=1", "b=2"], "that is good still");
    bench.set(5, &["a"], "1");
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&[]), "and needs no trial");
    bench.set(6, &["a"], "bad");
    bench.nack(&["a"], &["a"]);
    bench.publish(7, &[(ROUTES, "a", None)]);
    assert_eq!((bench.served(ROUTES), bench.quarantined()), (vec!["b=2".into()], vec![]));
}

#[test]
fn what_never_was_good_is_not_served_but_for_a_cluster() {
    let bench = Bench::new();
    bench.publish(1, &[(ROUTES, "a", Some("bad")), (CLUSTERS, "a", Some("bad"))]);
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&["a"]));
    assert_eq!(bench.nack_at(CLUSTERS, bench.shelf.cache().head(), &["a"], &["a"]), texts(&[]));
    assert_eq!((bench.served(ROUTES), bench.served(CLUSTERS)), (vec![], vec!["a=bad".into()]));
    bench.set(2, &["a"], "2");
    assert_eq!(bench.served(ROUTES), ["a=2"]);
}

/// The words name none, or all: the good ones come back one by one, the bad one does not.
#[test]
fn suspects_are_tried_alone() {
    for bad in ["a", "b", "c"] {
        let bench = Bench::new();
        bench.set(1, &["a", "b", "c"], "1");
        bench.ack(&["a", "b", "c"]);
        bench.set(2, &["a", "b", "c"], "2");
        let mut set = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let mut answers = 0;
        loop {
            let names: Vec<&str> = set.iter().map(String::as_str).collect();
            let before = bench.shelf.cache().head();
            if bench.served(ROUTES).contains(&format!("{bad}=2")) {
                bench.nack(&names, &names);
            } else {
                bench.ack(&names);
            }
            answers += 1;
            let tables = bench.shelf.cache().snapshot();
            set = tables.table(ROUTES).changes_since(before).unwrap().map(|(name, _)| name.to_string()).collect();
            if set.is_empty() {
                break;
            }
        }
        let expected: Vec<_> = ["a", "b", "c"].map(|name| format!("{name}={}", if name == bad { 1 } else { 2 })).into();
        assert_eq!((bench.served(ROUTES), bench.quarantined()), (expected, vec![bad.to_owned()]));
        assert!(answers <= 5, "{answers} answers");
    }
}

#[test]
fn a_suspect_that_nobody_judges_does_not_hold_up_the_next() {
    let mut bench = Bench::new();
    bench.set(1, &["a", "b"], "1");
    bench.ack(&["a", "b"]);
    bench.set(2, &["a", "b"], "2");
    bench.nack(&["a", "b"], &[]);
    assert_eq!(bench.served(ROUTES), ["a=2", "b=1"]);
    assert!(!bench.shelf.tick(bench.now));
    bench.now += ALONE;
    assert!(bench.shelf.tick(bench.now));
    assert_eq!(bench.served(ROUTES), ["a=2", "b=2"]);
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&["a"]), "it is still on trial");
    assert_eq!(bench.served(ROUTES), ["a=1", "b=2"]);
}

#[test]
fn another_replica_finds_the_same_and_releases_it() {
    let (one, other) = (Bench::new(), Bench::new());
    for bench in [&one, &other] {
        bench.set(1, &["a"], "1");
        bench.ack(&["a"]);
        bench.set(2, &["a"], "bad");
    }
    one.nack(&["a"], &["a"]);
    let (id, what) = one.shelf.quarantined().pop_first().unwrap();
    let version = what.rejected.version().to_string();
    assert!(!other.shelf.quarantine(id.clone(), "another", what.good.clone(), what.cause.clone()));
    assert!(other.shelf.quarantine(id.clone(), &version, what.good.clone(), what.cause.clone()));
    assert_eq!((other.served(ROUTES), other.shelf.quarantined()), (one.served(ROUTES), one.shelf.quarantined()));
    assert!(!other.shelf.quarantine(id.clone(), &version, what.good, what.cause), "it is not served");
    assert!(other.shelf.release(&id) && !other.shelf.release(&id));
    assert_eq!(other.served(ROUTES), ["a=bad"]);
    assert_eq!(other.nack(&["a"], &["a"]), texts(&["a"]), "it is on trial again");
    assert_eq!(other.served(ROUTES), ["a=1"]);
}

#[test]
fn what_was_served_before_is_not_on_trial() {
    let bench = Bench::new();
    let mut update = Update::default();
    update.upsert(ROUTES, Resource::new(ROUTES, "a", b"1"));
    bench.shelf.fill(sequence_of(7), update);
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&[]));
    assert_eq!(bench.served(ROUTES), ["a=1"]);
}

#[test]
fn a_verdict_counts_for_the_other_shelf_of_the_fleet() {
    let (one, both) = (Arc::new(Shelf::new()), |body: &str| {
        let mut update = Update::default();
        update.upsert(ROUTES, Resource::new(ROUTES, "a", body.as_bytes()));
        update
    });
    one.publish(1, both("1"), &BTreeMap::new());
    let other = one.beside(both("1"));
    let (now, set) = (Instant::now(), texts(&["a"]));
    let ack = |shelf: &Shelf| shelf.acknowledged(&ROUTES.into(), shelf.cache().head(), &set, now);
    let nack = |shelf: &Shelf| {
        let (type_url, sequence, at) = (&ROUTES.into(), shelf.cache().head(), SystemTime::UNIX_EPOCH);
        shelf.rejected(&Rejected { type_url, sequence, set: &set, blamed: &set, proxy: "one", words: "bad", at }, now)
    };
    let served = |shelf: &Shelf| shelf.cache().snapshot().table(ROUTES).resource("a").map(Resource::version);
    let publish = |revision, body: &str| {
        one.publish(revision, both(body), &BTreeMap::new());
        other.publish(revision, both(body), &BTreeMap::new());
    };
    ack(&other);
    assert_eq!(nack(&one), texts(&[]), "it is good on both");
    publish(2, "2");
    assert_eq!(nack(&one), set);
    assert_eq!([served(&one), served(&other)], [Some(Version::of(b"1")); 2]);
    assert_eq!(one.quarantined(), other.quarantined());
    let (id, _) = one.quarantined().pop_first().unwrap();
    one.release(&id);
    assert!(ack(&one), "that ends it on the other");
    assert_eq!([served(&one), served(&other)], [Some(Version::of(b"2")); 2]);
    assert_eq!(nack(&other), texts(&[]));
}

#[test]
fn what_is_on_trial_is_so_on_a_shelf_that_comes_later() {
    let one = Arc::new(Shelf::new());
    let update = |b: &str| {
        let mut update = Update::default();
        update.upsert(ROUTES, Resource::new(ROUTES, "a", b"bad"));
        update.upsert(ROUTES, Resource::new(ROUTES, "b", b.as_bytes()));
        update
    };
    one.publish(1, update("in one form"), &BTreeMap::new());
    let other = one.beside(update("in another"));
    let (type_url, set) = (&ROUTES.into(), texts(&["a", "b"]));
    let sequence = other.cache().head();
    let rejected =
        Rejected { type_url, sequence, set: &set, blamed: &[], proxy: "one", words: "bad", at: SystemTime::UNIX_EPOCH };
    assert_eq!(other.rejected(&rejected, Instant::now()), texts(&["a"]));
    for shelf in [one, other] {
        let tables = shelf.cache().snapshot();
        let left: Vec<_> = tables.table(ROUTES).resources().map(|resource| &**resource.name()).collect();
        assert_eq!(left, ["b"]);
    }
}

#[test]
fn the_clusters_of_the_last_good_version_come_back_with_it() {
    let bench = Bench::new();
    // Length and name, as protobuf writes them.
    let (to_old, to_new) = ("\u{3}old", "\u{3}new");
    bench.publish(1, &[(CLUSTERS, "old", Some("1")), (CLUSTERS, "lone", Some("1")), (ROUTES, "a", Some(to_old))]);
    bench.ack(&["a"]);
    let removed = [(CLUSTERS, "old", None), (CLUSTERS, "lone", None), (CLUSTERS, "new", Some("1"))];
    bench.publish(2, &removed);
    bench.set(3, &["a"], to_new);
    assert_eq!(bench.served(CLUSTERS), ["new=1"]);
    assert_eq!(bench.nack(&["a"], &["a"]), texts(&["a"]));
    assert_eq!(bench.served(CLUSTERS), ["new=1", "old=1"]);
    bench.set(4, &["b"], "1");
    bench.ack(&["b"]);
    assert_eq!(bench.served(CLUSTERS), ["new=1", "old=1"], "for as long as it is served");
    bench.set(5, &["a"], "3");
    assert_eq!(bench.served(CLUSTERS), ["new=1", "old=1"], "or may have to be again");
    bench.ack(&["a"]);
    assert_eq!(bench.served(CLUSTERS), ["new=1"]);
}

#[test]
fn a_cluster_that_a_revision_has_again_is_the_revisions() {
    let bench = Bench::new();
    bench.publish(1, &[(CLUSTERS, "old", Some("1")), (ROUTES, "a", Some("\u{3}old"))]);
    bench.ack(&["a"]);
    bench.publish(2, &[(CLUSTERS, "old", None), (ROUTES, "a", Some("bad"))]);
    bench.nack(&["a"], &["a"]);
    bench.publish(3, &[(CLUSTERS, "old", Some("2")), (ROUTES, "a", Some("3"))]);
    bench.ack(&["a"]);
    assert_eq!(bench.served(CLUSTERS), ["old=2"]);
}

#[test]
fn a_cluster_that_a_last_good_version_needs_is_not_removed_later_either() {
    let bench = Bench::new();
    bench.publish(1, &[(CLUSTERS, "old", Some("1")), (ROUTES, "a", Some("\u{3}old"))]);
    bench.ack(&["a"]);
    bench.set(2, &["a"], "bad");
    bench.nack(&["a"], &["a"]);
    bench.publish(3, &[(CLUSTERS, "old", None)]);
    assert_eq!(bench.served(CLUSTERS), ["old=1"]);
    bench.set(4, &["a"], "3");
    bench.ack(&["a"]);
    assert_eq!(bench.served(CLUSTERS), Vec::<String>::new());
}

#[test]
fn another_that_begins_as_this_one_is_goes_its_own_way_and_can_be_told_what_is_bad() {
    let bench = Bench::new();
    bench.set(1, &["a", "b", "c"], "1");
    bench.ack(&["a", "b", "c"]);
    bench.set(2, &["a"], "bad");
    bench.publish(2, &[(ROUTES, "new", Some("bad"))]);
    bench.nack(&["a"], &["a"]);
    bench.nack(&["new"], &["new"]);
    let fork = Bench { shelf: bench.shelf.fork(), now: bench.now };
    assert_eq!((fork.served(ROUTES), fork.quarantined()), (bench.served(ROUTES), bench.quarantined()));
    fork.set(3, &["a", "b"], "2");
    fork.publish(3, &[(ROUTES, "new", Some("2"))]);
    assert_eq!(fork.served(ROUTES), ["a=2", "b=2", "c=1", "new=2"]);
    assert_eq!(bench.served(ROUTES), ["a=1", "b=1", "c=1"]);
    // Back to where it came from.
    let mut update = Update::default();
    for (name, body) in [("a", "bad"), ("b", "1"), ("new", "bad")] {
        update.upsert(ROUTES, Resource::new(ROUTES, name, body.as_bytes()));
    }
    fork.shelf.publish(2, update, &bench.shelf.quarantined());
    assert_eq!((fork.served(ROUTES), fork.quarantined()), (bench.served(ROUTES), bench.quarantined()));
    assert!(fork.nack(&["a"], &["a"]).is_empty(), "what is good is not on trial");
    fork.set(4, &["a"], "3");
    assert_eq!(fork.quarantined(), ["new"]);
}
