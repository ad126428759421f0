//! A request as somebody would send it, or has sent it.

use std::num::NonZeroU16;

use crate::model::Quoted;

/// How much Envoy reads of the head of a request, in bytes.
const MOST_BYTES: usize = 60 << 10;

/// The method that asks for a tunnel.
pub(super) const CONNECT: &str = "CONNECT";

/// How many headers Envoy takes.
const MOST_HEADERS: usize = 100;

/// A request. What it holds can stand in one, nothing more: whether a proxy would take it is another question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    method: String,
    scheme: Option<&'static str>,
    authority: String,
    port: Option<u16>,
    target: String,
    headers: Vec<(String, String)>,
}

/// Why something is no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// Not a method.
    #[error("{} is not a method, such as GET", Quoted(.0))]
    Method(String),
    /// Not a URL.
    #[error("{} is not a URL such as https://shop.example.com/cart: {reason}", Quoted(.url))]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not a header.
    #[error("{} is not the name of a header", Quoted(.0))]
    HeaderName(String),
    /// Not a value.
    #[error("the value of {name} holds control characters")]
    HeaderValue {
        /// Of which header.
        name: String,
    },
    /// More than a proxy reads.
    #[error("a proxy reads at most {MOST_HEADERS} headers and {MOST_BYTES} bytes of a request")]
    TooLarge,
}

impl InvalidRequest {
    /// The field of a question that is wrong.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Method(_) => "method",
            Self::Url { .. } => "url",
            Self::HeaderName(_) | Self::HeaderValue { .. } | Self::TooLarge => "headers",
        }
    }
}

impl Request {
    /// A request for `url`, as clients send it: without fragment, user and default port. A header `host` stands in the place of
    /// the host of `url`.
    pub fn new(
        method: &str,
        url: &str,
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, InvalidRequest> {
        let is_not = |reason| InvalidRequest::Url { url: url.to_owned(), reason };
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => ("http", rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => ("https", rest),
            _ => return Err(is_not("it starts with http:// or https://")),
        };
        let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = split_port(authority);
        let port = match port {
            None | Some("") => None,
            Some(port) => Some(port.parse::<NonZeroU16>().map_err(|_| is_not("its port is none"))?.get()),
        };
        if host.is_empty() {
            return Err(is_not("it names no host"));
        }
        let default_port = if scheme == "https" { 443 } else { 80 };
        let authority = match port {
            Some(port) if port != default_port || method == CONNECT => format!("{host}:{port}"),
            _ => host.to_owned(),
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        if ![&authority, &target].iter().all(|part| part.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(is_not("other than printable ASCII characters arrive encoded; write them so"));
        }
        if authority.contains(['"', '<', '>', '\\', '^', '`', '{', '|', '}']) {
            return Err(is_not("its host has characters that no host has"));
        }
        Self { scheme: Some(scheme), port, ..Self::logged(method, &authority, &target, [])? }.with(headers)
    }

    /// A request that was logged: its `authority` and its `target`, which is path and query.
    pub fn logged(
        method: &str,
        authority: &str,
        target: &str,
        headers: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, InvalidRequest> {
        if method.is_empty() || !method.bytes().all(is_token) {
            return Err(InvalidRequest::Method(method.to_owned()));
        }
        let request = Self {
            method: method.to_owned(),
            scheme: None,
            authority: authority.to_owned(),
            port: None,
            target: target.to_owned(),
            headers: Vec::new(),
        };
        request.with(headers)
    }

    fn with(mut self, headers: impl IntoIterator<Item = (String, String)>) -> Result<Self, InvalidRequest> {
        let mut size = self.authority.len() + self.target.len();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            size += name.len() + value.len();
            if self.headers.len() == MOST_HEADERS || size > MOST_BYTES {
                return Err(InvalidRequest::TooLarge);
            }
            if value.contains(|c: char| c.is_control() && c != '\t') {
                return Err(InvalidRequest::HeaderValue { name });
            }
            let value = value.trim_matches([' ', '\t']).to_owned();
            if name == "host" || name == ":authority" {
                self.authority = value;
            } else if name.is_empty() || !name.bytes().all(is_token) {
                return Err(InvalidRequest::HeaderName(name));
            } else {
                self.headers.push((name, value));
            }
        }
        if size > MOST_BYTES { Err(InvalidRequest::TooLarge) } else { Ok(self) }
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// `http` or `https`, if it is known.
    pub(super) fn scheme(&self) -> Option<&'static str> {
        self.scheme
    }

    /// The host that it names, with a port or without.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether it asks for a tunnel.
    pub(super) fn is_connect(&self) -> bool {
        self.method == CONNECT
    }

    /// The port that it is sent to, if it names one. The one in a CONNECT is where its tunnel leads.
    pub(super) fn port(&self) -> Option<u16> {
        self.port.filter(|_| !self.is_connect())
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The headers, names in lower case; never `host`.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }
}

/// Host, and what stands behind the last colon that is not part of an IPv6 address.
pub(super) fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, headers: &[(&str, &str)]) -> Result<Request, InvalidRequest> {
        Request::new("GET", url, headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_url_is_sent_as_clients_send_it() {
        for (url, authority, port, target) in [
            ("https://shop.example.com", "shop.example.com", None, "/"),
            ("HTTP://Shop.example.com:80/a?b=c#d", "Shop.example.com", Some(80), "/a?b=c"),
            ("http://me:secret@shop.example.com:8080?x", "shop.example.com:8080", Some(8080), "/?x"),
            ("https://[::1]:8443/a:b", "[::1]:8443", Some(8443), "/a:b"),
            ("https://[::1]/", "[::1]", None, "/"),
        ] {
            let sent = request(url, &[]).unwrap();
            assert_eq!((sent.authority(), sent.port(), sent.target()), (authority, port, target), "{url}");
        }
        let sent = request("http://10.0.0.1:10000/", &[("Host", "shop.example.com"), ("X-A", " 1 ")]).unwrap();
        assert_eq!((sent.authority(), sent.port()), ("shop.example.com", Some(10000)));
        assert_eq!(sent.headers(), [("x-a".to_owned(), "1".to_owned())]);
    }

    #[test]
    fn what_cannot_be_sent_is_no_request() {
        for url in [
            "",
            "shop.example.com/",
            "ftp://a/",
            "http://",
            "http:///a",
            "http://a:0/",
            "http://a:99999/",
            "http://a/ b",
            "http://bücher.example/",
            "http://a|b/",
        ] {
            assert_eq!(request(url, &[]).map_err(|error| error.field()), Err("url"), "{url}");
        }
        assert_eq!(request("http://a/", &[("x y", "1")]), Err(InvalidRequest::HeaderName("x y".to_owned())));
        assert!(request("http://a/", &[("x", "a\nb")]).is_err());
        assert!(request(&format!("http://a/{}", "a".repeat(MOST_BYTES)), &[]).is_err());
        assert!(request("http://a/", &[("x", "1"); MOST_HEADERS + 1]).is_err());
        assert!(Request::new("G T", "http://a/", []).is_err());
    }
}
