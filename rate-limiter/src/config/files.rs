//! `--config`: a file, or every `*.yaml` and `*.yml` of a folder, loaded as one set and watched.
//!
//! Watched by looking, not by inotify: a look also sees network file systems and Kubernetes' ConfigMaps, which arrive as
//! a swapped symlink. A set is loaded once two looks in a row have found the same, so that a file half written, or a
//! folder half updated, is not taken for a change. What is loaded is whole and good, or the last good set stays.

use std::{
    fmt, fs,
    hash::{BuildHasher as _, RandomState},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tokio_util::sync::CancellationToken;

use super::{Problem, yaml};
use crate::model::{limit::Algorithm, rule::DomainSpec};

#[cfg(test)]
mod tests;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Files that one folder may hold.
const MOST_FILES: usize = 1_000;

/// Bytes that all files together may have.
const MOST_BYTES: usize = 64 << 20;

/// Gauge: when rules were last loaded from files, in seconds since the Unix epoch.
pub const LOADED_AT: &str = "chancery_rate_limiter_config_loaded_timestamp_seconds";
/// Counter: sets of files that were refused; the last good set stayed in force.
pub const REFUSED: &str = "chancery_rate_limiter_config_refused_total";

/// Tells the recorder what the metrics mean. Call once, after the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_gauge!(LOADED_AT, metrics::Unit::Seconds, "When rules were last loaded from files (Unix time)");
    metrics::describe_counter!(REFUSED, "Sets of configuration files that were refused");
    metrics::counter!(REFUSED).increment(0);
}

/// What `--check` says of files that are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Domains.
    pub domains: usize,
    /// Limits in all of them.
    pub limits: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count| if count == 1 { "" } else { "s" };
        let Self { domains, limits } = *self;
        write!(f, "{domains} domain{}, {limits} limit{}", plural(domains), plural(limits))
    }
}

/// Reads `path`, a file or a folder, without watching it. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, algorithm: Algorithm) -> Result<Vec<DomainSpec>, Vec<Problem>> {
    Contents::read(path).map_err(|problem| vec![problem])?.parse(algorithm)
}

/// Reads `path` to say whether it is good. Blocks.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check(path: &Path, algorithm: Algorithm) -> Result<Summary, Vec<Problem>> {
    let specs = load(path, algorithm)?;
    Ok(Summary { domains: specs.len(), limits: specs.iter().map(|spec| limits(&spec.descriptors)).sum() })
}

fn limits(descriptors: &[crate::model::rule::DescriptorSpec]) -> usize {
    descriptors.iter().map(|level| usize::from(level.limit.is_some()) + limits(&level.descriptors)).sum()
}

/// Files that are in force, and how to tell when they have changed.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    algorithm: Algorithm,
    hasher: RandomState,
    /// What the last look saw.
    seen: Seen,
    /// The last look whose contents were read.
    settled: Seen,
    /// What was read last, good or bad.
    contents: Option<u64>,
}

/// What one look sees: enough to tell that something has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Nothing,
    Files(Vec<Stamp>),
    Unreadable(String),
}

/// A file from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Loads `path`. Blocks.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path, algorithm: Algorithm) -> Result<(Self, Vec<DomainSpec>), Vec<Problem>> {
        let contents = Contents::read(path).map_err(|problem| vec![problem])?;
        let specs = contents.parse(algorithm)?;
        loaded_now();
        let hasher = RandomState::new();
        let hash = Some(hasher.hash_one(&contents));
        let (seen, settled) = (Seen::Nothing, Seen::Nothing);
        Ok((Self { path: path.to_owned(), algorithm, hasher, seen, settled, contents: hash }, specs))
    }

    /// Watches until `stop`. `on_change` gets each new set that is good by itself, and may still refuse it, for
    /// example because another source has the same domain; either way it is told in the log and in the metrics.
    pub async fn watch<F>(mut self, stop: CancellationToken, mut on_change: F)
    where
        F: FnMut(Vec<DomainSpec>) -> Result<(), Vec<Problem>> + Send,
    {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let path = self.path.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let change = self.look();
                (self, change)
            });
            let change = match looked.await {
                Ok((files, change)) => {
                    self = files;
                    change
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), error = %error, "configuration is not watched any more");
                    return;
                }
            };
            match change {
                Some(Ok(specs)) => {
                    let count = specs.len();
                    match on_change(specs) {
                        Ok(()) => {
                            loaded_now();
                            tracing::info!(path = %self.path.display(), count, "configuration loaded");
                        }
                        Err(problems) => refused(&self.path, &problems),
                    }
                }
                Some(Err(problems)) => refused(&self.path, &problems),
                None => {}
            }
        }
    }

    /// One look. `None`: nothing new, or not settled yet. Blocks.
    fn look(&mut self) -> Option<Result<Vec<DomainSpec>, Vec<Problem>>> {
        let seen = stamps(&self.path);
        let still = seen == self.seen;
        self.seen = seen;
        if !still || self.settled == self.seen {
            return None;
        }
        let contents = match Contents::read(&self.path) {
            Ok(contents) => contents,
            Err(problem) => {
                self.settled = self.seen.clone();
                self.contents = None;
                return Some(Err(vec![problem]));
            }
        };
        // A change while they were read: they may be of two minds.
        if stamps(&self.path) != self.seen {
            return None;
        }
        self.settled = self.seen.clone();
        let hash = Some(self.hasher.hash_one(&contents));
        if hash == self.contents {
            return None;
        }
        self.contents = hash;
        Some(contents.parse(self.algorithm))
    }
}

fn loaded_now() {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(LOADED_AT).set(since.as_secs_f64());
}

fn refused(path: &Path, problems: &[Problem]) {
    metrics::counter!(REFUSED).increment(1);
    for problem in problems {
        tracing::error!(problem = %problem, "configuration refused");
    }
    tracing::warn!(path = %path.display(), count = problems.len(), "the last good configuration stays in force");
}

/// What the files hold, by name.
#[derive(Debug, Hash, PartialEq, Eq)]
struct Contents(Vec<(String, Vec<u8>)>);

impl Contents {
    fn read(path: &Path) -> Result<Self, Problem> {
        let files = list(path).map_err(|error| unreadable(path, &error))?;
        if files.is_empty() {
            return Err(problem(path, "holds no *.yaml and no *.yml".to_owned()));
        }
        let mut left = MOST_BYTES;
        let mut contents = Vec::with_capacity(files.len());
        for file in files {
            // One byte more than allowed is enough to know that it is too large.
            let mut text = Vec::new();
            fs::File::open(&file)
                .and_then(|open| open.take(yaml::MAX_FILE as u64 + 1).read_to_end(&mut text))
                .map_err(|error| unreadable(&file, &error))?;
            left = left
                .checked_sub(text.len())
                .ok_or_else(|| problem(path, format!("holds more than {} MiB", MOST_BYTES >> 20)))?;
            contents.push((file.display().to_string(), text));
        }
        Ok(Self(contents))
    }

    fn parse(&self, algorithm: Algorithm) -> Result<Vec<DomainSpec>, Vec<Problem>> {
        let mut set = yaml::Set::new(algorithm);
        for (file, text) in &self.0 {
            set.add(file, text);
        }
        set.finish()
    }
}

fn problem(path: &Path, reason: String) -> Problem {
    Problem { file: path.display().to_string(), line: 0, column: 0, path: String::new(), reason }
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    problem(path, format!("cannot be read: {error}"))
}

fn stamps(path: &Path) -> Seen {
    let stamp = |path: PathBuf| {
        let file = fs::metadata(&path)?;
        Ok(Stamp {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            path,
        })
    };
    let files = list(path).and_then(|files| files.into_iter().map(stamp).collect::<io::Result<_>>());
    files.map_or_else(|error| Seen::Unreadable(error.to_string()), Seen::Files)
}

/// The files to read, sorted by name. Links are followed; names that begin with a dot are somebody's machinery.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        // A link that leads nowhere is listed, so that it is reported when it is read.
        if yaml && !hidden && fs::metadata(&file).map_or(true, |found| found.is_file()) {
            files.push(file);
            if files.len() > MOST_FILES {
                return Err(io::Error::other(format!("more than {MOST_FILES} files")));
            }
        }
    }
    files.sort();
    Ok(files)
}
