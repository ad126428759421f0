//! The subscription: one stream to the control plane, and what is in force in a file, for a start without it
//! ([`chancery_runtime::saved`]).

use std::{path::PathBuf, sync::Arc};

use chancery_proto::envoy::core::Node;
use chancery_runtime::{admin::Condition, saved, tls};
use chancery_xds::client::{self, Batch, BoxError, ClientSettings, Interest};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Uri};

use super::{
    bootstrap::Bootstrap,
    held::{Held, TYPES},
};

/// What is saved, as the log calls it.
const SAVED: &str = "configuration";

/// Where the configuration comes from, and where it is kept.
#[derive(Clone, Debug)]
pub struct AdsSettings {
    /// The control plane, and who we are to it.
    pub bootstrap: Bootstrap,
    /// Where what is in force is saved; `None`: nowhere.
    pub saved: Option<PathBuf>,
    /// Whether there is a certificate to show to endpoints.
    pub has_identity: bool,
}

/// Stays subscribed until `stop`.
///
/// `in_force` gets what is in force, whenever that changes: at once what was saved, if anything was. `ready` is met when there are
/// clusters and listeners, of whatever origin, or word that there are none.
pub async fn run<F>(settings: AdsSettings, mut in_force: F, ready: Condition, stop: CancellationToken)
where
    F: FnMut(&Held) + Send,
{
    let AdsSettings { bootstrap, saved, has_identity } = settings;
    let mut held = Held::new(has_identity);
    let restored = match &saved {
        Some(path) => saved::read(path, SAVED, |bytes| Held::restore(bytes, has_identity)).await,
        None => None,
    };
    if let Some(restored) = restored {
        held = restored;
        in_force(&held);
        ready.met();
    }
    let node = Node { id: bootstrap.id.clone(), cluster: bootstrap.cluster.clone(), ..Node::default() };
    let types = TYPES.map(|of| (Arc::from(of), Interest::Wildcard)).into();
    let client_settings = ClientSettings { held: held.versions(), ..ClientSettings::new(node, types) };
    let (to_save, changes) = watch::channel(Vec::new());
    let keep = saved.is_some();
    let mut heard = TYPES.map(|_| false);
    let take = move |batch: &Batch| {
        let taken = held.take(batch);
        in_force(&held);
        if keep {
            to_save.send_replace(held.save());
        }
        for (of, heard) in TYPES.iter().zip(&mut heard) {
            *heard |= *batch.type_url == **of;
        }
        if heard.iter().all(|heard| *heard) {
            ready.met();
        }
        taken
    };
    let bootstrap = Arc::new(bootstrap);
    let connect = || connect(bootstrap.clone());
    let receive = client::run(client_settings, connect, take, rand::random::<f64>, stop);
    tokio::join!(receive, saved::keep(saved, SAVED, changes));
}

async fn connect(bootstrap: Arc<Bootstrap>) -> Result<Channel, BoxError> {
    let Bootstrap { server, server_name, tls, .. } = &*bootstrap;
    let endpoint =
        client::endpoint(Uri::builder().scheme("http").authority(server.clone()).path_and_query("/").build()?);
    match tls {
        Some(files) => tls::connect(endpoint, server, server_name.as_deref(), files).await,
        None => Ok(endpoint.connect().await?),
    }
}
