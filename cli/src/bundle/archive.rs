//! The archive: entries, and a manifest that says what is in it and what could not be had. Bounded, and the same bytes for the same entries.

use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};
use serde::Serialize;
use tar::{Builder, Header};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Bytes of all entries together; what comes after is left out.
pub(super) const MOST_BYTES: usize = 64 << 20;

/// The folder that everything is in.
const FOLDER: &str = "chancery-bundle";

/// What was asked for, and what came of it: bytes, or the reason why there are none.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path in the archive.
    pub(super) path: String,
    /// What it is.
    pub(super) about: &'static str,
    pub(super) contents: Result<Vec<u8>, String>,
}

/// What is in an archive.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Manifest {
    /// Of the command that made it.
    version: String,
    /// When.
    made: String,
    /// What is said of secrets.
    secrets: &'static str,
    entries: Vec<Held>,
    pub(super) missing: Vec<Missing>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Held {
    path: String,
    about: &'static str,
    bytes: usize,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Missing {
    pub(super) path: String,
    about: &'static str,
    pub(super) reason: String,
}

/// An archive of `entries`, gzip'ed tar, with its manifest first.
///
/// # Errors
/// Memory cannot be written to, or a path is longer than a tar takes.
pub(super) fn pack(entries: Vec<Entry>, version: &str, made: OffsetDateTime) -> io::Result<(Vec<u8>, Manifest)> {
    let mut manifest = Manifest {
        version: version.to_owned(),
        made: made.format(&Rfc3339).unwrap_or_default(),
        secrets: "taken out; fields that held one say [hidden]",
        entries: Vec::new(),
        missing: Vec::new(),
    };
    let (mut held, mut left) = (Vec::new(), MOST_BYTES);
    for Entry { path, about, contents } in entries {
        match contents {
            Ok(contents) if contents.len() <= left => {
                left -= contents.len();
                manifest.entries.push(Held { path: path.clone(), about, bytes: contents.len() });
                held.push((path, contents));
            }
            Ok(contents) => {
                let reason = format!("{} bytes would make it larger than {} MiB", contents.len(), MOST_BYTES >> 20);
                manifest.missing.push(Missing { path, about, reason });
            }
            Err(reason) => manifest.missing.push(Missing { path, about, reason }),
        }
    }
    let seconds = u64::try_from(made.unix_timestamp()).unwrap_or(0);
    let mut archive = Builder::new(GzBuilder::new().write(Vec::new(), Compression::default()));
    append(&mut archive, "manifest.json", crate::output::json(&manifest).as_bytes(), seconds)?;
    for (path, contents) in held {
        append(&mut archive, &path, &contents, seconds)?;
    }
    let mut compressed = archive.into_inner()?;
    compressed.flush()?;
    Ok((compressed.finish()?, manifest))
}

fn append(archive: &mut Builder<impl io::Write>, path: &str, contents: &[u8], seconds: u64) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(contents.len() as u64);
    header.set_mode(0o600);
    header.set_mtime(seconds);
    archive.append_data(&mut header, format!("{FOLDER}/{path}"), contents)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;
    use time::macros::datetime;

    use super::*;

    fn entry(path: &str, contents: Result<Vec<u8>, &str>) -> Entry {
        Entry { path: path.to_owned(), about: "a thing", contents: contents.map_err(str::to_owned) }
    }

    #[test]
    fn what_is_there_and_what_is_not_is_in_the_manifest() {
        let entries = || {
            vec![
                entry("a.json", Ok(b"{}".to_vec())),
                entry("b.json", Err("it does not answer")),
                entry("huge", Ok(vec![0; MOST_BYTES])),
                entry("c.txt", Ok(b"still fits".to_vec())),
            ]
        };
        let made = datetime!(2026-11-21 3:00 UTC);
        let (bytes, manifest) = pack(entries(), "1.0", made).unwrap();
        assert_eq!(manifest.entries.iter().map(|held| held.path.as_str()).collect::<Vec<_>>(), ["a.json", "c.txt"]);
        assert_eq!(manifest.missing[0].reason, "it does not answer");
        assert!(manifest.missing[1].reason.contains("64 MiB"), "{manifest:?}");
        assert_eq!(bytes, pack(entries(), "1.0", made).unwrap().0, "the same entries, the same bytes");

        let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            names.push((entry.path().unwrap().display().to_string(), text));
        }
        assert_eq!(names[0].0, "chancery-bundle/manifest.json");
        assert!(names[0].1.contains("2026-11-21T03:00:00Z"));
        assert_eq!(names[2], ("chancery-bundle/c.txt".to_owned(), "still fits".to_owned()));
    }
}
