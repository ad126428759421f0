//! What this repository asks of its own source, where neither the compiler nor clippy can ask it:
//! the direction of imports, pure parts that stay pure, a doc on every file, files of a size that can be read,
//! links that lead somewhere.
//!
//! Text is searched, not syntax: a rule that needs a parser is a rule for clippy. Every finding is
//! reported at once.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Which of our crates each may use. One way down: `proto` and `runtime` at the bottom, `cli` on top.
const CRATES: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("runtime", &[]),
    ("xds", &["chancery-proto"]),
    ("control-plane", &["chancery-proto", "chancery-runtime", "chancery-xds"]),
    ("rate-limiter", &["chancery-proto", "chancery-runtime", "chancery-xds"]),
    ("fuzz", &["chancery-proto", "chancery-rate-limiter", "chancery-sidecar", "chancery-xds"]),
    ("sidecar", &["chancery-proto", "chancery-runtime", "chancery-xds"]),
    ("cli", &["chancery-control-plane", "chancery-rate-limiter", "chancery-runtime", "chancery-sidecar"]),
    ("e2e", &["chancery-control-plane", "chancery-proto", "chancery-rate-limiter", "chancery-xds"]),
    ("benches", &["chancery-e2e", "chancery-proto", "chancery-rate-limiter", "chancery-runtime"]),
];

/// Names, and which others each may use.
type Uses = &'static [(&'static str, &'static [&'static str])];

/// Which modules of a program each of its lower modules may use, itself aside.
const LOWER_MODULES: &[(&str, Uses)] = &[
    (
        "control-plane",
        &[
            ("model", &[]),
            ("access", &["model"]),
            ("explain", &["model"]),
            ("import", &["model", "translate"]),
            ("translate", &["model"]),
            ("store", &["model"]),
        ],
    ),
    (
        "rate-limiter",
        &[
            ("model", &[]),
            ("metrics", &["model"]),
            ("store", &["model", "metrics"]),
            ("decide", &["model", "metrics", "store"]),
        ],
    ),
    (
        "sidecar",
        &[
            ("metrics", &[]),
            ("policy", &[]),
            ("layer", &["metrics", "policy"]),
            ("config", &["policy"]),
            ("proxy", &["config", "layer", "metrics", "policy"]),
        ],
    ),
];

/// Files and folders that decide and never act, and what each may not even name.
const PURE: &[(&str, &[&str])] = &[
    ("control-plane/src/explain", &["Instant", "SystemTime"]),
    ("control-plane/src/import", &["Instant", "SystemTime"]),
    ("control-plane/src/access", &["Instant", "SystemTime"]),
    ("control-plane/src/load/stream.rs", &[]),
    ("control-plane/src/load/window.rs", &[]),
    ("control-plane/src/model", &["Instant", "SystemTime"]),
    ("control-plane/src/translate", &["Instant", "SystemTime"]),
    ("control-plane/src/verdict/harmless.rs", &["Instant", "SystemTime"]),
    ("control-plane/src/verdict/pieces.rs", &["Instant", "SystemTime"]),
    ("control-plane/src/verdict/question.rs", &["Instant", "SystemTime"]),
    ("control-plane/src/verdict/search.rs", &["Instant", "SystemTime"]),
    ("control-plane/src/verdict/words.rs", &["Instant", "SystemTime"]),
    ("rate-limiter/src/model", &["Instant", "SystemTime"]),
    ("sidecar/src/config/from_xds", &["Instant", "SystemTime"]),
    ("sidecar/src/config/held.rs", &["Instant", "SystemTime"]),
    ("sidecar/src/config/ignored.rs", &["Instant", "SystemTime"]),
    ("sidecar/src/config/routes.rs", &["Instant", "SystemTime"]),
    ("sidecar/src/policy", &["Instant", "SystemTime"]),
    ("xds/src/client/backoff.rs", &[]),
    ("xds/src/client/delta.rs", &[]),
    ("xds/src/client/session.rs", &[]),
    ("xds/src/client/sotw.rs", &[]),
    ("xds/src/order.rs", &[]),
    ("xds/src/session.rs", &[]),
    ("xds/src/subscription", &[]),
];

/// What would make any of them act: clock, IO, chance, runtime.
const IMPURE: &[&str] =
    &["::now()", "now_utc", "tokio::", "async fn", "std::fs", "std::env", "TcpStream", "TcpListener", "rand::"];

/// Lines of one file, tests not counted. The aim is 400; beyond this a file has to be split.
const MOST_LINES: usize = 450;

/// Names that say nothing about what a file owns.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "manager"];

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let repository = Repository::open();
    let findings: Vec<String> = [
        crates_use_only_what_is_below(&repository),
        modules_use_only_what_is_below(&repository),
        pure_modules_are_pure(&repository),
        files_say_what_they_own(&repository),
        files_can_be_read_at_once(&repository),
        nothing_is_left_unfinished(&repository),
        links_lead_somewhere(&repository),
        tests_that_are_named_exist(&repository),
    ]
    .concat();
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

fn crates_use_only_what_is_below(repository: &Repository) -> Vec<String> {
    let mut findings = Vec::new();
    for manifest in repository.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let folder = manifest.path.trim_end_matches("/Cargo.toml");
        let Some((_, allowed)) = CRATES.iter().find(|(name, _)| *name == folder) else {
            findings.push(format!("{}: give this crate its place in CRATES", manifest.path));
            continue;
        };
        // What tests alone use does not shape the crate.
        let dependencies = section(&manifest.text, "[dependencies]");
        for name in dependencies.filter_map(|line| line.split(['.', ' ', '=']).next()) {
            if name.starts_with("chancery") && !allowed.contains(&name) {
                findings.push(format!("{}: {folder} must not depend on {name}", manifest.path));
            }
        }
    }
    findings
}

fn modules_use_only_what_is_below(repository: &Repository) -> Vec<String> {
    let mut findings = Vec::new();
    for (program, lower_modules) in LOWER_MODULES {
        let sources = format!("{program}/src/");
        for file in repository.rust_under(&sources) {
            let module = file.path[sources.len()..].split(['/', '.']).next().unwrap_or_default();
            let lower = lower_modules.iter().find(|(name, _)| *name == module);
            for import in imports_of(&file.code()) {
                let fine = match lower {
                    Some((_, allowed)) => import == module || allowed.contains(&import.as_str()),
                    None => import != "app" || ["app", "main", "lib"].contains(&module),
                };
                if !fine {
                    findings.push(format!("{}: {module} must not import crate::{import}", file.path));
                }
            }
        }
    }
    findings
}

fn pure_modules_are_pure(repository: &Repository) -> Vec<String> {
    let mut findings = Vec::new();
    for (place, unnamed) in PURE {
        let mut files = repository.rust_under(place).peekable();
        if files.peek().is_none() {
            findings.push(format!("{place}: listed in PURE, but not there"));
        }
        for file in files {
            let code = file.code();
            for word in IMPURE.iter().chain(*unnamed).filter(|word| code.contains(**word)) {
                findings.push(format!("{}: {word} in what is pure: let it come in as an argument", file.path));
            }
        }
    }
    findings
}

fn files_say_what_they_own(repository: &Repository) -> Vec<String> {
    let mut findings = Vec::new();
    for file in repository.rust().filter(|file| file.path.contains("/src/") || file.path.contains("/tests/")) {
        let stem = Path::new(&file.path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        // Unit tests belong to the file they test, also where they fill a folder.
        let unit_tests = stem == "tests" || file.path.contains("/src/") && file.path.contains("/tests/");
        if !unit_tests && !file.text.starts_with("//!") {
            findings.push(format!("{}: opens without a module doc", file.path));
        }
        if file.text.starts_with("//! placeholder") {
            findings.push(format!("{}: holds nothing yet", file.path));
        }
        if EMPTY_NAMES.contains(&stem) {
            findings.push(format!("{}: the name says nothing about what it owns", file.path));
        }
    }
    findings
}

fn files_can_be_read_at_once(repository: &Repository) -> Vec<String> {
    repository
        .rust()
        .map(|file| (file, file.without_tests().lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(file, lines)| format!("{}: {lines} lines before its tests, at most {MOST_LINES}", file.path))
        .collect()
}

fn nothing_is_left_unfinished(repository: &Repository) -> Vec<String> {
    // Put together here, so that this file does not find itself.
    let words = ["todo", "unimplemented", "dbg"].map(|name| format!("{name}!("));
    let marks = [["FIX", "ME"], ["#[ign", "ore"]].map(|parts| parts.concat());
    let mut findings = Vec::new();
    for file in repository.rust() {
        for word in words.iter().chain(&marks).filter(|word| file.text.contains(word.as_str())) {
            findings.push(format!("{}: has {word}", file.path));
        }
    }
    findings
}

fn links_lead_somewhere(repository: &Repository) -> Vec<String> {
    let mut findings = Vec::new();
    for file in repository.files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for link in links_of(&file.text) {
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() { PathBuf::from(&file.path) } else { folder.join(path) };
            if !repository.root.join(&target).exists() {
                findings.push(format!("{}: link to {link}, which does not exist", file.path));
            } else if !anchor.is_empty() && path_has_no_heading(&repository.root.join(&target), anchor) {
                findings.push(format!("{}: link to {link}, where no heading is called so", file.path));
            }
        }
    }
    findings
}

fn tests_that_are_named_exist(repository: &Repository) -> Vec<String> {
    let mut findings = Vec::new();
    for document in repository.files.iter().filter(|file| file.path.ends_with(".md")) {
        for (path, test) in tests_named_in(&document.text) {
            let file = repository.files.iter().find(|file| file.path == path);
            if !file.is_some_and(|file| file.text.contains(&format!("fn {test}("))) {
                findings.push(format!("{}: names {path}::{test}, which does not exist", document.path));
            }
        }
    }
    findings
}

/// The source of this repository, without what is built or installed.
struct Repository {
    root: PathBuf,
    files: Vec<File>,
}

struct File {
    /// From the root, with `/`.
    path: String,
    text: String,
}

impl Repository {
    fn open() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
        let mut files = Vec::new();
        collect(&root, &root, &mut files);
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(files.len() > 20, "found only {} files under {}", files.len(), root.display());
        Self { root, files }
    }

    fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    fn rust_under(&self, folder: &str) -> impl Iterator<Item = &File> {
        self.rust().filter(move |file| file.path.starts_with(folder))
    }
}

impl File {
    /// The text up to the tests at its end; nothing of a file that holds only tests.
    fn without_tests(&self) -> &str {
        if self.path.ends_with("/tests.rs") || self.path.contains("/tests/") {
            return "";
        }
        self.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()
    }

    /// As [`File::without_tests`], also without comments.
    fn code(&self) -> String {
        let lines = self.without_tests().lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.flat_map(|line| [line, "\n"]).collect()
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "bench-results", "node_modules"].contains(&name.as_str()) {
                collect(root, &path, files);
            }
        } else if [".rs", ".md", "Cargo.toml"].iter().any(|end| name.ends_with(end)) {
            let inside = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
            files.push(File { path: inside, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

/// The lines of one section of a manifest.
fn section<'a>(manifest: &'a str, header: &'a str) -> impl Iterator<Item = &'a str> {
    manifest
        .lines()
        .skip_while(move |line| line.trim() != header)
        .skip(1)
        .take_while(|line| !line.trim_start().starts_with('['))
}

/// The modules that `crate::…` paths in `code` start with, groups taken apart.
fn imports_of(code: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let path = &code[at + "crate::".len()..];
        match path.strip_prefix('{') {
            Some(group) => modules.extend(heads_of_group(group)),
            None => modules.extend([identifier(path).to_owned()]),
        }
    }
    modules.retain(|module| module.starts_with(|c: char| c.is_ascii_lowercase()));
    modules
}

/// The first identifier of each part of `a::{b, c}, d}…`, up to the brace that closes the group.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut at_head = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => at_head = true,
            c if at_head && !c.is_whitespace() => {
                heads.push(identifier(&group[at..]).to_owned());
                at_head = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The targets of the relative links of a Markdown text, code blocks left out.
fn links_of(markdown: &str) -> Vec<String> {
    let prose: String =
        markdown.split("```").step_by(2).flat_map(|part| part.split('`').step_by(2)).collect::<Vec<_>>().join(" ");
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).map(str::to_owned).collect()
}

/// The tests that a Markdown text names as `file.rs::test`.
fn tests_named_in(markdown: &str) -> Vec<(&str, &str)> {
    let code = markdown.split('`').skip(1).step_by(2);
    code.filter_map(|code| code.split_once("::")).filter(|(path, _)| path.ends_with(".rs")).collect()
}

fn path_has_no_heading(file: &Path, anchor: &str) -> bool {
    let Ok(text) = fs::read_to_string(file) else { return true };
    !text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line.trim_start_matches('#')) == anchor)
}

/// A heading as its anchor.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn imports_are_found_in_groups_and_alone() {
    let code = "use crate::model::Name;\nuse crate::{store::{Store, Write}, app, Thing};\nlet x = crate::api::f();";
    let found: Vec<String> = imports_of(code).into_iter().collect();
    assert_eq!(found, ["api", "app", "model", "store"]);
}

#[test]
fn links_are_found_outside_code_only() {
    let text = "[a](docs/a.md#part) `[no](x)` [web](https://example.com)\n```\n[no](y)\n```\n[b](b.md)";
    assert_eq!(links_of(text), ["docs/a.md#part", "b.md"]);
    assert_eq!(slug(" Where do I change X? "), "where-do-i-change-x");
}

#[test]
fn tests_are_found_by_file_and_name() {
    let text = "| a `x` | `e2e/tests/a.rs::it_works`, `b.rs::so_does_it` | `model::Name` or `c.rs` |";
    assert_eq!(tests_named_in(text), [("e2e/tests/a.rs", "it_works"), ("b.rs", "so_does_it")]);
}
