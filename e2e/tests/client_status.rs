//! What clients have, as the control plane tells it over gRPC (CSDS): of a real Envoy, and to whom.

use std::fs;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    certificates::{Authority, Identity},
    command::User,
    control_plane::ControlPlane,
    document::{fleet, listener, route_to, service},
    scene::Scene,
    wait::{PATIENCE, until},
};
use chancery_proto::{
    envoy::{
        core::Node,
        discovery::{DeltaDiscoveryRequest, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient},
        matcher::{NodeMatcher, RegexMatcher, StringMatcher, string_matcher::MatchPattern},
        status::{
            ClientConfig, ClientStatusRequest, ClientStatusResponse, ConfigStatus,
            client_status_discovery_service_client::ClientStatusDiscoveryServiceClient,
        },
    },
    type_url,
};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as TlsIdentity},
};

const HOST: &str = "shop.example.com";
const OPERATOR: &str = "spiffe://chancery.local/operator/ops";

/// A connection to the xDS port, as the holder of `identity`.
async fn connect(control_plane: &ControlPlane, authority: &Authority, identity: &Identity) -> Result<Channel> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(authority.file())?))
        .identity(TlsIdentity::from_pem(fs::read(&identity.certificate)?, fs::read(&identity.key)?))
        .domain_name("localhost");
    Ok(Endpoint::new(format!("https://{}", control_plane.xds))?.tls_config(tls)?.connect().await?)
}

/// Asks about clients.
struct Onlooker(ClientStatusDiscoveryServiceClient<Channel>);

impl Onlooker {
    async fn connect(control_plane: &ControlPlane, authority: &Authority, identity: &Identity) -> Result<Self> {
        Ok(Self(ClientStatusDiscoveryServiceClient::new(connect(control_plane, authority, identity).await?)))
    }

    async fn ask(&mut self, question: ClientStatusRequest) -> Result<ClientStatusResponse, Status> {
        Ok(self.0.fetch_client_status(question).await?.into_inner())
    }

    /// All that it may see, by id.
    async fn sees(&mut self) -> Result<Vec<String>> {
        let seen = self.ask(ClientStatusRequest::default()).await?.config;
        Ok(seen.into_iter().map(|config| config.node.unwrap_or_default().id).collect())
    }
}

fn about(pattern: MatchPattern) -> ClientStatusRequest {
    let node_id = Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() });
    let node_matchers = vec![NodeMatcher { node_id, ..NodeMatcher::default() }];
    ClientStatusRequest { node_matchers, ..ClientStatusRequest::default() }
}

/// The status of a resource, by type and name.
fn status(config: &ClientConfig, type_url: &str, name: &str) -> Option<ConfigStatus> {
    let mut found = config.generic_xds_configs.iter().filter(|one| one.type_url == type_url && one.name == name);
    found.next().map(|one| one.config_status())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_envoy_has() -> Result<()> {
    let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(()) };
    let shop = service("shop", &[([127, 0, 0, 1], 9).into()]);
    scene.api.apply_and_wait(&[shop, route_to("shop", HOST, "shop")]).await?;
    let (authority, out) = (&scene.authority, scene.folder().join("operator"));
    let (ca, key) = (authority.file().display().to_string(), authority.key_file().display().to_string());
    let issue = format!("cert issue --operator ops --ca-cert {ca} --ca-key {key} --out {}", out.display());
    User::in_folder(scene.folder()).does(&issue, "").await?;
    let operator = Identity { certificate: out.join("tls.crt"), key: out.join("tls.key") };
    let mut operator = Onlooker::connect(&scene.control_plane, &scene.authority, &operator).await?;

    let answer = operator.ask(ClientStatusRequest::default()).await?;
    let [envoy] = answer.config.as_slice() else { panic!("one client: {answer:?}") };
    let expected = [
        (type_url::CLUSTER, "shop"),
        (type_url::ENDPOINT, "shop"),
        (type_url::LISTENER, "web"),
        (type_url::ROUTE, "web"),
        (type_url::VIRTUAL_HOST, "web/shop.example.com"),
    ];
    for (type_url, name) in expected {
        assert_eq!(status(envoy, type_url, name), Some(ConfigStatus::Synced), "{type_url} {name}: {envoy:?}");
    }
    assert!(envoy.generic_xds_configs.iter().all(|one| one.xds_config.is_some() && one.version_info.len() == 16));
    let without = ClientStatusRequest { exclude_resource_contents: true, ..ClientStatusRequest::default() };
    let without = operator.ask(without).await?;
    assert!(without.config[0].generic_xds_configs.iter().all(|one| one.xds_config.is_none()));
    assert_eq!(without.config[0].generic_xds_configs.len(), envoy.generic_xds_configs.len());

    // On a stream, one answer per question.
    let questions = [about(MatchPattern::Prefix("env".into())), about(MatchPattern::Suffix("nobody".into()))];
    let mut answers = operator.0.stream_client_status(tokio_stream::iter(questions)).await?.into_inner();
    let mut seen = Vec::new();
    while let Some(answer) = tokio::time::timeout(PATIENCE, answers.message()).await?? {
        seen.push(answer.config.len());
    }
    assert_eq!(seen, [1, 0]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_answer_is_stale_and_sees_itself_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let mut control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let api = control_plane.caller();
    let services = ["shop", "cart"].map(|name| service(name, &[([127, 0, 0, 1], 9).into()]));
    let routes = ["shop", "cart"].map(|name| route_to(name, &format!("{name}.example.com"), name));
    api.apply(&[fleet("edge"), listener("web", "edge", 10_000)]).await?;
    api.apply(&[services.to_vec(), routes.to_vec()].concat()).await?;

    // What was served before a restart is on trial no more: a rejection does not take it back.
    control_plane.start_again_with(&[]).await?;
    // Two clients that ask for clusters and say nothing more.
    let mut streams = Vec::new();
    for id in ["one", "two"] {
        let identity = authority.proxy("edge", id)?;
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: id.to_owned(), cluster: "edge".to_owned(), ..Node::default() }),
            type_url: type_url::CLUSTER.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let channel = connect(&control_plane, &authority, &identity).await?;
        let call = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await?;
        let mut responses = call.into_inner();
        tokio::time::timeout(PATIENCE, responses.message()).await??.context("clusters")?;
        streams.push(responses);
    }
    let mut one = Onlooker::connect(&control_plane, &authority, &authority.proxy("edge", "one")?).await?;
    assert_eq!(one.sees().await?, ["one"]);
    let answer = one.ask(about(MatchPattern::Exact("two".into()))).await?;
    assert!(answer.config.is_empty(), "it may not look at another: {answer:?}");
    let mut limiter = Onlooker::connect(&control_plane, &authority, &authority.rate_limiter("one")?).await?;
    assert!(limiter.sees().await?.is_empty(), "a limiter is not the proxy of that name");
    let mut operator = Onlooker::connect(&control_plane, &authority, &authority.client("ops", OPERATOR)?).await?;
    assert_eq!(operator.sees().await?, ["one", "two"]);

    let answer = operator.ask(ClientStatusRequest::default()).await?;
    assert_eq!(status(&answer.config[0], type_url::CLUSTER, "shop"), Some(ConfigStatus::Stale), "{answer:?}");
    let mut changed = services[0].clone();
    changed["spec"]["connectTimeout"] = json!("1s");
    api.put(&changed).await?;
    until("the new version is not sent", PATIENCE, async || {
        let answer = operator.ask(ClientStatusRequest::default()).await?;
        let of = |name| status(&answer.config[1], type_url::CLUSTER, name);
        ensure!((of("shop"), of("cart")) == (Some(ConfigStatus::NotSent), Some(ConfigStatus::Stale)), "{answer:?}");
        Ok(())
    })
    .await?;

    // One that rejects what it is sent, in its words.
    let rejecting = authority.proxy("edge", "zero")?;
    let channel = connect(&control_plane, &authority, &rejecting).await?;
    let (requests, receiver) = tokio::sync::mpsc::channel(2);
    let request = DeltaDiscoveryRequest {
        node: Some(Node { id: "zero".to_owned(), cluster: "edge".to_owned(), ..Node::default() }),
        type_url: type_url::LISTENER.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    requests.send(request.clone()).await?;
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let call = AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(receiver).await?;
    let mut responses = call.into_inner();
    let sent = tokio::time::timeout(PATIENCE, responses.message()).await??.context("listeners")?;
    let words = chancery_proto::google::rpc::Status { message: "web: port taken".to_owned(), ..Default::default() };
    requests.send(DeltaDiscoveryRequest { response_nonce: sent.nonce, error_detail: Some(words), ..request }).await?;
    let refused = until("the rejection is told", PATIENCE, async || {
        let answer = operator.ask(about(MatchPattern::Exact("zero".into()))).await?;
        let config = answer.config.into_iter().next().context("the client")?;
        let web = config.generic_xds_configs.into_iter().find(|one| one.name == "web").context("the listener")?;
        ensure!(web.config_status() == ConfigStatus::Error, "{web:?}");
        Ok(web)
    })
    .await?;
    let error = refused.error_state.context("why")?;
    assert_eq!(error.details, "web: port taken");
    assert!(
        error.last_update_attempt.is_some() && error.failed_configuration.is_some() && refused.xds_config.is_none()
    );

    let regex = MatchPattern::SafeRegex(RegexMatcher { regex: ".*".into(), ..RegexMatcher::default() });
    let refused = operator.ask(about(regex)).await.expect_err("it is not understood");
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_nobody_sees_nothing_and_an_operator_is_no_proxy() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    control_plane.caller().apply(&[fleet("edge"), fleet("operator")]).await?;
    for (number, uri) in [
        "spiffe://elsewhere.test/operator/ops",
        "spiffe://chancery.local/control-plane",
        "spiffe://chancery.local/operator/ops/more",
    ]
    .into_iter()
    .enumerate()
    {
        let stranger = authority.client(&format!("stranger-{number}"), uri)?;
        let mut stranger = Onlooker::connect(&control_plane, &authority, &stranger).await?;
        let refused = stranger.ask(ClientStatusRequest::default()).await.expect_err("it must not see anything");
        assert_eq!(refused.code(), Code::PermissionDenied, "{uri}: {refused:?}");
    }
    let operator = authority.client("ops", OPERATOR)?;
    let request = DeltaDiscoveryRequest {
        node: Some(Node { id: "ops".to_owned(), cluster: "operator".to_owned(), ..Node::default() }),
        type_url: type_url::LISTENER.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let channel = connect(&control_plane, &authority, &operator).await?;
    let refused = match AggregatedDiscoveryServiceClient::new(channel).delta_aggregated_resources(requests).await {
        Ok(responses) => responses.into_inner().message().await.expect_err("it must not be served"),
        Err(status) => status,
    };
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    Ok(())
}
