//! What a `Service` says of TLS: an Envoy and a sidecar of the same fleet speak it so to the endpoints, and to nobody else; and an
//! Envoy and a sidecar know each other.

use std::{net::SocketAddr, path::Path, sync::Arc};

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::Protocol,
    certificates::{Authority, Identity, proxy_uri},
    client::{Response, fetch, get},
    document::{resource, route_to, service_with},
    scene::Scene,
    sidecar::Sidecar,
    upstream::{Echo, Handshake, Upstream},
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};

const HOST: &str = "api.example.org";
const BOTH: &[&SupportedProtocolVersion] = &[&TLS12, &TLS13];

/// An Envoy and a sidecar of the fleet `edge`, both of which call the service `api`.
struct Callers {
    scene: Scene,
    sidecar: Sidecar,
}

impl Callers {
    async fn start() -> Result<Option<Self>> {
        let Some(scene) = Scene::start(Protocol::Delta).await? else { return Ok(None) };
        let sidecar = start_sidecar(&scene, "caller", &[]).await?;
        sidecar.ready().await?;
        Ok(Some(Self { scene, sidecar }))
    }

    /// Says this of `api`; returns once both have taken it.
    async fn api(&self, service: &Value) -> Result<()> {
        let applied = self.scene.api.apply_and_wait(&[service.clone(), route_to("api", HOST, "api")]).await?;
        ensure!(applied["applied"]["proxies"] == 2 && applied["applied"]["applied"] == 2, "{applied}");
        Ok(())
    }

    async fn by_envoy(&self) -> Result<Response> {
        self.scene.fetch(get(HOST, "/")).await
    }

    async fn by_sidecar(&self) -> Result<Response> {
        fetch(self.sidecar.outbound, get(HOST, "/")).await
    }

    /// Both are answered; what the service saw of each, Envoy first.
    async fn answered(&self, service: &Value) -> Result<[Echo; 2]> {
        self.api(service).await?;
        let echo = |answer: Response| -> Result<Echo> {
            ensure!(answer.status == 200, "{service}: {} {}", answer.status, answer.text());
            Ok(serde_json::from_slice(&answer.body)?)
        };
        Ok([echo(self.by_envoy().await?)?, echo(self.by_sidecar().await?)?])
    }

    /// Neither is answered, and Envoy counts why.
    async fn refused(&self, service: &Value, counter: &str) -> Result<()> {
        self.api(service).await?;
        let before = self.counted(counter).await?;
        let (envoy, sidecar) = (self.by_envoy().await?, self.by_sidecar().await?);
        ensure!(envoy.status == 503, "{service}: {} {}", envoy.status, envoy.text());
        ensure!(
            self.counted(counter).await? > before,
            "{service}: {:?}",
            self.scene.envoy.stats("cluster.api.ssl").await?
        );
        let reason = sidecar.header("x-chancery-reason");
        ensure!(sidecar.status == 503 && reason == "connect", "{service}: {} {reason}", sidecar.status);
        Ok(())
    }

    /// What Envoy counts of TLS towards `api`.
    async fn counted(&self, counter: &str) -> Result<u64> {
        self.scene.envoy.stat(&format!("cluster.api.ssl.{counter}")).await
    }
}

async fn start_sidecar(scene: &Scene, name: &str, more: &[&str]) -> Result<Sidecar> {
    Sidecar::start(scene.folder(), name, &scene.authority, scene.control_plane.xds, more).await
}

/// A server that speaks these versions of TLS, and wants to see a certificate of `clients` if there are any.
fn server(
    identity: &Identity,
    versions: &[&'static SupportedProtocolVersion],
    clients: Option<&Authority>,
) -> Result<ServerConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let building = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
    let building = match clients {
        None => building.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(authority.file())?)?;
            building
                .with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build()?)
        }
    };
    let (chain, key) = identity.read()?;
    let mut config = building.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The service at this address.
fn at(address: SocketAddr, tls: &Value) -> Value {
    service_with("api", &[address], json!({ "tls": tls }))
}

/// The service at the port of this address on `localhost`, which proxies resolve.
fn on_localhost(address: SocketAddr, tls: &Value) -> Value {
    let endpoint = json!({ "address": "localhost", "port": address.port(), "dns": true });
    resource("Service", "api", json!({ "endpoints": [endpoint], "tls": tls }))
}

fn file(path: &Path) -> Value {
    json!({ "file": path })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_https_service_is_held_to_its_name_and_its_authority() -> Result<()> {
    let Some(callers) = Callers::start().await? else { return Ok(()) };
    let scene = &callers.scene;
    let identity = scene.authority.server_called("web", &["localhost", "*.example.com"])?;
    let web = Upstream::start_tls("web", server(&identity, BOTH, None)?).await?;
    let ours = file(&scene.authority.file());

    // By the name that the proxy resolves.
    for echo in callers.answered(&on_localhost(web.address, &json!({ "trustedCa": ours }))).await? {
        let wanted = Handshake { server_name: "localhost".into(), protocol: "http/1.1".into(), client: false };
        assert_eq!(Handshake { client: false, ..echo.tls.unwrap_or_default() }, wanted);
    }
    // By the name that is asked for, wherever it is; also one that a wildcard stands for.
    let asked = json!({ "trustedCa": ours, "sni": "api.example.com" });
    let mut spoken = at(web.address, &asked);
    spoken["spec"]["protocol"] = "http2".into();
    for echo in callers.answered(&spoken).await? {
        let wanted = Handshake { server_name: "api.example.com".into(), protocol: "h2".into(), client: false };
        assert_eq!(Handshake { client: false, ..echo.tls.unwrap_or_default() }, wanted);
        assert_eq!(echo.version, "HTTP/2.0");
    }
    for name in ["api.example.org", "example.com"] {
        let wrong = json!({ "trustedCa": ours, "sni": name });
        callers.refused(&on_localhost(web.address, &wrong), "fail_verify_san").await?;
        callers.refused(&at(web.address, &wrong), "fail_verify_san").await?;
    }
    // By who else it may be, whatever it is asked for.
    let names = |name: &str| json!({ "trustedCa": ours, "sni": "x.example.org", "subjectAltNames": [{ "uri": "spiffe://a/b" }, { "dns": name }] });
    callers.answered(&at(web.address, &names("localhost"))).await?;
    callers.refused(&at(web.address, &names("other")), "fail_verify_san").await?;

    // The right name, of somebody else's authority.
    let foreign = Authority::create(scene.folder(), "foreign")?;
    let inline = |authority: &Authority| -> Result<Value> {
        Ok(json!({ "trustedCa": { "pem": std::fs::read_to_string(authority.file())? } }))
    };
    callers.answered(&on_localhost(web.address, &inline(&scene.authority)?)).await?;
    callers.refused(&on_localhost(web.address, &inline(&foreign)?), "fail_verify_error").await?;
    // Whom this machine trusts; our authority is not among them.
    callers.refused(&on_localhost(web.address, &json!({})), "fail_verify_error").await?;
    assert_eq!(web.requests(), 8, "who was refused sent nothing");

    // Said in words, Envoy believes anybody; the sidecar does not.
    let stranger = Upstream::start_tls("stranger", server(&foreign.server()?, BOTH, None)?).await?;
    callers.api(&at(stranger.address, &json!({ "insecureSkipVerify": true }))).await?;
    assert_eq!(callers.by_envoy().await?.status, 200);
    assert_eq!(callers.by_sidecar().await?.status, 503);
    // Plaintext is no substitute, in either direction.
    let plain = Upstream::start("plain").await?;
    let spoken = at(plain.address, &json!({ "insecureSkipVerify": true }));
    callers.refused(&spoken, "connection_error").await?;
    assert_eq!(plain.requests(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_sees_the_certificate_that_is_said_and_speaks_no_older_version() -> Result<()> {
    let Some(callers) = Callers::start().await? else { return Ok(()) };
    let scene = &callers.scene;
    let ours = file(&scene.authority.file());
    let identity = scene.authority.server()?;
    let wary = Upstream::start_tls("wary", server(&identity, BOTH, Some(&scene.authority))?).await?;
    callers.api(&on_localhost(wary.address, &json!({ "trustedCa": ours }))).await?;
    assert_eq!(callers.by_envoy().await?.status, 503, "Envoy shows nothing by itself");
    let shown = scene.authority.client("billing", "spiffe://chancery.local/billing")?;
    let files = json!({ "certificateFile": shown.certificate, "privateKeyFile": shown.key });
    for certificate in [files, json!({ "mesh": true })] {
        let tls = json!({ "trustedCa": { "mesh": true }, "clientCertificate": certificate });
        for echo in callers.answered(&on_localhost(wary.address, &tls)).await? {
            assert!(echo.tls.is_some_and(|tls| tls.client), "{certificate}");
        }
    }

    let old = Upstream::start_tls("old", server(&identity, &[&TLS12], None)?).await?;
    let since = |version: &str| on_localhost(old.address, &json!({ "trustedCa": ours, "minVersion": version }));
    callers.answered(&since("tls1.2")).await?;
    callers.refused(&since("tls1.3"), "connection_error").await?;
    let new = Upstream::start_tls("new", server(&identity, &[&TLS13], None)?).await?;
    callers.answered(&on_localhost(new.address, &json!({ "trustedCa": ours }))).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_and_a_sidecar_know_each_other() -> Result<()> {
    let Some(callers) = Callers::start().await? else { return Ok(()) };
    let application = Upstream::start("application").await?;
    let app = application.address.to_string();
    // Both are proxies of the fleet that wait for what they are told; who waits for "applied" waits for them too.
    let callee = start_sidecar(&callers.scene, "callee-1", &["--app-addr", &app]).await?;
    let closed = start_sidecar(&callers.scene, "callee-2", &["--app-addr", &app, "--allow", "fleet/other/*"]).await?;
    let to = async |callee: &Sidecar, mesh: &Value, protocol: &str| -> Result<[Response; 2]> {
        let spec = json!({ "tls": { "mesh": mesh }, "protocol": protocol });
        let service = service_with("api", &[callee.inbound], spec);
        callers.scene.api.apply_and_wait(&[service, route_to("api", HOST, "api")]).await?;
        callee.ready().await?;
        Ok([callers.by_envoy().await?, callers.by_sidecar().await?])
    };
    let callers_seen = [proxy_uri("edge", "envoy"), proxy_uri("edge", "caller")];
    for protocol in ["http1", "http2"] {
        for mesh in [json!({ "fleet": "edge" }), json!({ "fleet": "edge", "proxies": ["other", "callee-*"] })] {
            for (answer, caller) in to(&callee, &mesh, protocol).await?.into_iter().zip(&callers_seen) {
                ensure!(answer.status == 200, "{mesh}: {} {}", answer.status, answer.text());
                let echo: Echo = serde_json::from_slice(&answer.body)?;
                assert_eq!(echo.headers.get("x-chancery-peer"), Some(caller), "{mesh} over {protocol}");
            }
        }
    }
    let sent = application.requests();
    // It is a proxy of the fleet, but not the one that it has to be.
    let [envoy, sidecar] = to(&callee, &json!({ "fleet": "edge", "proxies": ["callee-2", "callee"] }), "http1").await?;
    assert_eq!((envoy.status, sidecar.status), (503, 503));
    assert!(callers.counted("fail_verify_san").await? > 0);
    // Who may not call is told so, by the sidecar.
    for answer in to(&closed, &json!({ "fleet": "edge" }), "http1").await? {
        assert_eq!((answer.status, answer.header("x-chancery-reason")), (403, "forbidden"));
    }
    // In plaintext nobody gets in.
    callers.scene.api.put_and_wait(&service_with("api", &[callee.inbound], json!({}))).await?;
    // The alert with which the handshake ends is no HTTP.
    assert_eq!(callers.by_envoy().await?.status, 502);
    assert!(fetch(callee.inbound, get(HOST, "/")).await.is_err(), "the connection is closed");
    assert_eq!(application.requests(), sent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_comes_and_goes_with_an_edit() -> Result<()> {
    let Some(callers) = Callers::start().await? else { return Ok(()) };
    let identity = callers.scene.authority.server()?;
    let secure = Upstream::start_tls("secure", server(&identity, BOTH, None)?).await?;
    let plain = Upstream::start("plain").await?;
    let tls = json!({ "trustedCa": { "mesh": true }, "sni": "localhost" });
    for _ in 0..3 {
        let edits = [(at(secure.address, &tls), "secure"), (at(plain.address, &Value::Null), "plain")];
        for (service, upstream) in edits {
            callers.api(&service).await?;
            for answer in [callers.by_envoy().await?, callers.by_sidecar().await?] {
                assert_eq!((answer.status, answer.header("x-upstream")), (200, upstream));
            }
        }
    }
    Ok(())
}
