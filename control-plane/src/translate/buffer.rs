//! A bound on the bodies of requests: Envoy knows one only for bodies that it keeps until they are whole.

use chancery_proto::{
    any,
    envoy::{
        buffer_filter::{Buffer, BufferPerRoute, buffer_per_route::Override},
        hcm::HttpFilter,
    },
    google::protobuf::Any,
};

use super::{
    filter::{off, on},
    value::number,
};

/// The filter, by the name that routes use.
const FILTER: &str = "envoy.filters.http.buffer";

/// The filter on every listener.
pub(super) fn filter() -> HttpFilter {
    off(FILTER, any::pack_typed(&up_to(1)))
}

/// What a rule whose requests have at most `bytes` tells the filter, by its name.
pub(super) fn per_route(bytes: u32) -> (String, Any) {
    on(FILTER, any::pack_typed(&BufferPerRoute { r#override: Some(Override::Buffer(up_to(bytes))) }))
}

fn up_to(bytes: u32) -> Buffer {
    Buffer { max_request_bytes: Some(number(bytes)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_how_much() {
        let (name, told) = per_route(65536);
        assert_eq!(name, filter().name);
        let told: BufferPerRoute = crate::translate::filter::told(&told);
        assert_eq!(told.r#override, Some(Override::Buffer(up_to(65536))));
    }
}
