//! Regular expressions and templates of paths, as RE2 matches them in Envoy: byte by byte, and the whole text.

use std::{cell::RefCell, collections::HashMap, fmt::Write as _, rc::Rc};

use regex::bytes::{Captures, Regex, RegexBuilder};

/// What may stand in a segment that a variable stands for (RFC 3986's characters of a path).
const SEGMENT: &str = r"a-zA-Z0-9\-._~%!$&'()*+,;=:@";

/// Patterns that are compiled, each once.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// None where it does not compile, which the model rules out.
    compiled: RefCell<HashMap<String, Option<Rc<Regex>>>>,
}

impl Patterns {
    /// Whether `pattern` matches all of `text`.
    pub(super) fn is_match(&self, pattern: &str, text: &str) -> bool {
        self.compile(&format!(r"\A(?:{pattern})\z")).is_some_and(|regex| regex.is_match(text.as_bytes()))
    }

    /// Whether `path` is one of `template`.
    pub(super) fn is_of_template(&self, template: &str, path: &str) -> bool {
        self.compile(&of_template(template)).is_some_and(|regex| regex.is_match(path.as_bytes()))
    }

    /// The path that `made_of` makes of what the variables of `template` stand for in `path`.
    pub(super) fn of_variables(&self, template: &str, path: &str, made_of: &str) -> Option<String> {
        let regex = self.compile(&of_template(template))?;
        let variables = regex.captures(path.as_bytes())?;
        let mut made = String::new();
        for (index, part) in made_of.split(['{', '}']).enumerate() {
            match part.strip_prefix('v').filter(|_| index % 2 == 1) {
                Some(number) => made += &group(&variables, number.parse().ok()?),
                None => made += part,
            }
        }
        Some(made)
    }

    /// `text` with whatever `pattern` matches replaced; `\1` in `substitution` is what the first group has matched.
    pub(super) fn replace(&self, pattern: &str, substitution: &str, text: &str) -> String {
        let Some(regex) = self.compile(pattern) else { return text.to_owned() };
        let expand = |captures: &Captures<'_>| {
            let mut expanded = String::new();
            let mut characters = substitution.chars();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => match characters.next() {
                        Some(digit) if digit.is_ascii_digit() => {
                            expanded += &group(captures, digit.to_digit(10).unwrap_or(0) as usize);
                        }
                        Some(other) => expanded.push(other),
                        None => {}
                    },
                    other => expanded.push(other),
                }
            }
            expanded.into_bytes()
        };
        String::from_utf8_lossy(&regex.replace_all(text.as_bytes(), expand)).into_owned()
    }

    fn compile(&self, pattern: &str) -> Option<Rc<Regex>> {
        let mut compiled = self.compiled.borrow_mut();
        if let Some(known) = compiled.get(pattern) {
            return known.clone();
        }
        let regex = RegexBuilder::new(pattern).unicode(false).build().ok().map(Rc::new);
        compiled.insert(pattern.to_owned(), regex.clone());
        regex
    }
}

fn group(captures: &Captures<'_>, index: usize) -> String {
    captures.get(index).map(|group| String::from_utf8_lossy(group.as_bytes()).into_owned()).unwrap_or_default()
}

/// The variables of a template are its groups, by number.
fn of_template(template: &str) -> String {
    let mut pattern = r"\A".to_owned();
    for (index, part) in template.split(['{', '}']).enumerate() {
        // Writing to a String cannot fail.
        let _ = match (index % 2, part.ends_with("=**")) {
            (0, _) => write!(pattern, "{}", regex::escape(part)),
            (_, true) => write!(pattern, "([{SEGMENT}/]*)"),
            (_, false) => write!(pattern, "([{SEGMENT}]+)"),
        };
    }
    pattern + r"\z"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_text_byte_by_byte() {
        let patterns = Patterns::default();
        assert!(patterns.is_match("a|ab", "ab") && patterns.is_match("(?i)A.C", "abc"));
        assert!(!patterns.is_match("a|b", "ab") && !patterns.is_match("a", "ab\n"));
        assert!(patterns.is_match(".{2}", "é"), "two bytes");
    }

    #[test]
    fn a_template_is_for_whole_paths() {
        let patterns = Patterns::default();
        let is = |template, path| patterns.is_of_template(template, path);
        assert!(is("/t/{v1}", "/t/a=b*%7Cc") && is("/t/{v1}/{v2=**}", "/t/a/"));
        assert!(is("/t/{v1}/{v2=**}", "/t/a/b/c") && is("/a.b/{v1}", "/a.b/c"));
        assert!(
            !is("/t/{v1}", "/t/") && !is("/t/{v1}", "/t/a/") && !is("/t/{v1}", "/t/a[b") && !is("/a.b/{v1}", "/a-b/c")
        );
        let made = patterns.of_variables("/u/{v1}/{v2=**}", "/u/7/a/b", "/x/{v2}/of-{v1}");
        assert_eq!(made.as_deref(), Some("/x/a/b/of-7"));
    }

    #[test]
    fn what_is_matched_is_replaced() {
        let patterns = Patterns::default();
        assert_eq!(patterns.replace("^/v([0-9]+)/(.*)", r"/\2;v=\1$1", "/v12/cart"), "/cart;v=12$1");
        assert_eq!(patterns.replace("x*", r"-\\\0", "axb"), r"-\a-\xb-\");
    }
}
