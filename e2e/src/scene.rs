//! What most stories start from: one control plane, one Envoy of the fleet `edge`, one listener `web`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use tempfile::TempDir;

use crate::{
    api::Api,
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    client::{Response, fetch},
    control_plane::ControlPlane,
    document::{fleet, listener},
    envoy::Envoy,
    link::Link,
    port::free_port,
    required,
    wait::{PATIENCE, until},
};

/// A control plane and an Envoy that serves what it says.
#[derive(Debug)]
pub struct Scene {
    /// The Envoy `edge/envoy`.
    pub envoy: Envoy,
    /// The control plane.
    pub control_plane: ControlPlane,
    /// A caller of its API, as administrator.
    pub api: Api,
    /// Where listener `web` of the Envoy listens.
    pub web: SocketAddr,
    /// Who issued all certificates.
    pub authority: Authority,
    /// The Envoy program, for more of them.
    pub program: PathBuf,
    _link: Option<Link>,
    // Last, so that it outlives whoever has files in it.
    folder: TempDir,
}

impl Scene {
    /// Sets it up. `None` when this machine has no Envoy and may do without (see [`required`]).
    pub async fn start(protocol: Protocol) -> Result<Option<Self>> {
        Self::start_at(protocol, Duration::ZERO).await
    }

    /// As [`Scene::start`], with this latency each way between Envoy and the control plane.
    pub async fn start_at(protocol: Protocol, latency: Duration) -> Result<Option<Self>> {
        let Some(program) = required::envoy() else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let authority = Authority::create(folder.path(), "authority")?;
        let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
        let api = control_plane.caller();
        let port = free_port();
        api.apply(&[fleet("edge"), listener("web", "edge", port)]).await?;
        let link = if latency.is_zero() { None } else { Some(Link::slow(control_plane.xds, latency).await?) };
        let xds = link.as_ref().map_or(control_plane.xds, |link| link.address);
        let proxy = Proxy { fleet: "edge", id: "envoy", protocol, xds, authority: &authority };
        let envoy = Envoy::of(&program, folder.path(), &proxy).await?;
        let web = SocketAddr::from(([127, 0, 0, 1], port));
        Ok(Some(Self { envoy, control_plane, api, web, authority, program, _link: link, folder }))
    }

    /// Where files of this scene may lie.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// One request to listener `web`.
    pub async fn fetch(&self, request: Request<Bytes>) -> Result<Response> {
        fetch(self.web, request).await
    }

    /// Requests until the response is as `wanted`, and returns that.
    pub async fn fetch_until(
        &self,
        what: &str,
        request: Request<Bytes>,
        wanted: impl Fn(&Response) -> bool,
    ) -> Result<Response> {
        until(what, PATIENCE, async || {
            let response = self.fetch(request.clone()).await?;
            ensure!(wanted(&response), "got {} {:?} {}", response.status, response.headers, response.text());
            Ok(response)
        })
        .await
        .with_context(|| format!("{} {}", request.method(), request.uri()))
    }
}
