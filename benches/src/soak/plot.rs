//! Memory over time: one SVG with one line per process.

use std::{error::Error, path::Path};

use anyhow::Result;
use plotters::prelude::*;

use super::sample::Series;
use crate::plot::{Canvas, legend, line, paint};

const SIZE: (u32, u32) = (900, 420);

/// Draws `<name>.svg` into `folder`.
pub(crate) fn draw(folder: &Path, name: &str, series: &[Series]) -> Result<()> {
    paint(folder, name, SIZE, |canvas| chart(canvas, series))
}

fn chart(canvas: &Canvas<'_>, series: &[Series]) -> Result<(), Box<dyn Error>> {
    let samples = || series.iter().flat_map(|one| &one.samples);
    let minutes = samples().map(|sample| sample.seconds / 60.0).fold(0.1, f64::max);
    let most = samples().map(|sample| sample.memory / 1e6).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(canvas)
        .caption("Memory of each process", ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(0.0..minutes, 0.0..most * 1.15)?;
    chart.configure_mesh().x_desc("minutes").y_desc("MB, resident").light_line_style(WHITE).draw()?;
    for (number, one) in series.iter().enumerate() {
        let points = one.samples.iter().map(|sample| (sample.seconds / 60.0, sample.memory / 1e6));
        line(&mut chart, &one.process, &Palette99::pick(number), points)?;
    }
    legend(&mut chart)
}
