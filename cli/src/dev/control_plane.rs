//! The control plane inside this process. The only file that knows how one is started.

use anyhow::{Result, bail};
use chancery_control_plane::identity::issue::IdentityFiles;
use chancery_runtime::SecretString;

use super::{folder::Folder, ports::Ports};

/// A running control plane.
pub(super) struct ControlPlane {
    admin_token: SecretString,
}

impl ControlPlane {
    /// Starts it on the data folder; returns once it serves.
    pub(super) async fn start(folder: &Folder, ports: &Ports, server: &IdentityFiles) -> Result<Self> {
        let _ = (folder, ports, server);
        bail!("the control plane is not built in yet")
    }

    /// The token of its API.
    pub(super) fn admin_token(&self) -> &SecretString {
        &self.admin_token
    }

    /// Waits until it has ended although nobody asked it to; says why.
    pub(super) async fn lost(&mut self) -> anyhow::Error {
        std::future::pending().await
    }

    /// Ends it, and waits until it has.
    pub(super) async fn stop(self) -> Result<()> {
        Ok(())
    }
}
