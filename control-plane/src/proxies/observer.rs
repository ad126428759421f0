//! What a stream tells of itself, handed on to all who are to know.

use std::sync::Arc;

use chancery_proto::type_url::short_name;
use chancery_xds::{Observe, Stamp, StreamEvent, TypeUrl};

use super::{Proxies, ProxyId, revision_at, status::shown_names};
use crate::feed::Event;

/// Hears what happens on the stream of one proxy. Whoever else is to hear of it gets a line in [`Observe::on`].
pub struct Observer {
    proxy: Arc<ProxyId>,
    proxies: Arc<Proxies>,
}

impl Observer {
    /// Hears on behalf of `proxies` what happens on a stream of `proxy`.
    pub fn new(proxy: Arc<ProxyId>, proxies: Arc<Proxies>) -> Self {
        Self { proxy, proxies }
    }
}

impl Observe for Observer {
    fn on(&self, event: StreamEvent<'_>) {
        self.proxies.note(&self.proxy, event);
        self.proxies.feed_on(&self.proxy, event);
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
            StreamEvent::Acknowledged(type_url, stamp) => self.feed.tell(|| Event::Acknowledged {
                proxy: id(),
                fleet: fleet(),
                r#type: r#type(type_url),
                version: stamp.version.clone(),
                revision: revision_at(stamp.sequence),
                lag_ms: lag(stamp),
            }),
            StreamEvent::Rejected(type_url, rejection) => self.feed.tell(|| Event::Rejected {
                proxy: id(),
                fleet: fleet(),
                r#type: r#type(type_url),
                version: rejection.response.version.clone(),
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
