//! Endpoints that register themselves with a service: who is there, and to be there oneself.

use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use chancery_control_plane::model::{Name, endpoint::EndpointId};
use chancery_runtime::drain::Signals;
use clap::{Args, Subcommand, ValueEnum};
use http::Method;
use serde_json::{Value, json};

use crate::{
    client::{Call, Client, encoded},
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// How many times in the length of a lease `--keep` renews it: two may fail in a row.
const RENEWALS_PER_LEASE: u32 = 3;

/// `chancery endpoints`
#[derive(Debug, Args)]
pub(crate) struct EndpointsArgs {
    #[command(subcommand)]
    command: EndpointsCommand,
}

#[derive(Debug, Subcommand)]
enum EndpointsCommand {
    /// Show the endpoints that are registered with a service, and what is left of their leases
    List(ListArgs),
    /// Register an endpoint with a service, or renew its lease
    Register(RegisterArgs),
    /// Deregister an endpoint
    Deregister(DeregisterArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The service
    service: Name,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
struct RegisterArgs {
    /// The service
    service: Name,
    /// What the endpoint calls itself, unique within the service [default: ADDRESS:PORT]
    #[arg(long)]
    id: Option<EndpointId>,
    /// Its IP address
    #[arg(long)]
    address: IpAddr,
    /// Its port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// When it is used: 0 always, 1 while too few of those with 0 are healthy, and so on
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=15))]
    priority: u32,
    /// Its share of the load relative to the other endpoints
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=128))]
    weight: u32,
    /// What tells it apart from others, for the subsets of the service; may be given more than once
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = crate::bootstrap::label)]
    labels: Vec<(String, String)>,
    /// Zone that it is in
    #[arg(long)]
    zone: Option<String>,
    /// Region of the zone
    #[arg(long, requires = "zone")]
    region: Option<String>,
    /// What it says of itself
    #[arg(long, value_enum, default_value = "healthy")]
    health: HealthArg,
    /// How long it stays without being renewed, 1s to 10m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = lease)]
    ttl: Duration,
    /// Renew the lease until SIGINT or SIGTERM, then deregister
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
struct DeregisterArgs {
    /// The service
    service: Name,
    /// What the endpoint calls itself
    id: EndpointId,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HealthArg {
    Healthy,
    Degraded,
    Draining,
    Unhealthy,
}

/// Runs `chancery endpoints …`.
pub(crate) async fn run(args: EndpointsArgs) -> Result<(), Failure> {
    match args.command {
        EndpointsCommand::List(args) => list(args).await,
        EndpointsCommand::Register(args) => register(args).await,
        EndpointsCommand::Deregister(args) => {
            let client = args.connection.client()?;
            deregister(&client, &path(&args.service, &args.id)).await
        }
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let listed: Value =
        client.list(Call::new(Method::GET, format!("/api/v1/services/{}/endpoints", args.service))).await?;
    args.output.print(&listed, |listed| rows(listed["items"].as_array().map_or(&[], Vec::as_slice)))
}

fn rows(endpoints: &[Value]) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let seconds = |value: &Value| format!("{:.1}s", value.as_f64().unwrap_or_default() / 1000.0);
    output::table(
        ["ID", "ADDRESS", "PORT", "WEIGHT", "HEALTH", "LEASE", "LEFT"],
        endpoints.iter().map(|endpoint| {
            let [id, address, port, weight, health] =
                ["id", "address", "port", "weight", "health"].map(|field| text(&endpoint[field]));
            [id, address, port, weight, health, seconds(&endpoint["ttlMs"]), seconds(&endpoint["remainingMs"])]
        }),
    )
}

async fn register(args: RegisterArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let RegisterArgs {
        service,
        id,
        address,
        port,
        priority,
        weight,
        labels,
        zone,
        region,
        health,
        ttl,
        keep,
        connection: _,
    } = args;
    let id = match id {
        Some(id) => id,
        None => format!("{address}:{port}").parse().context("the address makes no id")?,
    };
    let path = path(&service, &id);
    let health = match health {
        HealthArg::Healthy => "healthy",
        HealthArg::Degraded => "degraded",
        HealthArg::Draining => "draining",
        HealthArg::Unhealthy => "unhealthy",
    };
    let ttl_text = format!("{}ms", ttl.as_millis());
    let mut body = json!({ "address": address, "port": port, "weight": weight, "health": health, "ttl": ttl_text });
    // An older control plane does not know these fields.
    if priority > 0 {
        body["priority"] = priority.into();
    }
    if !labels.is_empty() {
        body["labels"] = labels.into_iter().map(|(name, value)| (name, Value::from(value))).collect();
    }
    for (field, value) in [("zone", zone), ("region", region)] {
        if let Some(value) = value {
            body[field] = value.into();
        }
    }
    // Before the first registration: a signal that comes with it must not leave it behind.
    let signals = if keep { Some(Signals::listen().context("cannot listen to signals")?) } else { None };
    put(&client, &path, &body).await?;
    eprintln!("{id} is registered with {service} for {}", humantime::format_duration(ttl));
    let Some(mut signals) = signals else { return Ok(()) };
    let mut due = tokio::time::interval(ttl / RENEWALS_PER_LEASE);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    due.tick().await; // at once: that was the registration
    loop {
        tokio::select! {
            _ = signals.received() => break,
            _ = due.tick() => {}
        }
        tokio::select! {
            _ = signals.received() => break,
            renewed = put(&client, &path, &body) => match renewed {
                Ok(()) => {}
                // It may be back before the lease is over.
                Err(failure @ (Failure::Unreachable { .. } | Failure::Server { .. })) => eprintln!("chancery: {failure}"),
                Err(failure) => return Err(failure),
            },
        }
    }
    deregister(&client, &path).await?;
    eprintln!("{id} is deregistered");
    Ok(())
}

async fn put(client: &Client, path: &str, body: &Value) -> Result<(), Failure> {
    client.send::<Value>(Call::new(Method::PUT, path).body(body.clone())).await.map(drop)
}

async fn deregister(client: &Client, path: &str) -> Result<(), Failure> {
    client.send::<Value>(Call::new(Method::DELETE, path)).await.map(drop)
}

fn path(service: &Name, id: &EndpointId) -> String {
    format!("/api/v1/services/{service}/endpoints/{}", encoded(id.as_str()))
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let leases = chancery_control_plane::model::endpoint::LEASES;
    if leases.contains(&lease) { Ok(lease) } else { Err("must be between 1s and 10m".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_endpoints() {
        let endpoint = json!({
            "id": "checkout-1", "address": "10.0.0.7", "port": 8080, "weight": 1, "health": "draining",
            "ttlMs": 30000, "remainingMs": 12345,
        });
        insta::assert_snapshot!(rows(&[endpoint]), @r"
        ID          ADDRESS   PORT  WEIGHT  HEALTH    LEASE  LEFT
        checkout-1  10.0.0.7  8080  1       draining  30.0s  12.3s
        ");
    }
}
