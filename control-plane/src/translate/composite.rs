//! Filters that routes describe whole: Envoy's composite filter does as another that the route says.
//!
//! Many filters of Envoy's take from a route less than they need, or nothing. What would stand on the listener instead
//! would drain its connections with every change.

use chancery_proto::{
    any,
    envoy::{
        composite_filter::{Composite, CompositePerRoute, ExecuteFilterAction},
        core::TypedExtensionConfig,
        hcm::HttpFilter,
        xds_core,
        xds_matcher::{
            Matcher,
            matcher::{OnMatch, on_match},
        },
    },
    google::protobuf::Any,
};
use prost::Name;

use super::filter::{off, on};

/// The filter on every listener, by the name that routes use.
pub(super) fn filter(name: &str) -> HttpFilter {
    off(name, any::pack_typed(&Composite::default()))
}

/// What a route tells the filter called `name`: to do as `matcher` says.
pub(super) fn per_route(name: &str, matcher: Matcher) -> (String, Any) {
    on(name, any::pack_typed(&CompositePerRoute { matcher: Some(matcher) }))
}

/// For every request, does as Envoy's filter `of` with these settings.
pub(super) fn always(of: &str, settings: Any) -> Matcher {
    Matcher { on_no_match: Some(execute(of, settings).into()), ..Matcher::default() }
}

/// Does as Envoy's filter `of` with these settings.
pub(super) fn execute(of: &str, settings: Any) -> OnMatch {
    let action = ExecuteFilterAction {
        typed_config: Some(TypedExtensionConfig { name: of.to_owned(), typed_config: Some(settings) }),
        ..ExecuteFilterAction::default()
    };
    OnMatch { on_match: Some(on_match::OnMatch::Action(extension("execute", &action))), ..OnMatch::default() }
}

pub(super) fn extension<M: prost::Message + Name>(name: &str, message: &M) -> xds_core::TypedExtensionConfig {
    xds_core::TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any::pack_typed(message)) }
}
