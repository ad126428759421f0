//! Where a program's settings come from: flags, then environment, then a TOML file, then defaults.
//!
//! One struct says everything: its keys are the file's keys, the flags' names and, upper-cased
//! behind `CHANCERY_`, the environment's. The keys are read off the serialized defaults, so the
//! environment is asked only for variables that mean something: other variables with the same
//! prefix belong to other programs and are left alone. In the file there is no such excuse: a key
//! nobody reads is a typing error, and all of them are reported, each with its file.
//!
//! The settings struct must serialize each of its fields (no `skip_serializing_if`), or the field
//! counts as unknown. A secret has no default but the empty one: [`Secret`](crate::Secret) serializes as a mask.

use std::path::{Path, PathBuf};

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::Serialized,
    value::{Dict, Map, Num, Tag, Value},
};
use serde::{Serialize, de::DeserializeOwned};

/// What the names of environment variables start with.
pub const ENVIRONMENT_PREFIX: &str = "CHANCERY_";

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read settings file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("settings file {} is not valid TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The file has keys that no setting has.
    #[error("settings file {} has unknown {}: {}; known are {}", path.display(), if keys.len() == 1 { "key" } else { "keys" }, keys.join(", "), known.join(", "))]
    UnknownKeys {
        /// The file.
        path: PathBuf,
        /// The unknown keys, dotted.
        keys: Vec<String>,
        /// The keys there are, dotted.
        known: Vec<String>,
    },
    /// A value has the wrong type or is out of range; the message names its key and source.
    #[error("invalid setting")]
    Invalid(#[source] Box<figment::Error>),
    /// The settings cannot be written as TOML.
    #[error("cannot print the settings")]
    Print(#[source] toml::ser::Error),
}

/// The settings `T` from all four sources; the earlier of `flags`, `environment`, `file` and
/// `T::default()` wins, key by key.
///
/// `flags` is serialized; a field that is `None` says nothing. In the environment a text list is
/// comma-separated.
///
/// # Errors
/// Says which key of which source is wrong, and why.
pub fn load<T, F>(
    flags: &F,
    environment: impl IntoIterator<Item = (String, String)>,
    file: Option<&Path>,
) -> Result<T, SettingsError>
where
    T: Default + Serialize + DeserializeOwned,
    F: Serialize,
{
    let defaults = dict(&T::default())?;

    let mut figment = Figment::from(Layer::new("defaults", defaults.clone()));
    if let Some(path) = file {
        figment = figment.merge(from_file(path, &defaults)?);
    }
    figment = figment.merge(from_environment(environment, &defaults));
    let mut said = dict(flags)?;
    remove_unsaid(&mut said);
    figment = figment.merge(Layer::new("command line", said));
    figment.extract().map_err(invalid)
}

/// The settings as TOML, for `--print-settings`. Secrets are masked.
///
/// # Errors
/// A value that TOML cannot hold.
pub fn print<T: Serialize>(settings: &T) -> Result<String, SettingsError> {
    toml::to_string_pretty(settings).map_err(SettingsError::Print)
}

/// One source, under the name that errors give it.
struct Layer {
    metadata: Metadata,
    values: Dict,
}

impl Layer {
    fn new(name: &'static str, values: Dict) -> Self {
        let metadata = Metadata::named(name).interpolater(|_: &Profile, keys: &[&str]| keys.join("."));
        Self { metadata, values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

fn invalid(source: figment::Error) -> SettingsError {
    SettingsError::Invalid(Box::new(source))
}

fn dict<T: Serialize>(value: &T) -> Result<Dict, SettingsError> {
    let mut profiles = Serialized::defaults(value).data().map_err(invalid)?;
    Ok(profiles.remove(&Profile::Default).unwrap_or_default())
}

fn from_file(path: &Path, defaults: &Dict) -> Result<Layer, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
    let table: toml::Table = toml::from_str(&text)
        .map_err(|source| SettingsError::Syntax { path: path.to_owned(), source: Box::new(source) })?;
    let values = dict(&table)?;

    let mut keys = Vec::new();
    unknown_keys(&values, defaults, "", &mut keys);
    if !keys.is_empty() {
        let mut known = Vec::new();
        leaves(defaults, "", &mut |key, _| known.push(key.to_owned()));
        return Err(SettingsError::UnknownKeys { path: path.to_owned(), keys, known });
    }
    let mut layer = Layer::new("settings file", values);
    layer.metadata = layer.metadata.source(path);
    Ok(layer)
}

fn from_environment(environment: impl IntoIterator<Item = (String, String)>, defaults: &Dict) -> Layer {
    let variables: Map<String, String> = environment.into_iter().collect();
    let mut values = Dict::new();
    leaves(defaults, "", &mut |key, default| {
        if let Some(text) = variables.get(&variable(key)) {
            insert(&mut values, key, like(default, text));
        }
    });
    let mut layer = Layer::new("environment variable", values);
    layer.metadata = layer.metadata.interpolater(|_: &Profile, keys: &[&str]| variable(&keys.join(".")));
    layer
}

/// `xds-addr` and `tls.private_key` as environment variables: `CHANCERY_XDS_ADDR`, `CHANCERY_TLS_PRIVATE_KEY`.
fn variable(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.to_ascii_uppercase().replace(['.', '-'], "_"))
}

/// Calls `visit` with the dotted key and default of each setting.
fn leaves(dict: &Dict, parent: &str, visit: &mut dyn FnMut(&str, &Value)) {
    for (key, value) in dict {
        let key = join(parent, key);
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => leaves(inner, &key, visit),
            value => visit(&key, value),
        }
    }
}

fn unknown_keys(given: &Dict, defaults: &Dict, parent: &str, unknown: &mut Vec<String>) {
    for (key, value) in given {
        let path = join(parent, key);
        match (value, defaults.get(key)) {
            (_, None) => unknown.push(path),
            // An empty table by default takes free keys.
            (Value::Dict(_, given), Some(Value::Dict(_, defaults))) if !defaults.is_empty() => {
                unknown_keys(given, defaults, &path, unknown);
            }
            _ => {}
        }
    }
}

fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn insert(dict: &mut Dict, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            dict.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = dict.entry(head.to_owned()).or_insert_with(|| Dict::new().into());
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The text as a value of the default's type; text that does not read as one stays text, and the
/// settings' own type then says what it wanted.
fn like(default: &Value, text: &str) -> Value {
    let text = text.trim();
    let parsed = match default {
        Value::Bool(..) => text.parse::<bool>().ok().map(Value::from),
        Value::Num(_, Num::F32(_) | Num::F64(_)) => text.parse::<f64>().ok().map(Value::from),
        Value::Num(..) => text.parse::<i64>().ok().map(Value::from),
        Value::Array(..) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(Value::Array(Tag::Default, items.map(Value::from).collect()))
        }
        _ => None,
    };
    parsed.unwrap_or_else(|| Value::from(text))
}

/// Drops what was not said on the command line, which would otherwise hide lower sources.
fn remove_unsaid(dict: &mut Dict) {
    dict.retain(|_, value| match value {
        Value::Empty(..) => false,
        Value::Dict(_, inner) => {
            remove_unsaid(inner);
            !inner.is_empty()
        }
        _ => true,
    });
}

#[cfg(test)]
mod tests;
