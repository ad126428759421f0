//! What a proxy was given, and where it has something else.

use chancery_control_plane::model::Name;
use clap::Args;
use http::Method;
use serde_json::Value;

use crate::{
    answer::{Given, GivenResource},
    client::Call,
    connection::ConnectionArgs,
    failure::Failure,
    output::{self, OutputArgs},
};

/// `chancery proxy-config`
#[derive(Debug, Args)]
pub(crate) struct ProxyConfigArgs {
    /// The proxy
    id: Name,
    /// Its fleet, if others have one of that name
    #[arg(long)]
    fleet: Option<Name>,
    /// Only resources of this type: cluster, endpoint, listener, route, virtualHost …
    #[arg(long = "type", value_name = "TYPE")]
    resource_type: Option<String>,
    /// Only resources of this name
    #[arg(long)]
    name: Option<String>,
    /// Only where it has something else than it should, by what it has said
    #[arg(long)]
    diff: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Shows what a proxy was given.
pub(crate) async fn run(args: ProxyConfigArgs) -> Result<(), Failure> {
    let mut call = Call::new(Method::GET, format!("/api/v1/proxies/{}/config", args.id))
        .query_if("fleet", args.fleet.as_ref())
        .query_if("type", args.resource_type.as_ref())
        .query_if("name", args.name.as_ref());
    if args.diff {
        call = call.query("diff", &true);
    }
    let given: Value = args.connection.client()?.send(call).await?;
    args.output.print(&given, |value| match serde_json::from_value(value.clone()) {
        Ok(given) => table(args.id.as_str(), &given, args.diff),
        Err(_) => output::yaml(value),
    })
}

fn table(id: &str, given: &Given, diff: bool) -> String {
    let Given { revision, resources, omitted } = given;
    let mut text = match (diff, resources.is_empty()) {
        (true, true) => format!("{id} has everything as it is at revision {revision}.\n"),
        (false, true) => format!("{id} has asked for nothing.\n"),
        (true, false) => differences(resources),
        (false, false) => output::table(
            ["TYPE", "NAME", "STATE", "VERSION"],
            resources.iter().map(|resource| {
                let version = resource.wanted_version.clone().unwrap_or_default();
                [resource.r#type.clone(), resource.name.clone(), resource.state.clone(), version]
            }),
        ),
    };
    if *omitted > 0 {
        text += &format!("… and {omitted} more: ask with --type or --name\n");
    }
    text
}

fn differences(resources: &[GivenResource]) -> String {
    output::table(
        ["TYPE", "NAME", "STATE", "WANTED", "HAS", "WHY"],
        resources.iter().map(|resource| {
            let has = match (resource.state.as_str(), &resource.version) {
                (_, Some(version)) => version.clone(),
                ("stale", None) => "an older one".to_owned(),
                ("rejected", None) => "an older one, or none".to_owned(),
                ("missing", None) => "maybe none".to_owned(),
                _ => String::new(),
            };
            let why = match (resource.state.as_str(), resource.because.as_deref()) {
                ("rejected", _) => resource.reason.clone().unwrap_or_default(),
                ("extra", _) => "its removal is not sent, or not answered".to_owned(),
                ("absent", _) => "it asks for it, but there is none".to_owned(),
                (_, Some("notAnswered")) => "sent, but not answered: it may be warming".to_owned(),
                (_, Some("notSent")) => "not sent yet: something else goes first".to_owned(),
                (_, Some("keptBack")) => "kept back: it names a cluster that was rejected".to_owned(),
                (_, other) => other.unwrap_or_default().to_owned(),
            };
            let wanted = resource.wanted_version.clone().unwrap_or_else(|| "none".to_owned());
            [resource.r#type.clone(), resource.name.clone(), resource.state.clone(), wanted, has, why]
        }),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given() -> Given {
        const VERSION: &str = "2d06800538d394c2";
        let of = |name: &str, state: &str, because: Option<&str>| {
            let wanted = (!["extra", "absent"].contains(&state)).then_some(VERSION);
            let version = ["synced", "extra"].contains(&state).then_some(VERSION);
            let reason = (state == "rejected").then_some("bad\u{1b}[31m address");
            json!({
                "type": "cluster", "name": name, "state": state, "because": because,
                "wantedVersion": wanted, "version": version, "reason": reason,
            })
        };
        serde_json::from_value(json!({ "revision": 12, "omitted": 3, "resources": [
            of("a", "synced", None),
            of("b", "stale", Some("notAnswered")),
            of("c", "missing", Some("notSent")),
            of("d", "missing", Some("keptBack")),
            of("e", "rejected", None),
            of("f", "extra", None),
            of("g", "absent", None),
        ] }))
        .unwrap()
    }

    #[test]
    fn a_table_of_what_was_given() {
        insta::assert_snapshot!("given", table("edge-1", &given(), false));
        insta::assert_snapshot!("differences", table("edge-1", &given(), true));
        let nothing = Given { revision: 12, resources: Vec::new(), omitted: 0 };
        assert_eq!(table("edge-1", &nothing, true), "edge-1 has everything as it is at revision 12.\n");
    }
}
