//! What was found, for people: by group, a mark for each check, and under what failed the next step.

use std::{fmt::Write as _, io::IsTerminal as _, time::Duration};

use serde::Serialize;

use super::check::{Checked, Outcome};
use crate::output::printable;

/// How wide what is said may be, in characters.
const WIDTH: usize = 90;

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Whether nothing failed.
    pub(crate) healthy: bool,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    pub(crate) checks: Vec<Checked>,
}

/// How it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// With signs, and with colours unless they are not wanted.
    Terminal { colours: bool },
    /// In words, for logs and mails.
    Plain,
}

impl Style {
    /// What fits where the output goes (`NO_COLOR`: no-color.org).
    pub(crate) fn of_stdout() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if std::io::stdout().is_terminal() { Self::Terminal { colours: !unwanted } } else { Self::Plain }
    }

    fn mark(self, outcome: Outcome) -> String {
        let (sign, word, colour) = match outcome {
            Outcome::Passed => ("✓", "ok  ", "32"),
            Outcome::Failed => ("✗", "FAIL", "1;31"),
            Outcome::Skipped => ("–", "-   ", "2"),
        };
        match self {
            Self::Terminal { .. } => self.painted(sign, colour),
            Self::Plain => word.to_owned(),
        }
    }

    fn painted(self, text: &str, colour: &str) -> String {
        match self {
            Self::Terminal { colours: true } => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }

    fn arrow(self) -> &'static str {
        match self {
            Self::Terminal { .. } => "→",
            Self::Plain => "->",
        }
    }
}

impl Report {
    pub(crate) fn new(checks: Vec<Checked>) -> Self {
        let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
        let [passed, failed, skipped] = [Outcome::Passed, Outcome::Failed, Outcome::Skipped].map(count);
        Self { healthy: failed == 0, passed, failed, skipped, checks }
    }

    /// The report as text.
    pub(crate) fn text(&self, style: Style, took: Duration) -> String {
        let widest = self.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
        let mut text = String::new();
        for group in self.checks.chunk_by(|one, next| one.group == next.group) {
            let name = group.first().map_or("", |check| check.group);
            let _ = writeln!(text, "{}{}", if text.is_empty() { "" } else { "\n" }, style.painted(name, "1"));
            match same_reason(group) {
                // Once is enough.
                Some(reason) => style.line(&mut text, Outcome::Skipped, reason, 0, ""),
                None => group.iter().for_each(|check| style.check(&mut text, check, widest)),
            }
        }
        let Self { passed, failed, skipped, .. } = self;
        let summary = format!("{passed} passed, {failed} failed, {skipped} not checked");
        let colour = if self.healthy { "1;32" } else { "1;31" };
        let _ = writeln!(text, "\n{} in {:.1} s", style.painted(&summary, colour), took.as_secs_f64());
        text
    }
}

/// Why none of a group was looked at, if it is one reason.
fn same_reason(group: &[Checked]) -> Option<&str> {
    let reason = &group.first()?.said;
    let same = |check: &Checked| check.outcome == Outcome::Skipped && check.said == *reason;
    (group.len() > 1 && group.iter().all(same)).then_some(reason)
}

/// `text` in lines that fit into `width`, as far as its words do.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length > 0 && length + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else if length > 0 {
            lines[last] += " ";
            lines[last] += word;
        } else {
            word.clone_into(&mut lines[last]);
        }
    }
    lines
}

impl Style {
    fn check(self, text: &mut String, check: &Checked, widest: usize) {
        self.line(text, check.outcome, check.name, widest, &check.said);
        let indent = " ".repeat(2 + self.plain_mark() + 1 + widest + 2);
        let next = check.next.as_ref().map(|next| printable(next.clone())).unwrap_or_default();
        let lines = self.wrapped(&next).into_iter().enumerate().filter(|_| !next.is_empty());
        for (index, line) in lines {
            let arrow = if index == 0 { self.arrow() } else { " " };
            let _ = writeln!(text, "{indent}{arrow} {line}");
        }
    }

    fn line(self, text: &mut String, outcome: Outcome, name: &str, widest: usize, said: &str) {
        let indent = " ".repeat(2 + self.plain_mark() + 1 + widest + 2);
        for (index, line) in self.wrapped(&printable(said.to_owned())).into_iter().enumerate() {
            let faint =
                |line: &str| if outcome == Outcome::Skipped { self.painted(line, "2") } else { line.to_owned() };
            let line = match index {
                0 if line.is_empty() => format!("  {} {}", self.mark(outcome), faint(name)),
                0 => format!("  {} {name:widest$}  {}", self.mark(outcome), faint(&line)),
                _ => format!("{indent}{}", faint(&line)),
            };
            let _ = writeln!(text, "{line}");
        }
    }

    /// People read columns, logs are searched by line.
    fn wrapped(self, text: &str) -> Vec<String> {
        match self {
            Self::Terminal { .. } => wrapped(text, WIDTH),
            Self::Plain => vec![text.to_owned()],
        }
    }

    /// How wide a mark is.
    fn plain_mark(self) -> usize {
        match self {
            Self::Terminal { .. } => 1,
            Self::Plain => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let check = |group, name, outcome, said: &str, next: Option<&str>| Checked {
            group,
            name,
            outcome,
            said: said.to_owned(),
            next: next.map(str::to_owned),
        };
        Report::new(vec![
            check("Settings", "control plane", Outcome::Passed, "/etc/chancery/control-plane.toml", None),
            check("Settings", "sidecar", Outcome::Skipped, "none here", None),
            check("Database", "reachable", Outcome::Failed, "connection\nrefused", Some("start it")),
            check("Redis", "reachable", Outcome::Skipped, "no limiter here", None),
            check("Redis", "script", Outcome::Skipped, "no limiter here", None),
        ])
    }

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 4), ["unbreakable"]);
    }

    #[test]
    fn people_see_signs_and_logs_have_words() {
        let took = Duration::from_millis(1234);
        insta::assert_snapshot!(report().text(Style::Terminal { colours: false }, took), @r"
        Settings
          ✓ control plane  /etc/chancery/control-plane.toml
          – sidecar        none here

        Database
          ✗ reachable      connection refused
                           → start it

        Redis
          – no limiter here

        1 passed, 1 failed, 3 not checked in 1.2 s
        ");
        insta::assert_snapshot!(report().text(Style::Plain, took), @r"
        Settings
          ok   control plane  /etc/chancery/control-plane.toml
          -    sidecar        none here

        Database
          FAIL reachable      connection refused
                              -> start it

        Redis
          -    no limiter here

        1 passed, 1 failed, 3 not checked in 1.2 s
        ");
        assert!(report().text(Style::Terminal { colours: true }, took).contains("\u{1b}[1;31m✗\u{1b}[0m"));
    }
}
