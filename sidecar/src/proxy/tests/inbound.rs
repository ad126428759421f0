//! What reaches the application, and from whom.

use std::{sync::Arc, time::Duration};

use chancery_runtime::tls::{ClientTls, ClientTlsFiles, ServerTls, ServerTlsFiles};
use http::{HeaderValue, Response};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    authority::Authority,
    support::{Answer, Backend, Client, DEADLINE, base, request},
};
use crate::{
    config::snapshot::Target,
    policy::concurrency::{self, Concurrency},
    proxy::{
        accept::{AcceptLimits, Port},
        body,
        pool::PoolSettings,
        stack::{Inbound, InboundSettings, PEER},
        world::Base,
    },
};

pub(super) fn settings(application: &Backend) -> InboundSettings {
    InboundSettings {
        application: Target::Address(application.address),
        trust_domain: "chancery.local".into(),
        allowed: vec!["fleet/edge/*".into()],
        anonymous: true,
        requests_per_second: None,
        pool: PoolSettings {
            connect_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(4),
            max_connections: 100,
        },
    }
}

/// The way in, served on a port.
pub(super) async fn serve(
    settings: InboundSettings,
    at_once: u32,
    tls: Option<ServerTls>,
) -> (std::net::SocketAddr, JoinSet<()>) {
    serve_as(settings, base(), at_once, tls).await
}

pub(super) async fn serve_as(
    settings: InboundSettings,
    base: Base,
    at_once: u32,
    tls: Option<ServerTls>,
) -> (std::net::SocketAddr, JoinSet<()>) {
    let concurrency = Concurrency::new(concurrency::Settings::Fixed(at_once), base.clock.now());
    let inbound = Arc::new(Inbound::new(settings, base, Arc::new(Mutex::new(concurrency))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(Port::new(listener, tls, AcceptLimits::default()).serve(move |peer| {
        let (inbound, caller) = (inbound.clone(), inbound.caller(peer));
        tower::service_fn(move |request| inbound.clone().call(caller.clone(), request))
    }));
    (address, serving)
}

pub(super) async fn application() -> Backend {
    Backend::start(async move |request: http::Request<hyper::body::Incoming>| {
        let peer = request.headers().get(PEER).map_or("nobody", |peer| peer.to_str().unwrap());
        Response::new(body::full(format!("{:?} {peer}", request.version())))
    })
    .await
}

#[tokio::test]
async fn a_caller_cannot_say_who_it_is() {
    let application = application().await;
    let (address, _serving) = serve(settings(&application), 10, None).await;
    let mut client = Client::connect(address).await;
    let mut lying = request("GET", "/", "");
    lying.headers_mut().insert(PEER, HeaderValue::from_static("spiffe://chancery.local/admin"));
    assert_eq!(client.send(lying).await.body, "HTTP/1.1 nobody");
    let mut grpc = request("POST", "/", "");
    grpc.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    assert_eq!(client.send(grpc).await.body, "HTTP/2.0 nobody");
}

#[tokio::test]
async fn what_is_too_much_or_too_late_does_not_reach_the_application() {
    let application = application().await;
    let (address, _serving) = serve(settings(&application), 0, None).await;
    let answer = Client::connect(address).await.get("/").await;
    assert_eq!((answer.status, answer.reason()), (503, "overload"));

    let one_a_second = InboundSettings { requests_per_second: 1.try_into().ok(), ..settings(&application) };
    let (address, _serving) = serve(one_a_second, 10, None).await;
    let mut client = Client::connect(address).await;
    assert_eq!(client.get("/").await.status, 200);
    let answer = client.get("/").await;
    assert_eq!((answer.status, answer.reason()), (429, "rate-limited"));

    let (address, _serving) = serve(settings(&application), 10, None).await;
    let mut late = request("GET", "/", "");
    late.headers_mut().insert("grpc-timeout", HeaderValue::from_static("0m"));
    let answer = Client::connect(address).await.send(late).await;
    assert_eq!((answer.status, answer.reason()), (504, "deadline"));
    assert_eq!(application.requests(), 1);
}

#[tokio::test]
async fn only_those_who_may_call_reach_the_application() {
    let authority = Authority::new();
    let (certificate, private_key) =
        authority.issue("server", "spiffe://chancery.local/fleet/edge/proxy/server", &["localhost"]);
    let tls = ServerTls::load(ServerTlsFiles { certificate, private_key, client_ca: authority.file() }).unwrap();
    let application = application().await;
    let (address, _serving) = serve(settings(&application), 10, Some(tls)).await;
    for (name, uri, status) in [
        ("friend", "spiffe://chancery.local/fleet/edge/proxy/a", 200),
        ("other-fleet", "spiffe://chancery.local/fleet/core/proxy/a", 403),
        ("other-domain", "spiffe://elsewhere/fleet/edge/proxy/a", 403),
    ] {
        let files = ClientTlsFiles { ca: authority.file(), identity: Some(authority.issue(name, uri, &[])) };
        let config = ClientTls::load(&files).unwrap().config();
        let stream = TcpStream::connect(address).await.unwrap();
        let server = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(config).connect(server, stream).await.unwrap();
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("http://shop/").body(Full::<bytes::Bytes>::default()).unwrap();
        let answer = Answer::of(timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()).await;
        assert_eq!(answer.status, status, "{name}");
        if status == 200 {
            assert_eq!(answer.body, format!("HTTP/1.1 {uri}"));
        }
    }
    assert_eq!(application.requests(), 1);
}
