//! Connections of the application that are carried as they are, and the ports to which it makes them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use chancery_runtime::{
    Shutdown,
    tls::{ServerTls, ServerTlsFiles},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::{
    authority::Authority,
    support::{DEADLINE, base, cluster},
};
use crate::{
    config::{
        snapshot::{Cluster, ClusterSettings, Snapshot},
        tcp::{TcpPort, TcpProxy},
        tls::{PeerMatch, UpstreamTls},
    },
    policy::p2c,
    proxy::{
        accept::{AcceptLimits, Port, PortEnd},
        tcp::{
            Tcp,
            ports::{Ports, Standing},
        },
        world::{Base, World},
    },
};

/// An endpoint that says its name at once, then again whatever it hears, and is done when its peer is.
struct Endpoint {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Endpoint {
    async fn start(name: &'static str) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), name).await
    }

    async fn start_at(address: SocketAddr, name: &'static str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let (mut task, counted) = (JoinSet::new(), connections.clone());
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, SeqCst);
                open.spawn(async move {
                    let _ = stream.write_all(name.as_bytes()).await;
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                    let _ = to.write_all(b".").await;
                });
            }
        });
        Self { address, connections, _task: task }
    }

    fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// Nobody listens there.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn proxy(connect_attempts: u32) -> TcpProxy {
    TcpProxy {
        address: None,
        clusters: vec![("db".into(), 1)],
        idle_timeout: Some(Duration::from_secs(60)),
        connect_attempts,
    }
}

fn snapshot(cluster: Arc<Cluster>, proxy: TcpProxy) -> Snapshot {
    Snapshot {
        tcp: [("db".into(), proxy.into())].into(),
        clusters: [(cluster.name.clone(), cluster)].into(),
        ..Snapshot::default()
    }
}

/// A sidecar that takes on `db`, at whatever port.
struct Sidecar {
    base: Base,
    world: Arc<ArcSwap<World>>,
    ports: Ports,
    end: PortEnd,
    shutdown: Shutdown,
}

impl Sidecar {
    async fn start(snapshot: Snapshot, base: Base) -> Self {
        Self::start_at("db=127.0.0.1:0", snapshot, base).await
    }

    async fn start_at(port: &str, snapshot: Snapshot, base: Base) -> Self {
        let (world, shutdown) = (Arc::new(ArcSwap::from_pointee(World::default())), Shutdown::new());
        let limits = AcceptLimits::default();
        // Only its end is of interest.
        let end = Port::new(TcpListener::bind("127.0.0.1:0").await.unwrap(), None, limits).end();
        let wanted: Vec<TcpPort> = vec![port.parse().unwrap()];
        let ports = Ports::new(Arc::new(Tcp { world: world.clone() }), wanted, limits, end.clone(), shutdown.clone());
        let sidecar = Self { base, world, ports, end, shutdown };
        sidecar.configure(snapshot);
        sidecar
    }

    fn configure(&self, snapshot: Snapshot) {
        let next = self.world.load().next(snapshot.into(), &self.base);
        self.world.store(next.into());
        self.ports.follow();
    }

    fn standing(&self) -> Standing {
        self.ports.shown().remove(0).1
    }

    fn address(&self) -> SocketAddr {
        match self.standing() {
            Standing::Open { at, .. } => at,
            other => panic!("{other:?}"),
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address()).await.unwrap()
    }

    /// All that a new connection hears that says `text` and no more.
    async fn say(&self, text: &str) -> String {
        say(self.connect().await, text).await
    }

    fn open(&self) -> u32 {
        self.world.load().upstreams["db"].tcp.open()
    }
}

async fn say(mut stream: TcpStream, text: &str) -> String {
    let exchange = async {
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        String::from_utf8_lossy(&heard).into_owned()
    };
    timeout(DEADLINE, exchange).await.unwrap()
}

/// The next bytes, as many as `text` has, are these.
async fn hears(stream: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(DEADLINE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn until(mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(DEADLINE, waiting).await.expect("it holds in time");
}

#[tokio::test]
async fn the_server_may_speak_first_and_either_side_may_be_done_first() {
    let one = Endpoint::start("one").await;
    let sidecar =
        Sidecar::start(snapshot(cluster("db", &[one.address], ClusterSettings::default()), proxy(1)), base()).await;
    let mut stream = sidecar.connect().await;
    hears(&mut stream, "one").await;
    assert_eq!(sidecar.open(), 1);
    let upstream = sidecar.world.load().upstreams["db"].clone();
    assert_eq!(upstream.endpoints.pending(upstream.members[0].id), 1, "it weighs while it is open");
    assert_eq!(say(stream, "abc").await, "abc.");
    until(|| sidecar.open() == 0 && upstream.endpoints.pending(upstream.members[0].id) == 0).await;
}

/// Of so many connections, each of a sidecar that does not know yet that one of two endpoints is down, how many reach the other, and how
/// many sidecars know afterwards.
async fn one_of_two(connections: usize, attempts: u32) -> (usize, usize) {
    let (one, down) = (Endpoint::start("one").await, nobody().await);
    let mut settings = ClusterSettings::default();
    settings.endpoints.breaker.as_mut().unwrap().accrual.consecutive = Some(1);
    let (mut reached, mut known) = (0, 0);
    for connection in 0..connections {
        // Of two that nothing is known of, the one that was there first is asked first.
        let both = if connection % 2 == 0 { [down, one.address] } else { [one.address, down] };
        let sidecar = Sidecar::start(snapshot(cluster("db", &both, settings.clone()), proxy(attempts)), base()).await;
        reached += usize::from(sidecar.say("x").await == "onex.");
        let upstream = sidecar.world.load().upstreams["db"].clone();
        let standing = |member: usize| upstream.endpoints.standing(upstream.members[member].id);
        known += usize::from(standing(connection % 2) != p2c::Standing::In);
        assert_eq!(standing(1 - connection % 2), p2c::Standing::In);
    }
    assert_eq!(one.connections(), reached);
    (reached, known)
}

#[tokio::test]
async fn an_endpoint_that_is_down_costs_no_connection_if_another_may_be_tried() {
    let (reached, known) = one_of_two(20, 2).await;
    assert_eq!(reached, 20);
    assert!((1..20).contains(&known), "{known}");
}

#[tokio::test]
async fn no_more_attempts_are_made_than_the_listener_says() {
    let (reached, known) = one_of_two(20, 1).await;
    assert_eq!(reached + known, 20, "who is sent to the one that is down is lost");
    assert!((1..20).contains(&known), "{known}");
}

#[tokio::test]
async fn an_endpoint_that_can_be_connected_to_again_is_back() {
    let (one, down) = (Endpoint::start("one").await, nobody().await);
    let mut settings = ClusterSettings::default();
    let breaker = settings.endpoints.breaker.as_mut().unwrap();
    breaker.accrual.consecutive = Some(1);
    breaker.backoff.least = Duration::from_millis(10);
    let sidecar = Sidecar::start(snapshot(cluster("db", &[down, one.address], settings), proxy(2)), base()).await;
    let upstream = sidecar.world.load().upstreams["db"].clone();
    let standing = || upstream.endpoints.standing(upstream.members[0].id);
    assert_eq!(sidecar.say("x").await, "onex.");
    assert_ne!(standing(), p2c::Standing::In);
    let two = Endpoint::start_at(down, "two").await;
    let back = async {
        while two.connections() == 0 {
            assert!(sidecar.say("x").await.ends_with("x."));
        }
    };
    timeout(DEADLINE, back).await.expect("it is probed");
    assert_eq!(standing(), p2c::Standing::In);
}

#[tokio::test]
async fn a_cluster_has_no_more_connections_than_it_may() {
    let one = Endpoint::start("one").await;
    let settings = ClusterSettings { max_connections: 2, ..ClusterSettings::default() };
    let few = snapshot(cluster("db", &[one.address], settings.clone()), proxy(1));
    let sidecar = Sidecar::start(few, base()).await;
    let (mut first, mut second) = (sidecar.connect().await, sidecar.connect().await);
    hears(&mut first, "one").await;
    hears(&mut second, "one").await;
    assert_eq!(sidecar.say("x").await, "", "it is closed at once");
    assert_eq!(one.connections(), 2);
    // Another bound counts those that are open.
    let more = ClusterSettings { max_connections: 3, ..settings };
    sidecar.configure(snapshot(cluster("db", &[one.address], more), proxy(1)));
    let mut third = sidecar.connect().await;
    hears(&mut third, "one").await;
    assert_eq!(sidecar.say("x").await, "");
    drop(first);
    until(|| sidecar.open() == 2).await;
    assert_eq!(sidecar.say("x").await, "onex.");
}

#[tokio::test]
async fn a_change_ends_no_connection_and_holds_for_new_ones() {
    let (one, two) = (Endpoint::start("one").await, Endpoint::start("two").await);
    let to = |at: SocketAddr| snapshot(cluster("db", &[at], ClusterSettings::default()), proxy(1));
    let sidecar = Sidecar::start(to(one.address), base()).await;
    let mut stream = sidecar.connect().await;
    hears(&mut stream, "one").await;
    let address = sidecar.address();
    sidecar.configure(to(two.address));
    assert_eq!(sidecar.address(), address);
    assert_eq!(sidecar.say("x").await, "twox.");
    stream.write_all(b"still").await.unwrap();
    hears(&mut stream, "still").await;

    sidecar.configure(Snapshot::default());
    assert!(matches!(sidecar.standing(), Standing::Absent));
    timeout(DEADLINE, async { while TcpStream::connect(address).await.is_ok() {} }).await.expect("the port is closed");
    stream.write_all(b"still").await.unwrap();
    hears(&mut stream, "still").await;
    assert_eq!(say(stream, "").await, ".");
}

#[tokio::test]
async fn a_port_that_somebody_has_is_opened_when_it_is_free() {
    let one = Endpoint::start("one").await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = taken.local_addr().unwrap();
    let own = TcpProxy { address: Some(at), ..proxy(1) };
    let snapshot = snapshot(cluster("db", &[one.address], ClusterSettings::default()), own);
    // Where the listener says, and not anywhere else.
    let sidecar = Sidecar::start_at("db", snapshot, base()).await;
    assert!(matches!(sidecar.standing(), Standing::Failed { at: failed, .. } if failed == at));
    drop(taken);
    sidecar.ports.follow();
    assert_eq!(sidecar.address(), at);
    assert_eq!(sidecar.say("x").await, "onex.");
}

#[tokio::test]
async fn nothing_is_opened_that_was_not_asked_for() {
    let one = Endpoint::start("one").await;
    let snapshot = snapshot(
        cluster("db", &[one.address], ClusterSettings::default()),
        TcpProxy { address: Some(nobody().await), ..proxy(1) },
    );
    let sidecar = Sidecar::start_at("other", snapshot, base()).await;
    assert!(matches!(sidecar.standing(), Standing::Absent));
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let one = Endpoint::start("one").await;
    let proxy = TcpProxy { idle_timeout: Some(Duration::from_millis(200)), ..proxy(1) };
    let sidecar =
        Sidecar::start(snapshot(cluster("db", &[one.address], ClusterSettings::default()), proxy), base()).await;
    let mut stream = sidecar.connect().await;
    hears(&mut stream, "one").await;
    let mut more = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut more)).await.unwrap().unwrap();
    assert!(more.is_empty());
}

#[tokio::test]
async fn the_end_closes_what_is_open_and_the_port() {
    let one = Endpoint::start("one").await;
    let sidecar =
        Sidecar::start(snapshot(cluster("db", &[one.address], ClusterSettings::default()), proxy(1)), base()).await;
    let mut stream = sidecar.connect().await;
    let address = sidecar.address();
    hears(&mut stream, "one").await;
    sidecar.end.close.cancel();
    let mut more = Vec::new();
    let _ = timeout(DEADLINE, stream.read_to_end(&mut more)).await.unwrap();
    sidecar.shutdown.drained(DEADLINE).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

const A: &str = "spiffe://chancery.local/fleet/edge/proxy/a";
const B: &str = "spiffe://chancery.local/fleet/edge/proxy/b";

#[tokio::test]
async fn an_endpoint_proves_who_it_is_and_no_protocol_is_agreed_on() {
    let authority = Authority::new();
    let (certificate, private_key) = authority.issue("b", B, &[]);
    let files = ServerTlsFiles { certificate, private_key, client_ca: authority.file() };
    // One that takes no HTTP: whoever offers that and nothing else is refused.
    let acceptor = TlsAcceptor::from(ServerTls::offering(files, &[b"db"]).unwrap().config());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            let Ok(mut stream) = acceptor.accept(listener.accept().await.unwrap().0).await else { continue };
            let _ = stream.write_all(b"hello").await;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard).await;
            let _ = stream.write_all(&heard).await;
            let _ = stream.shutdown().await;
        }
    });
    for (peer, expected) in [(B, "hellox"), (A, "")] {
        let tls = UpstreamTls { peers: vec![PeerMatch::Uri(peer.into())], ..UpstreamTls::default() };
        let settings = ClusterSettings { tls: Some(tls), ..ClusterSettings::default() };
        let base = Base { identity: Some(Arc::new(authority.own("a", A))), ..base() };
        let sidecar = Sidecar::start(snapshot(cluster("db", &[address], settings), proxy(1)), base).await;
        assert_eq!(sidecar.say("x").await, expected, "{peer}");
    }
}

#[tokio::test]
async fn who_does_not_finish_its_handshake_is_not_waited_for() {
    let authority = Authority::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = ClusterSettings {
        tls: Some(UpstreamTls::default()),
        connect_timeout: Duration::from_millis(100),
        ..ClusterSettings::default()
    };
    let base = Base { identity: Some(Arc::new(authority.own("a", A))), ..base() };
    let snapshot = snapshot(cluster("db", &[silent.local_addr().unwrap()], settings), proxy(2));
    let sidecar = Sidecar::start(snapshot, base).await;
    assert_eq!(sidecar.say("x").await, "");
    until(|| sidecar.open() == 0).await;
}
