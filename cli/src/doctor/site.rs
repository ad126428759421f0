//! What there is to look at on this host: programs with their settings, a `chancery dev`, the API.
//!
//! Settings are read by the programs' own code, from the file that their unit names and the environment that it gives them: that of
//! this process, and the file with the ending `.env` beside the settings. What several checks ask of the same database, Redis
//! or API is asked once.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chancery_control_plane::{
    identity::token::AdminToken,
    settings as control_plane,
    store::{self, Survey},
};
use chancery_rate_limiter::{
    settings as rate_limiter,
    store::redis::survey::{self as redis_survey, Survey as RedisSurvey},
};
use chancery_runtime::{SecretString, settings, telemetry::chain};
use chancery_sidecar::settings as sidecar;
use clap::Args;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

use crate::{
    answer::{Proxy, ProxyList},
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    host,
    sign_in::session::Credentials,
};

/// Where the programs of this host have their settings.
#[derive(Debug, Args)]
pub(crate) struct SiteArgs {
    /// Settings file of the control plane; the environment beside it is FILE with .env for .toml [default: /etc/chancery/control-plane.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    control_plane_config: Option<PathBuf>,
    /// Settings file of the rate limiter, likewise [default: /etc/chancery/rate-limiter.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    rate_limiter_config: Option<PathBuf>,
    /// Settings file of the sidecar, likewise [default: /etc/chancery/sidecar.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    sidecar_config: Option<PathBuf>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A program of this host.
pub(crate) struct Program<S> {
    /// Where its settings come from.
    pub(crate) source: String,
    /// What they are, or why they cannot be read.
    pub(crate) settings: Result<S, String>,
}

/// What there is.
pub(crate) struct Site {
    pub(super) before_install: bool,
    pub(crate) control_plane: Option<Program<control_plane::Settings>>,
    pub(crate) rate_limiter: Option<Program<rate_limiter::Settings>>,
    pub(crate) sidecar: Option<Program<sidecar::Settings>>,
    /// How to ask the API, or why it cannot be asked.
    pub(crate) api: Result<Client, String>,
    /// Whether the API belongs to the control plane of this host.
    pub(super) api_is_here: bool,
    /// Of the Envoy of a `chancery dev`.
    pub(crate) envoy_admin: Option<SocketAddr>,
    /// Processes that are known, by the program's name.
    pub(super) processes: BTreeMap<String, u32>,
    database: OnceCell<Result<Survey, String>>,
    redis: OnceCell<Result<RedisSurvey, String>>,
    proxies: OnceCell<Result<Vec<Proxy>, String>>,
}

/// What a `chancery dev` says of itself, as far as it is looked at here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dev {
    admin_url: String,
    api_url: String,
    xds_address: SocketAddr,
    rate_limiter_grpc: SocketAddr,
    rate_limiter_http: SocketAddr,
    sidecar_inbound: SocketAddr,
    sidecar_outbound: SocketAddr,
    sidecar_admin: SocketAddr,
    envoy_admin: Option<SocketAddr>,
    #[serde(default)]
    pids: BTreeMap<String, u32>,
}

impl<S> Program<S> {
    /// The settings, if they can be read.
    pub(crate) fn ok(&self) -> Option<&S> {
        self.settings.as_ref().ok()
    }
}

impl Site {
    /// Finds out what there is.
    pub(crate) fn find(args: &SiteArgs, before_install: bool) -> Self {
        let mut site = Self { before_install, ..Self::nothing() };
        let said = [&args.control_plane_config, &args.rate_limiter_config, &args.sidecar_config];
        let dev = dev(args.connection.data_dir()).filter(|_| said.iter().all(|file| file.is_none()));
        if let Some(dev) = dev {
            site.take(dev, args.connection.data_dir());
        } else {
            site.control_plane = program(&args.control_plane_config, "control-plane", &control_plane::Flags::default());
            site.rate_limiter = program(&args.rate_limiter_config, "rate-limiter", &rate_limiter::Flags::default());
            site.sidecar = program(&args.sidecar_config, "sidecar", &sidecar::Flags::default());
        }
        let here = site.control_plane.as_ref().and_then(Program::ok).map(|settings| {
            let token = AdminToken::load(&settings.admin_token_path()).ok().map(|token| token.token().clone());
            (format!("http://{}", reachable(settings.api_addr)), token)
        });
        let client = args.connection.client_or(here);
        (site.api, site.api_is_here) = match client {
            Ok((client, here)) => (Ok(client), here),
            Err(Failure::Server { reason, .. }) => (Err(reason), false),
            Err(failure) => (Err(failure.to_string()), false),
        };
        site
    }

    /// A host with nothing on it.
    pub(crate) fn nothing() -> Self {
        Self {
            before_install: false,
            control_plane: None,
            rate_limiter: None,
            sidecar: None,
            api: Err("nobody said where it is".to_owned()),
            api_is_here: false,
            envoy_admin: None,
            processes: BTreeMap::new(),
            database: OnceCell::new(),
            redis: OnceCell::new(),
            proxies: OnceCell::new(),
        }
    }

    fn take(&mut self, dev: Dev, folder: &Path) {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let source = format!("chancery dev in {}", folder.display());
        let address =
            |url: &str| url.trim_start_matches("http://").parse::<SocketAddr>().map_err(|error| error.to_string());
        let tls = |name: &str| folder.join("rate-limiter").join(name);
        let settings = address(&dev.api_url).and_then(|api_addr| {
            let admin_addr = address(&dev.admin_url)?;
            let defaults = control_plane::Settings::default();
            let data_dir = folder.clone();
            Ok(control_plane::Settings { data_dir, api_addr, admin_addr, xds_addr: dev.xds_address, ..defaults })
        });
        self.control_plane = Some(Program { source: source.clone(), settings });
        let settings = rate_limiter::Settings {
            xds: dev.xds_address.to_string(),
            grpc_addr: dev.rate_limiter_grpc,
            http_addr: dev.rate_limiter_http,
            tls_cert: tls("tls.crt"),
            tls_key: tls("tls.key"),
            client_ca: tls("ca.crt"),
            ..rate_limiter::Settings::default()
        };
        self.rate_limiter = Some(Program { source: source.clone(), settings: Ok(settings) });
        let settings = sidecar::Settings {
            bootstrap: folder.join("sidecar.json"),
            inbound_addr: dev.sidecar_inbound,
            outbound_addr: dev.sidecar_outbound,
            admin_addr: dev.sidecar_admin,
            ..sidecar::Settings::default()
        };
        self.sidecar = Some(Program { source, settings: Ok(settings) });
        self.envoy_admin = dev.envoy_admin;
        self.processes = dev.pids;
    }

    /// Whether there is any program.
    pub(super) fn is_empty(&self) -> bool {
        self.control_plane.is_none() && self.rate_limiter.is_none() && self.sidecar.is_none()
    }

    /// How the database stands; none if there is no control plane here.
    pub(super) async fn database(&self) -> Option<&Result<Survey, String>> {
        let settings = self.control_plane.as_ref()?.ok()?;
        let survey = async || {
            let url = settings.database_url();
            store::survey(&url).await.map_err(|error| causes(&error))
        };
        Some(self.database.get_or_init(survey).await)
    }

    /// How Redis stands; none if no limiter here counts in it.
    pub(super) async fn redis(&self) -> Option<&Result<RedisSurvey, String>> {
        let redis = self.rate_limiter.as_ref()?.ok()?.redis().ok()??;
        let survey = || async move { redis_survey::survey(redis).await.map_err(|error| causes(&error)) };
        Some(self.redis.get_or_init(survey).await)
    }

    /// Proxies and limiters that the control plane knows.
    pub(super) async fn proxies(&self) -> &Result<Vec<Proxy>, String> {
        let ask = async || {
            let client = self.api.as_ref().map_err(Clone::clone)?;
            let call = Call::new(http::Method::GET, "/api/v1/proxies");
            let listed = client.list::<ProxyList<Proxy>>(call).await;
            listed.map(|list| list.items).map_err(|failure| failure.to_string())
        };
        self.proxies.get_or_init(ask).await
    }

    /// The admin ports of the programs here, by name.
    pub(crate) fn admin_ports(&self) -> Vec<(&'static str, SocketAddr)> {
        let ports = [
            ("control plane", self.control_plane.as_ref().and_then(Program::ok).map(|settings| settings.admin_addr)),
            ("rate limiter", self.rate_limiter.as_ref().and_then(Program::ok).map(|settings| settings.http_addr)),
            ("sidecar", self.sidecar.as_ref().and_then(Program::ok).map(|settings| settings.admin_addr)),
        ];
        ports.into_iter().filter_map(|(name, port)| Some((name, reachable(port?)))).collect()
    }
}

/// An error and its causes, each said once: drivers repeat what the system told them.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

/// Where a port is reached from its own host that may listen on every address of it.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    let loopback = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        ip if ip.is_ipv4() => std::net::Ipv4Addr::LOCALHOST.into(),
        _ => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(loopback, address.port())
}

fn dev(folder: &Path) -> Option<Dev> {
    serde_json::from_slice(&std::fs::read(folder.join("dev.json")).ok()?).ok()
}

/// The program whose settings are in `file`, or where units expect them.
fn program<S, F>(file: &Option<PathBuf>, name: &str, flags: &F) -> Option<Program<S>>
where
    S: Default + Serialize + DeserializeOwned,
    F: Serialize,
{
    let file = file.clone().or_else(|| host::usual_settings(name))?;
    // Who may not read it looks at what the settings say without.
    let beside = host::environment_beside(&file).unwrap_or_default();
    let environment = std::env::vars().chain(beside).collect::<BTreeMap<_, _>>();
    let settings = settings::load(flags, environment, Some(&file)).map_err(|error| chain(&error));
    Some(Program { source: file.display().to_string(), settings })
}

impl ConnectionArgs {
    /// As [`ConnectionArgs::client`]; where nothing was said and no `chancery dev` runs, the control plane `here`, if it has shown its
    /// token. Also says whether it is that one.
    fn client_or(&self, here: Option<(String, Option<SecretString>)>) -> Result<(Client, bool), Failure> {
        let server = here.as_ref().map(|(server, _)| server.clone());
        match (self.client(), here) {
            (Ok(client), _) => {
                let same = server.is_some_and(|server| client.server() == server);
                Ok((client, same))
            }
            (Err(_), Some((server, Some(token)))) if !self.names_a_server() => {
                Ok((Client::new(&server, None, Credentials::token(&token)?)?, true))
            }
            (Err(failure), _) => Err(failure),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_with_the_environment_beside_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("control-plane.toml");
        std::fs::write(&file, "api_addr = \"127.0.0.1:81\"\n").unwrap();
        let text = "# why\nCHANCERY_DATABASE=\"postgres://u:p@h/d\"\n; no\n\nCHANCERY_REPLICA_NAME = a\n";
        std::fs::write(folder.path().join("control-plane.env"), text).unwrap();
        let found = program::<control_plane::Settings, _>(&Some(file), "-", &control_plane::Flags::default()).unwrap();
        let settings = found.settings.unwrap();
        assert_eq!((settings.database_url().as_str(), settings.replica_name.as_str()), ("postgres://u:p@h/d", "a"));
        assert_eq!(settings.api_addr.port(), 81);
    }

    #[test]
    fn a_file_that_was_named_has_to_be_there() {
        let nowhere = Some(PathBuf::from("/nowhere/at-all.toml"));
        let found = program::<sidecar::Settings, _>(&nowhere, "-", &sidecar::Flags::default()).unwrap();
        assert!(found.settings.unwrap_err().contains("/nowhere/at-all.toml"));
        assert!(program::<sidecar::Settings, _>(&None, "no-such-program", &sidecar::Flags::default()).is_none());
    }

    #[test]
    fn what_a_driver_repeats_is_said_once() {
        let refused = || std::io::Error::other("refused");
        let error = anyhow::Error::from(refused()).context("talking: refused").context("unavailable");
        assert_eq!(causes(&*error), "unavailable: talking: refused");
    }

    #[test]
    fn every_address_is_reached_at_one() {
        assert_eq!(reachable("0.0.0.0:1".parse().unwrap()).to_string(), "127.0.0.1:1");
        assert_eq!(reachable("[::]:1".parse().unwrap()).to_string(), "[::1]:1");
        assert_eq!(reachable("10.0.0.1:1".parse().unwrap()).to_string(), "10.0.0.1:1");
    }
}
