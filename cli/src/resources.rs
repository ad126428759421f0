//! Resources: apply, get, describe, delete.

use std::path::PathBuf;

use chancery_control_plane::{
    api::{ProblemDetails, ResourceView},
    model::{Kind, Name},
};
use clap::Args;
use http::Method;
use serde_json::{Value, json};

use crate::{
    answer::{self, Page, moment},
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    history, kind, limits,
    manifest::{FileArgs, Manifest},
    output::{self, Format, OutputArgs},
    plan::PruneArgs,
    write::WriteArgs,
};

/// Resources of one page.
const PAGE: usize = 500;

/// `chancery apply`
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    prune: PruneArgs,
    /// Only if nothing was changed since this revision
    #[arg(long, value_name = "N")]
    if_revision: Option<u64>,
    #[command(flatten)]
    write: WriteArgs,
}

/// `chancery get`
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// fleets, listeners, teams, services, rate-limits, routes or envoy-patches (fl, ln, tm, svc, rl, rt, ep)
    #[arg(value_parser = kind::parse)]
    kind: Kind,
    /// Only this one
    name: Option<Name>,
    /// Only those of this team
    #[arg(long, conflicts_with = "name")]
    team: Option<Name>,
    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "KEY=VALUE,…", conflicts_with = "name")]
    label: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `chancery describe` and `chancery blame`
#[derive(Debug, Args)]
pub(crate) struct OneArgs {
    /// fleet, listener, team, service, rate-limit, route or envoy-patch
    #[arg(value_parser = kind::parse)]
    pub(crate) kind: Kind,
    /// Which one
    pub(crate) name: Name,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// `chancery delete`
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// fleet, listener, team, service, rate-limit, route or envoy-patch
    #[arg(value_parser = kind::parse, requires = "name", required_unless_present = "files")]
    kind: Option<Kind>,
    /// Which one
    name: Option<Name>,
    /// Delete what these files name instead: one after the other, what refers to others first
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", conflicts_with_all = ["kind", "dry_run"])]
    files: Vec<PathBuf>,
    /// Only if this revision was the last to change the resource
    #[arg(long, value_name = "N", conflicts_with = "files")]
    if_revision: Option<u64>,
    #[command(flatten)]
    write: WriteArgs,
}

/// Makes what files say.
pub(crate) async fn apply(args: ApplyArgs) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.files.files)?;
    let client = args.write.client()?;
    let call = Call::new(Method::POST, "/api/v1/apply").body(args.prune.body(&manifest));
    let call = args.if_revision.into_iter().fold(call, Call::if_revision);
    let written = args.write.write(&client, call).await;
    written.map_err(|failure| located(failure, &manifest))
}

/// Shows resources.
pub(crate) async fn get(args: GetArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    if let Some(name) = args.name {
        let resource: ResourceView = client.get(path(args.kind, &name)).await?;
        return args.output.print(&resource, |resource| rows(args.kind, std::slice::from_ref(resource)));
    }
    let items = all(&client, args.kind, args.team.as_ref(), args.label.as_deref()).await?;
    match args.output.format() {
        Format::Table => output::print(&rows(args.kind, &items)),
        Format::Json => output::print(&output::json(&json!({ "items": items }))),
        // As documents that can be applied.
        Format::Yaml => output::print(&items.iter().map(output::yaml).collect::<Vec<_>>().join("---\n")),
    }
}

/// Shows one resource and its history.
pub(crate) async fn describe(args: OneArgs) -> Result<(), Failure> {
    let client = args.connection.client()?;
    let resource: ResourceView = client.get(path(args.kind, &args.name)).await?;
    let history: Page<Value> = client
        .send(
            Call::new(Method::GET, "/api/v1/revisions")
                .query("kind", &args.kind)
                .query("name", &args.name)
                .query("limit", &5),
        )
        .await?;
    let described = json!({ "resource": resource, "history": history.items });
    args.output.print(&described, |_| {
        format!("{}\n{}", output::yaml(&resource), history::rows(&answer::known(&history.items)))
    })
}

/// Deletes resources.
pub(crate) async fn delete(args: DeleteArgs) -> Result<(), Failure> {
    let DeleteArgs { kind, name, files, if_revision, write } = args;
    let keys = match kind.zip(name) {
        Some(key) => vec![key],
        None => keys(&Manifest::read(&files)?)?,
    };
    let client = write.client()?;
    for (kind, name) in keys {
        let call = Call::new(Method::DELETE, path(kind, &name));
        let call = if_revision.into_iter().fold(call, Call::if_revision);
        match write.write(&client, call).await {
            // With files the end is what is wanted.
            Err(Failure::Refused(details)) if details.status == 404 && !files.is_empty() => {
                eprintln!("{kind}/{name} is not there");
            }
            written => written?,
        }
    }
    Ok(())
}

/// What the files name, what refers to others before what it refers to.
fn keys(manifest: &Manifest) -> Result<Vec<(Kind, Name)>, Failure> {
    let mut keys = Vec::new();
    for (key, place) in manifest.keys() {
        let unreadable = || Failure::Usage(format!("{place}: the document has no kind and name"));
        let (kind, name) = key.ok_or_else(unreadable)?;
        keys.push((kind.parse().map_err(|_| unreadable())?, name.parse().map_err(|_| unreadable())?));
    }
    keys.sort_by(|(a, _): &(Kind, Name), (b, _)| b.cmp(a));
    Ok(keys)
}

/// All resources of a kind that are meant.
pub(crate) async fn all(
    client: &Client,
    kind: Kind,
    team: Option<&Name>,
    label: Option<&str>,
) -> Result<Vec<ResourceView>, Failure> {
    let mut items = Vec::new();
    let mut cursor = None;
    loop {
        let call = Call::new(Method::GET, format!("/api/v1/{}", kind.collection()))
            .query("limit", &PAGE)
            .query_if("team", team)
            .query_if("label", label.as_ref())
            .query_if("cursor", cursor.as_ref());
        let page: Page<ResourceView> = client.send(call).await?;
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

fn path(kind: Kind, name: &Name) -> String {
    format!("/api/v1/{}/{name}", kind.collection())
}

/// The refusal with every problem at its place in the files.
pub(crate) fn located(failure: Failure, manifest: &Manifest) -> Failure {
    match failure {
        Failure::Refused(details) if !details.problems.is_empty() => {
            let ProblemDetails { problems, .. } = *details;
            Failure::Problems(problems.iter().map(|problem| manifest.locate(problem)).collect())
        }
        other => other,
    }
}

fn rows(kind: Kind, resources: &[ResourceView]) -> String {
    let (what, tell): (_, fn(&Value) -> String) = match kind {
        Kind::RateLimit => return limits::rows(resources),
        Kind::Fleet => ("DEFAULT TIMEOUT", |spec| text(&spec["defaults"]["timeout"])),
        Kind::Listener => ("LISTENS", |spec| {
            let address = spec["address"].as_str().unwrap_or("0.0.0.0");
            format!("{}: {} on {address}:{}", text(&spec["fleet"]), text(&spec["protocol"]), text(&spec["port"]))
        }),
        Kind::Service => ("ENDPOINTS", |spec| {
            let endpoints = spec["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
            let shown = endpoints.iter().map(|one| format!("{}:{}", text(&one["address"]), text(&one["port"])));
            some(&shown.collect::<Vec<_>>())
        }),
        Kind::Team | Kind::Route => {
            ("HOSTS", |spec| some(&spec["hosts"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>()))
        }
        Kind::EnvoyPatch => ("CHANGES", |spec| {
            let (resource, target) = (&spec["resource"], &spec["target"]);
            let added = resource["@type"].as_str().and_then(|type_url| type_url.rsplit(['.', '/']).next());
            match added {
                Some(added) => format!("{}: adds {added}", text(&spec["fleet"])),
                None => format!("{}: {} {}", text(&spec["fleet"]), text(&target["kind"]), text(&target["name"])),
            }
        }),
    };
    let header = ["NAME", "TEAM", what, "REVISION", "UPDATED", "BY"];
    output::table(
        header,
        resources.iter().map(|resource| {
            let [name, team] = named(resource);
            let [revision, updated, by] = changed(resource);
            [name, team, tell(&resource.spec), revision, updated, by]
        }),
    )
}

/// Its name and its team.
pub(crate) fn named(resource: &ResourceView) -> [String; 2] {
    [resource.name.to_string(), resource.team.as_ref().map(ToString::to_string).unwrap_or_default()]
}

/// The revision that changed it last, when, and who did it.
pub(crate) fn changed(resource: &ResourceView) -> [String; 3] {
    let updated = serde_json::to_value(resource).unwrap_or_default()["updatedAt"].as_str().map(moment);
    [resource.revision.to_string(), updated.unwrap_or_default(), resource.updated_by.clone()]
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The first few of a list.
pub(crate) fn some(items: &[String]) -> String {
    match items {
        [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a}, {b}, {c} and {} more", rest.len()),
        few => few.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(kind: &str, name: &str, spec: &Value) -> ResourceView {
        serde_json::from_value(json!({ "kind": kind, "name": name, "team": "payments", "spec": spec, "revision": 12,
            "updatedAt": "2026-11-21T03:00:00.123456Z", "updatedBy": "admin" }))
        .unwrap()
    }

    #[test]
    fn tables_of_resources() {
        let endpoint = |port: u16| json!({ "address": "10.0.0.7", "port": port });
        let services = [
            resource(
                "Service",
                "checkout",
                &json!({ "endpoints": [endpoint(1), endpoint(2), endpoint(3), endpoint(4)] }),
            ),
            resource("Service", "none", &json!({ "endpoints": [] })),
        ];
        let listeners = [resource("Listener", "web", &json!({ "fleet": "edge", "port": 10000, "protocol": "http" }))];
        let routes = [resource("Route", "checkout", &json!({ "hosts": ["a.example.com", "*.example.com"] }))];
        insta::assert_snapshot!(
            [rows(Kind::Service, &services), rows(Kind::Listener, &listeners), rows(Kind::Route, &routes)].join("\n")
        );
    }

    #[test]
    fn yaml_can_be_applied_again() {
        let route = resource("Route", "checkout", &json!({ "hosts": ["a.example.com"] }));
        insta::assert_snapshot!(output::yaml(&route), @r"
        kind: Route
        name: checkout
        team: payments
        spec:
          hosts:
          - a.example.com
        revision: 12
        updatedAt: 2026-11-21T03:00:00.123456Z
        updatedBy: admin
        ");
    }

    #[test]
    fn deletion_starts_with_what_refers_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let document = |kind: &str| format!("kind: {kind}\nname: a\n---\n");
        let text: String = ["Fleet", "Route", "Service", "Listener"].map(document).concat();
        std::fs::write(&file, text).unwrap();
        let keys = keys(&Manifest::read(&[file]).unwrap()).unwrap();
        let kinds: Vec<_> = keys.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [Kind::Route, Kind::Service, Kind::Listener, Kind::Fleet]);
    }
}
