//! `chancery agent`: on the machine of a proxy, comes by its certificate and keeps it good.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use chancery_control_plane::{
    enrolment::agent::{Agent, Enrolling},
    identity::issue::Held,
    model::Name,
};
use chancery_runtime::{Secret, SecretString, drain::Signals, telemetry};
use clap::Args;
use http::uri::Authority;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::bootstrap::xds_address;

/// `chancery agent`
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Folder for tls.crt, tls.key and ca.crt, which the proxy reads; made if it is missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// URL of the API, to enrol; plain http only on this machine
    #[arg(long, value_name = "URL", env = "CHANCERY_SERVER", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// CA of the certificate at an https URL, PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "CHANCERY_SERVER_CA")]
    server_ca: Option<PathBuf>,
    /// File with the token of an enrolment, or what `chancery enrol create` printed; needed as long as there is no certificate [default: CHANCERY_ENROLMENT_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself, for the environment: on a command line others could see it
    #[arg(long, hide = true, env = "CHANCERY_ENROLMENT_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// Id of the proxy, if the enrolment names none
    #[arg(long)]
    id: Option<Name>,
    /// Where the control plane serves xDS, to renew
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:18000", value_parser = authority)]
    xds_address: Authority,
    /// Name or address in the control plane's certificate, if it is not the host of --xds-address
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// End as soon as there is a certificate that is good and not due for renewal
    #[arg(long)]
    once: bool,
}

/// What `chancery enrol create` prints where it is not on a terminal, as far as it matters here.
#[derive(Deserialize)]
struct Printed {
    token: String,
}

/// What is said of a certificate.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    identity: &'a str,
    not_after: String,
    renew_after: String,
}

/// Enrols if it has to, and renews until a signal.
///
/// # Errors
/// The control plane refuses, or a file cannot be used; with `--once` also if the control plane is away.
pub(crate) async fn agent(args: AgentArgs) -> Result<()> {
    telemetry::init_logs_from_environment("info")?;
    let AgentArgs { dir, server, server_ca, token_file, token, id, xds_address, server_name, once } = args;
    let token = match token_file {
        Some(file) => read(&file).with_context(|| format!("cannot read the token from {}", file.display()))?,
        None => token,
    };
    let enrolling = token.map(|token| Enrolling { server, server_ca, token, proxy: id });
    let agent = Agent { dir, enrolling, xds: xds_address, server_name };
    if once {
        return told(&agent.step(OffsetDateTime::now_utc()).await?);
    }
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let running = agent.run(|held| {
        if let Err(error) = told(held) {
            eprintln!("chancery: cannot say on stdout that there is a certificate: {error:#}");
        }
    });
    tokio::select! {
        error = running => Err(error.into()),
        _ = signals.received() => Ok(()),
    }
}

/// The token in `file`, if there is one: it may be taken away once it was used. By itself, or in what `chancery enrol create` prints to a
/// file.
fn read(file: &Path) -> io::Result<Option<SecretString>> {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let printed = serde_json::from_str(&text).map(|Printed { token }| token);
    Ok(Some(Secret::new(printed.unwrap_or_else(|_| text.trim().to_owned()))))
}

fn told(held: &Held) -> Result<()> {
    let Held { identity, not_after, renew_after } = held;
    let (not_after, renew_after) = (not_after.format(&Rfc3339)?, renew_after.format(&Rfc3339)?);
    Ok(telemetry::ready_line(&Told { identity, not_after, renew_after })?)
}

fn authority(text: &str) -> Result<Authority, String> {
    let (host, port) = xds_address(text)?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("{host}:{port}").parse().map_err(|_| "must be HOST:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_has_a_host_and_a_port() {
        for text in ["cp.example.com:18000", "10.0.0.1:1", "[::1]:2"] {
            assert_eq!(authority(text).unwrap().as_str(), text);
        }
        assert!(authority("cp.example.com").is_err());
    }

    #[test]
    fn a_token_is_read_however_it_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        assert!(read(&file).unwrap().is_none(), "it was used, and taken away");
        for text in ["chye_abc", "chye_abc\n", r#"{"id":"1","token":"chye_abc","expiresAt":"2026-01-01T00:00:00Z"}"#] {
            fs::write(&file, text).unwrap();
            assert_eq!(read(&file).unwrap().unwrap().expose(), "chye_abc");
        }
        assert!(read(folder.path()).is_err(), "a folder");
    }
}
