//! What happens, as server-sent events.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as Message, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use utoipa::IntoParams;

use super::{
    Api, ProblemDetails,
    author::{Author, presented},
    error::ApiError,
    params::Params,
};
use crate::{
    access::Principal,
    feed::{Event, Feed, Heard, Listener, Told},
    identity::token::{PREFIX, TokenHash},
    tokens::Tokens,
};

/// So often something is sent, be it a comment: a proxy on the way may end a connection that is silent.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// When a reader that lost the connection is to come back.
const COME_BACK_AFTER: Duration = Duration::from_secs(2);

/// Which events to hear of.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Of proxies, only those of this fleet.
    fleet: Option<String>,
    /// Of proxies, only those called so.
    proxy: Option<String>,
}

impl EventParams {
    fn wants(&self, event: &Event, reader: &Principal) -> bool {
        if let Event::Revision { owners, .. } = event
            && !owners.iter().any(|owner| reader.sees(owner.as_ref()))
        {
            return false;
        }
        let Some((proxy, fleet)) = event.about() else { return true };
        let fits = |wanted: &Option<String>, given: &str| wanted.as_ref().is_none_or(|wanted| wanted == given);
        fits(&self.proxy, proxy) && fits(&self.fleet, fleet)
    }
}

/// Follow events
///
/// Server-sent events of this replica, from now on: `connected`, `disconnected`, `acknowledged`, `rejected`, `settled` of the
/// proxies and rate limiters that are connected to it, and `revision`, which no filter leaves out (but those are left out that changed nothing which the token
/// allows to see). A reader that comes back sends the id of the last event as `Last-Event-ID`, as browsers do, and hears what
/// happened since. `lagged` says how many events (before any filter) it has missed, because it read too slowly or was away for too
/// long; `null` if that is not known.
#[utoipa::path(get, path = "/api/v1/events", tag = "Proxies", operation_id = "followEvents", params(
        EventParams,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the event that was heard last")
    ),
    responses(
        (status = 200, content_type = "text/event-stream", body = Told),
        (status = 429, description = "Too many follow the events, or too many requests were made; see Retry-After", content_type = "application/problem+json", body = ProblemDetails),
    ))]
pub(super) async fn follow(
    State(api): State<Api>,
    Params(params): Params<EventParams>,
    author: Author,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let listener = api.feed.listen(last).map_err(|_| ApiError::TooManyListeners)?;
    let ours = presented(&headers).filter(|token| token.starts_with(PREFIX) && !api.admin_token.matches(token));
    let reader =
        Reader { until: author.until, who: author.who, tokens: api.tokens.clone(), token: ours.map(TokenHash::of) };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Ok(Sse::new(messages(api.feed, listener, params, reader)).keep_alive(keep_alive).into_response())
}

/// Who listens, for as long as their token is good.
struct Reader {
    who: Arc<Principal>,
    tokens: Arc<Tokens>,
    /// Until when their token was good; none: it does not end by itself.
    until: Option<OffsetDateTime>,
    /// A token of ours, which may be revoked or be given another secret. None of the administrator's, or of a person.
    token: Option<TokenHash>,
}

impl Reader {
    fn is_good(&self) -> bool {
        let now = OffsetDateTime::now_utc();
        match &self.token {
            Some(token) => self.tokens.is_good(token, now),
            None => self.until.is_none_or(|until| now < until),
        }
    }
}

fn messages(
    feed: Arc<Feed>,
    listener: Listener,
    params: EventParams,
    reader: Reader,
) -> impl Stream<Item = Result<Message, Infallible>> {
    // At once, so that a reader knows that it listens.
    let begun = stream::iter([Ok(Message::default().comment("listening").retry(COME_BACK_AFTER))]);
    let heard = stream::unfold((feed, listener, params, reader), async |(feed, mut listener, params, reader)| {
        loop {
            let heard = listener.next().await?;
            if !reader.is_good() {
                return None;
            }
            let message = match heard {
                Heard::Missed(count) => {
                    Message::default().event("lagged").data(json!({ "event": "lagged", "missed": count }).to_string())
                }
                Heard::Event(told) if !params.wants(&told.event, &reader.who) => continue,
                Heard::Event(told) => message(&feed, &told),
            };
            return Some((Ok(message), (feed, listener, params, reader)));
        }
    });
    futures_util::StreamExt::chain(begun, heard)
}

fn message(feed: &Feed, told: &Told) -> Message {
    let data = serde_json::to_string(told).unwrap_or_default();
    Message::default().id(feed.id_of(told)).event(told.event.name()).data(data)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::access::{Grant, Role};

    fn revision_of(owners: &[Option<&str>]) -> Event {
        let owners = owners.iter().map(|owner| owner.map(|owner| owner.parse().unwrap())).collect();
        let (author, message) = ("admin".to_owned(), String::new());
        Event::Revision { revision: 1, author, message, change_count: 1, owners }
    }

    #[test]
    fn a_revision_is_heard_of_by_who_sees_what_it_changed() {
        let teams = ["a".parse().unwrap()].into();
        let owner = Grant { role: Role::Owner, teams, scopes: BTreeSet::new() };
        let owner = Principal::new("ci".to_owned(), [owner]);
        let wants = |owners: &[Option<&str>], reader| EventParams::default().wants(&revision_of(owners), reader);
        assert!(wants(&[Some("a")], &owner) && wants(&[Some("b"), Some("a")], &owner) && wants(&[None], &owner));
        assert!(!wants(&[Some("b")], &owner));
        assert!(wants(&[Some("b")], &Principal::admin("admin")));
    }

    #[test]
    fn a_filter_is_for_proxies() {
        let gone = |proxy: &str, fleet: &str| Event::Disconnected { proxy: proxy.to_owned(), fleet: fleet.to_owned() };
        let revision = revision_of(&[None]);
        let admin = Principal::admin("admin");
        let params = |fleet: Option<&str>, proxy: Option<&str>| EventParams {
            fleet: fleet.map(str::to_owned),
            proxy: proxy.map(str::to_owned),
        };
        for (params, wanted) in [
            (params(None, None), [true, true, true, true]),
            (params(Some("edge"), None), [true, true, false, true]),
            (params(Some("edge"), Some("one")), [true, false, false, true]),
        ] {
            let events = [gone("one", "edge"), gone("two", "edge"), gone("one", "other"), revision.clone()];
            assert_eq!(events.map(|event| params.wants(&event, &admin)), wanted, "{params:?}");
        }
    }
}
