//! A machine becomes a proxy by a token that is good once, and stays one: its certificates are renewed while Envoy runs, until somebody
//! revokes the enrolment.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::Authority,
    client::{fetch, get},
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet, listener, route_saying},
    envoy::Envoy,
    port::free_port,
    process::{Process, own_program},
    required,
    wait::{PATIENCE, until},
};
use serde_json::Value;

/// How long a certificate is good here: Envoy has to go on when its first one is over.
const LIFE: Duration = Duration::from_secs(15);

const HOST: &str = "shop.example.com";

/// A control plane that issues with the CA of these tests.
async fn control_plane(folder: &Path, authority: &Authority) -> Result<ControlPlane> {
    let database = format!("sqlite://{}", folder.join("chancery.db").display());
    let (certificate, key) = (authority.file().display().to_string(), authority.key_file().display().to_string());
    let arguments = ["--ca-cert", &certificate, "--ca-key", &key];
    ControlPlane::start_with(folder, "control-plane", &database, authority, &arguments).await
}

/// The agent of a machine that has its identity in `dir`.
fn agent(control_plane: &ControlPlane, dir: &Path, token: &Path, more: &[&str]) -> Result<Command> {
    let mut command = Command::new(own_program("chancery")?);
    command.arg("agent").arg("--dir").arg(dir).arg("--token-file").arg(token);
    command.args(["--server", &format!("http://{}", control_plane.api)]);
    command.args(["--xds-address", &control_plane.xds.to_string()]).args(more);
    Ok(command)
}

/// Until the proxy at `web` answers with `body`.
async fn answers(web: SocketAddr, body: &str) -> Result<()> {
    until(&format!("the proxy says {body}"), PATIENCE, async || {
        let response = fetch(web, get(HOST, "/")).await?;
        ensure!(response.text() == body, "it says {}", response.text());
        Ok(())
    })
    .await
}

fn certificate(dir: &Path) -> Result<String> {
    Ok(fs::read_to_string(dir.join("tls.crt"))?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_outlives_its_first_certificate_until_its_enrolment_is_revoked() -> Result<()> {
    let Some(program) = required::envoy() else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let mut control_plane = control_plane(folder.path(), &authority).await?;
    let api = control_plane.caller();
    let port = free_port();
    api.apply(&[fleet("edge"), listener("web", "edge", port), route_saying("shop", HOST, "first")]).await?;
    let user = User::in_folder(folder.path()).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN);

    // An operator makes an enrolment, and gives its token to the machine.
    let made = user
        .asks(&format!("enrol create --fleet edge --id envoy --certificate-life {}s -o json", LIFE.as_secs()))
        .await?;
    let (id, token) = (made["id"].as_str().context("an id")?, made["token"].as_str().context("a token")?);
    let (dir, token_file) = (folder.path().join("identity"), folder.path().join("enrolment-token"));
    fs::write(&token_file, token)?;
    let mut running = Process::spawn("agent", agent(&control_plane, &dir, &token_file, &[])?, folder.path())?;
    let ready = running.ready(PATIENCE).await?;
    let enrolled = Instant::now();
    ensure!(ready["identity"] == "spiffe://chancery.local/fleet/edge/proxy/envoy", "{ready}");
    let first = certificate(&dir)?;

    // Nobody else becomes a proxy by it.
    let thief = folder.path().join("thief");
    let stolen = agent(&control_plane, &thief, &token_file, &["--once"])?.output()?;
    let told = String::from_utf8_lossy(&stolen.stderr).into_owned();
    ensure!(stolen.status.code() == Some(1) && told.contains("used already"), "{told}");
    ensure!(!thief.join("tls.crt").exists());

    // The proxy serves.
    let bootstrap = format!(
        "bootstrap --fleet edge --id envoy --xds-address {} --identity-dir {} --renewed --admin 127.0.0.1:0",
        control_plane.xds,
        dir.display()
    );
    let bootstrap: Value = serde_json::from_str(&user.does(&bootstrap, "").await?)?;
    let envoy = Envoy::start(&program, folder.path(), "envoy", &bootstrap).await?;
    let web = SocketAddr::from(([127, 0, 0, 1], port));
    answers(web, "first").await?;

    // When the first certificate is over, only who has the next can connect: and Envoy does.
    until("the certificate is renewed", 2 * LIFE, async || {
        ensure!(certificate(&dir)? != first, "it is still the first");
        Ok(())
    })
    .await?;
    tokio::time::sleep((LIFE + Duration::from_secs(1)).saturating_sub(enrolled.elapsed())).await;
    control_plane.kill();
    control_plane.start_again().await?;
    let api = control_plane.caller();
    api.apply(&[route_saying("shop", HOST, "second")]).await?;
    answers(web, "second").await.with_context(|| envoy.log())?;

    // What is revoked is not renewed: the agent says so and ends, and nobody has to ask why the proxy is gone a while later.
    user.does(&format!("enrol revoke {id}"), "").await?;
    let status = until("the agent ends", 2 * LIFE, async || running.exited().context("it runs")).await?;
    ensure!(status.code() == Some(1) && running.log().contains("its enrolment is revoked"), "{}", running.log());

    let listed = user.does("enrol list", "").await?;
    ensure!(listed.contains("revoked") && listed.contains("envoy"), "{listed}");
    let audit = user.does("audit list -o json", "").await?;
    for action in ["enrolment.create", "enrolment.revoke", "\"enrol\""] {
        ensure!(audit.contains(action), "the audit log has no {action}: {audit}");
    }
    for text in [&audit, &listed, &control_plane.log(), &running.log(), &running.output()] {
        ensure!(!text.contains(token), "the token is shown: {text}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_ca_an_operator_is_told_what_to_set() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    control_plane.caller().apply(&[fleet("edge")]).await?;
    let user = User::in_folder(folder.path()).of(&format!("http://{}", control_plane.api), ADMIN_TOKEN);
    let refused = user.runs("enrol create --fleet edge", "").await?;
    ensure!(refused.code == 1 && refused.errors.contains("ca_cert"), "{refused:?}");
    Ok(())
}
