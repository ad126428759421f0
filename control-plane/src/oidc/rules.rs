//! Whether a token is good, whose it is, and what they may do. Pure.
//!
//! In the order of what is cheap and what is known: size and form, the issuer that it names, a key for its algorithm, the
//! signature; and only then whom and which time it is for, and the groups. The issuer is looked at before the signature so that a
//! token of another one is told so, and no key is looked for.

use std::{collections::HashMap, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

use super::{
    issuer::IssuerUrl,
    keys::{Algorithm, Keys},
};
use crate::access::{Grant, Principal};

/// The longest token, in bytes; the API takes no more in all headers together.
const LONGEST: usize = 32 << 10;

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::MINUTE;

/// What the names of people begin with. No token of ours can be called so.
const PREFIX: &str = "oidc:";

/// The longest name that changes are recorded under, in characters.
const LONGEST_NAME: usize = 128;

/// How much of what a token says is repeated in a refusal: groups, and characters of a text.
const SHOWN: usize = 10;
const SHOWN_CHARACTERS: usize = 100;

/// Which tokens are taken, and what follows from them.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) issuer: IssuerUrl,
    pub(super) audience: Vec<String>,
    pub(super) groups_claim: String,
    pub(super) name_claim: String,
    /// By group.
    pub(super) grants: HashMap<String, Vec<Grant>>,
}

/// Somebody who has signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// Who they are, and what they may do.
    pub principal: Principal,
    /// How the issuer calls them, for ever.
    pub subject: String,
    /// Until when the token is good.
    pub until: OffsetDateTime,
}

/// Why a token of an issuer is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is larger than any that is taken.
    #[error("the token is larger than {LONGEST} bytes; have the issuer put fewer groups into it")]
    TooLong,
    /// It is no token.
    #[error("the token cannot be read: {0}")]
    Malformed(&'static str),
    /// It is a token for something else, as to end a session.
    #[error("the token is of type {0}, which is not one to sign in with")]
    Type(Shown),
    /// It is signed as nobody may sign, or not at all.
    #[error("the token is signed with {0}; taken are {names}", names = Algorithm::NAMES)]
    Algorithm(Shown),
    /// Somebody else has made it.
    #[error("the token is of issuer {found}, not of {wanted}")]
    Issuer {
        /// The issuer that it names.
        found: Shown,
        /// The one that is trusted.
        wanted: String,
    },
    /// The issuer has no key that it can be signed with.
    #[error("the token is signed with key {0}, which the issuer does not have for this algorithm")]
    UnknownKey(Shown),
    /// It does not say which of several keys it is signed with.
    #[error("the token does not say which of the issuer's keys it is signed with")]
    NoKey,
    /// Somebody has changed it, or made it up.
    #[error("the signature of the token is wrong")]
    Signature,
    /// It is for somebody else.
    #[error("the token is for {found}, not for {wanted}")]
    Audience {
        /// Whom it is for.
        found: Shown,
        /// Whom it would have to be for.
        wanted: String,
    },
    /// It was good until now.
    #[error("the token has expired {} ago; sign in again: chancery login", shown_age(*.ago))]
    Expired {
        /// Whose it was.
        name: String,
        /// How long ago.
        ago: Duration,
    },
    /// It is not good yet, or made in the future.
    #[error("the token is not good yet; are the clocks of issuer and control plane the same?")]
    NotYet,
    /// It does not say whose it is.
    #[error("the token does not say whose it is: it has no claim sub")]
    NoSubject,
    /// It does not say which groups its owner is in.
    #[error("{name} is in no group: the token has no {claim}, or not as a list; have the issuer put it in")]
    NoGroups {
        /// Whose it is.
        name: String,
        /// What is missing.
        claim: String,
    },
    /// None of its owner's groups may do anything.
    #[error("none of the groups of {name} is granted anything here: {groups}")]
    NothingGranted {
        /// Whose it is.
        name: String,
        /// Which groups it names.
        groups: String,
    },
    /// The issuer's keys are not known yet.
    #[error("the keys of the issuer are not there yet, so nobody can tell whether the token is good")]
    NoKeys,
}

impl Refused {
    /// Whose it is, where that was proven.
    pub fn owner(&self) -> Option<&str> {
        match self {
            Self::Expired { name, .. } | Self::NoGroups { name, .. } | Self::NothingGranted { name, .. } => Some(name),
            _ => None,
        }
    }

    /// Whether it may have been made up. Whoever brings many such guesses.
    pub fn is_a_guess(&self) -> bool {
        !matches!(self, Self::NotYet | Self::NoKeys) && self.owner().is_none()
    }
}

/// A text of a token, as far as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown(String);

impl Shown {
    fn of(text: &str) -> Self {
        Self(text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS).collect())
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

fn shown_age(ago: Duration) -> String {
    match ago.whole_minutes() {
        0 => format!("{} s", ago.whole_seconds()),
        minutes @ 1..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes / 60),
    }
}

/// Whether a token has the form of one that an issuer has signed: no token of ours has dots.
pub fn is_of_an_issuer(token: &str) -> bool {
    token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Until when a token says that it is good. Nothing is verified: this is for whoever was given it, and wants to know when to ask for
/// another.
///
/// # Errors
/// It is no token that could be taken.
pub fn claimed_end(token: &str) -> Result<OffsetDateTime, Refused> {
    Parts::of(token)?.end()
}

/// What a token says of itself, and what is signed. Nothing is verified.
struct Parts<'t> {
    algorithm: Algorithm,
    key_id: Option<String>,
    claims: Map<String, Value>,
    message: &'t [u8],
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Result<Self, Refused> {
        if token.len() > LONGEST {
            return Err(Refused::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed("it has no signature"))?;
        let (header, claims) = message.split_once('.').ok_or(Refused::Malformed("it has no claims"))?;
        let decoded = |text: &str, refused| URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Malformed(refused));
        let header = decoded(header, "its header is no base64url")?;
        let header: Header =
            serde_json::from_slice(&header).map_err(|_| Refused::Malformed("its header is not one of a JWT"))?;
        let algorithm = Algorithm::named(&header.alg).ok_or_else(|| Refused::Algorithm(Shown::of(&header.alg)))?;
        if header.crit.is_some() {
            return Err(Refused::Malformed("it has critical extensions, none of which is known here"));
        }
        // RFC 8725, section 3.11: a token for one purpose is not taken for another.
        let typ = header.typ.as_deref().unwrap_or("JWT");
        let plain = typ.rsplit('/').next().unwrap_or(typ);
        if !plain.eq_ignore_ascii_case("JWT") && !plain.eq_ignore_ascii_case("at+jwt") {
            return Err(Refused::Type(Shown::of(typ)));
        }
        let claims = decoded(claims, "its claims are no base64url")?;
        let claims =
            serde_json::from_slice(&claims).map_err(|_| Refused::Malformed("its claims are no JSON object"))?;
        let signature = decoded(signature, "its signature is no base64url")?;
        Ok(Self { algorithm, key_id: header.kid, claims, message: message.as_bytes(), signature })
    }

    fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim)?.as_str().filter(|text| !text.is_empty())
    }

    /// A time (RFC 7519, section 2: seconds, with a fraction or without); none if it is not there.
    fn time(&self, claim: &str) -> Result<Option<OffsetDateTime>, Refused> {
        let Some(value) = self.claims.get(claim) else { return Ok(None) };
        // What is out of every range is cut off by the conversion, and then is no time.
        let seconds = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64));
        let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        time.map(Some).ok_or(Refused::Malformed("one of exp, nbf and iat is no time"))
    }

    fn end(&self) -> Result<OffsetDateTime, Refused> {
        self.time("exp")?.ok_or(Refused::Malformed("it does not say when it expires"))
    }
}

impl Rules {
    /// Whose `token` is, and what they may do.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub(super) fn judge(&self, token: &str, keys: Option<&Keys>, now: OffsetDateTime) -> Result<Person, Refused> {
        let parts = Parts::of(token)?;
        let issuer = parts.text("iss").unwrap_or_default();
        if issuer != self.issuer.as_str() {
            return Err(Refused::Issuer { found: Shown::of(issuer), wanted: self.issuer.to_string() });
        }
        is_signed(&parts, keys.ok_or(Refused::NoKeys)?)?;
        self.is_for_us(&parts)?;
        let subject = parts.text("sub").ok_or(Refused::NoSubject)?.to_owned();
        let name = format!("{PREFIX}{}", self.name(&parts, &subject));
        let until = lasts(&parts, &name, now)?;
        let grants = self.granted(&parts, &name)?;
        Ok(Person { principal: Principal::new(name, grants), subject, until })
    }

    fn is_for_us(&self, parts: &Parts<'_>) -> Result<(), Refused> {
        let audience = strings(parts.claims.get("aud")).unwrap_or_default();
        if audience.iter().any(|one| self.audience.iter().any(|wanted| wanted == one)) {
            return Ok(());
        }
        let found = Shown::of(&audience.join(", "));
        Err(Refused::Audience { found, wanted: self.audience.join(" or ") })
    }

    /// The name that they are known under. An address that the issuer has not verified anybody may have typed.
    fn name(&self, parts: &Parts<'_>, subject: &str) -> String {
        let unverified = parts.claims.get("email_verified").is_some_and(|is| *is == false || is == "false");
        let claims = [self.name_claim.as_str(), "preferred_username"];
        let claims = claims.into_iter().filter(|claim| *claim != "email" || !unverified);
        let sound = |name: &&str| {
            name.chars().count() <= LONGEST_NAME && !name.contains(|c: char| c.is_control() || c.is_whitespace())
        };
        let named = claims.filter_map(|claim| parts.text(claim)).find(sound);
        named.map_or_else(
            || subject.chars().filter(|c| !c.is_control() && !c.is_whitespace()).take(LONGEST_NAME).collect(),
            str::to_owned,
        )
    }

    /// What the groups that a token names may do.
    fn granted(&self, parts: &Parts<'_>, name: &str) -> Result<Vec<Grant>, Refused> {
        let groups = strings(claim(&parts.claims, &self.groups_claim)).ok_or_else(|| Refused::NoGroups {
            name: name.to_owned(),
            claim: format!("claim {:?}{}", self.groups_claim, elsewhere(&parts.claims)),
        })?;
        let grants: Vec<_> = groups.iter().filter_map(|group| self.grants.get(*group)).flatten().cloned().collect();
        if grants.is_empty() {
            return Err(Refused::NothingGranted { name: name.to_owned(), groups: shown(&groups) });
        }
        Ok(grants)
    }
}

/// Whether one of the issuer's keys has signed it.
fn is_signed(parts: &Parts<'_>, keys: &Keys) -> Result<(), Refused> {
    let Parts { algorithm, key_id, message, signature, .. } = parts;
    let mut fitting = keys.of(key_id.as_deref(), *algorithm);
    let unknown = || Refused::UnknownKey(Shown::of(key_id.as_deref().unwrap_or_default()));
    let key = fitting.next().ok_or_else(unknown)?;
    if key_id.is_none() && fitting.next().is_some() {
        return Err(Refused::NoKey);
    }
    if key.verifies(*algorithm, message, signature) { Ok(()) } else { Err(Refused::Signature) }
}

/// Until when it is good, which must be later than `now`.
fn lasts(parts: &Parts<'_>, name: &str, now: OffsetDateTime) -> Result<OffsetDateTime, Refused> {
    let until = parts.end()?;
    for claim in ["nbf", "iat"] {
        if parts.time(claim)?.is_some_and(|begins| begins > now + LEEWAY) {
            return Err(Refused::NotYet);
        }
    }
    if now - LEEWAY >= until {
        return Err(Refused::Expired { name: name.to_owned(), ago: now - until });
    }
    Ok(until)
}

/// A claim by its name, or by a pointer to it (RFC 6901).
fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let (first, rest) = path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let first = claims.get(&first.replace("~1", "/").replace("~0", "~"))?;
    rest.map_or(Some(first), |rest| first.pointer(&format!("/{rest}")))
}

/// A list of texts, or a text alone.
fn strings(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(text) => Some(vec![text]),
        Value::Array(values) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Some issuers leave out groups that are many, and say where they could be asked for.
fn elsewhere(claims: &Map<String, Value>) -> &'static str {
    if claims.contains_key("_claim_names") {
        " (there are too many for a token: list those of this application only)"
    } else {
        ""
    }
}

/// The first of them, and how many more there are.
fn shown(groups: &[&str]) -> String {
    if groups.is_empty() {
        return "there are none".to_owned();
    }
    let first: Vec<_> = groups.iter().take(SHOWN).map(|group| Shown::of(group).to_string()).collect();
    match groups.len().checked_sub(SHOWN) {
        None | Some(0) => first.join(", "),
        Some(more) => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests;
