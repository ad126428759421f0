//! The command reaches a control plane through what ends TLS before its API, and only one whose certificate it trusts.

use std::{fs, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    certificates::{Authority, Identity},
    command::User,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::fleet,
};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// Ends TLS and passes on what comes to `to`, as a proxy before the API does.
async fn front(identity: &Identity, to: SocketAddr) -> Result<(SocketAddr, AbortOnDropHandle<()>)> {
    let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Who does not trust the certificate goes.
                if let (Ok(mut from), Ok(mut to)) = (acceptor.accept(stream).await, TcpStream::connect(to).await) {
                    let _ = copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    Ok((address, AbortOnDropHandle::new(serving)))
}

#[tokio::test]
async fn a_control_plane_behind_tls_is_reached() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let database = format!("sqlite://{}", folder.path().join("chancery.db").display());
    let control_plane = ControlPlane::start(folder.path(), "control-plane", &database, &authority).await?;
    control_plane.caller().apply(&[fleet("edge")]).await?;
    let (address, _front) = front(&authority.server()?, control_plane.api).await?;
    let user = User::in_folder(folder.path()).of(&format!("https://localhost:{}", address.port()), ADMIN_TOKEN);

    let stranger = user.runs("get fleets", "").await?;
    ensure!(stranger.code == 3 && stranger.errors.contains("certificate"), "{stranger:?}");

    let user = user.with("CHANCERY_SERVER_CA", authority.file().to_str().context("a path that is no text")?);
    let known = user.runs("get fleets", "").await?;
    ensure!(known.code == 0 && known.output.contains("edge"), "{known:?}");
    let document = "kind: Fleet\nname: second\nspec: {}\n";
    let applied = user.runs("apply -f -", document).await?;
    ensure!(applied.code == 0, "{applied:?}");
    let examined = user.runs("doctor -o json", "").await?;
    let report: Value = serde_json::from_str(&examined.output).with_context(|| format!("{examined:?}"))?;
    let mut checks = report["checks"].as_array().into_iter().flatten();
    let clock = checks.find(|check| check["group"] == "Clocks" && check["name"] == "control plane");
    ensure!(clock.is_some_and(|clock| clock["outcome"] == "passed"), "{report:#}");

    fs::write(folder.path().join("none.pem"), "nothing")?;
    let user = user.with("CHANCERY_SERVER_CA", "none.pem");
    let wrong = user.runs("get fleets", "").await?;
    ensure!(wrong.code == 2 && wrong.errors.contains("none.pem"), "{wrong:?}");
    Ok(())
}
