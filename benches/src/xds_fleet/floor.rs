//! The floors of `xds-fleet`: `chancery-bench serve-xds …`, an aggregated delta service and nothing else.
//!
//! It answers the first request for a type with all that there is of it, encoded beforehand, and sends a change of an endpoint to every
//! stream: what a server costs before it keeps in mind who has asked for what, who has it, and what has to come first. On tonic
//! (`tonic.rs`), as a service is usually written; and on nothing but TLS and HTTP/2 (`http2.rs`), the least that a stream can cost.

mod http2;
mod tonic;

use std::{fs, future::IntoFuture as _, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context as _, Result};
use axum::{Router, extract::RawQuery, routing::post};
use bytes::Bytes;
use chancery_proto::{
    Message as _,
    envoy::{
        core::{address::Address, socket_address::PortSpecifier},
        discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
        endpoint::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
    },
    type_url,
};
use clap::{Args, ValueEnum};
use http::StatusCode;
use tokio::{net::TcpListener, sync::watch};

/// The service, as its path begins.
const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";

/// What a floor stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Base {
    Tonic,
    Http2,
}

/// What to serve, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// What it stands on
    #[arg(long)]
    on: Base,
    /// Where xDS is served
    #[arg(long)]
    xds_addr: SocketAddr,
    /// Per type one encoded `DeltaDiscoveryResponse` with its length before it
    #[arg(long)]
    resources: PathBuf,
    /// Who may connect
    #[arg(long)]
    client_ca: PathBuf,
    #[arg(long)]
    tls_cert: PathBuf,
    #[arg(long)]
    tls_key: PathBuf,
}

/// Serves until it is killed.
pub(crate) async fn serve(options: &Options) -> Result<()> {
    let (publish, state) = watch::channel(State::read(&fs::read(&options.resources)?)?);
    let xds = TcpListener::bind(options.xds_addr).await?;
    let control = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!(r#"{{"event":"ready","xds":"{}","control":"{}"}}"#, xds.local_addr()?, control.local_addr()?);
    let publish = Arc::new(publish);
    let edit = post(move |RawQuery(query): RawQuery| {
        let edited = edit(&publish, &query.unwrap_or_default());
        std::future::ready(edited.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string())))
    });
    let control = axum::serve(control, Router::new().route("/edit", edit)).into_future();
    let xds = async {
        match options.on {
            Base::Tonic => tonic::serve(options, xds, state).await,
            Base::Http2 => http2::serve(options, xds, state).await,
        }
    };
    tokio::select! {
        ended = xds => ended,
        ended = control => Ok(ended?),
    }
}

/// Changes the ports of services' endpoints, as `names=a,b&port=…` says.
fn edit(state: &watch::Sender<State>, query: &str) -> Result<()> {
    let value = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
    let (names, port) = (value("names").context("no names")?, value("port").context("no port")?.parse()?);
    let next = state.borrow().moved(names.split(','), port)?;
    state.send_replace(next);
    Ok(())
}

/// What is served.
#[derive(Clone)]
struct State {
    responses: Arc<[DeltaDiscoveryResponse]>,
    /// The same, encoded.
    encoded: Arc<[Bytes]>,
    /// The last change of endpoints.
    change: Option<Bytes>,
}

impl State {
    fn read(mut file: &[u8]) -> Result<Self> {
        let mut responses = Vec::new();
        while !file.is_empty() {
            let (length, rest) = file.split_at_checked(4).context("cut off")?;
            let length = usize::try_from(u32::from_be_bytes(length.try_into()?))?;
            let (message, rest) = rest.split_at_checked(length).context("cut off")?;
            responses
                .push(DeltaDiscoveryResponse { nonce: "1".to_owned(), ..DeltaDiscoveryResponse::decode(message)? });
            file = rest;
        }
        Ok(Self::new(responses, None))
    }

    fn new(responses: Vec<DeltaDiscoveryResponse>, change: Option<Bytes>) -> Self {
        let encoded = responses.iter().map(|response| response.encode_to_vec().into()).collect();
        Self { responses: responses.into(), encoded, change }
    }

    fn moved<'n>(&self, names: impl Iterator<Item = &'n str>, to: u32) -> Result<Self> {
        let mut responses = self.responses.to_vec();
        let endpoints = responses.iter_mut().find(|response| response.type_url == type_url::ENDPOINT);
        let endpoints = endpoints.context("no endpoints")?;
        let mut moved = Vec::new();
        for name in names {
            let changed = endpoints.resources.iter_mut().find(|resource| resource.name == name);
            let changed = changed.with_context(|| format!("no endpoints of {name:?}"))?;
            let any = changed.resource.as_mut().context("no content")?;
            let mut assignment = ClusterLoadAssignment::decode(&*any.value)?;
            *port_of(&mut assignment).context("no port")? = PortSpecifier::PortValue(to);
            any.value = assignment.encode_to_vec();
            changed.version = to.to_string();
            moved.push(changed.clone());
        }
        let change = DeltaDiscoveryResponse {
            type_url: type_url::ENDPOINT.to_owned(),
            resources: moved,
            nonce: to.to_string(),
            ..DeltaDiscoveryResponse::default()
        };
        Ok(Self::new(responses, Some(change.encode_to_vec().into())))
    }

    fn all_of(&self, type_url: &str) -> Option<Bytes> {
        let at = self.responses.iter().position(|response| response.type_url == type_url)?;
        self.encoded.get(at).cloned()
    }
}

/// The types that a stream was given.
#[derive(Default)]
struct Answered(Vec<String>);

impl Answered {
    /// What answers `request`: all that there is of a type, the first time.
    fn answer(&mut self, request: DeltaDiscoveryRequest, state: &watch::Receiver<State>) -> Option<Bytes> {
        if self.0.contains(&request.type_url) {
            return None;
        }
        let all = state.borrow().all_of(&request.type_url);
        self.0.push(request.type_url);
        all
    }
}

fn port_of(assignment: &mut ClusterLoadAssignment) -> Option<&mut PortSpecifier> {
    let endpoint = assignment.endpoints.first_mut()?.lb_endpoints.first_mut()?;
    let Some(HostIdentifier::Endpoint(endpoint)) = &mut endpoint.host_identifier else { return None };
    let Some(Address::SocketAddress(address)) = &mut endpoint.address.as_mut()?.address else { return None };
    address.port_specifier.as_mut()
}
