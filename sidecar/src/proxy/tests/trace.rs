//! Where no spans are made, the context of a trace is the application's: it passes as it came, both ways, and nothing of it is made up.

use http::{HeaderMap, HeaderValue, Response};

use super::{
    inbound::{serve, settings},
    support::{Backend, Client, Sidecar, cluster, request, retries, route_to, snapshot},
};
use crate::{
    config::snapshot::{ClusterSettings, Protocol},
    proxy::body,
};

/// W3C's, and both forms of B3. Several of one name stay several, in their order.
const CONTEXT: [(&str, &str); 9] = [
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("tracestate", "rojo=00f067aa0ba902b7"),
    ("tracestate", "congo=t61rcWkgMzE"),
    ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90"),
    ("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
    ("x-b3-spanid", "e457b5a2e4d86bd1"),
    ("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
    ("x-b3-sampled", "1"),
    ("x-b3-flags", "1"),
];

fn context(headers: &HeaderMap) -> Vec<(String, String)> {
    let is_of_a_trace = |name: &str| name.starts_with("trace") || name.contains("b3");
    let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
    let found = headers.iter().filter(|(name, _)| is_of_a_trace(name.as_str()));
    let mut found: Vec<_> = found.map(|(name, value)| (name.to_string(), text(value))).collect();
    // Names may come in any order; what is of one name may not.
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// Answers with the context that it saw, as its own.
async fn echo() -> Backend {
    Backend::start(async move |request| {
        let mut response = Response::new(body::full("ok"));
        for (name, value) in request.headers() {
            response.headers_mut().append(name, value.clone());
        }
        response.headers_mut().remove("content-length");
        response
    })
    .await
}

#[tokio::test]
async fn it_passes_as_it_came() {
    let backend = echo().await;
    let mut ways = Vec::new();
    for (protocol, retry) in [(Protocol::Http1, None), (Protocol::Http2, None), (Protocol::Http2, retries(2))] {
        let settings = ClusterSettings { protocol, ..ClusterSettings::default() };
        ways.push(Sidecar::start(snapshot(cluster("c", &[backend.address], settings), route_to("c", retry))).await);
    }
    let (inbound, _serving) = serve(settings(&backend), 10, None).await;
    let mut wanted = HeaderMap::new();
    for (name, value) in CONTEXT {
        wanted.append(name, HeaderValue::from_static(value));
    }
    for address in ways.iter().map(|way| way.address).chain([inbound]) {
        let mut client = Client::connect(address).await;
        let mut asked = request("GET", "/", "");
        asked.headers_mut().extend(wanted.clone());
        assert_eq!(context(&client.send(asked).await.headers), context(&wanted));
        assert_eq!(context(&client.get("/").await.headers), [], "none is made up");
    }
}
