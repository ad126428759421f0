//! The traces of the newest revisions, for as long as proxies may answer to them.
//!
//! Of each revision that was made in a trace it is remembered where in the trace it was published, for which fleet and with which types of
//! resources. What a proxy answers says up to which point it stands: it answers to every revision since its answer before, and
//! is told of in the trace of each that had something of that type for it, edits folded into one response included.
//!
//! Nothing waits here: a span of an answer is made when the answer comes, from the time that the response took. Bounded are how many
//! revisions are remembered, for how long, and in how many spans acknowledgements are told of. Rejections are all told of, since each may be the one
//! that is looked for.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use chancery_proto::type_url;
use chancery_runtime::traces::{Arrived, KeyValue, Past, Place, SpanKind, Step, Traces};
use parking_lot::Mutex;

use super::Changes;
use crate::{metrics as m, model::Name};

/// How many revisions are remembered.
const MOST_REVISIONS: usize = 64;
/// How long an answer may take to be told of in the revision's trace.
const LATEST: Duration = Duration::from_secs(600);
/// In how many spans of one revision its acknowledgements are told of, on this replica.
const MOST_ACKNOWLEDGEMENTS: usize = 100;
/// For how many fleets of one revision it is told of that it is published.
const MOST_FLEETS: usize = 100;

/// What is known of revisions that were made in a trace.
#[derive(Debug, Default)]
pub struct Trails {
    traces: Traces,
    /// The newest last.
    recent: Mutex<VecDeque<Trail>>,
}

#[derive(Debug)]
struct Trail {
    revision: u64,
    /// Where it is told of that it is published.
    place: Place,
    since: Instant,
    /// By fleet; none: the limiters.
    told: BTreeMap<Option<Name>, Told>,
    published: usize,
    acknowledgements: usize,
}

/// What a revision has for one fleet.
#[derive(Debug)]
struct Told {
    /// Where answers are told of.
    place: Place,
    types: BTreeSet<&'static str>,
}

/// An answer of a proxy or a limiter.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// Its fleet; none: a limiter.
    pub fleet: &'a Option<Name>,
    /// To which revisions.
    pub revisions: RangeInclusive<u64>,
    /// Of what type.
    pub type_url: &'a str,
    /// From when the response was made until the answer came.
    pub past: Past,
    /// Why it rejects the response, if it does.
    pub words: Option<&'a str>,
}

impl Trails {
    /// Of revisions in `traces`.
    pub fn new(traces: Traces) -> Self {
        Self { traces, recent: Mutex::default() }
    }

    /// Whether any are made at all.
    pub fn are_made(&self) -> bool {
        self.traces.are_made()
    }

    /// What makes the spans.
    pub fn traces(&self) -> &Traces {
        &self.traces
    }

    /// Begins the step in which this replica goes on with a revision of another one.
    pub fn follow(&self, revision: u64, traceparent: Option<&String>) -> Step {
        let Some(traceparent) = traceparent else { return Step::default() };
        let mut step = self.traces.step("follow", SpanKind::Consumer, &Arrived::of_traceparent(traceparent));
        step.says("chancery.revision", revision.cast_signed());
        step
    }

    /// `revision`, made at `place`, is about to be published.
    pub fn expect(&self, revision: u64, changes: &Changes, place: Place) {
        if !place.is_somewhere() {
            return;
        }
        let told = |types| Told { place: place.clone(), types };
        let fleets = changes.fleets.iter().map(|(fleet, changes)| {
            let ids = changes.put.keys().chain(&changes.removed);
            let mut types: BTreeSet<_> = ids.map(|id| id.type_url()).collect();
            // By host or whole: that is for each proxy to say.
            if types.contains(type_url::VIRTUAL_HOST) || types.contains(type_url::ROUTE) {
                types.extend([type_url::VIRTUAL_HOST, type_url::ROUTE]);
            }
            (Some(fleet.clone()), told(types))
        });
        let domains = [type_url::RATE_LIMIT_DOMAIN, type_url::RATE_LIMIT_CONFIG];
        let limiters = (!changes.domains.is_empty()).then(|| (None, told(domains.into())));
        let told = fleets.chain(limiters).collect();
        let trail = Trail { revision, place, since: Instant::now(), told, published: 0, acknowledgements: 0 };
        let mut recent = self.recent.lock();
        recent.retain(|trail| trail.since.elapsed() < LATEST);
        if recent.len() == MOST_REVISIONS {
            recent.pop_front();
        }
        recent.push_back(trail);
    }

    /// Begins the step in which `revision` is published for `fleet`; for limiters if there is none.
    pub(super) fn publish(&self, revision: u64, fleet: Option<&Name>) -> Step {
        if !self.are_made() {
            return Step::default();
        }
        let mut recent = self.recent.lock();
        let trail = recent.iter_mut().rev().find(|trail| trail.revision == revision);
        let Some(trail) = trail.filter(|trail| trail.published < MOST_FLEETS) else { return Step::default() };
        let Some(told) = trail.told.get_mut(&fleet.cloned()) else { return Step::default() };
        trail.published += 1;
        let mut step = trail.place.begin("publish");
        step.says("chancery.fleet", fleet.map(ToString::to_string).unwrap_or_default());
        step.says("chancery.revision", revision.cast_signed());
        told.place = step.place().clone();
        step
    }

    /// Tells of an answer in the trace of each revision that it is about; `attributes` are asked for if there is one.
    pub fn answered(&self, answer: &Answer<'_>, attributes: impl Fn() -> Vec<KeyValue>) {
        let mut recent = self.recent.lock();
        for trail in recent.iter_mut().filter(|trail| answer.revisions.contains(&trail.revision)) {
            let told = trail.told.get(answer.fleet).filter(|told| told.types.contains(answer.type_url));
            let Some(told) = told.filter(|_| trail.since.elapsed() < LATEST) else { continue };
            if answer.words.is_none() {
                if trail.acknowledgements == MOST_ACKNOWLEDGEMENTS {
                    metrics::counter!(m::ACKNOWLEDGEMENTS_UNTRACED).increment(1);
                    continue;
                }
                trail.acknowledgements += 1;
            }
            let mut attributes = attributes();
            attributes.push(KeyValue::new("chancery.revision", trail.revision.cast_signed()));
            told.place.tell("acknowledge", answer.past, attributes, answer.words);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use chancery_runtime::traces::{SpanData, Spans, Status, traces};

    use super::*;
    use crate::translate::snapshot::{FleetChanges, ResourceId};

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    struct Desk {
        trails: Trails,
        spans: Spans,
    }

    impl Desk {
        fn new() -> Self {
            let (traces, spans) = traces(0.0);
            Self { trails: Trails::new(traces), spans }
        }

        /// A revision that changes a cluster of the fleet `edge`.
        fn publish(&self, revision: u64) {
            let step = self.trails.follow(revision, Some(&TRACE.to_owned()));
            let put = [(ResourceId::Cluster("shop".parse().unwrap()), bytes::Bytes::new())].into();
            let fleets = [("edge".parse().unwrap(), FleetChanges { put, ..FleetChanges::default() })].into();
            self.trails.expect(revision, &Changes { fleets, ..Changes::default() }, step.place().clone());
            drop(self.trails.publish(revision, Some(&"edge".parse().unwrap())));
        }

        fn answer(&self, fleet: &str, type_url: &str, revisions: RangeInclusive<u64>, words: Option<&str>) {
            let fleet = &Some(fleet.parse().unwrap());
            let past = Past { from: SystemTime::UNIX_EPOCH, to: SystemTime::UNIX_EPOCH };
            self.trails.answered(&Answer { fleet, revisions, type_url, past, words }, Vec::new);
        }

        /// What has been told of, without what is published.
        fn answers(mut self) -> Vec<SpanData> {
            drop(self.trails);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let all = std::iter::from_fn(|| runtime.block_on(self.spans.next()));
            all.filter(|span| span.name == "acknowledge").collect()
        }
    }

    #[test]
    fn an_answer_is_told_of_in_every_revision_that_it_is_about() {
        let desk = Desk::new();
        (1..=4).for_each(|revision| desk.publish(revision));
        desk.answer("edge", type_url::CLUSTER, 2..=3, None);
        desk.answer("edge", type_url::LISTENER, 2..=3, None);
        desk.answer("far", type_url::CLUSTER, 2..=3, None);
        #[expect(clippy::reversed_empty_ranges, reason = "a step between two revisions")]
        desk.answer("edge", type_url::CLUSTER, 5..=4, None);
        let revisions: Vec<_> =
            desk.answers().iter().map(|span| span.attributes[0].value.as_str().into_owned()).collect();
        assert_eq!(revisions, ["2", "3"]);
    }

    #[test]
    fn so_many_acknowledgements_are_told_of_and_every_rejection() {
        let desk = Desk::new();
        desk.publish(1);
        for _ in 0..2 * MOST_ACKNOWLEDGEMENTS {
            desk.answer("edge", type_url::CLUSTER, 1..=1, None);
            desk.answer("edge", type_url::CLUSTER, 1..=1, Some("bad"));
        }
        let answers = desk.answers();
        let rejections = answers.iter().filter(|span| span.status != Status::Unset).count();
        assert_eq!((answers.len() - rejections, rejections), (MOST_ACKNOWLEDGEMENTS, 2 * MOST_ACKNOWLEDGEMENTS));
    }

    #[test]
    fn so_many_revisions_are_remembered() {
        let desk = Desk::new();
        let newest = MOST_REVISIONS as u64 + 1;
        (1..=newest).for_each(|revision| desk.publish(revision));
        assert_eq!(desk.trails.recent.lock().len(), MOST_REVISIONS);
        for revision in [1, 2, newest] {
            desk.answer("edge", type_url::CLUSTER, revision..=revision, None);
        }
        assert_eq!(desk.answers().len(), 2);
    }
}
