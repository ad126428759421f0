//! Between any two parts the network is cut, swallows what it is given, and is slow.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{fetch, get},
    estate::{Estate, OPEN, Plan, Table},
    link::Link,
    wait::{PATIENCE, until},
};

use super::tables;

/// What is between two parts.
type Between = (&'static str, fn(&Estate) -> Vec<&Link>);

const LINKS: [Between; 5] = [
    ("control planes and Postgres", |estate| vec![&estate.to_database]),
    ("limiters and Redis", |estate| estate.redis.iter().map(|(_, link)| link).collect()),
    // Proxies, limiters and the sidecar.
    ("all others and control planes", |estate| vec![&estate.to_xds]),
    ("proxies and limiters", |estate| estate.to_limiters.iter().collect()),
    ("proxies, sidecar and an endpoint", |estate| estate.to_upstreams.iter().take(1).collect()),
];

/// What becomes of a network.
type Weather = (&'static str, fn(&Link));

const WEATHERS: [Weather; 3] =
    [("is cut", Link::cut), ("carries nothing", Link::stall), ("is slow", |link| link.slow_down(SLOW))];

/// Each way, so that a question takes twice that.
const SLOW: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_parts() -> Result<()> {
    let Some(mut estate) = Estate::start(Plan { sidecar: true, ..Plan::default() }).await? else { return Ok(()) };
    estate.link_upstreams().await?;
    let mut table = Table::default();
    for (between, links) in LINKS {
        for (weather, break_it) in WEATHERS {
            let fault = format!("the network between {between} {weather}");
            both_endpoints_serve(&estate).await.with_context(|| format!("before {fault}"))?;
            let seen = estate
                .observe(&fault, async |estate, meanwhile| {
                    links(estate).into_iter().for_each(break_it);
                    meanwhile.goes_on().await?;
                    links(estate).into_iter().for_each(Link::heal);
                    Ok(())
                })
                .await
                .with_context(|| fault.clone())?;
            seen.nothing_lost()?;
            seen.nothing_lost_by_the_sidecar()?;
            ensure!(seen.edits_unanswered == 0, "every edit is answered: {seen:?}");
            let needs_postgres = between.contains("Postgres") && weather != "is slow";
            ensure!((seen.edits_refused > 0) == needs_postgres, "edits need Postgres and nothing else: {seen:?}");
            table.add(seen);
        }
    }
    table.write(&tables()?, "network")
}

/// Who was left alone in the weather before is asked again.
async fn both_endpoints_serve(estate: &Estate) -> Result<()> {
    let sidecar = estate.sidecar.as_ref().context("there is no sidecar")?;
    for (who, address) in [("the proxy", estate.web), ("the sidecar", sidecar.outbound)] {
        until(&format!("{who} asks both endpoints"), PATIENCE, async || {
            let mut asked = BTreeSet::new();
            for _ in 0..20 {
                asked.insert(fetch(address, get(OPEN, "/")).await?.header("x-upstream").to_owned());
            }
            ensure!(asked.len() == 2, "only {asked:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}
