//! The metrics of the Redis store, each declared here and nowhere else.

use metrics::{Counter, Gauge, Histogram};

/// Histogram: seconds from sending a batch to its answer.
pub const CALL_SECONDS: &str = "chancery_rate_limiter_redis_call_seconds";
/// Histogram: charges in a batch.
pub const BATCH_SIZE: &str = "chancery_rate_limiter_redis_batch_size";
/// Counter: what went wrong with Redis, by `kind`: calls (`lost`, `away`, `refused`), decisions (`late`, `full`), `connect`.
pub const ERRORS: &str = "chancery_rate_limiter_redis_errors_total";
/// Gauge: links, one per worker, whose breaker is closed: Redis answers.
pub const LINKS_CLOSED: &str = "chancery_rate_limiter_redis_links_closed";
/// Gauge: limiters that share this Redis.
pub const REPLICAS: &str = "chancery_rate_limiter_replicas";
/// Gauge: bytes that a Redis server uses, by `node`.
pub const MEMORY_USED: &str = "chancery_rate_limiter_redis_memory_used_bytes";
/// Gauge: bytes that it may use, by `node`; 0 if nothing limits it.
pub const MEMORY_MAX: &str = "chancery_rate_limiter_redis_memory_max_bytes";
/// Counter: decisions on keys that may be leased, by `result` (`hit`: from borrowed tokens, `wait`: Redis was asked).
pub const LEASES: &str = "chancery_rate_limiter_leases_total";
/// Counter: tokens borrowed.
pub const LEASED_TOKENS: &str = "chancery_rate_limiter_leased_tokens_total";
/// Counter: tokens given back unused.
pub const RETURNED_TOKENS: &str = "chancery_rate_limiter_returned_tokens_total";
/// Counter: refusals that were remembered, so that Redis was not asked.
pub const DENIALS: &str = "chancery_rate_limiter_denials_total";
/// Counter: decisions by the rule's policy because Redis was away.
pub const WITHOUT_REDIS: &str = "chancery_rate_limiter_without_redis_total";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe() {
    metrics::describe_histogram!(CALL_SECONDS, metrics::Unit::Seconds, "Time from a batch to Redis's answer");
    metrics::describe_histogram!(BATCH_SIZE, "Charges in a batch to Redis");
    metrics::describe_counter!(ERRORS, "Troubles with Redis, by kind");
    metrics::describe_gauge!(LINKS_CLOSED, "Links that Redis answers on");
    metrics::describe_gauge!(REPLICAS, "Limiters that share this Redis");
    metrics::describe_gauge!(MEMORY_USED, metrics::Unit::Bytes, "Memory that a Redis server uses, by node");
    metrics::describe_gauge!(
        MEMORY_MAX,
        metrics::Unit::Bytes,
        "Memory that a Redis server may use, by node; 0: no limit is set"
    );
    metrics::describe_counter!(LEASES, "Decisions on keys that may be leased, by result");
    metrics::describe_counter!(LEASED_TOKENS, "Tokens borrowed from Redis");
    metrics::describe_counter!(RETURNED_TOKENS, "Borrowed tokens given back unused");
    metrics::describe_counter!(DENIALS, "Refusals from memory");
    metrics::describe_counter!(WITHOUT_REDIS, "Decisions while Redis was away");
}

/// Handles of a link, looked up once.
pub(crate) struct LinkMetrics {
    pub(crate) call_seconds: Histogram,
    pub(crate) batch_size: Histogram,
    pub(crate) links_closed: Gauge,
}

impl LinkMetrics {
    pub(crate) fn new() -> Self {
        Self {
            call_seconds: metrics::histogram!(CALL_SECONDS),
            batch_size: metrics::histogram!(BATCH_SIZE),
            links_closed: metrics::gauge!(LINKS_CLOSED),
        }
    }
}

/// Handles of a store, looked up once.
pub(crate) struct StoreMetrics {
    pub(crate) lease_hits: Counter,
    pub(crate) lease_waits: Counter,
    pub(crate) leased_tokens: Counter,
    pub(crate) returned_tokens: Counter,
    pub(crate) denials: Counter,
    pub(crate) without_redis: Counter,
}

impl StoreMetrics {
    pub(crate) fn new() -> Self {
        Self {
            lease_hits: metrics::counter!(LEASES, "result" => "hit"),
            lease_waits: metrics::counter!(LEASES, "result" => "wait"),
            leased_tokens: metrics::counter!(LEASED_TOKENS),
            returned_tokens: metrics::counter!(RETURNED_TOKENS),
            denials: metrics::counter!(DENIALS),
            without_redis: metrics::counter!(WITHOUT_REDIS),
        }
    }
}

/// Counts a trouble.
pub(crate) fn error(kind: &'static str) {
    errors(kind, 1);
}

/// Counts so many of a kind.
pub(crate) fn errors(kind: &'static str, count: u64) {
    metrics::counter!(ERRORS, "kind" => kind).increment(count);
}
