//! A control plane and an Envoy set up by hand, as on two hosts: what the documentation says is all it takes.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    api::Api,
    client::{fetch, get},
    command::User,
    document::{fleet, listener, route_saying},
    envoy::Envoy,
    port::free_port,
    process::{Process, own_program},
    required,
    wait::{PATIENCE, until},
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The host of a control plane: a folder, and a program that has everything from its defaults in there.
struct Host {
    user: User,
    api: Api,
    xds: SocketAddr,
    process: Process,
    folder: tempfile::TempDir,
}

impl Host {
    async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let user = User::in_folder(folder.path());
        issue_server(&user).await?;
        let mut command = Command::new(own_program("chancery-control-plane")?);
        command.current_dir(folder.path()).args(["--data-dir", "data"]);
        for flag in ["--api-addr", "--xds-addr", "--admin-addr"] {
            command.args([flag, "127.0.0.1:0"]);
        }
        let mut process = Process::spawn("control-plane", command, folder.path())?;
        let ready = process.ready(PATIENCE).await?;
        let address = |part: &str| -> Result<SocketAddr> { Ok(ready[part].as_str().context("an address")?.parse()?) };
        let (api, xds) = (address("api")?, address("xds")?);
        let token = fs::read_to_string(folder.path().join("data/admin-token"))?;
        let user = user.of(&format!("http://{api}"), token.trim());
        Ok(Self { user, api: Api::new(api, token.trim()), xds, process, folder })
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }
}

async fn issue_server(user: &User) -> Result<()> {
    let issue = "cert issue --control-plane --ip 127.0.0.1 --ca-dir ca --create-ca --out data/tls";
    user.does(issue, "").await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_needs_its_folder_and_nothing_else() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let host = Host::start().await?;
    let port = free_port();
    host.api.apply(&[fleet("edge"), listener("web", "edge", port)]).await?;

    let user = &host.user;
    user.does("cert issue --fleet edge --id edge-1 --ca-dir ca --out edge-1", "").await?;
    let bootstrap = format!("bootstrap --fleet edge --id edge-1 --xds-address {} --admin 127.0.0.1:0", host.xds);
    let bootstrap = user.asks(&bootstrap).await?;
    // The other host is a folder that gets what was issued, and no key but its own.
    let elsewhere = tempfile::tempdir()?;
    for file in ["tls.crt", "tls.key", "ca.crt"] {
        fs::copy(host.path("edge-1").join(file), elsewhere.path().join(file))?;
    }
    let envoy = Envoy::start(&program, elsewhere.path(), "envoy", &bootstrap).await?;
    envoy.live().await?;

    let route = serde_json::to_string(&route_saying("news", "news.example.com", "from afar"))?;
    let answer = user.does("apply -f - --wait -m news -o json", &route).await?;
    assert!(answer.contains("\"applied\""), "{answer}");
    let web = SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(fetch(web, get("news.example.com", "/")).await?.text(), "from afar");

    let proxies = user.asks("proxies -o json").await?;
    assert!(proxies.to_string().contains("\"edge-1\""), "{proxies}");
    let history = user.asks("history route news -o json").await?;
    assert!(history.to_string().contains("news"), "{history}");
    user.does("delete route news --wait", "").await?;
    assert_eq!(fetch(web, get("news.example.com", "/")).await?.status, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_what_went_wrong() -> Result<()> {
    let host = Host::start().await?;
    let user = &host.user;
    let good = serde_json::to_string(&fleet("edge"))?;
    let bad = "kind: Fleet\nname: edge\nspec: { moon: 1, sun: 2 }\n";
    for (arguments, input, code) in [
        ("plan -f -", good.as_str(), 0),
        ("apply -f -", good.as_str(), 0),
        ("get fleets", "", 0),
        ("plan -f -", bad, 1),
        ("apply -f -", bad, 1),
        ("apply -f -", "kind: [", 1),
        ("get fleet ghost", "", 1),
        ("delete fleet ghost", "", 1),
        ("apply -f missing.yaml", "", 2),
        ("get moons", "", 2),
        ("--no-such-flag", "", 2),
    ] {
        let outcome = user.runs(arguments, input).await?;
        assert_eq!(outcome.code, code, "chancery {arguments} with {input:?}: {outcome:?}");
        assert!(code == 0 || !outcome.errors.is_empty(), "chancery {arguments} fails without a word");
    }
    let refused = user.runs("plan -f -", bad).await?.errors;
    assert!(refused.contains("spec.moon") && refused.contains("spec.sun"), "every problem is told: {refused}");

    let stranger = user.of(&format!("http://{}", host.xds), "no-token");
    assert_eq!(stranger.runs("get fleets", "").await?.code, 3, "what answers there is no API");
    let nowhere = user.of(&format!("http://127.0.0.1:{}", free_port()), "no-token");
    assert_eq!(nowhere.runs("get fleets", "").await?.code, 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_read_again_when_they_change() -> Result<()> {
    let host = Host::start().await?;
    host.user.does("cert issue --fleet edge --id edge-1 --ca-dir ca --out edge-1", "").await?;
    let first = presented(&host).await?;
    assert_eq!(first, certificate(&host.path("data/tls/tls.crt"))?);

    issue_server(&host.user).await?;
    let second = certificate(&host.path("data/tls/tls.crt"))?;
    assert_ne!(first, second, "the same certificate was issued twice");
    until("the new certificate is presented", PATIENCE, async || {
        ensure!(presented(&host).await? == second, "it is still the old one");
        Ok(())
    })
    .await?;

    // What cannot be read must not replace what works.
    fs::write(host.path("data/tls/tls.crt"), "half a certifi")?;
    until("the log tells of the broken file", PATIENCE, async || {
        let log = host.process.log();
        ensure!(log.lines().any(|line| line.contains("tls.crt") || line.contains("certificate")), "{log}");
        Ok(())
    })
    .await?;
    assert_eq!(presented(&host).await?, second);
    Ok(())
}

/// The certificate that the xDS server presents to a proxy that connects now.
async fn presented(host: &Host) -> Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&host.path("edge-1/ca.crt"))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = vec![certificate(&host.path("edge-1/tls.crt"))?];
    let key = PrivateKeyDer::from_pem_file(host.path("edge-1/tls.key"))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let name = ServerName::try_from("127.0.0.1")?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, TcpStream::connect(host.xds).await?).await?;
    let certificates = stream.get_ref().1.peer_certificates().context("the server presents a certificate")?;
    Ok(certificates.first().context("at least one")?.clone().into_owned())
}

fn certificate(file: &Path) -> Result<CertificateDer<'static>> {
    Ok(CertificateDer::from_pem_file(file)?)
}
