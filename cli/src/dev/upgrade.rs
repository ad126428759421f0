//! What the demo of an older `chancery dev` gets once: a limiter for its fleet, and a limited path; and TLS towards the sidecar,
//! which no longer lets in plaintext.
//!
//! By the first start of this version the demo has belonged to its user for a while. So only what still carries
//! our label is touched, only by adding to it, and never twice: a mark in the data folder says that it was done, so what a
//! user takes away stays away.

use std::path::Path;

use chancery_runtime::file;
use serde_json::{Value, json};

use super::seed::{self, LIMITED_PATH, is_ours};
use crate::{client::Client, failure::Failure};

/// The demo of this version, by the number of times that something was added.
const VERSION: u32 = 3;

/// Notes that the catalog has the demo of this version.
pub(super) fn set_mark(mark: &Path) -> Result<(), Failure> {
    file::replace(mark, format!("{VERSION}\n").as_bytes(), file::PRIVATE)
        .map_err(|source| Failure::Io { what: mark.display().to_string(), source })
}

/// Which demo the catalog has got: the first one made no mark.
fn version(mark: &Path) -> u32 {
    std::fs::read_to_string(mark).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
}

/// Adds to the demo what its version lacks.
pub(super) async fn upgrade(api: &Client, wanted: &[Value], mark: &Path) -> Result<(), Failure> {
    let has = version(mark);
    if has >= VERSION {
        return Ok(());
    }
    if has < 2 {
        add_limits(api, wanted).await?;
    }
    if let Some(service) = wanted.iter().find(|resource| !resource["spec"]["tls"].is_null()) {
        let mut there = seed::find(api, service).await?.unwrap_or_default();
        if give_tls(&mut there, service) {
            write(api, "TLS to the sidecar of chancery dev", &[seed::document(&there)]).await?;
        }
    }
    set_mark(mark)
}

/// A limiter for the fleet, and a limited path.
async fn add_limits(api: &Client, wanted: &[Value]) -> Result<(), Failure> {
    let of = |kind: &str| wanted.iter().find(|resource| resource["kind"] == kind);
    if let (Some(fleet), Some(limit), Some(route)) = (of("Fleet"), of("RateLimit"), of("Route")) {
        // Two revisions: the limiter is of use also to those whose demo cannot get a limit.
        let mut there = seed::find(api, fleet).await?.unwrap_or_default();
        if give_limiter(&mut there, fleet) {
            write(api, "Rate limiter of chancery dev", &[seed::document(&there)]).await?;
        }
        let is_limited = !there["spec"]["rateLimiter"].is_null();
        let mut there = seed::find(api, route).await?.unwrap_or_default();
        if is_limited && limit_path(&mut there, route) {
            let mut changes = vec![seed::document(&there)];
            if seed::find(api, limit).await?.is_none() {
                changes.push(limit.clone());
            }
            write(api, "Rate limit of chancery dev", &changes).await?;
        }
    }
    Ok(())
}

async fn write(api: &Client, message: &str, changes: &[Value]) -> Result<(), Failure> {
    seed::apply_if_it_fits(api, message, changes, &format!("the demo stays without: {message}")).await
}

/// Gives the demo's fleet a limiter if it has none. Says whether it changed.
fn give_limiter(there: &mut Value, wanted: &Value) -> bool {
    let lacks = is_ours(there) && there["spec"]["rateLimiter"].is_null();
    if lacks {
        there["spec"]["rateLimiter"] = wanted["spec"]["rateLimiter"].clone();
    }
    lacks
}

/// Has a service of the demo that leads to the sidecar speak TLS to it. Says whether it changed.
fn give_tls(there: &mut Value, wanted: &Value) -> bool {
    let lacks =
        is_ours(there) && there["spec"]["tls"].is_null() && there["spec"]["endpoints"] == wanted["spec"]["endpoints"];
    if lacks {
        there["spec"]["tls"] = wanted["spec"]["tls"].clone();
    }
    lacks
}

/// Puts the limited path before the other rules of the demo's route if it is not there, and the route is
/// where the demo put it. Says whether it changed.
fn limit_path(there: &mut Value, wanted: &Value) -> bool {
    let is_limited = |rule: &&Value| rule["match"]["path"] == json!({ "exact": LIMITED_PATH });
    let addition = wanted["spec"]["rules"].as_array().and_then(|rules| rules.iter().find(is_limited));
    if !is_ours(there) || there["spec"]["listeners"] != wanted["spec"]["listeners"] {
        return false;
    }
    match (there["spec"]["rules"].as_array_mut(), addition) {
        (Some(rules), Some(addition)) if !rules.iter().any(|rule| is_limited(&rule)) => {
            rules.insert(0, addition.clone());
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dev::ports::Ports;

    /// The fleet and the route of the demo, as wanted and as the version before left them.
    fn demo() -> ([Value; 2], [Value; 2]) {
        let [fleet, _, _, _, _, route] = seed::resources(&Ports::with_offset(0));
        let (mut old_fleet, mut old_route) = (fleet.clone(), route.clone());
        old_fleet["spec"] = json!({});
        old_route["spec"]["rules"].as_array_mut().unwrap().retain(|rule| rule["rateLimits"].is_null());
        ([fleet, route], [old_fleet, old_route])
    }

    #[test]
    fn what_was_edited_keeps_its_edits() {
        let ([fleet, route], [mut old_fleet, mut old_route]) = demo();
        old_fleet["spec"]["trustedHops"] = json!(1);
        old_route["spec"]["rules"][1]["timeout"] = json!("7s");
        let before = old_route.clone();
        assert!(give_limiter(&mut old_fleet, &fleet));
        assert!(limit_path(&mut old_route, &route));
        assert_eq!(old_fleet["spec"]["trustedHops"], 1);
        assert_eq!(old_fleet["spec"]["rateLimiter"], fleet["spec"]["rateLimiter"]);
        let rules = old_route["spec"]["rules"].as_array().unwrap();
        assert_eq!(rules[0]["match"]["path"]["exact"], LIMITED_PATH);
        assert_eq!(rules[1..], before["spec"]["rules"].as_array().unwrap()[..]);
        assert!(!give_limiter(&mut old_fleet, &fleet) && !limit_path(&mut old_route, &route), "twice");
    }

    #[test]
    fn tls_is_for_who_is_sent_to_the_sidecar() {
        let [_, _, service, ..] = seed::resources(&Ports::with_offset(0));
        let mut old = service.clone();
        old["spec"].as_object_mut().unwrap().remove("tls");
        let (mut elsewhere, mut own, mut given) = (old.clone(), old.clone(), old.clone());
        elsewhere["spec"]["endpoints"][0]["port"] = json!(1);
        own["labels"] = json!({});
        assert!(!give_tls(&mut elsewhere, &service) && !give_tls(&mut own, &service));
        assert!(!give_tls(&mut Value::Null, &service));
        assert!(give_tls(&mut given, &service));
        assert_eq!(given, service);
        assert!(!give_tls(&mut given, &service), "twice");
    }

    #[test]
    fn a_mark_says_which_demo_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("demo");
        assert_eq!(version(&mark), 1);
        std::fs::write(&mark, "2\n").unwrap();
        assert_eq!(version(&mark), 2);
        set_mark(&mark).unwrap();
        assert_eq!(version(&mark), VERSION);
    }

    #[test]
    fn what_is_the_users_own_or_elsewhere_or_gone_is_left_alone() {
        let ([fleet, route], [old_fleet, old_route]) = demo();
        let (mut own_fleet, mut own_route) = (old_fleet.clone(), old_route.clone());
        own_fleet["labels"] = json!({});
        own_route["labels"] = json!({});
        assert!(!give_limiter(&mut own_fleet, &fleet) && !limit_path(&mut own_route, &route));
        let mut moved = old_route;
        moved["spec"]["listeners"] = json!(["other/web"]);
        assert!(!limit_path(&mut moved, &route));
        assert!(!give_limiter(&mut Value::Null, &fleet) && !limit_path(&mut Value::Null, &route));
        let mut elsewhere = old_fleet;
        elsewhere["spec"]["rateLimiter"] = json!({ "addresses": ["10.0.0.7:8081"] });
        assert!(!give_limiter(&mut elsewhere, &fleet));
    }
}
