//! An owner of services, limits and routes: which hosts it may claim, and how much it may have.
//!
//! A resource names its team in its envelope. Where there is no [`Team`] of that name, the name is no more than a label; where
//! there is one, it binds whoever writes the resource, operators and admins too.

use super::{Kind, Name, route::HostPattern};

/// A team, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// The name.
    pub name: Name,
    /// The hosts that its routes may claim, without duplicates; none: its routes may claim nothing.
    pub hosts: Vec<HostPattern>,
    /// How much it may have.
    pub quotas: Quotas,
}

/// How much a team may have; no number, no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// Routes.
    pub routes: Option<usize>,
    /// Rules, in all of its routes together.
    pub rules: Option<usize>,
    /// Services.
    pub services: Option<usize>,
    /// Limits.
    pub rate_limits: Option<usize>,
}

impl Quotas {
    /// How many resources of a kind there may be.
    pub fn of(&self, kind: Kind) -> Option<usize> {
        match kind {
            Kind::Route => self.routes,
            Kind::Service => self.services,
            Kind::RateLimit => self.rate_limits,
            Kind::Fleet | Kind::Listener | Kind::Team | Kind::EnvoyPatch => None,
        }
    }
}

impl Team {
    /// Whether its routes may claim `host`: all of what that stands for must be its own.
    pub fn may_claim(&self, host: &HostPattern) -> bool {
        self.hosts.iter().any(|own| own.covers(host))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_stands_for_must_be_the_teams_own() {
        let pattern = |text: &str| match text.strip_prefix("*.") {
            _ if text == "*" => HostPattern::Any,
            Some(domain) => HostPattern::Suffix(domain.to_owned()),
            None => HostPattern::Exact(text.to_owned()),
        };
        for (own, claimed, may) in [
            ("*", "*", true),
            ("*", "*.example.com", true),
            ("*", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "*.example.com", true),
            ("*.example.com", "*.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.example.com", "*.badexample.com", false),
            ("*.example.com", "*.com", false),
            ("*.example.com", "*", false),
            ("a.example.com", "a.example.com", true),
            ("a.example.com", "*.a.example.com", false),
            ("a.example.com", "*.example.com", false),
            ("a.example.com", "b.a.example.com", false),
        ] {
            let name = "payments".parse().unwrap();
            let team = Team { name, hosts: vec![pattern("other"), pattern(own)], quotas: Quotas::default() };
            assert_eq!(team.may_claim(&pattern(claimed)), may, "{own} and {claimed}");
        }
    }
}
