//! A change that is seen before it is made.

use std::fmt::Write as _;

use chancery_control_plane::model::Name;
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{FleetPlan, LimiterPlan, Plan, PlannedDrain, PlannedResource},
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    manifest::{FileArgs, Manifest},
    output::{self, OutputArgs},
    resources,
    traffic::{self, TrafficArgs},
    write::{self, counted},
};

/// Proxies that are named.
const NAMED: usize = 5;

/// `chancery plan`
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    prune: PruneArgs,
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What is deleted because the files do not have it.
#[derive(Debug, Default, Args)]
pub(crate) struct PruneArgs {
    /// Delete what the files do not have, of the resources of this team
    #[arg(long, value_name = "NAME")]
    prune_team: Option<Name>,
    /// Delete what the files do not have, of the resources with this label; may be repeated: with all of them
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    prune_label: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("must be KEY=VALUE")?;
    if key.is_empty() { Err("needs a key before its =".to_owned()) } else { Ok((key.to_owned(), value.to_owned())) }
}

impl PruneArgs {
    /// The body of a request for what `manifest` says.
    pub(crate) fn body(&self, manifest: &Manifest) -> Value {
        let mut body = json!({ "resources": manifest.values() });
        if let Some(team) = &self.prune_team {
            body["prune"]["team"] = team.as_str().into();
        }
        for (key, value) in &self.prune_label {
            body["prune"]["labels"][key] = value.as_str().into();
        }
        body
    }

    fn words(&self) -> Vec<String> {
        let team = self.prune_team.iter().flat_map(|team| ["--prune-team".to_owned(), team.to_string()]);
        let labels = self.prune_label.iter();
        team.chain(labels.flat_map(|(key, value)| ["--prune-label".to_owned(), format!("{key}={value}")])).collect()
    }
}

/// Says what an apply would do.
pub(crate) async fn plan(args: PlanArgs) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.files.files)?;
    let client = args.connection.client()?;
    let change = args.prune.body(&manifest);
    let call = Call::new(Method::POST, "/api/v1/plan").body(change.clone());
    let mut value: Value = client.send(call).await.map_err(|failure| resources::located(failure, &manifest))?;
    if let Some(traffic) = args.traffic.replay(&client, &change).await? {
        value["traffic"] = traffic;
    }
    args.output.print(&value, |value| match serde_json::from_value::<Plan>(value.clone()) {
        Ok(plan) => {
            let plan = told(&plan, &command(&args, plan.written.revision));
            plan + &value.get("traffic").map(traffic::told).unwrap_or_default()
        }
        Err(_) => output::json(value),
    })
}

/// What makes the change, and only as it was planned.
fn command(args: &PlanArgs, revision: u64) -> String {
    let mut words = vec!["chancery".to_owned(), "apply".to_owned()];
    for file in &args.files.files {
        words.extend(["-f".to_owned(), file.display().to_string()]);
    }
    words.extend(args.prune.words());
    words.extend(["--if-revision".to_owned(), revision.to_string()]);
    words.extend(args.connection.words());
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// `word` for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The plan in words; `command` makes it.
fn told(plan: &Plan, command: &str) -> String {
    let Plan { written, fleets, limiters, complete } = plan;
    if written.changed.is_empty() {
        return write::told(written);
    }
    let mut text = write::changes(&written.changed);
    text.push('\n');
    if fleets.is_empty() && limiters.is_none() {
        text += "No proxy and no rate limiter gets anything new.\n\n";
    }
    for fleet in fleets {
        text += &of_fleet(fleet);
        text.push('\n');
    }
    // Writing to a String cannot fail.
    if let Some(LimiterPlan { fleets, connected }) = limiters {
        let limiters = counted(*connected, "connected rate limiter");
        let _ = writeln!(text, "Limits of {}: {limiters} will see it.\n", fleets.join(", "));
    }
    if !complete {
        text += "The database is away: proxies of other replicas are not counted.\n\n";
    }
    let _ = writeln!(text, "Nothing was written. To make it:\n  {command}");
    text
}

fn of_fleet(plan: &FleetPlan) -> String {
    let FleetPlan { fleet, connected, proxies, canaries, staged, resources, omitted, drains } = plan;
    let mut text = format!("Fleet {fleet}: {} will see it", counted(*connected, "connected proxy"));
    if *connected > 0 {
        let named = proxies.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = connected.saturating_sub(NAMED.min(proxies.len()));
        text += &if more > 0 { format!(" ({named} and {more} more)") } else { format!(" ({named})") };
    }
    if *staged {
        text += &format!(", in stages: {} first", counted(*canaries, "canary"));
    }
    text += ".\n";
    let row = |PlannedResource { r#type, name, change }: &PlannedResource| {
        [format!("  {change}"), r#type.clone(), name.clone()]
    };
    if !resources.is_empty() {
        text += &output::table(["  CHANGE", "TYPE", "NAME"], resources.iter().map(row));
    }
    // Writing to a String cannot fail.
    if *omitted > 0 {
        let _ = writeln!(text, "  … and {omitted} more");
    }
    for PlannedDrain { listener, reason, filter_chains } in drains {
        let chains = filter_chains.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
        let why = match reason.as_str() {
            "removed" => "all its connections: it is removed".to_owned(),
            "moved" => "all its connections: it moves to another address".to_owned(),
            "filterChains" => {
                format!("the connections of its filter chain {chains}, which is another one; others stay")
            }
            _ => "all its connections: another listener takes its place".to_owned(),
        };
        let _ = writeln!(text, "  Listener {listener} drains {why}.");
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        plan: PlanArgs,
    }

    fn plan(line: &[&str]) -> PlanArgs {
        Line::try_parse_from([&["plan"], line].concat()).unwrap().plan
    }

    #[test]
    fn the_command_makes_what_was_planned() {
        let args = plan(&["-f", "a b.yaml", "-f", "it's", "--prune-team", "payments", "--prune-label", "app=shop x"]);
        assert_eq!(
            command(&args, 12),
            r"chancery apply -f 'a b.yaml' -f 'it'\''s' --prune-team payments --prune-label 'app=shop x' --if-revision 12"
        );
        assert!(Line::try_parse_from(["plan", "-f", "a", "--prune-label", "app"]).is_err());
        assert!(Line::try_parse_from(["plan", "-f", "a", "--prune-label", "=x"]).is_err());
    }

    #[test]
    fn what_may_be_pruned_goes_along() {
        let manifest = Manifest::default();
        assert_eq!(plan(&["-f", "a"]).prune.body(&manifest), json!({ "resources": [] }));
        let args = plan(&["-f", "a", "--prune-team", "t", "--prune-label", "a=1", "--prune-label", "b=x=y"]);
        let prune = json!({ "team": "t", "labels": { "a": "1", "b": "x=y" } });
        assert_eq!(args.prune.body(&manifest), json!({ "resources": [], "prune": prune }));
    }

    #[test]
    fn a_plan_in_words() {
        let fields = json!([{ "path": "spec.port", "before": 10000, "after": 10001 }]);
        let new = json!([{ "path": "spec.hosts", "after": ["a.example.com"] }]);
        let resources = json!([
            { "type": "listener", "name": "web", "change": "changed" },
            { "type": "virtualHost", "name": "web/a.example.com", "change": "added" },
        ]);
        let ids: Vec<_> = (1..=7).map(|number| format!("edge-{number}")).collect();
        let value = json!({ "revision": 12, "dryRun": true, "complete": false, "changed": [
            { "kind": "Listener", "name": "web", "action": "updated", "fields": fields },
            { "kind": "Route", "name": "a", "action": "created", "fields": new },
            { "kind": "Route", "name": "old", "action": "deleted" },
        ], "fleets": [
            { "fleet": "edge", "connected": 37, "proxies": ids, "canaries": 2, "staged": true, "resources": resources, "omitted": 3,
              "drains": [{ "listener": "web", "reason": "moved" },
                         { "listener": "tls", "reason": "filterChains", "filterChains": ["tls"] }] },
            { "fleet": "inner", "connected": 0, "proxies": [], "canaries": 0, "staged": false, "resources": [], "omitted": 0, "drains": [] },
        ], "limiters": { "fleets": ["edge"], "connected": 1 } });
        insta::assert_snapshot!(told(&serde_json::from_value(value).unwrap(), "chancery apply -f a --if-revision 12"));
        let nothing = json!({ "revision": 12, "dryRun": true, "complete": true, "changed": [], "fleets": [] });
        let text = told(&serde_json::from_value(nothing).unwrap(), "chancery apply");
        assert_eq!(text, "Nothing to change: revision 12 has it all.\n");
    }
}
