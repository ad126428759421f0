//! Which route a request takes.

use super::*;

fn host(name: &str) -> VirtualHost {
    VirtualHost { name: name.into(), routes: Vec::new() }
}

fn table(domains: &[&str]) -> Result<RouteTable, Vec<DuplicateDomain>> {
    RouteTable::new(domains.iter().map(|domain| (vec![(*domain).to_owned()], host(domain))))
}

#[test]
fn the_closest_domain_wins() {
    let table = table(&["*", "*.com", "*.example.com", "shop.example.com", "shop.*", "shop.example.com:81"]).unwrap();
    for (asked, wanted) in [
        ("shop.example.com", "shop.example.com"),
        ("SHOP.example.com:80", "shop.example.com"),
        ("shop.example.com:81", "shop.example.com:81"),
        ("news.example.com", "*.example.com"),
        ("example.com", "*.com"),
        (".example.com", "*.com"),
        ("shop.example.org", "shop.*"),
        ("localhost", "*"),
        ("[::1]:80", "*"),
    ] {
        assert_eq!(&*table.host(asked).unwrap().name, wanted, "{asked}");
    }
}

#[test]
fn a_domain_is_there_once() {
    let duplicates = table(&["a", "A", "*.b", "*.b", "*", "*"]).unwrap_err();
    assert_eq!(duplicates.len(), 3, "{duplicates:?}");
}

#[test]
fn prefixes_of_segments_end_at_a_slash() {
    let matches = PathMatch::Segments("/api".into());
    assert_eq!(
        ["/api", "/api/", "/api/x", "/apix", "/"].map(|path| matches.is(path)),
        [true, true, true, false, false]
    );
}

#[test]
fn a_header_that_is_repeated_is_matched_whole() {
    let several = |name: &str| {
        [("one", name), ("two", name)].map(|(value, name)| (name.parse().unwrap(), HeaderValue::from_static(value)))
    };
    let headers: HeaderMap = [several("cookie"), several("x-list")].into_iter().flatten().collect();
    let asked = Asked { method: &Method::GET, path: "/", query: None, headers: &headers };
    for (name, whole) in [("cookie", "one; two"), ("x-list", "one,two")] {
        let value = Some(TextMatch { pattern: Pattern::Exact(whole.into()), ignore_case: false });
        let name = Some(HeaderName::from_static(name));
        assert!(HeaderMatch { name, value, invert: false, missing_is_empty: false }.is(asked), "{whole}");
    }
}

#[test]
fn what_is_absent_does_not_match_inverted_either() {
    let value = Some(TextMatch { pattern: Pattern::Exact("1".into()), ignore_case: false });
    let absent = HeaderMap::new();
    let asked = Asked { method: &Method::GET, path: "/", query: None, headers: &absent };
    let name = Some(HeaderName::from_static("x-beta"));
    let not_one = HeaderMatch { name, value, invert: true, missing_is_empty: false };
    assert!(!not_one.is(asked));
    assert!(HeaderMatch { missing_is_empty: true, ..not_one.clone() }.is(asked));
    assert!(HeaderMatch { value: None, ..not_one }.is(asked));
}
