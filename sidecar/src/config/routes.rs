//! Which route a request takes. Pure.
//!
//! As Envoy does it: the host chooses a virtual host (exact name, then the longest `*.suffix`, then the longest `prefix.*`, then
//! `*`), and the first of its routes that matches is taken. There is no second host to look at if none does.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::COOKIE, uri::Authority};
use regex::bytes::Regex;

use super::share;
use crate::policy::{deadline::RouteTimeout, grpc::is_grpc, retry::RetryPolicy};

/// The routes of one listener, by host.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    exact: HashMap<Box<str>, Arc<VirtualHost>>,
    /// What follows the star, longest first.
    suffixes: Vec<(Box<str>, Arc<VirtualHost>)>,
    /// What stands before the star, longest first.
    prefixes: Vec<(Box<str>, Arc<VirtualHost>)>,
    any: Option<Arc<VirtualHost>>,
}

/// The routes of some hosts, in order.
#[derive(Clone, Debug, Default)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// In the order in which they are tried.
    pub routes: Vec<Arc<Route>>,
}

/// Where some requests go.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name; empty if it has none.
    pub name: Arc<str>,
    /// Which.
    pub matches: RouteMatch,
    /// Where.
    pub action: Action,
    /// What is changed about headers on the way there.
    pub request_headers: Vec<HeaderEdit>,
    /// What is changed about headers on the way back.
    pub response_headers: Vec<HeaderEdit>,
}

/// Which requests a route is for: all of this has to hold.
#[derive(Clone, Debug)]
pub struct RouteMatch {
    /// Of the path, without its query.
    pub path: PathMatch,
    /// Of headers.
    pub headers: Vec<HeaderMatch>,
    /// Of parameters in the query.
    pub query: Vec<QueryMatch>,
    /// Only gRPC.
    pub grpc: bool,
}

/// What a path has to be.
#[derive(Clone, Debug)]
pub enum PathMatch {
    /// Begin so.
    Prefix(Box<str>),
    /// Begin so, and end or go on with a slash there.
    Segments(Box<str>),
    /// Be this.
    Exact(Box<str>),
    /// Match this, from beginning to end.
    Regex(Regex),
}

/// What a text has to be.
#[derive(Clone, Debug)]
pub struct TextMatch {
    /// The pattern.
    pub pattern: Pattern,
    /// Whether capitals do not count. (Regular expressions say so themselves.)
    pub ignore_case: bool,
}

/// A pattern for texts.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Be this.
    Exact(Box<str>),
    /// Begin so.
    Prefix(Box<str>),
    /// End so.
    Suffix(Box<str>),
    /// Hold this.
    Contains(Box<str>),
    /// Match this, from beginning to end.
    Regex(Regex),
}

/// What a header has to be.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    /// Its name; `None`: the method.
    pub name: Option<HeaderName>,
    /// What it has to be; `None`: there.
    pub value: Option<TextMatch>,
    /// Whether it must not be so.
    pub invert: bool,
    /// Whether one that is absent is taken for an empty one.
    pub missing_is_empty: bool,
}

/// What a parameter of the query has to be.
#[derive(Clone, Debug)]
pub struct QueryMatch {
    /// Its name.
    pub name: Box<str>,
    /// What it has to be; `None`: there.
    pub value: Option<TextMatch>,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// It goes to a cluster.
    Forward(Box<Forward>),
    /// It is answered.
    Respond {
        /// With this status,
        status: StatusCode,
        /// and this body.
        body: Box<str>,
    },
    /// The caller is sent elsewhere.
    Redirect(Box<Redirect>),
}

/// Where a caller is sent; what is not said stays.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// With which status.
    pub status: StatusCode,
    /// To which scheme.
    pub scheme: Option<Box<str>>,
    /// To which host.
    pub host: Option<Box<str>>,
    /// To which port.
    pub port: Option<u16>,
    /// To which path.
    pub path: Option<RedirectPath>,
    /// Whether the query is left out.
    pub strip_query: bool,
}

/// The path that a caller is sent to.
#[derive(Clone, Debug)]
pub enum RedirectPath {
    /// This, which may have a query.
    Whole(Box<str>),
    /// The one it asked for, changed.
    Part(Rewrite),
}

/// To which cluster, and how.
#[derive(Clone, Debug)]
pub struct Forward {
    /// Clusters and their shares; at least one, and one share that is not zero.
    pub clusters: Vec<(Arc<str>, u32)>,
    /// How long the whole may take; `None`: for ever.
    pub timeout: Option<RouteTimeout>,
    /// When it is tried again.
    pub retry: Option<Arc<RetryPolicy>>,
    /// What is changed about the path.
    pub rewrite: Rewrite,
    /// The host that is named to the cluster; `None`: that of the request.
    pub host: Option<HeaderValue>,
}

/// What is changed about a path.
#[derive(Clone, Debug, Default)]
pub enum Rewrite {
    /// Nothing.
    #[default]
    None,
    /// What matched as prefix becomes this.
    Prefix(Box<str>),
    /// What the expression matches becomes this, in the syntax of the regex crate.
    Regex(Regex, Box<str>),
}

/// A change to headers.
#[derive(Clone, Debug)]
pub enum HeaderEdit {
    /// Takes away.
    Remove(HeaderName),
    /// Puts in the place of what is there.
    Set(HeaderName, HeaderValue),
    /// Puts beside what is there.
    Append(HeaderName, HeaderValue),
    /// Puts in the place of what is there, if something is.
    Replace(HeaderName, HeaderValue),
    /// Puts if nothing is there.
    Default(HeaderName, HeaderValue),
}

/// The parts of a request that routes look at.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, without its query.
    pub path: &'a str,
    /// The query, if there is one.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// A domain that two virtual hosts of one table claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuplicateDomain(pub String);

impl RouteTable {
    /// A table of `hosts`, each with its domains.
    ///
    /// # Errors
    /// A domain is there twice; each is named.
    pub fn new(hosts: impl IntoIterator<Item = (Vec<String>, VirtualHost)>) -> Result<Self, Vec<DuplicateDomain>> {
        let mut table = Self::default();
        let mut duplicates = Vec::new();
        for (domains, host) in hosts {
            let host = Arc::new(host);
            for domain in domains {
                if !table.insert(&domain.to_ascii_lowercase(), &host) {
                    duplicates.push(DuplicateDomain(domain));
                }
            }
        }
        table.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
        table.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        if duplicates.is_empty() { Ok(table) } else { Err(duplicates) }
    }

    fn insert(&mut self, domain: &str, host: &Arc<VirtualHost>) -> bool {
        if domain == "*" {
            self.any.replace(host.clone()).is_none()
        } else if let Some(suffix) = domain.strip_prefix('*') {
            let fresh = self.suffixes.iter().all(|(known, _)| **known != *suffix);
            self.suffixes.push((suffix.into(), host.clone()));
            fresh
        } else if let Some(prefix) = domain.strip_suffix('*') {
            let fresh = self.prefixes.iter().all(|(known, _)| **known != *prefix);
            self.prefixes.push((prefix.into(), host.clone()));
            fresh
        } else {
            self.exact.insert(domain.into(), host.clone()).is_none()
        }
    }

    /// The virtual host of `host`, as it stands in a request: with or without port, in any case.
    pub fn host(&self, host: &str) -> Option<&Arc<VirtualHost>> {
        let lower = match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let bare = without_port(&lower);
        // A domain may name a port; who asks for it with one gets that.
        let exact = self.exact.get(&*lower).or_else(|| self.exact.get(bare));
        // The star stands for at least one character.
        let longer = |part: &str| bare.len() > part.len();
        exact
            .or_else(|| first(&self.suffixes, |suffix| longer(suffix) && bare.ends_with(suffix)))
            .or_else(|| first(&self.prefixes, |prefix| longer(prefix) && bare.starts_with(prefix)))
            .or(self.any.as_ref())
    }
}

fn first(hosts: &[(Box<str>, Arc<VirtualHost>)], wanted: impl Fn(&str) -> bool) -> Option<&Arc<VirtualHost>> {
    hosts.iter().find(|(part, _)| wanted(part)).map(|(_, host)| host)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

impl VirtualHost {
    /// The first route that is for `asked`.
    pub fn route(&self, asked: Asked<'_>) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.matches.is(asked))
    }
}

impl RouteMatch {
    fn is(&self, asked: Asked<'_>) -> bool {
        self.path.is(asked.path)
            && (!self.grpc || is_grpc(asked.headers))
            && self.headers.iter().all(|header| header.is(asked))
            && self.query.iter().all(|parameter| parameter.is(asked.query.unwrap_or_default()))
    }
}

impl PathMatch {
    fn is(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path.starts_with(&**prefix),
            Self::Segments(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Exact(exact) => path == &**exact,
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

impl TextMatch {
    fn is(&self, text: &str) -> bool {
        let folded = |text: &str| if self.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        match &self.pattern {
            Pattern::Exact(exact) if self.ignore_case => text.eq_ignore_ascii_case(exact),
            Pattern::Exact(exact) => text == &**exact,
            Pattern::Prefix(prefix) => folded(text).starts_with(&folded(prefix)),
            Pattern::Suffix(suffix) => folded(text).ends_with(&folded(suffix)),
            Pattern::Contains(part) => folded(text).contains(&folded(part)),
            Pattern::Regex(regex) => regex.is_match(text.as_bytes()),
        }
    }
}

impl HeaderMatch {
    fn is(&self, asked: Asked<'_>) -> bool {
        let value = match &self.name {
            None => Some(asked.method.as_str().to_owned()),
            Some(name) => joined(asked.headers, name),
        };
        let value = if self.missing_is_empty { Some(value.unwrap_or_default()) } else { value };
        let holds = match (&self.value, value) {
            (None, value) => value.is_some(),
            (Some(wanted), Some(value)) => wanted.is(&value),
            // Envoy: what is not there does not match, inverted or not.
            (Some(_), None) => return false,
        };
        holds != self.invert
    }
}

/// All values of a header in one, as Envoy matches them. HTTP/2 sends a cookie in pieces, which are no list (RFC 9113, section 8.2.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let between = if *name == COOKIE { "; " } else { "," };
    (!values.is_empty()).then(|| values.join(between))
}

impl QueryMatch {
    fn is(&self, query: &str) -> bool {
        let found = query.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == &*self.name).then_some(value)
        });
        match (&self.value, found) {
            (Some(wanted), Some(value)) => wanted.is(value),
            (None, found) => found.is_some(),
            (Some(_), None) => false,
        }
    }
}

impl Forward {
    /// The cluster for a random number from 0 to 1.
    pub fn cluster(&self, chance: f64) -> &Arc<str> {
        share::cluster(&self.clusters, chance)
    }
}

impl Route {
    /// `path` after `rewrite`.
    pub fn rewritten<'a>(&self, rewrite: &Rewrite, path: &'a str) -> Cow<'a, str> {
        match rewrite {
            Rewrite::None => path.into(),
            Rewrite::Prefix(new) => match &self.matches.path {
                PathMatch::Prefix(prefix) | PathMatch::Segments(prefix) => {
                    format!("{new}{}", path.strip_prefix(&**prefix).unwrap_or(path)).into()
                }
                PathMatch::Exact(_) => new.to_string().into(),
                PathMatch::Regex(_) => path.into(),
            },
            Rewrite::Regex(regex, new) => {
                let replaced = regex.replace_all(path.as_bytes(), new.as_bytes());
                String::from_utf8_lossy(&replaced).into_owned().into()
            }
        }
    }
}

impl Redirect {
    /// Where someone is sent who asked `route` for `path` of `authority` (over HTTP: the application's side is plain).
    pub fn location(&self, route: &Route, authority: &Authority, path: &str, query: Option<&str>) -> String {
        let scheme = self.scheme.as_deref().unwrap_or("http");
        let host = self.host.as_deref().unwrap_or(authority.host());
        // Another scheme has another port.
        let kept = authority.port_u16().filter(|_| self.scheme.is_none());
        let port = self.port.or(kept).map(|port| format!(":{port}")).unwrap_or_default();
        let path = match &self.path {
            None => path.into(),
            Some(RedirectPath::Whole(whole)) => Cow::from(&**whole),
            Some(RedirectPath::Part(rewrite)) => route.rewritten(rewrite, path),
        };
        let query = query.filter(|_| !self.strip_query && !path.contains('?'));
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{path}{query}")
    }
}

/// Makes `edits` to `headers`.
pub fn edit(headers: &mut HeaderMap, edits: &[HeaderEdit]) {
    for edit in edits {
        match edit {
            HeaderEdit::Remove(name) => _ = headers.remove(name),
            HeaderEdit::Set(name, value) => _ = headers.insert(name.clone(), value.clone()),
            HeaderEdit::Append(name, value) => _ = headers.append(name.clone(), value.clone()),
            HeaderEdit::Replace(name, value) => {
                if headers.contains_key(name) {
                    headers.insert(name.clone(), value.clone());
                }
            }
            HeaderEdit::Default(name, value) => _ = headers.entry(name.clone()).or_insert_with(|| value.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
