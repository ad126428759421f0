//! A request on its way through the layers.

use http::Request;

use super::breaker::Tried;
use crate::policy::deadline::Deadline;

/// A request, with what those further in need to know of it.
#[derive(Debug)]
pub struct Asked<B> {
    /// The request.
    pub request: Request<B>,
    /// When it, or the try that this is, has to be answered.
    pub deadline: Deadline,
    /// The endpoints that it has been sent to.
    pub tried: Tried,
}

impl<B> From<Request<B>> for Asked<B> {
    /// With all time, and one try.
    fn from(request: Request<B>) -> Self {
        Self { request, deadline: Deadline::NEVER, tried: Tried::once() }
    }
}
