//! What a stream tells of itself, handed on to all who are to know.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use chancery_proto::type_url::short_name;
use chancery_xds::{Name, Observe, Rejection, Stamp, StreamEvent, TypeUrl};
use tokio::sync::Notify;

use super::{
    Proxies, ProxyId,
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
    judged: Option<Judged>,
}

/// What a proxy's verdicts are about.
pub struct Judged {
    /// What it is served from.
    pub shelf: Arc<Shelf>,
    /// Told when something is quarantined, or is no more.
    pub changed: Arc<Notify>,
    /// What hears of rejections, if it is a canary.
    pub rejections: Option<Arc<Rejections>>,
}

impl Observer {
    /// Hears on behalf of `proxies` what happens on a stream of `proxy`, and of `judged` what it says of that.
    pub fn new(proxy: Arc<ProxyId>, proxies: Arc<Proxies>, judged: Option<Judged>) -> Self {
        Self { proxy, proxies, judged }
    }
}

impl Judged {
    fn hear(&self, proxy: &ProxyId, event: StreamEvent<'_>) {
        let changed = match event {
            StreamEvent::Acknowledged(type_url, stamp, set) => {
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

    fn take_back(&self, proxy: &ProxyId, type_url: &TypeUrl, rejection: &Rejection, set: &[Name]) -> bool {
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
            return false;
        }
        metrics::counter!(m::QUARANTINED).increment(quarantined.len() as u64);
        tracing::warn!(
            fleet = proxy.fleet(),
            proxy = proxy.id.as_str(),
            r#type = short_name(type_url),
            resources = ?shown_names(&quarantined),
            reason = rejection.message,
            canary = self.rejections.is_some(),
            "rejected configuration is taken back for the fleet"
        );
        true
    }
}

impl Observe for Observer {
    fn on(&self, event: StreamEvent<'_>) {
        self.proxies.note(&self.proxy, event);
        self.proxies.feed_on(&self.proxy, event);
        if let Some(judged) = &self.judged {
            judged.hear(&self.proxy, event);
        }
    }
}

impl Proxies {
    /// Others will be told of `proxy`.
    fn note(&self, proxy: &Arc<ProxyId>, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Rejected(..) => self.changed.mark_first(proxy),
            StreamEvent::Sent(..) | StreamEvent::Acknowledged(..) | StreamEvent::Settled(_) => self.changed.mark(proxy),
        }
    }

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
