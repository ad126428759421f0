//! The page of metrics, read off the source: each is declared and described in one place, by the same macros.

use std::{collections::BTreeMap, fs, path::Path};

use crate::table::{code, head, row};

/// Which programs have the metrics of a crate.
const CRATES: [(&str, &str); 5] = [
    ("control-plane", "Control plane"),
    ("rate-limiter", "Rate limiter"),
    ("sidecar", "Sidecar"),
    ("xds", "xDS, in the programs that serve it or are served"),
    ("runtime", "TLS, traces and the version, in every program"),
];

pub(crate) fn page(root: &Path) -> String {
    let mut page =
        "# Metrics\n\nEvery metric, as `/metrics` of the programs has them. Times are in seconds.\n".to_owned();
    for (folder, title) in CRATES {
        let mut files = Vec::new();
        read(&root.join(folder).join("src"), &mut files);
        let constants: Vec<_> = files.iter().map(|text| constants(text)).collect();
        let mut rows = Vec::new();
        for (text, own) in files.iter().zip(&constants) {
            for Described { constant, kind, says } in described(text) {
                let mut declared = constants.iter().filter_map(|others| others.get(&constant));
                let Constant { value, doc } = own.get(&constant).or_else(|| declared.next()).unwrap();
                // A comment that names labels says more than what the recorder is told, another is only shorter.
                rows.push([value.clone(), kind, if doc.contains('`') { doc.clone() } else { says }]);
            }
        }
        rows.sort();
        assert!(!rows.is_empty(), "no metric was found in {folder}");
        page += &format!("\n## {title}\n\n{}", head(["metric", "type", "meaning"]));
        page.extend(rows.into_iter().map(|[name, kind, meaning]| row([code(&name), kind, meaning])));
    }
    page
}

/// A text with a name.
struct Constant {
    value: String,
    doc: String,
}

/// What a program tells its recorder.
struct Described {
    constant: String,
    kind: String,
    says: String,
}

fn read(folder: &Path, files: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            read(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The names of metrics in `const NAME: &str`, with the comments above them.
fn constants(text: &str) -> BTreeMap<String, Constant> {
    let mut found = BTreeMap::new();
    let mut doc: Vec<&str> = Vec::new();
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("/// ") {
            doc.push(comment);
            continue;
        }
        let declaration = line.split_once("const ").and_then(|(_, rest)| rest.split_once(": &str ="));
        if let Some((name, value)) = declaration {
            let value = if value.is_empty() { lines.next().unwrap_or_default() } else { value };
            let value = value.trim().trim_end_matches(';').trim_matches('"').to_owned();
            let doc = doc.join(" ");
            let kinds = ["Counter: ", "Gauge: ", "Histogram: "];
            let doc = capital(kinds.iter().find_map(|kind| doc.strip_prefix(kind)).unwrap_or(&doc));
            let of_a_metric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !value.is_empty() && value.chars().all(of_a_metric) {
                found.insert(name.to_owned(), Constant { value, doc });
            }
        }
        doc.clear();
    }
    found
}

/// What stands in `describe_counter!` and the like.
fn described(text: &str) -> Vec<Described> {
    let calls = text.split("describe_").skip(1).filter_map(|rest| {
        let (kind, rest) = rest.split_once("!(")?;
        let kind = ["counter", "gauge", "histogram"].into_iter().find(|known| *known == kind)?;
        let call = rest.split_once(");")?.0;
        let constant = call.split(',').next()?.trim().rsplit("::").next()?.to_owned();
        let says = call.split('"').nth(1)?.to_owned();
        Some(Described { constant, kind: kind.to_owned(), says })
    });
    calls.collect()
}

/// `text` as a sentence begins.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
