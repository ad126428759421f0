//! Proxies: who is connected, who has what it should have, who has refused something.

use http::Method;
use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    check::{Check, Found, Group, When},
    site::Site,
};
use crate::{
    answer::{Page, Proxy},
    client::Call,
};

/// How long a proxy may take to answer; Envoy waits fifteen seconds for a cluster that is warming.
const ANSWERS_WITHIN_MS: f64 = 20_000.0;

/// How long a proxy is missed that was here.
const MISSED_FOR: Duration = Duration::DAY;

/// Why nothing is known of them; what is wrong with the API is told by its own check.
const UNASKED: &str = "the API cannot be asked";

/// So many are named.
const NAMED: usize = 5;

pub(super) const GROUP: Group = Group {
    name: "Proxies",
    checks: &[
        Check {
            name: "connected",
            when: When::Running,
            probe: |site| Box::pin(of(site, |proxies| connected(proxies, OffsetDateTime::now_utc()))),
        },
        Check { name: "up to date", when: When::Running, probe: |site| Box::pin(of(site, up_to_date)) },
        Check { name: "rejections", when: When::Running, probe: |site| Box::pin(of(site, rejections)) },
        Check { name: "quarantine", when: When::Running, probe: |site| Box::pin(quarantine(site)) },
    ],
};

async fn of(site: &Site, verdict: fn(&[Proxy]) -> Found) -> Found {
    match site.proxies().await {
        Ok(proxies) if proxies.is_empty() => Found::skipped("none has ever connected"),
        Ok(proxies) => verdict(proxies),
        Err(_) => Found::skipped(UNASKED),
    }
}

fn connected(proxies: &[Proxy], now: OffsetDateTime) -> Found {
    let (mut away, mut gone) = (Vec::new(), 0);
    for proxy in proxies.iter().filter(|proxy| !proxy.connected) {
        let since = proxy.disconnected_at.as_ref().and_then(|at| OffsetDateTime::parse(at, &Rfc3339).ok());
        if since.is_some_and(|since| now - since > MISSED_FOR) {
            gone += 1;
        } else {
            away.push(name(proxy));
        }
    }
    let all = proxies.len() - gone;
    let before = if gone == 0 { String::new() } else { format!("; {gone} have been gone for more than a day") };
    if away.is_empty() {
        return Found::passed(format!("all {all}{before}"));
    }
    Found::failed(
        format!("{} of {all} are not: {}{before}", away.len(), some(&away)),
        "see the logs of these; one that was taken away for good counts no more after a day",
    )
}

fn up_to_date(proxies: &[Proxy]) -> Found {
    let here: Vec<_> = proxies.iter().filter(|proxy| proxy.connected).collect();
    let late: Vec<_> = here.iter().filter(|proxy| is_stale(proxy)).map(|proxy| name(proxy)).collect();
    if late.is_empty() {
        return Found::passed(format!("all {} that are connected", here.len()));
    }
    Found::failed(
        format!("{} have not answered for {:.0} s: {}", late.len(), ANSWERS_WITHIN_MS / 1000.0, some(&late)),
        "`chancery proxies ID` shows what it has not answered; a proxy that hangs, or whose clusters do not become warm, is seen in its own log",
    )
}

/// Whether it was sent something long ago and has said nothing to it.
fn is_stale(proxy: &Proxy) -> bool {
    proxy.types.values().any(|status| status.warming_ms.is_some_and(|waiting| waiting > ANSWERS_WITHIN_MS))
}

fn rejections(proxies: &[Proxy]) -> Found {
    let refusing = proxies.iter().filter(|proxy| proxy.connected).filter_map(|proxy| {
        let refused = proxy.types.iter().find(|(_, status)| status.status == "error")?;
        Some((name(proxy), refused.1.last_rejection.as_ref().map(|rejection| rejection.message.clone())))
    });
    let refusing: Vec<_> = refusing.collect();
    let names: Vec<_> = refusing.iter().map(|(name, _)| name.clone()).collect();
    let Some((_, reason)) = refusing.into_iter().next() else { return Found::passed("none") };
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    Found::failed(
        format!("{} refuse what they were sent, {}{reason}", names.len(), some(&names)),
        "`chancery proxies ID` says which resources; correct them, or `chancery revert` the revision",
    )
}

async fn quarantine(site: &Site) -> Found {
    let Ok(client) = &site.api else { return Found::skipped(UNASKED) };
    match client.send::<Page<Value>>(Call::new(Method::GET, "/api/v1/quarantine")).await {
        Ok(page) => quarantined(&page.items),
        Err(_) => Found::skipped(UNASKED),
    }
}

fn quarantined(items: &[Value]) -> Found {
    if items.is_empty() {
        return Found::passed("nothing is kept back");
    }
    let text = |item: &Value, field: &str| item[field].as_str().unwrap_or("?").to_owned();
    let names: Vec<_> = items
        .iter()
        .map(|item| format!("{} {} {}", text(item, "fleet"), text(item, "type"), text(item, "name")))
        .collect();
    Found::failed(
        format!("{} are kept back because a proxy rejected them: {}", items.len(), some(&names)),
        "`chancery quarantine list` says why; a revision that changes the resource, or `chancery quarantine release`, serves it again",
    )
}

fn name(proxy: &Proxy) -> String {
    if proxy.fleet.is_empty() { format!("rate limiter {}", proxy.id) } else { format!("{}/{}", proxy.fleet, proxy.id) }
}

fn some(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { named } else { format!("{named} and {more} more") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::doctor::check::Outcome;

    fn proxy(id: &str, connected: bool, status: &str, warming: Option<f64>) -> Proxy {
        serde_json::from_value(json!({ "id": id, "fleet": "edge", "connected": connected, "replica": "a",
            "connectedSince": "2026-11-21T03:00:00Z", "disconnectedAt": (!connected).then_some("2026-11-21T04:00:00Z"), "protocol": "delta", "settledRevision": 1, "wantedRevision": 1,
            "types": { "cluster": { "status": status, "warmingMs": warming, "lastRejection": (status == "error").then(|| json!({
                "at": "2026-11-21T03:00:00Z", "version": "1", "message": "bad regex" })) } } }))
        .unwrap()
    }

    #[test]
    fn each_of_them_is_judged_by_what_it_does() {
        let well = [proxy("a", true, "synced", None), proxy("b", true, "stale", Some(19_000.0))];
        let now = datetime!(2026-11-21 12:00 UTC);
        for found in [connected(&well, now), up_to_date(&well), rejections(&well)] {
            assert_eq!(found.outcome, Outcome::Passed, "{found:?}");
        }
        let away = [proxy("a", true, "synced", None), proxy("b", false, "error", Some(90_000.0))];
        assert_eq!(connected(&away, now).said, "1 of 2 are not: edge/b");
        assert_eq!(connected(&away, now + Duration::DAY).said, "all 1; 1 have been gone for more than a day");
        assert_eq!((up_to_date(&away[..1]).outcome, rejections(&away).outcome), (Outcome::Passed, Outcome::Passed));
        assert_eq!(up_to_date(&[proxy("a", true, "stale", Some(21_000.0))]).outcome, Outcome::Failed);
        assert_eq!(
            rejections(&[proxy("a", true, "error", None)]).said,
            "1 refuse what they were sent, edge/a: bad regex"
        );
    }

    #[test]
    fn a_quarantine_is_a_failure() {
        assert_eq!(quarantined(&[]).outcome, Outcome::Passed);
        let item = json!({ "fleet": "edge", "type": "cluster", "name": "shop" });
        assert!(quarantined(&[item]).said.ends_with("edge cluster shop"));
    }

    #[test]
    fn a_few_are_named() {
        let names: Vec<_> = (0..7).map(|n| n.to_string()).collect();
        assert_eq!(some(&names), "0, 1, 2, 3, 4 and 2 more");
    }
}
