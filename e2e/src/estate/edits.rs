//! Someone who keeps editing one route through the API, and remembers what was promised.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use http::Method;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::edited;
use crate::{
    api::{Api, path},
    scripted::script::edit_text,
    wait::{PATIENCE, until},
};

/// How long to rest between two edits.
const PAUSE: Duration = Duration::from_millis(100);

/// What the API answered.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// Edits that were acknowledged, by the revision they are in.
    pub acknowledged: BTreeMap<u64, u64>,
    /// Refusals, by their status.
    pub refused: BTreeMap<u16, u64>,
    /// Edits of which nobody said what became of them.
    pub unanswered: Vec<String>,
}

impl Told {
    fn all(&self) -> u64 {
        self.acknowledged.len() as u64 + self.refused.values().sum::<u64>() + self.unanswered.len() as u64
    }
}

/// The one who edits.
#[derive(Debug)]
pub struct Edits {
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// No two edits have the same number.
pub(super) fn next_edit() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Relaxed) + 1
}

impl Edits {
    /// Begins to edit.
    pub fn start(api: &Api) -> Self {
        let (api, told, stop) = (api.clone(), Arc::<Mutex<Told>>::default(), CancellationToken::new());
        let task = {
            let (told, stop) = (told.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let number = next_edit();
                    let answer = put(&api, number).await;
                    record(&mut told.lock().unwrap_or_else(PoisonError::into_inner), number, answer);
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        Self { told, stop, task }
    }

    /// What was answered so far.
    pub fn so_far(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `more` edits were answered, well or not.
    pub async fn go_on_for(&self, more: u64) -> Result<()> {
        let goal = self.so_far().all() + more;
        until(&format!("{more} more edits"), 3 * PATIENCE, async || {
            let now = self.so_far().all();
            ensure!(now >= goal, "{now} of {goal}");
            Ok(())
        })
        .await
    }

    /// Ends it, after the edit under way.
    pub async fn stop(self) -> Result<Told> {
        self.stop.cancel();
        self.task.await.context("the one who edits panicked")?;
        Ok(self.told.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Makes one edit, which has to be acknowledged.
pub(super) async fn edit(api: &Api, number: u64) -> Result<()> {
    let (status, text) = put(api, number).await?;
    ensure!((200..300).contains(&status), "{status} {text}");
    Ok(())
}

async fn put(api: &Api, number: u64) -> Result<(u16, String)> {
    let answer = api.json(Method::PUT, &path("Route", "edited")?, Some(&edited(number))).await?;
    Ok((answer.status, answer.text()))
}

fn record(told: &mut Told, number: u64, answer: Result<(u16, String)>) {
    match answer {
        Ok((200..300, text)) => {
            let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            told.acknowledged.insert(answer["revision"].as_u64().unwrap_or_default(), number);
        }
        Ok((status, _)) => *told.refused.entry(status).or_default() += 1,
        Err(error) => told.unanswered.push(format!("{error:#}")),
    }
}

/// Checks that every edit that was acknowledged is in its revision.
pub(super) async fn nothing_is_lost(api: &Api, told: &Told) -> Result<()> {
    for (revision, edit) in &told.acknowledged {
        let stored = api.read(&format!("/api/v1/revisions/{revision}")).await?.to_string();
        ensure!(stored.contains(&edit_text(*edit)), "edit {edit} was acknowledged as revision {revision}: {stored}");
    }
    Ok(())
}
