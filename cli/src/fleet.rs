//! Proxies, and what they have applied.

use std::fmt::Write as _;

use chancery_control_plane::model::Name;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{self, Proxy, ProxyList, TypeStatus, moment},
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
    let call = match &args.id {
        Some(id) => Call::new(Method::GET, format!("/api/v1/proxies/{id}")),
        None => Call::new(Method::GET, "/api/v1/proxies"),
    };
    let call = call.query_if("fleet", args.fleet.as_ref());
    if args.id.is_some() {
        let value: Value = client.send(call).await?;
        return args.output.print(&value, |value| match serde_json::from_value(value.clone()) {
            Ok(proxy) => detail(&proxy),
            Err(_) => output::yaml(value),
        });
    }
    let ProxyList { items, complete } = client.list::<ProxyList<Value>>(call).await?;
    args.output.print(&json!({ "items": items, "complete": complete }), |_| rows(&answer::known(&items)))?;
    if !complete {
        eprintln!("The database is away: proxies of other replicas are not shown.");
    }
    Ok(())
}

fn rows(proxies: &[Proxy]) -> String {
    output::table(
        ["FLEET", "ID", "CONNECTED", "STATUS", "REVISION", "LAG", "REPLICA", "ENVOY", "PROTOCOL"],
        proxies.iter().map(|proxy| {
            [
                // A limiter belongs to no fleet.
                if proxy.fleet.is_empty() { "(rate limiter)".to_owned() } else { proxy.fleet.clone() },
                if proxy.canary { format!("{} (canary)", proxy.id) } else { proxy.id.clone() },
                connected(proxy).to_owned(),
                status(proxy),
                revision(proxy),
                milliseconds(proxy.lag_ms),
                proxy.replica.clone(),
                proxy.envoy_version.clone().unwrap_or_default(),
                proxy.protocol.clone(),
            ]
        }),
    )
}

fn connected(proxy: &Proxy) -> &'static str {
    match (proxy.connected, proxy.replica_lost) {
        (true, _) => "yes",
        (false, true) => "unknown",
        (false, false) => "no",
    }
}

fn status(proxy: &Proxy) -> String {
    if proxy.synced() {
        return "synced".to_owned();
    }
    let behind = proxy.types.iter().filter(|(_, status)| !matches!(status.status.as_str(), "synced" | "notSent"));
    behind.map(|(name, status)| format!("{name} {}", status.status)).collect::<Vec<_>>().join(", ")
}

fn revision(proxy: &Proxy) -> String {
    let Proxy { settled_revision, wanted_revision, .. } = proxy;
    if settled_revision >= wanted_revision {
        return settled_revision.to_string();
    }
    format!("{settled_revision} of {wanted_revision}")
}

fn milliseconds(ms: Option<f64>) -> String {
    ms.map(|ms| if ms < 10_000.0 { format!("{ms:.0} ms") } else { format!("{:.0} s", ms / 1000.0) }).unwrap_or_default()
}

fn detail(proxy: &Proxy) -> String {
    let mut facts = vec![
        ("Fleet", if proxy.fleet.is_empty() { "(rate limiter)".to_owned() } else { proxy.fleet.clone() }),
        ("Connected", format!("{}, since {}", connected(proxy), moment(&proxy.connected_since))),
        ("Replica", proxy.replica.clone()),
        ("Address", proxy.address.clone().unwrap_or_default()),
        ("Envoy", proxy.envoy_version.clone().unwrap_or_default()),
        ("Protocol", proxy.protocol.clone()),
        ("Revision", revision(proxy)),
    ];
    match (proxy.connected, proxy.replica_lost, &proxy.disconnected_at) {
        (true, ..) => {}
        (false, true, _) => facts[1].1 = "unknown: its replica has fallen silent".to_owned(),
        (false, false, Some(at)) => facts[1].1 = format!("no, since {}", moment(at)),
        (false, false, None) => facts[1].1 = "no".to_owned(),
    }
    let facts = facts.into_iter().filter(|(_, value)| !value.is_empty());
    let mut text = output::table(["ID", &proxy.id], facts.map(|(name, value)| [name.to_owned(), value])) + "\n";
    text += &output::table(
        ["TYPE", "STATUS", "SENT", "ACKNOWLEDGED", "LAG", "WARMING"],
        proxy.types.iter().map(|(name, status)| {
            let version = |version: &Option<String>| version.clone().unwrap_or_default();
            [
                name.clone(),
                standing(status).to_owned(),
                version(&status.sent_version),
                version(&status.acked_version),
                milliseconds(status.lag_ms),
                milliseconds(status.warming_ms),
            ]
        }),
    );
    for (name, status) in &proxy.types {
        let Some(rejection) = &status.last_rejection else { continue };
        let past = if status.status == "error" { "refuses" } else { "has refused" };
        let resources = rejection.resources.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "\nIt {past} {name} {}, {}: {resources}\n  {}",
            rejection.version,
            moment(&rejection.at),
            output::printable(rejection.message.clone())
        );
    }
    text
}

/// The words that others use for it as well.
fn standing(status: &TypeStatus) -> &str {
    match status.status.as_str() {
        "synced" => "SYNCED",
        "notSent" => "NOT SENT",
        "stale" => "STALE",
        "error" => "ERROR",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(id: &str, route: &str) -> Proxy {
        let rejection =
            json!({ "at": "2026-11-21T03:00:00.5Z", "version": "9", "message": "bad regex", "resources": ["web"] });
        let (acked, warming) = if route == "synced" { (12, None) } else { (8, Some(61_234.5)) };
        serde_json::from_value(json!({
            "id": id, "fleet": "edge", "connected": id.starts_with("edge"), "connectedSince": "2026-11-21T03:00:00.25Z",
            "replica": "cp-1-abcd", "replicaLost": id == "lost", "address": "10.0.0.7:41234",
            "envoyVersion": "1.40.0", "protocol": "delta", "lagMs": 3.7, "settledRevision": acked, "wantedRevision": 12,
            "types": {
                "cluster": { "status": "synced", "sentVersion": "12", "ackedVersion": "12", "lagMs": 3.7 },
                "endpoint": { "status": "notSent" },
                "route": {
                    "status": route, "sentVersion": "12", "ackedVersion": acked.to_string(), "lagMs": 1.2,
                    "warmingMs": warming.filter(|_| route == "stale"),
                    "lastRejection": (route != "synced").then_some(rejection),
                },
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_table_of_proxies() {
        let all =
            [proxy("edge-1", "synced"), proxy("edge-2", "stale"), proxy("gone", "synced"), proxy("lost", "error")];
        insta::assert_snapshot!(rows(&all));
        let limiter = Proxy { fleet: String::new(), ..proxy("limiter-1", "synced") };
        assert!(rows(&[limiter]).contains("(rate limiter)"));
    }

    #[test]
    fn one_proxy_in_detail() {
        insta::assert_snapshot!("refusing", detail(&proxy("edge-1", "error")));
        insta::assert_snapshot!("warming", detail(&proxy("edge-2", "stale")));
        let gone = Proxy { disconnected_at: Some("2026-11-21T04:00:00Z".to_owned()), ..proxy("gone", "synced") };
        assert!(detail(&gone).contains("no, since 2026-11-21T04:00:00Z"));
        assert!(detail(&proxy("lost", "synced")).contains("fallen silent"));
    }
}
