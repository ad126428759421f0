//! The second verdict on an edit: what a real Envoy says to it, where one is configured.
//!
//! The first verdict (`translate::constraints`) knows the constraints on single fields. Much of what Envoy demands stands only in its
//! code: no domain twice, no cluster whose parts contradict each other, a key that goes with its certificate. `envoy --mode validate`
//! runs that code. It is asked about what the edit puts anew and nothing else ([`Question`]), and never while a lock is held.
//!
//! The same bytes get the same answer, so it is remembered: a plan and the apply that follows cost one process. Of parts that are refused
//! together, those are searched that are refused alone (`search`).
//!
//! A message can make Envoy read files, look up names and run scripts, also when it only validates. It is shown to an Envoy on this machine
//! without all of that, or not at all (`harmless`).
//!
//! A crash is a verdict; no answer in time is none, and the change is refused for now. A program that is itself at fault (it cannot be
//! started, or ends in another way) is logged and counted, and the change goes on under the first verdict alone.
//!
//! Invariants: at most [`AT_ONCE`] processes, none longer than [`PATIENCE`], none that outlives who asked.

mod harmless;
mod memory;
mod pieces;
mod program;
mod question;
mod search;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use chancery_proto::type_url;
use chancery_runtime::telemetry::chain;
use futures_util::future::try_join_all;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::timeout_at};

use self::{
    memory::Memory,
    program::Program,
    question::{Fingerprint, fingerprint},
    search::{Culprits, Search},
    words::Verdict,
};
pub use self::{program::UnusableEnvoy, question::Question};
use crate::{
    metrics as m,
    model::{Problem, Problems},
};

/// How long a change waits for what Envoy says, however often it is asked.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How many processes run at once.
pub const AT_ONCE: usize = 2;

/// A real Envoy that is asked.
#[derive(Debug)]
pub struct SecondVerdict {
    program: Program,
    slots: Semaphore,
    remembered: Mutex<Memory>,
}

/// What Envoy has taken of one change, and how long it is still waited for.
#[derive(Debug)]
pub struct Hearing {
    taken: BTreeSet<Fingerprint>,
    until: Instant,
}

/// Why a change has no verdict, and is not committed.
#[derive(Debug, thiserror::Error)]
pub enum NoVerdict {
    /// Envoy did not answer.
    #[error("Envoy has not said within {PATIENCE:?} whether it would take the change; nothing was stored")]
    TooSlow,
    /// What it depends on was changed again and again while Envoy looked at it.
    #[error("others changed what this change belongs to while Envoy looked at it; nothing was stored, try again")]
    Overtaken,
}

/// Why a question was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum Unheard {
    /// Envoy would refuse it.
    #[error("Envoy would refuse the change")]
    Refused(Vec<Problem>),
    /// It did not say.
    #[error(transparent)]
    NoVerdict(#[from] NoVerdict),
}

impl SecondVerdict {
    /// Asks the Envoy at `path`, which reads its questions from files in `folder`, made anew and removed at the end.
    ///
    /// # Errors
    /// There is none, or it does not say its version.
    pub async fn by(path: &Path, folder: PathBuf) -> Result<Self, UnusableEnvoy> {
        let (program, version) = Program::find(path, folder).await?;
        tracing::info!(path = %path.display(), version, "Envoy is asked about every change");
        Ok(Self { program, slots: Semaphore::new(AT_ONCE), remembered: Mutex::default() })
    }

    /// Asks about each of `questions` that `hearing` has not heard yet.
    ///
    /// # Errors
    /// All that is refused, or that it is not known in time.
    pub async fn hear(&self, hearing: &mut Hearing, questions: &[Question]) -> Result<(), Unheard> {
        // Fleets that share what changed share the question.
        let open: BTreeMap<Fingerprint, &Question> = questions
            .iter()
            .filter(|question| !question.is_empty())
            .map(|question| (fingerprint(&question.whole()), question))
            .filter(|(of, _)| !hearing.taken.contains(of))
            .collect();
        let judged = open.values().map(|question| self.judge(question, hearing.until));
        let judged = try_join_all(judged).await?;
        let mut problems = Problems::default();
        for ((of, question), culprits) in open.into_iter().zip(judged) {
            if culprits.is_empty() {
                hearing.taken.insert(of);
            }
            culprits.iter().for_each(|culprits| report(question, culprits, &mut problems));
        }
        if problems.is_empty() { Ok(()) } else { Err(Unheard::Refused(problems.into_sorted_vec())) }
    }

    /// What of the question is refused.
    async fn judge(&self, question: &Question, until: Instant) -> Result<Vec<Culprits>, NoVerdict> {
        match self.ask(&question.whole(), until).await? {
            Verdict::Taken => Ok(Vec::new()),
            Verdict::Refused(refusal) | Verdict::Crashed(refusal) => {
                let names: Vec<&str> = question.parts().iter().map(|part| part.name.as_str()).collect();
                Ok(self.search(question, Search::new(&names, refusal), until).await)
            }
        }
    }

    /// Finds what is refused, as far as the time reaches.
    async fn search(&self, question: &Question, mut search: Search<'_>, until: Instant) -> Vec<Culprits> {
        while let Some(halves) = search.next() {
            let [one, other] = halves.each_ref().map(|half| question.bootstrap(half.iter().copied()));
            match tokio::try_join!(self.ask(&one, until), self.ask(&other, until)) {
                Ok((one, other)) => search.hear(halves, [one.refusal(), other.refusal()]),
                // That it is refused is known.
                Err(NoVerdict::TooSlow | NoVerdict::Overtaken) => break,
            }
        }
        search.into_found()
    }

    async fn ask(&self, bootstrap: &[u8], until: Instant) -> Result<Verdict, NoVerdict> {
        let of = fingerprint(bootstrap);
        let remembered = self.remembered.lock().recall(&of);
        if let Some(verdict) = remembered {
            count("remembered");
            return Ok(verdict);
        }
        let Ok(answered) = timeout_at(until.into(), self.run(bootstrap)).await else {
            count("too_slow");
            return Err(NoVerdict::TooSlow);
        };
        match answered {
            Ok(verdict) => {
                count(match &verdict {
                    Verdict::Taken => "taken",
                    Verdict::Refused(refusal) if refusal.is_ours => "undecided",
                    Verdict::Refused(_) => "refused",
                    Verdict::Crashed(_) => "crashed",
                });
                self.remembered.lock().keep(of, verdict.clone());
                Ok(verdict)
            }
            Err(reason) => {
                count("failed");
                tracing::warn!(error = reason, "Envoy cannot be asked about a change, which goes on without it");
                Ok(Verdict::Taken)
            }
        }
    }

    /// The verdict, or what is wrong with the program.
    async fn run(&self, bootstrap: &[u8]) -> Result<Verdict, String> {
        let verdict = self.validate(bootstrap).await?;
        if matches!(verdict, Verdict::Crashed(_)) {
            // Is it the content?
            match self.validate(&Question::default().whole()).await? {
                Verdict::Taken => {}
                Verdict::Refused(refusal) | Verdict::Crashed(refusal) => {
                    return Err(format!("it refuses an empty configuration: {}", refusal.words));
                }
            }
        }
        Ok(verdict)
    }

    async fn validate(&self, bootstrap: &[u8]) -> Result<Verdict, String> {
        let _slot = self.slots.acquire().await.map_err(|closed| closed.to_string())?;
        let begun = Instant::now();
        let ended = self.program.validate(bootstrap).await.map_err(|error| chain(&error))?;
        metrics::histogram!(m::VALIDATION_DURATION).record(begun.elapsed().as_secs_f64());
        words::verdict(&ended)
    }
}

impl Hearing {
    /// Nothing heard yet; what takes longer than [`PATIENCE`] from now is not waited for.
    pub fn begin() -> Self {
        Self { taken: BTreeSet::new(), until: Instant::now() + PATIENCE }
    }

    /// Whether all of `questions` were answered with yes.
    pub fn covers(&self, questions: &[Question]) -> bool {
        let mut questions = questions.iter().filter(|question| !question.is_empty());
        questions.all(|question| self.taken.contains(&fingerprint(&question.whole())))
    }
}

fn report(question: &Question, Culprits { parts, words }: &Culprits, problems: &mut Problems) {
    let together = if parts.len() > 1 { ", together with others of this change" } else { "" };
    for part in parts.iter().filter_map(|index| question.parts().get(*index)) {
        let what = type_url::short_name(part.type_url);
        problems
            .about(part.resource.to_string())
            .at_path(part.path)
            .report(format!("makes a {what} {} that Envoy refuses{together}: {words}", part.name));
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(m::VALIDATIONS, "outcome" => outcome).increment(1);
}

#[cfg(test)]
mod tests;
