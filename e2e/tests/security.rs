//! Who may ask for configuration: only a proxy with a certificate of our authority, for its own fleet, in time.
//!
//! Everyone else is refused, learns nothing, and leaves a line in the log that tells the operator why.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    certificates::{Authority, Identity},
    client::{fetch, get},
    control_plane::ControlPlane,
    document::{fleet, listener, route_saying},
    wait::{PATIENCE, until},
};
use chancery_proto::{
    envoy::{
        core::Node,
        discovery::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest,
            aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
        },
    },
    type_url,
};
use http::Method;
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity as TlsIdentity};

/// Long enough to be served in, for who is served at all.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// A control plane with something to tell about two fleets.
struct Secretive {
    control_plane: ControlPlane,
    authority: Authority,
    folder: tempfile::TempDir,
}

impl Secretive {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let resources = [
            fleet("edge"),
            fleet("inner"),
            listener("web", "edge", 10000),
            listener("secret", "inner", 10001),
            route_saying("news", "news.example.com", "of the edge"),
        ];
        control_plane.caller().apply(&resources).await?;
        Ok(Self { control_plane, authority, folder })
    }

    /// Asks for listeners as `node` of `fleet`, and returns the first answer.
    async fn ask(&self, identity: Option<&Identity>, fleet: &str, node: &str) -> Result<DeltaDiscoveryResponse> {
        ask(self.control_plane.xds, &self.authority.file(), identity, fleet, node).await
    }

    /// Waits for a line of the log that holds all of `words`.
    async fn logs(&self, words: &[&str]) -> Result<()> {
        until(&format!("a line of the log holds {words:?}"), PATIENCE, async || {
            let log = self.control_plane.log();
            let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
            ensure!(found, "the log is:\n{log}");
            Ok(())
        })
        .await
    }
}

async fn ask(
    xds: SocketAddr,
    trusted: &Path,
    identity: Option<&Identity>,
    fleet: &str,
    node: &str,
) -> Result<DeltaDiscoveryResponse> {
    let mut tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(fs::read(trusted)?)).domain_name("localhost");
    if let Some(Identity { certificate, key }) = identity {
        tls = tls.identity(TlsIdentity::from_pem(fs::read(certificate)?, fs::read(key)?));
    }
    let request = DeltaDiscoveryRequest {
        node: Some(Node { id: node.to_owned(), cluster: fleet.to_owned(), ..Node::default() }),
        type_url: type_url::LISTENER.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let exchange = async {
        let channel = Endpoint::from_shared(format!("https://{xds}"))?.tls_config(tls)?.connect().await?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        // A client that says nothing more, but does not hang up either.
        let requests = tokio_stream::once(request).chain(tokio_stream::pending());
        let mut responses = client.delta_aggregated_resources(requests).await?.into_inner();
        responses.next().await.context("the stream ended without an answer")?.context("the stream was refused")
    };
    tokio::time::timeout(SERVED_WITHIN, exchange).await.context("nobody answered")?
}

fn refused(answer: Result<DeltaDiscoveryResponse>) -> String {
    let error = answer.expect_err("it must not be served");
    let chain = format!("{error:#}");
    for secret in ["web", "secret", "news", "10000", "10001"] {
        assert!(!chain.contains(secret), "the refusal tells of the configuration: {chain}");
    }
    assert!(!chain.contains("nobody answered"), "it must be refused, not left waiting");
    chain
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_is_served_its_own_fleet() -> Result<()> {
    let scene = Secretive::start().await?;
    let response = scene.ask(Some(&scene.authority.proxy("edge", "one")?), "edge", "one").await?;
    let names: Vec<_> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["web"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_a_certificate_is_refused() -> Result<()> {
    let scene = Secretive::start().await?;
    refused(scene.ask(None, "edge", "one").await);
    scene.logs(&["certificate"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_another_authority_is_refused() -> Result<()> {
    let scene = Secretive::start().await?;
    let foreign = Authority::create(scene.folder.path(), "foreign")?;
    refused(scene.ask(Some(&foreign.proxy("edge", "one")?), "edge", "one").await);
    scene.logs(&["unknown CA"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_certificate_is_refused() -> Result<()> {
    let scene = Secretive::start().await?;
    refused(scene.ask(Some(&scene.authority.expired_proxy("edge", "one")?), "edge", "one").await);
    scene.logs(&["xpired"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_of_another_fleet_is_refused() -> Result<()> {
    let scene = Secretive::start().await?;
    let inner = scene.authority.proxy("inner", "one")?;
    refused(scene.ask(Some(&inner), "edge", "one").await);
    scene.logs(&["edge", "inner"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_under_another_name_is_refused() -> Result<()> {
    let scene = Secretive::start().await?;
    let one = scene.authority.proxy("edge", "one")?;
    refused(scene.ask(Some(&one), "edge", "two").await);
    scene.logs(&["one", "two"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_is_no_proxys_is_refused() -> Result<()> {
    let scene = Secretive::start().await?;
    let identities = [
        ("spiffe://elsewhere.test/fleet/edge/proxy/one", "elsewhere.test"),
        ("spiffe://chancery.local/fleet/edge", "spiffe://chancery.local/fleet/edge"),
        ("spiffe://chancery.local/fleet/edge/proxy/one/more", "edge/proxy/one/more"),
        ("https://chancery.local/fleet/edge/proxy/one", "https://chancery.local/fleet/edge/proxy/one"),
    ];
    for (number, (uri, logged)) in identities.into_iter().enumerate() {
        let identity = scene.authority.client(&format!("odd-{number}"), uri)?;
        refused(scene.ask(Some(&identity), "edge", "one").await);
        scene.logs(&[logged]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_does_not_exist_gets_nothing() -> Result<()> {
    let scene = Secretive::start().await?;
    let ghost = scene.authority.proxy("ghost", "one")?;
    refused(scene.ask(Some(&ghost), "ghost", "one").await);
    scene.logs(&["ghost"]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_the_world_is_guarded_alike() -> Result<()> {
    let scene = Secretive::start().await?;
    let Identity { certificate, key } = scene.authority.proxy("inner", "one")?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(scene.authority.file())?))
        .domain_name("localhost")
        .identity(TlsIdentity::from_pem(fs::read(certificate)?, fs::read(key)?));
    let channel =
        Endpoint::from_shared(format!("https://{}", scene.control_plane.xds))?.tls_config(tls)?.connect().await?;
    let request = DiscoveryRequest {
        node: Some(Node { id: "one".into(), cluster: "edge".into(), ..Node::default() }),
        type_url: type_url::LISTENER.to_owned(),
        ..DiscoveryRequest::default()
    };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = AggregatedDiscoveryServiceClient::new(channel);
    let status = match client.stream_aggregated_resources(requests).await {
        Ok(responses) => responses.into_inner().next().await.context("an answer")?.expect_err("it must not be served"),
        Err(status) => status,
    };
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_needs_its_token() -> Result<()> {
    let scene = Secretive::start().await?;
    let api = scene.control_plane.api;
    let bare = fetch(api, get("api", "/api/v1/routes")).await?;
    assert_eq!(bare.status, 401);
    assert!(bare.header("www-authenticate").starts_with("Bearer"));
    let stranger = Api::new(api, "not-the-token");
    for (method, path) in [
        (Method::GET, "/api/v1/routes"),
        (Method::GET, "/api/v1/routes/news"),
        (Method::GET, "/api/v1/proxies"),
        (Method::GET, "/api/v1/revisions"),
        (Method::PUT, "/api/v1/routes/news"),
        (Method::DELETE, "/api/v1/routes/news"),
        (Method::POST, "/api/v1/apply"),
        (Method::POST, "/api/v1/plan"),
    ] {
        let answer = stranger.json(method.clone(), path, None).await?;
        assert_eq!(answer.status, 401, "{method} {path}");
        assert!(!answer.text().contains("of the edge"), "{method} {path}: {}", answer.text());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_stays_out_of_the_log() -> Result<()> {
    let scene = Secretive::start().await?;
    let token = "a-token-somebody-mistyped-0123456789";
    let answer = Api::new(scene.control_plane.api, token).json(Method::GET, "/api/v1/routes", None).await?;
    assert_eq!(answer.status, 401);
    let log = scene.control_plane.log();
    assert!(!log.contains(token) && !log.contains(chancery_e2e::control_plane::ADMIN_TOKEN), "{log}");
    Ok(())
}
