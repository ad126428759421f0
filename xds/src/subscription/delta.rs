//! The incremental variant: names are added and taken away, resources come one by one.
//!
//! A request carries *changes* to the subscription, so it counts even if its nonce is stale; only
//! its verdict on a response depends on the nonce. A name that is subscribed again is sent again: the
//! client may have dropped its copy.

use std::time::Instant;

use chancery_proto::envoy::discovery::DeltaDiscoveryRequest;

use super::{Gates, Progress, Sent, Subscription, TypeRules, Verdict};
use crate::{
    cache::Table,
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
        let error = request.error_detail.map(|status| status.message);
        let verdict = self.progress.answered(&request.response_nonce, error);
        let first = !std::mem::replace(&mut self.progress.started, true);
        if first {
            self.progress.seen = head;
            if self.progress.rules.full_state && request.resource_names_subscribe.is_empty() {
                self.subscribe("*", table);
            }
        }
        for name in &request.resource_names_subscribe {
            self.subscribe(name, table);
        }
        for name in &request.resource_names_unsubscribe {
            self.unsubscribe(name, table);
        }
        if first {
            self.take_initial_versions(&request.initial_resource_versions, table);
        }
        verdict
    }

    fn reply(&mut self, table: &Table, gates: Gates, now: Instant) -> Option<(Sent, DeltaReply)> {
        let progress = &mut self.progress;
        if progress.outstanding.is_some() {
            return None;
        }
        let mut reply = DeltaReply { upserts: Vec::new(), removed: Vec::new() };
        let mut names = Vec::new();
        if gates.additions {
            names.extend(std::mem::take(&mut progress.dirty));
        }
        if gates.removals {
            names.extend(std::mem::take(&mut progress.doomed));
        }
        let owed = gates.additions && std::mem::take(&mut progress.owed);
        if names.is_empty() && !owed {
            return None;
        }
        for name in &names {
            match table.resource(name) {
                Some(resource) => reply.upserts.push(resource.clone()),
                None => reply.removed.push(name.clone()),
            }
        }
        let sent = Sent {
            nonce: progress.next_nonce(),
            version: progress.seen.to_string(),
            sequence: progress.seen,
            names,
            at: now,
        };
        progress.outstanding = Some(sent.clone());
        Some((sent, reply))
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }
}

impl Delta {
    fn subscribe(&mut self, name: &str, table: &Table) {
        let progress = &mut self.progress;
        if name == "*" {
            if !progress.interest.wildcard {
                progress.interest.wildcard = true;
                progress.owed = true;
                progress.mark_all(table);
            }
            return;
        }
        let name = Name::from(name);
        progress.doomed.remove(&name);
        progress.dirty.insert(name.clone());
        progress.interest.names.insert(name);
    }

    fn unsubscribe(&mut self, name: &str, table: &Table) {
        let progress = &mut self.progress;
        if name == "*" {
            progress.interest.wildcard = false;
            let interest = &progress.interest;
            progress.dirty.retain(|name| interest.covers(name));
            progress.doomed.retain(|name| interest.covers(name));
            return;
        }
        if !progress.interest.names.remove(name) {
            return;
        }
        if progress.interest.wildcard {
            // The client cannot know whether the wildcard still gives it this one: it is told.
            match table.resource(name) {
                Some(resource) => progress.dirty.insert(resource.name().clone()),
                None => progress.dirty.insert(Name::from(name)),
            };
        } else {
            progress.dirty.remove(name);
            progress.doomed.remove(name);
        }
    }

    fn take_initial_versions(&mut self, versions: &std::collections::HashMap<String, String>, table: &Table) {
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
                    progress.dirty.remove(name.as_str());
                }
                Some(_) => {}
                None => {
                    progress.dirty.remove(name.as_str());
                    progress.doomed.insert(Name::from(name.as_str()));
                }
            }
        }
    }
}
