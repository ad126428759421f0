//! Out of one sidecar into another, over mTLS: each proves who it is.

use std::{sync::Arc, time::Duration};

use chancery_runtime::tls::{ServerTls, ServerTlsFiles};
use http::HeaderValue;
use regex::bytes::Regex;

use super::{
    authority::Authority,
    inbound::{application, serve, settings},
    support::{Backend, Client, Sidecar, base, cluster, request, route_to, snapshot},
};
use crate::{
    config::{
        snapshot::{ClusterSettings, Protocol, Target},
        tls::{Certificate, Own, PeerMatch, Pem, UpstreamTls, UriPattern},
    },
    proxy::{tls::Credentials, world::Base},
};

const A: &str = "spiffe://chancery.local/fleet/edge/proxy/a";
const B: &str = "spiffe://chancery.local/fleet/edge/proxy/b";

/// The way in of B, which has no DNS name.
struct There {
    authority: Authority,
    address: std::net::SocketAddr,
    _application: Backend,
    _serving: tokio::task::JoinSet<()>,
}

impl There {
    async fn start() -> Self {
        let authority = Authority::new();
        let (certificate, private_key) = authority.issue("b", B, &[]);
        let files = ServerTlsFiles { certificate, private_key, client_ca: authority.file() };
        let tls = ServerTls::offering(files, &[b"h2", b"http/1.1"]).unwrap();
        let application = application().await;
        let (address, serving) = serve(settings(&application), 10, Some(tls)).await;
        Self { authority, address, _application: application, _serving: serving }
    }

    /// The way out of one that is `own` and holds B to `tls`.
    async fn reached_by(&self, own: Option<Own>, tls: UpstreamTls, protocol: Protocol) -> Sidecar {
        let settings = ClusterSettings { protocol, tls: Some(tls), ..ClusterSettings::default() };
        let snapshot = snapshot(cluster("b", &[self.address], settings), route_to("b", None));
        Sidecar::start_as(snapshot, Base { identity: own.map(Arc::new), ..base() }).await
    }
}

fn one_of(peers: &[PeerMatch]) -> UpstreamTls {
    UpstreamTls { peers: peers.to_vec(), ..UpstreamTls::default() }
}

#[tokio::test]
async fn each_side_knows_the_other_in_both_versions_of_http() {
    let there = There::start().await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let own = there.authority.own("a", A);
        let sidecar = there.reached_by(Some(own), one_of(&[PeerMatch::Uri(B.into())]), protocol).await;
        let mut client = Client::connect(sidecar.address).await;
        let mut lying = request("GET", "/", "");
        lying.headers_mut().insert("x-chancery-peer", HeaderValue::from_static(B));
        assert_eq!(client.send(lying).await.body, format!("HTTP/1.1 {A}"), "{protocol:?}");
    }
}

#[tokio::test]
async fn who_is_not_who_it_has_to_be_is_sent_nothing() {
    let there = There::start().await;
    let ask = async |own: Option<Own>, tls: UpstreamTls| {
        let sidecar = there.reached_by(own, tls, Protocol::Http1).await;
        Client::connect(sidecar.address).await.get("/").await.status
    };
    let own = there.authority.own("a", A);
    let uri = |text: &str| PeerMatch::Uri(text.into());
    let prefix = |text: &str| PeerMatch::UriPrefix(text.into());
    let pattern = |text: &str| PeerMatch::UriPattern(UriPattern(Regex::new(text).unwrap()));
    for (peers, status) in [
        (vec![uri(B)], 200),
        (vec![uri(A)], 503),
        (vec![uri(A), uri(B)], 200),
        (vec![prefix("spiffe://chancery.local/fleet/edge/")], 200),
        (vec![prefix("spiffe://chancery.local/fleet/core/")], 503),
        (vec![pattern("^(?:spiffe://[^/]+/fleet/edge/proxy/[^/]+)$")], 200),
        (vec![pattern("^(?:spiffe://[^/]+/fleet/core/proxy/[^/]+)$")], 503),
        (vec![PeerMatch::Name("b.example.com".into())], 503),
        // Without anybody expected, the name that is asked for counts, and B has none.
        (vec![], 503),
    ] {
        assert_eq!(ask(Some(own.clone()), one_of(&peers)).await, status, "{peers:?}");
    }
    // The right name, of another authority.
    let foreign = Authority::new();
    let trusting_others = UpstreamTls { authorities: Some(Pem::File(foreign.file())), ..one_of(&[uri(B)]) };
    assert_eq!(ask(Some(own), trusting_others).await, 503);
    assert_eq!(ask(Some(foreign.own("a", A)), one_of(&[uri(B)])).await, 503);
    assert_eq!(ask(None, one_of(&[uri(B)])).await, 503, "plaintext is no substitute");
}

#[tokio::test]
async fn an_identity_that_came_with_the_configuration_changes_with_it_and_no_request_is_lost() {
    let there = There::start().await;
    let tls = |uri: &str| {
        let (chain, key) = there.authority.issue_pem(uri, &[]);
        let inline = |text: String| Pem::Inline(text.into_bytes().into());
        UpstreamTls {
            certificate: Some(Certificate { chain: inline(chain), key: inline(key) }),
            authorities: Some(inline(there.authority.pem())),
            ..one_of(&[PeerMatch::Uri(B.into())])
        }
    };
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let sidecar = there.reached_by(None, tls(A), protocol).await;
        let mut client = Client::connect(sidecar.address).await;
        for n in 0..5 {
            let now = format!("{A}-{n}");
            let settings = ClusterSettings { protocol, tls: Some(tls(&now)), ..ClusterSettings::default() };
            sidecar.configure(snapshot(cluster("b", &[there.address], settings), route_to("b", None)));
            assert_eq!(client.get("/").await.body, format!("HTTP/1.1 {now}"));
        }
    }
}

#[tokio::test]
async fn files_are_read_again_and_those_that_are_broken_change_nothing() {
    let authority = Authority::new();
    let own = Arc::new(authority.own("a", A));
    let of = |own: &Arc<Own>| {
        Credentials::new(one_of(&[PeerMatch::Uri(B.into())]), Some(own.clone()), Some(Protocol::Http2))
    };
    tokio::time::pause();
    let credentials = of(&own);
    let first = credentials.config().unwrap();
    assert!(Arc::ptr_eq(&first, &credentials.config().unwrap()), "not with every connection");
    authority.own("a", A);
    let later = async || tokio::time::advance(Duration::from_secs(11)).await;
    later().await;
    let second = credentials.config().unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    let Pem::File(key) = &own.certificate.key else { panic!("a file") };
    std::fs::write(key, "half").unwrap();
    later().await;
    assert!(Arc::ptr_eq(&second, &credentials.config().unwrap()));
    assert!(of(&own).config().is_err());
}

#[test]
fn an_endpoint_is_asked_for_by_its_own_name_where_that_is_wanted_and_it_has_one() {
    let name = |by_host: bool, target: Target| {
        let tls = UpstreamTls { server_name: Some("sni.example.com".into()), by_host, ..UpstreamTls::default() };
        Credentials::new(tls, None, Some(Protocol::Http1)).name(&target).unwrap().to_str().into_owned()
    };
    let named = || Target::Name("a.example.com".into(), 443);
    assert_eq!(name(true, named()), "a.example.com");
    assert_eq!(name(false, named()), "sni.example.com");
    assert_eq!(name(true, Target::Address(([10, 0, 0, 1], 443).into())), "sni.example.com");
}
