//! envoyproxy/ratelimit's YAML, as it is, and what this limiter adds to it.
//!
//! Stricter than theirs in one respect: what would have no effect is refused. A key that nobody reads, or one that
//! stands a level too high, is a limit that somebody believes in. Nothing stops at the first problem.

use std::rc::Rc;

use self::tree::{Content, Entry, Node, Position};
use super::{Problem, Problems};
use crate::model::{
    limit::Algorithm,
    rule::{DescriptorSpec, DomainSpec, LimitSpec, Rules},
};

mod limit;
#[cfg(test)]
mod tests;
mod tree;
mod words;

/// The largest file, in bytes.
pub const MAX_FILE: usize = 4 << 20;

/// Keys of a document.
const DOMAIN: &[&str] = &["domain", "descriptors"];

/// Keys of a descriptor.
const DESCRIPTOR: &[&str] = &[
    "key",
    "value",
    "rate_limit",
    "descriptors",
    "shadow_mode",
    "quota_mode",
    "detailed_metric",
    "value_to_metric",
    "share_threshold",
];

/// Keys of a limit.
const LIMIT: &[&str] = &[
    "unit",
    "requests_per_unit",
    "unlimited",
    "name",
    "replaces",
    "per",
    "burst",
    "algorithm",
    "debt",
    "strict",
    "when_redis_is_down",
    "body",
];

/// Keys of what a limit replaces.
const REPLACES: &[&str] = &["name"];

/// All of them, and what each group is called: for keys that stand in the wrong place.
const PLACES: &[(&str, &[&str])] = &[
    ("the document", DOMAIN),
    ("a descriptor", DESCRIPTOR),
    ("rate_limit", LIMIT),
    ("an entry of replaces", REPLACES),
];

/// Reads one text. `file` names it in problems and as the specs' origin; rules that do not say otherwise count by `algorithm`.
///
/// # Errors
/// Everything that is wrong with it, in the order of lines.
pub fn parse(file: &str, text: &[u8], algorithm: Algorithm) -> Result<Vec<DomainSpec>, Vec<Problem>> {
    let mut set = Set::new(algorithm);
    set.add(file, text);
    set.finish()
}

/// Texts that make one set of rules.
pub(super) struct Set {
    algorithm: Algorithm,
    problems: Problems,
    specs: Vec<DomainSpec>,
    /// For each spec, its file and its document.
    sources: Vec<(String, Rc<Node>)>,
    /// File and path of what could not be read: problems there are consequences.
    unread: Vec<(String, String)>,
}

impl Set {
    pub(super) fn new(algorithm: Algorithm) -> Self {
        Self { algorithm, problems: Problems::default(), specs: Vec::new(), sources: Vec::new(), unread: Vec::new() }
    }

    /// Reads one text of the set.
    pub(super) fn add(&mut self, file: &str, text: &[u8]) {
        if text.len() > MAX_FILE {
            self.add_problem(file, format!("larger than {} MiB", MAX_FILE >> 20));
            return;
        }
        let text = match std::str::from_utf8(text) {
            Ok(text) => text.strip_prefix('\u{feff}').unwrap_or(text),
            Err(error) => {
                let good = &text[..error.valid_up_to()];
                let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
                let column = 1 + good.len() - good.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let mut reader = Reader::new(file, self.algorithm, &mut self.problems);
                reader.problem(Position { line, column }, "not UTF-8");
                return;
            }
        };
        let (documents, faults) = tree::read(text);
        let mut reader = Reader::new(file, self.algorithm, &mut self.problems);
        for fault in &faults {
            reader.problem(fault.at, &fault.reason);
        }
        let documents: Vec<_> = documents.into_iter().filter(|document| !document.is_null()).collect();
        if documents.is_empty() && faults.is_empty() {
            // Also what a reader sees in the middle of a write: no reason to drop every limit.
            self.add_problem(file, "holds no domain");
            return;
        }
        let several = documents.len() > 1;
        for (number, document) in (1..).zip(documents) {
            let origin = if several { format!("{file}#{number}") } else { file.to_owned() };
            self.specs.push(reader.domain(&document, origin));
            self.sources.push((file.to_owned(), document));
        }
        self.unread.extend(reader.unread.into_iter().map(|path| (file.to_owned(), path)));
    }

    /// Something wrong with a text as a whole.
    pub(super) fn add_problem(&mut self, file: &str, reason: impl Into<String>) {
        let problem = Problem { file: file.to_owned(), line: 0, column: 0, path: String::new(), reason: reason.into() };
        self.problems.push(problem);
    }

    /// The specs, if they can be used together.
    pub(super) fn finish(mut self) -> Result<Vec<DomainSpec>, Vec<Problem>> {
        for problem in Rules::build(&self.specs).err().unwrap_or_default() {
            let source = self.specs.iter().zip(&self.sources).find(|(spec, _)| spec.origin == problem.origin);
            let Some((_, (file, document))) = source else {
                self.problems.push(problem.into());
                continue;
            };
            if self.unread.iter().any(|(of, unread)| of == file && follows(&problem.path, unread)) {
                continue;
            }
            let Position { line, column } = document.locate(&problem.path);
            let (path, reason) = (problem.path, problem.reason);
            self.problems.push(Problem { file: file.clone(), line, column, path, reason });
        }
        self.problems.into_result(self.specs)
    }
}

/// Whether a problem at `path` may follow from `unread`, a place whose value is missing: within it, or just around it.
fn follows(path: &str, unread: &str) -> bool {
    let rest = |outer: &str, inner: &str| inner.strip_prefix(outer).map(|rest| rest.trim_start_matches('.').to_owned());
    rest(unread, path).is_some() || rest(path, unread).is_some_and(|step| !step.contains(['.', '[']))
}

/// Reads the documents of one file.
struct Reader<'r> {
    file: &'r str,
    algorithm: Algorithm,
    /// Where the reader is.
    path: String,
    problems: &'r mut Problems,
    /// Paths whose values are missing because they could not be read.
    unread: Vec<String>,
}

impl<'r> Reader<'r> {
    fn new(file: &'r str, algorithm: Algorithm, problems: &'r mut Problems) -> Self {
        Self { file, algorithm, path: String::new(), problems, unread: Vec::new() }
    }

    fn domain(&mut self, document: &Node, origin: String) -> DomainSpec {
        let mut spec = DomainSpec { origin, ..DomainSpec::default() };
        for entry in self.entries(document, DOMAIN) {
            self.below(entry, |reader, value| match entry.key.as_str() {
                "domain" => spec.name = reader.text(value),
                _ => spec.descriptors = reader.list(value, Self::descriptor),
            });
        }
        spec
    }

    fn descriptor(&mut self, node: &Node) -> DescriptorSpec {
        let mut spec = DescriptorSpec::default();
        for entry in self.entries(node, DESCRIPTOR) {
            self.below(entry, |reader, value| match entry.key.as_str() {
                "key" => spec.key = reader.text(value),
                "value" => spec.value = reader.text(value),
                "rate_limit" => spec.limit = reader.optional_limit(value),
                "descriptors" => spec.descriptors = reader.list(value, Self::descriptor),
                "shadow_mode" => spec.shadow_mode = reader.flag(value),
                "quota_mode" => spec.quota_mode = reader.flag(value),
                "detailed_metric" => spec.detailed_metric = reader.flag(value),
                "value_to_metric" => spec.value_to_metric = reader.flag(value),
                _ => spec.share_threshold = reader.flag(value),
            });
        }
        spec
    }

    fn optional_limit(&mut self, node: &Node) -> Option<LimitSpec> {
        if node.is_null() { None } else { limit::read(self, node) }
    }

    /// The entries of a mapping whose keys are among `known`; reports the others.
    fn entries<'n>(&mut self, node: &'n Node, known: &'static [&'static str]) -> Vec<&'n Entry> {
        let Content::Mapping(entries) = &node.content else {
            self.unreadable(node, "a mapping");
            return Vec::new();
        };
        let (good, bad): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| known.contains(&entry.key.as_str()));
        for entry in bad {
            self.problem(entry.at, &unknown(&entry.key, known));
            if let Some(meant) = words::nearest(&entry.key, known) {
                let dot = if self.path.is_empty() { "" } else { "." };
                self.unread.push(format!("{}{dot}{meant}", self.path));
            }
        }
        good
    }

    /// A list of mappings; nothing said means none.
    fn list<T>(&mut self, node: &Node, mut read: impl FnMut(&mut Self, &Node) -> T) -> Vec<T> {
        if node.is_null() {
            return Vec::new();
        }
        let Content::Sequence(nodes) = &node.content else {
            self.unreadable(node, "a list");
            return Vec::new();
        };
        let read = |(index, node): (usize, &Rc<Node>)| self.within(&format!("[{index}]"), |reader| read(reader, node));
        nodes.iter().enumerate().map(read).collect()
    }

    /// A text; nothing said means an empty one. Numbers and the like are texts as they are written.
    fn text(&mut self, node: &Node) -> String {
        match &node.content {
            _ if node.is_null() => String::new(),
            Content::Scalar { text, .. } => text.clone(),
            _ => {
                self.unreadable(node, "a text");
                String::new()
            }
        }
    }

    /// A truth value; nothing said means false.
    fn flag(&mut self, node: &Node) -> bool {
        self.plain(node, "true or false", words::boolean).unwrap_or_default()
    }

    /// A value that is written without quotes. `None`: nothing is said, or what is said is a problem.
    fn plain<T>(&mut self, node: &Node, expected: &str, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match &node.content {
            _ if node.is_null() => None,
            Content::Scalar { text, plain: true } => match read(text) {
                Ok(value) => Some(value),
                Err(reason) => {
                    self.problem(node.at, &reason);
                    None
                }
            },
            _ => {
                self.unreadable(node, expected);
                None
            }
        }
    }

    /// A word with a meaning, quoted or not. `None` as for [`plain`](Self::plain).
    fn word<T>(&mut self, node: &Node, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let before = self.problems.found;
        let text = self.text(node);
        if node.is_null() || self.problems.found > before {
            return None;
        }
        read(&text).map_err(|reason| self.problem(node.at, &reason)).ok()
    }

    fn below<T>(&mut self, entry: &Entry, read: impl FnOnce(&mut Self, &Node) -> T) -> T {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.within(&format!("{dot}{}", entry.key), |reader| read(reader, &entry.value))
    }

    fn within<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let value = read(self);
        self.path.truncate(length);
        value
    }

    fn unreadable(&mut self, node: &Node, expected: &str) {
        self.unread.push(self.path.clone());
        self.problem(node.at, &format!("expected {expected}, found {}", kind(node)));
    }

    fn problem(&mut self, at: Position, reason: &str) {
        let (file, path) = (self.file.to_owned(), self.path.clone());
        self.problems.push(Problem { file, line: at.line, column: at.column, path, reason: reason.to_owned() });
    }
}

fn unknown(key: &str, known: &[&str]) -> String {
    let quoted = words::quoted(key);
    if let Some(near) = words::nearest(key, known) {
        return format!("unknown key {quoted}: did you mean {near:?}?");
    }
    match PLACES.iter().find(|(_, keys)| keys.contains(&key)) {
        Some((place, _)) => format!("key {quoted} belongs into {place}, not here"),
        None => format!("unknown key {quoted}: known here are {}", known.join(", ")),
    }
}

fn kind(node: &Node) -> &'static str {
    match &node.content {
        Content::Mapping(_) => "a mapping",
        Content::Sequence(_) => "a list",
        Content::Scalar { .. } if node.is_null() => "nothing",
        Content::Scalar { plain: true, .. } => "a scalar",
        Content::Scalar { .. } => "a quoted text",
    }
}
