//! What is said of one client. Pure.

use std::time::{SystemTime, UNIX_EPOCH};

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
use chancery_xds::{
    Inspection, Resource, TypeStatus, TypeUrl,
    subscription::{Standing, State},
};

use crate::{identity::spiffe::LIMITER_CLUSTER, proxies::Connection};

/// What is said of the client behind `connection`, of which `inspection` was found.
pub(super) fn client_config(connection: &Connection, inspection: &Inspection, with_contents: bool) -> ClientConfig {
    let types = connection.status.types();
    let cluster = connection.proxy.fleet.as_ref().map_or(LIMITER_CLUSTER, |fleet| fleet.as_str());
    let version = connection.version.clone().map(UserAgentVersionType::UserAgentVersion);
    let of_type = |(type_url, standings): &(TypeUrl, Vec<Standing>)| {
        let (status, table) = (types.get(type_url), inspection.tables.table(type_url));
        let shown = |standing| resource(type_url, standing, table.resource(&standing.name), status, with_contents);
        standings.iter().map(shown).collect::<Vec<_>>()
    };
    ClientConfig {
        node: Some(Node {
            id: connection.proxy.id.to_string(),
            cluster: cluster.to_owned(),
            user_agent_version_type: version,
            ..Node::default()
        }),
        generic_xds_configs: inspection.types.iter().flat_map(of_type).collect(),
        ..ClientConfig::default()
    }
}

fn resource(
    type_url: &TypeUrl,
    standing: &Standing,
    newest: Option<&Resource>,
    status: Option<&TypeStatus>,
    with_contents: bool,
) -> GenericXdsConfig {
    let applied = status.and_then(|status| status.acknowledged.as_ref()).map(|stamp| stamp.at);
    let sent = status.and_then(|status| status.sent.as_ref()).map(|stamp| stamp.at);
    let (config_status, client_status, last_updated) = match standing.state {
        State::Current => (ConfigStatus::Synced, ClientResourceStatus::Acked, applied),
        State::Unanswered | State::Removing => (ConfigStatus::Stale, ClientResourceStatus::Requested, sent),
        State::Rejected => (ConfigStatus::Error, ClientResourceStatus::Nacked, applied),
        State::Unsent | State::KeptBack => (ConfigStatus::NotSent, ClientResourceStatus::Requested, None),
        State::Absent => (ConfigStatus::NotSent, ClientResourceStatus::DoesNotExist, None),
    };
    // A secret holds keys, which nobody needs to see in order to know whether they have arrived.
    let shown = newest.filter(|_| with_contents && &**type_url != type_url::SECRET);
    let content = shown.and_then(|resource| Any::decode(resource.any_bytes()).ok());
    let rejected = status.and_then(|status| status.rejected.as_ref()).filter(|_| standing.state == State::Rejected);
    let (xds_config, failed_configuration) = match standing.state {
        State::Rejected => (None, content),
        _ => (content, None),
    };
    GenericXdsConfig {
        type_url: type_url.to_string(),
        name: standing.name.to_string(),
        version_info: newest.map(|resource| resource.version().to_string()).unwrap_or_default(),
        xds_config,
        last_updated: last_updated.map(timestamp),
        config_status: config_status.into(),
        client_status: client_status.into(),
        error_state: rejected.map(|rejection| UpdateFailureState {
            failed_configuration,
            last_update_attempt: Some(timestamp(rejection.response.at)),
            details: rejection.message.clone(),
            version_info: rejection.response.version.to_string(),
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
    use std::{sync::Arc, time::Duration};

    use chancery_xds::{Protocol, Rejection, SharedStatus, Stamp};

    use super::*;
    use crate::proxies::ProxyId;

    const WHEN: u64 = 1_000;

    fn status() -> TypeStatus {
        let stamp = |second| Stamp {
            version: "v".into(),
            nonce: "1".into(),
            sequence: 1,
            at: UNIX_EPOCH + Duration::from_secs(second),
            after: Duration::ZERO,
        };
        TypeStatus {
            sent: Some(stamp(WHEN)),
            acknowledged: Some(stamp(WHEN + 1)),
            rejected: Some(Box::new(Rejection {
                response: stamp(WHEN + 2),
                message: "bad port".into(),
                resources: vec!["x".into()],
            })),
        }
    }

    fn of(type_url: &str, state: State, with_contents: bool) -> GenericXdsConfig {
        let newest =
            (!matches!(state, State::Absent | State::Removing)).then(|| Resource::new(type_url, "x", b"content"));
        let standing = Standing { name: "x".into(), state, held: false };
        resource(&type_url.into(), &standing, newest.as_ref(), Some(&status()), with_contents)
    }

    fn shown(state: State) -> GenericXdsConfig {
        of(type_url::LISTENER, state, true)
    }

    #[test]
    fn a_standing_has_its_status_its_time_and_its_content() {
        let seconds = |config: &GenericXdsConfig| config.last_updated.as_ref().map(|at| at.seconds.cast_unsigned());
        for (state, status, client, at) in [
            (State::Current, ConfigStatus::Synced, ClientResourceStatus::Acked, Some(WHEN + 1)),
            (State::Unanswered, ConfigStatus::Stale, ClientResourceStatus::Requested, Some(WHEN)),
            (State::Unsent, ConfigStatus::NotSent, ClientResourceStatus::Requested, None),
            (State::KeptBack, ConfigStatus::NotSent, ClientResourceStatus::Requested, None),
        ] {
            let config = shown(state);
            assert_eq!((config.config_status(), config.client_status(), seconds(&config)), (status, client, at));
            assert_eq!(config.xds_config.as_ref().map(|any| any.value.as_slice()), Some(b"content".as_slice()));
            assert_eq!((config.error_state, config.version_info.len()), (None, 16));
        }
        assert_eq!(shown(State::Removing).config_status(), ConfigStatus::Stale);
        let absent = shown(State::Absent);
        assert_eq!(absent.client_status(), ClientResourceStatus::DoesNotExist);
        assert_eq!((absent.version_info.as_str(), absent.xds_config), ("", None));
    }

    #[test]
    fn a_rejection_has_the_words_of_the_client() {
        let config = shown(State::Rejected);
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
        assert_eq!(of(type_url::LISTENER, State::Current, false).xds_config, None);
        let secret = of(type_url::SECRET, State::Current, true);
        assert_eq!((secret.xds_config, secret.name.as_str()), (None, "x"));
        assert_eq!(of(type_url::SECRET, State::Rejected, true).error_state.unwrap().failed_configuration, None);
    }

    #[test]
    fn a_limiter_is_of_the_cluster_of_limiters() {
        let connection = Connection {
            proxy: Arc::new(ProxyId { fleet: None, id: "one".parse().unwrap() }),
            address: None,
            version: Some("1.2.3".into()),
            protocol: Protocol::Delta,
            since: UNIX_EPOCH,
            cache: Arc::default(),
            canary: false,
            labels: Arc::default(),
            ended: tokio_util::sync::CancellationToken::new(),
            status: SharedStatus::default(),
        };
        let nothing = Inspection { tables: Arc::default(), types: Vec::new() };
        let node = client_config(&connection, &nothing, true).node.unwrap();
        assert_eq!((node.id.as_str(), node.cluster.as_str()), ("one", "rate-limiter"));
    }
}
