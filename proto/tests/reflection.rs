//! The descriptors for server reflection say what the generated messages are.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use chancery_proto::{
    Message, Name,
    envoy::{core, rate_limit_common as common, rlqs, rls, types},
    google::protobuf as google,
    reflection::RATE_LIMIT_SERVICES,
};
use protox::prost_reflect::{DescriptorPool, DynamicMessage};

/// Reads `message` by the descriptors: every field must be known, and be the same again.
fn is_described<M: Message + Name>(message: &M) {
    let pool = DescriptorPool::decode(RATE_LIMIT_SERVICES).unwrap();
    let descriptor = pool.get_message_by_name(&M::full_name()).unwrap();
    let bytes = message.encode_to_vec();
    let read = DynamicMessage::decode(descriptor, bytes.as_slice()).unwrap();
    let text = format!("{read:?}");
    assert_eq!(read.unknown_fields().count(), 0, "{text}");
    assert_eq!(read.encode_to_vec().len(), bytes.len(), "{text}");
    assert!(!text.contains("unknown"), "{text}");
}

#[test]
fn whole_messages_of_the_generated_code_are_described() {
    let header = core::HeaderValue { key: "a".into(), value: "b".into(), raw_value: vec![1] };
    let second = || google::Duration { seconds: 1, nanos: 2 };
    is_described(&rls::RateLimitRequest {
        domain: "edge".into(),
        descriptors: vec![common::RateLimitDescriptor {
            entries: vec![common::rate_limit_descriptor::Entry { key: "a".into(), value: "b".into() }],
            limit: Some(common::rate_limit_descriptor::RateLimitOverride { requests_per_unit: 1, unit: 7 }),
            hits_addend: Some(google::UInt64Value { value: 3 }),
            is_negative_hits: true,
        }],
        hits_addend: 2,
    });
    is_described(&rls::RateLimitResponse {
        overall_code: 2,
        statuses: vec![rls::rate_limit_response::DescriptorStatus {
            code: 1,
            current_limit: Some(rls::rate_limit_response::RateLimit {
                name: "a".into(),
                requests_per_unit: 1,
                unit: 7,
            }),
            limit_remaining: 4,
            duration_until_reset: Some(second()),
            quota: None,
        }],
        response_headers_to_add: vec![header.clone()],
        request_headers_to_add: vec![header],
        raw_body: vec![1],
        dynamic_metadata: Some(google::Struct::default()),
        quota: None,
    });
    let bucket_id = Some(rlqs::BucketId { bucket: [("a".to_owned(), "b".to_owned())].into() });
    is_described(&rlqs::RateLimitQuotaUsageReports {
        domain: "edge".into(),
        bucket_quota_usages: vec![rlqs::rate_limit_quota_usage_reports::BucketQuotaUsage {
            bucket_id: bucket_id.clone(),
            time_elapsed: Some(second()),
            num_requests_allowed: 1,
            num_requests_denied: 2,
        }],
    });
    use rlqs::rate_limit_quota_response::{
        BucketAction,
        bucket_action::{AbandonAction, BucketAction as Action, QuotaAssignmentAction},
    };
    use types::rate_limit_strategy::{RequestsPerTimeUnit, Strategy};
    let strategies = [
        Strategy::BlanketRule(1),
        Strategy::RequestsPerTimeUnit(RequestsPerTimeUnit { requests_per_time_unit: 1, time_unit: 7 }),
        Strategy::TokenBucket(types::TokenBucket {
            max_tokens: 1,
            tokens_per_fill: Some(google::UInt32Value { value: 2 }),
            fill_interval: Some(second()),
        }),
    ];
    let assign = |strategy| {
        Action::QuotaAssignmentAction(QuotaAssignmentAction {
            assignment_time_to_live: Some(second()),
            rate_limit_strategy: Some(types::RateLimitStrategy { strategy: Some(strategy) }),
        })
    };
    let actions = strategies.into_iter().map(assign).chain([Action::AbandonAction(AbandonAction {})]);
    let bucket_action =
        actions.map(|action| BucketAction { bucket_id: bucket_id.clone(), bucket_action: Some(action) }).collect();
    is_described(&rlqs::RateLimitQuotaResponse { bucket_action });
}
