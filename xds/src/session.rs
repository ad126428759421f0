//! All that one stream has asked for, and what of it may be sent now. Pure.
//!
//! Subscriptions know their own type only; here they are put in order (`order.rs`). A type that is held back waits
//! for the others to come as far as *its own* newest change, not for them to fall silent: under steady
//! changes they may never. And it waits no longer than the stream's patience.

use std::time::{Duration, Instant};

use chancery_proto::type_url;

use crate::{
    cache::{Table, Tables},
    order::{self, Held},
    resource::{Name, TypeUrl},
    subscription::{FellBehind, Gate, Progress, Sent, Subscription, TypeRules, Verdict},
};

/// The subscriptions of one stream.
#[derive(Debug)]
pub(crate) struct Session<S> {
    /// In the order in which they are sent.
    types: Vec<Typed<S>>,
    rules: SessionRules,
    opened: Instant,
}

/// What holds for a whole stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRules {
    /// How long one type is held back for another.
    pub(crate) patience: Duration,
    /// How many types may be asked for.
    pub(crate) max_types: usize,
    /// Whether it serves all types; where it serves one, there is nothing to wait for.
    pub(crate) aggregated: bool,
}

#[derive(Debug)]
struct Typed<S> {
    type_url: TypeUrl,
    subscription: S,
    held: Held,
}

/// What is to be sent now.
#[derive(Debug)]
pub(crate) struct Turn<R> {
    /// The replies, in order.
    pub(crate) replies: Vec<(TypeUrl, Sent, R)>,
    /// When to look again even if nothing happens.
    pub(crate) look_again: Option<Instant>,
    /// The sequence up to which everything that was asked for is sent and answered.
    pub(crate) settled: Option<u64>,
}

/// The stream asks for more types than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many resource types on one stream")]
pub(crate) struct TooManyTypes;

impl<S: Subscription> Session<S> {
    pub(crate) fn new(rules: SessionRules, opened: Instant) -> Self {
        Self { types: Vec::new(), rules, opened }
    }

    /// Takes in a request.
    pub(crate) fn on_request(
        &mut self,
        type_url: &TypeUrl,
        request: S::Request,
        tables: &Tables,
    ) -> Result<Verdict, TooManyTypes> {
        let at = match self.position(type_url) {
            Some(at) => at,
            None if self.types.len() >= self.rules.max_types => return Err(TooManyTypes),
            None => {
                let at = self.types.partition_point(|typed| order::rank(&typed.type_url) <= order::rank(type_url));
                let subscription = S::new(rules(type_url));
                self.types.insert(at, Typed { type_url: type_url.clone(), subscription, held: Held::default() });
                at
            }
        };
        Ok(self.types[at].subscription.on_request(request, tables.table(type_url), tables.head()))
    }

    /// Takes in what changed, and makes the replies that are due; one may make others due.
    pub(crate) fn turn(&mut self, tables: &Tables, now: Instant) -> Result<Turn<S::Reply>, FellBehind> {
        let patience = self.rules.patience;
        for typed in &mut self.types {
            let progress = typed.subscription.progress_mut();
            progress.absorb(tables.table(&typed.type_url), tables.head())?;
            if progress.outstanding().is_some_and(|sent| sent.at + patience <= now) {
                progress.give_up_waiting();
            }
        }
        let mut replies = Vec::new();
        loop {
            // A removal that cannot be said settles without a reply, and may let go of an earlier type.
            let settled = self.settled_through();
            self.make_replies(tables, now, &mut replies);
            if !replies.is_empty() || self.settled_through() == settled {
                break;
            }
        }
        let look_again = self.types.iter().flat_map(|typed| {
            let answer = typed.subscription.progress().outstanding().map(|sent| sent.at + patience);
            typed.held.relents(patience).chain(answer)
        });
        let settled = self.settled_through().into_iter().min();
        Ok(Turn { replies, look_again: look_again.filter(|at| *at > now).min(), settled })
    }

    fn make_replies(&mut self, tables: &Tables, now: Instant, replies: &mut Vec<(TypeUrl, Sent, S::Reply)>) {
        for at in 0..self.types.len() {
            // On a service of its own there is no RouteConfiguration to wait for.
            if self.rules.aggregated && &*self.types[at].type_url == type_url::VIRTUAL_HOST {
                self.park_virtual_hosts(at, tables.table(type_url::ROUTE));
            }
            let gate = self.gate(&self.types[at], tables, now);
            let since = self.types[at].subscription.progress().removals_since();
            let free = order::removals_wait_for(&self.types[at].type_url).iter().all(|other| {
                let other =
                    self.position(other).map(|at| (&self.types[at].held, self.types[at].subscription.progress()));
                other.is_none_or(|(held, progress)| !held.holds(progress, since, now, self.rules.patience))
            });
            let typed = &mut self.types[at];
            let gate = typed.held.relent(gate, now, self.rules.patience);
            let reply = typed.subscription.reply(tables.table(&typed.type_url), gate, now);
            typed.held.update(typed.subscription.progress(), now, free);
            if let Some((sent, reply)) = reply {
                let type_url = typed.type_url.clone();
                if &*type_url == type_url::CLUSTER {
                    // Envoy asks for the endpoints of a new cluster, but not for those of a changed one.
                    self.touch_endpoints(&sent.set);
                }
                if &*type_url == type_url::ROUTE {
                    self.touch_virtual_hosts(&sent.set, tables.table(type_url::VIRTUAL_HOST));
                }
                replies.push((type_url, sent, reply));
            }
        }
    }

    fn settled_through(&self) -> Vec<u64> {
        self.types.iter().map(|typed| typed.subscription.progress().settled_through()).collect()
    }

    fn position(&self, type_url: &str) -> Option<usize> {
        self.types.iter().position(|typed| &*typed.type_url == type_url)
    }

    fn progress(&self, type_url: &str) -> Option<&Progress> {
        self.position(type_url).map(|at| self.types[at].subscription.progress())
    }

    fn touch_endpoints(&mut self, clusters: &[Name]) {
        if let Some(at) = self.position(type_url::ENDPOINT) {
            for cluster in clusters {
                self.types[at].subscription.progress_mut().touch(cluster);
            }
        }
    }

    /// An Envoy that is sent a virtual host before its RouteConfiguration acknowledges it and forgets it.
    fn park_virtual_hosts(&mut self, at: usize, configurations: &Table) {
        let routes = self.position(type_url::ROUTE);
        let (before, rest) = self.types.split_at_mut(at);
        let routes = routes.and_then(|routes| before.get(routes)).map(|typed| typed.subscription.progress());
        rest[0].subscription.progress_mut().park(|host| {
            let configuration = host.rsplit_once('/').map_or(host, |(configuration, _)| configuration);
            routes.is_some_and(|routes| routes.has_sent(configuration, configurations))
        });
    }

    /// A RouteConfiguration that is sent may be a new one to the client, without any of its hosts.
    fn touch_virtual_hosts(&mut self, configurations: &[Name], hosts: &Table) {
        if let Some(at) = self.position(type_url::VIRTUAL_HOST) {
            for host in configurations.iter().flat_map(|configuration| hosts.resources_below(configuration)) {
                self.types[at].subscription.progress_mut().touch(host.name());
            }
        }
    }

    /// What the order of types lets a type send.
    fn gate(&self, typed: &Typed<S>, tables: &Tables, now: Instant) -> Gate {
        let own = typed.subscription.progress();
        let additions = order::additions_wait_for(&typed.type_url).iter().all(|other| match self.progress(other) {
            Some(other) => other.additions_through() >= own.additions_since(),
            // An Envoy that reconnects while a cluster is warming asks for clusters last.
            None if *other == type_url::CLUSTER => !self.is_returning() || !self.may_yet_ask(other, tables, now),
            None => true,
        });
        let removals = order::removals_wait_for(&typed.type_url).iter().all(|other| match self.progress(other) {
            Some(other) => other.settled_through() >= own.removals_since(),
            None => !self.may_yet_ask(other, tables, now),
        });
        match (additions, removals) {
            (false, _) => Gate::Shut,
            (true, false) => Gate::Additions,
            (true, true) => Gate::All,
        }
    }

    /// Whether the client has had another stream before this one.
    fn is_returning(&self) -> bool {
        self.types.iter().any(|typed| typed.subscription.progress().is_returning())
    }

    /// Whether the client may hold resources of a type that it has not asked for on this stream: it may have
    /// just reconnected. Virtual hosts are asked for by few, so they count only where there are any.
    fn may_yet_ask(&self, type_url: &str, tables: &Tables, now: Instant) -> bool {
        self.rules.aggregated
            && now < self.opened + self.rules.patience
            && (type_url != type_url::VIRTUAL_HOST || !tables.table(type_url).is_empty())
    }
}

/// The rules of Envoy's types and of rate limiters'; others are sent by name or by wildcard, and deleted by name.
fn rules(type_url: &str) -> TypeRules {
    let full_state = matches!(
        type_url,
        type_url::CLUSTER
            | type_url::LISTENER
            | type_url::SCOPED_ROUTE
            | type_url::RATE_LIMIT_DOMAIN
            | type_url::RATE_LIMIT_CONFIG
    );
    TypeRules {
        full_state,
        legacy_wildcard: full_state || type_url == type_url::VIRTUAL_HOST,
        always_resent: type_url == type_url::ENDPOINT,
    }
}

#[cfg(test)]
mod tests;
