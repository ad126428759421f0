//! What is seen of an estate while something happens to it, from outside: requests, edits, and how long until all is well.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde::Serialize;

use super::{
    EDITED, Edits, Estate, LIMITED, OPEN, Told,
    edits::{edit, next_edit, nothing_is_lost},
};
use crate::{
    client::{fetch, get, request},
    limited::newcomer,
    load::{Load, Tally},
    scripted::script::edit_text,
    wait::until,
};

/// The longest that anything may take until all is well.
const RECOVERY: Duration = Duration::from_secs(60);

/// What the limited route asks about, but for the client at its end.
const LIMIT_ENTRIES: &str = "chancery.limit=per-client,x-api-key";

/// A client asks so often at most: what is counted is what is lost, and the machine has other things to do.
const PAUSE: Duration = Duration::from_millis(10);

/// Requests of one kind.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// All.
    pub requests: u64,
    /// Those without an answer, or with one that says that something is broken.
    pub lost: u64,
    /// The longest time to an answer.
    pub slowest_ms: u128,
    #[serde(skip)]
    details: String,
}

impl From<Tally> for Seen {
    fn from(tally: Tally) -> Self {
        let slowest_ms = tally.slowest.as_millis();
        Self { requests: tally.requests(), lost: tally.lost(), slowest_ms, details: tally.to_string() }
    }
}

/// What was seen while one thing happened.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Observation {
    /// What happened.
    pub fault: String,
    /// Requests through the proxy that nobody limits.
    pub open: Seen,
    /// Requests through the proxy that are limited.
    pub limited: Seen,
    /// Requests through the sidecar, where there is one.
    pub sidecar: Option<Seen>,
    /// Edits that were acknowledged; each is stored.
    pub edits_acknowledged: u64,
    /// Edits that were refused.
    pub edits_refused: u64,
    /// Edits of which nobody said what became of them.
    pub edits_unanswered: u64,
    /// From when the fault was over, or the part gone for good, until an edit came through to the proxy and limits were decided.
    pub recovery_ms: u128,
}

impl Observation {
    /// Checks that no request through the proxy was lost.
    pub fn nothing_lost(&self) -> Result<()> {
        for (what, seen) in [("open", &self.open), ("limited", &self.limited)] {
            ensure!(seen.lost == 0, "{}: {what}: {}", self.fault, seen.details);
        }
        Ok(())
    }

    /// Checks that none through the sidecar was.
    pub fn nothing_lost_by_the_sidecar(&self) -> Result<()> {
        let seen = self.sidecar.as_ref().context("there is no sidecar")?;
        ensure!(seen.lost == 0, "{}: {}", self.fault, seen.details);
        Ok(())
    }
}

/// Those who use an estate while something happens.
pub struct Meanwhile {
    open: Load,
    limited: Load,
    sidecar: Option<Load>,
    edits: Edits,
}

impl Meanwhile {
    fn start(estate: &Estate) -> Self {
        let limited = || request(Method::GET, LIMITED, "/", &[("x-api-key", "someone")]);
        let load = |host| Load::start_paced(estate.web, 2, PAUSE, move || get(host, "/"));
        let by_sidecar = |side: &crate::sidecar::Sidecar| Load::start_paced(side.outbound, 1, PAUSE, || get(OPEN, "/"));
        Self {
            open: load(OPEN),
            limited: Load::start_paced(estate.web, 2, PAUSE, limited),
            sidecar: estate.sidecar.as_ref().map(by_sidecar),
            edits: Edits::start(&estate.api),
        }
    }

    /// Waits until many requests and some edits have met what was done before.
    pub async fn goes_on(&self) -> Result<()> {
        self.requests_go_on().await?;
        self.edits.go_on_for(3).await
    }

    /// Waits until many requests have.
    pub async fn requests_go_on(&self) -> Result<()> {
        self.open.goes_on_for(60).await?;
        // Where nobody answers, each of these takes as long as a proxy waits.
        self.limited.goes_on_for(40).await?;
        if let Some(sidecar) = &self.sidecar {
            sidecar.goes_on_for(30).await?;
        }
        Ok(())
    }

    /// Waits until some edits have.
    pub async fn edits_go_on(&self) -> Result<()> {
        self.edits.go_on_for(3).await
    }

    /// What the API answered so far.
    pub fn told(&self) -> Told {
        self.edits.so_far()
    }
}

impl Estate {
    /// Lets something happen under load. It is over when `happens` returns; then all has to become well by itself, and every edit that
    /// was acknowledged has to be there.
    pub async fn observe(
        &mut self,
        fault: &str,
        happens: impl AsyncFnOnce(&mut Self, &Meanwhile) -> Result<()>,
    ) -> Result<Observation> {
        let meanwhile = Meanwhile::start(self);
        meanwhile.goes_on().await?;
        happens(self, &meanwhile).await.with_context(|| fault.to_owned())?;
        let recovered = self.well().await.with_context(|| format!("after {fault}"));
        let Meanwhile { open, limited, sidecar, edits } = meanwhile;
        let told = edits.stop().await?;
        let sidecar = match sidecar {
            Some(load) => Some(load.stop().await?.into()),
            None => None,
        };
        let observation = Observation {
            fault: fault.to_owned(),
            open: open.stop().await?.into(),
            limited: limited.stop().await?.into(),
            sidecar,
            edits_acknowledged: told.acknowledged.len() as u64,
            edits_refused: told.refused.values().sum(),
            edits_unanswered: told.unanswered.len() as u64,
            recovery_ms: recovered?.as_millis(),
        };
        nothing_is_lost(&self.api, &told).await.with_context(|| fault.to_owned())?;
        println!("{}", serde_json::to_string(&observation)?);
        Ok(observation)
    }

    /// Waits until an edit that is made now is stored and reaches the proxy, limits are decided, and counted in Redis by all limiters.
    /// Returns how long that took.
    pub async fn well(&self) -> Result<Duration> {
        let begun = Instant::now();
        let number = until("an edit is acknowledged", RECOVERY, async || {
            let number = next_edit();
            edit(&self.api, number).await?;
            Ok(number)
        })
        .await?;
        until("an edit reaches the proxy", RECOVERY, async || {
            let answer = fetch(self.web, get(EDITED, "/")).await?.text();
            // Whoever edits meanwhile has gone on.
            ensure!(answer >= edit_text(number), "it has {answer}, not {number}");
            Ok(())
        })
        .await?;
        until("limits are decided", RECOVERY, async || {
            let newcomer = newcomer();
            let answer = fetch(self.web, request(Method::GET, LIMITED, "/", &[("x-api-key", &newcomer)])).await?;
            ensure!(!answer.header("x-ratelimit-limit").is_empty(), "{} {:?}", answer.status, answer.headers);
            Ok(())
        })
        .await?;
        for limiter in &self.limiters {
            until("limits are counted together", RECOVERY, async || {
                // So many that some lie on each node of a cluster.
                for _ in 0..20 {
                    let newcomer = newcomer();
                    let check = format!("/limits/check?domain=edge&descriptor={LIMIT_ENTRIES}={newcomer}");
                    let check = limiter.json(&check).await?;
                    ensure!(check["descriptors"][0]["decidedBy"] == "redis", "{check}");
                }
                Ok(())
            })
            .await?;
        }
        Ok(begun.elapsed())
    }
}

/// What was seen of many faults, one row each.
#[derive(Debug, Default)]
pub struct Table(Vec<Observation>);

impl Table {
    /// Adds a row.
    pub fn add(&mut self, observation: Observation) {
        self.0.push(observation);
    }

    /// Writes it to `<name>.json` and `<name>.md` in `folder`.
    pub fn write(&self, folder: &Path, name: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&self.0)?)?;
        let mut text = String::from(
            "| fault | requests, lost | limited, lost | by the sidecar, lost | edits stored, refused, unanswered | slowest | well again after |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in &self.0 {
            let Observation { fault, open, limited, sidecar, .. } = row;
            let count = |seen: &Seen| format!("{}, {}", seen.requests, seen.lost);
            let by_sidecar = sidecar.as_ref().map(count).unwrap_or_default();
            let edits = format!("{}, {}, {}", row.edits_acknowledged, row.edits_refused, row.edits_unanswered);
            let (slowest, recovery) = (open.slowest_ms.max(limited.slowest_ms), row.recovery_ms);
            writeln!(
                text,
                "| {fault} | {} | {} | {by_sidecar} | {edits} | {slowest} ms | {recovery} ms |",
                count(open),
                count(limited)
            )?;
        }
        Ok(fs::write(folder.join(format!("{name}.md")), text)?)
    }
}
