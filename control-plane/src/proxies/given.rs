//! What a proxy was given, and what it has said that it has of it, resource by resource.
//!
//! The stream is asked, so this is for a look, not for routine. What an *older* version is that a proxy holds nobody
//! knows here: a stream keeps no map of versions. Private keys and passwords are not shown.

use std::{sync::Arc, time::Duration};

use chancery_proto::{
    describe::{json, types::Type},
    type_url::short_name,
};
use chancery_xds::{
    Inspection, Rejection, Resource, TypeUrl,
    subscription::{Standing, State},
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::Connection;
use crate::publish::revision_at;

/// How many resources are shown at once.
const MOST_SHOWN: usize = 2000;

/// How long a stream may take to say how its client stands.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The fields whose contents are not shown. They hold a `DataSource` each, or several.
const SECRETS: &[&str] =
    &["private_key", "pkcs12", "password", "generic_secret", "session_ticket_keys", "auth_password", "users"];

/// Where a `DataSource` has it in itself.
const INLINE: &[&str] = &["inline_string", "inline_bytes"];

/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// Which resources are meant.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only of this type, by short name.
    pub resource_type: Option<String>,
    /// Only those called so.
    pub name: Option<String>,
    /// Only those where the proxy has something else than it should.
    pub different: bool,
}

/// What a proxy was given.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Given {
    /// The revision that this is about.
    pub revision: u64,
    /// By type, in the order in which types are sent, and name.
    pub resources: Vec<GivenResource>,
    /// How many more there are; ask by type or name.
    pub omitted: usize,
}

/// One resource of a proxy.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GivenResource {
    /// Its type, by short name.
    #[serde(rename = "type")]
    pub resource_type: String,
    /// Its name.
    pub name: String,
    /// How the proxy stands with it.
    pub state: GivenState,
    /// Why it does not have it as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<Because>,
    /// The version it should have; absent where it should have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_version: Option<String>,
    /// The version it has, where that is known: an older one is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The proxy's words, if it refused it in its last refusal of this type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What it should have, as JSON, without secrets; not where only differences are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub resource: Option<Value>,
}

/// How a proxy stands with a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum GivenState {
    /// It has it as it should be.
    Synced,
    /// It has an older one.
    Stale,
    /// It may have none.
    Missing,
    /// It has refused it, and has an older one or none.
    Rejected,
    /// It may have one that it should not have any more.
    Extra,
    /// It asks for it, and there is none.
    Absent,
}

/// Why a proxy does not have what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Because {
    /// It has not answered.
    NotAnswered,
    /// It was not sent it yet: something else goes first, or waits for an answer.
    NotSent,
    /// It names a cluster that the proxy has refused, and has none of.
    KeptBack,
}

/// The stream does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream of the proxy has ended or does not answer")]
pub struct Silent;

/// What the proxy of `connection` was given.
///
/// # Errors
/// When its stream ends, or does not answer in time.
pub async fn given(connection: &Connection, wanted: Wanted) -> Result<Given, Silent> {
    let inspection = tokio::time::timeout(ANSWER_WITHIN, connection.status.inspect()).await;
    let inspection = inspection.ok().flatten().ok_or(Silent)?;
    let reasons = Reasons::of(connection);
    // Thousands of messages take longer to read than others on this thread should wait.
    let shown = tokio::task::spawn_blocking(move || shown(&inspection, &wanted, &reasons)).await;
    shown.map_err(|_| Silent)
}

/// The last refusal of each type: the type, the names, the words.
struct Reasons(Vec<(TypeUrl, Vec<Arc<str>>, String)>);

impl Reasons {
    fn of(connection: &Connection) -> Self {
        let types = connection.status.types().into_iter();
        let rejections = types.filter_map(|(type_url, status)| {
            let Rejection { resources, message, .. } = *status.rejected?;
            Some((type_url, resources, message))
        });
        Self(rejections.collect())
    }

    fn find(&self, type_url: &str, name: &str) -> Option<String> {
        let (_, names, words) = self.0.iter().find(|(of, ..)| **of == *type_url)?;
        names.iter().any(|named| **named == *name).then(|| words.clone())
    }
}

fn shown(inspection: &Inspection, wanted: &Wanted, reasons: &Reasons) -> Given {
    let Inspection { tables, types } = inspection;
    let mut given = Given { revision: revision_at(tables.head()), resources: Vec::new(), omitted: 0 };
    let fits = |asked: &Option<String>, is: &str| asked.as_ref().is_none_or(|asked| asked == is);
    for (type_url, standings) in types.iter().filter(|(of, _)| fits(&wanted.resource_type, short_name(of))) {
        let table = tables.table(type_url);
        for standing in standings.iter().filter(|standing| fits(&wanted.name, &standing.name)) {
            let (state, because) = state_of(standing);
            if wanted.different && state == GivenState::Synced {
                continue;
            }
            if given.resources.len() == MOST_SHOWN {
                given.omitted += 1;
                continue;
            }
            let resource = table.resource(&standing.name);
            let version = |resource: Option<&Resource>| resource.map(|resource| resource.version().to_string());
            given.resources.push(GivenResource {
                resource_type: short_name(type_url).to_owned(),
                name: standing.name.to_string(),
                state,
                because,
                wanted_version: version(resource),
                version: match state {
                    GivenState::Synced => version(resource),
                    GivenState::Extra => version(table.removed(&standing.name)),
                    _ => None,
                },
                reason: reasons.find(type_url, &standing.name).filter(|_| state == GivenState::Rejected),
                resource: resource.filter(|_| !wanted.different).and_then(|resource| content(type_url, resource)),
            });
        }
    }
    given
}

fn state_of(standing: &Standing) -> (GivenState, Option<Because>) {
    let old = if standing.held { GivenState::Stale } else { GivenState::Missing };
    match standing.state {
        State::Current => (GivenState::Synced, None),
        State::Unanswered => (old, Some(Because::NotAnswered)),
        State::Unsent => (old, Some(Because::NotSent)),
        State::KeptBack => (old, Some(Because::KeptBack)),
        State::Rejected => (GivenState::Rejected, None),
        State::Removing => (GivenState::Extra, None),
        State::Absent => (GivenState::Absent, None),
    }
}

/// A resource as JSON; none if it is of a type that only rate limiters know.
fn content(type_url: &str, resource: &Resource) -> Option<Value> {
    let mut value = json::decode(Type::of_url(type_url)?, &resource.body()).ok()?;
    redact(&mut value, false);
    Some(value)
}

/// Takes out what is `secret`, and what is in fields of secrets below.
fn redact(value: &mut Value, secret: bool) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if secret && INLINE.contains(&name.as_str()) {
                    *value = REDACTED.into();
                } else {
                    redact(value, secret || SECRETS.contains(&name.as_str()));
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, secret)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use chancery_proto::type_url;
    use chancery_xds::{Cache, Update};
    use serde_json::json;

    use super::*;
    use crate::publish::sequence_of;

    fn cache() -> Cache {
        let secret = json!({
            "name": "cert",
            "tls_certificate": {
                "certificate_chain": { "inline_string": "public" },
                "private_key": { "inline_string": "hunter2" },
            },
        });
        let of = Type::of_url(type_url::SECRET).unwrap();
        let mut update = Update::default();
        let bytes = json::encode(of, &secret).unwrap();
        update.upsert(type_url::SECRET, Resource::new(type_url::SECRET, "cert", &bytes));
        update.upsert(type_url::CLUSTER, Resource::new(type_url::CLUSTER, "a", b"\x0a\x01a"));
        update.upsert(type_url::CLUSTER, Resource::new(type_url::CLUSTER, "b", b"\x0a\x01b"));
        let cache = Cache::new();
        cache.apply(sequence_of(7), update);
        cache
    }

    fn standing(name: &str, state: State, held: bool) -> Standing {
        Standing { name: name.into(), state, held }
    }

    #[test]
    fn what_was_given_is_shown_without_secrets_and_with_the_words() {
        let inspection = Inspection {
            tables: cache().snapshot(),
            types: vec![
                (
                    type_url::CLUSTER.into(),
                    vec![standing("a", State::Current, true), standing("b", State::Rejected, false)],
                ),
                (
                    type_url::SECRET.into(),
                    vec![standing("cert", State::Unanswered, true), standing("gone", State::Absent, false)],
                ),
            ],
        };
        let reasons = Reasons(vec![(type_url::CLUSTER.into(), vec!["b".into()], "bad b".to_owned())]);
        let all = shown(&inspection, &Wanted::default(), &reasons);
        insta::assert_json_snapshot!(all);
        assert!(!serde_json::to_string(&all).unwrap().contains("hunter2"));
        let names = |wanted: Wanted| {
            shown(&inspection, &wanted, &reasons).resources.into_iter().map(|r| r.name).collect::<Vec<_>>()
        };
        assert_eq!(names(Wanted { different: true, ..Wanted::default() }), ["b", "cert", "gone"]);
        assert_eq!(names(Wanted { resource_type: Some("cluster".to_owned()), ..Wanted::default() }), ["a", "b"]);
        assert_eq!(names(Wanted { name: Some("cert".to_owned()), ..Wanted::default() }), ["cert"]);
    }

    #[test]
    fn of_too_many_the_rest_is_counted() {
        let many = (0..MOST_SHOWN + 3).map(|n| standing(&n.to_string(), State::Absent, false)).collect();
        let inspection = Inspection { tables: Arc::default(), types: vec![(type_url::ENDPOINT.into(), many)] };
        let given = shown(&inspection, &Wanted::default(), &Reasons(Vec::new()));
        assert_eq!((given.resources.len(), given.omitted), (MOST_SHOWN, 3));
    }
}
