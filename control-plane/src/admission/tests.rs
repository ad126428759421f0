use std::time::{Duration, Instant};

use chancery_proto::{
    Message,
    chancery::{Algorithm, RateLimitDomain, RateLimitRule},
    type_url,
};
use rcgen::{CertificateParams, KeyPair, SanType};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::*;
use crate::{
    commit::Committed,
    feed::Feed,
    model::Name,
    proxies::Role,
    publish::Changes,
    translate::snapshot::{FleetChange, FleetChanges, ResourceId},
};

/// Streams that are taken on at once; the next one only a tenth of a second later.
const PER_SECOND: u32 = 10;

struct Desk {
    admission: FleetAdmission,
    publisher: Arc<Publisher>,
    proxies: Arc<Proxies>,
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// What the transport knows of a client with this identity.
fn extensions(identity: &str) -> http::Extensions {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(identity.try_into().unwrap())];
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    let mut extensions = http::Extensions::new();
    let address = ([127, 0, 0, 1], 1).into();
    extensions.insert(PeerInfo { address, certificates: vec![certificate].into() });
    extensions
}

impl Desk {
    /// With a fleet that has a cluster and a limit.
    fn new() -> Self {
        let publisher = Arc::new(Publisher::new());
        let feed = Arc::new(Feed::new("run".to_owned(), &CancellationToken::new()));
        let proxies = Arc::new(Proxies::new("here".to_owned(), feed));
        let edge = FleetChanges {
            fleet: FleetChange::Created,
            put: [(ResourceId::Cluster(name("checkout")), "cluster".into())].into(),
            ..FleetChanges::default()
        };
        let domains = [(name("edge"), Some("limits".into()))].into();
        publisher.publish(1, Changes { fleets: [(name("edge"), edge)].into(), domains, ..Changes::default() });
        let rate = NonZeroU32::new(PER_SECOND).unwrap();
        let admission = FleetAdmission::new(publisher.clone(), proxies.clone(), "chancery.local".to_owned(), rate);
        Self { admission, publisher, proxies }
    }

    fn admit(&self, certificate: &str, cluster: &str, id: &str) -> Result<Admission, String> {
        self.answer(certificate, cluster, id).map_err(|status| status.message().to_owned())
    }

    fn answer(&self, certificate: &str, cluster: &str, id: &str) -> Result<Admission, Status> {
        let extensions = extensions(certificate);
        let node = Node { id: id.into(), cluster: cluster.into(), ..Node::default() };
        self.admission.admit(Hello { node: &node, extensions: &extensions, protocol: Protocol::Delta })
    }

    fn limiter(&self) -> Admission {
        self.admit("spiffe://chancery.local/rate-limiter/limiter-1", "rate-limiter", "limiter-1").unwrap()
    }

    fn proxy(&self) -> Admission {
        self.admit("spiffe://chancery.local/fleet/edge/proxy/edge-1", "edge", "edge-1").unwrap()
    }
}

fn names(admission: &Admission, type_url: &str) -> Vec<String> {
    admission.cache.snapshot().table(type_url).resources().map(|resource| resource.name().to_string()).collect()
}

#[test]
fn a_limiter_is_served_limits_and_a_proxy_is_not() {
    let desk = Desk::new();
    let (limiter, proxy) = (desk.limiter(), desk.proxy());
    assert_eq!(names(&limiter, type_url::RATE_LIMIT_DOMAIN), ["edge"]);
    assert!(names(&limiter, type_url::CLUSTER).is_empty());
    assert!(names(&proxy, type_url::RATE_LIMIT_DOMAIN).is_empty());
    assert_eq!(names(&proxy, type_url::CLUSTER), ["checkout"]);
    desk.publisher.publish(2, Changes { domains: [(name("edge"), None)].into(), ..Changes::default() });
    assert!(names(&limiter, type_url::RATE_LIMIT_DOMAIN).is_empty());
}

#[test]
fn envoyproxys_limiter_is_served_what_it_can_express_and_ours_is_not() {
    let desk = Desk::new();
    let rule = |name: &str, algorithm: Algorithm| RateLimitRule {
        name: name.into(),
        requests: 1,
        per: Some(chancery_proto::google::protobuf::Duration { seconds: 60, nanos: 0 }),
        algorithm: algorithm.into(),
        ..RateLimitRule::default()
    };
    let domain = |rules| RateLimitDomain { name: "lab".into(), rules, ..RateLimitDomain::default() };
    let put = |revision, domain: Option<RateLimitDomain>| {
        let domains = [(name("lab"), domain.map(|domain| domain.encode_to_vec().into()))].into();
        desk.publisher.publish(revision, Changes { domains, ..Changes::default() });
    };
    put(2, Some(domain(vec![rule("a", Algorithm::FixedWindow), rule("b", Algorithm::TokenBucket)])));
    let peer = desk.admit("spiffe://chancery.local/rate-limiter/limiter-1", "", "limiter-1").unwrap();
    assert_eq!(names(&peer, type_url::RATE_LIMIT_CONFIG), ["lab"]);
    assert!(names(&peer, type_url::RATE_LIMIT_DOMAIN).is_empty());
    assert!(names(&desk.limiter(), type_url::RATE_LIMIT_CONFIG).is_empty());
    put(3, Some(domain(vec![rule("b", Algorithm::TokenBucket)])));
    assert!(names(&peer, type_url::RATE_LIMIT_CONFIG).is_empty(), "nothing is left that can be expressed");
    put(4, Some(domain(vec![rule("a", Algorithm::FixedWindow)])));
    put(5, None);
    assert!(names(&peer, type_url::RATE_LIMIT_CONFIG).is_empty());
    // Who is no limiter claims a cluster.
    assert!(desk.admit("spiffe://chancery.local/fleet/edge/proxy/edge-1", "", "edge-1").is_err());
    assert!(desk.admit("spiffe://chancery.local/rate-limiter/limiter-1", "", "limiter-2").is_err());
}

#[test]
fn who_comes_too_soon_is_asked_to_come_again() {
    let desk = Desk::new();
    let stranger = |_| desk.admit("spiffe://other/rate-limiter/a", "rate-limiter", "a").is_err();
    let orphan = |_| desk.admit("spiffe://chancery.local/fleet/gone/proxy/a", "gone", "a").is_err();
    assert!((0..100).all(stranger) && (0..100).all(orphan));
    assert!(
        desk.admit("spiffe://chancery.local/fleet/edge/proxy/edge-1", "edge", "edge-1").is_ok(),
        "a place was taken"
    );
    let proxy = || desk.answer("spiffe://chancery.local/fleet/edge/proxy/edge-1", "edge", "edge-1");
    let refused = (0..1_000).find_map(|_| proxy().err()).unwrap();
    let expected = (Code::ResourceExhausted, "too many streams are opened at once; try again");
    assert_eq!((refused.code(), refused.message()), expected);
}

#[test]
fn a_claim_that_the_certificate_does_not_bear_out_is_refused() {
    let desk = Desk::new();
    let limiter = "spiffe://chancery.local/rate-limiter/limiter-1";
    let proxy = "spiffe://chancery.local/fleet/edge/proxy/edge-1";
    for (certificate, cluster, id, reason) in [
        (proxy, "rate-limiter", "edge-1", "the certificate is of cluster \"edge\", the node claims \"rate-limiter\""),
        (limiter, "edge", "limiter-1", "the certificate is of cluster \"rate-limiter\", the node claims \"edge\""),
        (
            limiter,
            "rate-limiter",
            "limiter-2",
            "the certificate is of \"limiter-1\", the node claims to be \"limiter-2\"",
        ),
        ("spiffe://other/rate-limiter/a", "rate-limiter", "a", "the certificate is of trust domain \"other\""),
        ("spiffe://chancery.local/fleet/core/proxy/a", "core", "a", "there is no fleet \"core\""),
        (
            "spiffe://chancery.local/control-plane",
            "edge",
            "edge-1",
            "the client certificate names neither a proxy nor a rate limiter nor an operator",
        ),
        ("spiffe://chancery.local/operator/ops", "operator", "ops", "an operator is served no configuration"),
    ] {
        let refused = desk.admit(certificate, cluster, id).err();
        assert_eq!(refused.as_deref(), Some(reason), "{certificate}");
    }
    // A fleet may have the name of the limiters' cluster; its proxies are none.
    let fleet = FleetChanges { fleet: FleetChange::Created, ..FleetChanges::default() };
    desk.publisher.publish(2, Changes { fleets: [(name("rate-limiter"), fleet)].into(), ..Changes::default() });
    let namesake = "spiffe://chancery.local/fleet/rate-limiter/proxy/limiter-1";
    let namesake = desk.admit(namesake, "rate-limiter", "limiter-1").unwrap();
    assert!(names(&namesake, type_url::RATE_LIMIT_DOMAIN).is_empty());
}

#[test]
fn only_a_proxy_reports_load_and_for_itself() {
    let desk = Desk::new();
    let reporter = |certificate, cluster: &str, id: &str| {
        let node = Node { id: id.into(), cluster: cluster.into(), ..Node::default() };
        let admitted = desk.admission.reporter(&extensions(certificate), &node);
        admitted.map(|(proxy, ended)| (proxy.to_string(), ended)).map_err(|status| status.message().to_owned())
    };
    let proxy = "spiffe://chancery.local/fleet/edge/proxy/edge-1";
    let (admitted, ended) = reporter(proxy, "edge", "edge-1").unwrap();
    assert_eq!((admitted.as_str(), ended.is_cancelled()), (proxy, false));
    for (certificate, cluster, id) in [
        (proxy, "core", "edge-1"),
        (proxy, "edge", "edge-2"),
        ("spiffe://chancery.local/rate-limiter/limiter-1", "rate-limiter", "limiter-1"),
        ("spiffe://chancery.local/operator/edge-1", "operator", "edge-1"),
        ("spiffe://chancery.local/fleet/core/proxy/a", "core", "a"),
        ("spiffe://other/fleet/edge/proxy/edge-1", "edge", "edge-1"),
    ] {
        assert!(reporter(certificate, cluster, id).is_err(), "{certificate} as {cluster}/{id}");
    }
    let gone = FleetChanges { fleet: FleetChange::Deleted, ..FleetChanges::default() };
    desk.publisher.publish(2, Changes { fleets: [(name("edge"), gone)].into(), ..Changes::default() });
    assert!(ended.is_cancelled());
}

#[tokio::test]
async fn a_limiter_is_listed_and_waited_for_where_its_limits_change() {
    let desk = Desk::new();
    let _streams = (desk.limiter(), desk.proxy());
    let listed: Vec<_> = desk.proxies.list(None).into_iter().map(|one| (one.role, one.fleet, one.id)).collect();
    let expected = [(Role::RateLimiter, "", "limiter-1"), (Role::Proxy, "edge", "edge-1")];
    assert_eq!(listed, expected.map(|(role, fleet, id)| (role, fleet.to_owned(), id.to_owned())));
    assert_eq!(desk.proxies.list(Some(&name("edge"))).len(), 1);

    let waited = async |fleets: &[&str], limiters| {
        let fleets = fleets.iter().map(|fleet| name(fleet)).collect();
        let committed = Committed { revision: 1, changed: Vec::new(), fleets, limiters, published: Instant::now() };
        desk.proxies.wait_applied(&committed, &BTreeMap::new(), Instant::now() + Duration::from_millis(1)).await.pending
    };
    assert_eq!(waited(&["edge"], false).await, ["edge-1"]);
    assert_eq!(waited(&[], true).await, ["limiter-1"]);
}
