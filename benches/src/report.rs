//! Samples and tables: JSON for machines, Markdown for people.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde::{Serialize, Serializer};

/// Times, of which nothing is thrown away.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// Adds one.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The smallest sample that is not below `share` of all samples; 1.0 is the largest.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

impl Serialize for Samples {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Shape {
            p50_ms: f64,
            p99_ms: f64,
            max_ms: f64,
            samples_ms: Vec<f64>,
        }
        let [p50_ms, p99_ms, max_ms] = [0.5, 0.99, 1.0].map(|share| milliseconds(self.quantile(share)));
        let samples_ms = self.0.iter().copied().map(milliseconds).collect();
        Shape { p50_ms, p99_ms, max_ms, samples_ms }.serialize(serializer)
    }
}

/// A time in milliseconds, to a microsecond.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A count to three digits at least, with commas.
pub(crate) fn thousands(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A table in Markdown, its columns aligned so that it reads well on a terminal too.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = String>| {
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(text, "| {cell:>width$} ");
        }
        text.push_str("|\n");
    };
    line(&mut header.iter().map(ToString::to_string));
    line(&mut widths.iter().map(|width| format!("{}:", "-".repeat(width.saturating_sub(1)))));
    for row in rows {
        line(&mut row.iter().cloned());
    }
    text
}

/// Writes `<name>.json` and `<name>.md` into `folder`, and prints the latter.
pub(crate) fn publish(folder: &Path, name: &str, json: &impl Serialize, markdown: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(json)?)?;
    fs::write(folder.join(format!("{name}.md")), markdown)?;
    println!("{markdown}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_sample() {
        let mut samples = Samples::default();
        (1..=100).rev().for_each(|ms| samples.push(Duration::from_millis(ms)));
        assert_eq!([0.5, 0.99, 1.0].map(|share| samples.quantile(share).as_millis()), [50, 99, 100]);
        assert_eq!(Samples::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = [vec!["10".into(), "1.5".into()], vec!["5000".into(), "22".into()]];
        let wanted = "| routes | p50 |\n| -----: | --: |\n|     10 | 1.5 |\n|   5000 |  22 |\n";
        assert_eq!(table(&["routes", "p50"], &rows), wanted);
    }

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!([999.4, 1_000.0, 188_765.0, 1_628_000.0].map(thousands), ["999", "1,000", "188,765", "1,628,000"]);
    }
}
