//! Programs: whether each is ready, takes the token, and is of the version that this command is.

use std::time::Duration;

use http::Method;
use serde_json::Value;

use super::{
    check::{Check, Found, Group, When},
    site::{Site, reachable},
};
use crate::{ask::ask, client::Call, failure::Failure, health};

/// How long an answer may take.
const WITHIN: Duration = Duration::from_secs(5);

/// The version of this command.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) const GROUP: Group = Group {
    name: "Programs",
    checks: &[
        Check { name: "ready", when: When::Running, probe: |site| Box::pin(ready(site)) },
        Check { name: "API", when: When::Running, probe: |site| Box::pin(api(site)) },
        Check { name: "versions", when: When::Running, probe: |site| Box::pin(versions(site)) },
    ],
};

async fn ready(site: &Site) -> Found {
    let (mut well, mut wrong) = (Vec::new(), Vec::new());
    for (name, port) in site.admin_ports() {
        // Whether it answers at all is a matter of its ports.
        if tokio::net::TcpStream::connect(port).await.is_err() {
            continue;
        }
        match health::ready(&health::readyz(port), WITHIN).await {
            Ok(()) => well.push(name),
            Err(error) => wrong.push(format!("{name}: {error}")),
        }
    }
    match (well.is_empty(), wrong.is_empty()) {
        (_, false) => Found::failed(
            wrong.join("; "),
            "wait, or see its log for what it waits for; no traffic should be sent there",
        ),
        (true, true) => Found::skipped("none answers"),
        (false, true) => Found::passed(well.join(", ")),
    }
}

async fn api(site: &Site) -> Found {
    let client = match &site.api {
        Ok(client) => client,
        Err(reason) if site.control_plane.is_some() => {
            return Found::failed(
                reason,
                "set CHANCERY_TOKEN, or run this as the user who may read the administrator's token",
            );
        }
        Err(_) => return Found::skipped("no token was given (CHANCERY_SERVER, CHANCERY_TOKEN)"),
    };
    match client.send::<Value>(Call::new(Method::GET, "/api/v1/whoami")).await {
        Ok(who) => Found::passed(format!(
            "{} takes the token of {}",
            client.server(),
            who["name"].as_str().unwrap_or("somebody")
        )),
        Err(Failure::Unreachable { .. }) if site.api_is_here => Found::skipped("the control plane does not answer"),
        Err(failure) => Found::failed(
            failure.to_string(),
            "see that CHANCERY_SERVER names the API, and CHANCERY_TOKEN a token that is in force",
        ),
    }
}

async fn versions(site: &Site) -> Found {
    let mut found = Vec::new();
    for (name, port) in site.admin_ports() {
        let url = format!("http://{}/metrics", reachable(port));
        if let Ok(answer) = ask(Method::GET, &url, WITHIN, 32 << 20).await {
            found.push((name, version(&String::from_utf8_lossy(&answer.body)).map(str::to_owned)));
        }
    }
    verdict(&found)
}

/// The version in a program's metrics; one that is too old says none.
pub(crate) fn version(metrics: &str) -> Option<&str> {
    metrics.lines().find_map(|line| line.strip_prefix("chancery_build_info{version=\"")?.split('"').next())
}

fn verdict(found: &[(&str, Option<String>)]) -> Found {
    let other: Vec<_> = found
        .iter()
        .filter(|(_, version)| version.as_deref() != Some(VERSION))
        .map(|(name, version)| format!("{name} {}", version.as_deref().unwrap_or("of a version that does not say")))
        .collect();
    match (found.is_empty(), other.is_empty()) {
        (true, _) => Found::skipped("none answers"),
        (_, true) => Found::passed(format!("all {VERSION}")),
        (_, false) => Found::failed(
            format!("this command is {VERSION}, but {}", other.join(", ")),
            "install the same version of all; a program that was replaced goes on as the old one until it is restarted",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Outcome;

    #[test]
    fn versions_are_read_off_the_metrics_and_have_to_be_one() {
        let metrics = "# HELP x\nchancery_build_info{version=\"1.2.3\"} 1\n";
        assert_eq!((version(metrics), version("other 1\n")), (Some("1.2.3"), None));
        let of = |version: Option<&str>| ("sidecar", version.map(str::to_owned));
        assert_eq!(verdict(&[of(Some(VERSION))]).outcome, Outcome::Passed);
        assert_eq!(verdict(&[of(Some(VERSION)), of(Some("0.0.9"))]).outcome, Outcome::Failed);
        assert_eq!(verdict(&[of(None)]).outcome, Outcome::Failed);
        assert_eq!(verdict(&[]).outcome, Outcome::Skipped);
    }
}
