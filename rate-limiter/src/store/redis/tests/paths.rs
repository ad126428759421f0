//! The ways to a Redis: users and passwords, TLS, sentinels.

use std::{fs, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{ask, bucket};
use crate::store::redis::{
    Address, InvalidTls, RedisSettings, SaltCell, Shared, TlsFiles,
    testing::{RedisServer, by_redis, connected, settings, shared, until},
};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_user_with_no_more_than_it_needs() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    // What docs say a limiter's user must be allowed.
    let set = server.cli(&[
        "acl",
        "setuser",
        "limiter",
        "on",
        ">p@ss/word",
        "~ch:*",
        "+evalsha",
        "+eval",
        "+script|load",
        "+get",
        "+set",
        "+time",
        "+zadd",
        "+zrem",
        "+zremrangebyscore",
        "+zcard",
        "+pexpire",
        "+info",
        "+hello",
    ]);
    assert_eq!(set, "OK");
    server.cli(&["acl", "setuser", "default", "off"]);
    let url = format!("redis://limiter:p%40ss%2Fword@127.0.0.1:{}", server.port);
    let shared = shared(settings(&url));
    let store = shared.store_for_worker();
    connected(&shared).await;
    assert!(by_redis(&*store, ask(1, bucket(3, HOUR, 3))).await);
    until("the heartbeat is allowed as well", async || shared.replicas() == 1).await;
    shared.close().await.unwrap();
}

#[tokio::test]
async fn tls_with_certificates_on_both_sides() {
    let Some(mut server) = RedisServer::prepare(&[]) else { return };
    let folder = server.folder().to_owned();
    let file = |name: &str| folder.join(name);
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, "the CA of this test");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    fs::write(file("ca.crt"), ca.pem()).unwrap();
    for (name, host) in [("server", "127.0.0.1"), ("client", "limiter")] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        fs::write(file(&format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(file(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let port = server.port.to_string();
    server.argue(&[
        "--port",
        "0",
        "--tls-port",
        &port,
        "--tls-cert-file",
        "server.crt",
        "--tls-key-file",
        "server.key",
        "--tls-ca-cert-file",
        "ca.crt",
        "--tls-auth-clients",
        "yes",
    ]);
    server.run().await;
    let url = format!("rediss://127.0.0.1:{port}");
    let tls =
        TlsFiles { ca: Some(file("ca.crt")), certificate: Some(file("client.crt")), key: Some(file("client.key")) };
    let secured = shared(RedisSettings { tls: tls.clone(), ..settings(&url) });
    let store = secured.store_for_worker();
    connected(&secured).await;
    assert!(by_redis(&*store, ask(1, bucket(3, HOUR, 3))).await);

    let refused = |address: &str, tls: TlsFiles| {
        let settings = RedisSettings { tls, ..RedisSettings::new(address.parse::<Address>().unwrap()) };
        let local = std::sync::Arc::new(crate::store::Memory::new(10, crate::store::Clock::system()));
        Shared::start(settings, local, SaltCell::random()).err().unwrap()
    };
    assert!(matches!(refused(&url, TlsFiles { key: None, ..tls.clone() }), InvalidTls::Half));
    assert!(matches!(refused("redis://a", tls.clone()), InvalidTls::Plaintext));
    let missing = TlsFiles { ca: Some(file("none.crt")), ..tls.clone() };
    assert!(matches!(refused(&url, missing), InvalidTls::Read { .. }));
    assert!(matches!(refused(&url, TlsFiles { key: Some(file("ca.crt")), ..tls }), InvalidTls::Content(_)));
}

#[tokio::test]
async fn a_sentinel_says_who_the_master_is_also_after_it_changed() {
    let Some(mut master) = RedisServer::start(&[]).await else { return };
    let port = master.port.to_string();
    let Some(replica) = RedisServer::start(&["--replicaof", "127.0.0.1", &port]).await else { return };
    let Some(mut sentinel) = RedisServer::prepare(&[]) else { return };
    let configuration = format!(
        "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n"
    );
    fs::write(sentinel.folder().join("sentinel.conf"), configuration).unwrap();
    sentinel.argue(&["sentinel.conf", "--sentinel"]);
    sentinel.run().await;
    until("the sentinel knows the replica", async || {
        replica.cli(&["info", "replication"]).contains("master_link_status:up")
            && sentinel.cli(&["sentinel", "replicas", "main"]).contains(&replica.port.to_string())
    })
    .await;
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let shared = shared(RedisSettings { timeout: Duration::from_millis(50), ..settings(&url) });
    let store = shared.store_for_worker();
    connected(&shared).await;
    let limit = bucket(1_000_000, HOUR, 1_000_000);
    assert!(by_redis(&*store, ask(1, limit)).await);
    master.kill();
    until("decided without Redis", async || !by_redis(&*store, ask(1, limit)).await).await;
    until("the replica has taken over", async || replica.cli(&["role"]).starts_with("master")).await;
    until("Redis decides again", async || by_redis(&*store, ask(1, limit)).await).await;
    assert_ne!(replica.cli(&["dbsize"]), "0");
}
