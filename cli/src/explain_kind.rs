//! `chancery explain-kind`: what a field of a resource means, from this program alone.
//!
//! Written for a terminal of 80 columns; what is longer is broken between words.

use std::fmt::Write as _;

use chancery_control_plane::model::{Kind, wire::suggestion};
use clap::Args;

use crate::{failure::Failure, kind, outline::Field, output};

const COLUMNS: usize = 80;

#[derive(Debug, Args)]
pub(crate) struct ExplainKindArgs {
    /// A kind and a field of it, as Route.spec.rules.retry; without it, all kinds are listed
    #[arg(value_name = "KIND[.FIELD]")]
    place: Option<String>,
    /// Print the names of all fields below, and what each holds
    #[arg(long, requires = "place")]
    recursive: bool,
}

/// Explains a kind or a field.
pub(crate) fn explain_kind(args: &ExplainKindArgs) -> Result<(), Failure> {
    let Some(place) = &args.place else { return output::print(&kinds()) };
    let (kind, path) = place.split_once('.').unwrap_or((place, ""));
    let kind = kind::parse(kind).map_err(|known| {
        let names = Kind::ALL.into_iter().map(Kind::as_str);
        Failure::Usage(format!("there is no kind {kind:?}{}; {known}", suggestion(kind, names)))
    })?;
    let document = Field::of_kind(kind);
    let field = document.find(path).map_err(|error| Failure::Usage(error.to_string()))?;
    output::print(&if args.recursive { tree(kind, field) } else { page(kind, field) })
}

fn kinds() -> String {
    let mut page = String::new();
    for kind in Kind::ALL {
        page += kind.as_str();
        page.push('\n');
        lines(&mut page, 6, &Field::of_kind(kind).description);
    }
    page
}

/// What `field` means, and what is in it.
fn page(kind: Kind, field: &Field) -> String {
    let mut page = heading(kind, field);
    paragraph(&mut page, 2, &field.description);
    if !field.values.is_empty() {
        paragraph(&mut page, 2, &format!("One of: {}", field.values.join(", ")));
    }
    if let Some(example) = field.examples.first() {
        paragraph(&mut page, 2, &format!("Example: {example}"));
    }
    if !field.fields.is_empty() {
        page += "\nFIELDS\n";
        for below in &field.fields {
            let more = if below.fields.is_empty() { "" } else { " ..." };
            lines(&mut page, 2, &format!("{}{more}  <{}>", below.name, below.summary()));
            lines(&mut page, 6, &below.description);
        }
    }
    page
}

/// The names of what is in `field`, each under what it is in.
fn tree(kind: Kind, field: &Field) -> String {
    let mut tree = heading(kind, field) + "\n";
    let depth = |path: &str| if path.is_empty() { 0 } else { 1 + path.matches('.').count() };
    for below in field.all() {
        let indent = 2 * (depth(&below.path) - depth(&field.path));
        // Writing to a String cannot fail.
        let _ = writeln!(tree, "{:indent$}{}  <{}>", "", below.name, below.summary());
    }
    tree
}

fn heading(kind: Kind, field: &Field) -> String {
    let dot = if field.path.is_empty() { "" } else { "." };
    let mut heading = format!("{kind}{dot}{}\n", field.path);
    lines(&mut heading, 2, &format!("<{}>", field.summary()));
    heading
}

fn paragraph(page: &mut String, indent: usize, text: &str) {
    page.push('\n');
    lines(page, indent, text);
}

/// `text`, broken between words so that no line is longer than the terminal, if its words let it.
fn lines(page: &mut String, indent: usize, text: &str) {
    let mut width = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if width > 0 && width + 1 + length <= COLUMNS {
            page.push(' ');
            width += 1 + length;
        } else {
            if width > 0 {
                page.push('\n');
            }
            let _ = write!(page, "{:indent$}", "");
            width = indent + length;
        }
        page.push_str(word);
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, show: fn(Kind, &Field) -> String) -> String {
        show(Kind::Route, Field::of_kind(Kind::Route).find(path).unwrap())
    }

    #[test]
    fn a_field_and_what_is_in_it() {
        insta::assert_snapshot!(at("spec.rules.retry.backoff", page));
    }

    #[test]
    fn a_field_with_nothing_in_it() {
        insta::assert_snapshot!(at("spec.rules.retry.statuses", page));
    }

    #[test]
    fn a_tree() {
        insta::assert_snapshot!(at("spec.rules.mirror", tree));
    }

    #[test]
    fn nothing_is_wider_than_a_terminal() {
        for kind in Kind::ALL {
            let document = Field::of_kind(kind);
            for field in std::iter::once(&document).chain(document.all()) {
                let page = page(kind, field);
                for line in page.lines().filter(|line| line.trim_start().contains(' ')) {
                    assert!(line.chars().count() <= COLUMNS, "{kind} {}: {line}", field.path);
                }
            }
        }
    }

    #[test]
    fn what_is_unknown_is_refused_with_a_neighbour() {
        let refused = |place: &str| {
            let args = ExplainKindArgs { place: Some(place.to_owned()), recursive: false };
            explain_kind(&args).unwrap_err().to_string()
        };
        assert!(refused("Rout").starts_with("there is no kind \"Rout\"; did you mean Route?"), "{}", refused("Rout"));
        assert_eq!(refused("rt.spec.host"), "Route spec has no field \"host\"; did you mean hosts?");
    }
}
