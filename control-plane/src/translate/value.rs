//! Rust's values as the wrapper messages that Envoy's fields hold, and the ADS config source.

use std::{collections::BTreeMap, time::Duration};

use chancery_proto::{
    Message,
    envoy::{
        core::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, GrpcService, SocketAddress, address,
            config_source::ConfigSourceSpecifier,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            socket_address::PortSpecifier,
        },
        matcher::{RegexMatcher, StringMatcher, string_matcher::MatchPattern},
        types::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{self, BoolValue, UInt32Value},
};
use prost::encoding;

use crate::model::access_log::Share;

/// How long Envoy waits for a resource it asked for before it goes on without it.
///
/// Zero would mean for ever: a listener would never open, and a cluster never replace its old version, if
/// one response got lost. This is Envoy's default, written down because we rely on it.
const FIRST_FETCH: Duration = Duration::from_secs(15);

/// A duration; what does not fit into the 64 bits of Envoy's seconds is as good as for ever.
pub(super) fn duration(value: Duration) -> protobuf::Duration {
    protobuf::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: value.subsec_nanos().cast_signed(),
    }
}

/// A number that is there, as opposed to one left at Envoy's default.
pub(super) fn number(value: u32) -> UInt32Value {
    UInt32Value { value }
}

/// A flag that is there, as opposed to one left at Envoy's default.
pub(super) fn flag(value: bool) -> BoolValue {
    BoolValue { value }
}

/// "Ask for it on the stream you have": the source of everything that refers to another resource.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
        initial_fetch_timeout: Some(duration(FIRST_FETCH)),
        ..ConfigSource::default()
    }
}

/// RE2, the only engine. Where a whole text is matched, Envoy anchors it at both ends.
pub(super) fn regex(pattern: String) -> RegexMatcher {
    RegexMatcher { regex: pattern, engine_type: None }
}

/// A text that is as `pattern` says, case and all.
pub(super) fn string_matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ignore_case: false }
}

/// So many of a hundred.
pub(super) fn percent(numerator: u32) -> FractionalPercent {
    FractionalPercent { numerator, denominator: DenominatorType::Hundred.into() }
}

/// A share by chance.
pub(super) fn fraction(share: Share) -> FractionalPercent {
    FractionalPercent { numerator: share.hundredths(), denominator: DenominatorType::TenThousand.into() }
}

/// A service of gRPC, at a cluster.
pub(super) fn grpc_service(cluster: &str) -> GrpcService {
    GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: cluster.to_owned(),
            ..EnvoyGrpc::default()
        })),
        ..GrpcService::default()
    }
}

/// A TCP address; `host` is an IP address, or a name where Envoy resolves names.
pub(crate) fn socket_address(host: String, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host,
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

/// Writes the field `number` of a message, a map, in the order of its keys: `prost` would write it in whatever order it finds.
pub(super) fn encode_map<M>(number: u32, entries: &BTreeMap<String, M>, bytes: &mut Vec<u8>)
where
    M: Message + Default + PartialEq,
{
    encoding::btree_map::encode(
        encoding::string::encode,
        encoding::string::encoded_len,
        encoding::message::encode,
        encoding::message::encoded_len,
        number,
        entries,
        bytes,
    );
}
