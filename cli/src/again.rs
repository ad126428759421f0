//! When a request is sent again: what the control plane says about that, and how often it is believed.
//!
//! A refusal with `Retry-After` was not carried out (429), or may be sent again without harm (503, for what changes nothing or is
//! made once). An answer that was lost says nothing, so only what is made once is sent again.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};

/// How often a request is sent at most.
pub(crate) const TRIES: u32 = 4;

/// The longest wait before it is sent again; what is to wait for longer is told instead.
const LONGEST: Duration = Duration::from_secs(15);

/// The wait after an answer that was lost.
const AFTER_LOSS: Duration = Duration::from_millis(500);

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome<'a> {
    /// It was answered.
    Answered(StatusCode, &'a HeaderMap),
    /// It was sent, and no answer came whole.
    Lost,
    /// It was not sent: nobody is there.
    NotSent,
}

/// How long to wait before a request is sent again, if it is; `harmless` says that it does the same if it is made twice.
pub(crate) fn pause(outcome: Outcome<'_>, harmless: bool) -> Option<Duration> {
    match outcome {
        Outcome::Answered(StatusCode::TOO_MANY_REQUESTS, headers) => asked_for(headers),
        Outcome::Answered(StatusCode::SERVICE_UNAVAILABLE, headers) if harmless => asked_for(headers),
        Outcome::Lost if harmless => Some(AFTER_LOSS),
        _ => None,
    }
}

fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds)).filter(|wait| *wait <= LONGEST)
}

/// A key under which a request is made once, or the id of a trace. No two are the same: each half is a hash with keys from the system's chance.
pub(crate) fn new_key() -> String {
    let half = || RandomState::new().hash_one((std::process::id(), std::time::SystemTime::now()));
    format!("{:016x}{:016x}", half(), half())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_no_harm_is_sent_again() {
        let told = |seconds: &str| HeaderMap::from_iter([(header::RETRY_AFTER, seconds.parse().unwrap())]);
        let (soon, late, nothing) = (told("2"), told("16"), HeaderMap::new());
        let (limited, away) = (StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE);
        let two = Some(Duration::from_secs(2));
        for (outcome, harmless, expected) in [
            (Outcome::Answered(limited, &soon), false, two),
            (Outcome::Answered(limited, &soon), true, two),
            (Outcome::Answered(limited, &late), true, None),
            (Outcome::Answered(limited, &nothing), true, None),
            (Outcome::Answered(away, &soon), true, two),
            (Outcome::Answered(away, &soon), false, None),
            (Outcome::Answered(StatusCode::CONFLICT, &soon), true, None),
            (Outcome::Answered(StatusCode::OK, &soon), true, None),
            (Outcome::Lost, true, Some(AFTER_LOSS)),
            (Outcome::Lost, false, None),
            (Outcome::NotSent, true, None),
        ] {
            assert_eq!(pause(outcome, harmless), expected, "{outcome:?} {harmless}");
        }
    }

    #[test]
    fn keys_differ() {
        let keys: std::collections::BTreeSet<String> = (0..1000).map(|_| new_key()).collect();
        assert_eq!(keys.len(), 1000);
        assert!(keys.iter().all(|key| key.len() == 32));
    }
}
