use std::net::SocketAddr;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Long enough for anything here.
const PATIENCE: Duration = Duration::from_secs(20);

fn ask(url: &str) -> Request<Bytes> {
    Request::get(url).body(Bytes::new()).unwrap()
}

async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), answer: &str) -> String {
    let mut head = vec![0; 4096];
    let read = stream.read(&mut head).await.unwrap();
    stream.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8_lossy(&head[..read]).into_owned()
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn only_what_nobody_else_can_read_is_private() {
    for (url, private) in [
        ("https://a.example.com", true),
        ("http://127.0.0.1:8080/x", true),
        ("http://127.9.9.9", true),
        ("http://[::1]:80/", true),
        ("http://localhost/", true),
        ("http://localhost.example.com/", false),
        ("http://10.0.0.1/", false),
        ("ftp://localhost/", false),
        ("/path", false),
    ] {
        assert_eq!(is_private(&url.parse().unwrap()), private, "{url}");
    }
}

#[tokio::test]
async fn an_answer_is_whole_in_time_and_not_too_large() {
    let (listener, address) = listen().await;
    let fetcher = Fetcher::trusting(None).unwrap();
    let serving = tokio::spawn(async move {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            heads.push(answer(&mut stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello").await);
        }
        // The third is never answered.
        let (stream, _) = listener.accept().await.unwrap();
        (heads, stream)
    });
    let url = format!("http://{address}/keys?x=1");
    let found = fetcher.send(ask(&url), PATIENCE, 5).await.unwrap();
    assert_eq!((found.status().as_u16(), found.body().as_ref()), (404, b"hello".as_slice()));
    let large = fetcher.send(ask(&url), PATIENCE, 4).await.unwrap_err();
    assert!(matches!(large, FetchError::Body { .. }), "{large}");
    let slow = fetcher.send(ask(&url), Duration::from_millis(200), 5).await.unwrap_err();
    assert!(matches!(slow, FetchError::Deadline { .. }), "{slow}");
    let (heads, _) = serving.await.unwrap();
    assert!(heads[0].starts_with("GET /keys?x=1 HTTP/1.1\r\n"), "{}", heads[0]);
    assert!(heads[0].contains(&format!("host: {address}")), "{}", heads[0]);
}

#[tokio::test]
async fn a_server_must_be_one_whom_we_trust() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    tls::install_crypto_provider();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                answer(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    });
    let url = format!("https://{address}/");
    let trusting = Fetcher::trusting(Some(&file)).unwrap();
    assert_eq!(trusting.send(ask(&url), PATIENCE, 10).await.unwrap().body().as_ref(), b"ok");
    let other = Fetcher::trusting(None).unwrap().send(ask(&url), PATIENCE, 10).await.unwrap_err();
    assert!(matches!(other, FetchError::Connect { .. }), "{other}");
    let clear = trusting.send(ask("http://issuer.example.com/"), PATIENCE, 10).await.unwrap_err();
    assert!(matches!(clear, FetchError::Insecure(_)), "{clear}");
    assert!(Fetcher::trusting(Some(&folder.path().join("none"))).is_err());
}
