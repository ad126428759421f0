//! `chancery schema`: the schema that editors check documents by, from this program alone.

use chancery_control_plane::{api::schemas, model::Kind};
use clap::Args;

use crate::{failure::Failure, kind, output};

#[derive(Debug, Args)]
pub(crate) struct SchemaArgs {
    /// The kind; all kinds in one schema without it
    #[arg(value_parser = kind::parse)]
    kind: Option<Kind>,
}

/// Prints what the API has at `/api/schemas`.
pub(crate) fn schema(args: &SchemaArgs) -> Result<(), Failure> {
    output::print(&schemas::text(args.kind))
}
