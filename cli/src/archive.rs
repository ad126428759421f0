//! Everything as files, and back.

use chancery_control_plane::model::Kind;
use clap::Args;
use http::Method;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::{
    answer::{Page, Revision},
    client::{Call, Client},
    connection::ConnectionArgs,
    failure::Failure,
    manifest::Manifest,
    output, resources,
    write::WriteArgs,
};

/// What one request may hold; the API takes bodies of 8 MiB.
const MOST_AT_ONCE: usize = 6 << 20;

/// `chancery export`
#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// `chancery import`
#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Files with YAML or JSON documents, folders of such files, or - for stdin
    #[arg(required = true, value_name = "FILE|DIR|-")]
    files: Vec<std::path::PathBuf>,
    #[command(flatten)]
    write: WriteArgs,
}

/// Prints all resources as YAML documents.
pub(crate) async fn export(args: ExportArgs) -> Result<(), Failure> {
    let mut body = args.connection.client()?.open(Call::new(Method::GET, "/api/v1/export")).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::Usage(format!("the export broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        output::print_bytes(&data)?;
    }
    Ok(())
}

/// Puts everything that files hold into a control plane that has nothing yet.
pub(crate) async fn import(args: ImportArgs) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.files)?;
    let client = args.write.client()?;
    let head = empty_at(&client).await?;
    let parts = manifest.parts(MOST_AT_ONCE);
    if args.write.is_dry_run() && parts.len() > 1 {
        let reason = format!("--dry-run: this takes {} requests, of which each needs the one before", parts.len());
        return Err(Failure::Usage(reason));
    }
    for (revision, part) in (head..).zip(parts) {
        let call =
            Call::new(Method::POST, "/api/v1/apply").body(json!({ "resources": part.values() })).if_revision(revision);
        let written = args.write.write(&client, call).await;
        written.map_err(|failure| resources::located(failure, &part))?;
    }
    Ok(())
}

/// The revision of a control plane, if it has no resources.
async fn empty_at(client: &Client) -> Result<u64, Failure> {
    let newest = client.send(Call::new(Method::GET, "/api/v1/revisions").query("limit", &1)).await?;
    let Page::<Revision> { items, .. } = newest;
    for kind in Kind::ALL {
        let path = format!("/api/v1/{}", kind.collection());
        let some: Page<Value> = client.send(Call::new(Method::GET, path).query("limit", &1)).await?;
        if !some.items.is_empty() {
            let reason = format!("there are {} already: `chancery apply -f` changes what is there", kind.collection());
            return Err(Failure::NotEmpty(reason));
        }
    }
    Ok(items.first().map_or(0, |newest| newest.number))
}
