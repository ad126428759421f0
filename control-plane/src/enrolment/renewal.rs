//! `RenewalService`: a proxy asks for its next certificate, over the connection that its present one has opened.

use std::{sync::Arc, time::Duration};

use chancery_proto::{
    chancery::{RENEW, RENEWAL_SERVICE, RenewRequest, RenewResponse},
    google::protobuf::Timestamp,
};
use chancery_runtime::telemetry::chain;
use chancery_xds::Call;
use http::{Request, Response};
use hyper::body::Incoming;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Status, body::Body};

use super::{EnrolmentError, Enrolments, Granted};
use crate::{
    admission::FleetAdmission,
    identity::request::{LONGEST, RequestedKey},
    store::StoreError,
};

/// Package and name of the service.
pub const SERVICE: &str = RENEWAL_SERVICE;

/// How long the question may take, and how long the answer.
const DEADLINES: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(20));

/// Calls that are answered at once: each asks the database, and signs.
const AT_ONCE: usize = 8;

type Renewal = Call<RenewRequest, RenewResponse>;

/// Renews certificates. Every call is a task of its own.
#[derive(Clone)]
pub struct Renewals(Arc<Shared>);

struct Shared {
    admission: Arc<FleetAdmission>,
    enrolments: Arc<Enrolments>,
    places: Semaphore,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Renewals {
    /// Renews for those that `admission` knows, as tasks of `tasks`, until `shutdown`.
    pub fn new(
        admission: Arc<FleetAdmission>,
        enrolments: Arc<Enrolments>,
        shutdown: CancellationToken,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Shared { admission, enrolments, places: Semaphore::new(AT_ONCE), shutdown, tasks }))
    }

    /// Starts a call, and answers with what it will send.
    pub fn call(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != RENEW {
            return Status::unimplemented("no such method").into_http();
        }
        let shared = self.0.clone();
        Renewal::serve(request, 2 * LONGEST, &self.0.tasks, |mut call| async move {
            let ended = shared.serve(&mut call).await;
            (call, ended)
        })
    }
}

impl Shared {
    async fn serve(&self, call: &mut Renewal) -> Result<(), Status> {
        let (proxy, held) = self.admission.holder(call.extensions())?;
        let asked = call.first(DEADLINES.0, self.shutdown.cancelled()).await?;
        let key = RequestedKey::of(&asked.csr).map_err(|error| Status::invalid_argument(format!("csr {error}")))?;
        let place = self.places.try_acquire();
        let _place = place.map_err(|_| Status::resource_exhausted("too many renew at once; try again"))?;
        let (fleet, id) = (proxy.fleet.clone(), proxy.id.clone());
        let renewed = self.enrolments.renew(proxy, &held, &key, OffsetDateTime::now_utc());
        let renewed = tokio::time::timeout(DEADLINES.1, renewed).await;
        let renewed = renewed.map_err(|_| Status::deadline_exceeded("the database took too long; try again"))?;
        match renewed {
            Ok(granted) => {
                tracing::debug!(fleet = fleet.as_str(), proxy = id.as_str(), "a certificate was renewed");
                call.send(response(granted)).await;
                Ok(())
            }
            Err(error) => {
                let (told, error) = (status(&error), chain(&error));
                tracing::warn!(fleet = fleet.as_str(), proxy = id.as_str(), error, "a certificate is not renewed");
                Err(told)
            }
        }
    }
}

fn response(granted: Granted) -> RenewResponse {
    let Granted { certified, renew_after, .. } = granted;
    let moment = |time: OffsetDateTime| Some(Timestamp { seconds: time.unix_timestamp(), nanos: 0 });
    RenewResponse {
        not_after: moment(certified.not_after),
        renew_after: moment(renew_after),
        certificate: certified.certificate_pem,
        ca: certified.ca_pem,
    }
}

/// What the proxy is told.
fn status(error: &EnrolmentError) -> Status {
    match error {
        EnrolmentError::Refused(refused) => Status::permission_denied(refused.to_string()),
        EnrolmentError::NoAuthority => Status::failed_precondition(error.to_string()),
        EnrolmentError::Store(StoreError::Unavailable(_)) => {
            Status::unavailable("the database is away; the certificate is renewed when it is back")
        }
        _ => Status::internal("the control plane failed; its log says why"),
    }
}
