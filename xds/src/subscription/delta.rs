//! The incremental variant: names are added and taken away, resources come one by one.
//!
//! A request carries *changes* to the subscription, so it counts even if its nonce is stale; only
//! its verdict on a response depends on the nonce. A name that is subscribed again is sent again: the
//! client may have dropped its copy.

use std::{collections::HashMap, sync::Arc, time::Instant};

use chancery_proto::envoy::discovery::DeltaDiscoveryRequest;

use super::{Gate, Progress, Sent, Subscription, TypeRules, Verdict, WILDCARD, pending::Want};
use crate::{
    cache::Table,
    rejection,
    resource::{Name, Resource},
};

/// What a client of the incremental variant has asked for, of one type.
#[derive(Debug)]
pub struct Delta {
    progress: Progress,
}

/// The content of a `DeltaDiscoveryResponse`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeltaReply {
    /// Resources that are new or changed.
    pub upserts: Vec<Resource>,
    /// Names that have no resource.
    pub removed: Vec<Name>,
}

impl Subscription for Delta {
    type Request = DeltaDiscoveryRequest;
    type Reply = DeltaReply;

    fn new(rules: TypeRules) -> Self {
        Self { progress: Progress::new(rules) }
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest, table: &Table, head: u64) -> Verdict {
        let error = request.error_detail.map(|status| rejection::cut(status.message));
        let verdict = self.progress.answered(&request.response_nonce, error);
        let first = self.progress.start(head, !request.initial_resource_versions.is_empty());
        if first && self.progress.rules.legacy_wildcard && request.resource_names_subscribe.is_empty() {
            self.subscribe(WILDCARD, table, head, first);
        }
        for name in &request.resource_names_subscribe {
            self.subscribe(name, table, head, first);
        }
        self.progress.interest.ask_for(&request.resource_names_subscribe, table);
        self.unsubscribe(&request.resource_names_unsubscribe, table, head);
        if first {
            self.take_initial_versions(&request.initial_resource_versions, table, head);
        }
        verdict
    }

    fn reply(&mut self, table: &Table, gate: Gate, now: Instant) -> Option<(Sent, DeltaReply)> {
        let progress = &mut self.progress;
        if progress.outstanding().is_some() || gate == Gate::Shut {
            return None;
        }
        let mut names = progress.take_dirty();
        let doomed = progress.take_doomed(gate);
        if !doomed.is_empty() {
            names.extend(doomed);
            names.sort_unstable();
            names.dedup();
        }
        if names.is_empty() && !progress.owed {
            return None;
        }
        progress.owed = false;
        let mut reply = DeltaReply { upserts: Vec::new(), removed: Vec::new() };
        for name in &names {
            let lingering = || table.removed(name).filter(|_| progress.is_doomed(name));
            match table.resource(name).or_else(lingering) {
                Some(resource) => reply.upserts.push(resource.clone()),
                None => {
                    progress.skip(name);
                    reply.removed.push(name.clone());
                }
            }
        }
        let version = progress.seen().to_string();
        let names: Arc<[_]> = names.into();
        let set = match reply.removed.is_empty() {
            true => names.clone(),
            false => reply.upserts.iter().map(|resource| resource.name().clone()).collect(),
        };
        let sent = progress.send(version, names, set, now);
        Some((sent, reply))
    }

    fn is_busy(&self) -> bool {
        self.progress.outstanding().is_some()
    }

    fn sends_parts(&self) -> bool {
        true
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }
}

impl Delta {
    fn subscribe(&mut self, name: &str, table: &Table, head: u64, first: bool) {
        let progress = &mut self.progress;
        if name == WILDCARD {
            // Said again while it holds, it asks for nothing: Envoy spells the legacy wildcard out when
            // names join it.
            if !progress.interest.wildcard {
                progress.interest.wildcard = true;
                progress.owe(head);
                // What it has by name already it will not say, but it may have it.
                progress.want_all(table, head, |_| if first { Want::NEW } else { Want::PERHAPS_HELD });
                // What it asked for before, and does not any more, it would now take for part of the wildcard.
                let gone = progress.in_flight().filter(|name| table.resource(name).is_none());
                for name in gone.cloned().collect::<Vec<_>>() {
                    progress.want(name, head, Want::ASKED);
                }
            }
            return;
        }
        let name = table.shared(name);
        progress.want(name.clone(), head, Want::ASKED);
        if progress.rules.always_resent && table.removed(&name).is_some() {
            // Its cluster may be about to go as well, and wait for its endpoints until then.
            progress.mark_doomed(name, 0, head);
        }
    }

    fn unsubscribe(&mut self, names: &[String], table: &Table, head: u64) {
        let progress = &mut self.progress;
        let before = progress.interest.clone();
        progress.interest.give_up(names, table);
        for name in names {
            if name == WILDCARD {
                progress.interest.wildcard = false;
                progress.owed = false;
                progress.skip_uninteresting();
            } else if before.names(name) {
                if !progress.interest.wildcard {
                    progress.forget(name);
                } else if !progress.is_doomed(name) {
                    // The client cannot know whether the wildcard still gives it this one: it is told. If it is
                    // about to lose it, it is told then.
                    progress.want(table.shared(name), head, Want::ASKED);
                }
            }
        }
    }

    fn take_initial_versions(&mut self, versions: &HashMap<String, String>, table: &Table, head: u64) {
        let progress = &mut self.progress;
        if !versions.is_empty() {
            progress.owed = false;
        }
        for (name, version) in versions {
            if !progress.interest.covers(name) {
                continue;
            }
            match table.resource(name) {
                Some(resource) if resource.version().to_string() == *version && !progress.rules.always_resent => {
                    progress.skip(name);
                }
                Some(resource) => progress.want(resource.name().clone(), head, Want::HELD),
                None => {
                    let name = table.shared(name);
                    progress.doom(name.clone(), head);
                    if progress.rules.always_resent {
                        progress.touch(&name);
                    }
                }
            }
        }
    }
}
