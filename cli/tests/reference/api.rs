//! The page of the REST API: every operation, and what is sent and answered.
//!
//! The operations on resources are the same for every kind, and are shown for routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use chancery::outline::Field;
use chancery_control_plane::{
    access::{
        Scope,
        operations::{Needs, needs},
    },
    api::openapi,
    model::Kind,
};
use serde_json::{Value, json};

use crate::{
    kinds,
    table::{code, head, row},
};

/// The kind that stands for all.
const SHOWN: Kind = Kind::Route;

pub(crate) fn page() -> String {
    let description = serde_json::to_value(openapi()).unwrap();
    let mut page =
        "# The REST API\n\nEvery operation. What holds for all of them is in [the page about the API](../api.md), \
                    who may do what in [the page about access](../access.md).\n\n"
            .to_owned();
    let others: Vec<_> =
        Kind::ALL.into_iter().filter(|kind| *kind != SHOWN).map(|kind| code(kind.collection())).collect();
    let _ = writeln!(
        page,
        "What is said of `{}` holds for {} too, with the scopes that are called after them.\n",
        SHOWN.collection(),
        others.join(", ")
    );
    page += &errors(&description);
    let mut bodies = BTreeSet::new();
    for (tag, operations) in by_tag(&description) {
        let _ = write!(page, "\n## {tag}\n");
        for operation in operations {
            page += &operation.section(&mut bodies);
        }
    }
    page += "\n## Bodies\n";
    let definitions = definitions(&description);
    for name in bodies {
        let body = Field::read(&name, &definitions[&name], &definitions);
        let _ = write!(page, "\n### {name}\n\n{}\n\n", body.description);
        page += &kinds::fields(&body, false);
    }
    page
}

/// An operation of the API.
struct Operation<'d> {
    method: String,
    path: &'d str,
    says: &'d Value,
}

/// The operations under what they are about, those on other kinds than the one shown left out.
fn by_tag(description: &Value) -> BTreeMap<&str, Vec<Operation<'_>>> {
    let mut tags: BTreeMap<&str, Vec<Operation<'_>>> = BTreeMap::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, says) in item.as_object().unwrap() {
            let tag = says["tags"][0].as_str().unwrap();
            let operation = Operation { method: method.to_uppercase(), path, says };
            if !operation.is_of_another_kind() {
                tags.entry(tag).or_default().push(operation);
            }
        }
    }
    tags
}

impl Operation<'_> {
    fn is_of_another_kind(&self) -> bool {
        let rest = self.path.trim_start_matches("/api/v1/");
        let (collection, below) = rest.split_once('/').unwrap_or((rest, ""));
        Kind::ALL.into_iter().any(|kind| kind != SHOWN && kind.collection() == collection)
            && ["", "{name}", "{name}/blame"].contains(&below)
    }

    fn section(&self, bodies: &mut BTreeSet<String>) -> String {
        let Self { method, path, says } = self;
        let mut section = format!("\n### {}\n\n`{method} {path}`\n\n", words(&says["summary"]));
        let description = words(&says["description"]);
        if !description.is_empty() {
            let _ = write!(section, "{description}\n\n");
        }
        let _ = write!(section, "{}\n\n", needed(needs(method, path).unwrap()));
        let parameters = says["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        if !parameters.is_empty() {
            section += &head(["parameter", "in", "type", "meaning"]);
            for parameter in parameters {
                section += &self::parameter(parameter);
            }
            section.push('\n');
        }
        section += &head(["", "body", "meaning"]);
        if let Some(contents) = says["requestBody"]["content"].as_object() {
            section += &row(["request".to_owned(), body(contents, bodies), words(&says["requestBody"]["description"])]);
        }
        let answers = says["responses"].as_object().unwrap();
        let (errors, answers): (Vec<_>, Vec<_>) = answers.iter().partition(|(status, _)| is_error(status));
        for (status, answer) in answers {
            let contents = answer["content"].as_object().cloned().unwrap_or_default();
            section += &row([status.clone(), body(&contents, bodies), words(&answer["description"])]);
        }
        let errors: Vec<_> = errors.into_iter().map(|(status, _)| status.as_str()).collect();
        let _ = write!(section, "\nErrors: {}.\n", errors.join(", "));
        section
    }
}

fn needed(needs: Needs) -> String {
    let scope = |verb, area| format!("Needs `{}`", Scope::new(verb, area));
    match needs {
        Needs::Nothing => "Needs no token.".to_owned(),
        Needs::Anybody => "Needs any token.".to_owned(),
        Needs::To(verb, area) => scope(verb, area) + ".",
        Needs::ToAll(verb, area) => scope(verb, area) + ", and to see the resources of all teams.",
        Needs::EveryChange => "Needs the scope for writing of every kind that it changes.".to_owned(),
    }
}

fn parameter(parameter: &Value) -> String {
    let field = Field::read("", &parameter["schema"], &Value::Null);
    let mut holds = field.summary();
    if parameter["required"] == true {
        holds += ", required";
    }
    let mut meaning = words(&parameter["description"]);
    if !field.values.is_empty() {
        let _ = write!(meaning, " One of {}.", field.values.join(", "));
    }
    row([code(parameter["name"].as_str().unwrap()), words(&parameter["in"]), holds, meaning])
}

/// What a body is; what it consists of is told once, below.
fn body(contents: &serde_json::Map<String, Value>, bodies: &mut BTreeSet<String>) -> String {
    let mut schemas = BTreeMap::<String, Vec<&str>>::new();
    for (media, content) in contents {
        let name = content["schema"]["$ref"].as_str().and_then(|target| target.rsplit('/').next());
        let shown = match name {
            Some(name) if name.parse::<Kind>().is_ok() => format!("[{name}]({name}.md)"),
            Some(name) => {
                bodies.insert(name.to_owned());
                format!("[{name}](#{})", name.to_lowercase())
            }
            None => Field::read("", &content["schema"], &Value::Null).summary(),
        };
        schemas.entry(shown).or_default().push(media);
    }
    let shown = schemas.into_iter().map(|(schema, media)| {
        if media == ["application/json"] { schema } else { format!("{schema} as {}", media.join(", ")) }
    });
    shown.collect::<Vec<_>>().join("; ")
}

/// What each status of an error means, over all operations.
fn errors(description: &Value) -> String {
    let mut errors = BTreeMap::<&str, BTreeSet<&str>>::new();
    for item in description["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                if is_error(status) {
                    errors.entry(status).or_default().insert(answer["description"].as_str().unwrap());
                }
            }
        }
    }
    let mut table = "Errors are [problem details](../api.md#errors):\n\n".to_owned() + &head(["status", "means"]);
    for (status, meanings) in errors {
        table += &row([status.to_owned(), meanings.into_iter().collect::<Vec<_>>().join("; ")]);
    }
    table
}

fn is_error(status: &str) -> bool {
    status.starts_with(['4', '5'])
}

/// The types of the API, with resources left whole: they have pages of their own.
fn definitions(description: &Value) -> Value {
    let mut definitions = description["components"]["schemas"].clone();
    for (name, what) in
        Kind::ALL.map(|kind| (kind.as_str(), kind.as_str())).into_iter().chain([("Resource", "resource")])
    {
        definitions[name] = json!({ "type": "object", "description": format!("A {what}, as its page has it.") });
    }
    definitions
}

fn words(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
