//! The control plane inside this process. The only file that knows how one is started.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use chancery_control_plane::{
    app::{self, Running, Settings},
    identity::{issue::IdentityFiles, token::AdminToken},
};
use chancery_runtime::{SecretString, Shutdown};

use super::{folder::Folder, ports::Ports};

/// A running control plane.
pub(super) struct ControlPlane {
    running: Running,
    shutdown: Shutdown,
    admin_token: SecretString,
}

impl ControlPlane {
    /// Starts it on the data folder; returns once it serves. `envoy`, if there is one, is asked about every change.
    pub(super) async fn start(
        folder: &Folder,
        ports: &Ports,
        server: &IdentityFiles,
        envoy: Option<&Path>,
    ) -> Result<Self> {
        let settings = Settings {
            data_dir: folder.path().to_owned(),
            api_addr: ports.api,
            xds_addr: ports.xds,
            admin_addr: ports.admin,
            tls_cert: server.certificate.clone(),
            tls_key: server.private_key.clone(),
            client_ca: server.ca.clone(),
            envoy_validate: envoy.map(Path::to_owned),
            ..Settings::default()
        };
        let token_file = settings.admin_token_path();
        let shutdown = Shutdown::new();
        let running = app::start(settings, shutdown.clone()).await.context("the control plane cannot start")?;
        let admin_token = AdminToken::load(&token_file)?.token().clone();
        Ok(Self { running, shutdown, admin_token })
    }

    /// The token of its API.
    pub(super) fn admin_token(&self) -> &SecretString {
        &self.admin_token
    }

    /// Waits until it ends although nobody asked it to. [`stop`](Self::stop) says which part was lost.
    pub(super) async fn lost(&self) -> anyhow::Error {
        self.shutdown.begun().await;
        anyhow!("the control plane ended by itself")
    }

    /// Ends it, and waits until it has.
    pub(super) async fn stop(self) -> Result<()> {
        self.running.stop().await.context("the control plane did not end well")
    }
}
