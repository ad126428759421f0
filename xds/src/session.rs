//! All that one stream has asked for, and what of it may be sent now. Pure.
//!
//! Subscriptions know their own type only; here they are put in order (`order.rs`). A type that is held back waits
//! for the others to come as far as *its own* newest change, not for them to fall silent: under steady
//! changes they may never. And it waits no longer than the stream's patience.
//!
//! Nor does it follow the newest change: while it is held back, the types that refer to each other stay at the
//! [`Tables`] that it was held back with (the *pin*), and go on to the newest when it is sent. Otherwise each edit
//! of a route would make it wait for clusters of which each answer brings the next, and what is sent when
//! patience ends would refer to clusters that never were. So a route waits for two answers about clusters at
//! most: to those that were on their way, and to those of its own state. Endpoints are always the newest. A
//! stream whose connection has taken nothing for long pins nothing: [`Session::unpin`].
//!
//! A rejection is an answer: it holds up nothing that is new, with one exception. A listener, route or virtual host
//! with the name of a cluster in it that the client rejected *and has no other of* is kept back by itself,
//! until the client takes the cluster, it is removed, or the reference is gone; names are found in the encoded message,
//! as what it means is not known here. (In a full-state response nothing can be kept back: there it goes out.)
//! A rejected change of a cluster that the client has keeps nothing back: the old one serves.
//! A client that asks for clusters by name keeps one until it gives up the name, or patience ends.
//! For what is removed a rejection is no answer: it waits until all that was rejected at or before its time
//! is taken, however long that may be. A client that has rejected a route still needs the cluster of the old one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_proto::type_url;

use crate::{
    cache::{Table, Tables},
    order::{Held, Place},
    resource::{Name, TypeUrl},
    subscription::{FellBehind, Gate, Progress, Sent, Standing, Subscription, TypeRules, Verdict},
};

/// The subscriptions of one stream.
#[derive(Debug)]
pub(crate) struct Session<S> {
    /// In the order in which they are sent.
    types: Vec<Typed<S>>,
    /// What the ordered types stay at while one of them is held back.
    pinned: Option<Arc<Tables>>,
    rules: SessionRules,
    opened: Instant,
}

/// What a type is served from.
#[derive(Clone, Copy)]
struct View<'t> {
    ordered: &'t Tables,
    newest: &'t Tables,
}

impl<'t> View<'t> {
    fn of(self, place: Place) -> &'t Tables {
        if place.is_ordered() { self.ordered } else { self.newest }
    }

    fn table(self, type_url: &str) -> &'t Table {
        self.of(Place::of(type_url)).table(type_url)
    }
}

/// What holds for a whole stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionRules {
    /// How long one type is held back for another.
    pub(crate) patience: Duration,
    /// How many types may be asked for.
    pub(crate) max_types: usize,
    /// How many names may be asked for, of all types together.
    pub(crate) max_names: usize,
    /// Whether it serves all types; where it serves one, there is nothing to wait for.
    pub(crate) aggregated: bool,
}

impl<S> Typed<S> {
    fn table<'t>(&self, view: View<'t>) -> &'t Table {
        view.of(self.place).table_at(self.place, &self.type_url)
    }
}

#[derive(Debug)]
struct Typed<S> {
    type_url: TypeUrl,
    place: Place,
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
    /// The newest change that is kept back because the client rejected a cluster.
    pub(crate) kept_back: Option<u64>,
}

/// The stream asks for more than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TooMany {
    #[error("too many resource types on one stream")]
    Types,
    #[error("too many resource names on one stream")]
    Names,
}

impl<S: Subscription> Session<S> {
    pub(crate) fn new(rules: SessionRules, opened: Instant) -> Self {
        Self { types: Vec::new(), pinned: None, rules, opened }
    }

    /// Takes in a request; `newest` are the tables as they are now.
    pub(crate) fn on_request(
        &mut self,
        type_url: &TypeUrl,
        request: S::Request,
        newest: &Tables,
    ) -> Result<Verdict, TooMany> {
        let place = Place::of(type_url);
        let at = match self.types.iter().position(|typed| typed.place == place && typed.type_url == *type_url) {
            Some(at) => at,
            None if self.types.len() >= self.rules.max_types => return Err(TooMany::Types),
            None => {
                let at = self.types.partition_point(|typed| typed.place <= place);
                let subscription = S::new(rules(type_url));
                // There are few, and thousands of streams.
                self.types.reserve_exact(1);
                self.types.insert(at, Typed { type_url: type_url.clone(), place, subscription, held: Held::default() });
                at
            }
        };
        let ordered = self.pinned.as_deref().unwrap_or(newest);
        let tables = View { ordered, newest }.of(place);
        let named = |typed: &Typed<S>| typed.subscription.progress().interest().named();
        let before = named(&self.types[at]);
        let verdict = self.types[at].subscription.on_request(request, tables.table(type_url), tables.head());
        let more = named(&self.types[at]) > before;
        if more && self.types.iter().map(named).sum::<usize>() > self.rules.max_names {
            return Err(TooMany::Names);
        }
        Ok(verdict)
    }

    /// Lets go of the state that the stream was working through: what is sent next is the newest, however long it
    /// takes until something can be.
    pub(crate) fn unpin(&mut self) {
        self.pinned = None;
    }

    /// Takes in what changed, and makes the replies that are due; one may make others due.
    pub(crate) fn turn(&mut self, newest: &Arc<Tables>, now: Instant) -> Result<Turn<S::Reply>, FellBehind> {
        let patience = self.rules.patience;
        for typed in &mut self.types {
            let progress = typed.subscription.progress_mut();
            if progress.outstanding().is_some_and(|sent| sent.at + patience <= now) {
                progress.give_up_waiting();
            }
        }
        let mut replies = Vec::new();
        let mut ordered = self.pinned.take().unwrap_or_else(|| newest.clone());
        loop {
            let view = View { ordered: &ordered, newest };
            for typed in &mut self.types {
                let (table, head) = (typed.table(view), view.of(typed.place).head());
                typed.subscription.progress_mut().absorb(table, head)?;
            }
            self.make_all_replies(view, now, &mut replies);
            if self.types.iter().any(|typed| self.is_held_back(typed, view, now)) {
                self.pinned = Some(ordered);
                break;
            }
            if ordered.head() == newest.head() {
                break;
            }
            ordered = newest.clone();
        }
        let mut turn = Turn { replies, look_again: None, settled: None, kept_back: None };
        for typed in &self.types {
            let progress = typed.subscription.progress();
            let answer = progress.outstanding().map(|sent| sent.at + patience);
            for at in typed.held.relents(patience).chain(answer).filter(|at| *at > now) {
                turn.look_again = Some(turn.look_again.map_or(at, |earlier| earlier.min(at)));
            }
            let settled = progress.settled_through();
            turn.settled = Some(turn.settled.map_or(settled, |lower| lower.min(settled)));
            turn.kept_back = turn.kept_back.max(progress.kept_back());
        }
        Ok(turn)
    }

    /// How the client stands with all that it asked for, as `newest` is.
    pub(crate) fn standings(&self, newest: &Tables) -> Vec<(TypeUrl, Vec<Standing>)> {
        let types = self.types.iter();
        types
            .map(|Typed { type_url, subscription, .. }| {
                (type_url.clone(), subscription.progress().standings(newest.table(type_url)))
            })
            .collect()
    }

    fn make_all_replies(&mut self, view: View<'_>, now: Instant, replies: &mut Vec<(TypeUrl, Sent, S::Reply)>) {
        loop {
            if self.types.iter().all(|typed| typed.subscription.progress().is_idle()) {
                self.types.iter_mut().for_each(|typed| typed.held = Held::default());
                return;
            }
            // A removal that cannot be said settles without a reply, and may let go of an earlier type.
            let (before, settled) = (replies.len(), self.settled_through());
            self.make_replies(view, now, replies);
            if replies.len() == before && self.settled_through() == settled {
                return;
            }
        }
    }

    fn make_replies(&mut self, view: View<'_>, now: Instant, replies: &mut Vec<(TypeUrl, Sent, S::Reply)>) {
        for at in 0..self.types.len() {
            if self.types[at].subscription.progress().is_idle() {
                self.types[at].held = Held::default();
                continue;
            }
            // On a service of its own there is no RouteConfiguration to wait for.
            if self.rules.aggregated && self.types[at].place == Place::VirtualHost {
                self.park_virtual_hosts(at, view.table(type_url::ROUTE));
            }
            let gate = self.keep_back(at, view, now);
            let (free, taken) = self.removals_through(self.types[at].place, now);
            let typed = &mut self.types[at];
            let table = typed.table(view);
            let reply = typed.subscription.reply(table, gate, now);
            let busy = typed.subscription.is_busy();
            typed.held.update(typed.subscription.progress(), now, busy, free, taken);
            if let Some((sent, reply)) = reply {
                let (type_url, place) = (typed.type_url.clone(), typed.place);
                match place {
                    // Envoy asks for the endpoints of a new cluster, but not for those of a changed one.
                    Place::Cluster => self.touch_endpoints(&sent.set),
                    Place::Route => self.touch_virtual_hosts(&sent.set, view.table(type_url::VIRTUAL_HOST)),
                    _ => {}
                }
                replies.push((type_url, sent, reply));
            }
        }
    }

    /// Puts aside what refers to a cluster that the client has rejected and has none of, and takes up what does no more.
    /// Returns what the type may send.
    fn keep_back(&mut self, at: usize, view: View<'_>, now: Instant) -> Gate {
        self.with_lacking(at, view, |progress, changes, is_lacking| progress.let_go(changes, is_lacking));
        let gate = self.gate(&self.types[at], view, now);
        if gate != Gate::Shut && !self.types[at].subscription.is_busy() {
            self.with_lacking(at, view, |progress, _, is_lacking| progress.keep_back(is_lacking));
        }
        gate
    }

    /// Does something with a type whose resources may refer to clusters, by whether a resource of it refers to one that
    /// the client has rejected and has none of.
    fn with_lacking(&mut self, at: usize, view: View<'_>, act: impl FnOnce(&mut Progress, u64, &dyn Fn(&str) -> bool)) {
        // Clusters stand before what refers to them.
        let (before, rest) = self.types.split_at_mut(at);
        let table = rest[0].table(view);
        let Typed { place, subscription, .. } = &mut rest[0];
        let refers = place.additions_wait_for().contains(&Place::Cluster) && subscription.sends_parts();
        let clusters = before.iter().find(|typed| refers && typed.place == Place::Cluster);
        let Some(clusters) = clusters.map(|typed| typed.subscription.progress()) else { return };
        act(subscription.progress_mut(), clusters.lacking_changes(), &|name| {
            table.resource(name).is_some_and(|resource| clusters.is_lacking_in(&resource.any_bytes()))
        });
    }

    /// Whether something new of a type could be sent, were it not for others.
    fn is_held_back(&self, typed: &Typed<S>, view: View<'_>, now: Instant) -> bool {
        typed.place.is_ordered()
            && typed.subscription.progress().has_unsent_additions()
            && !typed.subscription.is_busy()
            && self.gate(typed, view, now) == Gate::Shut
    }

    /// What removals of a type wait for: up to which change it holds nothing back, and up to which nothing of it was
    /// rejected.
    fn removals_through(&self, place: Place, now: Instant) -> (u64, u64) {
        let others = place.removals_wait_for().iter().filter_map(|other| self.position(*other));
        others.map(|at| &self.types[at]).fold((u64::MAX, u64::MAX), |(free, taken), other| {
            let progress = other.subscription.progress();
            let frees = other.held.frees_through(progress, now, self.rules.patience);
            (free.min(frees), taken.min(progress.taken_through()))
        })
    }

    fn settled_through(&self) -> Vec<u64> {
        self.types.iter().map(|typed| typed.subscription.progress().settled_through()).collect()
    }

    /// Where the type is that has this place to itself.
    fn position(&self, place: Place) -> Option<usize> {
        self.types.iter().position(|typed| typed.place == place)
    }

    fn progress(&self, place: Place) -> Option<&Progress> {
        self.position(place).map(|at| self.types[at].subscription.progress())
    }

    fn touch_endpoints(&mut self, clusters: &[Name]) {
        if let Some(at) = self.position(Place::Endpoint) {
            for cluster in clusters {
                self.types[at].subscription.progress_mut().touch(cluster);
            }
        }
    }

    /// An Envoy that is sent a virtual host before its RouteConfiguration acknowledges it and forgets it.
    fn park_virtual_hosts(&mut self, at: usize, configurations: &Table) {
        let routes = self.position(Place::Route);
        let (before, rest) = self.types.split_at_mut(at);
        let routes = routes.and_then(|routes| before.get(routes)).map(|typed| typed.subscription.progress());
        rest[0].subscription.progress_mut().park(|host| {
            let configuration = host.rsplit_once('/').map_or(host, |(configuration, _)| configuration);
            routes.is_some_and(|routes| routes.has_sent(configuration, configurations))
        });
    }

    /// A RouteConfiguration that is sent may be a new one to the client, without any of its hosts.
    fn touch_virtual_hosts(&mut self, configurations: &[Name], hosts: &Table) {
        if let Some(at) = self.position(Place::VirtualHost) {
            for host in configurations.iter().flat_map(|configuration| hosts.resources_below(configuration)) {
                self.types[at].subscription.progress_mut().touch(host.name());
            }
        }
    }

    /// What the order of types lets a type send, or the end of its patience.
    fn gate(&self, typed: &Typed<S>, view: View<'_>, now: Instant) -> Gate {
        let own = typed.subscription.progress();
        let additions = typed.place.additions_wait_for().iter().all(|other| match self.progress(*other) {
            Some(other) => other.additions_through() >= own.additions_since(),
            // An Envoy that reconnects while a cluster is warming asks for clusters last.
            None if *other == Place::Cluster => !self.is_returning() || !self.may_yet_ask(*other, view, now),
            None => true,
        });
        let mut removals = typed.place.removals_wait_for().iter().map(|other| match self.progress(*other) {
            Some(other) => Some(other.settled_through().min(other.taken_through())),
            None => (!self.may_yet_ask(*other, view, now)).then_some(u64::MAX),
        });
        let removals = removals.try_fold(u64::MAX, |through, other| other.map(|other| through.min(other)));
        let removals = removals.filter(|_| !self.knows_what_it_needs(typed));
        let gate = match (additions, removals) {
            (false, _) => Gate::Shut,
            (true, None) => Gate::Additions,
            (true, Some(sequence)) => Gate::Through(sequence),
        };
        let (_, taken) = self.removals_through(typed.place, now);
        typed.held.relent(gate, now, self.rules.patience, taken)
    }

    /// Whether the client itself says when it needs a resource no more. One that asks for clusters by name (gRPC) reads
    /// the names in its routes: it acknowledges these first, then asks for the new clusters and goes on with the old until
    /// it has them, then gives up the names of the old.
    fn knows_what_it_needs(&self, typed: &Typed<S>) -> bool {
        self.rules.aggregated
            && typed.place == Place::Cluster
            && !typed.subscription.progress().interest().is_wildcard()
    }

    /// Whether the client has had another stream before this one. It says so by what it has; or, if it has taken nothing
    /// yet, by asking for endpoints of clusters that it cannot know from this stream.
    fn is_returning(&self) -> bool {
        let says = self.types.iter().any(|typed| typed.subscription.progress().is_returning());
        let knows_clusters = self.progress(Place::Endpoint).is_some_and(|endpoints| endpoints.interest().named() > 0);
        says || knows_clusters && self.progress(Place::Cluster).is_none()
    }

    /// Whether the client may hold resources of a type that it has not asked for on this stream: it may have
    /// just reconnected. Virtual hosts and scopes are asked for by few, so they count only where there are any.
    fn may_yet_ask(&self, place: Place, view: View<'_>, now: Instant) -> bool {
        let none = match place {
            Place::VirtualHost => view.newest.table(type_url::VIRTUAL_HOST).is_empty(),
            Place::ScopedRoute => view.newest.table(type_url::SCOPED_ROUTE).is_empty(),
            _ => false,
        };
        self.rules.aggregated && now < self.opened + self.rules.patience && !none
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
        piecewise: matches!(type_url, type_url::CLUSTER | type_url::LISTENER),
    }
}

#[cfg(test)]
mod tests;
