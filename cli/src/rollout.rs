//! How far revisions have come to fleets that get them in stages, and what people decide about that.

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

/// `chancery rollout`
#[derive(Debug, Args)]
pub(crate) struct RolloutArgs {
    #[command(subcommand)]
    command: RolloutCommand,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum RolloutCommand {
    /// Show how far revisions have come, of one fleet or all that get them in stages
    Status {
        /// Only of this fleet
        fleet: Option<Name>,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Give what the canaries were given last to all proxies of the fleet, whatever speaks against it
    Promote(OfFleet),
    /// Give the canaries of the fleet back what the others have
    Return(OfFleet),
}

#[derive(Debug, Args)]
struct OfFleet {
    /// The fleet
    fleet: Name,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How far revisions have come to a fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rollout {
    fleet: String,
    phase: String,
    stable_revision: u64,
    revision: Option<u64>,
    waiting_revision: Option<u64>,
    since: Option<String>,
    #[serde(default)]
    canaries: Vec<Canary>,
    failure: Option<RolloutFailure>,
    promoted_by: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Canary {
    acknowledged: bool,
}

#[derive(Clone, Debug, Deserialize)]
struct RolloutFailure {
    reason: String,
    proxy: Option<String>,
    #[serde(rename = "type")]
    resource_type: Option<String>,
    #[serde(default)]
    resources: Vec<String>,
    by: Option<String>,
}

/// Shows rollouts, or decides about one.
pub(crate) async fn rollout(args: RolloutArgs) -> Result<(), Failure> {
    let (decision, OfFleet { fleet, output, connection }) = match args.command {
        RolloutCommand::Status { fleet: None, output, connection } => {
            let page: Page<Value> = connection.client()?.list(Call::new(Method::GET, "/api/v1/rollouts")).await?;
            return output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)));
        }
        RolloutCommand::Status { fleet: Some(fleet), output, connection } => {
            (None, OfFleet { fleet, output, connection })
        }
        RolloutCommand::Promote(of) => (Some("promote"), of),
        RolloutCommand::Return(of) => (Some("return"), of),
    };
    let call = match decision {
        None => Call::new(Method::GET, format!("/api/v1/rollouts/{fleet}")),
        Some(decision) => Call::new(Method::POST, format!("/api/v1/rollouts/{fleet}/{decision}")),
    };
    let rollout: Value = connection.client()?.send(call).await?;
    output.print(&rollout, |rollout| rows(&answer::known(std::slice::from_ref(rollout))))
}

fn rows(rollouts: &[Rollout]) -> String {
    let number = |revision: Option<u64>| revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string());
    output::table(
        ["FLEET", "STABLE", "TRIED", "PHASE", "SINCE", "CANARIES", "WAITING", "WHY"],
        rollouts.iter().map(|rollout| {
            let acknowledged = rollout.canaries.iter().filter(|canary| canary.acknowledged).count();
            [
                rollout.fleet.clone(),
                rollout.stable_revision.to_string(),
                number(rollout.revision),
                rollout.phase.clone(),
                rollout.since.as_deref().map_or_else(|| "-".to_owned(), moment),
                format!("{acknowledged} of {}", rollout.canaries.len()),
                number(rollout.waiting_revision),
                why(rollout),
            ]
        }),
    )
}

/// What has ended it, with the proxy and the resources that it is about.
fn why(rollout: &Rollout) -> String {
    let Some(RolloutFailure { reason, proxy, resource_type, resources, by }) = &rollout.failure else {
        return rollout.promoted_by.as_ref().map_or_else(String::new, |by| format!("promoted by {by}"));
    };
    let mut text = String::new();
    if let Some(proxy) = proxy {
        text =
            format!("{proxy} rejected {} {}: ", resource_type.as_deref().unwrap_or("resource"), resources.join(", "));
    }
    text += reason;
    if let Some(by) = by {
        text += &format!(" (returned by {by})");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_rollouts() {
        let canaries = json!([{ "id": "a", "acknowledged": true }, { "id": "b", "acknowledged": false }]);
        let rejected =
            json!({ "reason": "no such filter", "proxy": "edge-3", "type": "Listener", "resources": ["web"] });
        let known: Vec<Rollout> = serde_json::from_value(json!([
            { "fleet": "calm", "phase": "idle", "stableRevision": 7, "canaries": [] },
            { "fleet": "edge", "phase": "applying", "stableRevision": 7, "revision": 9, "waitingRevision": 11,
              "since": "2026-11-21T03:00:00.5Z", "canaries": canaries },
            { "fleet": "far", "phase": "returned", "stableRevision": 7, "revision": 9,
              "since": "2026-11-21T03:00:00.5Z", "canaries": canaries, "failure": rejected },
            { "fleet": "held", "phase": "returned", "stableRevision": 7, "revision": 9,
              "since": "2026-11-21T03:00:00.5Z", "canaries": [], "failure": { "reason": "too slow", "by": "ada" } },
            { "fleet": "zoo", "phase": "promoted", "stableRevision": 9, "revision": 9,
              "since": "2026-11-21T03:00:00.5Z", "canaries": canaries, "promotedBy": "ada" },
        ]))
        .unwrap();
        insta::assert_snapshot!(rows(&known));
    }
}
