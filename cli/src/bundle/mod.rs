//! `chancery bundle`: what somebody else needs to see to help, in one file, without a secret in it.
//!
//! - `gather`: what is asked for, of whom; everything at once, each with a deadline and a bound.
//! - `redact`: secrets are taken out. Nothing gets into the archive past it.
//! - `archive`: the file, with a manifest of what is in it and of what could not be had, and why.

mod archive;
mod gather;
mod redact;

use std::path::PathBuf;

use chancery_runtime::file;
use clap::Args;
use time::{OffsetDateTime, macros::format_description};

use crate::{
    doctor::{Site, SiteArgs, VERSION},
    failure::Failure,
    output,
};

/// `chancery bundle`
#[derive(Debug, Args)]
pub(crate) struct BundleArgs {
    /// The archive to write, gzip'ed tar, for its owner only; nothing is overwritten [default: chancery-bundle-TIME.tar.gz]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Admin interface of an Envoy whose configuration and clusters go in as well [default: that of the `chancery dev`]
    #[arg(long, value_name = "URL")]
    envoy_admin: Option<String>,
    #[command(flatten)]
    site: SiteArgs,
}

/// Gathers all there is and writes the archive.
pub(crate) async fn bundle(args: BundleArgs) -> Result<(), Failure> {
    let made = OffsetDateTime::now_utc();
    let site = Site::find(&args.site, false);
    let entries = gather::all(&site, args.envoy_admin.as_deref()).await;
    let path = args.output.unwrap_or_else(|| named_after(made));
    let unusable = |source| Failure::Io { what: path.display().to_string(), source };
    let (bytes, manifest) = archive::pack(entries, VERSION, made).map_err(unusable)?;
    if !file::create(&path, &bytes, file::PRIVATE).map_err(unusable)? {
        return Err(Failure::Usage(format!("{} is there already; name another with --output", path.display())));
    }
    for missing in &manifest.missing {
        eprintln!("not in it: {}: {}", missing.path, output::printable(missing.reason.clone()));
    }
    output::print(&format!("{}\n", path.display()))
}

fn named_after(made: OffsetDateTime) -> PathBuf {
    let form = format_description!("chancery-bundle-[year][month][day]T[hour][minute][second]Z.tar.gz");
    made.format(form).unwrap_or_else(|_| "chancery-bundle.tar.gz".to_owned()).into()
}
