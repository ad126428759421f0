//! What is said of one client. Pure.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use chancery_proto::{
    Message,
    envoy::{
        admin::{ClientResourceStatus, UpdateFailureState},
        core::{Node, node::UserAgentVersionType},
        status::{ClientConfig, ConfigStatus, client_config::GenericXdsConfig},
    },
    google::protobuf::{Any, Timestamp},
    type_url,
};
use chancery_xds::{Inspected, Standing, TypeStatus, TypeUrl};

use crate::{identity::spiffe::LIMITER_CLUSTER, proxies::Connection};

/// What is said of the client behind `connection`, of which `inspected` was found.
pub(super) fn client_config(connection: &Connection, inspected: &[Inspected], with_contents: bool) -> ClientConfig {
    let types = connection.status.types();
    let cluster = connection.fleet.as_ref().map_or(LIMITER_CLUSTER, |fleet| fleet.as_str());
    let version = connection.version.clone().map(UserAgentVersionType::UserAgentVersion);
    ClientConfig {
        node: Some(Node {
            id: connection.id.to_string(),
            cluster: cluster.to_owned(),
            user_agent_version_type: version,
            ..Node::default()
        }),
        generic_xds_configs: inspected.iter().map(|one| resource(one, &types, with_contents)).collect(),
        ..ClientConfig::default()
    }
}

fn resource(one: &Inspected, types: &BTreeMap<TypeUrl, TypeStatus>, with_contents: bool) -> GenericXdsConfig {
    let status = types.get(&one.type_url);
    let applied = status.and_then(|status| status.acknowledged.as_ref()).map(|stamp| stamp.at);
    let sent = status.and_then(|status| status.sent.as_ref()).map(|stamp| stamp.at);
    let (config_status, client_status, last_updated) = match one.standing {
        Standing::Applied => (ConfigStatus::Synced, ClientResourceStatus::Acked, applied),
        Standing::Unanswered => (ConfigStatus::Stale, ClientResourceStatus::Requested, sent),
        Standing::Rejected => (ConfigStatus::Error, ClientResourceStatus::Nacked, applied),
        Standing::NotSent => (ConfigStatus::NotSent, ClientResourceStatus::Requested, None),
        Standing::Absent => (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist, None),
    };
    // A secret holds keys, which nobody needs to see in order to know whether they have arrived.
    let shown = one.resource.as_ref().filter(|_| with_contents && &*one.type_url != type_url::SECRET);
    let content = shown.and_then(|resource| Any::decode(resource.any_bytes()).ok());
    let rejected = status.and_then(|status| status.rejected.as_ref()).filter(|_| one.standing == Standing::Rejected);
    let (xds_config, failed_configuration) = match one.standing {
        Standing::Rejected => (None, content),
        _ => (content, None),
    };
    GenericXdsConfig {
        type_url: one.type_url.to_string(),
        name: one.name.to_string(),
        version_info: one.resource.as_ref().map(|resource| resource.version().to_string()).unwrap_or_default(),
        xds_config,
        last_updated: last_updated.map(timestamp),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state: rejected.map(|rejection| UpdateFailureState {
            failed_configuration,
            last_update_attempt: Some(timestamp(rejection.response.at)),
            details: rejection.message.clone(),
            version_info: rejection.response.version.clone(),
        }),
        is_static_resource: false,
    }
}

fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos().cast_signed() }
}

#[cfg(test)]
mod tests {
    use chancery_xds::{Protocol, Rejection, Resource, SharedStatus, Stamp};

    use super::*;

    const WHEN: u64 = 1_000;

    fn inspected(type_url: &str, standing: Standing) -> Inspected {
        let resource = (standing != Standing::Absent).then(|| Resource::new(type_url, "x", b"content"));
        Inspected { type_url: type_url.into(), name: "x".into(), resource, standing }
    }

    fn types(type_url: &str) -> BTreeMap<TypeUrl, TypeStatus> {
        let stamp = |second| Stamp {
            version: "v".into(),
            nonce: "1".into(),
            sequence: 1,
            at: UNIX_EPOCH + std::time::Duration::from_secs(second),
        };
        let status = TypeStatus {
            sent: Some(stamp(WHEN)),
            acknowledged: Some(stamp(WHEN + 1)),
            rejected: Some(Rejection {
                response: stamp(WHEN + 2),
                message: "bad port".into(),
                resources: vec!["x".into()],
            }),
        };
        [(type_url.into(), status)].into()
    }

    fn shown(standing: Standing) -> GenericXdsConfig {
        resource(&inspected(type_url::LISTENER, standing), &types(type_url::LISTENER), true)
    }

    #[test]
    fn a_standing_has_its_status_its_time_and_its_content() {
        let seconds = |config: &GenericXdsConfig| config.last_updated.as_ref().map(|at| at.seconds.cast_unsigned());
        for (standing, status, client, at) in [
            (Standing::Applied, ConfigStatus::Synced, ClientResourceStatus::Acked, Some(WHEN + 1)),
            (Standing::Unanswered, ConfigStatus::Stale, ClientResourceStatus::Requested, Some(WHEN)),
            (Standing::NotSent, ConfigStatus::NotSent, ClientResourceStatus::Requested, None),
        ] {
            let config = shown(standing);
            assert_eq!((config.config_status(), config.client_status(), seconds(&config)), (status, client, at));
            assert_eq!(config.xds_config.as_ref().map(|any| any.value.as_slice()), Some(b"content".as_slice()));
            assert_eq!((config.error_state, config.version_info.len()), (None, 16));
        }
        let absent = shown(Standing::Absent);
        assert_eq!(absent.client_status(), ClientResourceStatus::DoesNotExist);
        assert_eq!((absent.version_info.as_str(), absent.xds_config), ("", None));
    }

    #[test]
    fn a_rejection_has_the_words_of_the_client() {
        let config = shown(Standing::Rejected);
        assert_eq!(
            (config.config_status(), config.client_status()),
            (ConfigStatus::Error, ClientResourceStatus::Nacked)
        );
        assert_eq!(config.xds_config, None, "what was rejected is not what the client has");
        let error = config.error_state.unwrap();
        assert_eq!((error.details.as_str(), error.last_update_attempt.unwrap().seconds), ("bad port", 1_002));
        assert_eq!(error.failed_configuration.unwrap().value, b"content");
    }

    #[test]
    fn contents_are_left_out_if_asked_and_of_secrets_always() {
        let applied = |type_url: &str| inspected(type_url, Standing::Applied);
        assert_eq!(resource(&applied(type_url::LISTENER), &BTreeMap::new(), false).xds_config, None);
        let secret = resource(&applied(type_url::SECRET), &BTreeMap::new(), true);
        assert_eq!((secret.xds_config, secret.name.as_str()), (None, "x"));
        let rejected = inspected(type_url::SECRET, Standing::Rejected);
        let rejected = resource(&rejected, &types(type_url::SECRET), true);
        assert_eq!(rejected.error_state.unwrap().failed_configuration, None);
    }

    #[test]
    fn a_limiter_is_of_the_cluster_of_limiters() {
        let connection = Connection {
            fleet: None,
            id: "one".parse().unwrap(),
            address: None,
            version: Some("1.2.3".into()),
            protocol: Protocol::Delta,
            since: UNIX_EPOCH,
            cache: std::sync::Arc::default(),
            status: SharedStatus::default(),
        };
        let node = client_config(&connection, &[], true).node.unwrap();
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("one", "rate-limiter"));
    }
}
