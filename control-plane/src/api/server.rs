//! Connections of the API: HTTP/1 and HTTP/2 over each that is taken, none for longer than it is of use.
//!
//! Not axum's server: it waits for the head of a request for ever, and takes as many connections as come.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use super::guard::Peer;

/// How much a client may take up.
#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Connections at once; more wait until one ends.
    connections: usize,
    /// The time for the head of a request, from when the connection is there or the last answer was complete.
    head: Duration,
    /// How long requests may be under way without anything of an answer being taken: longer than one may wait for proxies.
    stall: Duration,
    /// The time for answers under way once the server stops.
    grace: Duration,
}

const LIMITS: Limits = Limits {
    connections: 4096,
    head: Duration::from_secs(15),
    stall: Duration::from_secs(120),
    grace: Duration::from_secs(8),
};

/// HTTP/2 keepalive: a dead peer is noticed after the sum of both.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));

/// Requests at once over one connection.
const STREAMS: u32 = 128;

/// The longest head of HTTP/1 and /2; what [`super::observe`] refuses with a reason is shorter.
const HEAD_BYTES: u32 = 256 << 10;

/// How long to wait when no connection can be taken, as when there are no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Serves `router` to the connections that come in until `stop`, and ends them in order.
///
/// # Errors
/// Never: what goes wrong with a connection is that connection's.
pub async fn serve(router: Router, listener: TcpListener, stop: CancellationToken) -> Result<(), Infallible> {
    serve_within(LIMITS, router, listener, stop).await
}

async fn serve_within(
    limits: Limits,
    router: Router,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let (places, connections) = (Arc::new(Semaphore::new(limits.connections)), TaskTracker::new());
    let take = async || {
        // It is never closed.
        let place = places.clone().acquire_owned().await.ok();
        listener.accept().await.map(|(stream, peer)| (stream, peer, place))
    };
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => break,
            taken = take() => taken,
        };
        match taken {
            Ok((stream, peer, place)) => {
                let serving = serve_one(limits, router.clone(), stream, peer, stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection to the API");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

async fn serve_one(limits: Limits, router: Router, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    // Without it answers only come later.
    let _ = stream.set_nodelay(true);
    let under_way = UnderWay::new();
    let service = {
        let under_way = under_way.clone();
        service_fn(move |mut request: Request<Incoming>| {
            let one = under_way.one();
            request.extensions_mut().insert(Peer(peer));
            let answer = router.clone().oneshot(request.map(Body::new));
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Answer { body, one })) }
        })
    };
    let protocol = protocol(limits);
    let serving = protocol.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(serving);
    // hyper's own limit does not begin before it knows which protocol is spoken, and is for HTTP/1 alone.
    let look = sleep(limits.head);
    tokio::pin!(look);
    loop {
        tokio::select! {
            result = serving.as_mut() => return ended(result, peer),
            () = look.as_mut() => {
                let (requests, still) = under_way.still_for();
                let most = if requests == 0 { limits.head } else { limits.stall };
                if still >= most {
                    if requests > 0 {
                        return tracing::debug!(%peer, count = requests, "API connection cut off, it does not take its answers");
                    }
                    if !under_way.has_asked() {
                        return tracing::debug!(%peer, "API connection cut off, it never asked for anything");
                    }
                    break;
                }
                // Requests may end meanwhile, and less time is left then.
                look.as_mut().reset(Instant::now() + (most - still).min(limits.head));
            }
            () = stop.cancelled() => break,
        }
    }
    serving.as_mut().graceful_shutdown();
    if let Ok(result) = timeout(limits.grace, serving).await {
        ended(result, peer);
    }
}

/// How many requests of a connection are under way, answers included.
#[derive(Clone)]
struct UnderWay(Arc<Mutex<State>>);

struct State {
    requests: usize,
    asked: bool,
    /// When one came, went or was answered with a piece.
    moved: Instant,
}

/// One of them, until it is dropped.
struct One(UnderWay);

impl UnderWay {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State { requests: 0, asked: false, moved: Instant::now() })))
    }

    fn one(&self) -> One {
        let mut state = self.0.lock();
        state.requests += 1;
        state.asked = true;
        state.moved = Instant::now();
        drop(state);
        One(self.clone())
    }

    fn has_asked(&self) -> bool {
        self.0.lock().asked
    }

    fn moved(&self) {
        self.0.lock().moved = Instant::now();
    }

    /// How many there are, and for how long nothing has come of them.
    fn still_for(&self) -> (usize, Duration) {
        let state = self.0.lock();
        (state.requests, state.moved.elapsed())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.requests -= 1;
        state.moved = Instant::now();
    }
}

/// The body of an answer, with which its request ends.
struct Answer {
    body: Body,
    one: One,
}

impl HttpBody for Answer {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if frame.is_ready() {
            self.one.0.moved();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn protocol(limits: Limits) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol.http1().timer(TokioTimer::new()).header_read_timeout(limits.head).max_buf_size(HEAD_BYTES as usize);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .max_header_list_size(HEAD_BYTES)
        .max_concurrent_streams(STREAMS);
    protocol
}

fn ended(result: Result<(), Box<dyn std::error::Error + Send + Sync>>, peer: SocketAddr) {
    if let Err(error) = result {
        let error = chancery_runtime::telemetry::chain(error.as_ref());
        tracing::debug!(%peer, error, "API connection failed");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Long enough for anything here.
    const DEADLINE: Duration = Duration::from_secs(20);

    struct Server {
        address: SocketAddr,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<Result<(), Infallible>>,
    }

    async fn start(limits: Limits) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let slow = async || {
            sleep(Duration::from_millis(300)).await;
            "slow"
        };
        let router = Router::new().route("/", get(async || "quick")).route("/slow", get(slow));
        let serving = tokio::spawn(serve_within(limits, router, listener, stop.clone()));
        Server { address, stop, serving }
    }

    const SHORT: Limits = Limits {
        connections: 2,
        head: Duration::from_millis(200),
        stall: Duration::from_secs(2),
        grace: Duration::from_secs(10),
    };

    /// What comes back for `bytes`, until the server closes the connection.
    async fn all(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // A connection that is cut off may be reset.
        let _ = timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("the server closes it");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn who_does_not_ask_in_time_is_cut_off() {
        let server = start(SHORT).await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice();
        for sent in [b"".as_slice(), b"P", b"PRI * HT", b"GET / HTTP/1.1\r\nHost: a\r\n", preface] {
            let answer = all(server.address, sent).await;
            assert!(!answer.contains("200 OK"), "{answer}");
        }
        let after_one = all(server.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /").await;
        assert!(after_one.starts_with("HTTP/1.1 200 OK") && after_one.contains("quick"), "{after_one}");
    }

    #[tokio::test]
    async fn who_has_asked_over_http2_and_asks_no_more_is_not_kept() {
        let server = start(SHORT).await;
        // SETTINGS, then GET / of host a on stream 1.
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let head = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a'];
        let sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &head].concat();
        assert!(all(server.address, &sent).await.contains("quick"));
    }

    #[tokio::test]
    async fn who_does_not_take_the_answer_is_not_kept() {
        let server = start(SHORT).await;
        // SETTINGS with a window of 0 for each stream, then GET / of host a on stream 1.
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
        let head = [0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a'];
        let sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &settings, &head].concat();
        assert!(!all(server.address, &sent).await.contains("quick"));
    }

    #[tokio::test]
    async fn a_slow_answer_is_waited_for_and_a_stop_lets_it_end() {
        let server = start(SHORT).await;
        let asking = tokio::spawn(async move {
            all(server.address, b"GET /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await
        });
        sleep(Duration::from_millis(250)).await;
        server.stop.cancel();
        assert!(asking.await.unwrap().ends_with("slow"));
        timeout(DEADLINE, server.serving).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn more_connections_than_there_may_be_wait() {
        let server = start(Limits { head: DEADLINE, ..SHORT }).await;
        let held =
            [TcpStream::connect(server.address).await.unwrap(), TcpStream::connect(server.address).await.unwrap()];
        let asking = all(server.address, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        tokio::pin!(asking);
        assert!(timeout(Duration::from_millis(300), asking.as_mut()).await.is_err(), "there is no room");
        drop(held);
        assert!(asking.await.ends_with("quick"));
    }
}
