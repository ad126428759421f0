//! A demo upstream: a service to send requests to, that says what reached it, and that can be made to fail in the ways in
//! which real ones do.
//!
//! - [`chaos`]: which fault meets which request. Pure: the same seed, the same faults.
//! - [`upstream`]: the port; [`answer`](mod@answer), [`reply`]: what a request is answered with.
//! - [`line`](mod@line): one connection, and how it breaks.
//! - [`counts`]: how often each request was executed. [`control`]: the port by which both are reached.

mod answer;
mod chaos;
mod control;
mod counts;
mod line;
mod reply;
mod upstream;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use chancery_runtime::{drain::Signals, telemetry};
use clap::Args;
use serde::Serialize;

pub(crate) use self::{chaos::Chaos, upstream::Upstream};
use self::{control::Control, upstream::State};
use crate::failure::Failure;

/// `chancery demo-upstream`
#[derive(Clone, Debug, Args)]
pub(crate) struct DemoUpstreamArgs {
    /// Where it serves, HTTP/1.1 and HTTP/2 in plaintext; may be repeated, for several endpoints that count together
    #[arg(long, value_name = "ADDR", required = true)]
    addr: Vec<SocketAddr>,
    /// Where faults are switched and executions counted [default: a free port of this machine, told in the ready line]
    #[arg(long, value_name = "ADDR")]
    control_addr: Option<SocketAddr>,
    /// What it calls itself
    #[arg(long, default_value = "demo")]
    name: String,
    /// The faults that it begins with: a JSON file, or the JSON itself [default: none]
    #[arg(long, value_name = "FILE|JSON")]
    chaos: Option<String>,
}

/// Where it serves.
#[derive(Debug, Serialize)]
struct Addresses {
    upstreams: Vec<SocketAddr>,
    control: SocketAddr,
}

/// Runs until SIGINT or SIGTERM.
pub(crate) async fn run(args: DemoUpstreamArgs) -> Result<(), Failure> {
    let chaos = args.chaos.as_deref().map(read).transpose()?.unwrap_or_default();
    Ok(serve(args, chaos).await?)
}

async fn serve(args: DemoUpstreamArgs, chaos: Chaos) -> Result<()> {
    let mut signals = Signals::listen().context("cannot listen to signals")?;
    let control = args.control_addr.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let faulty = Faulty::start(&args.name, &args.addr, control, chaos).await?;
    let upstreams = faulty.upstreams.iter().map(Upstream::address).collect();
    telemetry::ready_line(&Addresses { upstreams, control: faulty.control.address() })?;
    signals.received().await;
    Ok(())
}

/// A running upstream whose faults can be switched; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Faulty {
    upstreams: Vec<Upstream>,
    control: Control,
}

impl Faulty {
    /// Serves at each of `addresses` as `name`, all with the same faults, which are switched at `control`.
    pub(crate) async fn start(name: &str, addresses: &[SocketAddr], control: SocketAddr, chaos: Chaos) -> Result<Self> {
        let state = Arc::new(State::new(name, chaos));
        let mut upstreams = Vec::new();
        for address in addresses {
            upstreams.push(Upstream::of(state.clone(), *address).await?);
        }
        let control = Control::start(control, state).await?;
        Ok(Self { upstreams, control })
    }
}

/// Reads faults, from the JSON itself or from a file.
fn read(given: &str) -> Result<Chaos, Failure> {
    let text = match given.trim_start().starts_with('{') {
        true => given.to_owned(),
        false => std::fs::read_to_string(Path::new(given))
            .map_err(|source| Failure::Io { what: given.to_owned(), source })?,
    };
    text.parse().map_err(|error| Failure::Usage(format!("--chaos: {error}")))
}

#[cfg(test)]
mod tests;
