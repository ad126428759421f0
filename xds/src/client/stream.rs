//! The task: connects, receives, asks the pure parts, sends, and begins again.

use std::time::Duration;

use chancery_proto::{
    envoy::discovery::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        aggregated_discovery_service_client::AggregatedDiscoveryServiceClient,
    },
    type_url::short_name,
};
use tokio::{
    sync::mpsc,
    time::{error::Elapsed, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    ClientSettings, Variants,
    delta::Delta,
    session::{Batch, Dialect, NotAskedFor, Refused, Response},
    sotw::Sotw,
};
use crate::{metrics as m, server::Protocol};

/// What a connector may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long the connection may take to accept an answer.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// Stays subscribed until `stop`.
///
/// `connect` is called for every attempt, so that addresses and certificates are those of the moment. `take` gets what
/// comes, in order, and answers whether it is in force; if not, it names every resource of the batch that is not, and why.
/// The server is told. `chance` gives numbers from 0 to 1.
pub async fn run<C, F, T, R>(settings: ClientSettings, connect: C, mut take: T, mut chance: R, stop: CancellationToken)
where
    C: Fn() -> F + Send + Sync,
    F: Future<Output = Result<Channel, BoxError>> + Send,
    T: FnMut(&Batch) -> Result<(), Vec<Refused>> + Send,
    R: FnMut() -> f64 + Send,
{
    let mut delta = Delta::new(settings.node.clone(), settings.types.clone());
    let mut sotw = Sotw::new(settings.node.clone(), settings.types.clone());
    for (type_url, name, version) in &settings.held {
        sotw.hold(type_url, name.clone());
        delta.hold(type_url, name.clone(), version.clone());
    }
    let mut protocol = if settings.variants == Variants::Sotw { Protocol::Sotw } else { Protocol::Delta };
    let mut failures = 0;
    let connected = metrics::gauge!(m::CLIENT_CONNECTED);
    connected.set(0.0);
    loop {
        let mut heard = false;
        let attempt = async {
            let channel = timeout(settings.connect_timeout, connect()).await.map_err(Ended::NoConnection)?;
            let client = AggregatedDiscoveryServiceClient::new(channel.map_err(Ended::Connect)?)
                .max_decoding_message_size(settings.max_response_bytes);
            let heard = || {
                heard = true;
                connected.set(1.0);
            };
            match protocol {
                Protocol::Delta => stream(&settings, client, &mut delta, &mut take, heard).await,
                Protocol::Sotw => stream(&settings, client, &mut sotw, &mut take, heard).await,
            }
        };
        let ended = tokio::select! {
            () = stop.cancelled() => break,
            Err(ended) = attempt => ended,
        };
        connected.set(0.0);
        if heard {
            failures = 0;
        } else if settings.variants == Variants::Either && ended.says_unknown_method() {
            protocol = if protocol == Protocol::Delta { Protocol::Sotw } else { Protocol::Delta };
        }
        let wait = settings.backoff.wait(failures, chance());
        failures = failures.saturating_add(1);
        tracing::warn!(error = chain(&ended), protocol = protocol.as_str(), retry_in = ?wait, "no configuration stream");
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    connected.set(0.0);
}

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("no connection in time")]
    NoConnection(#[source] Elapsed),
    #[error("cannot connect")]
    Connect(#[source] BoxError),
    #[error("the server did not answer in time")]
    Silent(#[source] Elapsed),
    #[error("the server takes no answers")]
    Stalled,
    #[error("the server ended the stream: {:?}: {}", .0.code(), .0.message())]
    Status(Status),
    #[error("the server ended the stream")]
    Closed,
    #[error(transparent)]
    NotAskedFor(#[from] NotAskedFor),
}

impl Ended {
    fn says_unknown_method(&self) -> bool {
        matches!(self, Ended::Status(status) if status.code() == Code::Unimplemented)
    }
}

/// What is never there: a stream only ends.
enum Never {}

/// A dialect, and the method in which it is spoken.
trait Call: Dialect {
    fn call(
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        requests: ReceiverStream<Self::Request>,
    ) -> impl Future<Output = Result<tonic::Response<Streaming<Self::Response>>, Status>> + Send;
}

impl Call for Delta {
    fn call(
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        requests: ReceiverStream<DeltaDiscoveryRequest>,
    ) -> impl Future<Output = Result<tonic::Response<Streaming<DeltaDiscoveryResponse>>, Status>> + Send {
        client.delta_aggregated_resources(requests)
    }
}

impl Call for Sotw {
    fn call(
        client: &mut AggregatedDiscoveryServiceClient<Channel>,
        requests: ReceiverStream<DiscoveryRequest>,
    ) -> impl Future<Output = Result<tonic::Response<Streaming<DiscoveryResponse>>, Status>> + Send {
        client.stream_aggregated_resources(requests)
    }
}

/// One stream, to its end. `heard` is called for each response.
async fn stream<D: Call>(
    settings: &ClientSettings,
    mut client: AggregatedDiscoveryServiceClient<Channel>,
    dialect: &mut D,
    take: &mut (impl FnMut(&Batch) -> Result<(), Vec<Refused>> + Send),
    mut heard: impl FnMut() + Send,
) -> Result<Never, Ended> {
    let opening = dialect.opening();
    let (requests, receiver) = mpsc::channel(opening.len().max(1));
    for request in opening {
        // There is room for all of them.
        let _ = requests.try_send(request);
    }
    let begin = async {
        let mut responses = D::call(&mut client, ReceiverStream::new(receiver)).await?.into_inner();
        let first = responses.message().await?;
        Ok((responses, first))
    };
    let begun = timeout(settings.first_response_timeout, begin).await.map_err(Ended::Silent)?;
    let (mut responses, mut next) = begun.map_err(Ended::Status)?;
    tracing::info!("configuration stream opened");
    while let Some(message) = next {
        heard();
        let response = dialect.receive(message)?;
        let refused = refusals(&response, take);
        let answer = dialect.answer(&response, &refused);
        let sent = timeout(SEND_TIMEOUT, requests.send(answer)).await;
        sent.map_err(|_| Ended::Stalled)?.map_err(|_| Ended::Closed)?;
        next = responses.message().await.map_err(Ended::Status)?;
    }
    Err(Ended::Closed)
}

/// Hands the response over, and says what is wrong with it.
fn refusals(response: &Response, take: &mut impl FnMut(&Batch) -> Result<(), Vec<Refused>>) -> Vec<Refused> {
    let Batch { type_url, upserts, removed } = &response.batch;
    let mut refused = response.malformed.clone();
    refused.extend(take(&response.batch).err().unwrap_or_default());
    let short = short_name(type_url);
    metrics::counter!(m::CLIENT_RESPONSES, "type" => short.to_owned()).increment(1);
    tracing::debug!(
        r#type = short,
        count = upserts.len(),
        removed = removed.len(),
        version = response.version,
        "received"
    );
    for Refused { name, reason } in &refused {
        metrics::counter!(m::CLIENT_REFUSALS, "type" => short.to_owned()).increment(1);
        tracing::warn!(r#type = short, resource = %name, reason, "configuration refused");
    }
    refused
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
