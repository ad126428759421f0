//! How much one caller may ask for: by address before anybody knows who it is, by token afterwards.
//!
//! An address may ask for much, since many may share it. What it may not do is guess: once it has brought too many tokens
//! that nobody was given, no more are looked at for a while, but those that were good from there a moment ago.
//! A token may ask for much as well; renewals of endpoints have a limit of their own, so that a thousand agents and a
//! pipeline with one token do not stand in each other's way, and making tokens has a strict one.
//!
//! What is counted is counted by this replica alone: the limits keep a process alive, they are no quota to be sold.

mod address;
mod limiter;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use self::address::{InvalidNetwork, Networks};
use self::limiter::{Limiter, Policy};
pub(super) use self::limiter::{Standing, seconds};
use super::{Api, error::ApiError};
use crate::audit::network;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Wrong tokens that an address may bring, and in which time as many again: one in three seconds.
const WRONG_TOKENS: Policy =
    Policy { name: "wrong-tokens", burst: NonZeroU32::new(20).unwrap(), window: Duration::from_secs(60) };

/// Tokens and enrolments that one token may make, rotate and revoke.
const SECRETS: Policy =
    Policy { name: "secrets", burst: NonZeroU32::new(120).unwrap(), window: Duration::from_secs(60) };

/// Times that an address may ask to be a proxy.
const ENROLMENTS: Policy =
    Policy { name: "enrolments", burst: NonZeroU32::new(60).unwrap(), window: Duration::from_secs(60) };

/// How long a token that was good at an address is looked at there, whatever else the address brings.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// How many of those are remembered.
const MOST_KNOWN: usize = 1 << 16;

/// How many requests may be made in a second; ten times as many at once. 0: as many as there are.
#[derive(Clone, Debug)]
pub struct Rates {
    /// With one token.
    pub token: u32,
    /// With one token, to register endpoints and renew them.
    pub registrations: u32,
    /// From one address, or one IPv6 network of 64 bits.
    pub address: u32,
}

impl Default for Rates {
    fn default() -> Self {
        Self { token: 500, registrations: 5000, address: 5000 }
    }
}

/// What an operation is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// What makes secrets.
    Secrets,
    /// What keeps endpoints registered.
    Registrations,
    /// All else.
    Others,
}

impl Class {
    /// That of an operation, by the path that the router has.
    fn of(method: &str, path: &str) -> Self {
        let reads = matches!(method, "GET" | "HEAD");
        match path.strip_prefix("/api/v1/").unwrap_or_default() {
            "tokens" | "tokens/{id}" | "tokens/{id}/rotate" | "enrolments" | "enrolments/{id}" if !reads => {
                Self::Secrets
            }
            "services/{name}/endpoints" | "services/{name}/endpoints/{id}" if !reads => Self::Registrations,
            _ => Self::Others,
        }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who sends a request, as far as that is known before its token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Client(IpAddr);

/// The address that a request comes from: that of the connection, or what a trusted proxy says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source(pub(super) IpAddr);

/// Counts requests, and refuses those that are too many.
pub struct Guard {
    trusted: Networks,
    address: Option<Limiter>,
    token: Option<Limiter>,
    registrations: Option<Limiter>,
    secrets: Limiter,
    wrong: Limiter,
    enrolments: Limiter,
    strangers: Mutex<Strangers>,
    hasher: RandomState,
}

/// Whose tokens are looked at.
#[derive(Default)]
struct Strangers {
    /// Addresses that have brought too many wrong ones, by hash, and until when they are not.
    shut_out: HashMap<u64, Instant>,
    /// Addresses with a token that was good from there, by hash, and when.
    known: HashMap<u64, Instant>,
}

impl Guard {
    /// A guard that believes `trusted` who sends a request.
    pub fn new(rates: &Rates, trusted: Networks) -> Self {
        let limiter = |name, rate, seconds| Policy::of_rate(name, rate, seconds).map(Limiter::new);
        Self {
            trusted,
            address: limiter("address", rates.address, 10),
            token: limiter("token", rates.token, 10),
            registrations: limiter("registrations", rates.registrations, 10),
            secrets: Limiter::new(SECRETS),
            wrong: Limiter::new(WRONG_TOKENS),
            enrolments: Limiter::new(ENROLMENTS),
            strangers: Mutex::default(),
            hasher: RandomState::new(),
        }
    }

    /// Who sends a request. Without a peer, as in tests, all are one.
    fn client(&self, peer: Option<Peer>, headers: &HeaderMap) -> Client {
        let peer = peer.map_or(IpAddr::from([0; 4]), |Peer(address)| address.ip());
        Client(network(self.trusted.client(peer, headers)))
    }

    /// Counts a request with the token of `principal`.
    pub(super) fn count(&self, principal: &str, method: &str, path: &str) -> Option<Standing> {
        let limiter = match Class::of(method, path) {
            Class::Secrets => Some(&self.secrets),
            Class::Registrations => self.registrations.as_ref(),
            Class::Others => self.token.as_ref(),
        };
        limiter.map(|limiter| limiter.count(&principal))
    }

    /// Counts that `client` asks to be a proxy; when it may ask again, if that was too often.
    pub(super) fn enrols(&self, client: Client) -> Result<(), Duration> {
        self.enrolments.count(&client).wait().map_or(Ok(()), Err)
    }

    /// Whether `token` of `client` is looked at; otherwise when it is.
    pub(super) fn looks_at(&self, client: Client, token: &str, now: Instant) -> Result<(), Duration> {
        let mut strangers = self.strangers.lock();
        let shut_out = self.hasher.hash_one(client);
        let Some(until) = strangers.shut_out.get(&shut_out).copied() else { return Ok(()) };
        if until <= now {
            strangers.shut_out.remove(&shut_out);
            return Ok(());
        }
        let known = strangers.known.get(&self.hasher.hash_one((client, token)));
        if known.is_some_and(|at| now - *at < KNOWN_FOR) { Ok(()) } else { Err(until - now) }
    }

    /// `token` was good.
    pub(super) fn good(&self, client: Client, token: &str, now: Instant) {
        let Strangers { known, .. } = &mut *self.strangers.lock();
        let hash = self.hasher.hash_one((client, token));
        if known.len() >= MOST_KNOWN && !known.contains_key(&hash) {
            known.retain(|_, at| now - *at < KNOWN_FOR);
        }
        if known.len() < MOST_KNOWN {
            known.insert(hash, now);
        }
    }

    /// What `client` brought nobody was given.
    pub(super) fn wrong(&self, client: Client, now: Instant) {
        let Some(wait) = self.wrong.count(&client).wait() else { return };
        let Strangers { shut_out, .. } = &mut *self.strangers.lock();
        if shut_out.len() >= MOST_KNOWN {
            shut_out.retain(|_, until| *until > now);
        }
        if shut_out.len() < MOST_KNOWN {
            shut_out.insert(self.hasher.hash_one(client), now + wait);
        }
    }
}

/// Says who sends the request, and refuses it if its address has sent too many.
pub(super) async fn by_address(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let peer: Option<Peer> = request.extensions().get().copied();
    if let Some(Peer(peer)) = peer {
        let source = Source(api.guard.trusted.client(peer.ip(), request.headers()));
        request.extensions_mut().insert(source);
    }
    let client = api.guard.client(peer, request.headers());
    let standing = api.guard.address.as_ref().map(|limiter| limiter.count(&client));
    if let Some(standing) = standing.filter(|standing| standing.wait().is_some()) {
        return refused(standing);
    }
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The answer to a request that is one too many.
pub(super) fn refused(standing: Standing) -> Response {
    let wait = standing.wait().unwrap_or_default();
    told(standing, ApiError::TooManyRequests { what: standing.name(), wait }.into_response())
}

/// `response`, with how its reader stands.
pub(super) fn told(standing: Standing, mut response: Response) -> Response {
    let values = [(RATE_LIMIT, standing.header()), (RATE_LIMIT_POLICY, standing.policy_header())];
    for (name, value) in values {
        response.headers_mut().extend(HeaderValue::try_from(value).map(|value| (name, value)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(trusted: &str) -> Guard {
        Guard::new(&Rates::default(), trusted.parse().unwrap())
    }

    fn client(address: &str) -> Client {
        guard("").client(Some(Peer(SocketAddr::new(address.parse().unwrap(), 1))), &HeaderMap::new())
    }

    #[test]
    fn who_guesses_is_not_looked_at_but_what_was_good_from_there_is() {
        let (guard, now) = (guard(""), Instant::now());
        let (here, there) = (client("192.0.2.1"), client("192.0.2.2"));
        guard.good(here, "good", now);
        for _ in 0..20 {
            guard.wrong(here, now);
            assert_eq!(guard.looks_at(here, "guess", now), Ok(()));
        }
        guard.wrong(here, now);
        let wait = guard.looks_at(here, "guess", now).unwrap_err();
        assert!(wait <= Duration::from_secs(3), "{wait:?}");
        assert_eq!(guard.looks_at(here, "good", now), Ok(()));
        assert_eq!(guard.looks_at(there, "guess", now), Ok(()));
        assert_eq!(guard.looks_at(here, "guess", now + wait), Ok(()));
        let later = now + KNOWN_FOR;
        guard.wrong(here, later);
        assert!(guard.looks_at(here, "good", later).is_err(), "that was long ago");
    }

    #[test]
    fn networks_of_64_bits_are_one_caller() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:2"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    }

    #[test]
    fn what_makes_secrets_and_what_renews_is_counted_apart() {
        for (method, path, class) in [
            ("POST", "/api/v1/tokens", Class::Secrets),
            ("DELETE", "/api/v1/tokens/{id}", Class::Secrets),
            ("POST", "/api/v1/tokens/{id}/rotate", Class::Secrets),
            ("POST", "/api/v1/enrolments", Class::Secrets),
            ("GET", "/api/v1/tokens", Class::Others),
            ("PUT", "/api/v1/services/{name}/endpoints/{id}", Class::Registrations),
            ("POST", "/api/v1/services/{name}/endpoints", Class::Registrations),
            ("GET", "/api/v1/services/{name}/endpoints", Class::Others),
            ("PUT", "/api/v1/services/{name}", Class::Others),
        ] {
            assert_eq!(Class::of(method, path), class, "{method} {path}");
        }
    }
}
