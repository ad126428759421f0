//! What a stream tells of itself, handed on to all who are to know.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Instant, SystemTime},
};

use chancery_proto::type_url::short_name;
use chancery_xds::{Name, Observe, Rejection, Stamp, StreamEvent, TypeUrl};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Answers, Proxies, ProxyId,
    changed::Marked,
    status::{shown_names, shown_version},
};
use crate::{
    feed::Event,
    metrics as m,
    publish::{CanaryRejection, Rejected, Rejections, Shelf, revision_at},
};

/// Hears what happens on the stream of one proxy. Whoever else is to hear of it gets a line in [`Observe::on`].
pub struct Observer {
    proxy: Arc<ProxyId>,
    proxies: Arc<Proxies>,
    marked: Marked,
    judged: Option<Judged>,
    answers: Option<Answers>,
}

/// What a proxy's verdicts are about.
///
/// Who has rejected what others have taken, or what was there before, has nothing to be given back, and may be about to reject
/// whatever comes: the next rejections of that type are not *believed*, until it acknowledges something. Else one such proxy,
/// quicker than the others, would keep every edit from the fleet.
pub struct Judged {
    /// What it is served from.
    shelf: Arc<Shelf>,
    /// Told when something is quarantined, or is no more.
    changed: Arc<Notify>,
    /// The types of which rejections are not believed.
    doubted: Mutex<HashSet<TypeUrl>>,
    /// What hears of rejections, if it is a canary.
    rejections: Option<Arc<Rejections>>,
}

impl Observer {
    /// Hears on behalf of `proxies` what happens on a stream of `proxy`, and of `judged` what it says of that.
    pub fn new(proxy: Arc<ProxyId>, proxies: Arc<Proxies>, judged: Option<Judged>) -> Self {
        Self { proxy, proxies, marked: Marked::default(), judged, answers: None }
    }

    /// The same, and `answers` hears of it too.
    pub fn telling(self, answers: Option<Answers>) -> Self {
        Self { answers, ..self }
    }
}

impl Judged {
    /// Verdicts on what is in `shelf`; `changed` is told when something is quarantined, or is no more, and `rejections` of every
    /// rejection, if the proxy is a canary.
    pub fn new(shelf: Arc<Shelf>, changed: Arc<Notify>, rejections: Option<Arc<Rejections>>) -> Self {
        Self { shelf, changed, doubted: Mutex::default(), rejections }
    }

    fn hear(&self, proxy: &ProxyId, event: StreamEvent<'_>) {
        let changed = match event {
            StreamEvent::Acknowledged(type_url, stamp, set) => {
                self.believe(type_url);
                self.shelf.acknowledged(type_url, stamp.sequence, set, Instant::now())
            }
            StreamEvent::Rejected(type_url, rejection, set) => self.take_back(proxy, type_url, rejection, set),
            StreamEvent::Sent(..) | StreamEvent::Settled(_) => false,
        };
        match (&self.rejections, event) {
            (Some(rejections), StreamEvent::Rejected(type_url, rejection, _)) => rejections.note(CanaryRejection {
                proxy: proxy.id.clone(),
                type_url: type_url.clone(),
                resources: rejection.resources.clone(),
                words: rejection.message.clone(),
                at: SystemTime::now(),
                sequence: rejection.response.sequence,
            }),
            (Some(rejections), StreamEvent::Settled(_)) => rejections.tell(),
            // What canaries have rejected concerns nobody else.
            (Some(_), _) => {}
            (None, _) if changed => self.changed.notify_one(),
            (None, _) => {}
        }
    }

    /// Nothing of the type is in doubt any more. Hardly ever is anything, and then the name is not hashed.
    fn believe(&self, type_url: &TypeUrl) {
        let mut doubted = self.doubted.lock();
        if !doubted.is_empty() {
            doubted.remove(type_url);
        }
    }

    fn take_back(&self, proxy: &ProxyId, type_url: &TypeUrl, rejection: &Rejection, set: &[Name]) -> bool {
        if self.doubted.lock().contains(type_url) {
            return false;
        }
        let rejected = Rejected {
            type_url,
            sequence: rejection.response.sequence,
            set,
            blamed: &rejection.resources,
            proxy: proxy.id.as_str(),
            words: &rejection.message,
            at: SystemTime::now(),
        };
        let quarantined = self.shelf.rejected(&rejected, Instant::now());
        if quarantined.is_empty() {
            if self.shelf.is_good(&rejected) {
                self.doubted.lock().insert(type_url.clone());
            }
            return false;
        }
        metrics::counter!(m::QUARANTINED).increment(quarantined.len() as u64);
        tracing::warn!(
            fleet = proxy.fleet(),
            proxy = proxy.id.as_str(),
            r#type = short_name(type_url),
            resources = ?shown_names(&quarantined),
            reason = rejection.message,
            revision = revision_at(rejection.response.sequence),
            canary = self.rejections.is_some(),
            "rejected configuration is taken back for the fleet"
        );
        true
    }
}

impl Observe for Observer {
    fn on(&self, event: StreamEvent<'_>) {
        let changed = &self.proxies.changed;
        match event {
            StreamEvent::Rejected(..) => changed.mark_first(&self.proxy),
            StreamEvent::Sent(..) | StreamEvent::Acknowledged(..) | StreamEvent::Settled(_) => {
                changed.mark_unless(&self.marked, &self.proxy);
            }
        }
        self.proxies.feed_on(&self.proxy, event);
        if let Some(judged) = &self.judged {
            judged.hear(&self.proxy, event);
        }
        if let Some(answers) = &self.answers {
            answers.hear(&self.proxy, event);
        }
    }
}

impl Proxies {
    /// Who listens hears of it.
    fn feed_on(&self, proxy: &ProxyId, event: StreamEvent<'_>) {
        let id = || proxy.id.to_string();
        let fleet = || proxy.fleet().to_owned();
        let r#type = |type_url: &TypeUrl| short_name(type_url).to_owned();
        let lag = |stamp: &Stamp| stamp.after.as_secs_f64() * 1000.0;
        match event {
            StreamEvent::Sent(..) => {}
            StreamEvent::Acknowledged(type_url, stamp, _) => self.feed.tell(|| Event::Acknowledged {
                proxy: id(),
                fleet: fleet(),
                r#type: r#type(type_url),
                version: shown_version(stamp),
                revision: revision_at(stamp.sequence),
                lag_ms: lag(stamp),
            }),
            StreamEvent::Rejected(type_url, rejection, _) => self.feed.tell(|| Event::Rejected {
                proxy: id(),
                fleet: fleet(),
                r#type: r#type(type_url),
                version: shown_version(&rejection.response),
                revision: revision_at(rejection.response.sequence),
                lag_ms: lag(&rejection.response),
                message: rejection.message.clone(),
                resources: shown_names(&rejection.resources),
            }),
            StreamEvent::Settled(sequence) => {
                self.feed.tell(|| Event::Settled { proxy: id(), fleet: fleet(), revision: revision_at(sequence) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chancery_proto::type_url;
    use chancery_xds::{Resource, Update};

    use super::{super::tests::register_of, *};

    /// A shelf with one route, and proxies that judge it.
    struct Court {
        shelf: Arc<Shelf>,
        route: TypeUrl,
    }

    impl Court {
        fn proxy(&self, id: &str) -> Observer {
            let proxy = ProxyId { fleet: Some("edge".parse().unwrap()), id: id.parse().unwrap() };
            let judged = Judged::new(self.shelf.clone(), Arc::default(), None);
            Observer::new(Arc::new(proxy), register_of("here"), Some(judged))
        }

        fn publish(&self, revision: u64) {
            let mut update = Update::default();
            let body = revision.to_string();
            update.upsert(type_url::ROUTE, Resource::new(type_url::ROUTE, "web", body.as_bytes()));
            self.shelf.publish(revision, update, &std::collections::BTreeMap::new());
        }

        fn stamp(&self) -> Stamp {
            let (version, nonce, sequence) = ("".into(), "".into(), self.shelf.cache().head());
            Stamp { version, nonce, sequence, at: SystemTime::now(), after: std::time::Duration::ZERO }
        }

        fn take(&self, by: &Observer) {
            by.on(StreamEvent::Acknowledged(&self.route, &self.stamp(), &["web".into()]));
        }

        fn reject(&self, by: &Observer) {
            let (message, resources) = ("bad".to_owned(), vec!["web".into()]);
            let rejection = Rejection { response: self.stamp(), message, resources };
            by.on(StreamEvent::Rejected(&self.route, &rejection, &["web".into()]));
        }

        fn is_quarantined(&self) -> bool {
            !self.shelf.quarantined().is_empty()
        }
    }

    #[test]
    fn who_rejects_what_others_have_taken_is_not_believed_until_it_takes_something() {
        let court = Court { shelf: Arc::new(Shelf::new()), route: type_url::ROUTE.into() };
        let (one, odd) = (court.proxy("one"), court.proxy("odd"));
        court.publish(1);
        court.take(&one);
        court.reject(&odd);
        court.publish(2);
        court.reject(&odd);
        assert!(!court.is_quarantined(), "it was quicker than the others, and rejects everything");
        court.reject(&one);
        assert!(court.is_quarantined(), "the others are believed");
        court.take(&odd);
        court.publish(3);
        court.reject(&odd);
        assert!(court.is_quarantined(), "it has taken what is good");
    }

    #[test]
    fn who_rejects_what_is_bad_is_believed_the_next_time_as_well() {
        let court = Court { shelf: Arc::new(Shelf::new()), route: type_url::ROUTE.into() };
        let (one, other) = (court.proxy("one"), court.proxy("other"));
        court.publish(1);
        court.take(&one);
        for revision in [2, 3] {
            court.publish(revision);
            let sent = court.shelf.cache().head();
            court.reject(&one);
            assert_eq!((court.is_quarantined(), court.shelf.cache().head()), (true, sent + 1));
            court.reject(&other);
        }
    }
}
