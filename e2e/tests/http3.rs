//! HTTP/3 of a listener, which another Envoy speaks to it as a client.

use std::{net::SocketAddr, path::Path};

use anyhow::{Result, ensure};
use chancery_e2e::{
    bootstrap::fixed,
    certificates::Identity,
    client::{fetch, fetch_tls, get},
    document::{resource, route_saying},
    envoy::Envoy,
    over_both_protocols,
    port::free_port,
    scene::Scene,
    wait::{PATIENCE, until},
};
use serde_json::{Value, json};

const HOST: &str = "news.example.com";

over_both_protocols!(a_listener_speaks_http3_beside_tcp);

fn https(port: u16, identity: &Identity, http3: bool) -> Value {
    let tls = json!({ "certificateFile": identity.certificate, "privateKeyFile": identity.key });
    let spec = json!({
        "fleet": "edge", "address": "127.0.0.1", "port": port, "protocol": "https", "tls": tls, "http3": http3,
    });
    resource("Listener", "secure", spec)
}

fn saying(body: &str) -> Value {
    let mut route = route_saying("news", HOST, body);
    route["spec"]["listeners"] = json!(["edge/secure"]);
    route
}

/// A proxy that passes everything that comes to `listen` on over HTTP/3, to what proves to be `localhost`.
async fn client(scene: &Scene, listen: SocketAddr, secure: SocketAddr, trusted: &Path) -> Result<Envoy> {
    let mut bootstrap = fixed(listen, secure);
    let cluster = &mut bootstrap["static_resources"]["clusters"][0];
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http3_protocol_options": {} },
        }
    });
    let validation = json!({
        "trusted_ca": { "filename": trusted },
        "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "exact": "localhost" } }],
    });
    let tls = json!({ "sni": "localhost", "common_tls_context": { "validation_context": validation } });
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.quic",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicUpstreamTransport",
            "upstream_tls_context": tls,
        },
    });
    Envoy::start(&scene.program, scene.folder(), "client", &bootstrap).await
}

async fn a_listener_speaks_http3_beside_tcp(scene: &Scene) -> Result<()> {
    let [listen, secure] = [free_port(), free_port()].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let (identity, trusted) = (scene.authority.server()?, scene.authority.file());
    scene.api.apply_and_wait(&[https(secure.port(), &identity, true), saying("in private")]).await?;
    let by_tcp = async || fetch_tls(secure, "localhost", &trusted, get(HOST, "/")).await;
    let answer = until("the listener answers over TCP", PATIENCE, by_tcp).await?;
    assert_eq!(answer.header("alt-svc"), format!("h3=\":{}\"; ma=86400", secure.port()));

    let client = client(scene, listen, secure, &trusted).await?;
    let by_quic = async |wanted: &str| {
        until(&format!("{wanted} comes over HTTP/3"), PATIENCE, async || {
            let answer = fetch(listen, get(HOST, "/")).await?;
            ensure!((answer.status, &*answer.text()) == (200, wanted), "{} {}", answer.status, answer.text());
            Ok(())
        })
        .await
    };
    by_quic("in private").await?;
    assert!(scene.envoy.stat("http.secure.downstream_cx_http3_total").await? > 0);
    assert!(client.stat("cluster.upstream.upstream_cx_http3_total").await? > 0);

    // Routes are those of the listener: an edit of one reaches both.
    scene.api.put_and_wait(&saying("in public")).await?;
    by_quic("in public").await?;
    let stays = scene.envoy.stat("listener_manager.listener_modified").await?;
    assert_eq!(stays, 0, "an edit of routes changes no listener");

    scene.api.put_and_wait(&https(secure.port(), &identity, false)).await?;
    let quiet = async || {
        let answer = by_tcp().await?;
        ensure!(answer.status == 200 && answer.header("alt-svc").is_empty(), "{:?}", answer.headers);
        Ok(())
    };
    until("nobody is told of HTTP/3 any more", PATIENCE, quiet).await?;
    until("nobody speaks HTTP/3 any more", PATIENCE, async || {
        let dump = scene.envoy.config_dump().await?;
        let listeners = dump["configs"].as_array().into_iter().flatten();
        let mut listeners = listeners.flat_map(|part| part["dynamic_listeners"].as_array().into_iter().flatten());
        let speaks = listeners.any(|one| one["name"] == "chancery.http3.secure" && one["active_state"].is_object());
        ensure!(!speaks, "its listener is there");
        Ok(())
    })
    .await?;
    Ok(())
}
