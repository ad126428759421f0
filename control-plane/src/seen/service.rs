//! `AccessLogService`: a proxy opens a stream for each of its threads, says who it is, and sends what it has logged.

use std::{sync::Arc, time::Duration};

use chancery_proto::envoy::access_log_service::{
    StreamAccessLogsMessage, StreamAccessLogsResponse, stream_access_logs_message::LogEntries,
};
use chancery_xds::Call;
use http::{Request as HttpRequest, Response};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};

use super::{Reporting, Request, Seen};
use crate::{admission::FleetAdmission, metrics as m, replica::Replica};

/// Package and name of the service.
pub const SERVICE: &str = "envoy.service.accesslog.v3.AccessLogService";

/// Its only method.
const METHOD: &str = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs";

/// How long the first message may take.
const HELLO: Duration = Duration::from_secs(10);

/// The largest message. Envoy sends what it has as soon as that is 16 KiB, and an entry with its path is hardly more.
const MOST_BYTES: usize = 1 << 20;

/// Takes what proxies log. Every stream runs where its connection does.
#[derive(Clone)]
pub struct SeenTraffic(Arc<Shared>);

struct Shared {
    admission: Arc<FleetAdmission>,
    seen: Arc<Seen>,
    replica: Arc<Replica>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

type Stream = Call<StreamAccessLogsMessage, StreamAccessLogsResponse>;

impl SeenTraffic {
    /// Takes what the proxies log that `admission` knows into `seen`, as tasks of `tasks`, until `shutdown`. Which fleets there are, the
    /// catalog of `replica` says.
    pub fn new(
        admission: Arc<FleetAdmission>,
        seen: Arc<Seen>,
        replica: Arc<Replica>,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Shared { admission, seen, replica, shutdown, tasks }))
    }

    /// Starts a stream, and answers with what it will send: nothing, until it ends.
    pub fn call(&self, request: HttpRequest<Incoming>) -> Response<Body> {
        if request.uri().path() != METHOD {
            return Status::unimplemented("no such method").into_http();
        }
        let shared = self.0.clone();
        Stream::serve(request, MOST_BYTES, &self.0.tasks, |mut stream| async move {
            let ended = shared.serve(&mut stream).await;
            (stream, ended)
        })
    }
}

impl Shared {
    /// A proxy without requests is silent for as long as it has none: the connection notices when it is gone, and is given up when
    /// it is old.
    async fn serve(&self, stream: &mut Stream) -> Result<(), Status> {
        let mut message = stream.first(HELLO, self.shutdown.cancelled()).await?;
        let node = message.identifier.as_ref().and_then(|identifier| identifier.node.as_ref());
        let node = node.ok_or_else(|| Status::invalid_argument("the first message has no node"))?;
        let (proxy, fleet_ended) = self.admission.reporter(stream.extensions(), node)?;
        let is_there = |fleet: &_| self.replica.current().catalog.fleet(fleet).is_some();
        let reporting = self.seen.connect(&proxy.fleet, proxy.id, is_there);
        let reporting = reporting.ok_or_else(|| Status::resource_exhausted("the proxy has too many streams"))?;
        let _counted = Counted::new();
        let retired = stream.retired();
        loop {
            note(&reporting, message.log_entries);
            let next = tokio::select! {
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the control plane is shutting down")),
                () = retired.cancelled() => return Err(Status::unavailable("the connection is old; open another")),
                () = fleet_ended.cancelled() => {
                    self.seen.forget(&proxy.fleet);
                    return Err(Status::unavailable("the fleet is no longer served"));
                }
                message = stream.next() => message?,
            };
            match next {
                Some(next) => message = next,
                None => return Ok(()),
            }
        }
    }
}

/// What is no HTTP is of no interest.
fn note(reporting: &Reporting, entries: Option<LogEntries>) {
    let Some(LogEntries::HttpLogs(logs)) = entries else { return };
    let requests: Vec<_> = logs.log_entry.iter().map(Request::of).collect();
    metrics::counter!(m::SEEN_REQUESTS).increment(requests.len() as u64);
    reporting.note(requests, OffsetDateTime::now_utc());
}

/// A stream in the metrics.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!(m::SEEN_STREAMS).increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(m::SEEN_STREAMS).decrement(1.0);
    }
}
