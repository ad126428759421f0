//! An entry of the audit log, and the bytes that its hash is of. Pure.
//!
//! The encoding is one for all time: every text with its length before it, every number in eight bytes, big end first, and before
//! what may be missing one byte that says whether it is there. So no two entries have the same bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::super::{RevisionSummary, StoreError, rows};

/// A SHA-256, in hexadecimal.
pub type Hash = String;

/// What stands before the bytes of an entry, and of a revision: one never passes for the other.
const ENTRY: &str = "chancery audit entry 1";
const REVISION: &str = "chancery revision 1";

/// What was done, or would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A change of resources: a revision.
    Write,
    /// A token was used for the first time in a while from an address, or one that is not good was used.
    SignIn,
    /// A token was made.
    CreateToken,
    /// A token was given another secret.
    RotateToken,
    /// A token was ended.
    RevokeToken,
    /// An enrolment was made.
    CreateEnrolment,
    /// An enrolment was ended.
    RevokeEnrolment,
    /// A proxy has enrolled.
    Enrol,
    /// What proxies had rejected is served once more.
    ReleaseQuarantine,
    /// A revision was given to all of a fleet.
    Promote,
    /// A revision was taken back from the canaries of a fleet.
    Return,
    /// An endpoint registers itself, or leaves. Only refusals are written down.
    Register,
    /// Something was asked for. Only refusals are written down.
    Read,
    /// Old entries went.
    Retention,
    /// Everything was restored from a backup; what came before in the log is of the backup.
    Restore,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 15] = [
        Self::Write,
        Self::SignIn,
        Self::CreateToken,
        Self::RotateToken,
        Self::RevokeToken,
        Self::CreateEnrolment,
        Self::RevokeEnrolment,
        Self::Enrol,
        Self::ReleaseQuarantine,
        Self::Promote,
        Self::Return,
        Self::Register,
        Self::Read,
        Self::Retention,
        Self::Restore,
    ];

    /// As it is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::SignIn => "sign-in",
            Self::CreateToken => "token.create",
            Self::RotateToken => "token.rotate",
            Self::RevokeToken => "token.revoke",
            Self::CreateEnrolment => "enrolment.create",
            Self::RevokeEnrolment => "enrolment.revoke",
            Self::Enrol => "enrol",
            Self::ReleaseQuarantine => "quarantine.release",
            Self::Promote => "rollout.promote",
            Self::Return => "rollout.return",
            Self::Register => "endpoint.register",
            Self::Read => "read",
            Self::Retention => "retention",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused.
    Refused,
}

impl Outcome {
    /// As it is written down.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// Something to be written down. No field may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// When.
    pub at: OffsetDateTime,
    /// Who: the name of a principal; empty: nobody knows.
    pub actor: String,
    /// From where: the address of the connection's other end; empty: from inside.
    pub address: String,
    /// What.
    pub action: Action,
    /// With what outcome.
    pub outcome: Outcome,
    /// To what kind of thing, and which one; empty: to none, or to all that the revision changed.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why it was refused, or what else is to be known.
    pub detail: String,
    /// What it was, as JSON. Of a revision, the revision has it.
    pub before: Option<String>,
    /// What it is, as JSON.
    pub after: Option<String>,
    /// How often: of refusals, all that were the same within a minute are one entry.
    pub times: u64,
}

impl NewEntry {
    /// That `actor` has done `action`, from `address`, at the time `at`.
    pub fn done(action: Action, actor: &str, address: &str, at: OffsetDateTime) -> Self {
        Self {
            at,
            actor: actor.to_owned(),
            address: address.to_owned(),
            action,
            outcome: Outcome::Done,
            kind: String::new(),
            name: String::new(),
            detail: String::new(),
            before: None,
            after: None,
            times: 1,
        }
    }

    /// The same, about something.
    #[must_use]
    pub fn about(self, kind: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), name: name.to_owned(), ..self }
    }
}

/// An entry as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// Its place, from 1.
    pub sequence: u64,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub at: OffsetDateTime,
    /// Who: under which name they are known; empty if nobody knows.
    #[schema(examples("admin"))]
    pub actor: String,
    /// The address that the request came from; empty: from the control plane itself.
    #[schema(examples("10.0.0.1"))]
    pub address: String,
    /// What was done or refused.
    #[schema(examples("write"))]
    pub action: String,
    /// `done` or `refused`.
    #[schema(examples("done"))]
    pub outcome: String,
    /// The kind of thing; empty: everything that `revision` changed.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Why it was refused, or a revision's message.
    pub detail: String,
    /// What it was before, as JSON in a text.
    pub before: Option<String>,
    /// What it was afterwards, as JSON in a text.
    pub after: Option<String>,
    /// How often it happened: refusals that are alike are one entry per minute.
    pub times: u64,
    /// The revision that it made, which has what was before and after.
    pub revision: Option<u64>,
    /// The hash of that revision.
    #[schema(value_type = Option<String>)]
    pub digest: Option<Hash>,
    /// The hash of the entry before.
    #[schema(value_type = String)]
    pub previous: Hash,
    /// The hash of all this.
    #[schema(value_type = String)]
    pub hash: Hash,
}

impl Entry {
    /// The hash that an entry with these contents has.
    pub fn computed_hash(&self) -> Hash {
        let mut bytes = Bytes::of(ENTRY);
        bytes.number(self.sequence).time(self.at);
        for text in [&self.actor, &self.address, &self.action, &self.outcome, &self.kind, &self.name, &self.detail] {
            bytes.text(text);
        }
        bytes.maybe(self.before.as_deref()).maybe(self.after.as_deref()).number(self.times);
        bytes.maybe(self.revision.map(|revision| revision.to_string()).as_deref()).maybe(self.digest.as_deref());
        bytes.text(&self.previous).hash()
    }

    /// Of an entry about retention: the last sequence that went, and its hash.
    pub(super) fn trimmed(&self) -> Option<(u64, &str)> {
        let trimmed = self.action == Action::Retention.as_str();
        trimmed.then(|| self.name.parse().ok().map(|through| (through, self.detail.as_str()))).flatten()
    }
}

/// The entry of a revision that came from the address `from`.
pub(in crate::store) fn of_revision(summary: &RevisionSummary, from: &str) -> NewEntry {
    let entry = NewEntry::done(Action::Write, &summary.author, from, summary.at);
    NewEntry { detail: summary.message.clone(), ..entry }
}

/// The entry which says that all up to the one of `sequence` and `hash` went.
pub(in crate::store) fn of_trim(sequence: u64, hash: &str, now: OffsetDateTime) -> NewEntry {
    let entry = NewEntry::done(Action::Retention, "", "", now).about("audit", &sequence.to_string());
    NewEntry { detail: hash.to_owned(), ..entry }
}

/// `new` as they follow the entry of sequence and hash `last`, if there is any; `revision` is that of all of them, with its hash.
pub(in crate::store) fn sealed(
    new: Vec<NewEntry>,
    last: Option<(u64, Hash)>,
    revision: Option<(u64, Hash)>,
) -> Vec<Entry> {
    let (mut sequence, mut previous) = last.unwrap_or_default();
    let (revision, digest) = revision.unzip();
    let seal = |new: NewEntry| {
        let NewEntry { at, actor, address, action, outcome, kind, name, detail, before, after, times } = new;
        sequence += 1;
        let mut entry = Entry {
            sequence,
            at,
            actor: rows::storable(actor),
            address: rows::storable(address),
            action: action.to_string(),
            outcome: outcome.as_str().to_owned(),
            kind: rows::storable(kind),
            name: rows::storable(name),
            detail: rows::storable(detail),
            before: before.map(rows::storable),
            after: after.map(rows::storable),
            times,
            revision,
            digest: digest.clone(),
            previous: std::mem::take(&mut previous),
            hash: Hash::new(),
        };
        entry.hash = entry.computed_hash();
        previous.clone_from(&entry.hash);
        entry
    };
    new.into_iter().map(seal).collect()
}

/// The hash of a revision: its row, and `kind, name, before, after` of each of its changes, in whatever order they come.
pub fn revision_digest<'a>(
    (number, author, message, at): (i64, &str, &str, i64),
    changes: impl IntoIterator<Item = (&'a str, &'a str, Option<&'a str>, Option<&'a str>)>,
) -> Hash {
    let mut changes: Vec<_> = changes.into_iter().collect();
    changes.sort_unstable();
    let mut bytes = Bytes::of(REVISION);
    bytes.number(number.cast_unsigned()).text(author).text(message).number(at.cast_unsigned());
    for (kind, name, before, after) in changes {
        bytes.text(kind).text(name).maybe(before).maybe(after);
    }
    bytes.hash()
}

/// Bytes to be hashed.
struct Bytes(Sha256);

impl Bytes {
    fn of(what: &str) -> Self {
        let mut bytes = Self(Sha256::new());
        bytes.text(what);
        bytes
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_be_bytes());
        self
    }

    fn time(&mut self, time: OffsetDateTime) -> &mut Self {
        self.number(rows::moment(time).cast_unsigned())
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64).0.update(text.as_bytes());
        self
    }

    fn maybe(&mut self, text: Option<&str>) -> &mut Self {
        self.0.update([u8::from(text.is_some())]);
        text.map(|text| self.text(text));
        self
    }

    fn hash(&mut self) -> Hash {
        self.0.finalize_reset().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// `sequence, at, actor, address, action, outcome, kind, name, detail, before, after, times, revision, digest, previous, hash`.
pub(in crate::store) type AuditRow = (
    i64,
    i64,
    String,
    String,
    String,
    String,
    String,
    String,
    String,
    Option<String>,
    Option<String>,
    i64,
    Option<i64>,
    Option<String>,
    String,
    String,
);

/// Entries from their rows.
pub(in crate::store) fn entries(found: Vec<AuditRow>) -> Result<Vec<Entry>, StoreError> {
    let entry = |row: AuditRow| {
        let (
            sequence,
            at,
            actor,
            address,
            action,
            outcome,
            kind,
            name,
            detail,
            before,
            after,
            times,
            revision,
            digest,
            previous,
            hash,
        ) = row;
        Ok(Entry {
            sequence: rows::number(sequence)?,
            at: rows::time(at)?,
            actor,
            address,
            action,
            outcome,
            kind,
            name,
            detail,
            before,
            after,
            times: rows::number(times)?,
            revision: revision.map(rows::number).transpose()?,
            digest,
            previous,
            hash,
        })
    };
    found.into_iter().map(entry).collect()
}
