//! The control plane inside this process. The only file that knows how one is started.

use std::path::Path;

use anyhow::Result;
use chancery_control_plane::{
    app::{self, Addresses, Settings},
    identity::{
        authority::{CERTIFICATE_FILE, KEY_FILE},
        issue::IdentityFiles,
        token::AdminToken,
    },
};
use chancery_runtime::SecretString;

use super::{CA_DIR, folder::Folder, part::Part, ports::Ports};

/// A running control plane.
pub(super) type ControlPlane = Part<Addresses>;

/// Starts it on the data folder; returns once it serves, with the token of its API. `envoy`, if there is one, is asked about every
/// change.
pub(super) async fn start(
    folder: &Folder,
    ports: &Ports,
    server: &IdentityFiles,
    envoy: Option<&Path>,
) -> Result<(ControlPlane, SecretString)> {
    let settings = Settings {
        data_dir: folder.path().to_owned(),
        api_addr: ports.api,
        xds_addr: ports.xds,
        admin_addr: ports.admin,
        tls_cert: server.certificate.clone(),
        tls_key: server.private_key.clone(),
        client_ca: server.ca.clone(),
        ca_cert: folder.join(CA_DIR).join(CERTIFICATE_FILE),
        ca_key: folder.join(CA_DIR).join(KEY_FILE),
        envoy_validate: envoy.map(Path::to_owned),
        ..Settings::default()
    };
    let token_file = settings.admin_token_path();
    let control_plane = Part::start("the control plane", async |shutdown| app::start(settings, shutdown).await).await?;
    let admin_token = AdminToken::load(&token_file)?.token().clone();
    Ok((control_plane, admin_token))
}
