//! Clocks: this host's beside those that certificates, revisions and limits go by.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, header};
use time::{OffsetDateTime, PrimitiveDateTime, macros::format_description};
use tokio::time::timeout;

use super::{
    check::{Check, Found, Group, When},
    site::{Program, Site, reachable},
};
use crate::{ask::ask, health::readyz};

/// How far clocks may be apart: less than certificates are issued ahead of time, more than HTTP's seconds blur.
const MOST_APART: f64 = 2.0;

/// How long a control plane may take to answer.
const WITHIN: Duration = Duration::from_secs(5);

/// More than any answer of `/readyz`.
const MOST_BYTES: usize = 64 << 10;

pub(super) const GROUP: Group = Group {
    name: "Clocks",
    checks: &[
        Check { name: "database", when: When::Always, probe: |site| Box::pin(database(site)) },
        Check { name: "control plane", when: When::Running, probe: |site| Box::pin(control_plane(site)) },
        Check { name: "Redis", when: When::Always, probe: |site| Box::pin(redis(site)) },
    ],
};

async fn database(site: &Site) -> Found {
    match site.database().await {
        None => Found::skipped("no control plane here"),
        Some(Err(_)) => Found::skipped("the database does not answer"),
        Some(Ok(survey)) => {
            survey.clock_ahead.map_or_else(|| Found::skipped("a file has the clock of its host"), verdict)
        }
    }
}

async fn redis(site: &Site) -> Found {
    match site.redis().await {
        None => Found::skipped("no limiter here counts in Redis"),
        Some(Err(_)) => Found::skipped("Redis does not answer"),
        Some(Ok(survey)) => match &survey.clock_ahead {
            Ok(ahead) => verdict(*ahead),
            Err(reason) => Found::failed(reason, "let the limiter's user of Redis run TIME"),
        },
    }
}

/// By the `Date` of an answer, which has whole seconds.
async fn control_plane(site: &Site) -> Found {
    let here = site.control_plane.as_ref().and_then(Program::ok).map(|settings| readyz(reachable(settings.admin_addr)));
    let asked = SystemTime::now();
    let headers = match (here, &site.api) {
        (Some(url), _) => ask(Method::GET, &url, WITHIN, MOST_BYTES).await.ok().map(|answer| answer.headers),
        (None, Ok(api)) => timeout(WITHIN, api.headers("/api/openapi.json")).await.ok().and_then(Result::ok),
        (None, Err(_)) => return Found::skipped("no control plane is known"),
    };
    let answered = SystemTime::now();
    let Some(headers) = headers else {
        return Found::skipped("the control plane does not answer");
    };
    match date(&headers) {
        Some(theirs) => verdict(ahead(theirs, asked.into(), answered.into())),
        None => Found::skipped("it does not say what time it is"),
    }
}

/// The `Date` of an answer (RFC 9110, section 5.6.7).
fn date(headers: &HeaderMap) -> Option<OffsetDateTime> {
    const FORM: &[time::format_description::BorrowedFormatItem<'_>] =
        format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
    let text = headers.get(header::DATE)?.to_str().ok()?;
    PrimitiveDateTime::parse(text, FORM).ok().map(PrimitiveDateTime::assume_utc)
}

/// By how many seconds a clock that shows whole ones is ahead at least, if it was read between these times.
fn ahead(theirs: OffsetDateTime, asked: OffsetDateTime, answered: OffsetDateTime) -> f64 {
    let second = time::Duration::SECOND;
    if theirs > answered {
        (theirs - answered).as_seconds_f64()
    } else if theirs + second < asked {
        (theirs + second - asked).as_seconds_f64()
    } else {
        0.0
    }
}

fn verdict(ahead: f64) -> Found {
    let apart = ahead.abs();
    let said = match ahead {
        _ if apart < 0.1 => "less than 0.1 s apart from this host".to_owned(),
        ahead if ahead > 0.0 => format!("{apart:.1} s ahead of this host"),
        _ => format!("{apart:.1} s behind this host"),
    };
    if apart <= MOST_APART {
        return Found::passed(said);
    }
    Found::failed(
        format!("{said}, more than {MOST_APART:.0} s"),
        "have both hosts follow NTP (chronyc tracking, timedatectl): certificates and times of revisions go by these clocks",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    #[test]
    fn two_seconds_are_borne() {
        assert_eq!(verdict(0.03).said, "less than 0.1 s apart from this host");
        assert_eq!((verdict(1.9).outcome, verdict(-2.0).outcome), (Outcome::Passed, Outcome::Passed));
        let behind = verdict(-2.1);
        assert_eq!((behind.outcome, behind.said.as_str()), (Outcome::Failed, "2.1 s behind this host, more than 2 s"));
        assert_eq!(verdict(61.0).said, "61.0 s ahead of this host, more than 2 s");
    }

    #[test]
    fn a_date_is_read_and_its_second_is_not_held_against_it() {
        let headers = HeaderMap::from_iter([(header::DATE, "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap())]);
        let theirs = date(&headers).unwrap();
        assert_eq!(theirs.unix_timestamp(), 784_111_777);
        let at = |millis: i64| theirs + time::Duration::milliseconds(millis);
        assert_eq!(ahead(theirs, at(900), at(950)), 0.0, "it is still that second");
        assert_eq!(ahead(theirs, at(-3100), at(-3000)), 3.0);
        assert_eq!(ahead(theirs, at(4000), at(4100)), -3.0);
        assert!(date(&HeaderMap::new()).is_none());
    }
}
