//! What others may speak, and how their connections end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chancery_runtime::tls::{ClientTls, ClientTlsFiles, ServerTls, ServerTlsFiles};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{
    authority::Authority,
    inbound::{application, settings},
    support::{Backend, Client, DEADLINE, base},
};
use crate::{
    config::snapshot::Target,
    policy::concurrency::{self, Concurrency},
    proxy::{
        accept::{AcceptLimits, Carries, Opaque, Port},
        stack::{Inbound, InboundSettings},
    },
};

/// The way in, to an application.
struct There {
    address: SocketAddr,
    finish: CancellationToken,
    _serving: JoinSet<()>,
}

impl There {
    async fn start(settings: InboundSettings, carries: fn(Opaque) -> Carries, tls: Option<ServerTls>) -> Self {
        let base = base();
        let concurrency = Concurrency::new(concurrency::Settings::Fixed(10), base.clock.now());
        let inbound = Arc::new(Inbound::new(settings, base, Arc::new(parking_lot::Mutex::new(concurrency))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let carried = inbound.clone();
        let opaque: Opaque = Arc::new(move |peer| carried.tunnel(peer));
        let port = Port::new(listener, tls, AcceptLimits::default()).carrying(carries(opaque));
        let finish = port.end().finish;
        let mut serving = JoinSet::new();
        serving.spawn(port.serve(move |peer| {
            let (inbound, caller) = (inbound.clone(), inbound.caller(peer));
            tower::service_fn(move |request| inbound.clone().call(caller.clone(), request))
        }));
        Self { address, finish, _serving: serving }
    }
}

/// An application that says `hello` if it speaks first, and says again, in capitals, what it hears.
async fn shouting(speaks_first: bool) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if speaks_first {
                stream.write_all(b"hello").await.unwrap();
            }
            let mut heard = String::new();
            let _ = stream.read_to_string(&mut heard).await;
            let _ = stream.write_all(heard.to_uppercase().as_bytes()).await;
        }
    });
    (address, tasks)
}

/// Says this and no more, and hears the answer to its end.
async fn say<I: AsyncRead + AsyncWrite + Unpin>(mut stream: I, text: &str) -> String {
    let exchange = async {
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(DEADLINE, exchange).await.unwrap()
}

async fn to(there: &There) -> TcpStream {
    TcpStream::connect(there.address).await.unwrap()
}

fn at(application: &Backend, address: SocketAddr) -> InboundSettings {
    InboundSettings { application: Target::Address(address), ..settings(application) }
}

#[tokio::test]
async fn what_is_no_http_reaches_the_application_as_it_is() {
    let http = application().await;
    let (address, _shouting) = shouting(false).await;
    let there = There::start(at(&http, address), Carries::Detected, None).await;
    assert_eq!(say(to(&there).await, "set key\r\n").await, "SET KEY\r\n");
    assert_eq!(say(to(&there).await, "\u{0}\u{1}abc").await, "\u{0}\u{1}ABC");
    // HTTP is HTTP, whatever the application would do with it.
    let answer = say(to(&there).await, "GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await;
    assert!(!answer.contains("HOST: SHOP"), "{answer}");

    let there = There::start(settings(&http), Carries::Detected, None).await;
    assert_eq!(Client::connect(there.address).await.get("/").await.body, "HTTP/1.1 nobody");
    let there = There::start(at(&http, address), |_| Carries::Http, None).await;
    let answer = say(to(&there).await, "set key\r\n").await;
    assert!(!answer.contains("SET"), "nothing but HTTP unless it is asked for: {answer}");
}

#[tokio::test]
async fn a_server_that_speaks_first_has_to_be_declared() {
    let http = application().await;
    let (address, _shouting) = shouting(true).await;
    let there = There::start(at(&http, address), Carries::All, None).await;
    let mut stream = to(&there).await;
    let mut hello = [0; 5];
    timeout(DEADLINE, stream.read_exact(&mut hello)).await.unwrap().unwrap();
    assert_eq!(&hello, b"hello");
    assert_eq!(say(stream, "GET /").await, "GET /");
}

#[tokio::test]
async fn only_those_who_may_call_send_bytes_and_what_was_agreed_on_needs_no_look() {
    let authority = Authority::new();
    let (certificate, private_key) = authority.issue("b", "spiffe://chancery.local/fleet/edge/proxy/b", &["localhost"]);
    let files = ServerTlsFiles { certificate, private_key, client_ca: authority.file() };
    let tls = ServerTls::offering(files, &[b"h2", b"http/1.1"]).unwrap();
    let http = application().await;
    let (address, _shouting) = shouting(false).await;
    let there = There::start(at(&http, address), Carries::Detected, Some(tls)).await;
    let connect = async |uri: &str, protocols: &[&str]| {
        let files = ClientTlsFiles { ca: authority.file(), identity: Some(authority.issue("a", uri, &[])) };
        let mut config = ClientConfig::clone(&ClientTls::load(&files).unwrap().config());
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, to(&there).await).await
    };
    let friend = "spiffe://chancery.local/fleet/edge/proxy/a";
    assert_eq!(say(connect(friend, &[]).await.unwrap(), "set key\r\n").await, "SET KEY\r\n");
    let stranger = "spiffe://chancery.local/fleet/core/proxy/a";
    assert_eq!(say(connect(stranger, &[]).await.unwrap(), "set key\r\n").await, "");
    // The best that both know; and what was agreed on is no longer a question of what comes.
    for (offered, agreed) in [(&["h2", "http/1.1"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let stream = connect(friend, offered).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
        assert!(!say(stream, "set key\r\n").await.contains("SET"));
    }
    assert!(connect(friend, &["smtp"]).await.is_err());
}

#[tokio::test]
async fn who_has_not_heard_of_the_end_is_served_once_more() {
    let http = application().await;
    let there = There::start(settings(&http), |_| Carries::Http, None).await;
    let (mut idle, mut silent) = (Client::connect(there.address).await, Client::connect(there.address).await);
    assert!(!idle.get("/").await.headers.contains_key("connection"));
    there.finish.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut late = Client::connect(there.address).await;
    for client in [&mut idle, &mut silent, &mut late] {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.headers["connection"].as_bytes()), (200, &b"close"[..]));
        timeout(DEADLINE, client.closed()).await.expect("it is closed after the answer");
    }
}

#[tokio::test]
async fn who_stays_idle_at_the_end_is_closed() {
    let http = application().await;
    let there = There::start(settings(&http), |_| Carries::Http, None).await;
    let mut idle = Client::connect(there.address).await;
    idle.get("/").await;
    there.finish.cancel();
    timeout(DEADLINE, idle.closed()).await.expect("it is closed after a while");
}
