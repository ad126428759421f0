//! Files of resources, and where in them each resource stands, so that a problem can be shown at its place.

use std::{
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use chancery_control_plane::{
    api::text::{self, Format},
    model::{Kind, Problem},
};
use clap::Args;
use serde_json::Value;

use crate::failure::Failure;

/// Which files.
#[derive(Clone, Debug, Args)]
pub(crate) struct FileArgs {
    /// File with YAML or JSON documents, folder of such files, or - for stdin; may be repeated
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

/// What files say, in order.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    resources: Vec<Source>,
}

#[derive(Debug)]
struct Source {
    /// `checkout.yaml:12`
    place: String,
    value: Value,
}

impl Manifest {
    /// Reads `paths`; folders with everything in them that ends in `.yaml`, `.yml` or `.json`, by name.
    pub(crate) fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut manifest = Self::default();
        for path in paths {
            if path == Path::new("-") {
                let mut bytes = Vec::new();
                io::stdin()
                    .read_to_end(&mut bytes)
                    .map_err(|source| Failure::Io { what: "stdin".to_owned(), source })?;
                manifest.add("stdin", Format::Yaml, &bytes)?;
            } else {
                manifest.add_path(path, true)?;
            }
        }
        if manifest.resources.is_empty() {
            return Err(Failure::Usage("the files hold no resources".to_owned()));
        }
        Ok(manifest)
    }

    fn add_path(&mut self, path: &Path, named: bool) -> Result<(), Failure> {
        let unusable = |source| Failure::Io { what: path.display().to_string(), source };
        if fs::metadata(path).map_err(unusable)?.is_dir() {
            let entries = fs::read_dir(path).map_err(unusable)?;
            let mut entries: Vec<_> =
                entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(unusable)?;
            entries.sort();
            let hidden =
                |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            return entries.iter().filter(|path| !hidden(path)).try_for_each(|path| self.add_path(path, false));
        }
        let format = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Format::Json,
            Some("yaml" | "yml") => Format::Yaml,
            _ if named => Format::Yaml,
            _ => return Ok(()),
        };
        self.add(&path.display().to_string(), format, &fs::read(path).map_err(unusable)?)
    }

    fn add(&mut self, file: &str, format: Format, bytes: &[u8]) -> Result<(), Failure> {
        let documents =
            text::documents(format, bytes).map_err(|source| Failure::Syntax { file: file.to_owned(), source })?;
        for document in documents {
            let place = format!("{file}:{}", document.line);
            // What the API takes as a body may also lie in a file.
            let values = match document.value {
                Value::Object(mut fields) if !fields.contains_key("kind") && fields.contains_key("resources") => {
                    match fields.remove("resources") {
                        Some(Value::Array(values)) => values,
                        other => vec![other.unwrap_or_default()],
                    }
                }
                value => vec![value],
            };
            self.resources.extend(values.into_iter().map(|value| Source { place: place.clone(), value }));
        }
        Ok(())
    }

    /// The resources, in order.
    pub(crate) fn values(&self) -> Vec<Value> {
        self.resources.iter().map(|source| source.value.clone()).collect()
    }

    /// What it holds, in parts of about `most` bytes; if there are several, what is referred to comes before what refers to it.
    pub(crate) fn parts(self, most: usize) -> Vec<Self> {
        let size = |source: &Source| source.value.to_string().len();
        if self.resources.iter().map(size).sum::<usize>() <= most {
            return vec![self];
        }
        let mut resources = self.resources;
        // What is no kind is refused by whoever reads it.
        resources.sort_by_key(|source| source.key().and_then(|(kind, _)| kind.parse::<Kind>().ok()));
        let mut parts: Vec<Self> = Vec::new();
        let mut filled = most;
        for source in resources {
            let size = size(&source);
            if filled + size > most {
                parts.push(Self::default());
                filled = 0;
            }
            filled += size;
            if let Some(part) = parts.last_mut() {
                part.resources.push(source);
            }
        }
        parts
    }

    /// Kind and name of every resource, where they can be read, with the place.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Option<(&str, &str)>, &str)> {
        self.resources.iter().map(|source| (source.key(), source.place.as_str()))
    }

    /// A problem at its place in the files.
    pub(crate) fn locate(&self, problem: &Problem) -> String {
        let index = problem.resource.strip_prefix("resources[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
        let source = match index {
            Some(index) => self.resources.get::<usize>(index),
            None => self
                .resources
                .iter()
                .find(|source| source.key().is_some_and(|(kind, name)| problem.resource == format!("{kind}/{name}"))),
        };
        match (source, index) {
            (Some(source), Some(_)) => {
                let unnamed = Problem { resource: String::new(), ..problem.clone() };
                format!("{}: {unnamed}", source.place)
            }
            (Some(source), None) => format!("{}: {problem}", source.place),
            (None, _) => problem.to_string(),
        }
    }
}

impl Source {
    fn key(&self) -> Option<(&str, &str)> {
        Some((self.value.get("kind")?.as_str()?, self.value.get("name")?.as_str()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(resource: &str, path: &str) -> Problem {
        Problem { resource: resource.to_owned(), path: path.to_owned(), reason: "is wrong".to_owned() }
    }

    #[test]
    fn files_are_read_in_order_and_problems_found_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("more")).unwrap();
        write("b.yaml", "kind: Route\nname: b\n---\n---\nkind: Route\nname: c\n");
        write("a.json", r#"{ "resources": [{ "kind": "Fleet", "name": "a" }, 7] }"#);
        write("more/d.yml", "# comment\nkind: Route\nname: d\n");
        write("notes.txt", "not: [yaml");
        write(".hidden.yaml", "not: [yaml");
        let manifest = Manifest::read(&[folder.path().to_owned()]).unwrap();
        let names: Vec<_> = manifest.keys().map(|(key, _)| key.map(|(_, name)| name)).collect();
        assert_eq!(names, [Some("a"), None, Some("b"), Some("c"), Some("d")]);

        let place = |name: &str| folder.path().join(name).display().to_string();
        let located = |resource: &str| manifest.locate(&problem(resource, "spec"));
        assert_eq!(located("Route/c"), format!("{}:5: Route/c: spec: is wrong", place("b.yaml")));
        assert_eq!(located("Route/d"), format!("{}:2: Route/d: spec: is wrong", place("more/d.yml")));
        assert_eq!(located("resources[1]"), format!("{}:1: spec: is wrong", place("a.json")));
        assert_eq!(located("Route/elsewhere"), "Route/elsewhere: spec: is wrong");
        assert_eq!(located(""), "spec: is wrong");
    }

    #[test]
    fn what_is_too_much_comes_in_parts() {
        let read = || {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("a.yaml");
            let document = |(kind, name)| format!("kind: {kind}\nname: {name}\n");
            let all = [("Route", "r"), ("Service", "s"), ("Fleet", "f"), ("Service", "t"), ("Listener", "l")];
            fs::write(&file, all.map(document).join("---\n")).unwrap();
            Manifest::read(&[file]).unwrap()
        };
        let names = |manifest: &Manifest| {
            manifest.keys().filter_map(|(key, _)| Some(key?.1.to_owned())).collect::<Vec<_>>().join("")
        };
        let parts = |most| read().parts(most).iter().map(names).collect::<Vec<_>>();
        assert_eq!(parts(10_000), ["rsftl"]);
        assert_eq!(parts(70), ["fl", "st", "r"]);
        assert_eq!(parts(1), ["f", "l", "s", "t", "r"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let missing = Manifest::read(std::slice::from_ref(&file)).unwrap_err();
        assert_eq!(missing.exit_code(), 2);
        fs::write(&file, "a: 1\nb: [\n").unwrap();
        let broken = Manifest::read(std::slice::from_ref(&file)).unwrap_err();
        assert_eq!(broken.exit_code(), 1);
        assert!(broken.lines()[0].starts_with(&format!("{}:", file.display())), "{:?}", broken.lines());
        fs::write(&file, "# nothing\n").unwrap();
        assert_eq!(Manifest::read(&[file]).unwrap_err().exit_code(), 2);
    }
}
