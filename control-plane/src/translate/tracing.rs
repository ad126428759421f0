//! Which requests are traced, as Envoy's connection manager takes it.

use chancery_proto::{
    any,
    envoy::{
        hcm::http_connection_manager::Tracing as EnvoyTracing,
        route::Tracing as RouteTracing,
        trace::{
            OpenTelemetryConfig,
            tracing::{Http, http::ConfigType},
        },
        tracing::{
            CustomTag,
            custom_tag::{Header, Literal, Type},
        },
        types::Percent,
    },
};

use super::value::{fraction, grpc_service};
use crate::model::{
    access_log::Share,
    tracing::{Sampling, Tag, TagValue, Tracing},
};

/// What a listener says of it.
pub(super) fn of_listener(tracing: &Tracing) -> EnvoyTracing {
    let Tracing { service, service_name, sampling: Sampling { random, client, overall }, tags } = tracing;
    let to = OpenTelemetryConfig {
        grpc_service: Some(grpc_service(service.as_str())),
        service_name: service_name.clone(),
        ..OpenTelemetryConfig::default()
    };
    EnvoyTracing {
        client_sampling: Some(percent(*client)),
        random_sampling: Some(percent(*random)),
        overall_sampling: Some(percent(*overall)),
        custom_tags: tags.iter().map(tag).collect(),
        provider: Some(Http {
            name: "envoy.tracers.opentelemetry".to_owned(),
            config_type: Some(ConfigType::TypedConfig(any::pack_typed(&to))),
        }),
        ..EnvoyTracing::default()
    }
}

/// What a rule says instead; nothing where its listener traces nothing.
pub(super) fn of_rule(Sampling { random, client, overall }: Sampling) -> RouteTracing {
    RouteTracing {
        client_sampling: Some(fraction(client)),
        random_sampling: Some(fraction(random)),
        overall_sampling: Some(fraction(overall)),
        ..RouteTracing::default()
    }
}

fn percent(share: Share) -> Percent {
    Percent { value: f64::from(share.hundredths()) / 100.0 }
}

fn tag(Tag { name, value }: &Tag) -> CustomTag {
    let of = match value {
        TagValue::Literal(value) => Type::Literal(Literal { value: value.clone() }),
        TagValue::Header { name, default } => {
            Type::RequestHeader(Header { name: name.clone(), default_value: default.clone() })
        }
    };
    CustomTag { tag: name.clone(), r#type: Some(of) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translate::testing::{name, snapshot};

    #[test]
    fn spans_go_to_a_service() {
        let share = |hundredths| Share::of_hundredths(hundredths).unwrap();
        let tracing = Tracing {
            service: name("collector"),
            service_name: "edge".into(),
            sampling: Sampling { random: share(1), client: Share::NONE, overall: share(5000) },
            tags: vec![
                Tag { name: "env".into(), value: TagValue::Literal("prod".into()) },
                Tag { name: "who".into(), value: TagValue::Header { name: "x-tenant".into(), default: "-".into() } },
            ],
        };
        let told = of_listener(&tracing);
        insta::assert_snapshot!(snapshot(&told));
        let Some(ConfigType::TypedConfig(to)) = told.provider.unwrap().config_type else { panic!("a provider") };
        insta::assert_snapshot!(snapshot(&any::unpack::<OpenTelemetryConfig>(&to).unwrap()));
        insta::assert_snapshot!(snapshot(&of_rule(tracing.sampling)));
    }
}
