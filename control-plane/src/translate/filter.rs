//! Filters of listeners, and what routes tell them.
//!
//! Most stand on every listener, switched off, for rules to switch on: the first rule of a fleet that needs one must not drain
//! its connections.

use chancery_proto::{
    any,
    envoy::{
        hcm::{HttpFilter, http_filter},
        route::FilterConfig,
    },
    google::protobuf::Any,
};

/// A filter with these settings, off unless a route switches it on.
pub(super) fn off(name: &str, settings: Any) -> HttpFilter {
    HttpFilter { disabled: true, ..always(name, settings) }
}

/// A filter with these settings, on unless a route switches it off.
pub(super) fn always(name: &str, settings: Any) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(settings)),
        ..HttpFilter::default()
    }
}

/// What a route tells a filter, by its name, which switches it on. Other clients of xDS than Envoy, which do not have it, may do
/// without.
pub(super) fn on(name: &str, settings: Any) -> (String, Any) {
    let config = FilterConfig { config: Some(settings), is_optional: true, disabled: false };
    (name.to_owned(), any::pack_typed(&config))
}

/// What a route tells a filter, by its name, that it does without, whether or not the listener has it.
pub(super) fn never(name: &str) -> (String, Any) {
    (name.to_owned(), any::pack_typed(&FilterConfig { disabled: true, ..FilterConfig::default() }))
}

/// What a route has told a filter that it has switched on.
#[cfg(test)]
pub(super) fn told<M: chancery_proto::Message + prost::Name + Default>(told: &Any) -> M {
    let told: FilterConfig = any::unpack(told).expect("what filters are told");
    any::unpack(&told.config.expect("settings")).expect("settings of this type")
}
