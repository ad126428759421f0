//! Latencies as curves: one SVG with one curve per server, both axes logarithmic; and what all charts have in common.
//!
//! Percentiles are drawn by how rare they are (90 %, 99 %, 99.9 % at equal distances), which is where servers differ.

use std::{fs, path::Path};

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::{
    coord::{Shift, ranged1d::Ranged},
    prelude::*,
};

const SIZE: (u32, u32) = (900, 520);

/// So many points has a curve.
const POINTS: u32 = 200;

/// The latencies of one server.
pub(crate) struct Curve<'a> {
    /// Its name.
    pub(crate) label: String,
    /// Red, green, blue.
    pub(crate) colour: RGBColor,
    /// In nanoseconds.
    pub(crate) latencies: &'a Histogram<u64>,
}

/// What plotters says of what it was asked to do.
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// What a chart is drawn on.
pub(crate) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A chart of numbers by numbers.
type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;

/// Draws `<name>.svg` into `folder`.
pub(crate) fn draw(folder: &Path, name: &str, caption: &str, curves: &[Curve<'_>]) -> Result<()> {
    paint(folder, name, SIZE, |canvas| chart(canvas, caption, curves))
}

/// Makes `<name>.svg` in `folder` of what `chart` draws.
pub(crate) fn paint(
    folder: &Path,
    name: &str,
    size: (u32, u32),
    chart: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join(format!("{name}.svg"));
    let painted = || {
        let canvas = SVGBackend::new(&path, size).into_drawing_area();
        canvas.fill(&WHITE)?;
        chart(&canvas)?;
        Ok(canvas.present()?)
    };
    painted().map_err(|error: Box<dyn std::error::Error>| anyhow!("cannot draw {}: {error}", path.display()))
}

/// Draws a line, of which the legend says what it is.
pub(crate) fn line<'a, 'b: 'a, X, Y>(
    chart: &mut Chart<'a, 'b, X, Y>,
    label: &str,
    colour: &impl Color,
    points: impl IntoIterator<Item = (f64, f64)>,
) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    let style = colour.stroke_width(2);
    chart
        .draw_series(LineSeries::new(points, style))?
        .label(label)
        .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    Ok(())
}

/// Draws the legend of a chart with all its lines.
pub(crate) fn legend<'a, 'b: 'a, X, Y>(chart: &mut Chart<'a, 'b, X, Y>) -> Drawn
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn chart(canvas: &Canvas<'_>, caption: &str, curves: &[Curve<'_>]) -> Drawn {
    let lines: Vec<_> = curves.iter().map(|one| points(one.latencies)).collect();
    let values = || lines.iter().flatten().map(|(_, ms)| *ms);
    // A server that answered nothing has one point, at zero, which this axis has not.
    let least = values().filter(|ms| *ms > 0.0).reduce(f64::min).unwrap_or(0.1);
    let most = values().fold(least * 10.0, f64::max);
    let rarest = lines.iter().flatten().map(|(rarity, _)| *rarity).fold(10.0, f64::max);
    let mut chart = ChartBuilder::on(canvas)
        .caption(caption, ("sans-serif", 20))
        .margin(14)
        .margin_right(40)
        .x_label_area_size(46)
        .y_label_area_size(62)
        .build_cartesian_2d(
            (1.0..rarest).log_scale().with_key_points(powers(rarest)),
            (least * 0.8..most * 1.25).log_scale().with_key_points(steps(least * 0.8, most * 1.25)),
        )?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("milliseconds")
        .x_label_formatter(&|rarity| percentile(*rarity))
        .y_label_formatter(&|ms| format!("{}", (ms * 1e3).round() / 1e3))
        .light_line_style(WHITE)
        .draw()?;
    for (curve, points) in curves.iter().zip(lines) {
        line(&mut chart, &curve.label, &curve.colour, points.into_iter().filter(|(_, ms)| *ms > 0.0))?;
    }
    legend(&mut chart)
}

/// How rare (1 is all, 10 the tenth that took longest, 100 the hundredth), and milliseconds; up to what samples can tell.
#[expect(clippy::cast_precision_loss, reason = "a latency to draw")]
fn points(latencies: &Histogram<u64>) -> Vec<(f64, f64)> {
    let end = (latencies.len().max(1) as f64).log10();
    let at = |point| {
        let rarity = 10f64.powf(end * f64::from(point) / f64::from(POINTS));
        (rarity, latencies.value_at_quantile(1.0 - 1.0 / rarity) as f64 / 1e6)
    };
    (0..=POINTS).map(at).collect()
}

/// The powers of ten up to a bound.
fn powers(most: f64) -> Vec<f64> {
    (0..=9).map(|power| 10f64.powi(power)).take_while(|power| *power <= most).collect()
}

/// 1, 2 and 5 times each power of ten, within bounds.
fn steps(least: f64, most: f64) -> Vec<f64> {
    let powers = (-3..=5).flat_map(|power| [1.0, 2.0, 5.0].map(|step| step * 10f64.powi(power)));
    powers.filter(|step| (least..=most).contains(step)).collect()
}

fn percentile(rarity: f64) -> String {
    let percent = 100.0 - 100.0 / rarity;
    let text = format!("{percent:.5}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarity_is_told_as_a_percentile() {
        assert_eq!([1.0, 10.0, 100.0, 10_000.0].map(percentile), ["0 %", "90 %", "99 %", "99.99 %"]);
    }
}
