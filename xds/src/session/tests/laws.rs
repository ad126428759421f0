//! Make before break, whatever happens in whatever order: an Envoy (`proxy.rs`) never has a route to a cluster that is
//! not there, never waits for ever, and ends with what the cache has.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::{
    proxy::{Dialect, Proxy},
    *,
};

/// A configuration in which every route sends to a service that exists.
#[derive(Clone, Debug, Default)]
struct Catalog {
    /// Body of the cluster, body of its endpoints.
    services: BTreeMap<String, (u8, u8)>,
    /// The service of each listener's route.
    listeners: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Edit {
    Service(usize, u8),
    Endpoints(usize, u8),
    /// Moves a route to a service, which may be new.
    Route(usize, usize),
    /// The same, and the service it leaves is deleted at once if it is free.
    Swap(usize, usize),
    DropService(usize),
    DropListener(usize),
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
                (type_url::CLUSTER, name.clone(), cluster.to_string()),
                (type_url::ENDPOINT, name.clone(), endpoints.to_string()),
            ]
        });
        let listeners = self.listeners.iter().flat_map(|(name, service)| {
            [
                (type_url::LISTENER, name.clone(), "listener".into()),
                (type_url::ROUTE, name.clone(), format!("{service}#")),
            ]
        });
        services.chain(listeners).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Edit(Edit),
    Deliver,
    Read,
    Turn,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let service = || 0..4_usize;
    let listener = || 0..2_usize;
    let edit = prop_oneof![
        (service(), any::<u8>()).prop_map(|(i, body)| Edit::Service(i, body)),
        (service(), any::<u8>()).prop_map(|(i, body)| Edit::Endpoints(i, body)),
        (listener(), service()).prop_map(|(l, i)| Edit::Route(l, i)),
        (listener(), service()).prop_map(|(l, i)| Edit::Swap(l, i)),
        service().prop_map(Edit::DropService),
        listener().prop_map(Edit::DropListener),
    ];
    prop_oneof![
        6 => edit.prop_map(Step::Edit),
        8 => Just(Step::Deliver),
        8 => Just(Step::Read),
        8 => Just(Step::Turn),
        1 => Just(Step::Reconnect),
    ]
}

/// An Envoy, a server, and the wire between them. Time stands still: nothing depends on patience.
struct World<D: Dialect> {
    catalog: Catalog,
    cache: Cache,
    sequence: u64,
    session: Session<D>,
    proxy: Proxy<D>,
    responses: VecDeque<(TypeUrl, Sent, D::Reply)>,
    now: Instant,
    /// What was said, for whoever has to read a failure.
    said: String,
}

impl<D: Dialect<Request: std::fmt::Debug>> World<D> {
    fn new() -> Self {
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

    fn take(&mut self, step: &Step) -> bool {
        match step {
            Step::Edit(edit) => {
                self.edit(edit);
                self.say(&format!("{} {edit:?}", self.sequence));
                true
            }
            Step::Deliver => {
                let Some((type_url, request)) = self.proxy.says.pop_front() else { return false };
                self.say(&format!("-> {} {request:?}", type_url::short_name(type_url)));
                self.session.on_request(&type_url.into(), request, &self.cache.read()).unwrap();
                true
            }
            Step::Turn => {
                let turn = self.session.turn(&self.cache.read(), self.now).unwrap();
                for (type_url, sent, _) in &turn.replies {
                    self.say(&format!("<- {} {sent:?}", type_url::short_name(type_url)));
                }
                self.responses.extend(turn.replies);
                !self.responses.is_empty()
            }
            Step::Read => {
                let Some((type_url, sent, reply)) = self.responses.pop_front() else { return false };
                let known = type_url::ALL.iter().find(|(known, _)| **known == *type_url).unwrap().0;
                self.say(&format!("   reads {} {}", type_url::short_name(known), sent.nonce));
                self.proxy.read(known, &sent, &reply);
                assert_eq!(self.proxy.broken(), [], "{}", self.said);
                true
            }
            // A state-of-the-world client cannot say that it holds more than the version it names.
            Step::Reconnect if self.proxy.lingering => false,
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

    fn quiesce(&mut self) {
        for _ in 0..1000 {
            if !(self.take(&Step::Deliver) | self.take(&Step::Turn) | self.take(&Step::Read)) {
                return;
            }
        }
        panic!("they never stop talking");
    }

    fn run(steps: &[Step]) {
        let mut world = Self::new();
        for step in steps {
            world.take(step);
        }
        world.quiesce();
        if !world.proxy.has_asked(type_url::ROUTE) {
            // Without a listener it never will, and removals of clusters wait whether it does.
            world.now += PATIENCE;
            world.quiesce();
        }
        let turn = world.session.turn(&world.cache.read(), world.now).unwrap();
        assert_eq!(turn.settled, Some(world.cache.head()), "{}", world.said);
        let tables = world.cache.read();
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
}
