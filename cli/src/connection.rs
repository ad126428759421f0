//! Where the control plane is and what to show it: flags, environment, or a `chancery dev` that runs here.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use chancery_runtime::SecretString;
use clap::Args;
use serde::Deserialize;

use crate::{again, client::Client, failure::Failure, sign_in::session::Credentials};

/// Where the API of a control plane is unless something says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// Where a `chancery dev` keeps its data unless something says otherwise.
const DEFAULT_DATA_DIR: &str = "./.chancery";

/// Where a rate limiter answers over HTTP unless something says otherwise.
const DEFAULT_LIMITER: &str = "http://127.0.0.1:6070";

/// Which control plane is meant.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectionArgs {
    /// URL of the API [default: that of the `chancery dev` in the data folder]
    #[arg(long, value_name = "URL", env = "CHANCERY_SERVER")]
    server: Option<String>,
    /// CA of the certificate at an https URL, PEM [default: the system's]
    #[arg(long, value_name = "FILE", env = "CHANCERY_SERVER_CA")]
    server_ca: Option<PathBuf>,
    /// Token for the API; better in the environment, where other users cannot see it [default: that of the `chancery dev`]
    #[arg(long, value_name = "TOKEN", env = "CHANCERY_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// Data folder of a `chancery dev`
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DATA_DIR, env = "CHANCERY_DATA_DIR")]
    data_dir: PathBuf,
    /// Have the control plane record what it does as one trace, and say which on stderr
    #[arg(long)]
    trace: bool,
}

/// What a `chancery dev` says about itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dev {
    api_url: String,
    admin_token: SecretString,
    /// Not there in one that was started by an older version.
    rate_limiter_http: Option<SocketAddr>,
}

impl ConnectionArgs {
    /// The flags that mean the same control plane, as far as the environment does not; never the token.
    pub(crate) fn words(&self) -> Vec<String> {
        let said = |name: &str, value: &str| std::env::var(name).is_ok_and(|said| said == value);
        let mut words = Vec::new();
        if let Some(server) = self.server.as_ref().filter(|server| !said("CHANCERY_SERVER", server)) {
            words.extend(["--server".to_owned(), server.clone()]);
        }
        let ca = self.server_ca.as_ref().map(|file| file.display().to_string());
        if let Some(ca) = ca.filter(|ca| !said("CHANCERY_SERVER_CA", ca)) {
            words.extend(["--server-ca".to_owned(), ca]);
        }
        let data_dir = self.data_dir.display().to_string();
        if data_dir != DEFAULT_DATA_DIR && !said("CHANCERY_DATA_DIR", &data_dir) {
            words.extend(["--data-dir".to_owned(), data_dir]);
        }
        words
    }

    /// Where a `chancery dev` would keep its data.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether it was said which control plane is meant.
    pub(crate) fn names_a_server(&self) -> bool {
        self.server.is_some()
    }

    /// A client for the control plane that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let dev = Dev::read(&self.data_dir);
        let (server, token) = choose(self.server.clone(), self.token.clone(), dev);
        let credentials = match token {
            Some(token) => Some(Credentials::token(&token)?),
            None => Credentials::kept_for(&server)?,
        };
        let Some(credentials) = credentials else {
            let reason = format!(
                "needs a token: set CHANCERY_TOKEN (and CHANCERY_SERVER), sign in with `chancery login`, or start `chancery dev`, which none runs in {}",
                self.data_dir.display()
            );
            return Err(Failure::Server { server, reason });
        };
        let client = self.client_of(&server, credentials)?;
        if !self.trace {
            return Ok(client);
        }
        let trace = again::new_key();
        eprintln!("trace {trace}");
        Ok(client.traced(&trace))
    }

    /// A client of `server` with other credentials.
    pub(crate) fn client_of(&self, server: &str, credentials: Credentials) -> Result<Client, Failure> {
        Client::new(server, self.server_ca.as_deref(), credentials)
    }

    /// The URL of the control plane that is meant.
    pub(crate) fn server(&self) -> String {
        let dev = Dev::read(&self.data_dir);
        choose(self.server.clone(), self.token.clone(), dev).0
    }

    /// Whether a token is given.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }
}

/// The rate limiter to ask: that of a `chancery dev` with its data in `data_dir`, if one runs.
pub(crate) fn limiter(data_dir: &Path) -> String {
    let here = Dev::read(data_dir).and_then(|dev| dev.rate_limiter_http);
    here.map_or_else(|| DEFAULT_LIMITER.to_owned(), |address| format!("http://{address}"))
}

/// A token goes only to the server it belongs to: that of `chancery dev` never to one that was named otherwise.
fn choose(server: Option<String>, token: Option<SecretString>, dev: Option<Dev>) -> (String, Option<SecretString>) {
    match (server, token, dev) {
        (Some(server), None, Some(dev)) => {
            let same = server.trim_end_matches('/') == dev.api_url.trim_end_matches('/');
            (server, same.then_some(dev.admin_token))
        }
        (Some(server), token, _) => (server, token),
        (None, token, Some(dev)) => (dev.api_url, Some(token.unwrap_or(dev.admin_token))),
        (None, token, None) => (DEFAULT_SERVER.to_owned(), token),
    }
}

impl Dev {
    /// `dev.json` exists only while `chancery dev` runs.
    fn read(data_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(data_dir.join("dev.json")).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEV: &str = "http://127.0.0.1:8090";

    fn chosen(server: Option<&str>, token: Option<&str>, running: bool) -> (String, String) {
        let dev = running.then(|| Dev {
            api_url: DEV.to_owned(),
            admin_token: "of-dev".to_owned().into(),
            rate_limiter_http: None,
        });
        let token = token.map(|token| token.to_owned().into());
        let (server, token) = choose(server.map(str::to_owned), token, dev);
        (server, token.map_or_else(|| "none".to_owned(), |token| token.expose().clone()))
    }

    #[test]
    fn what_was_said_goes_before_what_runs_here() {
        let is = |server: &str, token: &str| (server.to_owned(), token.to_owned());
        assert_eq!(chosen(None, None, true), is(DEV, "of-dev"));
        assert_eq!(chosen(Some("http://a"), Some("t"), true), is("http://a", "t"));
        assert_eq!(chosen(None, Some("t"), true), is(DEV, "t"));
        assert_eq!(chosen(None, Some("t"), false), is(DEFAULT_SERVER, "t"));
        assert_eq!(chosen(None, None, false), is(DEFAULT_SERVER, "none"));
        assert_eq!(chosen(Some("http://a"), None, false), is("http://a", "none"));
    }

    #[test]
    fn what_an_older_version_says_of_itself_is_understood() {
        let dev: Dev =
            serde_json::from_str(r#"{"apiUrl":"http://127.0.0.1:8090","adminToken":"of-dev","pids":{}}"#).unwrap();
        assert_eq!((dev.api_url.as_str(), dev.rate_limiter_http), (DEV, None));
    }

    #[test]
    fn the_token_of_dev_goes_nowhere_else() {
        assert_eq!(chosen(Some("http://elsewhere"), None, true).1, "none");
        let same = format!("{DEV}/");
        assert_eq!(chosen(Some(&same), None, true), (same, "of-dev".to_owned()));
    }
}
