//! What a proxy owes to HTTP: headers of one connection stay on it, a request means the same on both sides, and what could be
//! read in two ways is refused (RFC 9110, 7.6; RFC 9112, 6.1).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::{self, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
    uri::{Authority, PathAndQuery, Scheme},
};

use super::failure::Failure;
use crate::config::snapshot::Protocol;

/// Of one connection only, whatever `connection` says.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whom a request is for, unless another server might read it in another way.
///
/// # Errors
/// Says what is wrong.
pub fn check<B>(request: &Request<B>) -> Result<Authority, Failure> {
    // One look at each is less than a search for each of these.
    let (mut codings, mut lengths, mut hosts) = (0, 0, 0);
    for (name, _) in request.headers() {
        codings += usize::from(name == TRANSFER_ENCODING);
        lengths += usize::from(name == CONTENT_LENGTH);
        hosts += usize::from(name == HOST);
    }
    if codings > 0 && lengths > 0 {
        return Err(Failure::BadRequest("both transfer-encoding and content-length"));
    }
    if lengths > 1 {
        return Err(Failure::BadRequest("more than one content-length"));
    }
    if hosts > 1 {
        return Err(Failure::BadRequest("more than one host"));
    }
    if request.method() == Method::CONNECT {
        return Err(Failure::BadRequest("CONNECT is not served"));
    }
    authority(request).ok_or(Failure::BadRequest("no host, or none that is valid"))
}

/// Whom a request is for: the authority in its target, which counts for more (RFC 9112, 3.2.2), or its host.
pub fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let said = request.uri().authority().cloned();
    said.or_else(|| Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok())
        .filter(|authority| !authority.as_str().contains('@') && !authority.host().is_empty())
}

/// The protocol that a request would change its connection to, with what it says about it.
pub fn upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let asks = request.version() == Version::HTTP_11 && names(request.headers(), "upgrade");
    asks.then(|| request.headers().get(UPGRADE).cloned()).flatten()
}

/// Whether `connection` names this.
fn names(headers: &HeaderMap, wanted: &str) -> bool {
    tokens(headers).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Takes away what is of one connection only.
pub fn strip(headers: &mut HeaderMap) {
    // Most messages have nothing of the kind.
    if !headers.keys().any(|name| *name == TE || HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = tokens(headers).filter_map(|token| token.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // Framing is not for `connection` to name; and a host that it names away would make another request of this.
        if *name != CONTENT_LENGTH && *name != HOST {
            headers.remove(name);
        }
    }
    // All that HTTP/2 knows of it, and what gRPC asks for.
    let trailers = headers.get_all(TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if headers.remove(TE).is_some() && trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Puts a request into the form that `protocol` has for `authority` and `path`.
///
/// # Errors
/// The path cannot stand in a request.
pub fn address<B>(
    request: &mut Request<B>,
    protocol: Protocol,
    authority: &Authority,
    path: PathAndQuery,
) -> Result<(), Failure> {
    let invalid = |_| Failure::BadRequest("the target cannot be passed on");
    match protocol {
        Protocol::Http1 => {
            *request.uri_mut() = Uri::from(path);
            *request.version_mut() = Version::HTTP_11;
            join_cookies(request.headers_mut());
            if request.headers().get(HOST).is_none_or(|host| host != authority.as_str()) {
                let host =
                    HeaderValue::try_from(authority.as_str()).map_err(|_| Failure::BadRequest("no valid host"))?;
                request.headers_mut().insert(HOST, host);
            }
        }
        Protocol::Http2 => {
            let uri = Uri::builder().scheme(Scheme::HTTP).authority(authority.clone()).path_and_query(path);
            *request.uri_mut() = uri.build().map_err(invalid)?;
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove(HOST);
        }
    }
    Ok(())
}

/// Makes one of the pieces in which HTTP/2 may send a cookie, and of which HTTP/1 knows nothing (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let start = Request::builder().uri("/a").header("host", "shop");
        headers.iter().fold(start, |builder, (name, value)| builder.header(*name, *value)).body(()).unwrap()
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for headers in [
            &[("content-length", "3"), ("transfer-encoding", "chunked")][..],
            &[("content-length", "3"), ("content-length", "4")],
            &[("host", "other")],
        ] {
            assert!(check(&request(headers)).is_err(), "{headers:?}");
        }
        assert!(check(&request(&[("content-length", "3")])).is_ok());
        for host in ["", "a b", "user@shop", ":80"] {
            let request = Request::builder().uri("/").header("host", host).body(()).unwrap();
            assert!(check(&request).is_err(), "{host:?}");
        }
    }

    #[test]
    fn the_target_counts_for_more_than_the_host() {
        let request = Request::builder().uri("http://a/").header("host", "b").body(()).unwrap();
        assert_eq!(authority(&request).unwrap(), "a");
    }

    #[test]
    fn the_host_is_that_of_the_cluster_whatever_it_was() {
        for asked in ["shop", "SHOP", "other"] {
            let mut request = Request::builder().uri("/").header("host", asked).body(()).unwrap();
            address(&mut request, Protocol::Http1, &Authority::from_static("shop"), PathAndQuery::from_static("/a"))
                .unwrap();
            assert_eq!((&request.headers()[HOST], request.uri().path()), (&HeaderValue::from_static("shop"), "/a"));
        }
    }

    #[test]
    fn a_cookie_in_pieces_is_one_for_http1() {
        let sent = |protocol| {
            let mut request = request(&[("cookie", "a=1"), ("cookie", "b=2; c=3"), ("x-list", "1"), ("x-list", "2")]);
            let path = PathAndQuery::from_static("/a");
            address(&mut request, protocol, &Authority::from_static("shop"), path).unwrap();
            let headers = request.into_parts().0.headers;
            ["cookie", "x-list"].map(|name| -> Vec<String> {
                headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
            })
        };
        let list = vec!["1".to_owned(), "2".to_owned()];
        assert_eq!(sent(Protocol::Http1), [vec!["a=1; b=2; c=3".to_owned()], list.clone()]);
        assert_eq!(sent(Protocol::Http2), [vec!["a=1".to_owned(), "b=2; c=3".to_owned()], list]);
    }

    #[test]
    fn headers_of_a_connection_stay_on_it() {
        let mut headers = request(&[
            ("connection", "close, X-Mine, content-length, host"),
            ("x-mine", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("upgrade", "websocket"),
            ("x-other", "1"),
        ])
        .into_parts()
        .0
        .headers;
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-other"]);
        let mut grpc = request(&[("te", "trailers")]).into_parts().0.headers;
        strip(&mut grpc);
        assert_eq!(grpc["te"], "trailers");
    }
}
