//! A service that fails on purpose, as a process of its own: `chancery demo-upstream`.

use std::{net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    client::{fetch, get},
    process::{Process, own_program},
    wait::PATIENCE,
};

/// A demo upstream with some endpoints, which fail and count together. Dropping it kills it.
#[derive(Debug)]
pub struct Demo {
    /// Where it serves.
    pub upstreams: Vec<SocketAddr>,
    control: SocketAddr,
    _process: Process,
}

/// How often requests were executed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counted {
    /// All.
    pub executions: u64,
    /// How many ids there were.
    pub ids: u64,
    /// Ids executed more than once, and how often.
    pub repeated: std::collections::BTreeMap<String, u64>,
    /// Executions of which it is not known.
    pub without_room: u64,
}

impl Demo {
    /// Starts one, without faults.
    pub async fn start(folder: &Path, name: &str, endpoints: usize) -> Result<Self> {
        let mut command = Command::new(own_program("chancery")?);
        command.args(["demo-upstream", "--name", name]);
        for _ in 0..endpoints {
            command.args(["--addr", "127.0.0.1:0"]);
        }
        let mut process = Process::spawn(name, command, folder)?;
        let ready = process.ready(PATIENCE).await?;
        let address = |value: &Value| -> Result<SocketAddr> { Ok(value.as_str().context("no address")?.parse()?) };
        let upstreams = ready["upstreams"].as_array().context("the ready line names no upstreams")?;
        Ok(Self {
            upstreams: upstreams.iter().map(address).collect::<Result<_>>()?,
            control: address(&ready["control"])?,
            _process: process,
        })
    }

    /// Switches to these faults, as `PUT /chaos` takes them.
    pub async fn fails(&self, chaos: &Value) -> Result<()> {
        Control(self.control).fails(chaos).await
    }

    /// What it has counted.
    pub async fn counted(&self) -> Result<Counted> {
        Control(self.control).counted().await
    }
}

/// The port at which the faults of a demo upstream are switched.
#[derive(Clone, Copy, Debug)]
pub struct Control(pub SocketAddr);

impl Control {
    /// Switches to these faults, as `PUT /chaos` takes them.
    pub async fn fails(self, chaos: &Value) -> Result<()> {
        let request = Request::builder().method(Method::PUT).uri("/chaos").header("host", "control");
        let answer = fetch(self.0, request.body(Bytes::from(chaos.to_string()))?).await?;
        ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
        Ok(())
    }

    /// What it has counted.
    pub async fn counted(self) -> Result<Counted> {
        let answer = fetch(self.0, get("control", "/chaos/counts")).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }
}
