//! RLQS: limits that Envoy enforces itself, without a call per request.
//!
//! Envoy reports what it used of each bucket every five seconds, and is told what it may use from then on. What was used is
//! charged to the same cells that `ShouldRateLimit` decides by, as debt: a limit that is enforced both ways counts
//! once. The shares of all proxies together are the limit (`model/quota`); replicas of this service split
//! it evenly among themselves.
//!
//! **Bound.** Proxies admit at the limit's rate, and at once what their buckets hold, which is the limit's burst; and each
//! of them admits a burst of its share again when it is told another one, for Envoy starts a new bucket full. That is
//! charged like everything else: when a cell was charged more than its burst and two reports' worth, proxies get nothing
//! of it until that is paid back. So in the long run it is the limit's rate; a share that was taken away counts until
//! its proxy has read so, which is told at once, and is forgotten after `action::TIME_TO_LIVE` if the proxy cannot be reached.

mod action;
mod bucket;
mod ledger;
mod located;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chancery_proto::envoy::rlqs::{
    BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
    rate_limit_quota_response::{BucketAction, bucket_action::BucketAction as Action},
    rate_limit_quota_service_server::{RateLimitQuotaService, RateLimitQuotaServiceServer},
    rate_limit_quota_usage_reports::BucketQuotaUsage,
};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::{
    bucket::{Buckets, MAX_NAMES, Unused},
    ledger::{Answer, Ledger, Member, StreamId},
    located::Found,
};
use super::connection::Peer;
use crate::{
    decide::{Caller, Limiter, MAX_TEXT},
    store::{Ask, Charging, Outcome},
};

/// Buckets of a stream whose share others' reports have changed. What does not fit is told after its own next report.
const PUSHED: usize = 256;

/// The largest report, in bytes. Envoy's timer puts all its buckets into one, and opens the stream anew with the same: one that
/// cannot be read would end every quota of the proxy. Twice what the buckets with a share can fill.
const MAX_REPORT: usize = 2 * MAX_NAMES;

/// Serves `StreamRateLimitQuotas`.
#[derive(Clone)]
pub struct QuotaService {
    limiter: Limiter,
    replicas: Arc<dyn Fn() -> u32 + Send + Sync>,
    shared: Arc<Shared>,
}

/// What the streams of all workers share.
pub struct Shared {
    ledger: Mutex<Ledger>,
    pushes: Mutex<HashMap<StreamId, mpsc::Sender<u32>>>,
    last_stream: AtomicU64,
    /// How long a proxy may use nothing of a bucket without a share before it is told to forget it.
    idle: Duration,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            ledger: Mutex::default(),
            pushes: Mutex::default(),
            last_stream: AtomicU64::default(),
            idle: ledger::IDLE,
        }
    }
}

type Responses = Pin<Box<dyn Stream<Item = Result<RateLimitQuotaResponse, Status>> + Send>>;

impl QuotaService {
    /// Assigns quotas of the limiter's rules. `shared` is one for all workers; `replicas` says how many processes
    /// like this one share the limits.
    pub fn new(limiter: Limiter, shared: Arc<Shared>, replicas: Arc<dyn Fn() -> u32 + Send + Sync>) -> Self {
        Self { limiter, replicas, shared }
    }

    /// As a tonic service.
    pub fn server(self) -> RateLimitQuotaServiceServer<Self> {
        RateLimitQuotaServiceServer::new(self).max_decoding_message_size(MAX_REPORT)
    }
}

#[tonic::async_trait]
impl RateLimitQuotaService for QuotaService {
    type StreamRateLimitQuotasStream = Responses;

    async fn stream_rate_limit_quotas(
        &self,
        request: Request<Streaming<RateLimitQuotaUsageReports>>,
    ) -> Result<Response<Responses>, Status> {
        let (caller, place) = match request.extensions().get::<Peer>() {
            None => (Caller::default(), None),
            Some(peer) => {
                let place = peer.quota_streams.clone().try_acquire_owned();
                let full = |_| Status::resource_exhausted("there are too many quota streams on this connection");
                (peer.caller.clone(), Some(place.map_err(full)?))
            }
        };
        let stream = QuotaStream::new(self.clone(), caller, place, request.into_inner());
        let responses = futures_util::stream::unfold(stream, async |mut stream| {
            let answer = stream.next().await?;
            Some((answer, stream))
        });
        Ok(Response::new(Box::pin(responses)))
    }
}

/// What a report says of one bucket.
struct Reported {
    bucket: BucketId,
    usage: BucketQuotaUsage,
    found: Found,
}

impl Reported {
    fn ask(&self) -> Option<Ask> {
        match &self.found {
            Found::Limited(located) => Some(located.ask(&self.usage)),
            Found::Free | Found::Refused => None,
        }
    }
}

/// One proxy's stream. Leaves the ledger when it is dropped.
struct QuotaStream {
    service: QuotaService,
    caller: Caller,
    id: StreamId,
    domain: Option<String>,
    reports: Streaming<RateLimitQuotaUsageReports>,
    pushed: mpsc::Receiver<u32>,
    buckets: Buckets,
    unused: Unused,
    /// It has been said that there are too many of them.
    full: bool,
    ended: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl QuotaStream {
    fn new(
        service: QuotaService,
        caller: Caller,
        place: Option<OwnedSemaphorePermit>,
        reports: Streaming<RateLimitQuotaUsageReports>,
    ) -> Self {
        let id = StreamId(service.shared.last_stream.fetch_add(1, Ordering::Relaxed));
        let (sender, pushed) = mpsc::channel(PUSHED);
        service.shared.pushes.lock().insert(id, sender);
        Self {
            service,
            caller,
            id,
            domain: None,
            reports,
            pushed,
            buckets: Buckets::default(),
            unused: Unused::default(),
            full: false,
            ended: false,
            _place: place,
        }
    }

    /// The next response; `None` ends the stream.
    async fn next(&mut self) -> Option<Result<RateLimitQuotaResponse, Status>> {
        while !self.ended {
            let bucket_action = tokio::select! {
                report = self.reports.message() => match report {
                    Ok(Some(report)) => match self.take(report).await {
                        Ok(actions) => actions,
                        Err(refused) => {
                            self.ended = true;
                            return Some(Err(refused));
                        }
                    },
                    // The proxy has gone, in order or not.
                    Ok(None) | Err(_) => return None,
                },
                Some(bucket) = self.pushed.recv() => self.changed(bucket).into_iter().collect(),
            };
            if !bucket_action.is_empty() {
                return Some(Ok(RateLimitQuotaResponse { bucket_action }));
            }
        }
        None
    }

    /// What a bucket's share is now that another's report has changed it. Looked up now, not sent along: reports on
    /// several threads may overtake each other on the way here.
    fn changed(&self, bucket: u32) -> Option<BucketAction> {
        let assignment = self.service.shared.ledger.lock().given(self.member(bucket))?;
        Some(action::about(self.buckets.id(bucket)?, action::assign(assignment)))
    }

    /// Takes a report: charges what was used, all at once, and says what the proxy may do from now on.
    async fn take(&mut self, report: RateLimitQuotaUsageReports) -> Result<Vec<BucketAction>, Status> {
        if self.domain.is_none() {
            self.domain = Some(report.domain).filter(|domain| !domain.is_empty() && domain.len() <= MAX_TEXT);
        }
        let Some(domain) = self.domain.clone() else {
            return Err(Status::invalid_argument(format!(
                "the first report must name a domain of at most {MAX_TEXT} bytes"
            )));
        };
        let limiter = &self.service.limiter;
        let (ruleset, salt) = (limiter.rules(), limiter.salt());
        let mut usages = Vec::with_capacity(report.bucket_quota_usages.len());
        for mut usage in report.bucket_quota_usages {
            let Some(bucket) = usage.bucket_id.take() else {
                return Err(Status::invalid_argument("a usage must name its bucket"));
            };
            let found = located::find(&ruleset, &salt, &self.caller, &domain, (&bucket, &usage))?;
            usages.push(Reported { bucket, usage, found });
        }
        let asks: Vec<Ask> = usages.iter().filter_map(Reported::ask).collect();
        let outcomes = match limiter.store().charge(&asks) {
            Charging::Done(outcomes) => outcomes,
            Charging::Waiting(outcomes) => outcomes.await,
        };
        Ok(self.account(&domain, usages, &outcomes))
    }

    /// Accounts for what was used and charged with these outcomes, in order: one for each bucket that a limit applies to.
    fn account(&mut self, domain: &str, usages: Vec<Reported>, outcomes: &[Outcome]) -> Vec<BucketAction> {
        let (now, replicas, mut outcomes) = (Instant::now(), (self.service.replicas)(), outcomes.iter());
        let (mut reports, mut without) = (Vec::new(), Vec::new());
        let mut decided = Vec::with_capacity(usages.len());
        for Reported { bucket, usage, found } in usages {
            // Each that was charged has its outcome.
            let limited = match &found {
                Found::Limited(located) => Some((located, outcomes.next())),
                Found::Free | Found::Refused => None,
            };
            // What the ledger decides about is left open.
            let action = match limited.filter(|(located, _)| !located.harmless) {
                Some((located, outcome)) => match self.buckets.number(&bucket) {
                    Some(number) => {
                        reports.push(located.report(number, &usage, outcome, replicas));
                        None
                    }
                    None => {
                        self.say_that_it_is_full(domain);
                        Some(action::abandon())
                    }
                },
                None => {
                    without.extend(self.buckets.remove(&bucket));
                    let used = usage.num_requests_allowed > 0 || usage.num_requests_denied > 0;
                    let idle = self.unused.reported(&bucket, used, now, self.service.shared.idle);
                    Some(if idle { action::abandon() } else { action::assign(found.without_a_share()) })
                }
            };
            decided.push((bucket, action));
        }
        let shared = &self.service.shared;
        let mut changed = Vec::new();
        let answers = {
            let mut ledger = shared.ledger.lock();
            ledger.forget(self.id, &without, &mut changed);
            ledger.report(self.id, &reports, now, &mut changed)
        };
        tell(shared, &changed);
        let mut answers = answers.into_iter();
        let mut answered = |(bucket, decided): (BucketId, Option<Action>)| {
            let action = decided.unwrap_or_else(|| match answers.next() {
                Some(Answer::Assigned(assignment)) => action::assign(assignment),
                Some(Answer::Abandon) | None => {
                    self.buckets.remove(&bucket);
                    action::abandon()
                }
            });
            action::about(bucket, action)
        };
        decided.into_iter().map(&mut answered).collect()
    }

    /// Once: kept by the proxy, such a bucket would be in each of its reports, and each of its requests makes another.
    fn say_that_it_is_full(&mut self, domain: &str) {
        if !std::mem::replace(&mut self.full, true) {
            tracing::warn!(domain, "a proxy has too many quota buckets: some get no share");
        }
    }

    fn member(&self, bucket: u32) -> Member {
        Member { stream: self.id, bucket }
    }
}

impl Drop for QuotaStream {
    fn drop(&mut self) {
        let shared = &self.service.shared;
        shared.pushes.lock().remove(&self.id);
        let mut changed = Vec::new();
        shared.ledger.lock().leave(self.id, &mut changed);
        tell(shared, &changed);
    }
}

fn tell(shared: &Shared, changed: &[Member]) {
    if changed.is_empty() {
        return;
    }
    let pushes = shared.pushes.lock();
    for member in changed {
        if let Some(stream) = pushes.get(&member.stream) {
            // Full: its own next report says it.
            let _ = stream.try_send(member.bucket);
        }
    }
}

#[cfg(test)]
mod tests;
