//! Scripted proxies: each has a connection, a certificate and a stream of its own, as in reality.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use chancery_e2e::certificates::Authority;
use chancery_proto::{Message as _, type_url};
use h2::{
    RecvStream, SendStream,
    client::{ResponseFuture, SendRequest},
};
use http::Request;
use rustls::{
    ClientConfig, RootCertStore,
    client::{Resumption, danger::ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
    sign::{CertifiedKey, SigningKey, SingleCertAndKey},
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::script::{Catalog, Envelope, Script, TYPES, acknowledge, ask, node, place, read, take_message};

const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// How many proxies connect at the same time; each handshake costs both ends about a millisecond of CPU.
const CONNECTING: usize = 128;

/// What a proxy lets a server send before it has read it.
const WINDOW: u32 = 16 << 20;

/// A proxy that is put off comes again after this long.
const PUT_OFF: Duration = Duration::from_millis(500);

/// What the proxies of one server share.
#[derive(Clone)]
pub(super) struct Fleet {
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<rustls::crypto::CryptoProvider>,
    certificates: Arc<[CertificateDer<'static>]>,
    key: Arc<dyn SigningKey>,
    pub(super) tally: Arc<Tally>,
}

/// What has happened to all of them.
#[derive(Default)]
pub(super) struct Tally {
    /// Proxies that have all they asked for.
    pub(super) synced: AtomicUsize,
    /// Bytes of responses.
    pub(super) received: AtomicU64,
    /// Streams that were put off.
    pub(super) put_off: AtomicUsize,
    /// Proxies that failed, for good.
    failed: Mutex<Option<String>>,
    /// Since when the change under way is, and how long it took to each proxy it has reached.
    change: Mutex<Option<(Instant, Vec<Duration>)>>,
}

impl Tally {
    /// From now on, a response with endpoints is the change.
    pub(super) fn begin_change(&self) {
        *lock(&self.change) = Some((Instant::now(), Vec::new()));
    }

    /// How long the change took to each proxy, once it has reached `count`.
    pub(super) async fn change_reached(&self, count: usize, within: Duration) -> Result<Vec<Duration>> {
        self.wait(
            "a change reaches all",
            within,
            || lock(&self.change).as_ref().map_or(0, |(_, all)| all.len()),
            count,
        )
        .await?;
        Ok(lock(&self.change).take().map(|(_, all)| all).unwrap_or_default())
    }

    /// Waits until `count` proxies have all they asked for.
    pub(super) async fn all_synced(&self, count: usize, within: Duration) -> Result<()> {
        self.wait("all proxies are served", within, || self.synced.load(Ordering::Relaxed), count).await
    }

    async fn wait(&self, what: &str, within: Duration, done: impl Fn() -> usize, count: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let done = done();
            if done >= count {
                return Ok(());
            }
            if let Some(failure) = lock(&self.failed).clone() {
                bail!("{what}: a proxy failed: {failure}");
            }
            ensure!(begun.elapsed() < within, "{what}: {done} of {count} within {within:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn arrived(&self) {
        if let Some((begun, all)) = lock(&self.change).as_mut() {
            all.push(begun.elapsed());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Proxies that run until this is dropped.
pub(super) struct Running {
    tasks: JoinSet<()>,
    connections: Vec<(usize, SendRequest<Bytes>)>,
}

impl Fleet {
    /// `count` proxies of fleet `edge`, and one more, the scout.
    pub(super) fn new(authority: &Authority, count: usize) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority.file())?)?;
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let (certificates, key) = authority.proxies("edge", (0..=count).map(id))?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let key = provider.key_provider.load_private_key(key)?;
        let certificates = certificates.into_iter().map(CertificateDer::from).collect();
        Ok(Self { verifier, provider, certificates, key, tally: Arc::default() })
    }

    /// The same proxies, of whom nothing is known yet.
    pub(super) fn renewed(&self) -> Self {
        Self { tally: Arc::default(), ..self.clone() }
    }

    fn scout(&self) -> usize {
        self.certificates.len() - 1
    }

    async fn connect(&self, address: SocketAddr, number: usize) -> Result<TlsStream<TcpStream>> {
        let key = CertifiedKey::new(vec![self.certificates[number].clone()], self.key.clone());
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier.clone())
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = Resumption::disabled();
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// Connects them all, without a stream yet.
    pub(super) async fn connect_all(self: &Arc<Self>, address: SocketAddr) -> Result<Running> {
        let (sender, mut connected) = mpsc::channel(CONNECTING);
        let (mut tasks, limit) = (JoinSet::new(), Arc::new(Semaphore::new(CONNECTING)));
        for number in 0..self.scout() {
            let (fleet, limit, sender) = (self.clone(), limit.clone(), sender.clone());
            tasks.spawn(async move {
                let opened = async {
                    let permit = limit.acquire_owned().await?;
                    let stream = fleet.connect(address, number).await?;
                    let opened = shake_hands(stream).await?;
                    drop(permit);
                    anyhow::Ok(opened)
                };
                match opened.await {
                    Ok((requests, connection)) => {
                        let _ = sender.send((number, requests)).await;
                        // How it ends is seen by the stream on it.
                        let _ = connection.await;
                    }
                    Err(error) => fleet.failed(number, &error),
                }
            });
        }
        drop(sender);
        let mut connections = Vec::new();
        while connections.len() < self.scout() {
            let Some(one) = connected.recv().await else { bail!("a proxy cannot connect: {:?}", self.failure()) };
            connections.push(one);
            if let Some(failure) = self.failure() {
                bail!("a proxy cannot connect: {failure}");
            }
        }
        Ok(Running { tasks, connections })
    }

    /// Opens a stream on each connection.
    pub(super) fn open_all(self: &Arc<Self>, running: &mut Running, script: &Script) {
        let script = Arc::new(script.clone());
        for (number, requests) in running.connections.drain(..) {
            running.tasks.spawn(self.clone().play(number, requests, script.clone()));
        }
    }

    /// Connects them all, each opening its stream as soon as it is connected.
    pub(super) fn start_all(self: &Arc<Self>, address: SocketAddr, script: &Script) -> Running {
        let script = Arc::new(script.clone());
        let (mut tasks, limit) = (JoinSet::new(), Arc::new(Semaphore::new(CONNECTING)));
        for number in 0..self.scout() {
            let (fleet, limit, script) = (self.clone(), limit.clone(), script.clone());
            tasks.spawn(async move {
                let opened = async {
                    let _permit = limit.acquire_owned().await?;
                    shake_hands(fleet.connect(address, number).await?).await
                };
                match opened.await {
                    Ok((requests, connection)) => {
                        let _ = tokio::join!(fleet.play(number, requests, script), connection);
                    }
                    Err(error) => fleet.failed(number, &error),
                }
            });
        }
        Running { tasks, connections: Vec::new() }
    }

    /// Follows the script until the stream ends.
    async fn play(self: Arc<Self>, number: usize, requests: SendRequest<Bytes>, script: Arc<Script>) {
        loop {
            match self.stream(number, requests.clone(), &script).await {
                Ok(PutOff) => {
                    self.tally.put_off.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(PUT_OFF.mul_f64(rand::random_range(0.5..1.5))).await;
                }
                Err(error) => return self.failed(number, &error),
            }
        }
    }

    async fn stream(&self, number: usize, requests: SendRequest<Bytes>, script: &Script) -> Result<PutOff> {
        let mut stream = Stream::open(requests).await?;
        stream.say(script.request(0, Some(&node(&id(number)))))?;
        if script.returning {
            for at in 1..TYPES.len() {
                stream.say(script.request(at, None))?;
            }
        }
        let (mut at, mut held, mut synced) = (0, [0; TYPES.len()], false);
        loop {
            let Some(message) = stream.next(&self.tally).await? else {
                ensure!(!synced, "the server ended the stream");
                return Ok(PutOff);
            };
            let envelope = Envelope::decode(message)?;
            stream.say(acknowledge(&envelope))?;
            let place = place(&envelope.type_url)?;
            held[place] += envelope.resources.len();
            if TYPES[place] == type_url::ENDPOINT && !envelope.resources.is_empty() {
                if synced {
                    self.tally.arrived();
                    continue;
                } else if script.returning {
                    synced = true;
                    self.tally.synced.fetch_add(1, Ordering::Relaxed);
                }
            }
            while !synced && !script.returning && held[at] >= script.counts[at] {
                at += 1;
                if at == TYPES.len() {
                    synced = true;
                    self.tally.synced.fetch_add(1, Ordering::Relaxed);
                    break;
                }
                stream.say(script.request(at, None))?;
            }
        }
    }

    /// What the server serves, as the scout is given it.
    pub(super) async fn explore(&self, address: SocketAddr) -> Result<Catalog> {
        let (requests, connection) = shake_hands(self.connect(address, self.scout()).await?).await?;
        let driver = tokio::spawn(connection);
        let mut stream = Stream::open(requests).await?;
        let mut catalog = Catalog::default();
        let mut names: Vec<String> = Vec::new();
        for (at, type_url) in TYPES.iter().enumerate() {
            let node = (at == 0).then(|| node(&id(self.scout())));
            stream.say(ask(at, std::mem::take(&mut names), node))?;
            loop {
                let message = stream.next(&self.tally).await?.context("the server ended the scout's stream")?;
                stream.say(acknowledge(&Envelope::decode(message.clone())?))?;
                let response = read(message)?;
                if response.type_url == *type_url {
                    catalog.add(at, response);
                    break;
                }
            }
            names = catalog.referred(at);
        }
        driver.abort();
        Ok(catalog)
    }

    fn failed(&self, number: usize, error: &anyhow::Error) {
        lock(&self.tally.failed).get_or_insert(format!("{}: {error:#}", id(number)));
    }

    fn failure(&self) -> Option<String> {
        lock(&self.tally.failed).clone()
    }
}

/// The server did not take the stream on; it may later.
struct PutOff;

struct Stream {
    send: SendStream<Bytes>,
    /// Until the first message comes: a server may not answer before it has something to say.
    response: Option<ResponseFuture>,
    receive: Option<RecvStream>,
    inbox: BytesMut,
}

impl Stream {
    async fn open(requests: SendRequest<Bytes>) -> Result<Self> {
        let request = Request::post(format!("https://localhost{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())?;
        let (response, send) = requests.ready().await?.send_request(request, false)?;
        Ok(Self { send, response: Some(response), receive: None, inbox: BytesMut::new() })
    }

    fn say(&mut self, message: Bytes) -> Result<()> {
        Ok(self.send.send_data(message, false)?)
    }

    /// The next message; `None` when the server ended the stream.
    async fn next(&mut self, tally: &Tally) -> Result<Option<Bytes>> {
        if let Some(response) = self.response.take() {
            let response = response.await?;
            ensure!(response.status().is_success(), "the server answers {}", response.status());
            self.receive = Some(response.into_body());
        }
        let Some(receive) = &mut self.receive else { return Ok(None) };
        loop {
            if let Some(message) = take_message(&mut self.inbox)? {
                return Ok(Some(message));
            }
            let Some(data) = receive.data().await.transpose()? else { return Ok(None) };
            receive.flow_control().release_capacity(data.len())?;
            tally.received.fetch_add(data.len() as u64, Ordering::Relaxed);
            self.inbox.extend_from_slice(&data);
        }
    }
}

type Driver = h2::client::Connection<TlsStream<TcpStream>, Bytes>;

async fn shake_hands(stream: TlsStream<TcpStream>) -> Result<(SendRequest<Bytes>, Driver)> {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
    Ok(builder.handshake(stream).await?)
}

fn id(number: usize) -> String {
    format!("proxy-{number}")
}
