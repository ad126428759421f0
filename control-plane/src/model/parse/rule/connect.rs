//! Tunnels that CONNECT asks for: what of a rule goes with them.
//!
//! A CONNECT has a host and a port, no path and no body, and what follows its answer are bytes of which nobody here knows where a message
//! ends. What looks at paths, bodies or answers does not go with it, and is refused where it stands.

use crate::model::{
    problem::Problems,
    route::Tunnel,
    wire::{ConnectSpec, RuleSpec},
};

const NO_PATH: &str = "goes with requests that have a path; a CONNECT has none";
const NO_ANSWER: &str = "does not go with match.connect: a CONNECT is carried to a service, or refused";
const NO_END: &str =
    "does not go with match.connect: a tunnel has no answer that ends; see idleTimeout and maxStreamDuration";
const ONCE: &str = "does not go with match.connect: what a tunnel carries is sent once, to one service";
const AS_IT_IS: &str = "does not go with match.connect: what a tunnel carries is not looked into";

/// Who ends the tunnels of the rule `spec`; `None` if it is for other requests.
pub(super) fn tunnel(spec: &RuleSpec, problems: &mut Problems) -> Option<Tunnel> {
    if spec.r#match.as_ref().is_none_or(|matches| matches.connect.is_none()) {
        if spec.connect.is_some() {
            problems.at("connect").report("goes with match.connect only");
        }
        return None;
    }
    let useless = [
        ("redirect", spec.redirect.is_some(), NO_ANSWER),
        ("respond", spec.respond.is_some(), NO_ANSWER),
        ("rewrite", spec.rewrite.is_some(), NO_PATH),
        ("mirror", spec.mirror.is_some(), ONCE),
        ("retry", spec.retry.is_some(), ONCE),
        ("cors", spec.cors.is_some(), NO_PATH),
        ("maxRequestBody", spec.max_request_body.is_some(), NO_END),
        ("timeout", spec.timeout.is_some(), NO_END),
        ("compress", spec.compress.is_some(), AS_IT_IS),
        ("upgrades", spec.upgrades.is_some(), AS_IT_IS),
    ];
    for (field, _, why) in useless.iter().filter(|(_, given, _)| *given) {
        problems.at(field).report(*why);
    }
    Some(match spec.connect {
        None | Some(ConnectSpec::Terminate) => Tunnel::Terminate,
        Some(ConnectSpec::Forward) => Tunnel::Forward,
    })
}

/// Reports the conditions of a rule that no CONNECT meets, each with whether it is `given`.
pub(super) fn nothing_else(given: &[(&str, bool)], problems: &mut Problems) {
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        problems
            .at(field)
            .report("does not go with connect: a CONNECT has neither path nor query, and is a method of its own");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::{
        Problems, Resource, parse, parse_document,
        route::{Action, Forward, PathMatch, Tunnel, Upgrade},
    };

    fn parsed(rule: &Value) -> (Option<Forward>, Vec<String>) {
        let spec = json!({ "listeners": ["edge/web"], "hosts": ["db.example.com"], "rules": [rule] });
        let document = json!({ "kind": "Route", "name": "db", "spec": spec });
        let mut problems = Problems::default();
        let route = parse_document(&document, "", &mut problems).and_then(|document| parse(&document, &mut problems));
        let forward = route.map(|resource| {
            let Resource::Route(route) = resource else { panic!("a route") };
            let rule = &route.rules[0];
            let is_connect = rule.matches.path == PathMatch::Connect;
            let Action::Forward(forward) = &rule.action else { panic!("to a service") };
            assert_eq!(is_connect, forward.upgrades.iter().any(|upgrade| matches!(upgrade, Upgrade::Connect(_))));
            forward.clone()
        });
        let said = problems.into_vec().into_iter().map(|problem| format!("{}: {}", problem.path, problem.reason));
        (forward, said.collect())
    }

    #[test]
    fn a_tunnel_ends_at_the_proxy_unless_it_is_to_go_on() {
        let rule = |more: Value| {
            let mut rule = json!({ "match": { "connect": true }, "to": [{ "service": "db" }] });
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            parsed(&rule).0.expect("a good rule")
        };
        for (more, tunnel) in [
            (json!({}), Tunnel::Terminate),
            (json!({ "connect": "terminate" }), Tunnel::Terminate),
            (json!({ "connect": "forward", "idleTimeout": "1h", "maxStreamDuration": "8h" }), Tunnel::Forward),
        ] {
            let forward = rule(more);
            assert_eq!(forward.upgrades, [Upgrade::Connect(tunnel)]);
            assert_eq!((forward.compress, forward.timeout), (false, Some(std::time::Duration::ZERO)));
        }
    }

    #[test]
    fn what_does_not_go_with_it_is_refused_where_it_stands() {
        let to = json!([{ "service": "db" }]);
        for (field, value) in [
            ("rewrite", json!({ "host": "a.example.com" })),
            ("mirror", json!({ "service": "db" })),
            ("retry", json!({ "on": ["reset"] })),
            ("cors", json!({ "origins": ["https://a.example.com"] })),
            ("maxRequestBody", json!("1MiB")),
            ("timeout", json!("1s")),
            ("compress", json!(false)),
            ("upgrades", json!(["websocket"])),
        ] {
            let (_, said) = parsed(&json!({ "match": { "connect": true }, "to": to, field: value }));
            assert_eq!(said.len(), 1, "{field}: {said:?}");
            assert!(said[0].starts_with(&format!("spec.rules[0].{field}: ")), "{said:?}");
        }
        for (field, value) in [("respond", json!({ "status": 200 })), ("redirect", json!({ "path": "/" }))] {
            let (_, said) = parsed(&json!({ "match": { "connect": true }, field: value }));
            assert!(said[0].starts_with(&format!("spec.rules[0].{field}: ")), "{said:?}");
        }
        for (field, value) in [
            ("path", json!({ "prefix": "/" })),
            ("grpc", json!({})),
            ("methods", json!(["CONNECT"])),
            ("query", json!([{ "name": "a", "present": true }])),
        ] {
            let (_, said) = parsed(&json!({ "match": { "connect": true, field: value }, "to": to }));
            assert!(said[0].starts_with(&format!("spec.rules[0].match.{field}: ")), "{said:?}");
        }
        assert_eq!(
            parsed(&json!({ "connect": "forward", "to": to })).1,
            ["spec.rules[0].connect: goes with match.connect only"]
        );
        assert_eq!(
            parsed(&json!({ "match": { "connect": false }, "to": to })).1,
            ["spec.rules[0].match.connect: can only be true"]
        );
    }
}
