//! Whatever happens in whatever order: when all is said, the client has what the cache has, of what it asked for.
//!
//! A model of a client (`model.rs`) stands at the other end of two queues, so that requests and responses
//! cross each other as they do on a wire.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{
    model::{Client, DeltaClient, NAMES, SotwClient, Want},
    *,
};

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Set(usize, u8),
    Remove(usize),
    Want(Want),
    /// The client reads a response, and accepts it or not.
    Read {
        accept: bool,
    },
    /// The server reads a request.
    Deliver,
    /// The client answers an old response once more.
    Repeat,
    Reply(Gate),
    LosePatience,
    Reconnect,
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..NAMES.len();
    let gate = prop_oneof![Just(Gate::Shut), Just(Gate::Additions), Just(Gate::ALL)];
    prop_oneof![
        4 => (name.clone(), 0..4_u8).prop_map(|(name, body)| Step::Set(name, body)),
        2 => name.clone().prop_map(Step::Remove),
        2 => name.clone().prop_map(|name| Step::Want(Want::Name(name))),
        2 => name.prop_map(|name| Step::Want(Want::NoName(name))),
        1 => Just(Step::Want(Want::All)),
        1 => Just(Step::Want(Want::NotAll)),
        4 => prop::bool::weighted(0.8).prop_map(|accept| Step::Read { accept }),
        5 => Just(Step::Deliver),
        1 => Just(Step::Repeat),
        5 => gate.prop_map(Step::Reply),
        1 => Just(Step::LosePatience),
        1 => Just(Step::Reconnect),
    ]
}

/// A client, a server, and the wire between them.
struct World<C: Client> {
    rules: TypeRules,
    bench: Bench<C::Variant>,
    client: C,
    requests: VecDeque<<C::Variant as Subscription>::Request>,
    responses: VecDeque<(Sent, <C::Variant as Subscription>::Reply)>,
    answered: Vec<String>,
}

impl<C: Client> World<C> {
    fn new(rules: TypeRules) -> Self {
        Self {
            rules,
            bench: Bench::new(rules, &[("a", "0"), ("b", "0")]),
            client: C::new(rules),
            requests: VecDeque::new(),
            responses: VecDeque::new(),
            answered: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Set(name, body) => self.bench.set(NAMES[*name], &body.to_string()),
            Step::Remove(name) => self.bench.remove(NAMES[*name]),
            Step::Want(want) => self.requests.extend(self.client.want(*want)),
            Step::Read { accept } => {
                self.read(*accept);
            }
            Step::Deliver => {
                self.deliver();
            }
            Step::Repeat => {
                let old = self.answered.first().map(|nonce| self.client.repeat(nonce));
                self.requests.extend(old);
            }
            Step::Reply(gate) => {
                self.reply(*gate);
            }
            Step::LosePatience => self.bench.subscription.progress_mut().give_up_waiting(),
            Step::Reconnect => {
                self.requests.clear();
                self.responses.clear();
                self.answered.clear();
                self.bench.reconnect(self.rules);
                self.requests.extend(self.client.open());
            }
        }
    }

    fn read(&mut self, accept: bool) -> bool {
        let Some((sent, reply)) = self.responses.pop_front() else { return false };
        self.requests.push_back(self.client.read(&sent, &reply, accept));
        self.answered.push(sent.nonce.to_string());
        true
    }

    fn deliver(&mut self) -> bool {
        let request = self.requests.pop_front();
        request.map(|request| self.bench.ask(request)).is_some()
    }

    fn reply(&mut self, gate: Gate) -> bool {
        let reply = self.bench.reply_through(gate);
        self.responses.extend(reply);
        !self.responses.is_empty()
    }

    /// Until nobody has anything to say.
    fn quiesce(&mut self) {
        for _ in 0..1000 {
            if !(self.deliver() | self.reply(Gate::ALL) | self.read(true)) {
                return;
            }
        }
        panic!("they never stop talking");
    }

    fn wrong(&self) -> BTreeSet<String> {
        self.client.wrong(self.bench.cache.snapshot().table(T))
    }

    fn run(steps: &[Step], rules: TypeRules) {
        let mut world = Self::new(rules);
        for step in steps {
            world.take(step);
        }
        world.quiesce();
        let surprises: Vec<String> = world.wrong().difference(&world.client.refused()).cloned().collect();
        assert!(surprises.is_empty(), "{surprises:?} not as in the cache");
        if world.bench.subscription.progress().seen() > 0 {
            assert_eq!(world.bench.settled_through(), world.bench.cache.head());
        }
        // What was refused is sent when it has changed, and not before.
        for (fix, name) in NAMES.into_iter().enumerate() {
            let was_there = world.bench.cache.snapshot().table(T).resource(name).is_some();
            world.bench.set(name, &format!("fixed {fix}"));
            world.quiesce();
            if !was_there {
                world.bench.remove(name);
                world.quiesce();
            }
        }
        assert_eq!(world.wrong(), BTreeSet::new());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn an_incremental_client_ends_with_what_the_cache_has(steps in prop::collection::vec(step(), 0..80)) {
        for rules in [NAMED, FULL, RESENT] {
            World::<DeltaClient>::run(&steps, rules);
        }
    }

    #[test]
    fn a_state_of_the_world_client_ends_with_what_the_cache_has(steps in prop::collection::vec(step(), 0..80)) {
        for rules in [NAMED, FULL, RESENT] {
            World::<SotwClient>::run(&steps, rules);
        }
    }
}
