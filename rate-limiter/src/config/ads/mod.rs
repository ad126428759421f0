//! Limits over ADS: from Chancery's control plane, or from any server that sends `RateLimitConfig`.
//!
//! Both types are asked for, whoever the server is; one that knows only one of them stays silent about the other. Rules are
//! swapped in whole with every change, and what is in force is saved, so that a limiter starts without its control plane.
//!
//! - [`domain`]: Chancery's own message into a specification. Pure. (Envoy's is [`limitconfig`](super::limitconfig)'s.)
//! - `held`: what was received, what of it is in force, and what a server is told about the rest. Pure.
//! - `connect`: who the limiter is, and its way to the server.

pub mod domain;

mod connect;
mod held;

use std::{path::PathBuf, sync::Arc, time::Duration};

use chancery_proto::envoy::core::Node;
use chancery_runtime::{admin::Condition, saved, tls::ClientTlsFiles};
use chancery_xds::client::{self, Batch, ClientSettings, Interest};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

pub use self::connect::{InvalidServer, NoIdentity, Server, identity};
use self::held::{Held, Kind};
use super::Problem;
use crate::model::{limit::Algorithm, rule::DomainSpec};

/// What the node calls its cluster; a control plane goes by the certificate.
pub const CLUSTER: &str = "rate-limiter";

/// How long a server that has answered for one type may take to answer for the other, before it is taken not to know it.
const GRACE: Duration = Duration::from_secs(1);

/// What is saved, as the log calls it.
const SAVED: &str = "limits";

/// Where limits come from, and how.
#[derive(Clone, Debug)]
pub struct AdsSettings {
    /// The server.
    pub server: Server,
    /// Whom to trust and who we are; `None`: plaintext.
    pub tls: Option<ClientTlsFiles>,
    /// The node's id; where there is a certificate, that of [`identity`].
    pub id: String,
    /// Where what is in force is saved; `None`: nowhere.
    pub saved: Option<PathBuf>,
    /// How `RateLimitConfig`s, which cannot say, are counted.
    pub algorithm: Algorithm,
}

/// Stays subscribed until `stop`.
///
/// `on_rules` gets every domain that came, whenever one of them changes, and may still refuse the set; if a problem
/// names the origin of a resource, that one is taken back. It is called at once with what was saved, if anything was. `ready` is met
/// when rules are in force: the saved ones, or the first that the server sent.
///
/// `on_rules` runs on the task that calls this: building large sets takes its time, so that should not be one that decides.
pub async fn run<F>(settings: AdsSettings, mut on_rules: F, ready: Condition, stop: CancellationToken)
where
    F: FnMut(Vec<DomainSpec>) -> Result<(), Vec<Problem>> + Send,
{
    let AdsSettings { server, tls, id, saved, algorithm } = settings;
    let mut held = match &saved {
        Some(path) => saved::read(path, SAVED, |bytes| Held::restore(bytes, algorithm)).await,
        None => None,
    };
    if let Some(restored) = held.take() {
        match on_rules(restored.specs()) {
            Ok(()) => {
                ready.met();
                held = Some(restored);
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!(%problem, "saved limits refused");
                }
            }
        }
    }
    let mut held = held.unwrap_or_else(|| Held::new(algorithm));
    let node = Node { id, cluster: CLUSTER.to_owned(), ..Node::default() };
    let types = Kind::ALL.map(|kind| (Arc::from(kind.type_url()), Interest::Wildcard)).into();
    let client_settings = ClientSettings { held: held.versions(), ..ClientSettings::new(node, types) };

    let (answered, first) = watch::channel([Answered::NotYet; Kind::ALL.len()]);
    let (to_save, changes) = watch::channel(Vec::new());
    let keep = saved.is_some();
    let take = move |batch: &Batch| {
        let taken = held.take(batch, &mut on_rules);
        if keep {
            to_save.send_replace(held.save());
        }
        answered.send_modify(|answered| {
            for (kind, answered) in Kind::ALL.into_iter().zip(answered) {
                let taken = (*kind.type_url() == *batch.type_url).then_some(taken.is_ok());
                *answered = answered.and_then(taken, held.holds(kind));
            }
        });
        taken
    };
    let connect = || connect::connect(server.clone(), tls.clone());
    let receive = client::run(client_settings, connect, take, rand::random::<f64>, stop.clone());
    tokio::join!(receive, saved::keep(saved, SAVED, changes), until_first(first, &ready, &stop));
}

/// What has come of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    NotYet,
    /// Something, and none of it can be used. Without it nothing is limited that should be.
    Refused,
    /// Rules that are in force, or word that there are none.
    Usable,
}

impl Answered {
    /// What has come after one more batch, which was `taken` as a whole or not, if it was of this type; `held`: something is in force.
    fn and_then(self, taken: Option<bool>, held: bool) -> Self {
        match (self, taken) {
            (_, Some(true)) => Self::Usable,
            _ if held => Self::Usable,
            (Self::NotYet, Some(false)) => Self::Refused,
            (before, _) => before,
        }
    }
}

fn is_usable(answered: &[Answered; Kind::ALL.len()]) -> bool {
    answered.contains(&Answered::Usable) && !answered.contains(&Answered::Refused)
}

/// Waits for the first set: all types, or those that the server knows.
async fn until_first(
    mut answered: watch::Receiver<[Answered; Kind::ALL.len()]>,
    ready: &Condition,
    stop: &CancellationToken,
) {
    let first = async {
        while answered.wait_for(is_usable).await.is_ok() {
            let all = |answered: &[Answered; Kind::ALL.len()]| *answered == [Answered::Usable; Kind::ALL.len()];
            let _ = timeout(GRACE, answered.wait_for(all)).await;
            // What came in the meantime may have been of no use.
            if is_usable(&answered.borrow()) {
                return ready.met();
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = first => {}
    }
}

#[cfg(test)]
mod tests;
