//! Whether what a backup holds is a state that a control plane can be in: rows come in, what is wrong with them comes out. Pure.
//!
//! The same check is run over what is read from a database, from a file to be verified, and from one to be restored:
//!
//! - revisions are numbered without a gap up to the one that the header names, and the resources are what their changes lead to: all
//!   of it is of one instant;
//! - every resource can be parsed, and all together are a consistent catalog;
//! - the audit log is one chain, and the revisions have the hashes that it says.
//!
//! It holds the resources, and of each revision and each resource's last change about a hundred bytes.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::{
    model::{Catalog, Document, Problems, parse},
    store::{
        Entry,
        audit::{
            Hash,
            chain::{Chain, Finding, Verdict},
            revision_digest,
        },
        state::{Contents, Row},
    },
};

/// The most that is told of what is wrong.
const MOST_FINDINGS: usize = 100;

/// A revision whose changes have not come yet.
struct Summary {
    author: String,
    message: String,
    at: i64,
}

/// `kind, name, before, after` of a change.
type ChangeRow = (String, String, Option<String>, Option<String>);

/// The check of one backup.
pub struct Check {
    contents: Contents,
    revisions: BTreeMap<u64, Summary>,
    digests: HashMap<u64, Hash>,
    /// The revision whose changes are coming, and those that came.
    changes: (u64, Vec<ChangeRow>),
    /// The hash of each resource's document by its last change, as long as no resource has shown it.
    last: HashMap<(String, String), Option<[u8; 32]>>,
    entries: Vec<crate::model::Entry>,
    problems: Problems,
    chain: Chain,
    findings: Vec<String>,
}

impl Check {
    /// Of what is said to follow.
    pub fn of(contents: &Contents) -> Self {
        Self {
            contents: contents.clone(),
            revisions: BTreeMap::new(),
            digests: HashMap::new(),
            changes: (0, Vec::new()),
            last: HashMap::new(),
            entries: Vec::new(),
            problems: Problems::default(),
            chain: Chain::expecting(contents.audit.clone()),
            findings: Vec::new(),
        }
    }

    /// The next row, of the table of this place.
    pub fn row(&mut self, table: usize, row: &Row) {
        let Some(of) = self.contents.tables.get(table) else { return };
        let name = of.name.clone();
        let fields = Fields(of.columns.iter().map(|(column, _)| column.as_str()).zip(row).collect());
        let understood = match name.as_str() {
            "revisions" => read_revision(&fields).map(|(number, summary)| self.revision(number, summary)),
            "changes" => read_change(&fields).map(|(revision, change)| self.change(revision, change)),
            "resources" => read_resource(&fields).map(|resource| self.resource(resource)),
            "audit" => read_entry(&fields).map(|entry| self.entry(&entry)),
            _ => Some(()),
        };
        if understood.is_none() {
            self.finding(format!("a row of {name} cannot be understood"));
        }
    }

    /// No row is left. What is wrong, at most a hundred things; nothing: it is whole.
    pub fn end(mut self) -> Vec<String> {
        self.end_revision();
        let head = self.revisions.len() as u64;
        let newest = self.revisions.keys().next_back().copied().unwrap_or(0);
        if newest != head {
            self.finding(format!("the newest revision is {newest}, and there are {head}"));
        }
        if newest != self.contents.revision {
            self.finding(format!("it ends at revision {newest} and says {}", self.contents.revision));
        }
        let missing: Vec<_> = self.last.iter().filter(|(_, hash)| hash.is_some()).map(|(key, _)| key.clone()).collect();
        for (kind, name) in missing {
            self.finding(format!("{kind}/{name} is missing, or not as its last change says"));
        }
        if let Err(problems) = Catalog::load(std::mem::take(&mut self.entries)) {
            problems.iter().for_each(|problem| self.finding(problem.to_string()));
        }
        for problem in std::mem::take(&mut self.problems).into_vec() {
            self.finding(problem.to_string());
        }
        let Verdict { findings, .. } = std::mem::take(&mut self.chain).end(Some(newest));
        for Finding { sequence, problem } in findings {
            self.finding(format!("audit log, entry {sequence}: {problem}"));
        }
        self.findings
    }

    fn revision(&mut self, number: u64, summary: Summary) {
        self.revisions.insert(number, summary);
    }

    fn change(&mut self, revision: u64, change: ChangeRow) {
        if revision != self.changes.0 {
            self.end_revision();
            self.changes.0 = revision;
        }
        let (kind, name, _, after) = &change;
        let after = after.as_ref().map(|after| Sha256::digest(after).into());
        self.last.insert((kind.clone(), name.clone()), after);
        self.changes.1.push(change);
    }

    fn end_revision(&mut self) {
        let (number, changes) = std::mem::take(&mut self.changes);
        if number == 0 {
            return;
        }
        let Some(Summary { author, message, at }) = self.revisions.get(&number) else {
            return self.finding(format!("there are changes of revision {number}, which is not there"));
        };
        let texts = changes.iter().map(|(k, n, b, a)| (k.as_str(), n.as_str(), b.as_deref(), a.as_deref()));
        let digest = revision_digest((number.cast_signed(), author, message, *at), texts);
        self.digests.insert(number, digest);
    }

    fn resource(&mut self, Resource { kind, name, text, revision, updated_at, updated_by }: Resource) {
        self.end_revision();
        let hash: [u8; 32] = Sha256::digest(&text).into();
        match self.last.get_mut(&(kind.clone(), name.clone())) {
            Some(last) if *last == Some(hash) => *last = None,
            Some(Some(_)) => {} // told of in the end
            _ => self.finding(format!("{kind}/{name} is there, and its changes do not say so")),
        }
        let document: Document = match serde_json::from_str(&text) {
            Ok(document) => document,
            Err(error) => return self.finding(format!("{kind}/{name} cannot be read: {error}")),
        };
        if let Some(resource) = parse(&document, &mut self.problems) {
            let document = document.into();
            self.entries.push(crate::model::Entry { document, resource, revision, updated_at, updated_by });
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.end_revision();
        self.chain.entry(entry);
        if let Some(revision) = entry.revision {
            self.chain.revision(entry, self.digests.get(&revision));
        }
    }

    fn finding(&mut self, finding: String) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(finding);
        }
    }
}

struct Resource {
    kind: String,
    name: String,
    text: String,
    revision: u64,
    updated_at: OffsetDateTime,
    updated_by: String,
}

/// A row by the names of its columns.
struct Fields<'a>(HashMap<&'a str, &'a Value>);

impl Fields<'_> {
    fn text(&self, column: &str) -> Option<String> {
        Some(self.0.get(column)?.as_str()?.to_owned())
    }

    /// Outside: it makes no sense; inside: null.
    fn maybe(&self, column: &str) -> Option<Option<String>> {
        match self.0.get(column)? {
            Value::Null => Some(None),
            value => Some(Some(value.as_str()?.to_owned())),
        }
    }

    /// As a database can hold it, so that the next one is a number as well.
    fn number(&self, column: &str) -> Option<u64> {
        u64::try_from(self.0.get(column)?.as_i64()?).ok()
    }

    fn time(&self, column: &str) -> Option<OffsetDateTime> {
        let micros = self.0.get(column)?.as_i64()?;
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).ok()
    }
}

fn read_revision(fields: &Fields<'_>) -> Option<(u64, Summary)> {
    let (author, message) = (fields.text("author")?, fields.text("message")?);
    Some((fields.number("number")?, Summary { author, message, at: fields.0.get("at")?.as_i64()? }))
}

fn read_change(fields: &Fields<'_>) -> Option<(u64, ChangeRow)> {
    let change = (fields.text("kind")?, fields.text("name")?, fields.maybe("before")?, fields.maybe("after")?);
    Some((fields.number("revision")?, change))
}

fn read_resource(fields: &Fields<'_>) -> Option<Resource> {
    Some(Resource {
        kind: fields.text("kind")?,
        name: fields.text("name")?,
        text: fields.text("document")?,
        revision: fields.number("revision")?,
        updated_at: fields.time("updated_at")?,
        updated_by: fields.text("updated_by")?,
    })
}

fn read_entry(fields: &Fields<'_>) -> Option<Entry> {
    let revision = match fields.0.get("revision")? {
        Value::Null => None,
        _ => Some(fields.number("revision")?),
    };
    Some(Entry {
        sequence: fields.number("sequence")?,
        at: fields.time("at")?,
        actor: fields.text("actor")?,
        address: fields.text("address")?,
        action: fields.text("action")?,
        outcome: fields.text("outcome")?,
        kind: fields.text("kind")?,
        name: fields.text("name")?,
        detail: fields.text("detail")?,
        before: fields.maybe("before")?,
        after: fields.maybe("after")?,
        times: fields.number("times")?,
        revision,
        digest: fields.maybe("digest")?,
        previous: fields.text("previous")?,
        hash: fields.text("hash")?,
    })
}
