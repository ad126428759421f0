//! Who issues tokens, and which of them a rule wants.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{host, path, text};
use crate::model::{
    jwt::{Jwt, JwtProvider, Keys},
    problem::{Problems, Quoted},
    wire::{JwtClaimSpec, JwtKeysSpec, JwtProviderSpec, JwtSpec, NameText},
};

/// The longest set of keys, in bytes.
const MAX_KEYS: usize = 64 * 1024;

/// The longest claim, issuer or audience.
const MAX_TEXT: usize = 1024;

const CACHE: Duration = Duration::from_secs(10 * 60);
const SECOND: Duration = Duration::from_secs(1);

/// The providers that could be read; the others are reported.
pub(super) fn providers(specs: &[JwtProviderSpec], problems: &mut Problems) -> Vec<Arc<JwtProvider>> {
    let mut found: Vec<Arc<JwtProvider>> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let mut problems = problems.index(index);
        let Some(provider) = provider(spec, &mut problems) else { continue };
        if found.iter().any(|earlier| earlier.name == provider.name) {
            problems.at("name").report("is the same as that of another provider");
        }
        found.push(Arc::new(provider));
    }
    found
}

fn provider(spec: &JwtProviderSpec, problems: &mut Problems) -> Option<JwtProvider> {
    let JwtProviderSpec { name, issuer, audiences, keys, header, forward, claims } = spec;
    let name = problems.at("name").ok(text::name(name));
    let issuer = problems.at("issuer").ok(said(issuer));
    let audiences = problems.at("audiences").each(audiences.iter().flatten(), |text, problems| problems.ok(said(text)));
    let keys = self::keys(keys, &mut problems.at("keys"));
    let header = header.as_ref().and_then(|name| problems.at("header").ok(text::changeable_header_name(name)));
    let mut place = problems.at("claims");
    let claims = place.each(claims.iter().flatten(), |JwtClaimSpec { claim, header }, problems| {
        let claim = problems.at("claim").ok(said(claim));
        let header = problems.at("header").ok(text::changeable_header_name(header));
        Some((claim?, header?))
    });
    for (index, (_, header)) in claims.iter().flatten().enumerate() {
        if claims.iter().flatten().take(index).any(|(_, earlier)| earlier == header) {
            place.index(index).at("header").report("tells another claim already");
        }
    }
    drop(place);
    let forward = forward.unwrap_or(false);
    Some(JwtProvider {
        name: name?,
        issuer: issuer?,
        audiences: audiences?,
        keys: keys?,
        header,
        forward,
        claims: claims?,
    })
}

fn said(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
        return Err(format!("must have 1 to {MAX_TEXT} bytes and no control characters"));
    }
    Ok(text.to_owned())
}

fn keys(spec: &JwtKeysSpec, problems: &mut Problems) -> Option<Keys> {
    let JwtKeysSpec { inline, service, path, host, cache } = spec;
    if service.is_none() {
        let given = [("path", path.is_some()), ("host", host.is_some()), ("cache", cache.is_some())];
        for (field, _) in given.iter().filter(|(_, given)| *given) {
            problems.at(field).report("goes with service only");
        }
    }
    let mut given = Vec::new();
    if let Some(inline) = inline {
        given.push(problems.at("inline").ok(key_set(inline)).map(Keys::Inline));
    }
    if let Some(service) = service {
        given.push(remote(service, spec, problems));
    }
    problems.only_one(given, "inline and service")
}

fn remote(service: &NameText, spec: &JwtKeysSpec, problems: &mut Problems) -> Option<Keys> {
    let service = problems.at("service").ok(text::name(service));
    let path = match &spec.path {
        Some(path) => problems.at("path").ok(path::with_query(path)),
        None => {
            problems.at("path").report("is required with service");
            None
        }
    };
    let host = match &spec.host {
        Some(host) => problems.at("host").ok(host::exact(host)),
        None => service.as_ref().map(ToString::to_string),
    };
    let mut place = problems.at("cache");
    let cache = text::optional_duration(spec.cache.as_ref(), text::DAY, &mut place).unwrap_or(CACHE);
    if cache < SECOND {
        place.report("must not be below 1s");
    }
    Some(Keys::Remote { service: service?, host: host?, path: path?, cache })
}

/// A set of public keys: whoever may read resources reads it.
fn key_set(text: &str) -> Result<String, String> {
    if text.len() > MAX_KEYS {
        return Err(format!("must have at most {MAX_KEYS} bytes, not {}", text.len()));
    }
    let set: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    let keys = set["keys"].as_array().filter(|keys| !keys.is_empty());
    let keys = keys.ok_or("is not a set of keys, such as {\"keys\": [{\"kty\": \"RSA\", …}]}")?;
    for (index, key) in keys.iter().enumerate() {
        let parts: &[&str] = match key["kty"].as_str() {
            Some("RSA") => &["n", "e"],
            Some("EC") => &["x", "y"],
            Some("OKP") => &["x"],
            Some("oct") => return Err(format!("holds a secret: key {index} both signs and verifies")),
            kty => {
                return Err(format!(
                    "key {index} is of the kind {}, not RSA, EC or OKP",
                    Quoted(kty.unwrap_or_default())
                ));
            }
        };
        if !key["d"].is_null() {
            return Err(format!(
                "holds a private key: take d out of key {index}, and replace it if others have seen this"
            ));
        }
        let is_number = |part: &&str| {
            key[*part].as_str().is_some_and(|text| URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| !bytes.is_empty()))
        };
        if let Some(part) = parts.iter().find(|part| !is_number(part)) {
            return Err(format!("key {index} has no {part} in base64url"));
        }
    }
    Ok(text.to_owned())
}

/// What a rule wants of the providers of its route.
pub(super) fn jwt(spec: &JwtSpec, providers: &Providers<'_>, problems: &mut Problems) -> Option<Jwt> {
    let JwtSpec { any, all, allow_missing } = spec;
    let allow_missing = allow_missing.unwrap_or(false);
    if all.is_some() && allow_missing {
        problems.at("allowMissing").report("goes with any only");
    }
    let mut given = Vec::new();
    for (field, names) in [("any", any), ("all", all)] {
        if let Some(names) = names {
            let mut problems = problems.at(field);
            let named = problems.each(names, |name, problems| providers.named(name, problems));
            problems.each_once(named.as_deref().unwrap_or_default());
            given.push(named.map(|providers| Jwt { providers, all: field == "all", allow_missing }));
        }
    }
    let jwt = problems.only_one(given, "any and all")?;
    for (index, provider) in jwt.providers.iter().enumerate().filter(|_| jwt.all) {
        if jwt.providers[..index].iter().any(|earlier| earlier.header == provider.header) {
            problems
                .at("all")
                .index(index)
                .report("has its token in the same header as another, and only one of them can be there");
        }
    }
    Some(jwt)
}

/// The providers of a route, for its rules.
pub(super) struct Providers<'a> {
    /// Those that could be read.
    pub(super) read: &'a [Arc<JwtProvider>],
    /// All that are there.
    pub(super) written: &'a [JwtProviderSpec],
}

impl Providers<'_> {
    /// Of one that could not be read, nothing more is said.
    fn named(&self, name: &NameText, problems: &mut Problems) -> Option<Arc<JwtProvider>> {
        let found = self.read.iter().find(|provider| provider.name.as_str() == name.0);
        if found.is_none() && self.written.iter().all(|spec| spec.name != *name) {
            problems.report(format!("{} is not one of jwtProviders", Quoted(&name.0)));
        }
        found.cloned()
    }
}
