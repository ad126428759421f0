//! Faults on purpose: what some requests of a rule meet, to see who copes with it. Pure.
//!
//! Every fault has an end, and proxies keep to it by themselves (`translate/fault`). So one that is over does no harm where it
//! stands, but a new one that is over, or that somebody might forget, is a mistake.

use std::time::Duration;

use time::OffsetDateTime;

use super::{problem::Problems, resource::Resource};

/// How far ahead the end of a fault may be.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What some requests meet: at least one of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// They wait first.
    pub delay: Option<Delay>,
    /// They are answered in the place of the service.
    pub abort: Option<Abort>,
    /// When it ends, in UTC.
    pub expires: OffsetDateTime,
}

/// A wait before the request goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How long, 1 ms to a minute.
    pub time: Duration,
    /// For how many requests, 1 to 100.
    pub percent: u32,
}

/// An answer that the service has not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// The status, 400 to 599.
    pub status: u16,
    /// For how many requests, 1 to 100.
    pub percent: u32,
}

/// Reports what faults of `resource`, which is written at `now`, are over already or end too late; places are those in its
/// document.
pub fn check_ends(resource: &Resource, now: OffsetDateTime, problems: &mut Problems) {
    let Resource::Route(route) = resource else { return };
    for (index, forward) in route.forwards_by_rule() {
        let Some(fault) = &forward.fault else { continue };
        let reason = if fault.expires <= now {
            "is over; take the fault out, or let it end later"
        } else if fault.expires > now + LONGEST {
            "must be at most 7 days from now"
        } else {
            continue;
        };
        problems.at_path(&format!("spec.rules[{index}].fault.expires")).report(reason);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use time::macros::datetime;

    use super::*;
    use crate::model::{catalog::tests::route, route::Action};

    #[test]
    fn a_fault_ends_and_nobody_forgets_it() {
        let expires = datetime!(2026-12-01 12:00 UTC);
        let fault = Fault { delay: None, abort: Some(Abort { status: 503, percent: 100 }), expires };
        let rules = [("/a", ""), ("/b", "cart")];
        let Resource::Route(mut written) = route("shop", &["edge/web"], &["*"], &rules) else { panic!("a route") };
        let Action::Forward(forward) = &mut Arc::make_mut(&mut written).rules[1].action else { panic!("to a service") };
        forward.fault = Some(fault);
        let resource = Resource::Route(written);
        let said_at = |now| {
            let mut problems = Problems::default();
            check_ends(&resource, now, &mut problems);
            problems.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let second = Duration::from_secs(1);
        assert_eq!(said_at(expires - second), Vec::<String>::new());
        assert_eq!(said_at(expires - LONGEST), Vec::<String>::new());
        let place = "spec.rules[1].fault.expires";
        assert_eq!(said_at(expires), [format!("{place}: is over; take the fault out, or let it end later")]);
        assert_eq!(said_at(expires - LONGEST - second), [format!("{place}: must be at most 7 days from now")]);
    }
}
