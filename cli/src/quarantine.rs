//! What fleets are not served because a proxy has rejected it.

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

/// `chancery quarantine`
#[derive(Debug, Args)]
pub(crate) struct QuarantineArgs {
    #[command(subcommand)]
    command: QuarantineCommand,
}

/// What to do with it.
#[derive(Debug, Subcommand)]
enum QuarantineCommand {
    /// Show what is quarantined, and why
    List(OfFleet),
    /// Serve it once more; what proxies reject again is taken back again
    Release(OfFleet),
}

#[derive(Debug, Args)]
struct OfFleet {
    /// Only of this fleet
    #[arg(long)]
    fleet: Option<Name>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// A resource that is quarantined.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Quarantined {
    fleet: String,
    #[serde(rename = "type")]
    resource_type: String,
    name: String,
    served_version: Option<String>,
    revision: u64,
    proxy: String,
    reason: String,
    since: String,
}

/// Shows or releases it.
pub(crate) async fn quarantine(args: QuarantineArgs) -> Result<(), Failure> {
    let (of, call) = match args.command {
        QuarantineCommand::List(of) => (of, Call::new(Method::GET, "/api/v1/quarantine")),
        QuarantineCommand::Release(of) => (of, Call::new(Method::POST, "/api/v1/quarantine/release")),
    };
    let call = call.query_if("fleet", of.fleet.as_ref());
    let page: Page<Value> = of.connection.client()?.list(call).await?;
    of.output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)))
}

fn rows(quarantined: &[Quarantined]) -> String {
    output::table(
        ["FLEET", "TYPE", "NAME", "REVISION", "SERVED", "REJECTED BY", "SINCE", "REASON"],
        quarantined.iter().map(|one| {
            [
                one.fleet.clone(),
                one.resource_type.clone(),
                one.name.clone(),
                one.revision.to_string(),
                if one.served_version.is_some() { "last good" } else { "nothing" }.to_owned(),
                one.proxy.clone(),
                moment(&one.since),
                one.reason.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_what_is_quarantined() {
        let one = |name: &str, served: Value| -> Quarantined {
            serde_json::from_value(json!({ "fleet": "edge", "type": "Cluster", "name": name, "version": "1",
                "servedVersion": served, "revision": 7, "proxy": "proxy-1",
                "reason": "Error adding/updating cluster(s) shop:\nno such thing", "since": "2026-11-21T03:00:00.5Z" }))
            .unwrap()
        };
        insta::assert_snapshot!(rows(&[one("shop", json!("2")), one("new", json!(null))]));
    }
}
