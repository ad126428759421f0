//! The JSON Schemas that editors check documents by: what we show is valid by them, what is wrong is not.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use chancery_control_plane::{
    api::{
        schemas,
        text::{Format, documents},
    },
    model::Kind,
};
use chancery_e2e::{
    certificates::Authority,
    client::{fetch, get},
    command::User,
    control_plane::ControlPlane,
    document::{fleet, listener, route_to, service},
    guide::{Block, blocks},
    required,
};
use serde_json::{Value, json};

fn schema(kind: Option<Kind>) -> Result<Value> {
    Ok(serde_json::from_str(&schemas::text(kind))?)
}

/// Why each document is refused by its schema; none: it is not.
fn verdicts(python: &Path, cases: &[(Value, Value)]) -> Result<Vec<Option<String>>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemas/validate.py");
    let lines: Vec<String> =
        cases.iter().map(|(schema, document)| json!({ "schema": schema, "document": document }).to_string()).collect();
    let mut child =
        Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("the input is a pipe")?;
    let writer = std::thread::spawn(move || stdin.write_all((lines.join("\n") + "\n").as_bytes()));
    let output = child.wait_with_output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    writer.join().ok().context("writing ends")?.with_context(|| errors.clone().into_owned())?;
    ensure!(output.status.success(), "the validator failed: {errors}");
    let verdicts: Result<Vec<Option<String>>, _> =
        String::from_utf8(output.stdout)?.lines().map(serde_json::from_str).collect();
    let verdicts = verdicts?;
    ensure!(verdicts.len() == cases.len(), "{} verdicts on {} documents", verdicts.len(), cases.len());
    Ok(verdicts)
}

/// The documents of our kinds in the code blocks of a page, each with the line of its block. A block with … is a sketch.
fn documents_in(page: &Path) -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for Block { language, line, text } in blocks(&fs::read_to_string(page)?) {
        let format = match language.as_str() {
            "yaml" => Format::Yaml,
            "json" => Format::Json,
            _ => continue,
        };
        let sketch = text.contains('…');
        let read = documents(format, text.as_bytes()).unwrap_or_default();
        let ours = |value: &Value| value["kind"].as_str().is_some_and(|kind| kind.parse::<Kind>().is_ok());
        for document in read.into_iter().filter(|document| !sketch && ours(&document.value)) {
            found.push((format!("{}:{line}", page.display()), document.value));
        }
    }
    Ok(found)
}

fn pages() -> Result<Vec<PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    Ok(pages)
}

#[test]
fn what_the_pages_show_is_valid() -> Result<()> {
    let Some(python) = required::python_with_json_schema() else { return Ok(()) };
    let mut shown = Vec::new();
    for page in pages()? {
        shown.extend(documents_in(&page)?);
    }
    ensure!(shown.len() >= 15, "only {} documents were found", shown.len());
    for document in [
        fleet("edge"),
        listener("web", "edge", 10_000),
        service("shop", &[([127, 0, 0, 1], 8080).into()]),
        route_to("shop", "shop.example.com", "shop"),
    ] {
        shown.push(("a document of the tests".to_owned(), document));
    }
    // As it comes back from the API.
    let mut read_back = fleet("edge");
    for (field, value) in [("revision", json!(7)), ("updatedAt", json!("2026-01-01T00:00:00Z")), ("team", Value::Null)]
    {
        read_back[field] = value;
    }
    shown.push(("a document of the API".to_owned(), read_back));

    let mut cases = Vec::new();
    for (_, document) in &shown {
        let kind = document["kind"].as_str().and_then(|kind| kind.parse().ok()).context("it is of a kind")?;
        cases.push((schema(Some(kind))?, document.clone()));
        cases.push((schema(None)?, document.clone()));
    }
    let verdicts = verdicts(&python, &cases)?;
    let refused: Vec<String> = verdicts
        .chunks(2)
        .zip(&shown)
        .filter_map(|(verdicts, (place, _))| verdicts.iter().flatten().next().map(|why| format!("{place}: {why}")))
        .collect();
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

/// What a schema gives as an example, or takes for a value that is not there, is valid where it stands.
#[test]
fn examples_and_defaults_are_valid() -> Result<()> {
    let Some(python) = required::python_with_json_schema() else { return Ok(()) };
    let mut cases = Vec::new();
    for kind in Kind::ALL {
        let whole = schema(Some(kind))?;
        collect(&whole, &whole["$defs"], &mut cases);
    }
    ensure!(cases.len() > 100, "only {} examples were found", cases.len());
    let refused: Vec<String> = verdicts(&python, &cases)?
        .into_iter()
        .zip(&cases)
        .filter_map(|(why, (schema, _))| Some(format!("{}: {}", why?, schema["description"])))
        .collect();
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    Ok(())
}

fn collect(schema: &Value, definitions: &Value, cases: &mut Vec<(Value, Value)>) {
    if let Value::Object(fields) = schema {
        for value in fields.get("examples").and_then(Value::as_array).into_iter().flatten().chain(fields.get("default"))
        {
            let mut alone = schema.clone();
            alone["$defs"] = definitions.clone();
            cases.push((alone, value.clone()));
        }
        fields.iter().filter(|(name, _)| *name != "examples").for_each(|(_, inner)| collect(inner, definitions, cases));
    } else if let Value::Array(items) = schema {
        items.iter().for_each(|inner| collect(inner, definitions, cases));
    }
}

#[test]
fn what_is_wrong_is_not_valid() -> Result<()> {
    let Some(python) = required::python_with_json_schema() else { return Ok(()) };
    let changed = |mut document: Value, pointer: &str, value: Value| {
        let (above, field) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(above) = document.pointer_mut(above) {
            above[field] = value;
        }
        document
    };
    let route = || route_to("shop", "shop.example.com", "shop");
    let retry = |field: &str, value: Value| {
        let mut retry = json!({ "on": ["5xx"] });
        retry[field] = value;
        changed(route(), "/spec/rules/0/retry", retry)
    };
    let mut no_spec = route();
    no_spec.as_object_mut().context("a document is an object")?.remove("spec");
    let wrong = [
        ("no object", json!("Route")),
        ("no spec", no_spec),
        ("an unknown kind", changed(route(), "/kind", json!("Router"))),
        ("a name in capitals", changed(route(), "/name", json!("Shop"))),
        ("a name too long", changed(route(), "/name", json!("a".repeat(64)))),
        ("an unknown field beside spec", changed(route(), "/owner", json!("me"))),
        ("an unknown field deep inside", changed(route(), "/spec/rules/0/timeuot", json!("1s"))),
        ("a label that is a number", changed(route(), "/labels", json!({ "tier": 1 }))),
        ("a duration without a unit", changed(route(), "/spec/rules/0/timeout", json!("5"))),
        ("a duration that is a number", changed(route(), "/spec/rules/0/timeout", json!(5))),
        ("hosts that are no list", changed(route(), "/spec/hosts", json!("shop.example.com"))),
        ("a value that is none of those known", retry("on", json!(["moon"]))),
        ("an empty list", retry("on", json!([]))),
        ("a number above its bound", retry("attempts", json!(11))),
        ("a number below its bound", retry("attempts", json!(0))),
        ("a number that is none", retry("attempts", json!("2"))),
        ("what is required is missing", retry("backoff", json!({ "max": "1s" }))),
        ("a port too large", changed(listener("web", "edge", 1), "/spec/port", json!(70_000))),
        ("the spec of another kind", changed(fleet("edge"), "/spec", route()["spec"].clone())),
    ];
    let mut cases = Vec::new();
    for (_, document) in &wrong {
        let kind = document["kind"].as_str().and_then(|kind| kind.parse().ok());
        cases.push((schema(Some(kind.unwrap_or(Kind::Route)))?, document.clone()));
        cases.push((schema(None)?, document.clone()));
    }
    let verdicts = verdicts(&python, &cases)?;
    let taken: Vec<_> =
        wrong.iter().zip(verdicts.chunks(2)).filter(|(_, v)| v.iter().any(Option::is_none)).map(|(w, _)| w.0).collect();
    ensure!(taken.is_empty(), "these are taken for valid: {taken:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_and_the_api_have_the_same_schemas() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::create(folder.path(), "authority")?;
    let control_plane = ControlPlane::start_alone(folder.path(), &authority).await?;
    let user = User::in_folder(folder.path());
    for (command, path) in [("schema", "all"), ("schema route", "Route"), ("schema rl", "RateLimit")] {
        let served = fetch(control_plane.api, get("api", &format!("/api/schemas/{path}.json"))).await?;
        ensure!(served.status == 200 && served.header("content-type") == "application/schema+json", "{served:?}");
        ensure!(user.does(command, "").await? == served.text(), "chancery {command} prints something else");
    }
    Ok(())
}

/// Nothing is needed to explain a field: no server, no token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_field_is_explained_without_a_server() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let user = User::in_folder(folder.path());
    let page = user.does("explain-kind Route.spec.rules.retry", "").await?;
    ensure!(page.contains("When and how a request is tried again") && page.contains("attempts"), "{page}");
    let unknown = user.runs("explain-kind Route.spec.rules.retyr", "").await?;
    ensure!(unknown.code == 2 && unknown.errors.contains("did you mean retry?"), "{unknown:?}");
    Ok(())
}
