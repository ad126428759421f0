//! What is served on the xDS port: resources, and beside them what proxies report and operators ask.
//!
//! All of it by the same certificates, over the same connections; the path of a call says what it is.

use chancery_xds::XdsServer;
use http::{Request, Response};
use hyper::body::Incoming;
use tonic::body::Body;
use tower::Service as _;

use crate::{
    admission::FleetAdmission,
    csds::{self, ClientStatuses},
    enrolment::renewal::{self, Renewals},
    load::{self, LoadReports},
    seen::{self, SeenTraffic},
};

/// The services.
#[derive(Clone)]
pub struct Services {
    /// Resources.
    pub xds: XdsServer<FleetAdmission>,
    /// Load of services.
    pub load: LoadReports,
    /// Requests that were seen.
    pub seen: SeenTraffic,
    /// What clients have.
    pub status: ClientStatuses,
    /// The next certificate of a proxy.
    pub renewals: Renewals,
}

impl Services {
    /// Starts a call, and answers with what it will send.
    pub fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let service = request.uri().path().trim_start_matches('/').split('/').next();
        match service {
            Some(load::SERVICE) => self.load.call(request),
            Some(seen::SERVICE) => self.seen.call(request),
            Some(csds::SERVICE) => self.status.call(request),
            Some(renewal::SERVICE) => self.renewals.call(request),
            _ => match self.xds.clone().call(request).into_inner() {
                Ok(response) => response,
            },
        }
    }
}
