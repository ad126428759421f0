//! The state-of-the-world variant: every request repeats the whole list of names.
//!
//! A request with a stale nonce crossed our response on the wire and is dropped: the client's answer
//! to that response repeats the list. For LDS and CDS a response carries every resource, and what is not
//! in it is deleted; a resource whose removal has to wait stays in it until then. Other types
//! send what changed, and have no removal.

use std::time::Instant;

use chancery_proto::envoy::discovery::DiscoveryRequest;

use super::{Gates, Interest, Progress, Sent, Subscription, TypeRules, Verdict};
use crate::{
    cache::Table,
    resource::{Name, Resource},
};

/// What a client of the state-of-the-world variant has asked for, of one type.
#[derive(Debug)]
pub struct Sotw {
    progress: Progress,
    /// The nonce a request must carry not to be stale.
    last_nonce: String,
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
        Self { progress: Progress::new(rules), last_nonce: String::new(), named: false }
    }

    fn on_request(&mut self, request: DiscoveryRequest, table: &Table, head: u64) -> Verdict {
        let first = !std::mem::replace(&mut self.progress.started, true);
        if first {
            self.progress.seen = head;
            self.progress.interest = self.parse_interest(&request.resource_names);
            self.start(&request.version_info, table);
            return Verdict::None;
        }
        if request.response_nonce != self.last_nonce {
            return Verdict::None;
        }
        let error = request.error_detail.map(|status| status.message);
        let verdict = self.progress.answered(&request.response_nonce, error);
        let next = self.parse_interest(&request.resource_names);
        let before = std::mem::replace(&mut self.progress.interest, next);
        let progress = &mut self.progress;
        if progress.interest.wildcard && !before.wildcard {
            progress.owed = true;
            progress.mark_all(table);
        }
        for name in progress.interest.names.difference(&before.names) {
            progress.dirty.insert(name.clone());
        }
        let interest = &progress.interest;
        progress.dirty.retain(|name| interest.covers(name));
        progress.doomed.retain(|name| interest.covers(name));
        verdict
    }

    fn reply(&mut self, table: &Table, gates: Gates, now: Instant) -> Option<(Sent, SotwReply)> {
        let progress = &mut self.progress;
        if progress.outstanding.is_some() || !gates.additions {
            return None;
        }
        let resources = if progress.rules.full_state {
            let removes = gates.removals && !progress.doomed.is_empty();
            if progress.dirty.is_empty() && !progress.owed && !removes {
                return None;
            }
            if gates.removals {
                progress.doomed.clear();
            }
            let lingering = progress.doomed.iter().filter_map(|name| table.removed(name));
            interesting(&progress.interest, table).chain(lingering).cloned().collect()
        } else {
            progress.doomed.clear();
            let resources: Vec<Resource> =
                progress.dirty.iter().filter_map(|name| table.resource(name)).cloned().collect();
            if resources.is_empty() && !progress.owed {
                progress.dirty.clear();
                return None;
            }
            resources
        };
        progress.dirty.clear();
        progress.owed = false;
        let version = if progress.rules.full_state {
            digest(resources.iter())
        } else {
            digest(interesting(&progress.interest, table))
        };
        let sent = Sent {
            nonce: progress.next_nonce(),
            version,
            sequence: progress.seen,
            names: resources.iter().map(|resource| resource.name().clone()).collect(),
            at: now,
        };
        self.last_nonce.clone_from(&sent.nonce);
        progress.outstanding = Some(sent.clone());
        Some((sent, SotwReply { resources }))
    }

    fn progress(&self) -> &Progress {
        &self.progress
    }

    fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }
}

impl Sotw {
    fn parse_interest(&mut self, names: &[String]) -> Interest {
        let legacy_wildcard = names.is_empty() && !self.named && self.progress.rules.full_state;
        self.named |= !names.is_empty();
        let mut interest = Interest { wildcard: legacy_wildcard, ..Interest::default() };
        for name in names {
            if name == "*" {
                interest.wildcard = true;
            } else {
                interest.names.insert(Name::from(name.as_str()));
            }
        }
        interest
    }

    /// A new stream: what the client says it has is sent only if it has changed.
    fn start(&mut self, version: &str, table: &Table) {
        let progress = &mut self.progress;
        let current = digest(interesting(&progress.interest, table));
        if !version.is_empty() && version == current && !progress.rules.always_resent {
            return;
        }
        progress.owed = progress.interest.wildcard;
        progress.mark_all(table);
        if !version.is_empty() && progress.rules.full_state {
            // It may hold what has been removed since: that goes when nothing refers to it any more.
            let removed = table.all_removed().filter(|name| progress.interest.covers(name));
            progress.doomed.extend(removed.cloned());
        }
    }
}

fn interesting<'t>(interest: &Interest, table: &'t Table) -> Box<dyn Iterator<Item = &'t Resource> + 't> {
    if interest.wildcard {
        return Box::new(table.resources());
    }
    let mut names: Vec<&Name> = interest.names.iter().collect();
    names.sort_unstable();
    let resources: Vec<_> = names.into_iter().filter_map(|name| table.resource(name)).collect();
    Box::new(resources.into_iter())
}

/// One version for a set of resources, whatever their order.
fn digest<'r>(resources: impl Iterator<Item = &'r Resource>) -> String {
    let mut sum = 0_u64;
    for resource in resources {
        let named = xxhash_rust::xxh3::xxh3_64_with_seed(resource.name().as_bytes(), resource.version().as_u64());
        sum = sum.wrapping_add(named);
    }
    format!("{sum:016x}")
}
