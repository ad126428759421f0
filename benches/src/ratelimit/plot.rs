//! Latencies of each case, as curves.

use std::path::Path;

use anyhow::Result;
use plotters::style::RGBColor;

use super::{results::Report, subject::Subject};
use crate::plot::{self, Curve};

/// Draws every case into `folder`.
pub(super) fn draw(report: &Report, folder: &Path) -> Result<()> {
    for summary in &report.cases {
        let curves: Vec<Curve<'_>> = summary
            .servers
            .iter()
            .map(|one| Curve { label: one.server.to_string(), colour: colour(one.server), latencies: &one.latencies })
            .collect();
        let name = summary.case.name;
        plot::draw(folder, &format!("ratelimit-{name}"), &format!("{name}: latency by percentile"), &curves)?;
    }
    Ok(())
}

fn colour(server: Subject) -> RGBColor {
    match server {
        Subject::Floor => RGBColor(120, 120, 120),
        Subject::Memory => RGBColor(0, 114, 178),
        Subject::Leased => RGBColor(0, 158, 115),
        Subject::Exact => RGBColor(86, 180, 233),
        Subject::Limitador => RGBColor(230, 159, 0),
        Subject::Envoyproxy => RGBColor(213, 94, 0),
    }
}
