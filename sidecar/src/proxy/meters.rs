//! What is counted of the requests that go to others, by cluster and route.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Response, StatusCode};
use metrics::{Counter, Histogram, SharedString};

use super::failure::Failure;
use crate::metrics as m;

/// Classes of status, as labels have them.
pub(super) const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Which of [`CLASSES`] a status is of.
pub(super) fn class(status: StatusCode) -> usize {
    usize::from(status.as_u16() / 100).clamp(1, 5) - 1
}

/// Of one route to one cluster: looked up once, since that takes longer than to count.
pub struct Meters {
    cluster: SharedString,
    route: SharedString,
    /// By class of status, from 1xx, as soon as there was one.
    answered: [OnceLock<Counter>; 5],
    durations: Histogram,
}

impl Meters {
    /// With nothing counted.
    pub fn new(cluster: Arc<str>, route: Arc<str>) -> Self {
        let (cluster, route) = (SharedString::from(cluster), SharedString::from(route));
        let durations = metrics::histogram!(m::ROUTE_DURATIONS, "cluster" => cluster.clone(), "route" => route.clone());
        Self { cluster, route, answered: Default::default(), durations }
    }

    /// What came of a request, after so long.
    pub fn answered<B>(&self, answer: &Result<Response<B>, Failure>, took: Duration) {
        self.durations.record(took.as_secs_f64());
        match answer {
            Ok(response) => {
                let class = class(response.status());
                self.answered[class].get_or_init(|| self.counter(CLASSES[class])).increment(1);
            }
            Err(failure) => self.counter(failure.reason()).increment(1),
        }
    }

    fn counter(&self, outcome: &'static str) -> Counter {
        let (cluster, route) = (self.cluster.clone(), self.route.clone());
        metrics::counter!(m::ROUTE_REQUESTS, "cluster" => cluster, "route" => route, "outcome" => outcome)
    }
}
