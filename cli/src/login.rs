//! Signing in and out, and who one is.

use std::path::PathBuf;

use chancery_control_plane::oidc::{self, IssuerUrl};
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    answer::moment,
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
    sign_in::{
        device,
        issuer::Issuer,
        kept::{Kept, Place},
        session::Credentials,
    },
};

/// `chancery login`
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// URL of the OpenID Connect issuer [default: what the control plane says]
    #[arg(long, value_name = "URL", requires = "client_id")]
    issuer: Option<IssuerUrl>,
    /// Client id at the issuer [default: what the control plane says]
    #[arg(long, value_name = "ID", requires = "issuer")]
    client_id: Option<String>,
    /// What to ask the issuer for; may be given several times [default: what the control plane says]
    #[arg(long = "scope", value_name = "SCOPE", requires = "issuer")]
    scopes: Vec<String>,
    /// CA of the issuer's certificate, PEM [default: those that the system trusts]
    #[arg(long, value_name = "FILE", env = "CHANCERY_ISSUER_CA")]
    issuer_ca: Option<PathBuf>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `chancery logout`
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `chancery whoami`
#[derive(Debug, Args)]
pub(crate) struct WhoAmIArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What the control plane says about how to sign in.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HowToSignIn {
    issuer: String,
    client_id: String,
    scopes: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WhoAmI {
    name: String,
    #[serde(default)]
    grants: Vec<Granted>,
    expires_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Granted {
    role: String,
    teams: Vec<String>,
    scopes: Vec<String>,
}

/// Has the person sign in, and keeps what comes of it if the control plane takes it.
pub(crate) async fn login(args: LoginArgs) -> Result<(), Failure> {
    let LoginArgs { issuer, client_id, scopes, issuer_ca, connection } = args;
    let server = connection.server();
    let place = Place::of(&server)
        .ok_or_else(|| Failure::Usage("neither XDG_CONFIG_HOME nor HOME says where to keep the sign-in".to_owned()))?;
    let how = match (issuer, client_id) {
        (Some(issuer), Some(client_id)) => {
            let scopes = if scopes.is_empty() { vec!["openid".to_owned()] } else { scopes };
            HowToSignIn { issuer: issuer.to_string(), client_id, scopes }
        }
        _ => connection.client_of(&server, Credentials::None)?.get("/api/v1/sign-in").await?,
    };
    let HowToSignIn { issuer: url, client_id, scopes } = how;
    let issuer: IssuerUrl = url.parse().map_err(|error| Failure::Usage(format!("--issuer: {error}")))?;
    let asked = Issuer::discover(&issuer, &client_id, issuer_ca.as_deref()).await?;
    let tokens = device::sign_in(&asked, &scopes).await?;
    let Some(id_token) = tokens.id_token else {
        return Err(asked.failed("gives no ID token; the scopes must contain openid".to_owned()));
    };
    oidc::claimed_end(&id_token).map_err(|error| asked.failed(format!("gives a token of no use: {error}")))?;
    let credentials = Credentials::token(&id_token.clone().into())?;
    let who: WhoAmI = connection.client_of(&server, credentials)?.get("/api/v1/whoami").await?;
    // A later command may run elsewhere.
    let ca_file = issuer_ca.map(|file| std::path::absolute(&file).unwrap_or(file));
    let _lock = place.lock().await?;
    place.write(&Kept { issuer: url, client_id, ca_file, id_token, refresh_token: tokens.refresh_token })?;
    eprintln!("signed in to {server} as {}", output::printable(who.name));
    if connection.has_token() {
        eprintln!("a token is set as well, and goes before the sign-in: unset CHANCERY_TOKEN");
    }
    Ok(())
}

/// Forgets the sign-in.
pub(crate) async fn logout(args: LogoutArgs) -> Result<(), Failure> {
    let server = args.connection.server();
    let forgotten = match Place::of(&server) {
        Some(place) => {
            let _lock = place.lock().await?;
            place.forget()?
        }
        None => false,
    };
    match forgotten {
        true => eprintln!("signed out of {server}"),
        false => eprintln!("nobody is signed in to {server}"),
    }
    Ok(())
}

/// Says who asks, and what they may do.
pub(crate) async fn whoami(args: WhoAmIArgs) -> Result<(), Failure> {
    let WhoAmIArgs { output, connection } = args;
    let answer: Value = connection.client()?.get("/api/v1/whoami").await?;
    output.print(&answer, |answer| match serde_json::from_value(answer.clone()) {
        Ok(who) => table(&who),
        // A version that says it otherwise.
        Err(_) => output::json(answer),
    })
}

fn table(who: &WhoAmI) -> String {
    let listed = |texts: &[String], none: &str| if texts.is_empty() { none.to_owned() } else { texts.join(",") };
    let until = who.expires_at.as_deref().map_or_else(|| "-".to_owned(), moment);
    output::table(
        ["NAME", "ROLE", "TEAMS", "SCOPES", "UNTIL"],
        who.grants.iter().map(|Granted { role, teams, scopes }| {
            [who.name.clone(), role.clone(), listed(teams, "all"), listed(scopes, "all"), until.clone()]
        }),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_of_what_one_may_do() {
        let who: WhoAmI = serde_json::from_value(json!({
            "name": "oidc:ada@example.com", "role": "owner", "teams": ["payments"], "scopes": [],
            "grants": [
                { "role": "owner", "teams": ["checkout", "payments"], "scopes": ["routes:write"] },
                { "role": "viewer", "teams": [], "scopes": [] },
            ],
            "expiresAt": "2026-11-21T03:00:00Z",
        }))
        .unwrap();
        insta::assert_snapshot!(table(&who), @r"
        NAME                  ROLE    TEAMS              SCOPES        UNTIL
        oidc:ada@example.com  owner   checkout,payments  routes:write  2026-11-21T03:00:00Z
        oidc:ada@example.com  viewer  all                all           2026-11-21T03:00:00Z
        ");
    }
}
