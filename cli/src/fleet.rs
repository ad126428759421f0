//! Proxies, and what they have applied.

use std::fmt::Write as _;

use chancery_control_plane::model::Name;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{Page, Proxy, moment},
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// `chancery proxies`
#[derive(Debug, Args)]
pub(crate) struct ProxiesArgs {
    /// Only this one, in detail
    id: Option<Name>,
    /// Only those of this fleet
    #[arg(long)]
    fleet: Option<Name>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Shows proxies.
pub(crate) async fn proxies(args: ProxiesArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut call = match &args.id {
        Some(id) => Call::new(Method::GET, format!("/api/v1/proxies/{id}")),
        None => Call::new(Method::GET, "/api/v1/proxies"),
    };
    if let Some(fleet) = args.fleet {
        call = call.query("fleet", &fleet);
    }
    if args.id.is_some() {
        let value: Value = client.send(call).await?;
        return args.output.print(&value, |value| match serde_json::from_value(value.clone()) {
            Ok(proxy) => detail(&proxy),
            Err(_) => output::yaml(value),
        });
    }
    let page: Page<Value> = client.send(call).await?;
    args.output.print(&json!({ "items": page.items }), |_| {
        let proxies: Vec<Proxy> =
            page.items.iter().filter_map(|item| serde_json::from_value(item.clone()).ok()).collect();
        rows(&proxies)
    })
}

fn rows(proxies: &[Proxy]) -> String {
    output::table(
        ["FLEET", "ID", "CONNECTED", "STATUS", "LAG", "ENVOY", "PROTOCOL"],
        proxies.iter().map(|proxy| {
            [
                // A limiter belongs to no fleet.
                if proxy.fleet.is_empty() { "(rate limiter)".to_owned() } else { proxy.fleet.clone() },
                proxy.id.clone(),
                if proxy.connected { "yes" } else { "no" }.to_owned(),
                status(proxy),
                lag(proxy),
                proxy.envoy_version.clone().unwrap_or_default(),
                proxy.protocol.clone(),
            ]
        }),
    )
}

fn status(proxy: &Proxy) -> String {
    if proxy.synced() {
        return "synced".to_owned();
    }
    let behind = proxy.types.iter().filter(|(_, status)| !matches!(status.status.as_str(), "synced" | "notSent"));
    behind.map(|(name, status)| format!("{name} {}", status.status)).collect::<Vec<_>>().join(", ")
}

fn lag(proxy: &Proxy) -> String {
    proxy.lag_ms.map(|ms| format!("{ms:.0} ms")).unwrap_or_default()
}

fn detail(proxy: &Proxy) -> String {
    let mut text = rows(std::slice::from_ref(proxy)) + "\n";
    text += &output::table(
        ["TYPE", "STATUS", "SENT", "ACKNOWLEDGED"],
        proxy.types.iter().map(|(name, status)| {
            let version = |version: &Option<String>| version.clone().unwrap_or_default();
            [name.clone(), status.status.clone(), version(&status.sent_version), version(&status.acked_version)]
        }),
    );
    if let Some(rejection) = &proxy.last_rejection {
        let resources = rejection.resources.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\nLast refusal, {}: {resources}\n  {}", moment(&rejection.at), rejection.message);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(id: &str, route: &str) -> Proxy {
        let rejection =
            json!({ "at": "2026-11-21T03:00:00.5Z", "version": "ab", "message": "bad regex", "resources": ["web"] });
        serde_json::from_value(json!({
            "id": id, "fleet": "edge", "connected": id != "gone", "connectedSince": "2026-11-21T03:00:00Z",
            "envoyVersion": "1.40.0", "protocol": "delta", "lagMs": 3.7,
            "types": {
                "cluster": { "status": "synced", "sentVersion": "a1", "ackedVersion": "a1" },
                "route": { "status": route, "sentVersion": "b2", "ackedVersion": null },
            },
            "lastRejection": (route == "error").then_some(rejection),
        }))
        .unwrap()
    }

    #[test]
    fn a_table_of_proxies() {
        insta::assert_snapshot!(rows(&[proxy("edge-1", "synced"), proxy("edge-2", "stale"), proxy("gone", "notSent")]));
        let limiter = Proxy { fleet: String::new(), ..proxy("limiter-1", "synced") };
        assert!(rows(&[limiter]).contains("(rate limiter)"));
    }

    #[test]
    fn one_proxy_in_detail() {
        insta::assert_snapshot!(detail(&proxy("edge-1", "error")));
    }
}
