//! What a team's spec means.

use super::{host, text};
use crate::model::{
    Name,
    problem::Problems,
    team::{Quotas, Team},
    wire::{QuotasSpec, TeamSpec},
};

pub(super) fn team(name: Name, spec: &TeamSpec, problems: &mut Problems) -> Option<Team> {
    let TeamSpec { hosts, quotas } = spec;
    let hosts = text::distinct(hosts.as_deref().unwrap_or_default(), &mut problems.at("hosts"), host::pattern);
    let QuotasSpec { routes, rules, services, rate_limits } = quotas.unwrap_or_default();
    let [routes, rules, services, rate_limits] =
        [routes, rules, services, rate_limits].map(|most| most.map(|most| most as usize));
    Some(Team { name, hosts: hosts?, quotas: Quotas { routes, rules, services, rate_limits } })
}
