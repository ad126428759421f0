//! One stream: requests and cache changes in, responses out.
//!
//! All decisions are made in `subscription` and `order`; this file gives them the cache, the time and
//! a connection. Replies are made only when the connection can take one, so a slow client costs one
//! response per type, and what changes meanwhile is folded into the next.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Instant, SystemTime},
};

use chancery_proto::{
    envoy::{
        core::Node,
        discovery::{DeltaDiscoveryRequest, DiscoveryRequest},
    },
    type_url,
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Admission, Admit, Hello, Protocol, StreamSettings};
use crate::{
    cache::Cache,
    codec::{EncodeResponse, Response},
    metrics as m, order,
    resource::TypeUrl,
    status::{SharedStatus, rejection},
    subscription::{Gates, Subscription, TypeRules, Verdict, delta::Delta, sotw::Sotw},
};

/// A protocol variant as the stream needs it.
pub(crate) trait Variant: Subscription<Request: RequestHead, Reply: Clone> {
    const PROTOCOL: Protocol;
    /// Whether a response may follow one that has not been answered. Where every request repeats the list
    /// of names it may not: the answer to the first would be taken for stale.
    const MAY_OVERLAP: bool;
}

impl Variant for Delta {
    const PROTOCOL: Protocol = Protocol::Delta;
    const MAY_OVERLAP: bool = true;
}

impl Variant for Sotw {
    const PROTOCOL: Protocol = Protocol::Sotw;
    const MAY_OVERLAP: bool = false;
}

/// The parts of a request that both variants have.
pub(crate) trait RequestHead {
    fn node(&self) -> Option<&Node>;
    fn type_url(&self) -> &str;
}

impl RequestHead for DiscoveryRequest {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }
}

impl RequestHead for DeltaDiscoveryRequest {
    fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    fn type_url(&self) -> &str {
        &self.type_url
    }
}

/// What a stream sends.
pub(crate) type Outgoing<S> = Result<Response<<S as Subscription>::Reply>, Status>;

/// What the service gives every stream.
pub(crate) struct Context<A> {
    pub(crate) admit: Arc<A>,
    pub(crate) settings: StreamSettings,
    pub(crate) shutdown: CancellationToken,
    /// The only type of a separate service; `None` on the aggregated one.
    pub(crate) only: Option<&'static str>,
}

/// Serves one stream until either end closes it.
pub(crate) async fn serve<S, A>(
    context: Context<A>,
    extensions: http::Extensions,
    mut requests: tonic::Streaming<S::Request>,
    responses: mpsc::Sender<Outgoing<S>>,
) where
    S: Variant,
    A: Admit,
    Response<S::Reply>: EncodeResponse,
{
    let hello = async {
        let first = tokio::time::timeout(context.settings.hello_timeout, requests.message()).await;
        let first = first.map_err(|_| Status::deadline_exceeded("no request came"))?;
        let first = first?.ok_or_else(|| Status::cancelled("closed before the first request"))?;
        let node = first.node().ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
        if node.id.is_empty() {
            return Err(Status::invalid_argument("the node has no id"));
        }
        let admission = context.admit.admit(Hello { node, extensions: &extensions, protocol: S::PROTOCOL })?;
        let (id, cluster) = (node.id.clone(), node.cluster.clone());
        Ok((first, admission, id, cluster))
    };
    let (first, Admission { cache, status, ended, guard }, id, cluster) = match hello.await {
        Ok(hello) => hello,
        Err(refusal) => {
            metrics::counter!(m::STREAMS_REFUSED, "reason" => refusal.code().description()).increment(1);
            // The client may be gone; there is nobody else to tell.
            let _ = responses.send(Err(refusal)).await;
            return;
        }
    };
    drop(extensions);
    let gauge = metrics::gauge!(m::STREAMS, "protocol" => S::PROTOCOL.as_str());
    gauge.increment(1.0);
    tracing::info!(proxy = id, fleet = cluster, protocol = S::PROTOCOL.as_str(), "stream opened");
    let mut stream = Stream::<S>::new(cache, status, &context, (id, cluster));
    let result = stream.run(first, &mut requests, &responses, &context.shutdown, &ended).await;
    match &result {
        Ok(()) => tracing::info!(proxy = stream.node.0, fleet = stream.node.1, "stream closed"),
        Err(status) => tracing::info!(
            proxy = stream.node.0,
            fleet = stream.node.1,
            code = ?status.code(),
            reason = status.message(),
            "stream ended"
        ),
    }
    gauge.decrement(1.0);
    drop(guard);
    if let Err(status) = result {
        // As above: the client may be gone, or may not be reading; a slow one is not waited for.
        let _ = responses.try_send(Err(status));
    }
}

struct Stream<S: Variant> {
    cache: Arc<Cache>,
    head: watch::Receiver<u64>,
    status: SharedStatus,
    settings: StreamSettings,
    only: Option<&'static str>,
    /// Id and cluster of the node; neither may change.
    node: (String, String),
    opened: Instant,
    types: BTreeMap<(u8, TypeUrl), Typed<S>>,
    /// Replies that the connection has not taken yet, at most one per type.
    queue: VecDeque<Response<S::Reply>>,
}

/// A subscription and since when it is being held back.
struct Typed<S> {
    subscription: S,
    held_since: Option<Instant>,
}

impl<S: Variant> Stream<S>
where
    Response<S::Reply>: EncodeResponse,
{
    fn new<A>(cache: Arc<Cache>, status: SharedStatus, context: &Context<A>, node: (String, String)) -> Self {
        let head = cache.watch();
        Self {
            cache,
            head,
            status,
            settings: context.settings,
            only: context.only,
            node,
            opened: Instant::now(),
            types: BTreeMap::new(),
            queue: VecDeque::new(),
        }
    }

    async fn run(
        &mut self,
        first: S::Request,
        requests: &mut tonic::Streaming<S::Request>,
        responses: &mpsc::Sender<Outgoing<S>>,
        shutdown: &CancellationToken,
        ended: &CancellationToken,
    ) -> Result<(), Status> {
        self.on_request(first)?;
        loop {
            let next_look = self.pump(responses)?;
            let blocked = !self.queue.is_empty();
            tokio::select! {
                () = shutdown.cancelled() => return Err(Status::unavailable("the control plane is shutting down")),
                () = ended.cancelled() => return Err(Status::unavailable("the fleet is no longer served")),
                request = requests.message() => match request? {
                    Some(request) => self.on_request(request)?,
                    None => return Ok(()),
                },
                _ = self.head.changed() => {}
                permit = responses.reserve(), if blocked => match (permit, self.queue.pop_front()) {
                    (Ok(permit), Some(response)) => permit.send(Ok(response)),
                    _ => return Ok(()),
                },
                () = responses.closed() => return Ok(()),
                () = until(next_look) => {}
            }
        }
    }

    fn on_request(&mut self, request: S::Request) -> Result<(), Status> {
        let type_url = self.type_of(&request)?;
        if let Some(node) = request.node()
            && (node.id != self.node.0 || node.cluster != self.node.1)
        {
            return Err(Status::invalid_argument("the node changed on an open stream"));
        }
        let key = (order::rank(&type_url), type_url.clone());
        if !self.types.contains_key(&key) {
            if self.types.len() >= self.settings.max_types {
                return Err(Status::resource_exhausted("too many resource types on one stream"));
            }
            self.types.insert(key.clone(), Typed { subscription: S::new(rules(&type_url)), held_since: None });
            self.status.on_subscribed(&type_url);
        }
        let Some(typed) = self.types.get_mut(&key) else { return Ok(()) };
        let verdict = {
            let tables = self.cache.read();
            typed.subscription.on_request(request, tables.table(&type_url), tables.head())
        };
        self.on_verdict(&type_url, verdict);
        Ok(())
    }

    fn type_of(&self, request: &S::Request) -> Result<TypeUrl, Status> {
        match (request.type_url(), self.only) {
            ("", None) => Err(Status::invalid_argument("type_url is required on an aggregated stream")),
            ("", Some(only)) => Ok(TypeUrl::from(only)),
            (given, Some(only)) if given != only => {
                Err(Status::invalid_argument(format!("this service serves {only}, not {given}")))
            }
            (given, _) => Ok(TypeUrl::from(given)),
        }
    }

    fn on_verdict(&self, type_url: &TypeUrl, verdict: Verdict) {
        let short = type_url::short_name(type_url).to_owned();
        match verdict {
            Verdict::None => {}
            Verdict::Acknowledged(sent) => {
                metrics::histogram!(m::ACKNOWLEDGE_SECONDS, "type" => short).record(sent.at.elapsed().as_secs_f64());
                self.status.on_acknowledged(type_url, &sent, SystemTime::now());
            }
            Verdict::Rejected(sent, message) => {
                metrics::counter!(m::REJECTIONS, "type" => short.clone()).increment(1);
                let rejection = rejection(sent, message, SystemTime::now());
                tracing::warn!(
                    proxy = self.node.0,
                    fleet = self.node.1,
                    r#type = short,
                    version = rejection.response.version,
                    resources = ?rejection.resources,
                    reason = rejection.message,
                    "configuration rejected by the proxy"
                );
                self.status.on_rejected(type_url, rejection);
            }
        }
    }

    /// Makes the replies that are due and hands over what the connection takes. Returns when to look again
    /// even if nothing happens.
    fn pump(&mut self, responses: &mpsc::Sender<Outgoing<S>>) -> Result<Option<Instant>, Status> {
        let now = Instant::now();
        self.head.mark_unchanged();
        let next_look = if self.queue.is_empty() { self.make_replies(now)? } else { None };
        while !self.queue.is_empty() {
            let Ok(permit) = responses.try_reserve() else { break };
            if let Some(response) = self.queue.pop_front() {
                permit.send(Ok(response));
            }
        }
        Ok(next_look)
    }

    fn make_replies(&mut self, now: Instant) -> Result<Option<Instant>, Status> {
        let cache = self.cache.clone();
        let tables = cache.read();
        for ((_, type_url), typed) in &mut self.types {
            let absorbed = typed.subscription.progress_mut().absorb(tables.table(type_url), tables.head());
            absorbed.map_err(|error| Status::aborted(error.to_string()))?;
        }
        let mut next_look: Option<Instant> = None;
        let keys: Vec<_> = self.types.keys().cloned().collect();
        for key in keys {
            let gates = self.gates(&key.1, now);
            let Some(typed) = self.types.get_mut(&key) else { continue };
            let progress = typed.subscription.progress_mut();
            if let Some(sent) = progress.outstanding()
                && S::MAY_OVERLAP
            {
                let patience = sent.at + self.settings.order_timeout;
                if patience <= now {
                    progress.give_up_waiting();
                } else {
                    next_look = earliest(next_look, patience);
                }
            }
            let patient = typed.held_since.is_none_or(|since| now < since + self.settings.order_timeout);
            let gates = if patient { gates } else { Gates { additions: true, removals: true } };
            if let Some((sent, reply)) = typed.subscription.reply(tables.table(&key.1), gates, now) {
                let response = Response {
                    type_url: key.1.clone(),
                    nonce: sent.nonce.clone(),
                    version: sent.version.clone(),
                    reply,
                };
                let short = type_url::short_name(&key.1).to_owned();
                metrics::counter!(m::RESPONSE_BYTES, "type" => short.clone()).increment(response.encoded_len() as u64);
                metrics::counter!(m::RESPONSES, "type" => short).increment(1);
                tracing::debug!(
                    proxy = self.node.0,
                    r#type = type_url::short_name(&key.1),
                    nonce = sent.nonce,
                    version = sent.version,
                    resources = sent.names.len(),
                    "response"
                );
                self.status.on_sent(&key.1, &sent, SystemTime::now());
                self.queue.push_back(response);
                if &*key.1 == type_url::CLUSTER {
                    // Envoy asks for the endpoints of a new cluster, but not for those of a changed one.
                    self.touch_endpoints(&sent.names);
                }
            }
            let Some(typed) = self.types.get_mut(&key) else { continue };
            let progress = typed.subscription.progress();
            typed.held_since = match (progress.is_pending() && progress.outstanding().is_none(), typed.held_since) {
                (true, since) => Some(since.unwrap_or(now)),
                (false, _) => None,
            };
            if let Some(since) = typed.held_since {
                next_look = earliest(next_look, since + self.settings.order_timeout);
            }
        }
        if !self.types.is_empty() && self.types.values().all(|typed| typed.subscription.progress().is_settled()) {
            self.status.on_settled(tables.head());
        }
        Ok(next_look)
    }

    fn touch_endpoints(&mut self, clusters: &[crate::resource::Name]) {
        let key = (order::rank(type_url::ENDPOINT), TypeUrl::from(type_url::ENDPOINT));
        if let Some(typed) = self.types.get_mut(&key) {
            for cluster in clusters {
                typed.subscription.progress_mut().touch(cluster);
            }
        }
    }

    fn gates(&self, type_url: &str, now: Instant) -> Gates {
        let young = now < self.opened + self.settings.order_timeout;
        let progress = |other: &&str| {
            let key = (order::rank(other), TypeUrl::from(*other));
            self.types.get(&key).map(|typed| typed.subscription.progress())
        };
        let additions = order::additions_wait_for(type_url)
            .iter()
            .all(|other| progress(other).is_none_or(|other| !other.has_additions()));
        // A client that has just reconnected may hold what refers to a removed resource, and not
        // yet have asked for the type that tells it better.
        let removals = additions
            && order::removals_wait_for(type_url)
                .iter()
                .all(|other| progress(other).map_or(!young || self.only.is_some(), |other| other.is_settled()));
        Gates { additions, removals }
    }
}

/// The rules of Envoy's types; others are sent by name or by wildcard, and deleted by name.
fn rules(type_url: &str) -> TypeRules {
    TypeRules {
        full_state: matches!(type_url, type_url::CLUSTER | type_url::LISTENER),
        always_resent: type_url == type_url::ENDPOINT,
    }
}

fn earliest(a: Option<Instant>, b: Instant) -> Option<Instant> {
    Some(a.map_or(b, |a| a.min(b)))
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
