//! The subscription: one stream to the control plane, and what is in force in a file, for a start without it
//! ([`chancery_runtime::saved`]).

use std::{path::PathBuf, sync::Arc, time::Duration};

use chancery_proto::{envoy::core::Node, type_url::short_name};
use chancery_runtime::{admin::Condition, saved, tls};
use chancery_xds::client::{self, Batch, BoxError, ClientSettings, Interest};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Uri};

use super::{
    bootstrap::Bootstrap,
    held::{Held, TYPES},
};

/// How long types are waited for of which the server says nothing, once it has spoken: there are servers that are silent about what
/// they have none of.
const SILENCE: Duration = Duration::from_secs(5);

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
/// `in_force` gets what is in force, whenever that changes: at once what was saved, if anything was. `ready` is met when something
/// was saved, when the server has spoken of every type, or when it has spoken of some and been silent about the others for a while.
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
    let (heard, hears) = watch::channel(TYPES.map(|_| false));
    let take = move |batch: &Batch| {
        let taken = held.take(batch);
        in_force(&held);
        if keep {
            to_save.send_replace(held.save());
        }
        heard.send_modify(|heard| {
            TYPES.iter().zip(heard).for_each(|(of, heard)| *heard |= *batch.type_url == **of);
        });
        taken
    };
    let bootstrap = Arc::new(bootstrap);
    let connect = || connect(bootstrap.clone());
    let receive = client::run(client_settings, connect, take, rand::random::<f64>, stop);
    // What waits for words of the server ends with it.
    tokio::join!(receive, saved::keep(saved, SAVED, changes), becomes_ready(hears, ready));
}

/// Meets `ready` when every type was heard of, or when one was and `SILENCE` has passed.
async fn becomes_ready(mut heard: watch::Receiver<Heard>, ready: Condition) {
    let waiting = async {
        heard.wait_for(|heard| heard.contains(&true)).await?;
        let _ = timeout(SILENCE, heard.wait_for(|heard| !heard.contains(&false))).await;
        Ok::<_, watch::error::RecvError>(*heard.borrow())
    };
    // Nobody is left to speak.
    let Ok(heard) = waiting.await else { return };
    let silent: Vec<_> = TYPES.iter().zip(heard).filter(|(_, heard)| !heard).map(|(of, _)| short_name(of)).collect();
    if !silent.is_empty() {
        tracing::warn!(types = ?silent, "the server says nothing of some types, which are taken to be empty");
    }
    ready.met();
}

/// Of which types the server has spoken, in the order of [`TYPES`].
type Heard = [bool; TYPES.len()];

async fn connect(bootstrap: Arc<Bootstrap>) -> Result<Channel, BoxError> {
    let Bootstrap { server, server_name, tls, .. } = &*bootstrap;
    let endpoint =
        client::endpoint(Uri::builder().scheme("http").authority(server.clone()).path_and_query("/").build()?);
    match tls {
        Some(files) => tls::connect(endpoint, server, server_name.as_deref(), files).await,
        None => Ok(endpoint.connect().await?),
    }
}

#[cfg(test)]
mod tests {
    use chancery_runtime::admin::Readiness;
    use tokio::time::Instant;

    use super::*;

    /// Whether it becomes ready when the server speaks of these types, one a second, and when.
    async fn ready_after(spoken: &[usize]) -> Option<u64> {
        let readiness = Readiness::new();
        let (heard, hears) = watch::channel(TYPES.map(|_| false));
        let (began, condition) = (Instant::now(), readiness.condition("configuration loaded"));
        let speak = async {
            for of in spoken {
                tokio::time::sleep(Duration::from_secs(1)).await;
                heard.send_modify(|heard| heard[*of] = true);
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        };
        let ready = async {
            becomes_ready(hears, condition).await;
            began.elapsed().as_secs()
        };
        tokio::select! {
            () = speak => { assert!(!readiness.is_ready()); None }
            after = ready => { assert!(readiness.is_ready()); Some(after) }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_silent_about_a_type_is_not_waited_for_forever() {
        assert_eq!(ready_after(&[0, 1, 2, 3, 4]).await, Some(5), "when the last is there");
        assert_eq!(ready_after(&[1, 2]).await, Some(1 + SILENCE.as_secs()));
        assert_eq!(ready_after(&[]).await, None, "there is no configuration at all");
    }
}
