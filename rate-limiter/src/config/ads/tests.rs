use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use chancery_proto::{
    Message,
    chancery::{RateLimitDomain, RateLimitRule},
    google::protobuf,
    type_url,
};
use chancery_runtime::admin::Readiness;
use chancery_xds::{Admission, Admit, Cache, Hello, Resource, SharedStatus, StreamSettings, Update, XdsServer};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;

use super::*;
use crate::model::rule::Rules;

const DEADLINE: Duration = Duration::from_secs(10);

async fn until(what: &str, condition: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let held = async {
        while !condition() {
            ticks.tick().await;
        }
    };
    assert!(timeout(DEADLINE, held).await.is_ok(), "{what}: not in time");
}

/// A server of xDS that serves everybody the same.
struct Plane {
    address: SocketAddr,
    desk: Arc<Desk>,
    sequence: AtomicUsize,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Desk {
    cache: Arc<Cache>,
    statuses: Mutex<Vec<SharedStatus>>,
    nodes: Mutex<Vec<(String, String)>>,
}

impl Admit for Desk {
    fn admit(&self, hello: Hello<'_>) -> Result<Admission, Status> {
        let status = SharedStatus::default();
        self.statuses.lock().push(status.clone());
        self.nodes.lock().push((hello.node.id.clone(), hello.node.cluster.clone()));
        Ok(Admission { cache: self.cache.clone(), status, ended: CancellationToken::new(), guard: Box::new(()) })
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Plane {
    async fn start() -> Self {
        let desk = Arc::<Desk>::default();
        let xds = XdsServer::new(desk.clone(), StreamSettings::default(), CancellationToken::new(), Default::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_routes(xds.into_routes());
        let task = tokio::spawn(async move {
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Self { address, desk, sequence: AtomicUsize::new(1), task }
    }

    fn apply(&self, domains: &[RateLimitDomain], removed: &[&str]) {
        let mut update = Update::default();
        for domain in domains {
            let resource = Resource::new(type_url::RATE_LIMIT_DOMAIN, domain.name.as_str(), &domain.encode_to_vec());
            update.upsert(type_url::RATE_LIMIT_DOMAIN, resource);
        }
        for name in removed {
            update.remove(type_url::RATE_LIMIT_DOMAIN, *name);
        }
        self.desk.cache.apply(self.sequence.fetch_add(1, Ordering::SeqCst) as u64, update);
    }

    fn rejection(&self) -> Option<String> {
        let status = self.desk.statuses.lock().last().cloned()?;
        let types = status.types();
        Some(types.get(type_url::RATE_LIMIT_DOMAIN)?.rejected.as_ref()?.message.clone())
    }
}

fn domain(name: &str, requests: u32) -> RateLimitDomain {
    let per = Some(protobuf::Duration { seconds: 1, nanos: 0 });
    let rule = RateLimitRule { name: "all".into(), requests, per, ..RateLimitRule::default() };
    RateLimitDomain { name: name.into(), fleets: vec![name.into()], rules: vec![rule] }
}

fn bad(name: &str) -> RateLimitDomain {
    let mut bad = domain(name, 1);
    bad.rules[0].per = None;
    bad
}

/// What a limiter would decide by: `domain=requests`, in order.
struct Limiter {
    rules: Arc<Mutex<Vec<String>>>,
    readiness: Readiness,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Limiter {
    fn start(server: SocketAddr, saved: Option<PathBuf>) -> Self {
        let rules = Arc::<Mutex<Vec<String>>>::default();
        let (readiness, stop) = (Readiness::new(), CancellationToken::new());
        let settings = AdsSettings {
            server: server.to_string().parse().unwrap(),
            tls: None,
            id: "limiter-1".into(),
            saved,
            algorithm: Algorithm::TokenBucket,
        };
        let seen = rules.clone();
        let on_rules = move |specs: Vec<DomainSpec>| {
            let built = Rules::build(&specs);
            let built = built.map_err(|problems| problems.into_iter().map(Problem::from).collect::<Vec<_>>())?;
            let amount = |spec: &DomainSpec| match spec.descriptors[0].limit.as_ref().unwrap().amount {
                crate::model::rule::Amount::Limited(limit) => limit.requests(),
                crate::model::rule::Amount::Unlimited => 0,
            };
            assert_eq!(built.all().len(), specs.len());
            *seen.lock() = specs.iter().map(|spec| format!("{}={}", spec.name, amount(spec))).collect();
            Ok(())
        };
        let task = tokio::spawn(run(settings, on_rules, readiness.condition("limits"), stop.clone()));
        Self { rules, readiness, stop, task }
    }

    async fn has(&self, expected: &[&str]) {
        until(&format!("{expected:?}"), || *self.rules.lock() == expected).await;
    }

    async fn stop(self) {
        self.stop.cancel();
        timeout(DEADLINE, self.task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_limiter_follows_its_control_plane() {
    let plane = Plane::start().await;
    plane.apply(&[domain("edge", 1)], &[]);
    let limiter = Limiter::start(plane.address, None);
    limiter.has(&["edge=1"]).await;
    timeout(DEADLINE, limiter.readiness.becomes(true)).await.unwrap();
    plane.apply(&[domain("edge", 2), domain("core", 3)], &[]);
    limiter.has(&["core=3", "edge=2"]).await;
    plane.apply(&[], &["edge"]);
    limiter.has(&["core=3"]).await;
    assert_eq!(*plane.desk.nodes.lock(), [("limiter-1".to_owned(), "rate-limiter".to_owned())]);
    limiter.stop().await;
}

#[tokio::test]
async fn a_limiter_without_limits_is_ready_when_it_has_been_told_so() {
    let plane = Plane::start().await;
    let limiter = Limiter::start(plane.address, None);
    assert!(!limiter.readiness.is_ready());
    timeout(DEADLINE, limiter.readiness.becomes(true)).await.unwrap();
}

#[test]
fn a_first_set_that_is_refused_as_a_whole_is_none() {
    use Answered::{NotYet, Refused, Usable};
    assert_eq!(NotYet.and_then(Some(false), false), Refused);
    assert_eq!(Refused.and_then(None, false), Refused, "another type says nothing about it");
    assert_eq!(NotYet.and_then(None, false), NotYet);
    assert_eq!(NotYet.and_then(Some(false), true), Usable, "some of it is in force");
    assert_eq!(Refused.and_then(Some(true), false), Usable);
    assert_eq!(Refused.and_then(None, true), Usable, "it waited for the other");
    assert_eq!(Usable.and_then(Some(false), false), Usable, "the limiter has been ready");
    for (answered, usable) in [
        ([NotYet, NotYet], false),
        ([Refused, NotYet], false),
        ([Refused, Usable], false),
        ([Usable, NotYet], true),
        ([Usable, Usable], true),
    ] {
        assert_eq!(is_usable(&answered), usable, "{answered:?}");
    }
}

#[tokio::test]
async fn a_limiter_is_not_ready_without_any_of_its_limits() {
    let plane = Plane::start().await;
    plane.apply(&[bad("edge")], &[]);
    let limiter = Limiter::start(plane.address, None);
    until("the rejection", || plane.rejection().is_some()).await;
    assert!(!limiter.readiness.is_ready());
    plane.apply(&[domain("edge", 1)], &[]);
    limiter.has(&["edge=1"]).await;
    timeout(DEADLINE, limiter.readiness.becomes(true)).await.unwrap();
}

#[tokio::test]
async fn a_refusal_names_resource_and_path() {
    let plane = Plane::start().await;
    plane.apply(&[domain("edge", 1), domain("core", 1)], &[]);
    let limiter = Limiter::start(plane.address, None);
    limiter.has(&["core=1", "edge=1"]).await;
    plane.apply(&[bad("edge"), domain("core", 2)], &[]);
    limiter.has(&["core=2", "edge=1"]).await;
    until("the rejection", || plane.rejection().is_some()).await;
    assert_eq!(plane.rejection().unwrap(), "edge: rules[0].per: is missing");
}

#[tokio::test]
async fn a_limiter_starts_from_what_it_saved() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("limits.binpb");
    let plane = Plane::start().await;
    plane.apply(&[domain("edge", 1), domain("core", 1)], &[]);
    let limiter = Limiter::start(plane.address, Some(file.clone()));
    limiter.has(&["core=1", "edge=1"]).await;
    limiter.stop().await;
    drop(plane);

    // Nobody answers at this address.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let limiter = Limiter::start(nobody.local_addr().unwrap(), Some(file.clone()));
    limiter.has(&["core=1", "edge=1"]).await;
    timeout(DEADLINE, limiter.readiness.becomes(true)).await.unwrap();
    limiter.stop().await;

    // Another control plane: what is gone there is taken away.
    let plane = Plane::start().await;
    plane.apply(&[domain("edge", 1), domain("new", 1)], &[]);
    let limiter = Limiter::start(plane.address, Some(file.clone()));
    limiter.has(&["edge=1", "new=1"]).await;
    limiter.stop().await;

    std::fs::write(&file, b"\xff not what was saved").unwrap();
    let limiter = Limiter::start(plane.address, Some(file));
    limiter.has(&["edge=1", "new=1"]).await;
}
