//! A collector of traces: takes spans over OTLP, and shows what it has taken.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{span::SpanKind, status::StatusCode},
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A span that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The trace, in hexadecimal digits.
    pub trace: String,
    /// Itself, in hexadecimal digits.
    pub id: String,
    /// The span above it; empty: none.
    pub parent: String,
    /// `Server` or `Client`, mostly.
    pub kind: String,
    /// What it is called.
    pub name: String,
    /// What it says, and what is said of whoever sent it.
    pub attributes: BTreeMap<String, String>,
    /// Whether it says that it failed.
    pub failed: bool,
    /// Why, in words, if it says so.
    pub words: String,
    /// Whether it ended, and not before it began.
    pub ended: bool,
}

impl Span {
    /// What it says under this name; empty: nothing.
    pub fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A collector on a port of its own, in plaintext. Dropping it closes every connection.
#[derive(Debug)]
pub struct Collector {
    /// Where it listens.
    pub address: SocketAddr,
    taken: Taken,
    _server: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Taken(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Starts one on a free port of the loopback interface.
    pub async fn start() -> Result<Self> {
        Self::start_at(0).await
    }

    /// Starts one on this port.
    pub async fn start_at(port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let taken = Taken::default();
        let service = TraceServiceServer::new(taken.clone());
        let mut server = JoinSet::new();
        server.spawn(async move {
            let serving = Server::builder().add_service(service);
            // The test sees that nothing arrives.
            let _ = serving.serve_with_incoming(TcpListenerStream::new(listener)).await;
        });
        Ok(Self { address, taken, _server: server })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has taken, in the order of arrival.
    pub fn spans(&self) -> Vec<Span> {
        self.taken.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[tonic::async_trait]
impl TraceService for Taken {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = Vec::new();
        for of_one in request.into_inner().resource_spans {
            let resource = of_one.resource.map(|resource| texts(&resource.attributes)).unwrap_or_default();
            for span in of_one.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let mut attributes = resource.clone();
                attributes.extend(texts(&span.attributes));
                spans.push(Span {
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    kind: format!("{:?}", SpanKind::try_from(span.kind).unwrap_or_default()),
                    name: span.name,
                    attributes,
                    failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
                    words: span.status.map(|status| status.message).unwrap_or_default(),
                    ended: span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano,
                });
            }
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| {
        let value = attribute.value.clone().and_then(|value| value.value);
        let text = match value {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key.clone(), text)
    };
    attributes.iter().map(text).collect()
}
