//! `LoadReportingService`: a proxy opens a stream, is told how often to report and of which clusters (all), and reports.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chancery_proto::{
    envoy::load_stats::{LoadStatsRequest, LoadStatsResponse},
    google::protobuf,
};
use chancery_xds::Call;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};

use super::Loads;
use crate::{
    admission::FleetAdmission, bootstrap::XDS_CLUSTER, metrics as m, replica::Replica, translate::rate_limit::CLUSTER,
};

/// Package and name of the service.
pub const SERVICE: &str = "envoy.service.load_stats.v3.LoadReportingService";

/// Its only method.
const METHOD: &str = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats";

/// How long the first request may take.
const HELLO: Duration = Duration::from_secs(10);

/// The largest report: some ten thousands of clusters.
const MOST_BYTES: usize = 8 << 20;

/// Who has not reported for so many intervals is cut off, and its numbers are forgotten; it may open another stream.
const PATIENCE: u32 = 3;

/// Takes load reports. Every stream runs where its connection does.
#[derive(Clone)]
pub struct LoadReports(Arc<Shared>);

struct Shared {
    admission: Arc<FleetAdmission>,
    loads: Arc<Loads>,
    replica: Arc<Replica>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

type Stream = Call<LoadStatsRequest, LoadStatsResponse>;

impl LoadReports {
    /// Takes reports of the proxies that `admission` knows into `loads`, as tasks of `tasks`, until `shutdown`. What is a
    /// service of which fleet, the catalog of `replica` says.
    pub fn new(
        admission: Arc<FleetAdmission>,
        loads: Arc<Loads>,
        replica: Arc<Replica>,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Shared { admission, loads, replica, shutdown, tasks }))
    }

    /// Starts a stream, and answers with what it will send.
    pub fn call(&self, request: Request<Incoming>) -> Response<Body> {
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
    async fn serve(&self, stream: &mut Stream) -> Result<(), Status> {
        let first = stream.first(HELLO, self.shutdown.cancelled()).await?;
        let node = first.node.as_ref().ok_or_else(|| Status::invalid_argument("the first request has no node"))?;
        let (proxy, fleet_ended) = self.admission.reporter(stream.extensions(), node)?;
        let reporting = self.loads.connect(proxy.fleet.clone(), proxy.id.clone(), Instant::now());
        let _counted = Counted::new();
        if !stream.send(self.what_to_report()).await {
            return Ok(());
        }
        let retired = stream.retired();
        let patience = PATIENCE * self.loads.interval().max(HELLO);
        loop {
            let request = tokio::select! {
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the control plane is shutting down")),
                () = retired.cancelled() => return Err(Status::unavailable("the connection is old; open another")),
                () = fleet_ended.cancelled() => return Err(Status::unavailable("the fleet is no longer served")),
                () = reporting.replaced().cancelled() => {
                    return Err(Status::aborted("the proxy reports on too many other streams"));
                }
                request = tokio::time::timeout(patience, stream.next()) => request,
            };
            let request = request.map_err(|_| Status::deadline_exceeded("no report came"))??;
            let Some(request) = request else { return Ok(()) };
            if request.node.is_some_and(|node| node.id != proxy.id.as_str() || node.cluster != proxy.fleet.as_str()) {
                return Err(Status::invalid_argument("the node changed on an open stream"));
            }
            metrics::counter!(m::LOAD_REPORTS).increment(1);
            let current = self.replica.current();
            // What proxies ask the control plane and limiters is no traffic of services.
            let mut report = request.cluster_stats;
            report.retain(|stats| ![XDS_CLUSTER, CLUSTER].contains(&&*stats.cluster_name));
            reporting.report(&report, Instant::now(), |cluster| {
                let name = &current.catalog.service(&cluster.parse().ok()?)?.name;
                current.catalog.fleet_uses(&proxy.fleet, name).then(|| name.clone())
            });
        }
    }

    fn what_to_report(&self) -> LoadStatsResponse {
        let interval = self.loads.interval();
        LoadStatsResponse {
            send_all_clusters: true,
            load_reporting_interval: Some(protobuf::Duration {
                seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
                nanos: interval.subsec_nanos().cast_signed(),
            }),
            ..LoadStatsResponse::default()
        }
    }
}

/// A stream in the metrics.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!(m::LOAD_STREAMS).increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!(m::LOAD_STREAMS).decrement(1.0);
    }
}
