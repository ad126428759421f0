//! Connections that are used again, and those that turn out to be dead.

use std::{
    convert::Infallible,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use h2::{Reason, server::SendResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{Notify, Semaphore},
    task::JoinSet,
};
use tokio_util::task::TaskTracker;

use super::support::{Backend, Client, DEADLINE, Sidecar, cluster, request, route_to, snapshot};
use crate::{
    config::{
        routes::{HeaderEdit, Route},
        snapshot::{ClusterSettings, Protocol, Target},
    },
    proxy::{
        body::{self, Body, boxed},
        connect::Connector,
        pool::{Pool, PoolSettings},
        stall::Patience,
    },
};

#[tokio::test]
async fn one_connection_serves_one_caller_after_another() {
    let backend = Backend::saying("ok").await;
    let at = cluster("c", &[backend.address], ClusterSettings::default());
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    for _ in 0..20 {
        Client::connect(sidecar.address).await.get("/").await;
    }
    assert_eq!((backend.requests(), backend.connections()), (20, 1));
}

#[tokio::test]
async fn no_more_connections_are_made_than_allowed() {
    let backend = Backend::start(async move |_| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Response::new(body::full("ok"))
    })
    .await;
    let settings = ClusterSettings { max_connections: 2, ..ClusterSettings::default() };
    let at = cluster("c", &[backend.address], settings);
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let address = sidecar.address;
        clients.spawn(async move { Client::connect(address).await.get("/").await.status });
    }
    assert!(clients.join_all().await.iter().all(|status| *status == 200));
    assert!(backend.connections() <= 2, "{}", backend.connections());
}

#[tokio::test]
async fn idle_connections_are_closed_before_the_server_does_it() {
    let backend = Backend::saying("ok").await;
    let settings = ClusterSettings { idle_timeout: Duration::from_millis(50), ..ClusterSettings::default() };
    let at = cluster("c", &[backend.address], settings);
    let sidecar = Sidecar::start(snapshot(at, route_to("c", None))).await;
    let mut client = Client::connect(sidecar.address).await;
    client.get("/").await;
    let pool = sidecar.outbound.world.load().upstreams["c"].members[0].pool.clone();
    assert_eq!(pool.idle(), 1);
    tokio::time::timeout(super::support::DEADLINE, async {
        while pool.idle() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            sidecar.outbound.world.load().sweep();
        }
    })
    .await
    .unwrap();
    client.get("/").await;
    assert_eq!(backend.connections(), 2);
}

/// Answers one request on each of two connections, and leaves them to the test.
fn answering_twice() -> (SocketAddr, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let streams = Arc::<Mutex<Vec<TcpStream>>>::default();
    let kept = streams.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().take(2).flatten() {
            let _ = stream.read(&mut [0; 1024]);
            kept.lock().push(stream.try_clone().unwrap());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        }
    });
    (address, streams)
}

#[tokio::test]
async fn a_request_that_meets_a_dead_connection_goes_over_another() {
    let close = |stream: &TcpStream| stream.shutdown(Shutdown::Both);
    let say_so_first = |mut stream: &TcpStream| stream.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n");
    for end in [close as fn(&TcpStream) -> std::io::Result<()>, say_so_first] {
        let (address, streams) = answering_twice();
        let pool = http1_to(address);
        let post = || request("POST", "/", "body").map(boxed);
        let first = pool.send(post()).await.unwrap();
        assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "ok");
        // Nothing here has had a chance to notice when it is used again: there is one thread, and it does not wait in between.
        end(&streams.lock()[0]).unwrap();
        assert_eq!(pool.idle(), 1);
        // Neither the method nor the lack of a retry policy matters: nothing was sent.
        assert_eq!(pool.send(post()).await.unwrap().status(), 200);
        assert_eq!(streams.lock().len(), 2);
    }
}

#[tokio::test]
async fn an_idle_connection_that_its_server_has_closed_is_not_kept() {
    let (address, streams) = answering_twice();
    let pool = http1_to(address);
    let answer = pool.send(request("GET", "/", "").map(boxed)).await.unwrap();
    answer.into_body().collect().await.unwrap();
    assert_eq!(pool.idle(), 1);
    streams.lock()[0].shutdown(Shutdown::Both).unwrap();
    let swept = async {
        while pool.idle() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            pool.sweep();
        }
    };
    tokio::time::timeout(DEADLINE, swept).await.unwrap();
}

/// An HTTP/1.1 server of one request, which has its connection once the head is read.
async fn speaking<F>(then: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static) -> (Pool, JoinSet<()>)
where
    F: Future<Output = ()> + Send,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = http1_to(listener.local_addr().unwrap());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        then(stream).await;
    });
    (pool, serving)
}

#[tokio::test]
async fn an_answer_over_http1_may_come_before_the_end_of_its_request() {
    let (pool, mut serving) = speaking(async |mut stream| {
        stream.write_all(b"HTTP/1.1 413 Too Much\r\ncontent-length: 8\r\n\r\ntoo much").await.unwrap();
        // Until nobody sends any more.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")))]);
    let endless = StreamBody::new(first.chain(futures_util::stream::pending()));
    let response = pool.send(request("POST", "/", "").map(|_| boxed(endless))).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too much");
    assert_eq!(pool.idle(), 0, "what follows would be taken for the rest");
    tokio::time::timeout(DEADLINE, serving.join_next()).await.expect("it is closed");
}

#[tokio::test]
async fn a_request_over_http1_goes_on_while_nobody_reads_its_answer() {
    const SIZE: usize = 8 << 20;
    let received = Arc::new(Notify::new());
    let told = received.clone();
    let (pool, _serving) = speaking(async move |stream| {
        let (mut from, mut to) = stream.into_split();
        let answer = tokio::spawn(async move {
            // More than there is room for on the way.
            to.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes()).await.unwrap();
            to.write_all(&vec![0; SIZE]).await.unwrap();
        });
        from.read_exact(&mut vec![0; SIZE]).await.unwrap();
        told.notify_one();
        answer.await.unwrap();
    })
    .await;
    let pieces = futures_util::stream::iter((0..SIZE / 1024).map(|_| Bytes::from(vec![0; 1024]))).then(async |piece| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Frame::data(piece))
    });
    let mut request = request("POST", "/", "").map(|_| boxed(StreamBody::new(Box::pin(pieces))));
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(SIZE));
    let unread = pool.send(request).await.unwrap();
    tokio::time::timeout(DEADLINE, received.notified()).await.expect("all of it arrives");
    assert_eq!(unread.into_body().collect().await.unwrap().to_bytes().len(), SIZE);
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_asked_for() {
    let (pool, mut serving) = speaking(async |mut stream| {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let asked = tokio::time::timeout(Duration::from_millis(100), pool.send(request("GET", "/", "").map(boxed)));
    assert!(asked.await.is_err());
    tokio::time::timeout(DEADLINE, serving.join_next()).await.expect("it is closed");
}

/// An HTTP/2 server that ends its first connection with the first request on it, which it has not looked at, and answers on the next.
async fn ending_once() -> (SocketAddr, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        // SETTINGS, and word that those of the other side were read.
        first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0]).await.unwrap();
        let mut heard = Vec::new();
        // HEADERS that begin stream 1: its type, any flags, its number.
        let is_request = |heard: &[u8]| heard.windows(6).any(|at| at[0] == 1 && at[2..] == [0, 0, 0, 1]);
        while !is_request(&heard) {
            first.read_buf(&mut heard).await.unwrap();
        }
        // GOAWAY: the last stream was 0, and nothing is wrong.
        first.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).await.unwrap();
        let (second, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
            let kept = request.headers().get_all("x-kept").iter().map(|value| value.to_str().unwrap());
            Ok::<_, Infallible>(Response::new(body::full(kept.fold("ok".to_owned(), |all, one| all + one))))
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(second), service).await;
    });
    (address, serving)
}

#[tokio::test]
async fn a_request_that_a_server_at_its_end_has_not_looked_at_goes_over_another_connection() {
    let (address, _serving) = ending_once().await;
    let settings = ClusterSettings { protocol: Protocol::Http2, ..ClusterSettings::default() };
    let sidecar = Sidecar::start(snapshot(cluster("c", &[address], settings), route_to("c", None))).await;
    let answer = Client::connect(sidecar.address).await.get("/").await;
    assert_eq!((answer.status, &*answer.body), (200, &b"ok"[..]));
}

#[tokio::test]
async fn so_does_one_whose_body_is_yet_to_come() {
    let (address, _serving) = ending_once().await;
    let later = futures_util::stream::once(async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"body")))
    });
    let pool = http2_to(address);
    let mut request = over_http2("POST", boxed(StreamBody::new(Box::pin(later))));
    for value in [" and", " whole"] {
        request.headers_mut().append("x-kept", HeaderValue::from_static(value));
    }
    let response = pool.send(request).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok and whole");
}

#[tokio::test]
async fn no_more_is_sent_than_any_server_takes_until_it_has_said_how_much_it_does() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Arc::new(http2_to(listener.local_addr().unwrap()));
    let mut requests = JoinSet::new();
    for _ in 0..150 {
        let pool = pool.clone();
        requests.spawn(async move { pool.send(over_http2("GET", body::empty())).await });
    }
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.read_exact(&mut [0; "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len()]).await.unwrap();
    let mut begun = 0;
    let counted = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            stream.read_exact(&mut vec![0; length as usize]).await.unwrap();
            // HEADERS.
            begun += u32::from(head[3] == 1);
        }
    };
    tokio::time::timeout(Duration::from_millis(300), counted).await.expect_err("nothing ends it");
    assert_eq!(begun, 100);
}

#[tokio::test]
async fn what_a_route_adds_may_be_of_one_connection_only() {
    let backend = Backend::saying("ok").await;
    let settings = ClusterSettings { protocol: Protocol::Http2, ..ClusterSettings::default() };
    let set = |name, value| HeaderEdit::Set(HeaderName::from_static(name), HeaderValue::from_static(value));
    let route = Route { request_headers: vec![set("connection", "close"), set("te", "gzip")], ..route_to("c", None) };
    let sidecar = Sidecar::start(snapshot(cluster("c", &[backend.address], settings), route)).await;
    assert_eq!(Client::connect(sidecar.address).await.get("/").await.status, 200);
}

fn http1_to(address: SocketAddr) -> Pool {
    pool_to(address, Protocol::Http1)
}

fn http2_to(address: SocketAddr) -> Pool {
    pool_to(address, Protocol::Http2)
}

fn pool_to(address: SocketAddr, protocol: Protocol) -> Pool {
    let settings =
        PoolSettings { connect_timeout: DEADLINE, idle_timeout: Duration::from_secs(50), max_connections: 10 };
    let connector = Connector { target: Target::Address(address), tls: None };
    Pool::new(connector, protocol, settings, Patience(DEADLINE), TaskTracker::new())
}

fn over_http2(method: &str, body: Body) -> Request<Body> {
    Request::builder().method(method).uri("http://shop/").body(body).unwrap()
}

/// An HTTP/2 server that does this with each request.
async fn serving<F, R>(answer: F) -> (Pool, JoinSet<()>)
where
    F: Fn(http::Request<h2::RecvStream>, SendResponse<Bytes>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut connection, mut answers) = (h2::server::handshake(stream).await.unwrap(), JoinSet::new());
        while let Some(Ok((request, respond))) = connection.accept().await {
            answers.spawn(answer(request, respond));
        }
    });
    (http2_to(address), serving)
}

/// An HTTP/2 server that takes two requests at a time over each connection, and answers when it is told; how many are under way with it, and
/// over how many connections they have come.
async fn taking_two_at_a_time() -> (SocketAddr, Arc<[AtomicUsize; 2]>, Arc<Semaphore>, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (counts, answers) = (Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]), Arc::new(Semaphore::new(0)));
    let (counted, told) = (counts.clone(), answers.clone());
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted[1].fetch_add(1, SeqCst);
            let (counted, told) = (counted.clone(), told.clone());
            let service = hyper::service::service_fn(move |_| {
                counted[0].fetch_add(1, SeqCst);
                let (counted, told) = (counted.clone(), told.clone());
                async move {
                    told.acquire().await.unwrap().forget();
                    counted[0].fetch_sub(1, SeqCst);
                    Ok::<_, Infallible>(Response::new(body::full("ok")))
                }
            });
            let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.max_concurrent_streams(2);
            connections.spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, counts, answers, serving)
}

#[tokio::test]
async fn a_server_that_takes_no_more_on_a_connection_is_sent_them_on_another() {
    for (max_connections, connections) in [(10, 3), (2, 2)] {
        let (address, counts, answers, _serving) = taking_two_at_a_time().await;
        let settings = PoolSettings { connect_timeout: DEADLINE, idle_timeout: Duration::ZERO, max_connections };
        let connector = Connector { target: Target::Address(address), tls: None };
        let pool = Pool::new(connector, Protocol::Http2, settings, Patience(DEADLINE), TaskTracker::new());
        let pool = Arc::new(pool);
        answers.add_permits(1);
        // From the first answer on it is known how many it takes.
        pool.send(over_http2("GET", body::empty())).await.unwrap().into_body().collect().await.unwrap();
        let mut requests = JoinSet::new();
        for _ in 0..5 {
            let pool = pool.clone();
            requests.spawn(async move {
                let response = pool.send(over_http2("GET", body::empty())).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            });
        }
        let expected = (5.min(2 * connections), connections);
        let seen = || (counts[0].load(SeqCst), counts[1].load(SeqCst));
        let waited = tokio::time::timeout(DEADLINE, async {
            while seen() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{:?}, not {expected:?}", seen()));
        answers.add_permits(5);
        assert!(requests.join_all().await.iter().all(|answer| answer == "ok"));
        assert_eq!(pool.idle(), connections);
        pool.sweep();
        assert_eq!(pool.idle(), 0);
    }
}

#[tokio::test]
async fn an_answer_that_is_reset_before_its_end_is_not_whole() {
    for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR] {
        let (pool, _serving) = serving(move |_, mut respond| async move {
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"half"), false).unwrap();
            // What has not left yet would be reset, too.
            tokio::time::sleep(Duration::from_millis(50)).await;
            body.send_reset(reason);
        })
        .await;
        let mut body = pool.send(over_http2("GET", body::empty())).await.unwrap().into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
        assert!(body.frame().await.is_none_or(|more| more.is_err()) && !body.is_end_stream(), "{reason}");
    }
}

#[tokio::test]
async fn an_answer_may_come_before_the_end_of_its_request() {
    let (pool, _serving) = serving(|request, mut respond| async move {
        drop(request);
        let refused = Response::builder().status(413).body(()).unwrap();
        respond.send_response(refused, false).unwrap().send_data(Bytes::from_static(b"too much"), true).unwrap();
    })
    .await;
    let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"x")))]);
    let endless = StreamBody::new(first.chain(futures_util::stream::pending()));
    let response = pool.send(over_http2("POST", boxed(endless))).await.unwrap();
    assert_eq!((response.status().as_u16(), pool.idle()), (413, 0));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "too much");
    assert_eq!(pool.idle(), 1, "nobody is sent the rest");
}

#[tokio::test]
async fn a_request_goes_on_while_nobody_reads_its_answer() {
    const SIZE: usize = 2 << 20;
    let received = Arc::new(Notify::new());
    let told = received.clone();
    let (pool, _serving) = serving(move |request, mut respond| {
        let told = told.clone();
        async move {
            let mut answer = respond.send_response(Response::new(()), false).unwrap();
            // More than there is room for on the way.
            answer.send_data(Bytes::from(vec![0; SIZE]), true).unwrap();
            let (mut body, mut all) = (request.into_body(), 0);
            while let Some(data) = body.data().await {
                let data = data.unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                all += data.len();
            }
            assert_eq!(all, SIZE);
            told.notify_one();
        }
    })
    .await;
    let pieces = futures_util::stream::iter((0..SIZE / 1024).map(|_| Bytes::from(vec![0; 1024]))).then(async |piece| {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(Frame::data(piece))
    });
    let unread = pool.send(over_http2("POST", boxed(StreamBody::new(Box::pin(pieces))))).await.unwrap();
    tokio::time::timeout(DEADLINE, received.notified()).await.expect("all of it arrives");
    assert_eq!(unread.into_body().collect().await.unwrap().to_bytes().len(), SIZE);
}

#[tokio::test]
async fn bodies_and_their_trailers_pass_in_both_directions_and_whatever_the_window() {
    const SIZE: usize = 300 << 10;
    let (pool, _serving) = serving(|request, mut respond| async move {
        let mut body = request.into_body();
        let mut answer = respond.send_response(Response::new(()), false).unwrap();
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            answer.send_data(data, false).unwrap();
        }
        answer.send_trailers(body.trailers().await.unwrap().unwrap()).unwrap();
    })
    .await;
    let mut trailers = HeaderMap::from_iter([(HeaderName::from_static("x-end"), HeaderValue::from_static("yes"))]);
    let sent = trailers.clone();
    // Of the connection on which they came.
    trailers.insert("keep-alive", HeaderValue::from_static("timeout=5"));
    let pieces = (0..SIZE / 1024).map(|n| Frame::data(Bytes::from(vec![n as u8; 1024])));
    let frames = pieces.chain([Frame::trailers(trailers)]).map(Ok::<_, Infallible>);
    let body = boxed(StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())));
    let echoed = pool.send(over_http2("POST", body)).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(echoed.trailers(), Some(&sent));
    let bytes = echoed.to_bytes();
    assert!(
        bytes.len() == SIZE && bytes.chunks(1024).enumerate().all(|(n, piece)| piece.iter().all(|b| *b == n as u8))
    );
}
