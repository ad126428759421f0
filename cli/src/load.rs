//! How much traffic services have, and how much of it fails.

use chancery_control_plane::model::{Kind, Name};
use clap::Args;
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

/// `chancery load`
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// Only this service
    service: Option<Name>,
    /// Only on this fleet
    #[arg(long)]
    fleet: Option<Name>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// The load of a service on a fleet.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    service: String,
    fleet: String,
    requests_per_second: f64,
    error_rate: Option<f64>,
    in_progress: u64,
    requests: u64,
    errors: u64,
    dropped: u64,
    proxies: usize,
    since: Option<String>,
}

/// Shows the load of services.
pub(crate) async fn load(args: LoadArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let path = match &args.service {
        Some(service) => format!("/api/v1/{}/{service}/load", Kind::Service.collection()),
        None => "/api/v1/load".to_owned(),
    };
    let call = Call::new(Method::GET, path).query_if("fleet", args.fleet.as_ref());
    let page: Page<Value> = client.list(call).await?;
    args.output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)))
}

fn rows(loads: &[Load]) -> String {
    output::table(
        ["SERVICE", "FLEET", "REQUESTS/S", "ERRORS", "IN PROGRESS", "DROPPED", "PROXIES", "COUNTED", "SINCE"],
        loads.iter().map(|load| {
            let errors = load.error_rate.map(|rate| format!("{:.2} % ({})", rate * 100.0, load.errors));
            [
                load.service.clone(),
                load.fleet.clone(),
                format!("{:.1}", load.requests_per_second),
                errors.unwrap_or_default(),
                load.in_progress.to_string(),
                load.dropped.to_string(),
                load.proxies.to_string(),
                load.requests.to_string(),
                load.since.as_deref().map(moment).unwrap_or_default(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_loads() {
        let load = |service: &str, more: Value| -> Load {
            let mut load = json!({ "service": service, "fleet": "edge", "requestsPerSecond": 0.0, "errorRate": null,
                "inProgress": 0, "requests": 0, "errors": 0, "dropped": 0, "proxies": 2, "since": null });
            for (field, value) in more.as_object().unwrap() {
                load[field] = value.clone();
            }
            serde_json::from_value(load).unwrap()
        };
        let busy = json!({ "requestsPerSecond": 41.52, "errorRate": 0.01234, "inProgress": 3, "requests": 2490,
            "errors": 30, "dropped": 7, "since": "2026-11-21T03:00:00.5Z" });
        insta::assert_snapshot!(rows(&[load("checkout", busy), load("idle", json!({}))]));
    }
}
