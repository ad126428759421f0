use std::{os::unix::fs::PermissionsExt as _, path::PathBuf};

use chancery_runtime::{
    telemetry,
    tls::{AcceptLimits, ClientTls, ClientTlsFiles, PeerInfo, Refusal, ServerTls, ServerTlsFiles, TlsListener},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::StreamExt as _;

use super::*;
use crate::identity::{
    issue::{self, CaSource, Holder, IdentityFiles, Request},
    spiffe::Identity,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn authority(dir: &Path) -> Authority {
    Authority::load_or_create(dir, "chancery.local", now()).unwrap()
}

fn local_server(ca: &Authority, dir: &Path) -> ServerTls {
    let issued = ca.issue_server(&["localhost".to_owned()], &[[127, 0, 0, 1].into()], DAY, now()).unwrap();
    let IdentityFiles { certificate, private_key, ca } = issue::write(dir, &issued).unwrap();
    ServerTls::load(ServerTlsFiles { certificate, private_key, client_ca: ca }).unwrap()
}

fn client_of(server_ca: &Path, identity: &IdentityFiles) -> ClientTls {
    let identity = Some((identity.certificate.clone(), identity.private_key.clone()));
    ClientTls::load(&ClientTlsFiles { ca: server_ca.to_owned(), identity }).unwrap()
}

/// What a server makes of a client's certificate.
async fn refusal(server: &ServerTls, client: &ClientTls) -> Refusal {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let connector = TlsConnector::from(client.config());
    let client = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        if let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), stream).await {
            let _ = stream.read(&mut [0]).await;
        }
    });
    let (stream, _) = socket.accept().await.unwrap();
    let error = TlsAcceptor::from(server.config()).accept(stream).await.unwrap_err();
    client.await.unwrap();
    Refusal::of(&error)
}

#[tokio::test]
async fn a_proxy_it_issued_is_accepted_and_known() {
    let dir = TempDir::new().unwrap();
    let ca = authority(&dir.path().join("ca"));
    let server = local_server(&ca, &dir.path().join("server"));
    let issued = ca.issue_proxy(&name("edge"), &name("edge-1"), DAY, now()).unwrap();
    let files = issue::write(&dir.path().join("proxy"), &issued).unwrap();
    let connector = TlsConnector::from(client_of(&files.ca, &files).config());

    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = TlsListener::new(socket, server, AcceptLimits::default()).unwrap();
    let address = listener.local_addr();
    for server_name in ["localhost", "127.0.0.1"] {
        let connector = connector.clone();
        let client = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect(server_name.try_into().unwrap(), stream).await.unwrap()
        });
        let connection = listener.next().await.unwrap().unwrap();
        let PeerInfo { certificates, .. } = connection.peer();
        let identity = Identity::from_certificate(&certificates[0]).unwrap();
        assert_eq!(identity.to_string(), "spiffe://chancery.local/fleet/edge/proxy/edge-1");
        client.await.unwrap();
    }
}

#[test]
fn a_proxy_is_a_client_and_a_server_to_other_proxies() {
    let dir = TempDir::new().unwrap();
    let issued = authority(dir.path()).issue_proxy(&name("edge"), &name("edge-1"), DAY, now()).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(issued.certificate_pem.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let purposes = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && purposes.server_auth);
    // No name but its SPIFFE ID: nobody takes it for a control plane.
    assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
}

#[tokio::test]
async fn a_limiter_is_a_client_and_a_server() {
    let dir = TempDir::new().unwrap();
    let ca = authority(&dir.path().join("ca"));
    let issued = ca.issue_limiter(&name("limiter-1"), &["localhost".to_owned()], &[], DAY, now()).unwrap();
    assert_eq!(issued.uri, "spiffe://chancery.local/rate-limiter/limiter-1");
    let files = issue::write(&dir.path().join("limiter"), &issued).unwrap();
    let client = TlsConnector::from(client_of(&files.ca, &files).config());
    let IdentityFiles { certificate, private_key, ca } = files;
    let server = ServerTls::load(ServerTlsFiles { certificate, private_key, client_ca: ca }).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut listener = TlsListener::new(socket, server, AcceptLimits::default()).unwrap();
    let stream = TcpStream::connect(listener.local_addr()).await.unwrap();
    let connecting = tokio::spawn(async move { client.connect("localhost".try_into().unwrap(), stream).await });
    let connection = listener.next().await.unwrap().unwrap();
    let identity = Identity::from_certificate(&connection.peer().certificates[0]).unwrap();
    assert_eq!(identity.to_string(), issued.uri);
    connecting.await.unwrap().unwrap();
}

#[tokio::test]
async fn expired_foreign_and_misused_certificates_are_refused() {
    let dir = TempDir::new().unwrap();
    let ca = authority(&dir.path().join("ca"));
    let foreign = authority(&dir.path().join("foreign"));
    let server = local_server(&ca, &dir.path().join("server"));
    let trusted = dir.path().join("server/ca.crt");

    let long_ago = now() - time::Duration::days(2);
    let expired = ca.issue_proxy(&name("edge"), &name("edge-1"), DAY, long_ago).unwrap();
    let expired = issue::write(&dir.path().join("expired"), &expired).unwrap();
    let reason = refusal(&server, &client_of(&trusted, &expired)).await.to_string();
    assert!(reason.starts_with("certificate expired on "), "{reason}");

    let other = foreign.issue_proxy(&name("edge"), &name("edge-1"), DAY, now()).unwrap();
    let other = issue::write(&dir.path().join("other"), &other).unwrap();
    assert_eq!(refusal(&server, &client_of(&trusted, &other)).await, Refusal::UnknownAuthority);

    let server_as_client = IdentityFiles::within(&dir.path().join("server"));
    assert_eq!(refusal(&server, &client_of(&trusted, &server_as_client)).await, Refusal::WrongPurpose);
}

#[test]
fn a_ca_is_made_once_and_kept_from_others() {
    let dir = TempDir::new().unwrap();
    let ca = dir.path().join("ca");
    let made = authority(&ca);
    assert_eq!(made.ca_pem(), authority(&ca).ca_pem());
    let mode = |name: &str| fs::metadata(ca.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.crt")), (0o600, 0o644));
    assert_eq!(fs::metadata(&ca).unwrap().permissions().mode() & 0o777, 0o700);
    assert_ne!(made.ca_pem(), authority(&dir.path().join("other")).ca_pem());
}

#[test]
fn a_start_that_was_interrupted_is_completed() {
    let dir = TempDir::new().unwrap();
    authority(dir.path());
    let key = fs::read(dir.path().join(KEY_FILE)).unwrap();
    fs::remove_file(dir.path().join(CERTIFICATE_FILE)).unwrap();
    authority(dir.path());
    assert_eq!(fs::read(dir.path().join(KEY_FILE)).unwrap(), key);

    fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
    let error = Authority::load_or_create(dir.path(), "chancery.local", now()).unwrap_err();
    assert!(matches!(error, AuthorityError::KeyMissing { .. }), "{error}");
}

#[test]
fn several_that_start_together_agree() {
    let dir = TempDir::new().unwrap();
    let all: Vec<Authority> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| authority(dir.path()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(all.iter().all(|ca| ca.ca_pem() == all[0].ca_pem()));
}

#[test]
fn a_certificate_does_not_outlive_its_ca() {
    let dir = TempDir::new().unwrap();
    let ca = authority(dir.path());
    let issued = ca.issue_proxy(&name("edge"), &name("edge-1"), DAY * 100_000, now()).unwrap();
    assert_eq!(issued.not_after, ca.not_after);
    for life in [Duration::ZERO, Duration::MAX] {
        let error = ca.issue_proxy(&name("edge"), &name("edge-1"), life, now()).unwrap_err();
        assert!(matches!(error, AuthorityError::Life(_)), "{error}");
    }
    let error = Authority::load_or_create(dir.path(), "chancery.local", now() + CA_LIFE + CA_LIFE).unwrap_err();
    assert!(matches!(error, AuthorityError::Expired { .. }), "{error}");
}

/// A CA as others make them: its key's algorithm and its subject vary.
fn brought(dir: &Path, key: &KeyPair, params: &CertificateParams) -> (PathBuf, PathBuf) {
    let files = (dir.join("brought.crt"), dir.join("brought.key"));
    fs::write(&files.0, params.self_signed(key).unwrap().pem()).unwrap();
    fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

#[tokio::test]
async fn a_ca_that_was_brought_issues_too() {
    let algorithms = [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_RSA_SHA256];
    for algorithm in algorithms {
        let dir = TempDir::new().unwrap();
        let (certificate, key) = brought(dir.path(), &KeyPair::generate_for(algorithm).unwrap(), &ca_params());
        let out = dir.path().join("out");
        let request = Request {
            ca: CaSource::Brought { certificate, key },
            trust_domain: "example.org".to_owned(),
            holder: Holder::Proxy { fleet: name("edge"), id: name("edge-1") },
            life: DAY,
            out: out.clone(),
        };
        let (issued, files) = issue::issue(&request, now()).unwrap();
        assert_eq!(issued.uri, "spiffe://example.org/fleet/edge/proxy/edge-1");
        assert_eq!(fs::metadata(&files.private_key).unwrap().permissions().mode() & 0o777, 0o600);

        let server = Request {
            holder: Holder::ControlPlane { dns_names: vec!["localhost".to_owned()], addresses: Vec::new() },
            out: dir.path().join("server"),
            ..request
        };
        let (_, served) = issue::issue(&server, now()).unwrap();
        let IdentityFiles { certificate, private_key, ca } = served;
        let server = ServerTls::load(ServerTlsFiles { certificate, private_key, client_ca: ca.clone() }).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut listener = TlsListener::new(socket, server, AcceptLimits::default()).unwrap();
        let address = listener.local_addr();
        let connector = TlsConnector::from(client_of(&ca, &files).config());
        let client = tokio::spawn(async move {
            let stream = TcpStream::connect(address).await.unwrap();
            connector.connect("localhost".try_into().unwrap(), stream).await.unwrap()
        });
        assert!(listener.next().await.unwrap().is_ok());
        client.await.unwrap();
    }
}

#[test]
fn a_ca_that_cannot_work_is_refused_before_it_issues() {
    let dir = TempDir::new().unwrap();
    let load = |(certificate, key): &(PathBuf, PathBuf)| {
        let error = Authority::load(certificate, key, "chancery.local", now()).unwrap_err();
        telemetry::chain(&error)
    };

    let leaf = brought(dir.path(), &KeyPair::generate().unwrap(), &CertificateParams::default());
    assert!(load(&leaf).ends_with("it is not the certificate of a CA"), "{}", load(&leaf));

    let mut cannot_sign = ca_params();
    cannot_sign.key_usages = vec![KeyUsagePurpose::CrlSign];
    let cannot_sign = brought(dir.path(), &KeyPair::generate().unwrap(), &cannot_sign);
    assert!(load(&cannot_sign).contains("may not sign certificates"), "{}", load(&cannot_sign));

    let mismatch = brought(dir.path(), &KeyPair::generate().unwrap(), &ca_params());
    fs::write(&mismatch.1, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert!(load(&mismatch).contains("the private key is not the one"), "{}", load(&mismatch));

    fs::write(&mismatch.1, "no key").unwrap();
    assert!(load(&mismatch).contains("brought.key holds no private key"), "{}", load(&mismatch));

    let missing = (dir.path().join("none.crt"), mismatch.1);
    assert!(load(&missing).contains("none.crt"), "{}", load(&missing));
}

#[test]
fn a_ca_is_not_made_where_one_was_expected() {
    let dir = TempDir::new().unwrap();
    let error = Authority::load_from(&dir.path().join("ca"), "chancery.local", now()).unwrap_err();
    assert!(matches!(error, AuthorityError::NoCa { .. }), "{error}");
    assert!(!dir.path().join("ca").exists());
}
