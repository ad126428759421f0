//! Where programs of this host have their settings, as the units in `deploy/systemd` do: a TOML file, and the environment in a
//! file with the ending `.env` beside it.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Where units expect settings.
const FOLDER: &str = "/etc/chancery";

/// The settings file of the program `name`, if there is one where units expect it.
pub(crate) fn usual_settings(name: &str) -> Option<PathBuf> {
    Some(Path::new(FOLDER).join(format!("{name}.toml"))).filter(|path| path.exists())
}

/// The variables in the file beside the settings `file`; none if there is no such file.
pub(crate) fn environment_beside(file: &Path) -> io::Result<Vec<(String, String)>> {
    match std::fs::read_to_string(file.with_extension("env")) {
        Ok(text) => Ok(variables(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The variables of a file as systemd's `EnvironmentFile` has it, without its escapes.
fn variables(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
    let unquoted = |value: &str| {
        let inner = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
        inner.unwrap_or(value).to_owned()
    };
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), unquoted(value.trim())))
        .collect()
}
