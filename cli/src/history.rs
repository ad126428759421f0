//! The history, and the way back.

use chancery_control_plane::model::{Kind, Name};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{self, Page, Revision, moment},
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    kind,
    output::{self, OutputArgs},
    write::WriteArgs,
};

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
    #[command(flatten)]
    write: WriteArgs,
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
    args.write.write(&args.write.client()?, call).await
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
    fn a_table_of_revisions() {
        let revision = |number: u64, message: &str| json!({ "number": number, "author": "admin", "message": message, "at": "2026-11-21T03:00:00.5Z", "changeCount": 2 });
        let revisions: Vec<Revision> =
            serde_json::from_value(json!([revision(12, "two\nlines"), revision(9, "")])).unwrap();
        insta::assert_snapshot!(rows(&revisions));
    }
}
