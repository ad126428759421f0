//! What stories about a sidecar start from: a control plane, and a sidecar that has a configuration.

use std::{net::SocketAddr, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    api::Api,
    certificates::Authority,
    control_plane::ControlPlane,
    document::{fleet, listener},
    port::free_port,
    sidecar::Sidecar,
};

/// A control plane and a sidecar of the fleet `edge`.
#[derive(Debug)]
pub struct SidecarScene {
    /// The sidecar.
    pub sidecar: Sidecar,
    /// A caller of the control plane, as administrator.
    pub api: Api,
    /// Who issued all certificates.
    pub authority: Authority,
    control_plane: ControlPlane,
    // Last, so that it outlives whoever has files in it.
    folder: tempfile::TempDir,
}

impl SidecarScene {
    /// Sets it up with these resources beside the fleet and its listener, and with these flags of the sidecar.
    pub async fn start(resources: &[Value], flags: &[&str]) -> Result<Self> {
        Self::start_in(resources, flags, &[]).await
    }

    /// The same, with these variables in the environment of the sidecar.
    pub async fn start_in(resources: &[Value], flags: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let api = control_plane.caller();
        api.apply(&[&[fleet("edge"), listener("web", "edge", free_port())], resources].concat()).await?;
        let xds = control_plane.xds;
        let sidecar = Sidecar::start_in(folder.path(), "side", &authority, xds, flags, variables).await?;
        sidecar.ready().await?;
        Ok(Self { sidecar, api, authority, control_plane, folder })
    }

    /// Where the control plane serves xDS.
    pub fn xds(&self) -> SocketAddr {
        self.control_plane.xds
    }

    /// Where files of this scene may lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Rules that send everything to one service, and try again what failed.
pub fn retried(service: &str) -> Value {
    json!([{
        "match": { "path": { "prefix": "/" } },
        "to": [{ "service": service }],
        "timeout": "10s",
        "retry": { "on": ["5xx", "reset", "connect-failure"], "attempts": 3, "perTryTimeout": "2s" },
    }])
}
