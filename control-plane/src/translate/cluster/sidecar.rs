//! What a service says that Envoy has no field for: metadata of its cluster, which Envoy passes over and a sidecar reads.
//!
//! Only what is given is written, so a service that says nothing of this has no metadata, and everything else is left to
//! the sidecar's defaults. The names are those of the sidecar's documentation, the durations as protobuf's JSON has them.
//!
//! Metadata are maps, so the cluster's bytes are written here, in order.

use std::{iter, time::Duration};

use bytes::Bytes;
use chancery_proto::{
    Message,
    envoy::{cluster::Cluster, core::Metadata},
    google::protobuf::{Struct, Value, value::Kind},
};
use prost::encoding;

use crate::{
    model::service::{AdaptiveConcurrency, Breaker, ConcurrencyAlgorithm, Hedging, RetryBudget, Service},
    translate::{endpoint, metadata},
};

/// The key under which the sidecar looks.
const KEY: &str = "chancery.sidecar";

/// `envoy.config.cluster.v3.Cluster.metadata`.
const METADATA: u32 = 25;

/// `envoy.config.cluster.v3.Cluster.load_assignment`.
const LOAD_ASSIGNMENT: u32 = 33;

/// The metadata of the cluster of `service`; none if it says nothing for sidecars.
pub(super) fn of_service(service: &Service) -> Option<Metadata> {
    let Breaker { max_out_percent, .. } = service.breaker;
    let own = object([
        ("adaptiveConcurrency", service.adaptive_concurrency.as_ref().map(adaptive_concurrency)),
        ("breaker", breaker(&service.breaker)),
        ("hedge", service.hedging.as_ref().map(hedge)),
        ("maxOutPercent", max_out_percent.map(number)),
        ("retryBudget", service.retry_budget.as_ref().and_then(retry_budget)),
    ])?;
    Some(Metadata { filter_metadata: iter::once((KEY.to_owned(), own)).collect(), ..Metadata::default() })
}

fn breaker(breaker: &Breaker) -> Option<Value> {
    let Breaker {
        // Envoy has fields for these.
        max_connections: _,
        max_requests: _,
        max_pending: _,
        max_retries: _,
        // The cap of all that leaves endpoints alone.
        max_out_percent: _,
        consecutive_failures,
        min_success_percent,
        open_for,
        open_for_most,
        probe_timeout,
    } = breaker;
    let fields = object([
        ("consecutiveFailures", consecutive_failures.map(number)),
        ("minSuccessRate", min_success_percent.map(share)),
        ("openFor", open_for.map(time)),
        ("openForMost", open_for_most.map(time)),
        ("probeTimeout", probe_timeout.map(time)),
    ]);
    fields.map(nested)
}

/// The share and the time are in Envoy's own field.
fn retry_budget(budget: &RetryBudget) -> Option<Value> {
    let RetryBudget { percent: _, ttl: _, min_per_second } = budget;
    object([("perSecond", min_per_second.map(number))]).map(nested)
}

/// An object, even an empty one, asks for hedges.
fn hedge(hedging: &Hedging) -> Value {
    let Hedging { percentile, min_samples, min_delay } = hedging;
    let fields = object([
        ("least", min_delay.map(time)),
        ("quantile", percentile.map(share)),
        ("samples", min_samples.map(number)),
    ]);
    nested(fields.unwrap_or_default())
}

fn adaptive_concurrency(adaptive: &AdaptiveConcurrency) -> Value {
    let AdaptiveConcurrency { algorithm, min, max } = adaptive;
    let algorithm = match algorithm {
        ConcurrencyAlgorithm::Gradient => "gradient",
        ConcurrencyAlgorithm::Aimd => "aimd",
    };
    let fields = object([("algorithm", Some(text(algorithm))), ("least", min.map(number)), ("most", max.map(number))]);
    nested(fields.unwrap_or_default())
}

/// What of `fields` is there; none if nothing is.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Option<Struct> {
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Some(Struct { fields: fields.collect() }).filter(|object| !object.fields.is_empty())
}

fn nested(object: Struct) -> Value {
    Value { kind: Some(Kind::StructValue(object)) }
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

fn number(number: u32) -> Value {
    Value { kind: Some(Kind::NumberValue(number.into())) }
}

fn share(percent: u32) -> Value {
    Value { kind: Some(Kind::NumberValue(f64::from(percent) / 100.0)) }
}

fn time(time: Duration) -> Value {
    match (time.as_secs(), time.subsec_millis()) {
        (seconds, 0) => text(&format!("{seconds}s")),
        (seconds, milliseconds) => text(&format!("{seconds}.{milliseconds:03}s")),
    }
}

/// `cluster`, encoded. The metadata and inline endpoints come last, which is as good a place as any.
pub fn encode_cluster(mut cluster: Cluster) -> Bytes {
    let own = cluster.metadata.take();
    let endpoints = cluster.load_assignment.take();
    let mut bytes = cluster.encode_to_vec();
    metadata::encode(METADATA, own, &mut bytes);
    if let Some(endpoints) = endpoints {
        encoding::bytes::encode(LOAD_ASSIGNMENT, &endpoint::encode_assignment(endpoints), &mut bytes);
    }
    bytes.into()
}

#[cfg(test)]
mod tests {
    use chancery_proto::{
        describe::{json, types::Type},
        type_url,
    };
    use serde_json::json;

    use super::*;
    use crate::translate::{
        cluster::cluster,
        testing::{service, with_every_policy},
    };

    fn shown(service: &Service) -> serde_json::Value {
        let of = Type::of_url(type_url::CLUSTER).unwrap();
        json::decode(of, &encode_cluster(cluster(service))).unwrap()
    }

    #[test]
    fn what_envoy_has_no_field_for_is_metadata() {
        let shown = shown(&with_every_policy("checkout"));
        assert_eq!(
            shown["metadata"],
            json!({ "filter_metadata": { "chancery.sidecar": {
                "adaptiveConcurrency": { "algorithm": "aimd", "least": 5.0, "most": 50.0 },
                "breaker": {
                    "consecutiveFailures": 3.0,
                    "minSuccessRate": 0.5,
                    "openFor": "0.250s",
                    "openForMost": "90s",
                    "probeTimeout": "1.500s",
                },
                "hedge": { "least": "0.002s", "quantile": 0.9, "samples": 50.0 },
                "maxOutPercent": 40.0,
                "retryBudget": { "perSecond": 4.0 },
            } } })
        );
    }

    #[test]
    fn what_is_not_said_is_not_written() {
        assert!(of_service(&service("checkout")).is_none());
        let limits = Breaker { max_requests: Some(7), max_pending: Some(7), ..Breaker::default() };
        let budget = RetryBudget { percent: Some(7), ..RetryBudget::default() };
        let checkout = Service { breaker: limits, retry_budget: Some(budget), ..service("checkout") };
        assert!(of_service(&checkout).is_none(), "all of it has fields of Envoy's");
        let hedged = Service { hedging: Some(Hedging::default()), ..service("checkout") };
        assert_eq!(shown(&hedged)["metadata"]["filter_metadata"][KEY], json!({ "hedge": {} }));
    }

    #[test]
    fn what_was_encoded_decodes() {
        for cluster in [cluster(&with_every_policy("checkout")), cluster(&service("checkout"))] {
            assert_eq!(Cluster::decode(encode_cluster(cluster.clone())).unwrap(), cluster);
        }
    }

    #[test]
    fn maps_do_not_change_the_bytes_by_chance() {
        let bytes = encode_cluster(cluster(&with_every_policy("checkout")));
        for _ in 0..20 {
            assert_eq!(encode_cluster(cluster(&with_every_policy("checkout"))), bytes);
        }
    }
}
