//! One stream: requests and cache changes in, responses out.
//!
//! All decisions are made in `session`; this file gives it the cache, the time and a connection. Replies are made only when the connection can take one, so a slow client costs one
//! response per type, and what changes meanwhile is folded into the next.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use chancery_proto::type_url;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Admission, Admit, Hello, Retire, StreamSettings,
    slot::Outlet,
    variant::{RequestHead as _, Variant},
    wire::Requests,
};
use crate::{
    cache::{Cache, Tables, Watch},
    codec::{EncodeResponse, Response},
    inspection::Inspection,
    metrics as m,
    resource::TypeUrl,
    session::{Session, SessionRules, Turn},
    status::{SharedStatus, rejection},
    subscription::{Subscription, Verdict},
};

/// A request with more names than this takes a while.
const MANY_NAMES: usize = 100;

/// What a stream sends.
type Outgoing<S> = Response<<S as Subscription>::Reply>;

/// What the service gives every stream.
pub(crate) struct Context<A> {
    pub(crate) admit: Arc<A>,
    pub(crate) settings: StreamSettings,
    pub(crate) shutdown: CancellationToken,
    /// The only type of a separate service; `None` on the aggregated one.
    pub(crate) only: Option<&'static str>,
    pub(crate) meters: Arc<AllMeters>,
}

/// Serves one stream until either end closes it.
pub(crate) async fn serve<S, A>(
    context: Context<A>,
    extensions: http::Extensions,
    mut requests: Requests<S::Request>,
    outlet: Outlet<Outgoing<S>>,
) where
    S: Variant,
    S::Request: prost::Message + Default,
    A: Admit,
    Response<S::Reply>: EncodeResponse,
{
    // Apart from the stream, which is to be small: what is said to begin with is not kept for hours.
    let hello = Box::pin(async {
        let first = tokio::select! {
            () = context.shutdown.cancelled() => return Err(shutting_down()),
            first = tokio::time::timeout(context.settings.hello_timeout, requests.message()) => first,
        };
        let first = first.map_err(|_| Status::deadline_exceeded("no request came"))?;
        let first = first?.ok_or_else(|| Status::cancelled("closed before the first request"))?;
        let node = first.node().ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
        if node.id.is_empty() {
            return Err(Status::invalid_argument("the node has no id"));
        }
        let admission = context.admit.admit(Hello { node, extensions: &extensions, protocol: S::PROTOCOL })?;
        let (id, cluster) = (node.id.clone(), node.cluster.clone());
        Ok((first, admission, id, cluster))
    });
    let (first, Admission { cache, status, ended, guard }, id, cluster) = match hello.await {
        Ok(hello) => hello,
        Err(refusal) => {
            metrics::counter!(m::STREAMS_REFUSED, "reason" => refusal.code().description()).increment(1);
            outlet.end(refusal);
            return;
        }
    };
    let ends = Ends {
        shutdown: context.shutdown.clone(),
        fleet: ended,
        connection: extensions.get::<Retire>().cloned().unwrap_or_default().0,
    };
    drop(extensions);
    let gauge = metrics::gauge!(m::STREAMS, "protocol" => S::PROTOCOL.as_str());
    gauge.increment(1.0);
    tracing::info!(proxy = id, fleet = cluster, protocol = S::PROTOCOL.as_str(), "stream opened");
    let mut stream = Stream::<S>::new(cache, status, &context, (id, cluster));
    let result = match stream.on_request(first) {
        Ok(()) => stream.run(&mut requests, &outlet, &ends).await,
        Err(status) => Err(status),
    };
    stream.status.questions().end();
    match &result {
        Ok(()) => tracing::info!(proxy = stream.node.0, fleet = stream.node.1, "stream closed"),
        Err(status) => tracing::info!(
            proxy = stream.node.0,
            fleet = stream.node.1,
            status = ?status.code(),
            reason = status.message(),
            "stream ended"
        ),
    }
    gauge.decrement(1.0);
    drop(guard);
    if let Err(status) = result {
        outlet.end(status);
    }
}

/// What hardly ever happens to a stream.
enum Interruption {
    /// It ends from this side.
    Ended(Status),
    /// The connection takes nothing any more.
    Closed,
    /// Somebody wants to know how the client stands.
    Asked,
}

/// What ends a stream from this side.
struct Ends {
    shutdown: CancellationToken,
    fleet: CancellationToken,
    connection: CancellationToken,
}

impl Ends {
    async fn ended(&self) -> Status {
        tokio::select! {
            () = self.shutdown.cancelled() => shutting_down(),
            () = self.fleet.cancelled() => Status::unavailable("no longer served from here; open another"),
            () = self.connection.cancelled() => Status::unavailable("the connection is old; open another"),
        }
    }
}

/// What is counted, by type: looked up once, for all streams.
#[derive(Default)]
pub(crate) struct AllMeters(Mutex<HashMap<TypeUrl, Arc<Meters>>>);

impl AllMeters {
    fn of(&self, type_url: &TypeUrl, tables: &Tables) -> Arc<Meters> {
        // A client may ask for any string: those that mean nothing share one name, or metrics would grow without bound.
        let known = tables.has(type_url) || type_url::ALL.iter().any(|(known, _)| **known == **type_url);
        if !known {
            return Arc::new(Meters::new("other"));
        }
        let meters = || Arc::new(Meters::new(type_url::short_name(type_url)));
        self.0.lock().entry(type_url.clone()).or_insert_with(meters).clone()
    }
}

/// What is counted of one type.
struct Meters {
    /// How the type is called in logs and metrics.
    label: String,
    responses: metrics::Counter,
    bytes: metrics::Counter,
    rejections: metrics::Counter,
    acknowledged: metrics::Histogram,
}

impl Meters {
    fn new(label: &str) -> Self {
        let label = label.to_owned();
        Self {
            responses: metrics::counter!(m::RESPONSES, "type" => label.clone()),
            bytes: metrics::counter!(m::RESPONSE_BYTES, "type" => label.clone()),
            rejections: metrics::counter!(m::REJECTIONS, "type" => label.clone()),
            acknowledged: metrics::histogram!(m::ACKNOWLEDGE_SECONDS, "type" => label.clone()),
            label,
        }
    }
}

struct Stream<S: Variant> {
    cache: Arc<Cache>,
    head: Watch,
    status: SharedStatus,
    only: Option<&'static str>,
    /// Id and cluster of the node; neither may change.
    node: (String, String),
    session: Session<S>,
    /// The types that were asked for. Their names are its own: a count of clones that all streams share would be fought over.
    types: Vec<(TypeUrl, Arc<Meters>)>,
    all_meters: Arc<AllMeters>,
    /// Replies that the connection has not taken yet, at most one per type.
    queue: VecDeque<Response<S::Reply>>,
    /// Since when it has taken none of them.
    full_since: Option<Instant>,
    /// For how long it may keep alive what is no more.
    patience: Duration,
}

impl<S> Stream<S>
where
    S: Variant,
    S::Request: prost::Message + Default,
    Response<S::Reply>: EncodeResponse,
{
    fn new<A>(cache: Arc<Cache>, status: SharedStatus, context: &Context<A>, node: (String, String)) -> Self {
        let rules = SessionRules {
            patience: context.settings.order_timeout,
            max_types: context.settings.max_types,
            max_names: context.settings.max_names,
            aggregated: context.only.is_none(),
        };
        Self {
            head: cache.watch(),
            cache,
            status,
            only: context.only,
            node,
            session: Session::new(rules, Instant::now()),
            types: Vec::new(),
            all_meters: context.meters.clone(),
            queue: VecDeque::new(),
            full_since: None,
            patience: context.settings.order_timeout,
        }
    }

    async fn run(
        &mut self,
        requests: &mut Requests<S::Request>,
        outlet: &Outlet<Outgoing<S>>,
        ends: &Ends,
    ) -> Result<(), Status> {
        let status = self.status.clone();
        let interruption = async || {
            tokio::select! {
                ended = ends.ended() => Interruption::Ended(ended),
                () = outlet.closed() => Interruption::Closed,
                () = status.questions().asked() => Interruption::Asked,
            }
        };
        // With a waker of its own: it is polled when it has something to say, and not with each request and each change, which
        // would take locks that all streams share.
        let mut interrupted = FuturesUnordered::from_iter([Box::pin(interruption())]);
        let (mut alarm, mut armed) = (pin!(tokio::time::sleep(Duration::ZERO)), false);
        loop {
            // It may be too early, as what it was for may have come; then it is set anew.
            let next_look = self.pump(outlet)?.map(tokio::time::Instant::from);
            if let Some(at) = next_look.filter(|at| !armed || *at < alarm.deadline()) {
                alarm.as_mut().reset(at);
                armed = true;
            }
            let blocked = !self.queue.is_empty();
            tokio::select! {
                Some(what) = interrupted.next() => match what {
                    Interruption::Ended(status) => return Err(status),
                    Interruption::Closed => return Ok(()),
                    Interruption::Asked => {
                        self.answer();
                        interrupted.push(Box::pin(interruption()));
                    }
                },
                request = requests.message() => match request? {
                    Some(request) => {
                        let names = request.names();
                        self.on_request(request)?;
                        // A client that says much at once has only its turn.
                        match names > MANY_NAMES {
                            true => tokio::task::yield_now().await,
                            false => tokio::task::consume_budget().await,
                        }
                    }
                    None => return Ok(()),
                },
                () = self.head.changed() => {}
                open = outlet.room(), if blocked => match open {
                    true => {}
                    false => return Ok(()),
                },
                () = &mut alarm, if armed => armed = false,
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
        let verdict = {
            let tables = self.cache.snapshot();
            let verdict = self.session.on_request(&type_url, request, &tables);
            let verdict = verdict.map_err(|error| Status::resource_exhausted(error.to_string()))?;
            if self.meters(&type_url).is_none() {
                self.types.reserve_exact(1);
                self.types.push((type_url.clone(), self.all_meters.of(&type_url, &tables)));
                self.status.on_subscribed(&type_url);
            }
            verdict
        };
        self.on_verdict(&type_url, verdict);
        Ok(())
    }

    fn answer(&self) {
        self.status.questions().answer(|| {
            let tables = self.cache.snapshot();
            Inspection { types: self.session.standings(&tables), tables }
        });
    }

    fn type_of(&self, request: &S::Request) -> Result<TypeUrl, Status> {
        match (request.type_url(), self.only) {
            ("", None) => Err(Status::invalid_argument("type_url is required on an aggregated stream")),
            ("", Some(only)) => Ok(TypeUrl::from(only)),
            (given, Some(only)) if given != only => {
                Err(Status::invalid_argument(format!("this service serves {only}, not {given}")))
            }
            (given, _) => Ok(self.known(given).map_or_else(|| TypeUrl::from(given), |(known, _)| known.clone())),
        }
    }

    fn known(&self, type_url: &str) -> Option<&(TypeUrl, Arc<Meters>)> {
        self.types.iter().find(|(known, _)| **known == *type_url)
    }

    fn meters(&self, type_url: &str) -> Option<&Meters> {
        self.known(type_url).map(|(_, meters)| &**meters)
    }

    fn on_verdict(&self, type_url: &TypeUrl, verdict: Verdict) {
        let Some(Meters { label: short, rejections, acknowledged, .. }) = self.meters(type_url) else { return };
        match verdict {
            Verdict::None => {}
            Verdict::Acknowledged(sent) => {
                acknowledged.record(sent.at.elapsed().as_secs_f64());
                self.status.on_acknowledged(type_url, &sent, SystemTime::now());
            }
            Verdict::Rejected(sent, message) => {
                rejections.increment(1);
                let rejection = rejection(&sent, message, SystemTime::now());
                tracing::warn!(
                    proxy = self.node.0,
                    fleet = self.node.1,
                    r#type = short,
                    version = &*rejection.response.version,
                    resources = ?rejection.resources,
                    reason = rejection.message,
                    "configuration rejected by the proxy"
                );
                self.status.on_rejected(type_url, &rejection, &sent.set);
            }
        }
    }

    /// Makes the replies that are due and hands over what the connection takes. Returns when to look again
    /// even if nothing happens.
    fn pump(&mut self, outlet: &Outlet<Outgoing<S>>) -> Result<Option<Instant>, Status> {
        // What changes meanwhile is looked at when the connection has taken what there is.
        if !self.hand_over(outlet) {
            return Ok(self.stay_full(Instant::now()));
        }
        // In this order: what is applied after the look marks the head as changed again.
        self.head.mark_unchanged();
        let turn = self.session.turn(&self.cache.snapshot(), Instant::now());
        let Turn { replies, look_again, settled, kept_back } =
            turn.map_err(|error| Status::aborted(error.to_string()))?;
        self.status.on_kept_back(kept_back);
        if let Some(settled) = settled {
            self.status.on_settled(settled);
        }
        for (type_url, sent, reply) in replies {
            let response = Response { type_url, nonce: sent.nonce.clone(), version: sent.version.clone(), reply };
            let meters = self.meters(&response.type_url);
            if let Some(meters) = meters {
                meters.bytes.increment(response.encoded_len() as u64);
                meters.responses.increment(1);
            }
            tracing::debug!(
                proxy = self.node.0,
                r#type = meters.map(|meters| meters.label.as_str()),
                nonce = &*sent.nonce,
                version = &*sent.version,
                count = sent.names.len(),
                "response"
            );
            self.status.on_sent(&response.type_url, &sent, SystemTime::now());
            self.queue.push_back(response);
        }
        match self.hand_over(outlet) {
            true => Ok(look_again),
            false => Ok(self.stay_full(Instant::now())),
        }
    }

    /// Hands over as much as the connection takes. Whether that is all.
    fn hand_over(&mut self, outlet: &Outlet<Outgoing<S>>) -> bool {
        while let Some(response) = self.queue.pop_front() {
            if let Err(response) = outlet.try_send(response) {
                self.queue.push_front(response);
                return false;
            }
            self.full_since = None;
        }
        true
    }

    /// The connection takes nothing, which it may for a moment: it takes one response at a time. A client that does not read may not
    /// keep alive what is no more. Returns when to look again.
    fn stay_full(&mut self, now: Instant) -> Option<Instant> {
        let until = *self.full_since.get_or_insert(now) + self.patience;
        if until <= now {
            self.session.unpin();
        }
        Some(until).filter(|until| *until > now)
    }
}

fn shutting_down() -> Status {
    Status::unavailable("the control plane is shutting down")
}

#[cfg(test)]
mod tests;
