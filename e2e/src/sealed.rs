//! Requests to a demo upstream whose answers show whether all arrived, once, and at the one who asked.
//!
//! An answer bears a hash of its body, one of the body that it answers, and the id of the request. A client here takes no answer
//! for a success whose seal is broken: that is what a proxy must never make of a failure.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use xxhash_rust::xxh3::xxh3_64;

/// No request here takes longer, faults included.
const DEADLINE: Duration = Duration::from_secs(30);

/// A request.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// Its id, under which its executions are counted.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// What it brings.
    pub body: Bytes,
    /// How much it asks for, in bytes.
    pub more: usize,
    /// Whether it is a gRPC call.
    pub grpc: bool,
}

impl Sealed {
    /// One of a mixture, by its number: half are `GET`, the others bring something; some are long, and of those with a
    /// `POST` some are gRPC calls if there `may` be any.
    pub fn of_mixture(number: usize, grpc_may_be: bool) -> Self {
        let long = number % 50 == 7;
        let size = if long { 100_000 } else { number * 37 % 3_000 };
        let (kind, method) = match number % 10 {
            0..5 => ("get", Method::GET),
            5 => ("put", Method::PUT),
            _ => ("post", Method::POST),
        };
        let body = match method {
            Method::GET => Bytes::new(),
            // No two places are alike, so that what is missing or doubled shows.
            _ => (0..size).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect::<Vec<u8>>().into(),
        };
        Self { id: format!("{kind}-{number}"), more: size, grpc: grpc_may_be && number % 10 == 9, method, body }
    }

    fn request(&self, target: &str) -> Result<Request<Full<Bytes>>> {
        let builder = Request::builder()
            .method(self.method.clone())
            .uri(target)
            .header("x-request-id", &self.id)
            .header("x-demo-bytes", self.more);
        let builder = if self.grpc { builder.header(header::CONTENT_TYPE, "application/grpc") } else { builder };
        Ok(builder.body(Full::new(self.body.clone()))?)
    }

    /// What became of it, by what came back.
    async fn judge(&self, response: Response<Incoming>) -> Ended {
        let (head, body) = response.into_parts();
        let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Ok(body) = body.collect().await else { return Ended::BrokenOff };
        let grpc_status = head.headers.get("grpc-status").or_else(|| body.trailers()?.get("grpc-status")).cloned();
        let body = body.to_bytes();
        if head.status != 200 {
            return Ended::Error(format!("{} {}", head.status.as_u16(), header("x-chancery-reason")));
        }
        match grpc_status {
            Some(status) if status != "0" => {
                return Ended::Error(format!("grpc {status:?} {}", header("x-chancery-reason")));
            }
            None if self.grpc => return Ended::Wrong("a gRPC call without a status".to_owned()),
            _ => {}
        }
        let hash = |bytes: &[u8]| format!("{:016x}", xxh3_64(bytes));
        let named = format!("\nx-request-id: {}\n", self.id);
        if header("x-body-hash") != hash(&body) {
            Ended::Wrong(format!("{} of {} bytes", body.len(), header("content-length")))
        } else if !body.windows(named.len()).any(|window| window == named.as_bytes()) {
            Ended::Wrong("the answer to another request".to_owned())
        } else if header("x-chaos") != "earlyResponse" && header("x-request-hash") != hash(&self.body) {
            Ended::Wrong("something else than was sent reached the service".to_owned())
        } else {
            Ended::Well(header("x-chaos").to_owned())
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// It was answered, with the seal unbroken, under this fault if any.
    Well(String),
    /// An error came back, which says that it is one.
    Error(String),
    /// The connection or stream broke off, which the client sees.
    BrokenOff,
    /// It looks like a success, and is none.
    Wrong(String),
    /// Nothing came for too long.
    Late,
}

/// How many requests ended in which way.
#[derive(Clone, Debug, Default)]
pub struct Endings(pub BTreeMap<Ended, usize>);

impl Endings {
    fn add(&mut self, more: Self) {
        for (ended, count) in more.0 {
            *self.0.entry(ended).or_default() += count;
        }
    }

    /// How many ended in a way that `is` one of those looked for.
    pub fn count(&self, is: impl Fn(&Ended) -> bool) -> usize {
        self.0.iter().filter(|(ended, _)| is(ended)).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(ended, count)| writeln!(f, "{count:>8} {ended:?}"))
    }
}

/// Sends requests `numbers` of the mixture over HTTP/1.1, on so many connections.
pub async fn over_http1(
    address: SocketAddr,
    host: &'static str,
    connections: usize,
    numbers: std::ops::Range<usize>,
) -> Result<Endings> {
    let mut clients = JoinSet::new();
    for first in 0..connections {
        let numbers = numbers.clone().skip(first).step_by(connections);
        clients.spawn(async move {
            let mut endings = Endings::default();
            let mut sender = None;
            for number in numbers {
                let sealed = Sealed::of_mixture(number, false);
                let mut request = sealed.request("/")?;
                request.headers_mut().insert(header::HOST, HeaderValue::from_static(host));
                let exchange = async {
                    let mut open = match sender.take() {
                        Some(open) => open,
                        None => connect_http1(address).await.map_err(|_| Ended::BrokenOff)?,
                    };
                    if open.ready().await.is_err() {
                        open = connect_http1(address).await.map_err(|_| Ended::BrokenOff)?;
                    }
                    let response = open.send_request(request).await.map_err(|_| Ended::BrokenOff)?;
                    let ended = sealed.judge(response).await;
                    sender = Some(open);
                    Ok(ended)
                };
                let ended = match timeout(DEADLINE, exchange).await {
                    Ok(Ok(ended) | Err(ended)) => ended,
                    Err(_) => Ended::Late,
                };
                *endings.0.entry(ended).or_default() += 1;
            }
            Ok(endings)
        });
    }
    joined(clients).await
}

/// The same over HTTP/2, gRPC calls among them, with so many streams at a time on each connection.
pub async fn over_http2(
    address: SocketAddr,
    host: &'static str,
    connections: usize,
    streams: usize,
    numbers: std::ops::Range<usize>,
) -> Result<Endings> {
    let mut clients = JoinSet::new();
    for first in 0..connections {
        let shared = connect_http2(address).await?;
        for stream in 0..streams {
            let sender = shared.clone();
            let numbers = numbers.clone().skip(first * streams + stream).step_by(connections * streams);
            clients.spawn(async move {
                let mut endings = Endings::default();
                for number in numbers {
                    let sealed = Sealed::of_mixture(number, true);
                    let request = sealed.request(&format!("http://{host}/"))?;
                    let mut sender = sender.clone();
                    let exchange = async {
                        match sender.send_request(request).await {
                            Ok(response) => sealed.judge(response).await,
                            Err(_) => Ended::BrokenOff,
                        }
                    };
                    let ended = timeout(DEADLINE, exchange).await.unwrap_or(Ended::Late);
                    *endings.0.entry(ended).or_default() += 1;
                }
                Ok(endings)
            });
        }
    }
    joined(clients).await
}

async fn joined(mut clients: JoinSet<Result<Endings>>) -> Result<Endings> {
    let mut all = Endings::default();
    while let Some(client) = clients.join_next().await {
        all.add(client??);
    }
    Ok(all)
}

async fn connect_http1(address: SocketAddr) -> Result<http1::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

async fn connect_http2(address: SocketAddr) -> Result<http2::SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    // It ends with the last of its senders.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
