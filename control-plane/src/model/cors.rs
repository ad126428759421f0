//! Who may use what a rule answers from a page of another origin (CORS, the Fetch standard).

use std::time::Duration;

/// What browsers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// The origins that may, at least one, without duplicates.
    pub origins: Vec<Origin>,
    /// The methods they may use, at least one.
    pub methods: Vec<String>,
    /// The headers they may send, beside those that everybody may.
    pub headers: Vec<String>,
    /// The headers they may read, beside those that everybody may.
    pub expose_headers: Vec<String>,
    /// How long a browser may remember this, in whole seconds.
    pub max_age: Option<Duration>,
    /// Whether requests may have cookies and the like; not with [`Origin::Any`].
    pub credentials: bool,
}

/// An origin, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every one.
    Any,
    /// `https://shop.example.com`, in lower case, with a port only if it is not that of the scheme.
    Exact(String),
    /// Every one that an RE2 pattern matches whole.
    Pattern(String),
}
