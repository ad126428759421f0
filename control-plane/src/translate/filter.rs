//! Filters that stand on every listener, switched off, for rules to switch on: the first rule of a fleet that needs one must not drain
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
    HttpFilter {
        name: name.to_owned(),
        disabled: true,
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
