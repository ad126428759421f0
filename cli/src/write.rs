//! What every write has in common: the flags, the wait for the proxies, and what is said about the result.

use std::{fmt::Write as _, time::Duration};

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    answer::{Applied, Changed, FieldChange, Written},
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
    progress,
};

/// The longest that the API waits.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Characters of a value that are shown to people.
const MOST_OF_A_VALUE: usize = 120;

/// What every write may be told.
#[derive(Debug, Args)]
pub(crate) struct WriteArgs {
    /// Return when the proxies that get something new have applied it
    #[arg(long, value_enum, value_name = "FOR", num_args = 0..=1, require_equals = true, default_missing_value = "applied")]
    wait: Option<Wait>,
    /// How long to wait, at most 60s
    #[arg(long, value_name = "DURATION", default_value = "30s", requires = "wait", value_parser = timeout)]
    timeout: Duration,
    /// Why; kept with the revision
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Check, and say what would change, but write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Wait {
    /// Until the proxies have said that they use it.
    Applied,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if timeout > LONGEST_WAIT {
        return Err(format!("must be at most {}s", LONGEST_WAIT.as_secs()));
    }
    Ok(timeout)
}

impl WriteArgs {
    /// Whether nothing is to be written.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// The client of the control plane that is meant.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.connection.client()
    }

    /// Sends a write, waits as it was told to, and prints the answer.
    pub(crate) async fn write(&self, client: &Client, call: Call) -> Result<(), Failure> {
        let mut call = call.query_if("message", self.message.as_ref());
        call = if self.dry_run { call.query("dryRun", &true) } else { call.once() };
        let value: Value = match self.wait {
            None => client.send(call).await?,
            Some(Wait::Applied) => progress::beside(client, client.send(call.wait_applied(self.timeout))).await?,
        };
        let written: Written = serde_json::from_value(value.clone())
            .map_err(|error| Failure::Usage(format!("the answer is not one of a control plane: {error}")))?;
        self.output.print(&value, |_| told(&written))?;
        written.applied.as_ref().map_or(Ok(()), arrived)
    }
}

/// Whether every proxy has it.
fn arrived(applied: &Applied) -> Result<(), Failure> {
    if applied.refused.is_empty() && !applied.timed_out {
        return Ok(());
    }
    Err(Failure::NotApplied("the change is stored, but not every proxy has applied it".to_owned()))
}

/// The answer in words.
pub(crate) fn told(written: &Written) -> String {
    let Written { revision, changed, dry_run, applied } = written;
    let mut text = changes(changed);
    // Writing to a String cannot fail.
    let _ = match (changed.is_empty(), dry_run) {
        (true, _) => writeln!(text, "Nothing to change: revision {revision} has it all."),
        (false, true) => writeln!(text, "Nothing was written: this is what would change at revision {revision}."),
        (false, false) => writeln!(text, "Revision {revision}."),
    };
    if let Some(applied) = applied {
        text += &arrival(applied);
    }
    text
}

/// What becomes of each resource, field by field.
pub(crate) fn changes(changed: &[Changed]) -> String {
    let mut text = String::new();
    for changed in changed {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{:<8} {}/{}", changed.action, changed.kind, changed.name);
        for FieldChange { path, before, after } in &changed.fields {
            let _ = match (before.as_ref().map(brief), after.as_ref().map(brief)) {
                (Some(before), Some(after)) => writeln!(text, "           {path}: {before} -> {after}"),
                (None, Some(after)) => writeln!(text, "         + {path}: {after}"),
                (Some(before), None) => writeln!(text, "         - {path}: {before}"),
                (None, None) => Ok(()),
            };
        }
    }
    text
}

/// A value on part of a line.
pub(crate) fn brief(value: &Value) -> String {
    let text = output::printable(value.to_string());
    match text.char_indices().nth(MOST_OF_A_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// So many of `what`.
pub(crate) fn counted(number: usize, what: &str) -> String {
    match (number, what.strip_suffix('y')) {
        (1, _) => format!("1 {what}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {what}s"),
    }
}

fn arrival(applied: &Applied) -> String {
    let Applied { proxies, applied, refused, pending, slowest_ms, timed_out: _, staged } = applied;
    let of_stages =
        |fleet| format!("Fleet {fleet} gets it in stages, canaries first: chancery rollout status {fleet}\n");
    let stages: String = staged.iter().map(of_stages).collect();
    if *proxies == 0 {
        return if staged.is_empty() { "No connected proxy gets anything new.\n".to_owned() } else { stages };
    }
    let slowest = slowest_ms.filter(|_| *applied > 0).map(|ms| format!(", the slowest after {ms:.0} ms"));
    let mut text = format!("Applied by {applied} of {proxies} proxies{}.\n", slowest.unwrap_or_default());
    for refusal in refused {
        let resource = refusal.resource.as_ref().map(|resource| format!(" {resource}")).unwrap_or_default();
        let _ = writeln!(text, "Refused by {}: {}{resource}: {}", refusal.proxy, refusal.r#type, refusal.reason);
    }
    text += &stages;
    if !pending.is_empty() {
        let _ = writeln!(text, "No answer from {}.", pending.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tell(value: Value) -> String {
        told(&serde_json::from_value(value).unwrap())
    }

    #[test]
    fn a_write_in_words() {
        let changed = json!([
            { "kind": "Route", "name": "checkout", "action": "created" },
            { "kind": "Service", "name": "old", "action": "deleted" },
        ]);
        let applied =
            json!({ "proxies": 37, "applied": 37, "refused": [], "pending": [], "slowestMs": 83.7, "timedOut": false });
        insta::assert_snapshot!(tell(json!({ "revision": 12, "changed": changed, "applied": applied })), @r"
        created  Route/checkout
        deleted  Service/old
        Revision 12.
        Applied by 37 of 37 proxies, the slowest after 84 ms.
        ");
        assert_eq!(tell(json!({ "revision": 12, "changed": [] })), "Nothing to change: revision 12 has it all.\n");
    }

    #[test]
    fn a_plan_in_words() {
        let fields = json!([
            { "path": "spec.rules[0].to[1].weight", "before": 10, "after": 20 },
            { "path": "spec.timeout", "after": "2s" },
            { "path": "team", "before": "payments" },
        ]);
        let changed = json!([{ "kind": "Route", "name": "checkout", "action": "updated", "fields": fields }]);
        insta::assert_snapshot!(tell(json!({ "revision": 12, "changed": changed, "dryRun": true })), @r#"
        updated  Route/checkout
                   spec.rules[0].to[1].weight: 10 -> 20
                 + spec.timeout: "2s"
                 - team: "payments"
        Nothing was written: this is what would change at revision 12.
        "#);
    }

    #[test]
    fn long_values_are_cut_and_things_are_counted() {
        assert_eq!(brief(&json!(["a\u{1b}"])), r#"["a\u001b"]"#);
        let long = brief(&json!("ä".repeat(500)));
        assert_eq!((long.chars().count(), long.ends_with("ä…")), (121, true));
        assert_eq!([0, 1, 2].map(|n| counted(n, "proxy")), ["0 proxies", "1 proxy", "2 proxies"]);
        assert_eq!(counted(2, "limiter"), "2 limiters");
    }

    #[test]
    fn a_refusal_and_a_silence_in_words() {
        let refused = json!([{ "proxy": "edge-2", "type": "listener", "resource": "web", "reason": "address in use" }]);
        let applied = json!({ "proxies": 3, "applied": 1, "refused": refused, "pending": ["edge-3"], "slowestMs": 5000, "timedOut": true });
        let value = json!({ "revision": 12, "changed": [], "applied": applied });
        insta::assert_snapshot!(tell(value.clone()), @r"
        Nothing to change: revision 12 has it all.
        Applied by 1 of 3 proxies, the slowest after 5000 ms.
        Refused by edge-2: listener web: address in use
        No answer from edge-3.
        ");
        let written: Written = serde_json::from_value(value).unwrap();
        assert_eq!(written.applied.map(|applied| arrived(&applied).unwrap_err().exit_code()), Some(4));
    }
}
