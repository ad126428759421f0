//! Latencies as curves: one SVG per case, one curve per server, both axes logarithmic.
//!
//! Percentiles are drawn by how rare they are (90 %, 99 %, 99.9 % at equal distances), which is where servers differ.

use std::{fs, path::Path};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::{
    results::{Report, Summary},
    subject::Subject,
};

const SIZE: (u32, u32) = (900, 520);

/// So many points has a curve.
const POINTS: u32 = 200;

/// Draws every case into `folder`.
pub(super) fn draw(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for summary in &report.cases {
        let path = folder.join(format!("ratelimit-{}.svg", summary.case.name));
        draw_case(summary, &path).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    }
    Ok(())
}

fn draw_case(summary: &Summary, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let curves: Vec<_> = summary.servers.iter().map(|one| (one.server, curve(&one.latencies))).collect();
    let values = || curves.iter().flat_map(|(_, curve)| curve).map(|(_, ms)| *ms);
    let (least, most) = values().fold((f64::MAX, 0.001), |(least, most), ms| (ms.min(least), ms.max(most)));
    let rarest = curves.iter().flat_map(|(_, curve)| curve).map(|(rarity, _)| *rarity).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{}: latency by percentile", summary.case.name), ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..rarest, (least.min(most) * 0.8..most * 1.25).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("milliseconds")
        .x_labels(8)
        .x_label_formatter(&|rarity| percentile(*rarity))
        .y_label_formatter(&|ms| format!("{ms}"))
        .light_line_style(WHITE)
        .draw()?;
    for (server, curve) in curves {
        let style = colour(server).stroke_width(2);
        chart
            .draw_series(LineSeries::new(curve, style))?
            .label(server.to_string())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}

/// How rare (0 is all, 1 is the tenth that took longest, 2 the hundredth), and milliseconds; up to what samples can tell.
#[expect(clippy::cast_precision_loss, reason = "a latency to draw")]
fn curve(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = (latencies.len().max(1) as f64).log10();
    let at = |point| {
        let rarity = end * f64::from(point) / f64::from(POINTS);
        (rarity, latencies.value_at_quantile(1.0 - 10f64.powf(-rarity)) as f64 / 1e6)
    };
    (0..=POINTS).map(at).collect()
}

fn percentile(rarity: f64) -> String {
    let percent = 100.0 - 100.0 * 10f64.powf(-rarity);
    let text = format!("{percent:.5}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarity_is_told_as_a_percentile() {
        assert_eq!([0.0, 1.0, 2.0, 4.0].map(percentile), ["0 %", "90 %", "99 %", "99.99 %"]);
    }
}
