//! Between any two parts the network is cut, swallows what it is given, and is slow.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    estate::{Estate, Plan, Table},
    link::Link,
};

use super::tables;

/// What is between two parts.
type Between = (&'static str, fn(&Estate) -> Vec<&Link>);

const LINKS: [Between; 4] = [
    ("control planes and Postgres", |estate| vec![&estate.to_database]),
    ("limiters and Redis", |estate| estate.redis.iter().map(|(_, link)| link).collect()),
    ("proxies and control planes", |estate| vec![&estate.to_xds]),
    ("proxies and limiters", |estate| estate.to_limiters.iter().collect()),
];

/// What becomes of a network.
type Weather = (&'static str, fn(&Link));

const WEATHERS: [Weather; 3] =
    [("is cut", Link::cut), ("carries nothing", Link::stall), ("is slow", |link| link.slow_down(SLOW))];

/// Each way, so that a question takes twice that.
const SLOW: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_parts() -> Result<()> {
    let Some(mut estate) = Estate::start(Plan::default()).await? else { return Ok(()) };
    let mut table = Table::default();
    for (between, links) in LINKS {
        for (weather, break_it) in WEATHERS {
            let fault = format!("the network between {between} {weather}");
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
            ensure!(seen.edits_unanswered == 0, "every edit is answered: {seen:?}");
            let needs_postgres = between.contains("Postgres") && weather != "is slow";
            ensure!((seen.edits_refused > 0) == needs_postgres, "edits need Postgres and nothing else: {seen:?}");
            table.add(seen);
        }
    }
    table.write(&tables()?, "network")
}
