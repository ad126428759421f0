//! The device authorization grant (RFC 8628): a code for the person, and questions whether they have confirmed it.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::issuer::{Answer, Issuer, Tokens};
use crate::{failure::Failure, output::printable};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Between two questions, where the issuer says nothing; how much longer after each `slow_down`; and at least and at most.
const INTERVAL: Duration = Duration::from_secs(5);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The longest that anybody is waited for, whatever the issuer says.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A sign-in that a person has to confirm.
#[derive(Clone, Deserialize)]
struct Begun {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// What follows from an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Ask again after this.
    Wait(Duration),
    /// It has failed.
    Over(String),
}

/// What follows when no token was given with the reason `error`, after questions `interval` apart (RFC 8628, section 3.5).
fn next(error: &str, interval: Duration) -> Next {
    match error {
        "authorization_pending" => Next::Wait(interval),
        "slow_down" => Next::Wait((interval + INTERVAL).min(LONGEST)),
        "access_denied" => Next::Over("the sign-in was refused in the browser".to_owned()),
        "expired_token" => Next::Over("the code has expired; try again: chancery login".to_owned()),
        _ => Next::Over(String::new()),
    }
}

/// Has a person sign in: tells on stderr where, and waits until they have.
pub(crate) async fn sign_in(issuer: &Issuer, scopes: &[String]) -> Result<Tokens, Failure> {
    let begun: Begun = issuer.begin(scopes).await?;
    eprint!("{}", invitation(&begun));
    let until = Instant::now() + Duration::from_secs(begun.expires_in).min(PATIENCE);
    let mut interval = begun.interval.map_or(INTERVAL, Duration::from_secs).clamp(SHORTEST, LONGEST);
    loop {
        sleep(interval).await;
        if Instant::now() >= until {
            return Err(issuer.failed("waited for nothing: the code has expired; try again: chancery login".to_owned()));
        }
        match issuer.tokens(GRANT_TYPE, ("device_code", &begun.device_code)).await {
            Ok(Answer::Given(tokens)) => return Ok(tokens),
            Ok(Answer::Refused(refusal)) => match next(&refusal.error, interval) {
                Next::Wait(pause) => interval = pause,
                Next::Over(reason) if reason.is_empty() => return Err(issuer.failed(refusal.words())),
                Next::Over(reason) => return Err(issuer.failed(format!("gives no token: {reason}"))),
            },
            // Who waits for a person can wait for a server as well, but less and less often.
            Err(Failure::Issuer { away: true, .. }) => interval = (interval * 2).min(LONGEST),
            Err(failure) => return Err(failure),
        }
    }
}

/// What the person is told. The issuer's text must not move the cursor.
fn invitation(begun: &Begun) -> String {
    let Begun { user_code, verification_uri, verification_uri_complete, .. } = begun;
    let mut text = format!("To sign in, open {verification_uri} and enter the code {user_code}");
    if let Some(complete) = verification_uri_complete {
        text += &format!(" (or open {complete} and compare the code)");
    }
    printable(text) + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_says_when_to_ask_again() {
        let seconds = Duration::from_secs;
        for (error, interval, expected) in [
            ("authorization_pending", 5, Next::Wait(seconds(5))),
            ("slow_down", 5, Next::Wait(seconds(10))),
            ("slow_down", 58, Next::Wait(seconds(60))),
            ("access_denied", 5, Next::Over("the sign-in was refused in the browser".to_owned())),
            ("expired_token", 5, Next::Over("the code has expired; try again: chancery login".to_owned())),
            ("invalid_client", 5, Next::Over(String::new())),
        ] {
            assert_eq!(next(error, seconds(interval)), expected, "{error}");
        }
    }

    #[test]
    fn a_person_is_told_where_to_confirm() {
        let begun = |complete: Option<&str>| Begun {
            device_code: "secret".to_owned(),
            user_code: "ABCD-EFGH".to_owned(),
            verification_uri: "https://a.example.com/device\u{1b}[2J".to_owned(),
            verification_uri_complete: complete.map(str::to_owned),
            expires_in: 600,
            interval: None,
        };
        assert_eq!(
            invitation(&begun(None)),
            "To sign in, open https://a.example.com/device [2J and enter the code ABCD-EFGH\n"
        );
        let complete = invitation(&begun(Some("https://a.example.com/device?code=ABCD-EFGH")));
        assert!(complete.ends_with("(or open https://a.example.com/device?code=ABCD-EFGH and compare the code)\n"));
    }
}
