//! Paths with variables, as rules match them and write them anew.
//!
//! What a variable is called is the author's business: two templates that differ in names alone are for the same requests. So
//! the model has them by number, in Envoy's syntax: `/users/{id}` and `/users/{user}` are both `/users/{v1}`.
//!
//! Of Envoy's templates this is the part that can be read without its manual: a variable is a whole segment, or at the end all that
//! is left. Its bounds on variables are Envoy's.

use super::path;
use crate::model::problem::Quoted;

/// How many variables a template may have.
const MAX_VARIABLES: usize = 5;

/// The longest name of a variable.
const MAX_VARIABLE: usize = 16;

/// A template of paths to match.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Template {
    /// With numbers for names.
    pub(super) pattern: String,
    variables: Vec<String>,
}

/// A template to match: `/users/{id}/{rest=**}`.
pub(super) fn parse(text: &str) -> Result<Template, String> {
    let is_not = |why: &str| Err(format!("{} is not a template of paths: {why}", Quoted(text)));
    let mut template = Template { pattern: String::new(), variables: Vec::new() };
    let mut segments =
        path::plain(text)?.split('/').skip(1).map(str::to_owned).collect::<Vec<_>>().into_iter().peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let Some(inner) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            if !segment.bytes().all(is_literal) {
                return is_not("a segment is a variable such as {id}, or has none of {}*=\"<>[]\\^`|");
            }
            if segment.is_empty() && !is_last {
                return is_not("a segment is empty");
            }
            template.pattern += &format!("/{segment}");
            continue;
        };
        let (variable, glob) = match inner.strip_suffix("=**") {
            Some(variable) => (variable, "=**"),
            None => (inner, ""),
        };
        if !is_variable(variable) {
            return is_not(&format!(
                "a variable has 1 to {MAX_VARIABLE} letters, digits and underscores, a letter first: {{id}}, or {{rest=**}}"
            ));
        }
        if !glob.is_empty() && !is_last {
            return is_not("{…=**} can stand only at its end");
        }
        if template.variables.iter().any(|known| known == variable) {
            return is_not(&format!("the variable {variable} is there twice"));
        }
        template.variables.push(variable.to_owned());
        template.pattern += &format!("/{{v{}{glob}}}", template.variables.len());
    }
    match template.variables.len() {
        0 => is_not("it has no variable; use exact or prefix"),
        1..=MAX_VARIABLES => Ok(template),
        _ => is_not(&format!("it has more than {MAX_VARIABLES} variables")),
    }
}

impl Template {
    /// A path that is made of what the variables stand for: `/accounts/{id}`.
    pub(super) fn rewrite(&self, text: &str) -> Result<String, String> {
        let is_not = |why: &str| Err(format!("{} is not made of match.path.template: {why}", Quoted(text)));
        let checked = path::plain(text)?;
        let mut rewritten = String::new();
        let mut rest = checked.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            let Some((variable, after)) = after.split_once('}') else {
                return is_not("a brace is not closed");
            };
            let Some(index) = self.variables.iter().position(|known| known == variable) else {
                return is_not(&format!(
                    "{} is none of its variables: {}",
                    Quoted(variable),
                    self.variables.join(", ")
                ));
            };
            rewritten += &format!("{before}{{v{}}}", index + 1);
            rest = after;
        }
        rewritten += rest;
        let outside = rewritten.split(['{', '}']).step_by(2);
        if checked.matches('}').count() != checked.matches('{').count()
            || !outside.flat_map(str::bytes).all(|b| is_literal(b) || b == b'/')
        {
            return is_not("apart from {variables} it has none of {}*=\"<>[]\\^`|");
        }
        Ok(rewritten)
    }
}

/// What stands for itself in a template (RFC 3986's characters of a path, but for `*` and `=`).
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&byte)
}

fn is_variable(text: &str) -> bool {
    text.len() <= MAX_VARIABLE
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_variables_make_no_difference() {
        let pattern = |text: &str| parse(text).map(|template| template.pattern);
        assert_eq!(pattern("/users/{id}/posts/{post}"), Ok("/users/{v1}/posts/{v2}".into()));
        assert_eq!(pattern("/users/{a}/posts/{b}"), pattern("/users/{id}/posts/{post}"));
        assert_eq!(pattern("/files/{rest=**}"), Ok("/files/{v1=**}".into()));
        assert_eq!(pattern("/{a}/"), Ok("/{v1}/".into()));
    }

    #[test]
    fn a_path_is_made_of_variables_in_any_order() {
        let template = parse("/users/{id}/{rest=**}").unwrap();
        assert_eq!(template.rewrite("/v2/{rest}/of-{id}.{id}"), Ok("/v2/{v2}/of-{v1}.{v1}".into()));
        assert_eq!(template.rewrite("/gone"), Ok("/gone".into()));
        for text in ["/{id", "/id}", "/{id}}", "/{{id}}", "/{other}", "/{rest=**}", "/a*", "/a=b", "{id}"] {
            assert!(template.rewrite(text).is_err(), "{text}");
        }
    }
}
