//! `ClientStatusDiscoveryService`: a question, an answer; on a stream, one after the other.

use std::{sync::Arc, time::Duration};

use chancery_proto::{
    Message,
    envoy::status::{ClientStatusRequest, ClientStatusResponse},
};
use chancery_xds::Call;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};

use super::{config::client_config, matcher::Clients};
use crate::{
    admission::FleetAdmission,
    identity::spiffe::Identity,
    proxies::{Connection, Proxies, ProxyId},
};

/// Package and name of the service.
pub const SERVICE: &str = "envoy.service.status.v3.ClientStatusDiscoveryService";

const FETCH: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus";
const STREAM: &str = "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus";

/// Clients in one answer.
pub const MOST_CLIENTS: usize = 1000;

/// Bytes of one answer.
pub const MOST_BYTES: usize = 32 << 20;

/// How long the first question may take.
const HELLO: Duration = Duration::from_secs(10);

/// How long making an answer may take, and how long one stream may take to say what it knows.
const DEADLINES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(2));

/// Bytes of a question.
const MOST_QUESTION: usize = 64 << 10;

/// Calls that are open at once, of operators and of clients each: an answer may be large, and who asks may read slowly.
const AT_ONCE: usize = 8;

/// Answers what clients have. Every call runs where its connection does.
#[derive(Clone)]
pub struct ClientStatuses(Arc<Shared>);

struct Shared {
    admission: Arc<FleetAdmission>,
    proxies: Arc<Proxies>,
    operators: Semaphore,
    clients: Semaphore,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

type Questions = Call<ClientStatusRequest, ClientStatusResponse>;

impl ClientStatuses {
    /// Tells those that `admission` knows of the clients in `proxies`, as tasks of `tasks`, until `shutdown`.
    pub fn new(
        admission: Arc<FleetAdmission>,
        proxies: Arc<Proxies>,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        let [operators, clients] = [(); 2].map(|()| Semaphore::new(AT_ONCE));
        Self(Arc::new(Shared { admission, proxies, operators, clients, shutdown, tasks }))
    }

    /// Starts a call, and answers with what it will send.
    pub fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let goes_on = match request.uri().path() {
            FETCH => false,
            STREAM => true,
            _ => return Status::unimplemented("no such method").into_http(),
        };
        let shared = self.0.clone();
        Questions::serve(request, MOST_QUESTION, &self.0.tasks, |mut call| async move {
            let ended = shared.serve(&mut call, goes_on).await;
            (call, ended)
        })
    }
}

impl Shared {
    async fn serve(&self, call: &mut Questions, goes_on: bool) -> Result<(), Status> {
        let onlooker = self.admission.onlooker(call.extensions())?;
        let places = if matches!(onlooker, Identity::Operator(_)) { &self.operators } else { &self.clients };
        let place = places.try_acquire();
        let _place = place.map_err(|_| Status::resource_exhausted("too many ask at once; try again"))?;
        let mut question = call.first(HELLO, self.shutdown.cancelled()).await?;
        let retired = call.retired();
        loop {
            let answer = tokio::time::timeout(DEADLINES.0, self.answer(&onlooker, &question)).await;
            let answer = answer.map_err(|_| Status::deadline_exceeded("the answer took too long; ask for less"))??;
            if !call.send(answer).await || !goes_on {
                return Ok(());
            }
            let next = tokio::select! {
                () = self.shutdown.cancelled() => return Err(Status::unavailable("the control plane is shutting down")),
                () = retired.cancelled() => return Err(Status::unavailable("the connection is old; open another")),
                next = call.next() => next?,
            };
            let Some(next) = next else { return Ok(()) };
            question = next;
        }
    }

    async fn answer(
        &self,
        onlooker: &Identity,
        question: &ClientStatusRequest,
    ) -> Result<ClientStatusResponse, Status> {
        let clients = Clients::read(&question.node_matchers);
        let clients = clients.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let meant =
            |connection: &Connection| may_see(onlooker, connection) && clients.contains(connection.proxy.id.as_str());
        let connections = self.proxies.connections(meant);
        if connections.len() > MOST_CLIENTS {
            return Err(Status::resource_exhausted(format!(
                "the question is about {} clients, an answer has at most {MOST_CLIENTS}: add node_matchers",
                connections.len()
            )));
        }
        let (mut response, mut bytes) = (ClientStatusResponse::default(), 0);
        for connection in &connections {
            let inspection = tokio::time::timeout(DEADLINES.1, connection.status.inspect()).await;
            // Who does not say has just ended.
            let Some(inspection) = inspection.ok().flatten() else { continue };
            let config = client_config(connection, &inspection, !question.exclude_resource_contents);
            bytes += config.encoded_len();
            if bytes > MOST_BYTES {
                return Err(Status::resource_exhausted(format!(
                    "the answer would have more than {MOST_BYTES} bytes: add node_matchers, or exclude_resource_contents"
                )));
            }
            response.config.push(config);
        }
        Ok(response)
    }
}

/// A client sees itself, an operator all.
fn may_see(onlooker: &Identity, connection: &Connection) -> bool {
    let ProxyId { fleet, id } = &*connection.proxy;
    match onlooker {
        Identity::Proxy(proxy) => fleet.as_ref() == Some(&proxy.fleet) && *id == proxy.id,
        Identity::Limiter(limiter) => fleet.is_none() && *id == limiter.id,
        Identity::Operator(_) => true,
    }
}
