//! The state-of-the-world variant: every request repeats the whole list of names.
//!
//! A request with a stale nonce crossed our response on the wire and is dropped: the client's answer
//! to that response repeats the list. So there is never a second response before the first is
//! answered: the answer to the first would be taken for stale, and the list in it be lost.
//!
//! For LDS and CDS a response carries every resource, and what is not in it is deleted; a resource whose
//! removal has to wait stays in it until then. Other types send what changed, and have no removal.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use chancery_proto::envoy::discovery::DiscoveryRequest;

use super::{Gate, Interest, Progress, Sent, Subscription, TypeRules, Verdict, WILDCARD, pending::Want};
use crate::{
    cache::{Kept, Table},
    rejection,
    resource::{Name, Resource},
};

/// What a client of the state-of-the-world variant has asked for, of one type.
#[derive(Debug)]
pub struct Sotw {
    progress: Progress,
    /// The nonce a request must carry not to be stale.
    last_nonce: Arc<str>,
    /// Whether a request has ever carried names: afterwards an empty list means none, not all.
    named: bool,
}

/// The content of a `DiscoveryResponse`: resources, each encoded as an `Any`.
#[derive(Clone, Debug, PartialEq)]
pub struct SotwReply {
    /// The resources.
    pub resources: Vec<Resource>,
}

impl Subscription for Sotw {
    type Request = DiscoveryRequest;
    type Reply = SotwReply;

    fn new(rules: TypeRules) -> Self {
        Self { progress: Progress::new(rules), last_nonce: Arc::default(), named: false }
    }

    fn on_request(&mut self, request: DiscoveryRequest, table: &Table, head: u64) -> Verdict {
        if self.progress.start(head, !request.version_info.is_empty()) {
            self.progress.interest = self.parse_interest(&request.resource_names, table);
            self.begin(&request.version_info, table, head);
            return Verdict::None;
        }
        if *request.response_nonce != *self.last_nonce {
            return Verdict::None;
        }
        let error = request.error_detail.map(|status| rejection::cut(status.message));
        let verdict = self.progress.answered(&request.response_nonce, error);
        let next = self.parse_interest(&request.resource_names, table);
        let before = std::mem::replace(&mut self.progress.interest, next);
        let progress = &mut self.progress;
        if progress.interest.wildcard && !before.wildcard {
            progress.owe(head);
            let named = |name: &str| before.names.contains(name);
            progress.want_all(table, head, |name| if named(name) { Want::PERHAPS_HELD } else { Want::NEW });
        }
        let next = progress.interest.clone();
        for name in next.asked_since(&before) {
            progress.want(name.clone(), head, Want::ASKED);
        }
        progress.skip_uninteresting();
        verdict
    }

    fn reply(&mut self, table: &Table, gate: Gate, now: Instant) -> Option<(Sent, SotwReply)> {
        let progress = &mut self.progress;
        if progress.is_unanswered() || gate == Gate::Shut {
            return None;
        }
        let (resources, set, version) = if progress.rules.full_state {
            full_reply(progress, table, gate)?
        } else {
            part_reply(progress, table, gate)?
        };
        progress.owed = false;
        let names = resources.iter().map(|resource| resource.name().clone()).collect();
        let sent = progress.send(version, names, set.into(), now);
        self.last_nonce.clone_from(&sent.nonce);
        Some((sent, SotwReply { resources }))
    }

    fn is_busy(&self) -> bool {
        self.progress.is_unanswered()
    }

    fn sends_parts(&self) -> bool {
        !self.progress.rules.full_state
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }
}

impl Sotw {
    fn parse_interest(&mut self, names: &[String], table: &Table) -> Interest {
        let legacy_wildcard = names.is_empty() && !self.named && self.progress.rules.legacy_wildcard;
        self.named |= !names.is_empty();
        let wildcard = legacy_wildcard || names.iter().any(|name| name == WILDCARD);
        let mut interest = Interest { wildcard, ..Interest::default() };
        interest.ask_for(names, table);
        interest
    }

    /// A new stream: what the client says it has is sent only if it has changed. Only of a full state does its version say what it
    /// has: of other types it may have given up a name, taken a response with it all the same, and asked for it again.
    fn begin(&mut self, held: &str, table: &Table, head: u64) {
        let progress = &mut self.progress;
        let known = !held.is_empty() && progress.rules.full_state;
        if known && held == version_of_all(&progress.interest, table) {
            return;
        }
        // Where absence deletes, even nothing at all is an answer.
        if progress.interest.wildcard || progress.rules.full_state {
            progress.owe(head);
        }
        let at = parse(held).and_then(|held| table.sequence_of(held)).filter(|_| progress.rules.full_state);
        progress.want_all(table, head, |name| at.map_or(Want::NEW, |at| Want::since(table, name, at)));
        let names = progress.interest.names.clone();
        for name in names.iter() {
            let went = table.resource(name).is_none() && table.removed(name).is_some();
            match known && went {
                // It may have it, and need it until its routes have changed.
                true => progress.doom(name.clone(), head),
                false => progress.want(name.clone(), head, Want::ASKED),
            }
        }
        let Some(at) = at else { return };
        // What it holds and was removed since goes when nothing refers to it any more.
        for (name, kept) in table.changes_since(at).into_iter().flatten() {
            if kept == Kept::Removed && progress.interest.covers(name) && table.had(name, at) != Some(false) {
                progress.doom(name.clone(), head);
            }
        }
    }
}

/// Resources, the names of those that may be new to the client, and the version of what it has with them.
type Content = (Vec<Resource>, Vec<Name>, String);

/// Everything, if anything has changed; what is absent is deleted.
fn full_reply(progress: &mut Progress, table: &Table, gate: Gate) -> Option<Content> {
    let mut set = BTreeSet::from_iter(progress.take_dirty());
    let removes = !progress.take_doomed(gate).is_empty();
    if set.is_empty() && !removes && !progress.owed {
        return None;
    }
    let lingering = progress.doomed().filter_map(|name| table.removed(name));
    let resources: Vec<Resource> = interesting(&progress.interest, table).chain(lingering).cloned().collect();
    // What lingers has its last content, which the client may not have had; nor has it what it rejected, and it may
    // take that now.
    set.extend(progress.doomed().cloned());
    set.extend(progress.refused().filter(|name| table.resource(name).is_some()).cloned());
    let version = version(resources.iter());
    Some((resources, set.into_iter().collect(), version))
}

/// What has changed. What was removed cannot be said, but others wait until it could have been.
fn part_reply(progress: &mut Progress, table: &Table, gate: Gate) -> Option<Content> {
    // Who asks for endpoints has a cluster that waits for them, be it about to go.
    let dirty = progress.take_dirty();
    progress.take_doomed(gate);
    let last = |name: &Name| table.removed(name).filter(|_| progress.rules.always_resent).cloned();
    let resources: Vec<Resource> =
        dirty.iter().filter_map(|name| table.resource(name).cloned().or_else(|| last(name))).collect();
    if resources.is_empty() && !progress.owed {
        return None;
    }
    let set = resources.iter().map(|resource| resource.name().clone()).collect();
    // What a client says it has of what is sent again all the same is not looked at: to read everything for each
    // change of an endpoint would be for nothing.
    let version = match progress.rules.always_resent {
        true => version(resources.iter()),
        false => version_of_all(&progress.interest, table),
    };
    Some((resources, set, version))
}

fn interesting<'t>(interest: &Interest, table: &'t Table) -> Box<dyn Iterator<Item = &'t Resource> + 't> {
    if interest.wildcard {
        return Box::new(table.resources());
    }
    let resources: Vec<_> = interest.names.iter().filter_map(|name| table.resource(name)).collect();
    Box::new(resources.into_iter())
}

/// The version of everything that is of interest. For all that there is, the table has it ready.
fn version_of_all(interest: &Interest, table: &Table) -> String {
    match interest.wildcard {
        true => spell(table.fingerprint()),
        false => version(interest.names.iter().filter_map(|name| table.resource(name))),
    }
}

/// One version for a set of resources, whatever their order.
fn version<'r>(resources: impl Iterator<Item = &'r Resource>) -> String {
    spell(resources.map(Resource::fingerprint).fold(0, u64::wrapping_add))
}

fn spell(version: u64) -> String {
    format!("{version:016x}")
}

fn parse(version: &str) -> Option<u64> {
    u64::from_str_radix(version, 16).ok()
}
