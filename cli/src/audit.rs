//! Who did what: the audit log, shown, kept elsewhere, and checked.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chancery_control_plane::store::{
    Entry,
    audit::chain::{Chain, Finding, Verdict},
};
use clap::{Args, Subcommand};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    answer::{self, Page, moment},
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// Entries that one request asks for.
const PAGE: u32 = 1000;

/// `chancery audit`
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

/// What to do with the log.
#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Show who did what, or was refused it, the newest first
    List(ListArgs),
    /// Show one entry, and what its revision changed
    Show {
        /// Its number
        sequence: u64,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        connection: ConnectionArgs,
    },
    /// Check that nothing was changed or taken away
    Verify(VerifyArgs),
    /// Print all entries, the oldest first, one JSON object a line
    Export {
        #[command(flatten)]
        connection: ConnectionArgs,
    },
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Only of this principal
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only about this kind of thing, as Route or Token
    #[arg(long)]
    kind: Option<String>,
    /// Only about what has this name
    #[arg(long)]
    name: Option<String>,
    /// Only this, as write, sign-in or token.create
    #[arg(long)]
    action: Option<String>,
    /// Only what was done, or refused
    #[arg(long, value_parser = ["done", "refused"])]
    outcome: Option<String>,
    /// Not before this: a time (RFC 3339), or so long ago, as 24h
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<String>,
    /// Before this
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<String>,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// An export to check, without a control plane
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// An entry that has to be there with this hash: what an earlier check said
    #[arg(long, value_name = "SEQUENCE:HASH", value_parser = head)]
    head: Option<(u64, String)>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What a check came to.
#[derive(Clone, Debug, Deserialize)]
struct Checked {
    entries: u64,
    head: Option<Head>,
    findings: Vec<Found>,
}

#[derive(Clone, Debug, Deserialize)]
struct Head {
    sequence: u64,
    hash: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Found {
    problem: String,
}

/// Shows or checks the log.
pub(crate) async fn audit(args: AuditArgs) -> Result<(), Failure> {
    match args.command {
        AuditCommand::List(args) => list(args).await,
        AuditCommand::Show { sequence, output, connection } => show(sequence, output, &connection.client()?).await,
        AuditCommand::Verify(args) => verify(args).await,
        AuditCommand::Export { connection } => export(&connection.client()?).await,
    }
}

async fn list(args: ListArgs) -> Result<(), Failure> {
    let ListArgs { actor, kind, name, action, outcome, since, until, limit, output, connection } = args;
    let call = Call::new(Method::GET, "/api/v1/audit")
        .query("limit", &limit)
        .query_if("actor", actor.as_ref())
        .query_if("kind", kind.as_ref())
        .query_if("name", name.as_ref())
        .query_if("action", action.as_ref())
        .query_if("outcome", outcome.as_ref())
        .query_if("since", since.as_ref())
        .query_if("until", until.as_ref());
    let page: Page<Value> = connection.client()?.send(call).await?;
    output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)))
}

async fn show(sequence: u64, output: OutputArgs, client: &Client) -> Result<(), Failure> {
    let call = Call::new(Method::GET, "/api/v1/audit").query("limit", &1).query("after", &sequence.saturating_sub(1));
    let page: Page<Entry> = client.send(call).await?;
    let entry = page.items.into_iter().find(|entry| entry.sequence == sequence);
    let entry = entry.ok_or_else(|| Failure::Problems(vec![format!("chancery: there is no entry {sequence}")]))?;
    let mut shown = json!({ "entry": entry });
    if let Some(revision) = entry.revision {
        shown["revision"] = client.get(format!("/api/v1/revisions/{revision}")).await?;
    }
    // An entry is not a row: people read it as YAML.
    output.print(&shown, output::yaml)
}

async fn verify(args: VerifyArgs) -> Result<(), Failure> {
    let VerifyArgs { file, head, output, connection } = args;
    let verdict: Value = match &file {
        Some(file) => offline(file, head)?,
        None => {
            let mut call = Call::new(Method::GET, "/api/v1/audit/verify");
            if let Some((sequence, hash)) = &head {
                call = call.query("sequence", sequence).query("hash", hash);
            }
            connection.client()?.send(call).await?
        }
    };
    let checked: Checked = serde_json::from_value(verdict.clone())
        .map_err(|error| Failure::Usage(format!("the verdict cannot be read: {error}")))?;
    if !checked.findings.is_empty() {
        let findings = checked.findings.into_iter();
        return Err(Failure::Problems(findings.map(|found| output::printable(found.problem)).collect()));
    }
    output.print(&verdict, |_| match &checked.head {
        Some(Head { sequence, hash }) => {
            format!(
                "{} entries, none changed or missing. To see later that none was, keep --head {sequence}:{hash}\n",
                checked.entries
            )
        }
        None => "The log is empty.\n".to_owned(),
    })
}

/// The chain of an export. What the revisions hold is not in it.
fn offline(file: &Path, head: Option<(u64, String)>) -> Result<Value, Failure> {
    let unreadable = |source: io::Error| Failure::Io { what: file.display().to_string(), source };
    let mut chain = Chain::expecting(head);
    for (number, line) in BufReader::new(File::open(file).map_err(unreadable)?).lines().enumerate() {
        let entry: Entry = serde_json::from_str(&line.map_err(unreadable)?).map_err(|error| {
            Failure::Problems(vec![format!("{}:{}: this is no entry: {error}", file.display(), number + 1)])
        })?;
        chain.entry(&entry);
    }
    let Verdict { entries, head, findings } = chain.end(None);
    let head = head.map(|(sequence, hash)| json!({ "sequence": sequence, "hash": hash }));
    let finding = |Finding { sequence, problem }: &Finding| json!({ "sequence": sequence, "problem": problem });
    let whole = findings.is_empty();
    let findings: Vec<_> = findings.iter().map(finding).collect();
    Ok(json!({ "whole": whole, "entries": entries, "head": head, "findings": findings }))
}

async fn export(client: &Client) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let call = Call::new(Method::GET, "/api/v1/audit").query("limit", &PAGE).query("after", &after);
        let page: Page<Entry> = client.send(call).await?;
        let Some(last) = page.items.last().map(|entry| entry.sequence) else { return Ok(()) };
        let line = |entry: &Entry| serde_json::to_string(entry).unwrap_or_default() + "\n";
        output::print(&page.items.iter().map(line).collect::<String>())?;
        after = last;
    }
}

/// `2026-11-21T03:00:00Z`, or `24h`: so long ago.
fn time(text: &str) -> Result<String, String> {
    if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
        return Ok(text.to_owned());
    }
    let ago: Option<Duration> = humantime::parse_duration(text).ok();
    let time = ago.and_then(|ago| SystemTime::now().checked_sub(ago)).map(OffsetDateTime::from);
    let time = time.and_then(|time| time.format(&Rfc3339).ok());
    time.ok_or_else(|| "write a time, as 2026-11-21T03:00:00Z, or how long ago it was, as 24h".to_owned())
}

fn head(text: &str) -> Result<(u64, String), String> {
    let parsed = text.split_once(':').and_then(|(sequence, hash)| Some((sequence.parse().ok()?, hash.to_owned())));
    parsed.ok_or_else(|| "write it as `chancery audit verify` has shown it, SEQUENCE:HASH".to_owned())
}

fn rows(entries: &[Entry]) -> String {
    let or = |text: &str, none: &str| if text.is_empty() { none.to_owned() } else { text.to_owned() };
    output::table(
        ["ENTRY", "WHEN", "WHO", "FROM", "ACTION", "OUTCOME", "WHAT", "TIMES", "DETAIL"],
        entries.iter().map(|entry| {
            let at = entry.at.format(&Rfc3339).unwrap_or_default();
            let what = match (entry.revision, entry.kind.as_str(), entry.name.as_str()) {
                (Some(revision), ..) => format!("revision {revision}"),
                (None, "", "") => "-".to_owned(),
                (None, kind, "") => kind.to_owned(),
                (None, kind, name) => format!("{kind}/{name}"),
            };
            [
                entry.sequence.to_string(),
                moment(&at),
                or(&entry.actor, "-"),
                or(&entry.address, "-"),
                entry.action.clone(),
                entry.outcome.clone(),
                what,
                entry.times.to_string(),
                entry.detail.clone(),
            ]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_entries() {
        let one = |more: Value| -> Entry {
            let mut entry = json!({ "sequence": 7, "at": "2026-11-21T03:00:00.5Z", "actor": "ci", "address": "10.0.0.1",
                "action": "write", "outcome": "done", "kind": "", "name": "", "detail": "two\nlines", "before": null,
                "after": null, "times": 1, "revision": null, "digest": null, "previous": "", "hash": "" });
            entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value(entry).unwrap()
        };
        insta::assert_snapshot!(rows(&[
            one(json!({ "revision": 3 })),
            one(
                json!({ "outcome": "refused", "kind": "Route", "name": "shop", "times": 12, "detail": "forbidden: needs role owner" })
            ),
            one(
                json!({ "action": "sign-in", "outcome": "refused", "actor": "", "detail": "the bearer token is not valid" })
            ),
        ]));
    }

    #[test]
    fn times_and_heads_are_read() {
        assert_eq!(time("2026-11-21T03:00:00Z").unwrap(), "2026-11-21T03:00:00Z");
        assert!(time("24h").unwrap().ends_with('Z'));
        for text in ["", "yesterday", "2026-11-21", "999999999999y"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(head("7:ab"), Ok((7, "ab".to_owned())));
        assert!(head("7").is_err() && head("x:ab").is_err());
    }
}
