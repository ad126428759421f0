//! What one stream answers, told of in the traces of the revisions that it answers to.

use std::{sync::Arc, time::SystemTime};

use chancery_proto::type_url::short_name;
use chancery_runtime::traces::{KeyValue, Past, step::bounded};
use chancery_xds::{Stamp, StreamEvent, TypeUrl};
use parking_lot::Mutex;

use super::{ProxyId, status::shown_version};
use crate::publish::{Answer, Trails, revision_at};

/// Tells of the answers on a stream of one proxy.
pub struct Answers {
    trails: Arc<Trails>,
    /// The revision at which the stream begins: up to there the proxy is told everything at once.
    begun: u64,
    /// Up to which revision it has answered, by type.
    answered: Mutex<Vec<(TypeUrl, u64)>>,
}

impl Answers {
    /// Tells `trails` of them, if any are made, from the sequence `head` of the cache on that the stream is served from.
    pub fn told(trails: &Arc<Trails>, head: u64) -> Option<Self> {
        let told = || Self { trails: trails.clone(), begun: revision_at(head), answered: Mutex::default() };
        trails.are_made().then(told)
    }

    pub(super) fn hear(&self, proxy: &ProxyId, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Acknowledged(type_url, stamp, _) => self.tell(proxy, type_url, stamp, None),
            StreamEvent::Rejected(type_url, rejection, _) => {
                self.tell(proxy, type_url, &rejection.response, Some(&rejection.message));
            }
            StreamEvent::Sent(..) | StreamEvent::Settled(_) => {}
        }
    }

    fn tell(&self, proxy: &ProxyId, type_url: &TypeUrl, stamp: &Stamp, words: Option<&str>) {
        let revision = revision_at(stamp.sequence);
        let before = self.reach(type_url, revision);
        let from = stamp.at.checked_sub(stamp.after).unwrap_or(SystemTime::UNIX_EPOCH);
        // A revision may be rejected again after an answer to it, as when what stands in for the rejected is rejected too.
        let again = words.is_some() && revision > self.begun;
        let first = if again { (before + 1).min(revision) } else { before + 1 };
        let answer = Answer {
            fleet: &proxy.fleet,
            revisions: first..=revision,
            type_url,
            past: Past { from, to: stamp.at },
            words,
        };
        self.trails.answered(&answer, || {
            vec![
                KeyValue::new("chancery.proxy", proxy.id.to_string()),
                KeyValue::new("chancery.fleet", proxy.fleet().to_owned()),
                KeyValue::new("chancery.type", bounded(short_name(type_url)).to_owned()),
                KeyValue::new("chancery.version", shown_version(stamp)),
                KeyValue::new("chancery.nonce", stamp.nonce.to_string()),
            ]
        });
    }

    /// It has answered up to `revision`. Returns up to where it had before.
    fn reach(&self, type_url: &TypeUrl, revision: u64) -> u64 {
        let mut answered = self.answered.lock();
        match answered.iter_mut().find(|(known, _)| known == type_url) {
            Some((_, before)) => std::mem::replace(before, revision.max(*before)),
            None => {
                answered.push((type_url.clone(), revision.max(self.begun)));
                self.begun
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chancery_proto::type_url;
    use chancery_runtime::traces::{Place, SpanData, Status, traces};
    use chancery_xds::Rejection;

    use super::*;
    use crate::{
        publish::{Changes, sequence_of},
        translate::snapshot::{FleetChanges, ResourceId},
    };

    fn stamp(revision: u64) -> Stamp {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(10);
        let (version, nonce, sequence) = ("v".into(), "n".into(), sequence_of(revision) + 1);
        Stamp { version, nonce, sequence, at, after: Duration::from_secs(3) }
    }

    #[test]
    fn an_answer_is_to_all_that_came_since_the_one_before() {
        let (made, mut spans) = traces(0.0);
        let trails = Arc::new(Trails::new(made));
        for revision in 1..=6 {
            let trace = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b{revision}-01");
            let place: Place = trails.follow(revision, Some(&trace)).place().clone();
            let put = [(ResourceId::Cluster("shop".parse().unwrap()), bytes::Bytes::new())].into();
            let fleets = [("edge".parse().unwrap(), FleetChanges { put, ..FleetChanges::default() })].into();
            trails.expect(revision, &Changes { fleets, ..Changes::default() }, place);
        }
        let answers = Answers::told(&trails, sequence_of(2)).unwrap();
        let proxy = ProxyId { fleet: Some("edge".parse().unwrap()), id: "one".parse().unwrap() };
        let clusters = type_url::CLUSTER.into();
        // All at once, then a step back within the same revision, then two revisions as one.
        for revision in [2, 3, 3, 5] {
            answers.hear(&proxy, StreamEvent::Acknowledged(&clusters, &stamp(revision), &[]));
        }
        let rejection = Rejection { response: stamp(6), message: "bad port".to_owned(), resources: Vec::new() };
        answers.hear(&proxy, StreamEvent::Rejected(&clusters, &rejection, &[]));
        drop((answers, trails));

        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let told = std::iter::from_fn(|| runtime.block_on(spans.next()));
        let told: Vec<SpanData> = told.filter(|span| span.name == "acknowledge").collect();
        let says = |span: &SpanData, name: &str| {
            span.attributes.iter().find(|said| said.key.as_str() == name).unwrap().value.as_str().into_owned()
        };
        let revisions: Vec<_> = told.iter().map(|span| says(span, "chancery.revision")).collect();
        assert_eq!(revisions, ["3", "4", "5", "6"]);
        assert_eq!(
            (says(&told[0], "chancery.proxy"), says(&told[0], "chancery.type")),
            ("one".into(), "cluster".into())
        );
        assert_eq!(told[0].end_time.duration_since(told[0].start_time).unwrap(), Duration::from_secs(3));
        assert_eq!(told[3].status, Status::error("bad port"));
    }

    #[test]
    fn where_nothing_is_traced_nobody_listens() {
        assert!(Answers::told(&Arc::default(), 0).is_none());
    }
}
