//! The Redis that the rate limiter counts in.

use chancery_rate_limiter::store::redis::survey::{ServerSurvey, Survey};

use super::{
    check::{Check, Found, Group, When},
    site::Site,
};

/// The share of its memory from which Redis is nearly full, in percent.
const NEARLY_FULL: u64 = 90;

/// What Redis may throw away without throwing away what limits count by. Cells have an expiry, so what is nearest to it has the least
/// to say; the limiters' own keys that have none are left alone.
const HARMLESS: [&str; 2] = ["volatile-ttl", "noeviction"];

pub(super) const GROUP: Group = Group {
    name: "Redis",
    checks: &[
        Check { name: "reachable", when: When::Always, probe: |site| Box::pin(reachable(site)) },
        Check { name: "script", when: When::Always, probe: |site| Box::pin(of(site, script)) },
        Check {
            name: "memory",
            when: When::Always,
            probe: |site| Box::pin(of(site, |survey| servers(survey, memory))),
        },
        Check {
            name: "eviction",
            when: When::Always,
            probe: |site| Box::pin(of(site, |survey| servers(survey, eviction))),
        },
        Check { name: "cluster", when: When::Always, probe: |site| Box::pin(of(site, cluster)) },
    ],
};

async fn reachable(site: &Site) -> Found {
    match site.redis().await {
        None => Found::skipped("no limiter here counts in Redis"),
        Some(Err(reason)) => Found::failed(
            reason,
            "see that it runs and that CHANCERY_STORE names it; until then each limiter counts by its rules' whenRedisIsDown",
        ),
        Some(Ok(survey)) => Found::passed(match &survey.servers {
            Ok(servers) => versions(servers),
            Err(_) => "it answers".to_owned(),
        }),
    }
}

async fn of(site: &Site, verdict: impl FnOnce(&Survey) -> Found) -> Found {
    match site.redis().await {
        None => Found::skipped("no limiter here counts in Redis"),
        Some(Err(_)) => Found::skipped("Redis does not answer"),
        Some(Ok(survey)) => verdict(survey),
    }
}

fn versions(servers: &[ServerSurvey]) -> String {
    let mut versions: Vec<_> = servers.iter().map(|server| server.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let count = if servers.len() == 1 { String::new() } else { format!(", {} primaries", servers.len()) };
    format!("Redis {}{count}", versions.join(" and "))
}

fn script(survey: &Survey) -> Found {
    match &survey.script {
        Ok(()) => Found::passed("counts a throw-away cell as it should"),
        Err(reason) => Found::failed(
            reason,
            "use Redis 7.0 or newer, and let the limiter's user run EVALSHA, EVAL, SCRIPT LOAD, GET, SET and TIME on ch:*",
        ),
    }
}

/// One finding of all servers.
fn servers(survey: &Survey, verdict: fn(&ServerSurvey) -> Found) -> Found {
    match &survey.servers {
        Err(reason) => Found::failed(reason, "let the limiter's user of Redis run INFO"),
        Ok(servers) => {
            let mut found: Vec<_> = servers.iter().map(verdict).collect();
            let worst = found.iter().position(|one| one.next.is_some()).unwrap_or(0);
            if found.is_empty() { Found::skipped("no server says how it is") } else { found.swap_remove(worst) }
        }
    }
}

fn memory(server: &ServerSurvey) -> Found {
    let ServerSurvey { address, used, most, .. } = server;
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    if *most == 0 {
        return Found::passed(format!("{} in use, without a bound (maxmemory)", mib(*used)));
    }
    let said = format!("{} of {} in use", mib(*used), mib(*most));
    if used.saturating_mul(100) < most.saturating_mul(NEARLY_FULL) {
        return Found::passed(said);
    }
    Found::failed(
        format!("{address}: {said}, more than {NEARLY_FULL} %"),
        "raise maxmemory, or make a cluster: a full Redis forgets what limits count by, or refuses to count",
    )
}

fn eviction(server: &ServerSurvey) -> Found {
    let ServerSurvey { address, most, policy, .. } = server;
    if *most == 0 || HARMLESS.contains(&policy.as_str()) {
        return Found::passed(policy.as_str());
    }
    Found::failed(
        format!("{address}: {policy} may throw away the secret that the limiters share, and cells that are in use"),
        "CONFIG SET maxmemory-policy volatile-ttl, and write it into redis.conf",
    )
}

fn cluster(survey: &Survey) -> Found {
    match &survey.cluster {
        None => Found::skipped("it is no cluster"),
        Some(Ok(())) => Found::passed("every slot is served"),
        Some(Err(reason)) => Found::failed(
            reason,
            "redis-cli --cluster check HOST:PORT; what is not served counts as Redis that is away",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    fn server(used: u64, most: u64, policy: &str) -> ServerSurvey {
        let (address, version) = ("10.0.0.1:6379".to_owned(), "7.0.15".to_owned());
        ServerSurvey { address, version, used, most, policy: policy.to_owned() }
    }

    #[test]
    fn memory_and_what_happens_without_are_judged() {
        assert_eq!(memory(&server(89, 100, "")).outcome, Outcome::Passed);
        assert_eq!(memory(&server(90, 100, "")).outcome, Outcome::Failed);
        assert_eq!(memory(&server(90, 0, "")).outcome, Outcome::Passed);
        for (policy, outcome) in
            [("volatile-ttl", Outcome::Passed), ("noeviction", Outcome::Passed), ("allkeys-lru", Outcome::Failed)]
        {
            assert_eq!(eviction(&server(1, 100, policy)).outcome, outcome, "{policy}");
        }
        assert_eq!(eviction(&server(1, 0, "allkeys-lru")).outcome, Outcome::Passed, "nothing is ever thrown away");
    }

    #[test]
    fn the_worst_server_of_a_cluster_is_told_of() {
        let survey = Survey {
            script: Ok(()),
            servers: Ok(vec![server(1, 100, "noeviction"), server(99, 100, "noeviction")]),
            cluster: Some(Err("its state is fail".to_owned())),
            clock_ahead: Ok(0.0),
        };
        assert_eq!(servers(&survey, memory).outcome, Outcome::Failed);
        assert_eq!(servers(&survey, eviction).outcome, Outcome::Passed);
        assert_eq!(cluster(&survey).outcome, Outcome::Failed);
        assert_eq!(versions(survey.servers.as_deref().unwrap()), "Redis 7.0.15, 2 primaries");
    }
}
