//! How often the sidecar allocates for a request: bounds that a change must not cross unnoticed.
//!
//! A whole sidecar runs in this process, under a saved configuration, and every allocation on its worker thread is counted;
//! the threads of its clients and of the service behind it are not. Counts depend on no machine and no build, so they may be asserted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]
#![expect(unsafe_code, reason = "an allocator is unsafe to write")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    convert::Infallible,
    fs,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use chancery_proto::{
    describe::{json, types::Type},
    type_url,
};
use chancery_runtime::Shutdown;
use chancery_sidecar::{
    app::{self, Settings},
    config::held::Held,
};
use chancery_xds::client::{Batch, Received};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::watch,
    time::timeout,
};

/// Bytes of every answer.
const BODY: usize = 1_024;

/// Long enough for anything here.
const DEADLINE: Duration = Duration::from_secs(60);

/// Counts what counted threads do.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// `bytes` more are live.
fn count(allocations: u64, bytes: i64) {
    // A thread that ends has no such variable any more.
    if COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(allocations, Relaxed);
        LIVE_BYTES.fetch_add(bytes, Relaxed);
    }
}

// SAFETY: all of it is done by the system's allocator, with what this one was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size as i64 - layout.size() as i64);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, -(layout.size() as i64));
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

/// A sidecar with a service behind it, and whoever asks it.
struct Scene {
    outbound: SocketAddr,
    /// Bytes that the service has received of the body of the request that is under way.
    received: watch::Receiver<usize>,
    /// Of clients and service: not counted.
    outside: Runtime,
    _sidecar: (Runtime, app::Running),
}

/// The only one: its metrics are of the whole process. Whoever counts has it alone.
fn scene() -> MutexGuard<'static, Scene> {
    static SCENE: OnceLock<Mutex<Scene>> = OnceLock::new();
    SCENE.get_or_init(|| Mutex::new(Scene::start())).lock().unwrap_or_else(PoisonError::into_inner)
}

fn in_time<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    runtime.block_on(async { timeout(DEADLINE, work).await.unwrap() })
}

impl Scene {
    fn start() -> Self {
        let outside = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = outside.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let service = listener.local_addr().unwrap();
        let (told, received) = watch::channel(0);
        outside.spawn(serve(listener, told));

        let folder = tempfile::tempdir().unwrap();
        let (bootstrap, saved) = (folder.path().join("bootstrap.json"), folder.path().join("saved"));
        fs::write(&bootstrap, bootstrap_file().to_string()).unwrap();
        fs::write(&saved, configuration(service)).unwrap();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = Settings {
            bootstrap,
            saved_config: saved,
            inbound_addr: anywhere,
            outbound_addr: anywhere,
            admin_addr: anywhere,
            insecure: true,
            ..Settings::default()
        };
        let counted = Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(|| COUNTED.set(true))
            .enable_all()
            .build()
            .unwrap();
        let running = counted.block_on(app::start(settings, Shutdown::new())).unwrap();
        let outbound = running.addresses().outbound;
        let scene = Self { outbound, received, outside, _sidecar: (counted, running) };
        in_time(&scene.outside, ready(outbound));
        scene
    }

    /// Allocations per request, when all that is made once has been made.
    fn per_request(&self, http2: bool, request: &Request<Full<Bytes>>) -> f64 {
        const WARM_UP: u32 = 200;
        const COUNTED: u32 = 1_000;
        let counting = async {
            let mut client = Client::open(self.outbound, http2).await;
            for _ in 0..WARM_UP {
                client.ask(request.clone()).await;
            }
            let before = ALLOCATIONS.load(Relaxed);
            for _ in 0..COUNTED {
                client.ask(request.clone()).await;
            }
            ALLOCATIONS.load(Relaxed) - before
        };
        let allocations = in_time(&self.outside, counting);
        let each = allocations as f64 / f64::from(COUNTED);
        println!("{} {:?}: {each:.1} allocations", request.method(), request.uri());
        each
    }

    /// By how many bytes the sidecar grows while it passes on 48 KiB of a request's body, of which it has passed on 16 KiB before.
    fn growth_over_a_body(&mut self, host: &str) -> i64 {
        const PIECE: usize = 4 * 1_024;
        let received = &mut self.received;
        let growing = async {
            let mut stream = TcpStream::connect(self.outbound).await.unwrap();
            let head = format!("POST / HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n\r\n", 16 * PIECE);
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut before = 0;
            for piece in 1..=15 {
                stream.write_all(&[b'x'; PIECE]).await.unwrap();
                received.wait_for(|bytes| *bytes == piece * PIECE).await.unwrap();
                if piece == 3 {
                    before = LIVE_BYTES.load(Relaxed);
                }
            }
            let growth = LIVE_BYTES.load(Relaxed) - before;
            stream.write_all(&[b'x'; PIECE]).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            growth
        };
        in_time(&self.outside, growing)
    }
}

#[test]
fn a_request_takes_a_bounded_number_of_allocations() {
    let scene = scene();
    // Over HTTP/2 the headers of a request, and a body, are kept until it is known that the other end has looked at it.
    // HTTP/2 itself makes more of a gRPC call: frames of the request's body, and trailers. What is done every second, whatever
    // is asked, adds a fraction to each.
    for (http2, request, most) in
        [(false, get1("plain1"), 14.0), (true, get2("plain2"), 15.0), (true, call("plain2"), 22.0)]
    {
        let each = scene.per_request(http2, &request);
        assert!(each < most + 0.5, "{each} for {request:?}");
        // Less than a bare hyper proxy takes would be a fault of the count.
        assert!(each > 5.0, "{each} for {request:?}");
    }
}

#[test]
fn retries_that_may_be_made_have_a_bounded_price() {
    let scene = scene();
    let more = |http2, plain: &Request<_>, retried: &Request<_>| {
        scene.per_request(http2, retried) - scene.per_request(http2, plain)
    };
    let more = [
        more(false, &get1("plain1"), &get1("retried1")),
        more(true, &get2("plain2"), &get2("retried2")),
        more(true, &call("plain2"), &call("retried2")),
    ];
    assert!(more.iter().all(|more| *more <= 9.0), "{more:?}");
}

#[test]
fn a_body_is_kept_for_retries_and_for_nothing_else() {
    let mut scene = scene();
    // The first opens what is kept open: buffers of connections.
    let [_, plain, retried] = ["plain1", "plain1", "retried1"].map(|host| scene.growth_over_a_body(host));
    println!("grown by {plain} bytes without a retry policy, by {retried} with one");
    assert!(plain < 4 * 1_024, "{plain} bytes more are held");
    assert!(retried > 40 * 1_024, "{retried} bytes more are held: is this test looking?");
}

fn get1(host: &str) -> Request<Full<Bytes>> {
    Request::builder().uri("/items/7").header(header::HOST, host).body(Full::default()).unwrap()
}

fn get2(host: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(format!("http://{host}/items/7")).body(Full::default()).unwrap()
}

/// A unary gRPC call.
fn call(host: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{host}/shop.Items/Find"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(Bytes::from_static(&[b'x'; BODY])))
        .unwrap()
}

/// A client with one connection.
enum Client {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Client {
    async fn open(to: SocketAddr, http2: bool) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            Self::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            Self::Http1(sender)
        }
    }

    async fn ask(&mut self, request: Request<Full<Bytes>>) {
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
            Self::Http2(sender) => {
                sender.ready().await.unwrap();
                sender.send_request(request).await.unwrap()
            }
        };
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), BODY);
    }
}

/// Waits until the sidecar has taken its configuration.
async fn ready(outbound: SocketAddr) {
    let mut client = Client::open(outbound, false).await;
    loop {
        let Client::Http1(sender) = &mut client else { return };
        sender.ready().await.unwrap();
        let response = sender.send_request(get1("plain1")).await.unwrap();
        let status = response.status();
        response.into_body().collect().await.unwrap();
        if status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The service: answers when it has read all, and tells how much it has read so far.
async fn serve(listener: TcpListener, told: watch::Sender<usize>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let told = told.clone();
        let service = service_fn(move |request| {
            let answer = answer(request, told.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new());
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    told: watch::Sender<usize>,
) -> Response<impl http_body::Body<Data = Bytes, Error = Infallible>> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let mut body = request.into_body();
    told.send_replace(0);
    while let Some(frame) = body.frame().await {
        let bytes = frame.unwrap().data_ref().map_or(0, Bytes::len);
        told.send_modify(|sum| *sum += bytes);
    }
    let status = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    let trailers = content_type.is_some().then_some(Ok(status));
    let body = Full::new(Bytes::from_static(&[b'x'; BODY])).with_trailers(std::future::ready(trailers));
    let mut response = Response::new(body);
    response.headers_mut().extend(content_type.map(|value| (header::CONTENT_TYPE, value)));
    response
}

/// The file with which it starts; its control plane is nowhere.
fn bootstrap_file() -> Value {
    let nowhere = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 9 } });
    let endpoint = json!({ "lb_endpoints": [{ "endpoint": { "address": nowhere } }] });
    json!({
        "node": { "id": "side", "cluster": "edge" },
        "dynamic_resources": { "ads_config": { "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] } },
        "static_resources": { "clusters": [{ "name": "xds", "load_assignment": { "endpoints": [endpoint] } }] },
    })
}

/// What was saved: for either protocol a host without retries and one with them.
fn configuration(service: SocketAddr) -> Vec<u8> {
    let mut held = Held::new(false);
    let mut take = |url: &str, name: &str, resource: Value| {
        let body = json::encode(Type::of_url(url).unwrap(), &resource).unwrap().into();
        let received = Received { name: name.into(), version: "1".to_owned(), body };
        let batch = Batch { type_url: url.into(), upserts: vec![received], removed: vec![] };
        held.take(&batch).unwrap();
    };
    let address = json!({ "socket_address": { "address": service.ip(), "port_value": service.port() } });
    let endpoints = json!([{ "lb_endpoints": [{ "endpoint": { "address": address } }] }]);
    let http2 = json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} },
    } });
    for (name, options) in [("one", json!({})), ("two", http2)] {
        let cluster = json!({
            "name": name,
            "type": "STATIC",
            "load_assignment": { "cluster_name": name, "endpoints": endpoints },
            "typed_extension_protocol_options": options,
        });
        take(type_url::CLUSTER, name, cluster);
    }
    let host = |name: &str, cluster: &str, more: Value| {
        let mut action = json!({ "cluster": cluster, "timeout": "10s" });
        action.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "name": name, "domains": [name], "routes": [{ "match": { "prefix": "/" }, "route": action }] })
    };
    let retries = json!({ "retry_policy": { "retry_on": "5xx,reset,connect-failure", "num_retries": 2 } });
    let hosts = [
        host("plain1", "one", json!({})),
        host("plain2", "two", json!({})),
        host("retried1", "one", retries.clone()),
        host("retried2", "two", retries),
    ];
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "route_config": { "virtual_hosts": hosts },
    });
    let filter = json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager });
    let listener = json!({ "name": "web", "filter_chains": [{ "filters": [filter] }] });
    take(type_url::LISTENER, "web", listener);
    held.save()
}
