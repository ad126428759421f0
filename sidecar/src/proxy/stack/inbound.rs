//! From others to the application.

use std::{convert::Infallible, num::NonZeroU32, sync::Arc};

use chancery_runtime::tls::spiffe::SpiffeId;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::{HeaderName, HeaderValue, Request, Response, uri::PathAndQuery};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tower::{Service as _, ServiceBuilder};

use super::{Arrived, upgrade};
use crate::{
    config::snapshot::{Protocol, Target},
    layer::{Asked, Clock, concurrency::ConcurrencyLayer, deadline::DeadlineLayer},
    policy::{concurrency::Concurrency, grpc::is_grpc},
    proxy::{
        accept::Peer,
        body::{Body, boxed},
        connect::Connector,
        failure::Failure,
        message,
        pool::{Pool, PoolSettings},
        trace,
        world::Base,
    },
};

/// Tells the application who calls. What a caller itself says under this name is thrown away.
pub const PEER: HeaderName = HeaderName::from_static("x-chancery-peer");

/// What is let in.
#[derive(Clone, Debug)]
pub struct InboundSettings {
    /// Where the application listens.
    pub application: Target,
    /// The trust domain of callers.
    pub trust_domain: String,
    /// Paths of SPIFFE IDs that may call, each exact or a beginning that ends with `*`; empty: all of the trust domain.
    pub allowed: Vec<String>,
    /// Whether callers without a certificate may call: in plaintext there are no others.
    pub anonymous: bool,
    /// Requests a second; `None`: any number.
    pub requests_per_second: Option<NonZeroU32>,
    /// How its connections are made.
    pub pool: PoolSettings,
}

/// The way in.
pub struct Inbound {
    settings: InboundSettings,
    base: Base,
    limiter: Option<DefaultDirectRateLimiter>,
    concurrency: Arc<Mutex<Concurrency>>,
    http1: Arc<Pool>,
    /// For gRPC.
    http2: Arc<Pool>,
}

/// Who calls, of one connection.
#[derive(Clone, Debug)]
pub struct Caller {
    allowed: bool,
    name: Option<HeaderValue>,
}

impl Inbound {
    /// Lets in what `settings` say, as many at once as `concurrency` allows.
    pub fn new(settings: InboundSettings, base: Base, concurrency: Arc<Mutex<Concurrency>>) -> Self {
        let pool = |protocol| {
            let connector = Connector { target: settings.application.clone(), tls: None };
            Arc::new(Pool::new(connector, protocol, settings.pool, base.patience, base.tasks.clone()))
        };
        let (http1, http2) = (pool(Protocol::Http1), pool(Protocol::Http2));
        let limiter = settings.requests_per_second.map(|limit| RateLimiter::direct(Quota::per_second(limit)));
        Self { settings, base, limiter, concurrency, http1, http2 }
    }

    /// Who is at the other end of a connection, and whether it may call.
    pub fn caller(&self, peer: &Peer) -> Caller {
        let Some(identity) = &peer.identity else { return Caller { allowed: self.settings.anonymous, name: None } };
        let id = identity.certificates.first().and_then(|own| SpiffeId::from_certificate(own).ok());
        let allowed = id.as_ref().is_some_and(|id| self.settings.allows(id));
        if !allowed {
            let caller = id.as_ref().map(ToString::to_string);
            tracing::warn!(peer = %peer.address, caller, "a caller that may not call");
        }
        Caller { allowed, name: id.and_then(|id| HeaderValue::try_from(id.to_string()).ok()) }
    }

    /// Where bytes that are no HTTP go, if this peer may send any.
    pub fn tunnel(&self, peer: &Peer) -> Option<Connector> {
        let target = self.settings.application.clone();
        self.caller(peer).allowed.then_some(Connector { target, tls: None })
    }

    /// Answers a request.
    ///
    /// # Errors
    /// None: what fails is answered too.
    pub async fn call(
        self: Arc<Self>,
        caller: Caller,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let grpc = is_grpc(request.headers());
        let scheme = if self.settings.anonymous { "http" } else { "https" };
        let span = trace::received(&self.base, "inbound", scheme, &mut request);
        let arrived = Arrived::new(self.base.clock, "inbound", grpc, span);
        let answer = self.answer(caller, request).await;
        Ok(arrived.answered(answer))
    }

    async fn answer(&self, caller: Caller, mut request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let authority = message::check(&request)?;
        if !caller.allowed {
            return Err(Failure::Forbidden);
        }
        let (protocol, pool) = match is_grpc(request.headers()) {
            true => (Protocol::Http2, &self.http2),
            false => (Protocol::Http1, &self.http1),
        };
        let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let tunnel = upgrade::begin(&mut request, protocol)?;
        message::strip(request.headers_mut());
        request.headers_mut().remove(PEER);
        if let Some(name) = caller.name {
            request.headers_mut().insert(PEER, name);
        }
        message::address(&mut request, protocol, &authority, path)?;
        if let Some(tunnel) = &tunnel {
            tunnel.ask(&mut request);
        }
        let mut response = self.stack(request, pool.clone()).await?;
        match tunnel {
            Some(tunnel) => tunnel.finish(&mut response, &self.base.tasks),
            None => message::strip(response.headers_mut()),
        }
        Ok(response)
    }

    /// The stack, from the outside in.
    async fn stack(&self, request: Request<Incoming>, pool: Arc<Pool>) -> Result<Response<Body>, Failure> {
        let clock: Clock = self.base.clock;
        // Who is turned away here has cost nothing; a request that has expired takes nothing from the others.
        let limited = ServiceBuilder::new()
            .layer(ConcurrencyLayer { clock, concurrency: self.concurrency.clone() })
            .service_fn(move |asked: Asked<Incoming>| {
                let pool = pool.clone();
                Box::pin(async move { pool.send(asked.request).await })
            });
        let mut stack = ServiceBuilder::new().layer(DeadlineLayer { clock, route: None }).service(limited);
        if self.limiter.as_ref().is_some_and(|limiter| limiter.check().is_err()) {
            return Err(Failure::RateLimited);
        }
        Ok(stack.call(request).await?.map(boxed))
    }

    /// Closes connections that have been idle for too long. To be called every second or so.
    pub fn sweep(&self) {
        self.http1.sweep();
        self.http2.sweep();
    }
}

impl InboundSettings {
    fn allows(&self, id: &SpiffeId) -> bool {
        let listed = self.allowed.is_empty()
            || self.allowed.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(beginning) => id.path.starts_with(beginning),
                None => id.path == *allowed,
            });
        id.trust_domain == self.trust_domain && listed
    }
}
