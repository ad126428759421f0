//! Aims, beside what was measured.

use std::fmt;

use crate::report::table;

/// Something wanted, and what there is.
pub(crate) struct Aim {
    pub(crate) about: String,
    pub(crate) case: &'static str,
    pub(crate) wanted: Bound,
    pub(crate) measured: f64,
}

/// In which direction.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    Least(f64),
    Most(f64),
}

impl Bound {
    fn holds(self, measured: f64) -> bool {
        match self {
            Self::Least(least) => measured >= least,
            Self::Most(most) => measured <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Least(least) => write!(f, "≥ {least}"),
            Self::Most(most) => write!(f, "≤ {most}"),
        }
    }
}

/// A table of aims, each met or missed.
pub(crate) fn judged(aims: impl IntoIterator<Item = Aim>) -> String {
    let row = |Aim { about, case, wanted, measured }: Aim| {
        let verdict = if wanted.holds(measured) { "met" } else { "missed" };
        vec![about, case.to_owned(), wanted.to_string(), format!("{measured:.2}"), verdict.to_owned()]
    };
    let rows: Vec<Vec<String>> = aims.into_iter().map(row).collect();
    table(&["aim", "case", "wanted", "measured", "verdict"], &rows)
}
