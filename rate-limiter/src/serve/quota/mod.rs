//! RLQS: limits that Envoy enforces itself, without a call per request.
//!
//! Envoy reports what it used of each bucket every five seconds, and is told what it may use from then on. What was used is
//! charged to the same cells that `ShouldRateLimit` decides by, as debt: a limit that is enforced both ways counts
//! once. The shares of all proxies together are the limit (`model/quota`); replicas of this service split
//! it evenly among themselves.
//!
//! Bound: in any interval `t` proxies admit at most `burst + t / T`, and once more the share that was taken from a proxy
//! until it has read so: it is told at once, and forgets after [`TIME_TO_LIVE`] if it cannot be reached.

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
            rate_limit_quota_service_server::RateLimitQuotaService,
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

use self::ledger::{Answer, Ledger, StreamId, Usage};
use super::connection::Peer;
use crate::{
    decide::{Caller, Limiter, Refused},
    model::{
        descriptor::{Entry, Hits},
        key::CellKey,
        limit::Limit,
        quota::Assignment,
        rule::{Amount, Policy},
    },
    store::{Ask, Charging, without_redis::share},
};

/// How long an assignment holds. Envoy drops one without a lifetime at once, and reports every five seconds.
const TIME_TO_LIVE: Duration = Duration::from_secs(30);

/// Entries of a bucket's name.
const MAX_ENTRIES: usize = 16;

/// Assignments on their way to a stream that others' reports caused. What does not fit is said after its own next report.
const PUSHED: usize = 256;

/// Serves `StreamRateLimitQuotas`.
#[derive(Clone)]
pub struct QuotaService {
    limiter: Limiter,
    replicas: Arc<dyn Fn() -> u32 + Send + Sync>,
    shared: Arc<Shared>,
}

/// What the streams of all workers share.
#[derive(Default)]
pub struct Shared {
    ledger: Mutex<Ledger>,
    pushes: Mutex<HashMap<StreamId, mpsc::Sender<(CellKey, Assignment)>>>,
    last_stream: AtomicU64,
}

type Responses = Pin<Box<dyn Stream<Item = Result<RateLimitQuotaResponse, Status>> + Send>>;

impl QuotaService {
    /// Assigns quotas of the limiter's rules. `shared` is one for all workers; `replicas` says how many processes
    /// like this one share the limits.
    pub fn new(limiter: Limiter, shared: Arc<Shared>, replicas: Arc<dyn Fn() -> u32 + Send + Sync>) -> Self {
        Self { limiter, replicas, shared }
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
    pushed: mpsc::Receiver<(CellKey, Assignment)>,
    buckets: HashMap<CellKey, BucketId>,
    ended: bool,
}

impl QuotaStream {
    fn new(service: QuotaService, caller: Caller, reports: Streaming<RateLimitQuotaUsageReports>) -> Self {
        let id = StreamId(service.shared.last_stream.fetch_add(1, Ordering::Relaxed));
        let (sender, pushed) = mpsc::channel(PUSHED);
        service.shared.pushes.lock().insert(id, sender);
        Self { service, caller, id, domain: None, reports, pushed, buckets: HashMap::new(), ended: false }
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
                Some((key, assignment)) = self.pushed.recv() => {
                    self.buckets.get(&key).map(|bucket| action(bucket.clone(), assign(assignment))).into_iter().collect()
                }
            };
            if !bucket_action.is_empty() {
                return Some(Ok(RateLimitQuotaResponse { bucket_action }));
            }
        }
        None
    }

    async fn take(&mut self, report: RateLimitQuotaUsageReports) -> Result<Vec<BucketAction>, Status> {
        if self.domain.is_none() {
            self.domain = Some(report.domain).filter(|domain| !domain.is_empty());
        }
        let Some(domain) = self.domain.clone() else {
            return Err(Status::invalid_argument("the first report must name a domain"));
        };
        let mut actions = Vec::with_capacity(report.bucket_quota_usages.len());
        for usage in report.bucket_quota_usages {
            actions.extend(self.account(&domain, usage).await?);
        }
        Ok(actions)
    }

    /// Takes one bucket's usage; answers with what the proxy may do from now on.
    async fn account(&mut self, domain: &str, usage: BucketQuotaUsage) -> Result<Option<BucketAction>, Status> {
        let Some(bucket) = usage.bucket_id else {
            return Err(Status::invalid_argument("a usage must name its bucket"));
        };
        if bucket.bucket.len() > MAX_ENTRIES {
            return Err(Status::invalid_argument(format!("a bucket has at most {MAX_ENTRIES} entries")));
        }
        let Some((key, limit, policy)) = self.find(domain, &bucket)? else {
            // As for a call per request: what no rule is about passes.
            return Ok(Some(action(bucket, assign(Assignment::Everything))));
        };
        let elapsed = usage
            .time_elapsed
            .map(|time| Duration::from_secs(time.seconds.try_into().unwrap_or(0)))
            .unwrap_or_default();
        if usage.num_requests_allowed > 0 {
            let hits = Hits::Take(usage.num_requests_allowed);
            let ask = Ask { key, limit, hits, policy: Policy { debt: true, ..policy } };
            if let Charging::Waiting(charging) = self.service.limiter.store().charge(&[ask]) {
                charging.await;
            }
        }
        let share = share(&limit, (self.service.replicas)());
        let usage = Usage { allowed: usage.num_requests_allowed, denied: usage.num_requests_denied, elapsed };
        let answer = self.service.shared.ledger.lock().report(self.id, key, share, usage, Instant::now());
        Ok(match answer {
            Answer::Assigned { own, others } => {
                self.tell(key, others);
                self.buckets.insert(key, bucket.clone());
                Some(action(bucket, assign(own)))
            }
            Answer::Abandon { others } => {
                self.tell(key, others);
                self.buckets.remove(&key);
                Some(action(bucket, Action::AbandonAction(AbandonAction {})))
            }
            Answer::TooMany => {
                tracing::warn!(domain, "a proxy has more than {} quota buckets", ledger::MAX_BUCKETS);
                Some(action(bucket, assign(Assignment::Nothing)))
            }
        })
    }

    /// The cell and limit of a bucket, unless no limit applies to it.
    fn find(&self, domain: &str, bucket: &BucketId) -> Result<Option<(CellKey, Limit, Policy)>, Status> {
        let ruleset = self.service.limiter.rules();
        let Some(rules) = ruleset.rules.domain(domain) else { return Ok(None) };
        if !self.caller.may_use(rules) {
            let refused = Refused::NotForCaller { domain: domain.to_owned() };
            return Err(Status::permission_denied(refused.to_string()));
        }
        let mut entries: Vec<Entry<'_>> = bucket.bucket.iter().map(|(key, value)| Entry { key, value }).collect();
        if !rules.arrange(&mut entries) {
            return Ok(None);
        }
        let Some(rule) = rules.find(&entries) else { return Ok(None) };
        match rule.amount {
            Amount::Unlimited => Ok(None),
            Amount::Limited(limit) => {
                let key = self.service.limiter.salt().key(limit.algorithm(), domain, rule.cell(&entries));
                Ok(Some((key, limit, rule.policy)))
            }
        }
    }

    fn tell(&self, key: CellKey, others: Vec<(StreamId, Assignment)>) {
        tell(&self.service.shared, others.into_iter().map(|(stream, assignment)| (key, stream, assignment)));
    }
}

impl Drop for QuotaStream {
    fn drop(&mut self) {
        let shared = &self.service.shared;
        shared.pushes.lock().remove(&self.id);
        let others = shared.ledger.lock().leave(self.id);
        tell(shared, others);
    }
}

fn tell(shared: &Shared, others: impl IntoIterator<Item = (CellKey, StreamId, Assignment)>) {
    let pushes = shared.pushes.lock();
    for (key, stream, assignment) in others {
        if let Some(stream) = pushes.get(&stream) {
            // Full: its own next report says it.
            let _ = stream.try_send((key, assignment));
        }
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
            fill_interval: Some(seconds(fill_interval.into())),
        }),
    };
    Action::QuotaAssignmentAction(QuotaAssignmentAction {
        assignment_time_to_live: Some(seconds(TIME_TO_LIVE.as_secs())),
        rate_limit_strategy: Some(RateLimitStrategy { strategy: Some(strategy) }),
    })
}

fn seconds(seconds: u64) -> google::protobuf::Duration {
    google::protobuf::Duration { seconds: i64::try_from(seconds).unwrap_or(i64::MAX), nanos: 0 }
}
