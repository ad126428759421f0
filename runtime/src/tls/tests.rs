use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority(name: &str) -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for `localhost` with its key, as PEM, valid for `days` from yesterday.
fn issue(ca: &Ca, purpose: ExtendedKeyUsagePurpose, days: i64) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![purpose];
    params.not_before = OffsetDateTime::now_utc() - time::Duration::days(10);
    params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

fn paths(dir: &Path) -> ServerTlsFiles {
    ServerTlsFiles { certificate: dir.join("tls.crt"), private_key: dir.join("tls.key"), client_ca: dir.join("ca.crt") }
}

fn write_server(dir: &Path, ca: &Ca) -> ServerTlsFiles {
    let (certificate, key) = issue(ca, ExtendedKeyUsagePurpose::ServerAuth, 10);
    let files = paths(dir);
    fs::write(&files.certificate, certificate).unwrap();
    fs::write(&files.private_key, key).unwrap();
    fs::write(&files.client_ca, ca.pem()).unwrap();
    files
}

struct Server {
    ca: Ca,
    dir: TempDir,
    tls: ServerTls,
    listener: TlsListener,
}

impl Server {
    async fn start() -> Self {
        Self::with(AcceptLimits::default()).await
    }

    async fn with(limits: AcceptLimits) -> Self {
        let (ca, dir) = (authority("trusted"), TempDir::new().unwrap());
        let tls = ServerTls::load(write_server(dir.path(), &ca)).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = TlsListener::new(socket, tls.clone(), limits).unwrap();
        Self { ca, dir, tls, listener }
    }

    /// What the server makes of one handshake of `client`.
    async fn refusal(&self, client: rustls::ClientConfig) -> Refusal {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let client = tokio::spawn(async move {
            if let Ok(mut stream) = connect(address, client).await {
                let _ = stream.read(&mut [0]).await;
            }
        });
        let (stream, _) = socket.accept().await.unwrap();
        let error = tokio_rustls::TlsAcceptor::from(self.tls.config()).accept(stream).await.unwrap_err();
        client.await.unwrap();
        Refusal::of(&error)
    }
}

fn client(server_ca: &Ca, identity: Option<(String, String)>) -> rustls::ClientConfig {
    install_crypto_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(server_ca.der().clone()).unwrap();
    let trusting = rustls::ClientConfig::builder().with_root_certificates(roots);
    match identity {
        None => trusting.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            trusting.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

async fn connect(
    address: SocketAddr,
    config: rustls::ClientConfig,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The certificate that the server at `address` shows now.
async fn shown(address: SocketAddr, config: rustls::ClientConfig) -> CertificateDer<'static> {
    let stream = connect(address, config).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

#[tokio::test]
async fn accepts_a_client_of_the_authority_and_says_who_it_is() {
    let mut server = Server::start().await;
    let identity = issue(&server.ca, ExtendedKeyUsagePurpose::ClientAuth, 10);
    let expected = CertificateDer::from_pem_slice(identity.0.as_bytes()).unwrap();
    let config = client(&server.ca, Some(identity));
    let address = server.listener.local_addr();
    let task = tokio::spawn(async move {
        let mut stream = connect(address, config).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read(&mut [0]).await;
    });

    let mut connection = server.listener.next().await.unwrap().unwrap();
    let mut said = [0; 5];
    connection.read_exact(&mut said).await.unwrap();

    assert_eq!(&said, b"hello");
    assert_eq!(connection.peer().certificates.as_ref(), [expected]);
    assert!(connection.peer().address.ip().is_loopback());
    drop(connection);
    task.await.unwrap();
}

#[tokio::test]
async fn refusals_say_why() {
    let server = Server::start().await;
    let foreign = authority("foreign");
    let namesake = authority("trusted");
    let for_clients = ExtendedKeyUsagePurpose::ClientAuth;

    let none = server.refusal(client(&server.ca, None)).await;
    assert_eq!(none.to_string(), "no client certificate");

    let identity = issue(&foreign, for_clients.clone(), 10);
    let unknown = server.refusal(client(&server.ca, Some(identity))).await;
    assert_eq!(unknown.to_string(), "certificate of an unknown CA");

    let identity = issue(&namesake, for_clients.clone(), 10);
    let unknown = server.refusal(client(&server.ca, Some(identity))).await;
    assert_eq!(unknown, Refusal::UnknownAuthority);

    let yesterday = (OffsetDateTime::now_utc() - time::Duration::days(1)).date();
    let identity = issue(&server.ca, for_clients, -1);
    let expired = server.refusal(client(&server.ca, Some(identity))).await;
    assert!(expired.to_string().starts_with(&format!("certificate expired on {yesterday}T")), "{expired}");

    let identity = issue(&server.ca, ExtendedKeyUsagePurpose::ServerAuth, 10);
    let purpose = server.refusal(client(&server.ca, Some(identity))).await;
    assert_eq!(purpose.to_string(), "certificate not issued for clients");

    let distrustful = server.refusal(client(&foreign, None)).await;
    assert_eq!(distrustful.label(), "refused_by_client", "{distrustful}");
}

#[tokio::test]
async fn a_silent_client_delays_nobody_and_is_dropped_at_the_deadline() {
    let limits = AcceptLimits { handshakes: 2, deadline: Duration::from_millis(200) };
    let mut server = Server::with(limits).await;
    let address = server.listener.local_addr();
    let mut silent = TcpStream::connect(address).await.unwrap();

    let identity = issue(&server.ca, ExtendedKeyUsagePurpose::ClientAuth, 10);
    let config = client(&server.ca, Some(identity));
    let task = tokio::spawn(async move { connect(address, config).await });
    let accepted = tokio::time::timeout(DEADLINE, server.listener.next()).await.unwrap();
    assert!(accepted.unwrap().is_ok());
    assert!(task.await.unwrap().is_ok());

    let end = tokio::time::timeout(DEADLINE, silent.read(&mut [0])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)));
}

#[tokio::test]
async fn dropping_the_listener_closes_the_port() {
    let server = Server::start().await;
    let address = server.listener.local_addr();
    drop(server.listener);
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    tokio::time::timeout(DEADLINE, refused).await.unwrap();
}

#[tokio::test]
async fn no_session_is_resumed() {
    let mut server = Server::start().await;
    let identity = issue(&server.ca, ExtendedKeyUsagePurpose::ClientAuth, 10);
    let config = client(&server.ca, Some(identity));
    let address = server.listener.local_addr();
    for _ in 0..2 {
        let config = config.clone(); // the session cache is shared by clones
        let task = tokio::spawn(async move {
            let mut stream = connect(address, config).await.unwrap();
            let _ = stream.read(&mut [0]).await; // takes the tickets in
            stream.get_ref().1.handshake_kind()
        });
        drop(server.listener.next().await.unwrap().unwrap());
        assert_eq!(task.await.unwrap(), Some(rustls::HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_used_and_a_bad_one_is_not() {
    let server = Server::start().await;
    let files = paths(server.dir.path());
    let address = server.listener.local_addr();
    let identity = issue(&server.ca, ExtendedKeyUsagePurpose::ClientAuth, 10);
    let config = client(&server.ca, Some(identity));
    let stop = CancellationToken::new();
    let watching = tokio::spawn(server.tls.clone().watch(Duration::from_millis(5), stop.clone()));
    let _accepting = tokio::spawn(async move {
        let mut listener = server.listener;
        while listener.next().await.is_some() {}
    });

    let first = shown(address, config.clone()).await;
    write_server(server.dir.path(), &server.ca);
    let second = read_certificates(&files.certificate).unwrap().remove(0);
    assert_ne!(first, second);
    let swapped = async { while shown(address, config.clone()).await != second {} };
    tokio::time::timeout(DEADLINE, swapped).await.unwrap();

    // A bad set stays out, whether torn, mismatched or missing.
    let before = server.tls.config();
    let (other, _) = issue(&server.ca, ExtendedKeyUsagePurpose::ServerAuth, 10);
    for bad in [Some(b"-----BEGIN CERT".to_vec()), Some(other.into_bytes()), None] {
        match bad {
            Some(bytes) => fs::write(&files.certificate, bytes).unwrap(),
            None => fs::remove_file(&files.certificate).unwrap(),
        }
        server.tls.look(&server::Seen::Contents(0));
        assert!(Arc::ptr_eq(&before, &server.tls.config()));
    }
    assert_eq!(shown(address, config).await, second);
    stop.cancel();
    watching.await.unwrap();
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let (ca, dir) = (authority("trusted"), TempDir::new().unwrap());
    let files = write_server(dir.path(), &ca);
    let (_, other_key) = issue(&ca, ExtendedKeyUsagePurpose::ServerAuth, 10);
    let message = |files: &ServerTlsFiles| crate::telemetry::chain(&ServerTls::load(files.clone()).unwrap_err());

    let missing = ServerTlsFiles { client_ca: dir.path().join("none.crt"), ..files.clone() };
    assert!(message(&missing).contains("none.crt"), "{}", message(&missing));

    let no_key = ServerTlsFiles { private_key: files.certificate.clone(), ..files.clone() };
    assert!(message(&no_key).ends_with("tls.crt holds no private key"), "{}", message(&no_key));

    let no_certificate = ServerTlsFiles { client_ca: files.private_key.clone(), ..files.clone() };
    assert!(message(&no_certificate).ends_with("tls.key holds no certificate"), "{}", message(&no_certificate));

    fs::write(&files.private_key, other_key).unwrap();
    let mismatch = message(&files);
    assert!(mismatch.contains("tls.crt and private key") && mismatch.contains("cannot be used together"), "{mismatch}");
}

#[tokio::test]
async fn our_client_meets_our_server() {
    let mut server = Server::start().await;
    let (certificate, key) = issue(&server.ca, ExtendedKeyUsagePurpose::ClientAuth, 10);
    let path = |name: &str| server.dir.path().join(name);
    fs::write(path("client.crt"), certificate).unwrap();
    fs::write(path("client.key"), key).unwrap();
    let files = ClientTlsFiles { ca: path("ca.crt"), identity: Some((path("client.crt"), path("client.key"))) };
    let config = ClientTls::load(&files).unwrap().config();
    let address = server.listener.local_addr();

    let task = tokio::spawn(async move { connect(address, rustls::ClientConfig::clone(&config)).await.unwrap() });
    assert!(server.listener.next().await.unwrap().is_ok());
    assert_eq!(task.await.unwrap().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}
