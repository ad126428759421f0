//! Who may use which domain: the certificate says.

use std::path::Path;

use chancery_runtime::tls::{ClientTls, ClientTlsFiles, ServerTls, ServerTlsFiles};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    SanType,
};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    raw::{Call, Client, frame},
    scene::{SERVERS, Setting, request},
};

struct Authority(CertifiedIssuer<'static, KeyPair>, TempDir);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let folder = TempDir::new().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self(issuer, folder)
    }

    fn folder(&self) -> &Path {
        self.1.path()
    }

    fn issue(&self, name: &str, alternative: SanType, usage: ExtendedKeyUsagePurpose) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![alternative];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(self.folder().join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(self.folder().join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

#[tokio::test]
async fn a_domain_of_a_fleet_is_for_its_proxies_only() {
    let authority = Authority::new();
    let file = |name: &str| authority.folder().join(name);
    authority.issue("server", SanType::DnsName("localhost".try_into().unwrap()), ExtendedKeyUsagePurpose::ServerAuth);
    let clients = [
        ("inner", "spiffe://chancery.local/fleet/inner/proxy/a", 0),
        ("edge", "spiffe://chancery.local/fleet/edge/proxy/a", 7),
        ("foreign", "spiffe://elsewhere/fleet/inner/proxy/a", 7),
        ("person", "spiffe://chancery.local/person/ann", 7),
    ];
    for (name, uri, _) in clients {
        authority.issue(name, SanType::URI(uri.try_into().unwrap()), ExtendedKeyUsagePurpose::ClientAuth);
    }
    for server in SERVERS {
        let tls = ServerTls::load(ServerTlsFiles {
            certificate: file("server.pem"),
            private_key: file("server.key"),
            client_ca: file("ca.pem"),
        });
        let scene = Setting { tls: Some(tls.unwrap()), ..Setting::of(server) }.play().await;
        for (name, uri, expected) in &clients {
            let tls = ClientTls::load(&ClientTlsFiles {
                ca: file("ca.pem"),
                identity: Some((file(&format!("{name}.pem")), file(&format!("{name}.key")))),
            });
            let stream = TcpStream::connect(scene.address).await.unwrap();
            let localhost = "localhost".try_into().unwrap();
            let stream = TlsConnector::from(tls.unwrap().config()).connect(localhost, stream).await.unwrap();
            let mut client = Client::over(stream).await;
            let mut code = async |domain| client.call(&Call::with(frame(&request(domain)))).await.code();
            assert_eq!(code("edge").await, Some(0), "{server:?} {uri}");
            assert_eq!(code("inner").await, Some(*expected), "{server:?} {uri}");
        }
    }
}
