//! The catalogue of log events in `docs/operations/logs.md` and the programs say the same: every warning and error with its fields, every
//! name of a field, and every message that an alert looks for.
//!
//! Text is searched, not syntax, as in `tidy.rs`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Headings of the catalogue, and the crates whose events stand there.
const PROGRAMS: [(&str, &[&str]); 5] = [
    ("Every program", &["runtime", "xds"]),
    ("Control plane", &["control-plane"]),
    ("Rate limiter", &["rate-limiter"]),
    ("Sidecar", &["sidecar"]),
    ("`chancery dev`", &["cli"]),
];

const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// Names that a line has whatever happened.
const ALWAYS: [&str; 4] = ["timestamp", "level", "message", "target"];

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    level: String,
    message: String,
    /// As in JSON.
    fields: BTreeSet<String>,
}

#[test]
fn every_warning_and_error_is_in_the_catalogue_and_the_other_way_round() {
    let catalogue = read("docs/operations/logs.md");
    for (heading, crates) in PROGRAMS {
        let told: BTreeSet<_> = rows(&section(&catalogue, &format!("### {heading}"))).collect();
        let mut made: BTreeSet<_> = crates.iter().flat_map(|name| events(name)).collect();
        made.retain(|event| ["warn", "error"].contains(&event.level.as_str()));
        let missing: Vec<_> = made.difference(&told).collect();
        let stale: Vec<_> = told.difference(&made).collect();
        assert!(missing.is_empty() && stale.is_empty(), "{heading}: missing {missing:#?}, stale {stale:#?}");
    }
}

#[test]
fn every_field_has_its_place_in_the_list() {
    let listed: BTreeSet<String> = section(&read("docs/operations/logs.md"), "## Fields")
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| quoted(line.split('|').nth(1).unwrap()))
        .collect();
    let crates = PROGRAMS.iter().flat_map(|(_, crates)| *crates);
    let mut used: BTreeSet<String> = crates.flat_map(|name| events(name)).flat_map(|event| event.fields).collect();
    used.extend(ALWAYS.map(str::to_owned));
    let unlisted: Vec<_> = used.difference(&listed).collect();
    let unused: Vec<_> = listed.difference(&used).collect();
    assert!(unlisted.is_empty() && unused.is_empty(), "not in the list: {unlisted:?}; not used: {unused:?}");
}

#[test]
fn alerts_look_for_the_messages_that_the_catalogue_marks() {
    let (catalogue, rules) = (read("docs/operations/logs.md"), read("deploy/loki/rules/chancery.yml"));
    let marked = catalogue.lines().filter(|line| line.contains("**alert**"));
    let marked: BTreeSet<String> =
        marked.filter_map(|line| quoted(line.split('|').nth(2)?).into_iter().next()).collect();
    let looked_for = rules.split(r#"message"#).filter_map(|rest| {
        let rest = rest.strip_prefix('=')?.trim_start_matches('~').strip_prefix('"')?;
        Some(rest.split('"').next()?.split('|').map(str::to_owned).collect::<Vec<_>>())
    });
    assert_eq!(looked_for.flatten().collect::<BTreeSet<_>>(), marked);
}

#[test]
fn what_is_logged_is_found_in_the_source() {
    let source = r##"
        // warn!(no, "comment");
        tracing::warn!(?peer, r#type = short(a, "b,c"), retry_in = ?wait, error, "it's \"said\", {}", more);
        info!("plain");
        let span = info_span!("request", request_id = id, path);
    "##;
    let found = events_in(source);
    let event = |level: &str, message: &str, fields: &[&str]| Event {
        level: level.to_owned(),
        message: message.to_owned(),
        fields: fields.iter().copied().map(str::to_owned).collect(),
    };
    let said = event("warn", "it's \\\"said\\\", {}", &["peer", "type", "retryIn", "error"]);
    assert_eq!(found, [said, event("info", "plain", &[]), event("info", "request", &["requestId", "path"])]);
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What follows a heading, up to the next one.
fn section(document: &str, heading: &str) -> String {
    let mut lines = document.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "there is no heading {heading:?}");
    lines.take_while(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}

/// The texts between backquotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The events of a table of the catalogue.
fn rows(table: &str) -> impl Iterator<Item = Event> {
    table.lines().filter_map(|line| {
        let [_, level, message, fields, ..] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            return None;
        };
        let message = quoted(message).into_iter().next()?;
        Some(Event { level: level.to_owned(), message, fields: quoted(fields).into_iter().collect() })
    })
}

/// The events and spans of a crate, without its tests.
fn events(name: &str) -> Vec<Event> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(name).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_test = path.file_stem().is_some_and(|name| name == "tests");
            if path.is_dir() && !is_test {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") && !is_test {
                let text = fs::read_to_string(&path).unwrap();
                found.extend(events_in(text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default()));
            }
        }
    }
    assert!(!found.is_empty(), "no event in {name}");
    found
}

fn events_in(source: &str) -> Vec<Event> {
    let lines = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = lines.flat_map(|line| [line, "\n"]).collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("!(") {
        let before = &code[..at];
        let start = before.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').map_or(0, |end| end + 1);
        let level = before[start..].trim_end_matches("_span");
        if LEVELS.contains(&level) {
            let is_span = before[start..].ends_with("_span");
            found.push(event(level, is_span, &arguments(&code[at + 2..])));
        }
    }
    found
}

/// The message of an event comes after its fields, the name of a span before.
fn event(level: &str, is_span: bool, arguments: &[String]) -> Event {
    let place = arguments.iter().position(|argument| argument.starts_with('"'));
    let place = place.unwrap_or_else(|| panic!("an event without a message: {arguments:?}"));
    let fields = if is_span { &arguments[place + 1..] } else { &arguments[..place] };
    let fields = fields.iter().map(|argument| {
        let name = argument.trim_start_matches("r#").trim_start_matches(['?', '%']);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name.len());
        camel_case(&name[..end])
    });
    Event { level: level.to_owned(), message: arguments[place].trim_matches('"').to_owned(), fields: fields.collect() }
}

/// What stands between commas, up to the parenthesis that closes.
fn arguments(code: &str) -> Vec<String> {
    let (mut found, mut depth, mut in_text, mut escaped) = (vec![String::new()], 0, false, false);
    for c in code.chars() {
        match c {
            '"' if !escaped => in_text = !in_text,
            '(' | '[' | '{' if !in_text => depth += 1,
            ')' if !in_text && depth == 0 => break,
            ')' | ']' | '}' if !in_text => depth -= 1,
            ',' if !in_text && depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        escaped = in_text && c == '\\' && !escaped;
        found.last_mut().unwrap().push(c);
    }
    found.into_iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty()).collect()
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_ascii_uppercase() + &word[1..])
}
