//! Memory over time: one SVG with one line per process.

use std::{fs, path::Path};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::sample::Series;

const SIZE: (u32, u32) = (900, 420);

/// Draws `<name>.svg` into `folder`.
pub(crate) fn draw(folder: &Path, name: &str, series: &[Series]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{name}.svg"));
    chart(&path, series).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))
}

fn chart(path: &Path, series: &[Series]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let samples = || series.iter().flat_map(|one| &one.samples);
    let minutes = samples().map(|sample| sample.seconds / 60.0).fold(0.1, f64::max);
    let most = samples().map(|sample| sample.memory / 1e6).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption("Memory of each process", ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..minutes, 0.0..most * 1.15)?;
    chart.configure_mesh().x_desc("minutes").y_desc("MB, resident").light_line_style(WHITE).draw()?;
    for (number, one) in series.iter().enumerate() {
        let style = Palette99::pick(number).stroke_width(2);
        let line = one.samples.iter().map(|sample| (sample.seconds / 60.0, sample.memory / 1e6));
        chart
            .draw_series(LineSeries::new(line, style))?
            .label(&one.process)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    root.present()?;
    Ok(())
}
