//! Which requests a fleet has seen lately.

use chancery_control_plane::model::Name;
use clap::Args;
use http::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    answer::moment,
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// `chancery traffic`
#[derive(Debug, Args)]
pub(crate) struct TrafficSeenArgs {
    /// The fleet
    fleet: Name,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What a fleet has seen, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    requests: u64,
    left_out: u64,
    since: Option<String>,
    items: Vec<Kept>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    method: String,
    authority: String,
    path: String,
    count: u64,
    last_seen: String,
}

/// Shows the last requests of a fleet.
pub(crate) async fn traffic(args: TrafficSeenArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let call = Call::new(Method::GET, "/api/v1/traffic").query_if("fleet", Some(&args.fleet));
    let value: Value = client.send(call).await?;
    args.output.print(&value, |value| Seen::deserialize(value).map_or_else(|_| output::json(value), |seen| told(&seen)))
}

fn told(seen: &Seen) -> String {
    let Seen { requests, left_out, since, items } = seen;
    let Some(since) = since else {
        return "Its proxies have told this replica of no requests; listeners do with accessLogs to controlPlane.\n"
            .to_owned();
    };
    let table = output::table(
        ["COUNT", "REQUEST", "LAST SEEN"],
        items.iter().map(|Kept { method, authority, path, count, last_seen }| {
            [count.to_string(), format!("{method} {authority}{path}"), moment(last_seen)]
        }),
    );
    format!("{table}{requests} requests since {}, {left_out} of them not kept.\n", moment(since))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_of_requests() {
        let item = json!({ "method": "GET", "authority": "a.example.com", "path": "/cart", "count": 7,
            "lastSeen": "2026-11-28T17:00:00.5Z" });
        let seen = json!({ "requests": 9, "leftOut": 2, "since": "2026-11-28T16:00:00Z", "items": [item] });
        let nothing = json!({ "requests": 0, "leftOut": 0, "since": null, "items": [] });
        insta::assert_snapshot!([seen, nothing].map(|seen| told(&Seen::deserialize(seen).unwrap())).join("\n"));
    }
}
