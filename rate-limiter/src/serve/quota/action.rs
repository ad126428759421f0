//! What a proxy is told of a bucket, in Envoy's words.

use std::time::Duration;

use chancery_proto::{
    envoy::{
        rlqs::{
            BucketId,
            rate_limit_quota_response::{
                BucketAction,
                bucket_action::{AbandonAction, BucketAction as Action, QuotaAssignmentAction},
            },
        },
        types::{
            RateLimitStrategy, TokenBucket,
            rate_limit_strategy::{BlanketRule, Strategy},
        },
    },
    google::{self, protobuf::UInt32Value},
};

use crate::model::quota::Assignment;

/// How long an assignment holds. Envoy drops one without a lifetime at once, and reports every five seconds.
const TIME_TO_LIVE: Duration = Duration::from_secs(30);

/// This, about a bucket.
pub(super) fn about(bucket: BucketId, action: Action) -> BucketAction {
    BucketAction { bucket_id: Some(bucket), bucket_action: Some(action) }
}

/// To forget it.
pub(super) fn abandon() -> Action {
    Action::AbandonAction(AbandonAction {})
}

/// To enforce this.
pub(super) fn assign(assignment: Assignment) -> Action {
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
