//! What is in a backup: lines of JSON, between a header that says what follows and an end that says that all of it came. Pure.
//!
//! ```text
//! {"chancery-backup":1,"program":"0.1.0","madeAt":"…","source":"postgres","contents":{…}}
//! {"file":{"path":"admin-token","mode":384,"content":"…"}}
//! ["revisions",1,"ada","first",1790000000000000,2]
//! {"end":{"rows":{"revisions":1,…},"files":1,"sha256":"…"}}
//! ```
//!
//! A row is its table and the values of the columns that the header lists for it. The hash is of every byte before the last line. It finds
//! what a disk or a program got wrong; that nobody else wrote the file is not in it, since whoever has the recipient can encrypt to it.
//!
//! The outer layers, gzip in age, are `seal`'s.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read as _, Write},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::files::BackedUpFile;
use crate::store::state::{Contents, Row, Table};

/// The version of the format that is written.
pub const FORMAT: u32 = 1;

/// The oldest version of the format that is read: the one before, once there is one.
pub const OLDEST_FORMAT: u32 = 1;

/// The most bytes of a line: some times a document that the API takes.
const LONGEST_LINE: u64 = 64 << 20;

/// What a backup begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The version of the format.
    #[serde(rename = "chancery-backup")]
    pub format: u32,
    /// The version of the program that made it.
    pub program: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub made_at: OffsetDateTime,
    /// The kind of database it was made of.
    pub source: String,
    /// What follows.
    pub contents: Contents,
}

/// What a backup ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    rows: BTreeMap<String, u64>,
    files: u64,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Line {
    File(BackedUpFile),
    End(End),
}

/// What comes after the header.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A file of the data folder.
    File(BackedUpFile),
    /// A row of the table of this place.
    Row(usize, Row),
}

/// How much there is of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
    /// Files of the data folder.
    pub files: u64,
}

/// Why a backup cannot be read, or not be written.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Reading failed: the layers outside find what was damaged or cut off.
    #[error("it is damaged, cut short, or cannot be read")]
    Read(#[source] io::Error),
    /// Writing failed.
    #[error("it cannot be written")]
    Write(#[source] io::Error),
    /// It is something else.
    #[error("it is no backup of Chancery")]
    NoBackup,
    /// Its format is another.
    #[error("it has format {found}; this program reads {OLDEST_FORMAT} to {FORMAT}")]
    Format {
        /// Which it has.
        found: u64,
    },
    /// A line is not what it should be.
    #[error("line {line} cannot be understood: {reason}")]
    Line {
        /// Which, from 1.
        line: u64,
        /// Why.
        reason: String,
    },
    /// The end is missing.
    #[error("it is cut short after line {0}")]
    Cut(u64),
    /// The end does not say what came.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Writes the lines of a backup.
pub struct Writer<W> {
    to: W,
    hash: Sha256,
    tables: Vec<Table>,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn begin(to: W, header: &Header) -> Result<Self, FormatError> {
        let tables = header.contents.tables.clone();
        let rows = tables.iter().map(|table| (table.name.clone(), 0)).collect();
        let mut writer = Self { to, hash: Sha256::new(), tables, counts: Counts { rows, files: 0 } };
        writer.line(header)?;
        Ok(writer)
    }

    /// The next item.
    pub fn item(&mut self, item: Item) -> Result<(), FormatError> {
        match item {
            Item::File(file) => {
                self.counts.files += 1;
                self.line(&Line::File(file))
            }
            Item::Row(table, row) => {
                let Some(Table { name, .. }) = self.tables.get(table) else {
                    return Err(FormatError::Damaged("a row belongs to no table"));
                };
                let line: Vec<Value> = std::iter::once(name.as_str().into()).chain(row).collect();
                *self.counts.rows.entry(name.clone()).or_default() += 1;
                self.line(&line)
            }
        }
    }

    /// Ends it, and says how much there is of what.
    pub fn end(mut self) -> Result<(W, Counts), FormatError> {
        let sha256 = hexadecimal(&self.hash.clone().finalize());
        let Counts { rows, files } = self.counts.clone();
        self.line(&Line::End(End { rows, files, sha256 }))?;
        Ok((self.to, self.counts))
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), FormatError> {
        let mut text = serde_json::to_vec(line).map_err(|error| FormatError::Write(error.into()))?;
        text.push(b'\n');
        self.hash.update(&text);
        self.to.write_all(&text).map_err(FormatError::Write)
    }
}

/// Reads the lines of a backup.
pub struct Reader<R> {
    from: R,
    hash: Sha256,
    line: u64,
    tables: Vec<Table>,
    counts: Counts,
    ended: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// It is no backup, or one of another format.
    pub fn begin(from: R) -> Result<(Self, Header), FormatError> {
        let counts = Counts::default();
        let mut reader = Self { from, hash: Sha256::new(), line: 0, tables: Vec::new(), counts, ended: false };
        let first = reader.next_line()?.ok_or(FormatError::NoBackup)?;
        let first: Value = serde_json::from_slice(&first).map_err(|_| FormatError::NoBackup)?;
        // Before anything else is understood: another format may have another header.
        let format = first.get("chancery-backup").and_then(Value::as_u64).ok_or(FormatError::NoBackup)?;
        if !(u64::from(OLDEST_FORMAT)..=u64::from(FORMAT)).contains(&format) {
            return Err(FormatError::Format { found: format });
        }
        let header: Header =
            serde_json::from_value(first).map_err(|error| FormatError::Line { line: 1, reason: error.to_string() })?;
        reader.tables.clone_from(&header.contents.tables);
        reader.counts.rows = reader.tables.iter().map(|table| (table.name.clone(), 0)).collect();
        Ok((reader, header))
    }

    /// The next item; none: all came, and is what was written.
    ///
    /// # Errors
    /// Something is damaged or missing.
    pub fn item(&mut self) -> Result<Option<Item>, FormatError> {
        if self.ended {
            return Ok(None);
        }
        let before = hexadecimal(&self.hash.clone().finalize());
        let line = self.next_line()?.ok_or(FormatError::Cut(self.line))?;
        if line.starts_with(b"[") {
            return self.row(&line).map(Some);
        }
        match serde_json::from_slice(&line).map_err(|error| self.wrong(error.to_string()))? {
            Line::File(file) => {
                self.counts.files += 1;
                Ok(Some(Item::File(file)))
            }
            Line::End(End { rows, files, sha256 }) => {
                if (rows, files) != (self.counts.rows.clone(), self.counts.files) {
                    return Err(FormatError::Damaged("it holds more or less than it says"));
                }
                if sha256 != before {
                    return Err(FormatError::Damaged("it has another hash than it says"));
                }
                if self.next_line()?.is_some() {
                    return Err(FormatError::Damaged("it goes on after its end"));
                }
                self.ended = true;
                Ok(None)
            }
        }
    }

    /// How much there was of what, so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn row(&mut self, line: &[u8]) -> Result<Item, FormatError> {
        let row: Row = serde_json::from_slice(line).map_err(|error| self.wrong(error.to_string()))?;
        let mut values = row.into_iter();
        let name = values.next();
        let of = |table: &Table| Some(table.name.as_str()) == name.as_ref().and_then(Value::as_str);
        let Some((index, table)) = self.tables.iter().enumerate().find(|(_, table)| of(table)) else {
            return Err(self.wrong("it is of a table that the header does not list".to_owned()));
        };
        let (name, columns) = (table.name.clone(), table.columns.len());
        let row: Row = values.collect();
        if row.len() != columns {
            return Err(self.wrong(format!("a row of {name} with {} columns instead of {columns}", row.len())));
        }
        *self.counts.rows.entry(name).or_default() += 1;
        Ok(Item::Row(index, row))
    }

    fn next_line(&mut self) -> Result<Option<Vec<u8>>, FormatError> {
        let mut line = Vec::new();
        (&mut self.from).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(FormatError::Read)?;
        if line.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if line.last() != Some(&b'\n') {
            return Err(if self.line == 1 { FormatError::NoBackup } else { FormatError::Cut(self.line) });
        }
        self.hash.update(&line);
        Ok(Some(line))
    }

    fn wrong(&self, reason: String) -> FormatError {
        FormatError::Line { line: self.line, reason }
    }
}

/// Bytes in hexadecimal.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
