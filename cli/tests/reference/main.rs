//! The pages in `docs/reference/` say what the programs themselves say: they are generated, and a test holds that they are fresh.
//!
//! `UPDATE=1 cargo test -p chancery --test reference` writes them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

mod api;
mod kinds;
mod metrics;
mod programs;
mod table;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// What to do when they are not.
const REMEDY: &str = "run UPDATE=1 cargo test -p chancery --test reference";

/// A remark that readers of the page do not see.
const GENERATED: &str = "<!-- Generated from the programs; CONTRIBUTING.md says how. -->\n";

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every page by the name of its file.
fn pages() -> BTreeMap<String, String> {
    let mut pages = kinds::pages();
    pages.insert("api.md".to_owned(), api::page());
    pages.insert("cli.md".to_owned(), programs::commands());
    pages.insert("settings.md".to_owned(), programs::settings());
    pages.insert("metrics.md".to_owned(), metrics::page(&repository()));
    pages.insert("README.md".to_owned(), index());
    pages.into_iter().map(|(name, page)| (name, format!("{GENERATED}\n{page}"))).collect()
}

fn index() -> String {
    let mut index =
        "# Reference\n\nGenerated from the programs, so it is complete and dry. What things are for is in the \
                     [other pages](../../README.md).\n\n"
            .to_owned();
    index += "| page | says |\n|---|---|\n";
    for (name, description) in kinds::listed() {
        index += &format!("| [{name}]({name}.md) | {description} |\n");
    }
    for (name, says) in [
        ("api", "every operation of the REST API: parameters, bodies, answers, and what a token needs"),
        ("cli", "every command of `chancery`"),
        ("settings", "every setting of the control plane, the rate limiter and the sidecar"),
        ("metrics", "every metric"),
    ] {
        index += &format!("| [{name}]({name}.md) | {says} |\n");
    }
    index
}

#[test]
fn the_reference_is_fresh() {
    let folder = repository().join("docs/reference");
    let pages = pages();
    if env::var_os("UPDATE").is_some() {
        fs::create_dir_all(&folder).unwrap();
        pages.iter().for_each(|(name, page)| fs::write(folder.join(name), page).unwrap());
    }
    let mut stale: Vec<_> = pages
        .iter()
        .filter(|(name, page)| fs::read_to_string(folder.join(name)).ok().as_ref() != Some(*page))
        .map(|(name, _)| name.clone())
        .collect();
    let there = fs::read_dir(&folder).map(|entries| entries.map(|entry| entry.unwrap().file_name())).unwrap();
    stale.extend(there.map(|name| name.into_string().unwrap()).filter(|name| !pages.contains_key(name)));
    assert!(stale.is_empty(), "not as generated, or not generated: {}; {REMEDY}", stale.join(", "));
}

#[test]
fn the_pages_hold_what_they_are_for() {
    let pages = pages();
    for (name, wanted) in [
        ("Route.md", "<a id=\"spec.rules.retry.attempts\"></a>`spec.rules.retry.attempts` | integer, 1 to 10 | `1` |"),
        ("api.md", "Needs `routes:read`."),
        ("api.md", "### Promote a revision"),
        ("cli.md", "## `chancery token create`"),
        ("settings.md", "| `--api-addr ADDR` | `CHANCERY_API_ADDR` | 127.0.0.1:8080 |"),
        ("metrics.md", "| `chancery_revision` | gauge |"),
    ] {
        assert!(pages[name].contains(wanted), "{name} does not say {wanted}:\n{}", pages[name]);
    }
}
