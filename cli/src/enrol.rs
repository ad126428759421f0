//! Enrolments, by which machines become proxies: made and shown once, listed, revoked. The machine's side is `agent`.

use chancery_control_plane::model::Name;
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    answer::{self, Page, moment},
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// `chancery enrol`
#[derive(Debug, Args)]
pub(crate) struct EnrolArgs {
    #[command(subcommand)]
    command: EnrolCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum EnrolCommand {
    /// Make an enrolment and print its token, with which one machine becomes a proxy; it is not shown again
    Create(CreateArgs),
    /// Show enrolments, who made them and who has used them
    List {
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// End an enrolment: its token is worth nothing, and certificates of its proxy are not renewed
    Revoke {
        /// Its id
        id: String,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Fleet that the proxy will be of
    #[arg(long)]
    fleet: Name,
    /// Id of the proxy, in place of any that has it [default: the machine chooses one that is free]
    #[arg(long)]
    id: Option<Name>,
    /// How long the token is good, at most 7d
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    expires_in: String,
    /// How long each certificate is good, at most 90d; it is renewed when two thirds of that are over
    #[arg(long, value_name = "DURATION", default_value = "24h")]
    certificate_life: String,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// An enrolment, without its token.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Enrolment {
    id: String,
    fleet: String,
    proxy: Option<String>,
    state: String,
    created_by: String,
    expires_at: String,
    used_by: Option<String>,
    used_from: Option<String>,
    certificate_until: Option<String>,
}

/// Makes, shows or ends enrolments.
pub(crate) async fn enrol(args: EnrolArgs) -> Result<(), Failure> {
    match args.command {
        EnrolCommand::Create(args) => {
            let CreateArgs { fleet, id, expires_in, certificate_life, output, connection } = args;
            let body =
                json!({ "fleet": fleet, "proxy": id, "expiresIn": expires_in, "certificateLife": certificate_life });
            let made = connection.client()?.send(Call::new(Method::POST, "/api/v1/enrolments").body(body)).await?;
            shown(output, &made)
        }
        EnrolCommand::List { output, connection } => {
            let page: Page<Value> = connection.client()?.list(Call::new(Method::GET, "/api/v1/enrolments")).await?;
            output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)))
        }
        EnrolCommand::Revoke { id, output, connection } => {
            let path = format!("/api/v1/enrolments/{}", crate::client::encoded(&id));
            let revoked: Value = connection.client()?.send(Call::new(Method::DELETE, path)).await?;
            output.print(&revoked, |revoked| rows(&answer::known(std::slice::from_ref(revoked))))
        }
    }
}

/// For people, the token alone: it can be copied, and what is to be known of it stands beside.
fn shown(output: OutputArgs, made: &Value) -> Result<(), Failure> {
    output.print(made, |made| {
        let [token, id, until] = ["token", "id", "expiresAt"].map(|field| made[field].as_str().unwrap_or_default());
        eprintln!(
            "enrolment {id}; its token is for `chancery agent` on one machine, good until {}, and not shown again:",
            moment(until)
        );
        format!("{token}\n")
    })
}

fn rows(enrolments: &[Enrolment]) -> String {
    let or = |text: Option<&String>, none: &str| text.map_or_else(|| none.to_owned(), String::clone);
    output::table(
        ["ID", "FLEET", "PROXY", "STATE", "EXPIRES", "FROM", "CERTIFICATE UNTIL", "BY"],
        enrolments.iter().map(|enrolment| {
            [
                enrolment.id.clone(),
                enrolment.fleet.clone(),
                or(enrolment.used_by.as_ref().or(enrolment.proxy.as_ref()), "any"),
                enrolment.state.clone(),
                moment(&enrolment.expires_at),
                or(enrolment.used_from.as_ref(), "-"),
                enrolment.certificate_until.as_deref().map_or_else(|| "-".to_owned(), moment),
                enrolment.created_by.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_enrolments() {
        let one = |id: &str, more: Value| -> Enrolment {
            let mut enrolment = json!({ "id": id, "fleet": "edge", "proxy": null, "state": "pending", "createdBy": "admin",
                "expiresAt": "2026-11-21T03:00:00.5Z" });
            enrolment.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(enrolment).unwrap()
        };
        let used = json!({ "proxy": "edge-1", "state": "used", "usedBy": "edge-1", "usedFrom": "10.0.0.2",
            "certificateUntil": "2026-11-22T03:00:00Z" });
        insta::assert_snapshot!(rows(&[
            one("07", json!({})),
            one("08", json!({ "proxy": "edge-2" })),
            one("09", used)
        ]));
    }
}
