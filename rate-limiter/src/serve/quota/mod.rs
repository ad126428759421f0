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
//! its proxy has read so, which is told at once, and is forgotten after `TIME_TO_LIVE` if the proxy cannot be reached.

mod bucket;
mod ledger;

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chancery_proto::{
    envoy::{
        rlqs::{
            BucketId, RateLimitQuotaResponse, RateLimitQuotaUsageReports,
            rate_limit_quota_response::{
                BucketAction,
                bucket_action::{AbandonAction, BucketAction as Action, QuotaAssignmentAction},
            },
            rate_limit_quota_service_server::{RateLimitQuotaService, RateLimitQuotaServiceServer},
            rate_limit_quota_usage_reports::BucketQuotaUsage,
        },
        types::{
            RateLimitStrategy, TokenBucket,
            rate_limit_strategy::{BlanketRule, Strategy},
        },
    },
    google::{self, protobuf::UInt32Value},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use self::{
    bucket::{About, Buckets, MAX_NAMES, Unused},
    ledger::{Answer, Ledger, Member, REPORT_INTERVAL, StreamId, Usage},
};
use super::{connection::Peer, refusal};
use crate::{
    decide::{Caller, Limiter, MAX_TEXT, Refused},
    model::{
        descriptor::{Entry, Hits},
        key::CellKey,
        limit::{Algorithm, Limit},
        quota::Assignment,
        rule::{Amount, Policy},
    },
    store::{Ask, Charging, Outcome, without_redis::share},
};

/// How long an assignment holds. Envoy drops one without a lifetime at once, and reports every five seconds.
const TIME_TO_LIVE: Duration = Duration::from_secs(30);

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
        let peer = request.extensions().get::<Peer>();
        let caller = peer.map(|peer| peer.caller.clone()).unwrap_or_default();
        let stream = QuotaStream::new(self.clone(), caller, request.into_inner());
        let responses = futures_util::stream::unfold(stream, async |mut stream| {
            let answer = stream.next().await?;
            Some((answer, stream))
        });
        Ok(Response::new(Box::pin(responses)))
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
}

/// What applies to a bucket.
enum Found {
    Limited(Located),
    /// No limit.
    Free,
    /// Nothing of it may pass.
    Refused,
}

/// A bucket that a limit applies to.
struct Located {
    key: CellKey,
    limit: Limit,
    policy: Policy,
    /// It is only counted.
    harmless: bool,
}

impl QuotaStream {
    fn new(service: QuotaService, caller: Caller, reports: Streaming<RateLimitQuotaUsageReports>) -> Self {
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
        Some(action(self.buckets.id(bucket)?.clone(), assign(assignment)))
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
        let mut usages = Vec::with_capacity(report.bucket_quota_usages.len());
        for mut usage in report.bucket_quota_usages {
            let Some(bucket) = usage.bucket_id.take() else {
                return Err(Status::invalid_argument("a usage must name its bucket"));
            };
            let found = self.find(&domain, &bucket, &usage)?;
            usages.push((bucket, usage, found));
        }
        let asks: Vec<Ask> = usages
            .iter()
            .filter_map(|(_, usage, found)| match found {
                Found::Limited(located) => Some(ask(usage, located)),
                Found::Free | Found::Refused => None,
            })
            .collect();
        let mut outcomes = match self.service.limiter.store().charge(&asks) {
            Charging::Done(outcomes) => outcomes,
            Charging::Waiting(outcomes) => outcomes.await,
        }
        .into_iter();
        let answer = |(bucket, usage, found): (BucketId, BucketQuotaUsage, Found)| {
            let assigned = match found {
                Found::Limited(located) => self.account(&domain, &bucket, &usage, located, outcomes.next()),
                Found::Free => self.without(&bucket, &usage, Assignment::Everything),
                Found::Refused => self.without(&bucket, &usage, Assignment::Nothing),
            };
            action(bucket, assigned)
        };
        Ok(usages.into_iter().map(answer).collect())
    }

    /// Accounts for one bucket's usage, which was charged with this outcome.
    fn account(
        &mut self,
        domain: &str,
        bucket: &BucketId,
        usage: &BucketQuotaUsage,
        Located { key, limit, harmless, .. }: Located,
        outcome: Option<Outcome>,
    ) -> Action {
        if harmless {
            return self.without(bucket, usage, Assignment::Everything);
        }
        let Some(known) = self.buckets.number(bucket) else {
            // Kept by the proxy it would be in each of its reports.
            if !std::mem::replace(&mut self.full, true) {
                tracing::warn!(domain, "a proxy has too many quota buckets: some get no share");
            }
            return Action::AbandonAction(AbandonAction {});
        };
        let mut changed = Vec::new();
        let member = self.member(known);
        let share = share(&limit, (self.service.replicas)());
        let usage = Usage {
            allowed: usage.num_requests_allowed,
            denied: usage.num_requests_denied,
            elapsed: elapsed(usage),
            overdrawn: outcome.is_some_and(|outcome| is_overdrawn(&limit, &outcome)),
        };
        let answer = self.service.shared.ledger.lock().report(member, key, share, usage, Instant::now(), &mut changed);
        tell(&self.service.shared, &changed);
        match answer {
            Answer::Assigned(assignment) => assign(assignment),
            Answer::Abandon => {
                self.buckets.remove(bucket);
                Action::AbandonAction(AbandonAction {})
            }
        }
    }

    /// Answers about a bucket that has no share of anything, or no more.
    fn without(&mut self, bucket: &BucketId, usage: &BucketQuotaUsage, assignment: Assignment) -> Action {
        if let Some(number) = self.buckets.remove(bucket) {
            let mut changed = Vec::new();
            self.service.shared.ledger.lock().forget(self.member(number), &mut changed);
            tell(&self.service.shared, &changed);
        }
        let used = usage.num_requests_allowed > 0 || usage.num_requests_denied > 0;
        if self.unused.reported(bucket, used, Instant::now(), self.service.shared.idle) {
            return Action::AbandonAction(AbandonAction {});
        }
        assign(assignment)
    }

    /// What applies to a bucket, counting what was used of it. As for a call per request, what no rule is about passes.
    fn find(&self, domain: &str, bucket: &BucketId, usage: &BucketQuotaUsage) -> Result<Found, Status> {
        let about = bucket::read(bucket).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let ruleset = self.service.limiter.rules();
        let Some(rules) = ruleset.rules.domain(domain) else { return Ok(Found::Free) };
        if !self.caller.may_use(rules) {
            return Err(refusal(&Refused::NotForCaller { domain: domain.to_owned() }));
        }
        let entries = match &about {
            About::Nothing => return Ok(Found::Free),
            About::TooMuch => return Ok(Found::Refused),
            About::Ordered(entries) => entries.iter().map(|(key, value)| Entry { key, value }).collect(),
            About::Unordered(entries) => {
                let mut entries = entries.clone();
                if !rules.arrange(&mut entries) {
                    return Ok(Found::Free);
                }
                entries
            }
        };
        let Some(rule) = rules.find(&entries) else { return Ok(Found::Free) };
        ruleset.count_reported(rule, usage.num_requests_allowed, usage.num_requests_denied);
        let Amount::Limited(limit) = rule.amount else { return Ok(Found::Free) };
        let key = self.service.limiter.salt().key(&limit, domain, rule.cell(&entries));
        Ok(Found::Limited(Located { key, limit, policy: rule.policy, harmless: rule.shadow || rule.quota }))
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

/// What was used has been used: it is charged whether or not it is within the limit.
fn ask(usage: &BucketQuotaUsage, located: &Located) -> Ask {
    let policy = Policy { debt: true, ..located.policy };
    Ask { key: located.key, limit: located.limit, hits: Hits::Take(usage.num_requests_allowed), policy }
}

fn elapsed(usage: &BucketQuotaUsage) -> Duration {
    let Some(time) = &usage.time_elapsed else { return Duration::ZERO };
    Duration::from_secs(time.seconds.try_into().unwrap_or(0)) + Duration::from_nanos(time.nanos.try_into().unwrap_or(0))
}

/// Whether more was charged than proxies that keep to their shares can use: a burst, and what they report late.
fn is_overdrawn(limit: &Limit, outcome: &Outcome) -> bool {
    let slack = REPORT_INTERVAL * 2;
    match limit.algorithm() {
        Algorithm::TokenBucket => {
            let burst = f64::from(limit.burst()) / f64::from(limit.requests().max(1));
            outcome.reset.as_secs_f64() > limit.per().as_secs_f64() * burst + slack.as_secs_f64()
        }
        // What is reported late may be of a window before, which matters little to long ones.
        Algorithm::FixedWindow => outcome.remaining == 0 && limit.per() > slack,
    }
}

fn action(bucket: BucketId, action: Action) -> BucketAction {
    BucketAction { bucket_id: Some(bucket), bucket_action: Some(action) }
}

fn assign(assignment: Assignment) -> Action {
    let strategy = match assignment {
        Assignment::Everything => Strategy::BlanketRule(BlanketRule::AllowAll.into()),
        Assignment::Nothing => Strategy::BlanketRule(BlanketRule::DenyAll.into()),
        Assignment::Bucket { max_tokens, tokens_per_fill, fill_interval } => Strategy::TokenBucket(TokenBucket {
            max_tokens,
            tokens_per_fill: Some(UInt32Value { value: tokens_per_fill }),
            fill_interval: Some(told_apart(fill_interval)),
        }),
    };
    Action::QuotaAssignmentAction(QuotaAssignmentAction {
        assignment_time_to_live: Some(seconds(TIME_TO_LIVE.as_secs())),
        rate_limit_strategy: Some(RateLimitStrategy { strategy: Some(strategy) }),
    })
}

/// Envoy 1.40 goes on with the bucket it has if the new one holds and gets as many tokens, and the nanoseconds of the interval are the
/// same; then it drops them. So they say which seconds they belong to, or a limit whose period alone was edited would not change.
fn told_apart(interval: u32) -> google::protobuf::Duration {
    let nanos = i32::try_from(interval % 1_000_000_000).unwrap_or_default();
    google::protobuf::Duration { nanos, ..seconds(interval.into()) }
}

fn seconds(seconds: u64) -> google::protobuf::Duration {
    google::protobuf::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}

#[cfg(test)]
mod tests;
