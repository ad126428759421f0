//! A page for each kind of resource: every field, with an anchor to link to.

use std::collections::BTreeMap;

use chancery::outline::Field;
use chancery_control_plane::model::Kind;

use crate::table::{code, head, row};

/// The pages by the names of their files.
pub(crate) fn pages() -> BTreeMap<String, String> {
    Kind::ALL.into_iter().map(|kind| (format!("{kind}.md"), page(kind))).collect()
}

/// Every kind, and what it is.
pub(crate) fn listed() -> impl Iterator<Item = (&'static str, String)> {
    Kind::ALL.into_iter().map(|kind| (kind.as_str(), Field::of_kind(kind).description))
}

fn page(kind: Kind) -> String {
    let document = Field::of_kind(kind);
    let anchor = kind.as_str().to_lowercase();
    let mut page = format!(
        "# {kind}\n\n{}\n\nWhat it is for, with examples: [Resources](../resources.md#{anchor}). For editors: \
         `/api/schemas/{kind}.json`. On a terminal: `chancery explain-kind {kind}`.\n\n",
        document.description
    );
    page += &fields(&document, true);
    page
}

/// A table of all that is in `whole`.
pub(crate) fn fields(whole: &Field, anchors: bool) -> String {
    let mut table = head(["field", "type", "default", "meaning"]);
    for field in whole.all() {
        let path = &field.path;
        let anchor = if anchors { format!("<a id=\"{path}\"></a>") } else { String::new() };
        let default = code(field.default.as_deref().unwrap_or_default());
        let mut meaning = field.description.clone();
        if !field.values.is_empty() {
            let values: Vec<_> = field.values.iter().map(|value| code(value)).collect();
            meaning += &format!(" One of {}.", values.join(", "));
        }
        if let Some(example) = field.examples.first() {
            meaning += &format!(" Example: {}.", code(example));
        }
        table += &row([format!("{anchor}`{path}`"), holds(field), default, meaning]);
    }
    table
}

/// What it holds, without its default.
fn holds(field: &Field) -> String {
    Field { default: None, ..field.clone() }.summary()
}
