//! The demo upstream, asked over a socket, with its faults on.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use xxhash_rust::xxh3::xxh3_64;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

async fn upstream(chaos: &str) -> (Upstream, Arc<State>) {
    let state = Arc::new(State::new("demo-a", chaos.parse().unwrap()));
    let upstream = Upstream::of(state.clone(), "127.0.0.1:0".parse().unwrap()).await.unwrap();
    (upstream, state)
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

struct Client {
    sender: Sender,
    _driver: AbortOnDropHandle<()>,
}

impl Client {
    async fn http1(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { sender: Sender::Http1(sender), _driver: AbortOnDropHandle::new(driver) }
    }

    async fn http2(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        let driver = tokio::spawn(async move { drop(connection.await) });
        Self { sender: Sender::Http2(sender), _driver: AbortOnDropHandle::new(driver) }
    }

    async fn send(&mut self, id: &str, headers: &[(&str, &str)]) -> Result<Response<Bytes>> {
        let start = Request::post("http://demo/some/path?q=1").header("host", "demo").header("x-request-id", id);
        let builder = headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value));
        let request = builder.body(Full::from("a body"))?;
        let exchange = async {
            let response: Response<Incoming> = match &mut self.sender {
                Sender::Http1(sender) => sender.send_request(request).await?,
                Sender::Http2(sender) => sender.send_request(request).await?,
            };
            let (head, body) = response.into_parts();
            Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
        };
        timeout(DEADLINE, exchange).await?
    }
}

fn hash_of(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}

#[tokio::test]
async fn it_says_its_name_and_what_reached_it_until_it_is_dropped() {
    let (upstream, _) = upstream("{}").await;
    let address = upstream.address();
    for mut client in [Client::http1(address).await, Client::http2(address).await] {
        let answer = client.send("1", &[("x-demo-bytes", "100000")]).await.unwrap();
        let body = String::from_utf8(answer.body().to_vec()).unwrap();
        assert!(body.starts_with("demo-a\nPOST ") && body.contains("/some/path?q=1\n"), "{body:.100}");
        assert!(body.contains("\nx-request-id: 1\n") && body.len() >= 100_000, "{body:.100}");
        assert_eq!(answer.headers()["x-body-hash"], hash_of(answer.body()));
        assert_eq!(answer.headers()["x-request-hash"], hash_of(b"a body"));
    }
    drop(upstream);
    let gone = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(DEADLINE, gone).await.unwrap();
}

#[tokio::test]
async fn each_fault_does_what_it_says() {
    let (upstream, state) = upstream(r#"{"status": 500, "latencyMs": 1, "dripMs": 1, "retryAfter": 3}"#).await;
    let address = upstream.address();
    let http1 = async |fault: &str| Client::http1(address).await.send("1", &[("x-chaos", fault)]).await;
    let http2 = async |fault: &str| Client::http2(address).await.send("2", &[("x-chaos", fault)]).await;
    for fault in ["error", "trailersOnly"] {
        assert_eq!(http1(fault).await.unwrap().status(), 500);
    }
    let limited = http1("rateLimited").await.unwrap();
    assert_eq!((limited.status().as_u16(), limited.headers()["retry-after"].as_bytes()), (429, &b"3"[..]));
    for fault in ["latency", "drip", "goaway", "earlyResponse"] {
        for answer in [http1(fault).await, http2(fault).await] {
            let answer = answer.unwrap();
            assert_eq!((answer.status().as_u16(), answer.headers()["x-chaos"].to_str().unwrap()), (200, fault));
            assert_eq!(answer.headers()["x-body-hash"], hash_of(answer.body()), "{fault}");
            assert_eq!(answer.headers().contains_key("x-request-hash"), fault != "earlyResponse");
        }
    }
    assert_eq!(http1("goaway").await.unwrap().headers()["connection"], "close");
    for fault in ["hangUp", "resetMidBody"] {
        for answer in [http1(fault).await, http2(fault).await] {
            assert!(answer.is_err(), "{fault}: {answer:?}");
        }
    }
    let grpc = [("content-type", "application/grpc"), ("x-chaos", "trailersOnly")];
    let answer = Client::http2(address).await.send("3", &grpc).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].as_bytes()), (200, &b"14"[..]));
    assert!(answer.body().is_empty());
    // Executed, all of them.
    let counted = state.counts.so_far();
    assert_eq!((counted.executions, counted.ids), (17, 3), "{counted:?}");
}

#[tokio::test]
async fn an_idle_connection_ends_as_the_next_request_comes() {
    let (upstream, state) = upstream(r#"{"faults": {"finOnReuse": 1}}"#).await;
    for mut client in [Client::http1(upstream.address()).await, Client::http2(upstream.address()).await] {
        client.send("1", &[]).await.unwrap();
        client.send("never", &[]).await.unwrap_err();
    }
    assert_eq!(state.counts.so_far().ids, 1, "what came as it closed was not looked at");
}

#[tokio::test]
async fn faults_are_switched_while_it_runs_and_who_refuses_comes_back() {
    let (upstream, state) = upstream("{}").await;
    let control = Control::start("127.0.0.1:0".parse().unwrap(), state).await.unwrap();
    let ask = async |method: &str, path: &str, body: &str| {
        let stream = TcpStream::connect(control.address()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let _driver = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
        let request = Request::builder().method(method).uri(path).header("host", "control");
        let answer = sender.send_request(request.body(Full::<Bytes>::from(body.to_owned())).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        (status, String::from_utf8(answer.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    };
    let mut before = Client::http1(upstream.address()).await;
    before.send("1", &[]).await.unwrap();
    assert_eq!(ask("PUT", "/chaos", r#"{"faults": {"refuse": 1}}"#).await.0, 200);
    timeout(DEADLINE, async { while TcpStream::connect(upstream.address()).await.is_ok() {} }).await.unwrap();
    before.send("2", &[]).await.unwrap_err();
    assert_eq!(ask("PUT", "/chaos", r#"{"faults": {"refuse": 2}}"#).await.0, 400);
    assert!(ask("GET", "/chaos", "").await.1.contains(r#""refuse":1.0"#));
    assert_eq!(ask("PUT", "/chaos", "{}").await.0, 200);
    timeout(DEADLINE, async { while TcpStream::connect(upstream.address()).await.is_err() {} }).await.unwrap();
    Client::http1(upstream.address()).await.send("1", &[]).await.unwrap();
    let counted = ask("GET", "/chaos/counts", "").await;
    assert_eq!(counted, (200, "{\"executions\":2,\"ids\":1,\"repeated\":{\"1\":2},\"withoutRoom\":0}\n".to_owned()));
    assert_eq!(ask("DELETE", "/chaos/counts", "").await.0, 204);
    assert!(ask("GET", "/chaos/counts", "").await.1.starts_with(r#"{"executions":0,"#));
    assert_eq!((ask("PUT", "/chaos/counts", "").await.0, ask("GET", "/", "").await.0), (405, 404));
}

#[test]
fn faults_come_as_json_or_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, r#"{"seed": 9}"#).unwrap();
    assert_eq!(read(path).unwrap(), read(r#"{"seed": 9}"#).unwrap());
    std::fs::write(path, r#"{"sed": 9}"#).unwrap();
    assert_eq!(read(path).unwrap_err().exit_code(), 2);
    assert_eq!(read("no such file").unwrap_err().exit_code(), 2);
}
