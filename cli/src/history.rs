//! The history, and the way back.

use std::time::Duration;

use chancery_control_plane::model::{Document, Kind, Name};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{self, Blame, Comparison, Difference, FieldOrigin, Page, Revision, moment},
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    kind,
    output::{self, OutputArgs},
    resources::OneArgs,
    write::{self, WriteArgs},
};

/// Resources of one page of differences.
const PAGE: usize = 500;

/// After so long lines that differ are not matched any better.
const DIFF_WITHIN: Duration = Duration::from_secs(1);

/// `chancery history`
#[derive(Debug, Args)]
pub(crate) struct HistoryArgs {
    /// Only what changed one resource: its kind
    #[arg(value_parser = kind::parse, requires = "name")]
    kind: Option<Kind>,
    /// … and its name
    name: Option<Name>,
    /// How many revisions, the newest first
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `chancery revert`
#[derive(Debug, Args)]
pub(crate) struct RevertArgs {
    /// The revision to undo
    revision: u64,
    /// Only if nothing was changed since this revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    write: WriteArgs,
}

/// `chancery diff`
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The one revision; 0 for nothing at all
    from: u64,
    /// The other one; the newest if it is left out
    to: Option<u64>,
    /// For people: field by field, not as lines of YAML
    #[arg(long)]
    fields: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Shows who changed what.
pub(crate) async fn history(args: HistoryArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut call = Call::new(Method::GET, "/api/v1/revisions").query("limit", &args.limit);
    if let (Some(kind), Some(name)) = (args.kind, args.name) {
        call = call.query("kind", &kind).query("name", &name);
    }
    let page: Page<Value> = client.send(call).await?;
    args.output.print(&json!({ "items": page.items }), |_| rows(&answer::known(&page.items)))
}

/// Undoes a revision.
pub(crate) async fn revert(args: RevertArgs) -> Result<(), Failure> {
    let call = Call::new(Method::POST, format!("/api/v1/revisions/{}/revert", args.revision));
    let call = args.if_revision.into_iter().fold(call, Call::if_revision);
    args.write.write(&args.write.client()?, call).await
}

/// Shows what differs between two revisions.
pub(crate) async fn diff(args: DiffArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let mut to = args.to;
    let (mut all, mut cursor) = (Vec::new(), None);
    let (from, to) = loop {
        let call = Call::new(Method::GET, format!("/api/v1/revisions/{}/diff", args.from))
            .query("limit", &PAGE)
            .query_if("to", to.as_ref())
            .query_if("cursor", cursor.as_ref());
        let page: Comparison<Value> = client.send(call).await?;
        all.extend(page.items);
        // The newest of the first page, whatever is committed meanwhile.
        to = Some(page.to);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break (page.from, page.to);
        }
    };
    args.output.print(&json!({ "from": from, "to": to, "items": all }), |_| {
        let items: Vec<Difference> = answer::known(&all);
        match (items.is_empty(), args.fields) {
            (true, _) => format!("Revisions {from} and {to} have the same in them.\n"),
            (false, true) => write::changes(&items.into_iter().map(|item| item.changed).collect::<Vec<_>>()),
            (false, false) => items.iter().map(|item| unified(item, from, to)).collect(),
        }
    })
}

/// One resource in lines of YAML that go and come.
fn unified(item: &Difference, from: u64, to: u64) -> String {
    let yaml = |document: &Option<Document>| document.as_ref().map(output::yaml).unwrap_or_default();
    let (before, after) = (yaml(&item.before), yaml(&item.after));
    let key = format!("{}/{}", item.changed.kind, item.changed.name);
    let title = |document: &Option<Document>, revision: u64| match document {
        Some(_) => format!("{key} (revision {revision})"),
        None => "/dev/null".to_owned(),
    };
    similar::TextDiff::configure()
        .timeout(DIFF_WITHIN)
        .diff_lines(&before, &after)
        .unified_diff()
        .header(&title(&item.before, from), &title(&item.after, to))
        .to_string()
}

/// Shows who wrote each field of a resource.
pub(crate) async fn blame(args: OneArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let path = format!("/api/v1/{}/{}/blame", args.kind.collection(), args.name);
    let value: Value = client.get(path).await?;
    args.output.print(&value, |value| match serde_json::from_value(value.clone()) {
        Ok(blame) => origins(&blame),
        Err(_) => output::json(value),
    })
}

fn origins(blame: &Blame) -> String {
    let rows = blame.fields.iter().map(|field| {
        let FieldOrigin { path, value, revision, author, message, at } = field.clone();
        let revision = revision.map_or_else(|| "older".to_owned(), |revision| revision.to_string());
        let at = at.as_deref().map(moment).unwrap_or_default();
        [path, write::brief(&value), revision, at, author.unwrap_or_default(), message.unwrap_or_default()]
    });
    let mut text = output::table(["FIELD", "VALUE", "REVISION", "AT", "BY", "MESSAGE"], rows);
    if blame.omitted > 0 {
        text += &format!("… and {} more\n", blame.omitted);
    }
    text
}

/// A table of revisions.
pub(crate) fn rows(revisions: &[Revision]) -> String {
    output::table(
        ["REVISION", "AT", "BY", "CHANGES", "MESSAGE"],
        revisions.iter().map(|revision| {
            let Revision { number, author, message, at, change_count } = revision.clone();
            [number.to_string(), moment(&at), author, change_count.to_string(), message]
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_in_lines() {
        let document = |port: u16| {
            json!({ "kind": "Service", "name": "a", "spec": { "connectTimeout": "1s",
            "endpoints": [{ "address": "10.0.0.7", "port": port }], "protocol": "http2" } })
        };
        let item = |before: Value, after: Value| -> Difference {
            let value =
                json!({ "kind": "Service", "name": "a", "action": "updated", "before": before, "after": after });
            serde_json::from_value(value).unwrap()
        };
        let items = [item(document(1), document(2)), item(Value::Null, document(1)), item(document(1), Value::Null)];
        insta::assert_snapshot!(items.map(|item| unified(&item, 6, 7)).concat());
    }

    #[test]
    fn a_table_of_origins() {
        let fields = json!([
            { "path": "spec.port", "value": 1, "revision": 12, "author": "admin", "message": "why", "at": "2026-11-21T03:00:00.5Z" },
            { "path": "spec.protocol", "value": "http" },
        ]);
        let blame = serde_json::from_value(json!({ "fields": fields, "omitted": 2 })).unwrap();
        insta::assert_snapshot!(origins(&blame));
    }

    #[test]
    fn a_table_of_revisions() {
        let revision = |number: u64, message: &str| json!({ "number": number, "author": "admin", "message": message, "at": "2026-11-21T03:00:00.5Z", "changeCount": 2 });
        let revisions: Vec<Revision> =
            serde_json::from_value(json!([revision(12, "two\nlines"), revision(9, "")])).unwrap();
        insta::assert_snapshot!(rows(&revisions));
    }
}
