//! `GET /clusters`: endpoints, who of them is out and for how long, and what is under way; as JSON, or with `?format=text` as a table to
//! look at.

use std::{fmt::Write as _, time::Duration};

use axum::{
    Json,
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::Pages;
use crate::{
    policy::{breaker::Phase, endpoints::Condition, p2c::Standing},
    proxy::world::{Upstream, World},
};

/// Shows every cluster.
pub(super) async fn clusters(State(pages): State<Pages>, Query(query): Query<ClustersQuery>) -> Response {
    let all = Clusters::of(&pages.world.load());
    match query.format {
        Format::Json => Json(all).into_response(),
        Format::Text => all.table().into_response(),
    }
}

/// How it is to be shown.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ClustersQuery {
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Json,
    Text,
}

/// All clusters, by name.
#[derive(Debug, Serialize)]
struct Clusters {
    clusters: Vec<ClusterDto>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterDto {
    name: String,
    waits_for_secret: Option<String>,
    endpoints: Vec<EndpointDto>,
    under_way: usize,
    waiting: usize,
    tcp_connections: u32,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndpointDto {
    address: String,
    weight: u32,
    healthy: bool,
    standing: &'static str,
    /// The state of its breaker, if it has one.
    breaker: Option<&'static str>,
    /// Whether outlier detection has put it out.
    ejected: bool,
    /// Until it is probed, or is back.
    out_for_ms: Option<u64>,
    /// How long it takes on average. A failure counts as five seconds.
    ewma_ms: f64,
    pending: u32,
    idle_connections: usize,
}

impl Clusters {
    fn of(world: &World) -> Self {
        let mut clusters: Vec<_> = world.upstreams.values().map(|upstream| ClusterDto::of(upstream)).collect();
        clusters.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Self { clusters }
    }

    /// One line for each endpoint.
    fn table(&self) -> String {
        let header = ["CLUSTER", "ENDPOINT", "STATE", "OUT FOR", "EWMA", "PENDING", "IDLE"].map(str::to_owned);
        let lines =
            self.clusters.iter().flat_map(|cluster| cluster.endpoints.iter().map(|one| one.line(&cluster.name)));
        columns(&std::iter::once(header).chain(lines).collect::<Vec<_>>())
    }
}

impl ClusterDto {
    fn of(upstream: &Upstream) -> Self {
        let members = upstream.members.iter().zip(&upstream.hosts);
        let endpoints = members.map(|(member, host)| {
            let condition = upstream.endpoints.condition(member.id);
            EndpointDto {
                address: member.at.to_string(),
                weight: host.weight,
                healthy: host.healthy,
                standing: standing(condition.map_or(Standing::Out, |condition| condition.standing)),
                breaker: condition.and_then(|condition| condition.breaker).map(breaker),
                ejected: condition.is_some_and(|condition| condition.ejected.is_some()),
                out_for_ms: condition.and_then(out_for).map(milliseconds),
                ewma_ms: rounded(upstream.endpoints.average(member.id).unwrap_or_default() * 1_000.0),
                pending: upstream.endpoints.pending(member.id),
                idle_connections: member.pool.idle(),
            }
        });
        Self {
            name: upstream.cluster.name.to_string(),
            waits_for_secret: upstream
                .cluster
                .settings
                .tls
                .as_ref()
                .and_then(|tls| tls.waits_for.as_deref())
                .map(str::to_owned),
            endpoints: endpoints.collect(),
            under_way: upstream.queue.under_way(),
            waiting: upstream.queue.pending(),
            tcp_connections: upstream.tcp.open(),
        }
    }
}

impl EndpointDto {
    fn line(&self, cluster: &str) -> [String; 7] {
        let state = match (self.healthy, self.ejected, self.breaker) {
            (false, _, _) => "unhealthy",
            (true, true, _) => "ejected",
            (true, false, Some(breaker)) => breaker,
            (true, false, None) => self.standing,
        };
        let out_for = self.out_for_ms.map(|ms| format!("{:.1} s", ms as f64 / 1_000.0));
        [
            cluster.to_owned(),
            self.address.clone(),
            state.to_owned(),
            out_for.unwrap_or_default(),
            format!("{:.1} ms", self.ewma_ms),
            self.pending.to_string(),
            self.idle_connections.to_string(),
        ]
    }
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::In => "in",
        Standing::Probe => "probe",
        Standing::Out => "out",
    }
}

fn breaker(phase: Phase) -> &'static str {
    match phase {
        Phase::Closed => "closed",
        Phase::Open(_) => "open",
        Phase::HalfOpen => "half-open",
    }
}

fn out_for(condition: Condition) -> Option<Duration> {
    condition.ejected.or(match condition.breaker {
        Some(Phase::Open(wait)) => Some(wait),
        _ => None,
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// To three decimals.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

/// Each column as wide as its widest text, and two spaces between them.
fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let start = text.len();
        for (cell, width) in line.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glance_tells_who_is_out_why_and_for_how_long() {
        let well = EndpointDto {
            address: "127.0.0.1:10083".to_owned(),
            weight: 1,
            healthy: true,
            standing: "in",
            breaker: Some("closed"),
            ejected: false,
            out_for_ms: None,
            ewma_ms: 1.25,
            pending: 2,
            idle_connections: 1,
        };
        let at = |port: u16| EndpointDto { address: format!("127.0.0.1:{port}"), ..well.clone() };
        let open = EndpointDto {
            breaker: Some("open"),
            standing: "out",
            out_for_ms: Some(4_260),
            ewma_ms: 5_000.0,
            pending: 0,
            ..at(10084)
        };
        let ejected = EndpointDto { ejected: true, out_for_ms: Some(30_000), ..at(10085) };
        let endpoints = vec![
            well.clone(),
            open,
            ejected,
            EndpointDto { breaker: Some("half-open"), standing: "probe", ..at(10086) },
            EndpointDto { healthy: false, ..at(10087) },
            EndpointDto { breaker: None, ..at(10088) },
        ];
        let cluster = ClusterDto {
            name: "demo-chaos".to_owned(),
            waits_for_secret: None,
            endpoints,
            under_way: 2,
            waiting: 0,
            tcp_connections: 0,
        };
        assert_eq!(
            Clusters { clusters: vec![cluster] }.table(),
            "\
CLUSTER     ENDPOINT         STATE      OUT FOR  EWMA       PENDING  IDLE
demo-chaos  127.0.0.1:10083  closed              1.2 ms     2        1
demo-chaos  127.0.0.1:10084  open       4.3 s    5000.0 ms  0        1
demo-chaos  127.0.0.1:10085  ejected    30.0 s   1.2 ms     2        1
demo-chaos  127.0.0.1:10086  half-open           1.2 ms     2        1
demo-chaos  127.0.0.1:10087  unhealthy           1.2 ms     2        1
demo-chaos  127.0.0.1:10088  in                  1.2 ms     2        1
"
        );
    }
}
