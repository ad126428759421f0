//! Everything that a request passes, in order.

mod inbound;
mod outbound;
mod upgrade;

pub use inbound::{Inbound, InboundSettings, PEER};
pub use outbound::Outbound;

use std::{sync::LazyLock, time::Duration};

use http::Response;
use metrics::{Counter, Histogram};

use super::{
    body::Body,
    failure::Failure,
    meters::{CLASSES, class},
    trace::Open,
};
use crate::{layer::Clock, metrics as m};

/// Where requests of a direction are counted: looked up once, since that takes longer than to count.
struct Meters {
    /// By class of status, from 1xx.
    requests: [Counter; 5],
    durations: Histogram,
}

impl Meters {
    /// Those of a direction. The recorder is in place before the first request is.
    fn of(direction: &'static str) -> &'static Self {
        static OUTBOUND: LazyLock<Meters> = LazyLock::new(|| Meters::new("outbound"));
        static INBOUND: LazyLock<Meters> = LazyLock::new(|| Meters::new("inbound"));
        if direction == "outbound" { &OUTBOUND } else { &INBOUND }
    }

    fn new(direction: &'static str) -> Self {
        let requests = CLASSES.map(|class| metrics::counter!(m::REQUESTS, "direction" => direction, "status" => class));
        Self { requests, durations: metrics::histogram!(m::DURATIONS, "direction" => direction) }
    }
}

/// A request that is being answered.
struct Arrived {
    clock: Clock,
    began: Duration,
    direction: &'static str,
    grpc: bool,
    span: Option<Box<Open>>,
}

impl Arrived {
    fn new(clock: Clock, direction: &'static str, grpc: bool, span: Option<Box<Open>>) -> Self {
        Self { clock, began: clock.now(), direction, grpc, span }
    }

    /// The answer, whatever came of it; counted, and followed to its end if there is a span for it.
    fn answered(mut self, answer: Result<Response<Body>, Failure>) -> Response<Body> {
        let direction = self.direction;
        let response = answer.unwrap_or_else(|failure| {
            metrics::counter!(m::LOCAL_ANSWERS, "direction" => direction, "reason" => failure.reason()).increment(1);
            tracing::debug!(
                direction,
                reason = failure.reason(),
                error = chancery_runtime::telemetry::chain(&failure),
                "answered here"
            );
            if let Some(span) = &mut self.span {
                span.explain(failure.reason());
            }
            failure.answer(self.grpc)
        });
        let meters = Meters::of(direction);
        meters.requests[class(response.status())].increment(1);
        meters.durations.record(elapsed(self.clock, self.began).as_secs_f64());
        match self.span {
            Some(span) => span.follow(response),
            None => response,
        }
    }
}

fn elapsed(clock: Clock, since: Duration) -> Duration {
    clock.now().saturating_sub(since)
}
