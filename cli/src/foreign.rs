//! What people already have, as resources: `chancery import openapi|gateway-api|envoy`.
//!
//! Documents go to standard output, so that `chancery plan -f -` and `apply -f -` take them; what has no counterpart is told on standard
//! error, each with its place in the files.

use std::path::PathBuf;

use chancery_control_plane::{
    import::{Import, Unmatched, envoy, gateway_api, openapi},
    model::Name,
};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{archive, failure::Failure, manifest::Manifest, output};

/// `chancery import`: files of Chancery's own, or of others.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct ImportCommand {
    #[command(subcommand)]
    source: Option<Source>,
    #[command(flatten)]
    own: archive::ImportArgs,
}

/// What is imported.
#[derive(Debug, Subcommand)]
enum Source {
    /// The servers and paths of descriptions in OpenAPI 3.0 and 3.1
    #[command(name = "openapi")]
    OpenApi(OpenApiArgs),
    /// Gateways, HTTPRoutes and GRPCRoutes of Kubernetes, with what they refer to
    GatewayApi(GatewayApiArgs),
    /// The listeners and clusters of an Envoy's static configuration
    Envoy(EnvoyArgs),
}

/// What is read, and how the result is written.
#[derive(Debug, Args)]
struct FileArgs {
    /// File with YAML or JSON documents, folder of such files, or - for stdin
    #[arg(value_name = "FILE|DIR|-", required = true)]
    files: Vec<PathBuf>,
    /// The team that owns what is made
    #[arg(long)]
    team: Option<Name>,
    /// Fail if anything has no counterpart
    #[arg(long)]
    strict: bool,
    /// How to print: documents, or an object with resources and unmatched
    #[arg(short = 'o', long, value_enum, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
}

/// A form of documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Yaml,
    Json,
}

#[derive(Debug, Args)]
struct GatewayApiArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The fleet that serves all Gateways and is there already [default: each Gateway becomes a fleet]
    #[arg(long)]
    fleet: Option<Name>,
    /// What names in the DNS of the cluster end in
    #[arg(long, value_name = "DOMAIN", default_value = "cluster.local")]
    cluster_domain: String,
}

#[derive(Debug, Args)]
struct OpenApiArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Where the routes are served
    #[arg(long, value_name = "FLEET/LISTENER")]
    listener: String,
    /// The name of the service and the route [default: the title]
    #[arg(long, value_name = "NAME")]
    service: Option<Name>,
    /// Which of the servers, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    server: usize,
    /// The host to claim [default: that of the server]
    #[arg(long)]
    host: Option<String>,
    /// Where the service is [default: where the server is]
    #[arg(long, value_name = "HOST:PORT")]
    endpoint: Option<String>,
}

#[derive(Debug, Args)]
struct EnvoyArgs {
    #[command(flatten)]
    files: FileArgs,
    /// The fleet that is to do what it says, and is there already
    #[arg(long)]
    fleet: Name,
}

/// Imports files of Chancery's own, or prints what comes of others.
pub(crate) async fn import(command: ImportCommand) -> Result<(), Failure> {
    match command.source {
        Some(source) => print(source),
        None => archive::import(command.own).await,
    }
}

fn print(source: Source) -> Result<(), Failure> {
    match source {
        Source::Envoy(EnvoyArgs { files, fleet }) => {
            let options = envoy::Options { fleet, team: files.team.clone() };
            told(&files, |documents| envoy::import(documents, &options))
        }
        Source::OpenApi(OpenApiArgs { files, listener, service, server, host, endpoint }) => {
            let options = openapi::Options { listener, service, team: files.team.clone(), server, host, endpoint };
            told(&files, |documents| openapi::import(documents, &options))
        }
        Source::GatewayApi(GatewayApiArgs { files, fleet, cluster_domain }) => {
            let options = gateway_api::Options { fleet, team: files.team.clone(), cluster_domain };
            told(&files, |documents| gateway_api::import(documents, &options))
        }
    }
}

fn told(args: &FileArgs, import: impl FnOnce(&[Value]) -> Import) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.files)?;
    let Import { resources, unmatched } = import(&manifest.values());
    let places: Vec<&str> = manifest.keys().map(|(_, place)| place).collect();
    let place = |found: &Unmatched| places.get(found.document).copied().unwrap_or_default().to_owned();
    match args.output {
        Format::Yaml => output::print(&resources.iter().map(document).collect::<String>())?,
        Format::Json => {
            let unmatched: Vec<Value> = unmatched
                .iter()
                .map(|found| {
                    let Unmatched { document: _, object, path, reason, instead } = found;
                    json!({ "place": place(found), "object": object, "path": path, "reason": reason, "instead": instead })
                })
                .collect();
            output::print(&output::json(&json!({ "resources": resources, "unmatched": unmatched })))?;
        }
    }
    for found in &unmatched {
        eprintln!("{}", output::printable(line(&place(found), found)));
    }
    match unmatched.len() {
        0 => Ok(()),
        number if args.strict => Err(Failure::Problems(vec![format!("chancery: {}", summary(number))])),
        number => {
            eprintln!("{}", summary(number));
            Ok(())
        }
    }
}

fn document(resource: &Value) -> String {
    format!("---\n{}", output::yaml(resource))
}

/// `shop.yaml:12: HTTPRoute shop/web: spec.rules[0].filters[1]: why; what to do`
fn line(place: &str, found: &Unmatched) -> String {
    let Unmatched { document: _, object, path, reason, instead } = found;
    let parts = [place, object, path].into_iter().filter(|part| !part.is_empty());
    let at: String = parts.flat_map(|part| [part, ": "]).collect();
    format!("{at}{reason}; {instead}")
}

fn summary(number: usize) -> String {
    match number {
        1 => "1 place has no counterpart.".to_owned(),
        number => format!("{number} places have no counterpart."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_what_and_what_to_do() {
        let found = |object: &str, path: &str| Unmatched {
            document: 0,
            object: object.to_owned(),
            path: path.to_owned(),
            reason: "is new".to_owned(),
            instead: "wait".to_owned(),
        };
        assert_eq!(line("a.yaml:3", &found("Gateway a/b", "spec.x")), "a.yaml:3: Gateway a/b: spec.x: is new; wait");
        assert_eq!(line("a.yaml:3", &found("", "")), "a.yaml:3: is new; wait");
    }
}
