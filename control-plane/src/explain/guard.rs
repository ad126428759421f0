//! What may turn a request away before the rule that matches does anything with it: said, not decided, since who the client is only the
//! proxy knows.

use super::{
    Explainer,
    explanation::{Guard, written},
};
use crate::model::{
    Kind,
    access::{Access, Caller},
    authorizer::{Authorizer, RuleAuthorization},
    fleet::OnFailure,
    jwt::Jwt,
    listener::Listener,
    local_rate_limit::LocalRateLimit,
    route::{Action, order::Claim},
    service::tls::{Peer, ProxyId},
};

impl Explainer<'_> {
    /// What the request has to pass, in the order in which Envoy asks.
    pub(super) fn guards(&self, listener: &Listener, claim: Option<&Claim<'_>>) -> Vec<Guard> {
        let rule = claim.and_then(|claim| match &claim.rule.action {
            Action::Forward(forward) => Some((claim, forward)),
            Action::Redirect(_) | Action::Respond(_) => None,
        });
        let of_rule = |place: &str, what: Option<String>| {
            let (claim, what) = (rule?.0, what?);
            Some(Guard { from: self.rule_source(claim, place), what })
        };
        let forward = rule.map(|(_, forward)| forward);
        let of_listener = listener.access.as_ref().map(|access| Guard {
            from: self.source(Kind::Listener, &listener.name, "spec.access"),
            what: let_in(access),
        });
        [
            of_rule(".jwt", forward.and_then(|forward| forward.jwt.as_deref()).map(tokens)),
            of_listener,
            of_rule(".access", forward.and_then(|forward| forward.access.as_deref()).map(let_in)),
            self.authorizer(listener, claim),
            of_rule(".localRateLimit", forward.and_then(|forward| forward.local_rate_limit).map(slow_enough)),
            of_rule(".maxRequestBody", forward.and_then(|forward| forward.max_request_body).map(small_enough)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Whoever is asked, unless the rule says that nobody is. About a request that no rule matches nobody is asked either.
    fn authorizer(&self, listener: &Listener, claim: Option<&Claim<'_>>) -> Option<Guard> {
        let authorizer = listener.authorizer.as_ref()?;
        let of_rule = claim?.rule.authorization.as_ref();
        let what = match of_rule {
            Some(RuleAuthorization::Off) => return None,
            Some(RuleAuthorization::Context(context)) => {
                let context = context.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>();
                format!("{}, which is told {}", vouched_for(authorizer), context.join(", "))
            }
            None => vouched_for(authorizer),
        };
        Some(Guard { from: self.source(Kind::Listener, &listener.name, "spec.externalAuthorization"), what })
    }
}

fn vouched_for(authorizer: &Authorizer) -> String {
    let Authorizer { service, on_failure, .. } = authorizer;
    let otherwise = match on_failure {
        OnFailure::Allow => ", or everybody while it does not answer",
        OnFailure::Deny => "",
    };
    format!("whom Service/{service} lets pass{otherwise}")
}

fn let_in(access: &Access) -> String {
    let Access { allow, deny } = access;
    let allowed = allow.as_ref().map(|callers| format!("only {}", any_of(callers)));
    let denied = (!deny.is_empty()).then(|| format!("not {}", any_of(deny)));
    allowed.into_iter().chain(denied).collect::<Vec<_>>().join(", ")
}

fn any_of(callers: &[Caller]) -> String {
    callers.iter().map(one).collect::<Vec<_>>().join(", or ")
}

/// `clients spiffe://a/b from 10.0.0.0/8 with header x-a`.
fn one(caller: &Caller) -> String {
    let Caller { clients, networks, headers } = caller;
    let listed = |word: &str, texts: Vec<String>| (!texts.is_empty()).then(|| format!("{word} {}", texts.join(" or ")));
    let clients = listed("clients", clients.iter().map(client).collect());
    let from = networks.iter().map(|network| format!("{}/{}", network.address, network.length)).collect();
    let with = headers.iter().map(|header| header.name.clone()).collect::<Vec<_>>().join(" and ");
    let with = (!with.is_empty()).then(|| format!("by header {with}"));
    clients.into_iter().chain(listed("from", from)).chain(with).collect::<Vec<_>>().join(" ")
}

fn client(peer: &Peer) -> String {
    match peer {
        Peer::Uri(name) | Peer::Dns(name) => name.clone(),
        Peer::UriPrefix(start) => format!("{start}*"),
        Peer::Ip(address) => address.to_string(),
        Peer::Proxy { fleet, id: ProxyId::Any } => format!("proxies of Fleet/{fleet}"),
        Peer::Proxy { fleet, id: ProxyId::Exact(id) } => format!("proxy {id} of Fleet/{fleet}"),
        Peer::Proxy { fleet, id: ProxyId::Prefix(start) } => format!("proxies {start}* of Fleet/{fleet}"),
    }
}

fn tokens(jwt: &Jwt) -> String {
    let Jwt { providers, all, allow_missing } = jwt;
    let names = providers.iter().map(|provider| provider.name.to_string()).collect::<Vec<_>>();
    let names = names.join(if *all { " and " } else { " or " });
    format!("a token of {names}{}", if *allow_missing { ", or none" } else { "" })
}

fn slow_enough(limit: LocalRateLimit) -> String {
    let LocalRateLimit { requests, per, burst } = limit;
    format!("at most {requests} per {} at each proxy, {burst} at once", written(per))
}

fn small_enough(bytes: u32) -> String {
    format!("a body of at most {bytes} bytes")
}
