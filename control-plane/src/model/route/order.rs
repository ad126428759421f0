//! One order for the rules of several routes that claim the same host.
//!
//! Within a route the rules stay as they were written: the first that matches decides, and its author
//! relied on that. Between routes the more specific rule goes first, so that one team's `/` does not
//! hide another's `/api`. Both at once is a merge: whichever route's next rule is the most specific goes next.
//!
//! More specific is: an exact path, then a pattern or template, then a prefix, which a template of any further segments is too;
//! the longer one; the one with more conditions. What is left is decided by the route's name, so that the order depends on nothing but the rules.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use super::{Match, PathMatch, Route, Rule};

/// A rule and where it came from.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The route it stands in.
    pub route: &'a Route,
    /// Which of the route's rules it is.
    pub index: usize,
    /// The rule.
    pub rule: &'a Rule,
}

/// The rules of all `routes` in the order in which Envoy is to try them.
pub fn merge<'a>(routes: impl IntoIterator<Item = &'a Route>) -> impl Iterator<Item = Claim<'a>> {
    let mut next: BinaryHeap<Candidate<'a>> = routes.into_iter().filter_map(|route| Candidate::new(route, 0)).collect();
    std::iter::from_fn(move || {
        let Candidate { claim, .. } = next.pop()?;
        next.extend(Candidate::new(claim.route, claim.index + 1));
        Some(claim)
    })
}

/// How specific a match is; the greater goes first.
type Specificity = (Reverse<u8>, usize, usize);

fn specificity(matches: &Match) -> Specificity {
    let Match { path, methods, headers, query, cookies, grpc } = matches;
    let (rank, length) = match path {
        // For no request that any other is for.
        PathMatch::Connect => (0, 0),
        PathMatch::Exact(path) => (0, path.len()),
        PathMatch::Regex(pattern) => (1, 2 * pattern.len()),
        PathMatch::Template(template) => (if template.ends_with("=**}") { 2 } else { 1 }, 2 * literal_length(template)),
        PathMatch::Prefix(prefix) => (2, 2 * prefix.len()),
        // Half a letter more: before the prefix that is the same text, and behind the one with the slash, which is for less.
        PathMatch::Below(path) => (2, 2 * path.len() + 1),
    };
    let conditions =
        usize::from(!methods.is_empty()) + headers.len() + query.len() + cookies.len() + usize::from(*grpc);
    (Reverse(rank), length, conditions)
}

/// How much of a path is said by a template, apart from its variables.
fn literal_length(template: &str) -> usize {
    template.split(['{', '}']).step_by(2).map(str::len).sum()
}

/// A route's next rule.
struct Candidate<'a> {
    specificity: Specificity,
    claim: Claim<'a>,
}

impl<'a> Candidate<'a> {
    fn new(route: &'a Route, index: usize) -> Option<Self> {
        let rule = route.rules.get(index)?;
        Some(Self { specificity: specificity(&rule.matches), claim: Claim { route, index, rule } })
    }
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_name = || other.claim.route.name.cmp(&self.claim.route.name);
        self.specificity.cmp(&other.specificity).then_with(by_name)
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::route::{Action, HeaderChanges, Respond};

    fn matches(path: PathMatch) -> Match {
        let (methods, headers, query, cookies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Match { path, methods, headers, query, cookies, grpc: false }
    }

    fn exact(path: &str) -> Match {
        matches(PathMatch::Exact(path.into()))
    }

    fn prefix(path: &str) -> Match {
        matches(PathMatch::Prefix(path.into()))
    }

    fn route(name: &str, matches: impl IntoIterator<Item = Match>) -> Route {
        let action = Action::Respond(Respond { status: 200, body: String::new() });
        let (request_headers, response_headers) = (HeaderChanges::default(), HeaderChanges::default());
        let rule = |matches| Rule {
            matches,
            action: action.clone(),
            authorization: None,
            request_headers: request_headers.clone(),
            response_headers: response_headers.clone(),
        };
        let name = name.parse().expect("a valid name");
        Route {
            name,
            listeners: Vec::new(),
            hosts: Vec::new(),
            jwt_providers: Vec::new(),
            rules: matches.into_iter().map(rule).collect(),
            tcp: None,
        }
    }

    fn with_methods(matches: Match, methods: &[&str]) -> Match {
        Match { methods: methods.iter().map(|&method| method.to_owned()).collect(), ..matches }
    }

    fn template(template: &str) -> Match {
        matches(PathMatch::Template(template.into()))
    }

    fn order(routes: &[Route]) -> Vec<String> {
        merge(routes).map(|claim| format!("{}/{}", claim.route.name, claim.index)).collect()
    }

    fn one_rule(name: &str, matches: Match) -> Route {
        route(name, [matches])
    }

    #[test]
    fn the_more_specific_rule_of_another_route_goes_first() {
        let regex = matches(PathMatch::Regex("/api/[0-9]+".into()));
        let routes = [
            one_rule("a", prefix("/")),
            one_rule("b", prefix("/api")),
            one_rule("c", regex),
            one_rule("d", exact("/a")),
            one_rule("e", exact("/api")),
            one_rule("f", with_methods(prefix("/api"), &["GET"])),
            one_rule("g", template("/api/{v1}/of/{v2}")),
            one_rule("h", template("/api/{v1}/{v2=**}")),
            one_rule("i", template("/{v1}")),
            one_rule("j", with_methods(matches(PathMatch::Below("/api".into())), &["GET"])),
            one_rule("k", prefix("/api/")),
        ];
        let wanted = ["e/0", "d/0", "c/0", "g/0", "i/0", "h/0", "k/0", "j/0", "f/0", "b/0", "a/0"];
        assert_eq!(order(&routes), wanted);
    }

    #[test]
    fn rules_of_one_route_stay_as_written() {
        let stubborn = route("b", [prefix("/"), exact("/very/long/path")]);
        let other = route("a", [exact("/x"), prefix("/api")]);
        assert_eq!(order(&[stubborn, other]), ["a/0", "a/1", "b/0", "b/1"]);
    }

    #[test]
    fn equals_go_by_route_name_however_they_are_given() {
        let (a, b) = (one_rule("a", prefix("/x")), one_rule("b", prefix("/y")));
        assert_eq!(order(&[a.clone(), b.clone()]), ["a/0", "b/0"]);
        assert_eq!(order(&[b, a]), ["a/0", "b/0"]);
    }
}
