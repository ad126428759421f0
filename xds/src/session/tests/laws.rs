//! Make before break, whatever happens in whatever order: an Envoy (`proxy.rs`) never has a route to a cluster that is
//! not there, never waits for ever, and ends with what the cache has. So it is if it rejects what it is sent, too,
//! once it is sent better; and if edits go on for longer than the patience of the stream, as long as its own answers come
//! sooner.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::{
    proxy::{Dialect, Proxy, route_to},
    *,
};
use crate::subscription::State;

/// A configuration in which every route sends to a service that exists.
#[derive(Clone, Debug, Default)]
struct Catalog {
    /// Body of the cluster, body of its endpoints.
    services: BTreeMap<String, (u8, u8)>,
    /// The service of each listener's route.
    listeners: BTreeMap<String, String>,
    /// Part of everything.
    edition: u8,
}

#[derive(Clone, Debug)]
pub(super) enum Edit {
    Service(usize, u8),
    Endpoints(usize, u8),
    /// Moves a route to a service, which may be new.
    Route(usize, usize),
    /// The same, and the service it leaves is deleted at once if it is free.
    Swap(usize, usize),
    DropService(usize),
    DropListener(usize),
    /// Changes everything.
    Edition,
}

impl Catalog {
    fn edit(&mut self, edit: &Edit) {
        let service = |i: &usize| format!("service-{i}");
        let listener = |i: &usize| format!("listener-{i}");
        match edit {
            Edit::Service(i, body) => self.services.entry(service(i)).or_default().0 = *body,
            Edit::Endpoints(i, body) => self.services.entry(service(i)).or_default().1 = *body,
            Edit::Route(l, i) => {
                self.services.entry(service(i)).or_default();
                self.listeners.insert(listener(l), service(i));
            }
            Edit::Swap(l, i) => {
                let left = self.listeners.get(&listener(l)).cloned();
                self.edit(&Edit::Route(*l, *i));
                if let Some(left) = left {
                    self.drop_free(&left);
                }
            }
            Edit::DropService(i) => self.drop_free(&service(i)),
            Edit::DropListener(l) => {
                self.listeners.remove(&listener(l));
            }
            Edit::Edition => self.edition += 1,
        }
    }

    fn drop_free(&mut self, service: &str) {
        if !self.listeners.values().any(|used| used == service) {
            self.services.remove(service);
        }
    }

    fn resources(&self) -> Vec<(&'static str, String, String)> {
        let services = self.services.iter().flat_map(|(name, (cluster, endpoints))| {
            [
                (type_url::CLUSTER, name.clone(), format!("{cluster} {}", self.edition)),
                (type_url::ENDPOINT, name.clone(), format!("{endpoints} {}", self.edition)),
            ]
        });
        let listeners = self.listeners.iter().flat_map(|(name, service)| {
            [
                (type_url::LISTENER, name.clone(), format!("listener {}", self.edition)),
                (type_url::ROUTE, name.clone(), format!("{}{}", route_to(service), self.edition)),
            ]
        });
        services.chain(listeners).collect()
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Edit(Edit),
    Deliver,
    /// The client reads a response. What is new in it under names that end in one of these digits, it rejects.
    Read(&'static str),
    Turn,
    /// The connection takes nothing for a moment.
    Block,
    Reconnect,
    /// Time goes on, by as much as anything may be under way.
    Wait,
}

/// The longest that anything is under way. Clusters take six ways, and routes may wait for them twice.
const WAY: Duration = Duration::from_millis(5000 / 40);

fn edit() -> impl Strategy<Value = Edit> {
    let service = || 0..4_usize;
    let listener = || 0..2_usize;
    prop_oneof![
        (service(), any::<u8>()).prop_map(|(i, body)| Edit::Service(i, body)),
        (service(), any::<u8>()).prop_map(|(i, body)| Edit::Endpoints(i, body)),
        (listener(), service()).prop_map(|(l, i)| Edit::Route(l, i)),
        (listener(), service()).prop_map(|(l, i)| Edit::Swap(l, i)),
        service().prop_map(Edit::DropService),
        listener().prop_map(Edit::DropListener),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => edit().prop_map(Step::Edit),
        8 => Just(Step::Deliver),
        8 => Just(Step::Read("")),
        8 => Just(Step::Turn),
        1 => Just(Step::Block),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Wait),
    ]
}

fn step_with_rejections() -> impl Strategy<Value = Step> {
    let bad = prop_oneof![Just("0"), Just("1"), Just("2"), Just("3"), Just("012"), Just("0123")];
    prop_oneof![4 => step(), 1 => bad.prop_map(Step::Read)]
}

/// What happens in the time that anything may be under way; there is always an edit, and most move a route.
fn round(step: impl Strategy<Value = Step>) -> impl Strategy<Value = Vec<Step>> {
    let first = prop_oneof![
        1 => edit(),
        4 => (0..2_usize, 0..6_usize).prop_map(|(l, i)| Edit::Swap(l, i)),
    ];
    let steps = (first.prop_map(Step::Edit), prop::collection::vec(step, 0..6));
    steps.prop_map(|(first, rest)| [first].into_iter().chain(rest).chain([Step::Wait]).collect())
}

/// An Envoy, a server, and the wire between them.
pub(super) struct World<D: Dialect> {
    catalog: Catalog,
    cache: Cache,
    sequence: u64,
    session: Session<D>,
    pub(super) proxy: Proxy<D>,
    responses: VecDeque<(TypeUrl, Sent, D::Reply)>,
    now: Instant,
    /// What was said, for whoever has to read a failure.
    said: String,
}

impl<D: Dialect<Request: std::fmt::Debug>> World<D> {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let mut world = Self {
            catalog: Catalog::default(),
            cache: Cache::new(),
            sequence: 0,
            session: session(now),
            proxy: Proxy::new(),
            responses: VecDeque::new(),
            now,
            said: String::new(),
        };
        world.edit(&Edit::Route(0, 0));
        world
    }

    fn edit(&mut self, edit: &Edit) {
        let before = self.catalog.resources();
        self.catalog.edit(edit);
        let after = self.catalog.resources();
        let mut update = Update::default();
        for (type_url, name, body) in &after {
            update.upsert(*type_url, Resource::new(type_url, name.as_str(), body.as_bytes()));
        }
        for (type_url, name, _) in before {
            if !after.iter().any(|(t, n, _)| (*t, n) == (type_url, &name)) {
                update.remove(type_url, name);
            }
        }
        self.sequence += 1;
        self.cache.apply(self.sequence, update);
    }

    pub(super) fn take(&mut self, step: &Step) -> bool {
        let taken = self.step(step);
        self.check_standings();
        taken
    }

    /// What the stream says of its client is true. (Of endpoints and routes a client may have dropped some, and its word of
    /// that be on the way.)
    fn check_standings(&self) {
        let tables = self.cache.snapshot();
        for (type_url, standings) in self.session.standings(&tables) {
            for standing in standings.iter().filter(|_| [type_url::CLUSTER, type_url::LISTENER].contains(&&*type_url)) {
                let wanted =
                    tables.table(&type_url).resource(&standing.name).map(|wanted| wanted.version().to_string());
                let held = self.proxy.held(&type_url).get(&*standing.name).map(|(version, _)| version.clone());
                let fits = match standing.state {
                    State::Current => held == wanted,
                    State::Rejected => held != wanted,
                    State::Absent => held.is_none(),
                    _ => true,
                };
                assert!(
                    fits && (held.is_some() || !standing.held),
                    "{standing:?}: it has {held:?}, wanted is {wanted:?}, after\n{}",
                    self.said
                );
            }
        }
    }

    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::Edit(edit) => {
                self.edit(edit);
                self.say(&format!("{} {edit:?}", self.sequence));
                true
            }
            Step::Deliver => {
                let Some((type_url, request)) = self.proxy.says.pop_front() else { return false };
                self.say(&format!("-> {} {request:?}", type_url::short_name(type_url)));
                self.session.on_request(&type_url.into(), request, &self.cache.snapshot()).unwrap();
                true
            }
            Step::Turn => {
                let turn = self.session.turn(&self.cache.snapshot(), self.now).unwrap();
                for (type_url, sent, _) in &turn.replies {
                    self.say(&format!("<- {} {sent:?}", type_url::short_name(type_url)));
                }
                self.responses.extend(turn.replies);
                !self.responses.is_empty()
            }
            Step::Read(bad) => {
                let Some((type_url, sent, reply)) = self.responses.pop_front() else { return false };
                let known = type_url::ALL.iter().find(|(known, _)| **known == *type_url).unwrap().0;
                self.say(&format!("   reads {} {} {bad}", type_url::short_name(known), sent.nonce));
                self.proxy.read(known, &sent, &reply, bad);
                assert_eq!(self.proxy.broken(), [], "{}", self.said);
                true
            }
            Step::Block => {
                self.session.unpin();
                true
            }
            Step::Wait => {
                let (requests, responses) = (self.proxy.says.len(), self.responses.len());
                for _ in 0..responses {
                    self.take(&Step::Read(""));
                }
                for _ in 0..requests {
                    self.take(&Step::Deliver);
                }
                self.take(&Step::Turn);
                self.now += WAY;
                self.say("waits");
                true
            }
            // A state-of-the-world client cannot say that it holds other than the version it names.
            Step::Reconnect if D::FULL && self.proxy.is_lingering() => false,
            Step::Reconnect => {
                self.say("reconnects");
                self.responses.clear();
                self.session = session(self.now);
                self.proxy.reconnect();
                true
            }
        }
    }

    fn say(&mut self, what: &str) {
        self.said += what;
        self.said.push('\n');
    }

    pub(super) fn quiesce(&mut self) {
        for _ in 0..1000 {
            if !(self.take(&Step::Deliver) | self.take(&Step::Turn) | self.take(&Step::Read(""))) {
                return;
            }
        }
        panic!("they never stop talking");
    }

    fn run<'s>(steps: impl IntoIterator<Item = &'s Step>) {
        let mut world = Self::new();
        for step in steps {
            world.take(step);
        }
        world.quiesce();
        if world.proxy.rejected > 0 {
            world.take(&Step::Edit(Edit::Edition));
            world.quiesce();
        }
        if !world.proxy.has_asked(type_url::ROUTE) {
            // Without a listener it never will, and removals of clusters wait whether it does.
            world.now += PATIENCE;
            world.quiesce();
        }
        let turn = world.session.turn(&world.cache.snapshot(), world.now).unwrap();
        assert_eq!(turn.settled, Some(world.cache.head()), "{}", world.said);
        let tables = world.cache.snapshot();
        for (type_url, standings) in world.session.standings(&tables) {
            let other: Vec<_> = standings.iter().filter(|standing| standing.state != State::Current).collect();
            assert!(other.is_empty(), "{type_url}: {other:?} after\n{}", world.said);
        }
        for type_url in [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE] {
            let has: Vec<_> =
                world.proxy.held(type_url).iter().map(|(name, (v, _))| (name.clone(), v.clone())).collect();
            let should = tables.table(type_url).resources().map(|r| (r.name().to_string(), r.version().to_string()));
            assert_eq!(has, should.collect::<Vec<_>>(), "{} after\n{}", type_url::short_name(type_url), world.said);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn no_route_ever_sends_to_a_cluster_that_is_not_there_incrementally(steps in prop::collection::vec(step(), 0..120)) {
        World::<Delta>::run(&steps);
    }

    #[test]
    fn no_route_ever_sends_to_a_cluster_that_is_not_there_with_full_state(steps in prop::collection::vec(step(), 0..120)) {
        World::<Sotw>::run(&steps);
    }

    #[test]
    fn nor_to_one_that_was_rejected_incrementally(steps in prop::collection::vec(step_with_rejections(), 0..120)) {
        World::<Delta>::run(&steps);
    }

    #[test]
    fn nor_to_one_that_was_rejected_with_full_state(steps in prop::collection::vec(step_with_rejections(), 0..120)) {
        World::<Sotw>::run(&steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn nor_however_long_edits_go_on_incrementally(rounds in prop::collection::vec(round(step()), 0..100)) {
        World::<Delta>::run(rounds.iter().flatten());
    }

    #[test]
    fn nor_however_long_edits_go_on_with_full_state(rounds in prop::collection::vec(round(step()), 0..100)) {
        World::<Sotw>::run(rounds.iter().flatten());
    }

    #[test]
    fn nor_however_long_something_is_rejected_incrementally(
        rounds in prop::collection::vec(round(step_with_rejections()), 0..100),
    ) {
        World::<Delta>::run(rounds.iter().flatten());
    }

    #[test]
    fn nor_however_long_something_is_rejected_with_full_state(
        rounds in prop::collection::vec(round(step_with_rejections()), 0..100),
    ) {
        World::<Sotw>::run(rounds.iter().flatten());
    }
}

/// A client gives up a route, reads the response that was on its way with it, asks for it again, and reconnects.
#[test]
fn a_version_does_not_say_what_of_a_part_the_client_has() {
    use Edit::{DropListener, Route, Service, Swap};
    use Step::{Deliver, Reconnect, Turn, Wait};
    let (edit, read) = (Step::Edit, || Step::Read(""));
    World::<Sotw>::run(&[
        Deliver,
        edit(Route(0, 1)),
        Turn,
        read(),
        Deliver,
        edit(Route(1, 2)),
        Turn,
        read(),
        edit(DropListener(0)),
        Wait,
        read(),
        edit(Service(0, 0)),
        Deliver,
        Turn,
        read(),
        Deliver,
        Deliver,
        edit(Swap(0, 0)),
        Turn,
        edit(Route(0, 0)),
        Wait,
        Deliver,
        Deliver,
        Turn,
        read(),
        edit(DropListener(0)),
        Deliver,
        Turn,
        edit(Route(0, 0)),
        read(),
        Deliver,
        read(),
        Deliver,
        Turn,
        Deliver,
        Turn,
        Wait,
        Reconnect,
    ]);
}

/// A client takes no version at all before it reconnects, with a cluster that it has accepted still warming.
#[test]
fn a_client_that_comes_back_without_a_version_is_no_new_one() {
    use Edit::{Route, Service};
    use Step::{Read, Reconnect, Turn, Wait};
    World::<Sotw>::run(&[
        Step::Edit(Route(1, 0)),
        Wait,
        Read("012"),
        Wait,
        Read("1"),
        Step::Edit(Service(2, 0)),
        Turn,
        Step::Edit(Route(0, 1)),
        Read(""),
        Reconnect,
    ]);
}
