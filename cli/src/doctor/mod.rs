//! `chancery doctor`: looks at an installation, group by group, and says of what is wrong what to do.
//!
//! - `check`: what a check is, and how all are made side by side.
//! - `site`: what there is on this host, read as the programs read it.
//! - one file for each group: probes, and verdicts on what they saw, which are pure.
//! - `report`: how it is shown.

mod certificates;
mod check;
mod clock;
mod database;
mod disk;
mod limiter;
mod ports;
mod programs;
mod proxies;
mod redis;
mod report;
mod settings;
mod site;

use std::time::Instant;

use clap::Args;

use self::{
    check::Group,
    report::{Report, Style},
};
pub(crate) use self::{
    programs::{VERSION, version},
    site::{Program, Site, SiteArgs},
};
use crate::{
    failure::Failure,
    output::{self, Format, OutputArgs},
};

/// The table: every group, in the order in which they are shown.
const GROUPS: &[Group] = &[
    settings::GROUP,
    database::GROUP,
    database::SCHEMA,
    clock::GROUP,
    certificates::GROUP,
    ports::GROUP,
    programs::GROUP,
    redis::GROUP,
    limiter::GROUP,
    proxies::GROUP,
    disk::GROUP,
];

/// `chancery doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Only what can be known before anything is installed or runs; ports have to be free then
    #[arg(long)]
    before_install: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    site: SiteArgs,
}

/// Makes all checks and shows what they found; fails if one of them did.
pub(crate) async fn doctor(args: DoctorArgs) -> Result<(), Failure> {
    let begun = Instant::now();
    let site = Site::find(&args.site, args.before_install);
    let report = examine(&site).await;
    match args.output.format_or(Format::Table) {
        Format::Table => output::print(&report.text(Style::of_stdout(), begun.elapsed()))?,
        Format::Json => output::print(&output::json(&report))?,
        Format::Yaml => output::print(&output::yaml(&report))?,
    }
    if report.healthy {
        return Ok(());
    }
    // The report has said it all.
    Err(Failure::Problems(Vec::new()))
}

/// Makes all checks of `site`.
pub(crate) async fn examine(site: &Site) -> Report {
    Report::new(check::run(GROUPS, site).await)
}
