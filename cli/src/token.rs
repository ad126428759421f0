//! Tokens for the API: made and shown once, listed, given another secret, revoked.

use chancery_control_plane::{access::Scope, model::Name};
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    answer::{self, Page, moment},
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// `chancery token`
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it; it is not shown again
    Create(CreateArgs),
    /// Show tokens, whose they are and what they allow
    List {
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Give a token another secret and print it; the one before is good for a while
    Rotate {
        #[command(flatten)]
        of: Which,
        /// How long the secret before is good still, at most 7d
        #[arg(long, value_name = "DURATION", default_value = "1h")]
        grace: String,
    },
    /// End a token, at once and everywhere
    Revoke(Which),
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Whose it is; changes are recorded under this name
    name: Name,
    /// What it may do: read; write what its teams own; write everything but teams and tokens; everything
    #[arg(long, value_parser = ["viewer", "owner", "operator", "admin"])]
    role: String,
    /// A team whose resources it writes (owner) or sees (viewer); may be given several times
    #[arg(long = "team", value_name = "TEAM")]
    teams: Vec<Name>,
    /// Narrow the role to this, as routes:write or *:read; may be given several times
    #[arg(long = "scope", value_name = "AREA:VERB")]
    scopes: Vec<Scope>,
    /// How long its secret is good, at most 366d
    #[arg(long, value_name = "DURATION", default_value = "90d")]
    expires_in: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
struct Which {
    /// Its name or id
    #[arg(value_name = "NAME|ID")]
    which: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A token, without its secret.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    id: String,
    name: String,
    role: Option<String>,
    teams: Vec<String>,
    scopes: Vec<String>,
    state: String,
    created_by: String,
    expires_at: String,
    last_used_at: Option<String>,
}

/// Makes, shows or ends tokens.
pub(crate) async fn token(args: TokenArgs) -> Result<(), Failure> {
    match args.command {
        TokenCommand::Create(args) => {
            let CreateArgs { name, role, teams, scopes, expires_in, output, connection } = args;
            let body = json!({ "name": name, "role": role, "teams": teams, "scopes": scopes, "expiresIn": expires_in });
            let made = connection.client()?.send(Call::new(Method::POST, "/api/v1/tokens").body(body)).await?;
            shown(output, &made)
        }
        TokenCommand::List { output, connection } => {
            let page: Page<Value> = connection.client()?.list(Call::new(Method::GET, "/api/v1/tokens")).await?;
            output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)))
        }
        TokenCommand::Rotate { of: Which { which, output, connection }, grace } => {
            let client = connection.client()?;
            let path = format!("/api/v1/tokens/{}/rotate", id(&client, &which).await?);
            shown(output, &client.send(Call::new(Method::POST, path).query("grace", &grace)).await?)
        }
        TokenCommand::Revoke(Which { which, output, connection }) => {
            let client = connection.client()?;
            let path = format!("/api/v1/tokens/{}", id(&client, &which).await?);
            let revoked: Value = client.send(Call::new(Method::DELETE, path)).await?;
            output.print(&revoked, |revoked| rows(&answer::known(std::slice::from_ref(revoked))))
        }
    }
}

/// The id of the token called `text`, of one that is not revoked before others; or `text`, if that is an id.
async fn id(client: &Client, text: &str) -> Result<String, Failure> {
    let page: Page<Value> = client.list(Call::new(Method::GET, "/api/v1/tokens")).await?;
    let known: Vec<Token> = answer::known(&page.items);
    let is = |token: &&Token| token.id == text || token.name == text && token.state != "revoked";
    let found = known.iter().find(is).map(|token| token.id.clone());
    found.ok_or_else(|| Failure::Usage(format!("there is no token {text:?}; `chancery token list` shows all")))
}

/// For people, the secret alone: it can be copied, and what is to be known of it stands beside.
fn shown(output: OutputArgs, made: &Value) -> Result<(), Failure> {
    output.print(made, |made| {
        let [token, id, until] = ["token", "id", "expiresAt"].map(|field| made[field].as_str().unwrap_or_default());
        eprintln!("token {id}, good until {}; it is not shown again:", moment(until));
        format!("{token}\n")
    })
}

fn rows(tokens: &[Token]) -> String {
    let listed = |texts: &[String], none: &str| if texts.is_empty() { none.to_owned() } else { texts.join(",") };
    output::table(
        ["ID", "NAME", "ROLE", "TEAMS", "SCOPES", "STATE", "EXPIRES", "LAST USED", "BY"],
        tokens.iter().map(|token| {
            [
                token.id.clone(),
                token.name.clone(),
                token.role.clone().unwrap_or_else(|| "?".to_owned()),
                listed(&token.teams, "-"),
                listed(&token.scopes, "all"),
                token.state.clone(),
                moment(&token.expires_at),
                token.last_used_at.as_deref().map_or_else(|| "never".to_owned(), moment),
                token.created_by.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_tokens() {
        let one = |name: &str, more: Value| -> Token {
            let mut token = json!({ "id": "07", "name": name, "role": "owner", "teams": ["payments", "checkout"],
                "scopes": ["routes:write"], "state": "active", "createdBy": "admin",
                "expiresAt": "2026-11-21T03:00:00.5Z", "lastUsedAt": "2026-11-20T03:00:00Z" });
            token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(token).unwrap()
        };
        let newer = json!({ "role": null, "teams": [], "scopes": [], "state": "revoked", "lastUsedAt": null });
        insta::assert_snapshot!(rows(&[one("ci", json!({})), one("newer", newer)]));
    }
}
