//! The sidecar inside this process, in front of demo-a. The only file that knows how one is started.
//!
//! It is reached over mTLS, as one on another machine would be: the service says so with `tls.mesh`.

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use chancery_sidecar::app::{self, Addresses, Settings};

use super::{http::Http, part::Part, ports::Ports, seed};

/// How long its configuration may take to come from the control plane.
const READY: Duration = Duration::from_secs(15);

/// Nobody's work is lost here: who keeps a connection open is not waited for long.
const DRAIN_SECONDS: u64 = 1;

/// A running sidecar.
pub(super) type Sidecar = Part<Addresses>;

/// Starts it by this bootstrap file; returns once it serves what the control plane says.
pub(super) async fn start(ports: &Ports, bootstrap: PathBuf) -> Result<Sidecar> {
    let settings = Settings {
        bootstrap,
        inbound_addr: ports.sidecar_inbound,
        outbound_addr: ports.sidecar_outbound,
        admin_addr: ports.sidecar_admin,
        app_addr: ports.upstreams[0],
        service: seed::BEHIND_SIDECAR.to_owned(),
        drain_seconds: DRAIN_SECONDS,
        ..Settings::default()
    };
    let sidecar = Part::start("the sidecar", async |shutdown| app::start(settings, shutdown).await).await?;
    Http::to(ports.sidecar_admin).until_ready("the sidecar", READY).await?;
    Ok(sidecar)
}
