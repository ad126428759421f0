//! Where requests go before a change and after it.

use super::{Destination, Explainer, Share, Source, request::Request};
use crate::model::{Name, fleet::Fleet, listener::Listener, route::Match};

/// A request that goes elsewhere after a change, at one listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Moved {
    /// The listener.
    pub listener: Name,
    /// Where it goes; `None` if the listener is not there.
    pub before: Option<Goal>,
    /// Where it will go; `None` if the listener is not there.
    pub after: Option<Goal>,
}

/// Where a request goes, and by which rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// The rule that matches.
    pub rule: Option<Source>,
    /// Where it sends the request.
    pub destination: Destination,
}

/// What tells one goal from another: neither revisions nor the place of a rule among others.
type Essence = (Option<(String, Match)>, Destination);

/// Where `request` goes elsewhere `after` a change than `before`: on `fleet`, or on all of them. Each listener of which a host matches, before or
/// after, is looked at.
pub fn moved(before: &Explainer<'_>, after: &Explainer<'_>, fleet: Option<&Name>, request: &Request) -> Vec<Moved> {
    let mut moved = Vec::new();
    for listener in listeners(before, after, fleet) {
        let (old, new) = (before.goal(&listener, request), after.goal(&listener, request));
        let is_claimed = |goal: &Option<(Goal, Essence)>| {
            goal.as_ref().is_some_and(|(goal, _)| goal.destination != Destination::NoRoute { status: 404 })
        };
        let essence = |goal: &Option<(Goal, Essence)>| goal.as_ref().map(|(_, essence)| essence.clone());
        if (is_claimed(&old) || is_claimed(&new)) && essence(&old) != essence(&new) {
            let [before, after] = [old, new].map(|goal| goal.map(|(goal, _)| goal));
            moved.push(Moved { listener, before, after });
        }
    }
    moved
}

/// The listeners of the fleet, or of all fleets, before and after, each once.
fn listeners(before: &Explainer<'_>, after: &Explainer<'_>, fleet: Option<&Name>) -> Vec<Name> {
    let of = |explainer: &Explainer<'_>| {
        let fleets = explainer.catalog.fleets().map(|fleet| &fleet.name);
        let fleets = fleets.filter(|name| fleet.is_none_or(|wanted| wanted == *name));
        fleets.flat_map(|fleet| explainer.catalog.listeners_of(fleet)).cloned().collect::<Vec<_>>()
    };
    let mut all = [of(before), of(after)].concat();
    all.sort_unstable();
    all.dedup();
    all
}

impl Explainer<'_> {
    fn goal(&self, listener: &Name, request: &Request) -> Option<(Goal, Essence)> {
        let listener: &Listener = self.catalog.listener(listener).filter(|listener| listener.protocol.is_http())?;
        let fleet: &Fleet = self.catalog.fleet(&listener.fleet)?;
        let decision = self.decide(fleet, listener, request);
        let claim = decision.chosen.map(|index| decision.claims[index]);
        let destination = self.destination(&decision.arrived, claim.as_ref());
        let rule = claim.as_ref().map(|claim| (claim.route.name.to_string(), claim.rule.matches.clone()));
        let essence = (rule, without_revisions(destination.clone()));
        Some((Goal { rule: claim.map(|claim| self.rule_source(&claim, "")), destination }, essence))
    }
}

fn without_revisions(destination: Destination) -> Destination {
    let plain = |share: Share| Share { service: Source { revision: 0, ..share.service }, session: None, ..share };
    match destination {
        Destination::Forward { to, host, path } => {
            Destination::Forward { to: to.into_iter().map(plain).collect(), host, path }
        }
        other => other,
    }
}
