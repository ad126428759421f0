//! Hosts: as routes claim them, as endpoints are resolved, as requests are rewritten.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::{problem::Quoted, route::HostPattern};

/// The longest host name (RFC 1035).
const MAX_LENGTH: usize = 253;

/// The longest label of a host name (RFC 1035).
const MAX_LABEL: usize = 63;

/// A host as a route claims it: exact, `*.suffix` or `*`.
pub(super) fn pattern(text: &str) -> Result<HostPattern, String> {
    if text == "*" {
        return Ok(HostPattern::Any);
    }
    match text.strip_prefix("*.") {
        Some(suffix) => match dns_name(suffix)? {
            domain if domain.len() + 2 > MAX_LENGTH => Err(too_long(text)),
            domain => Ok(HostPattern::Suffix(domain)),
        },
        None => exact(text).map(HostPattern::Exact),
    }
}

/// One host, in lower case: a name, an IPv4 address, or an IPv6 address in brackets.
pub(super) fn exact(text: &str) -> Result<String, String> {
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let address: Ipv6Addr = inner.parse().map_err(|_| format!("{} is not an IPv6 address", Quoted(inner)))?;
        return Ok(format!("[{address}]"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("{} must stand in brackets", Quoted(text)));
    }
    if let Ok(address) = text.parse::<Ipv4Addr>() {
        return Ok(address.to_string());
    }
    dns_name(text)
}

/// A host name, in lower case.
pub(super) fn dns_name(text: &str) -> Result<String, String> {
    let is_not = |why: &str| Err(format!("{} is not a host name: {why}", Quoted(text)));
    if text.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if text.contains("://") {
        return is_not("leave out the scheme");
    }
    if text.contains('/') {
        return is_not("leave out the path");
    }
    if text.contains('*') {
        return is_not("a wildcard can only stand alone, or for the first labels of a claimed host: *.example.com");
    }
    if text.contains(':') {
        return is_not("leave out the port");
    }
    if !text.is_ascii() {
        return is_not("write other than ASCII characters as punycode (xn--…)");
    }
    if text.ends_with('.') {
        return is_not("leave out the dot at the end");
    }
    if text.len() > MAX_LENGTH {
        return Err(too_long(text));
    }
    for label in text.split('.') {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if label.is_empty() || label.len() > MAX_LABEL {
            return is_not("between dots must stand 1 to 63 characters");
        }
        if !label.bytes().all(allowed) || label.starts_with('-') || label.ends_with('-') {
            return is_not(
                "between dots must stand letters, digits, '-' and '_', with a hyphen neither first nor last",
            );
        }
    }
    // Everything that ends in a number is taken for an IPv4 address by clients (WHATWG URL), and this is none.
    if text.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit())) {
        return is_not("its last label is a number, but it is not an IP address");
    }
    Ok(text.to_ascii_lowercase())
}

fn too_long(text: &str) -> String {
    format!("{} is not a host name: it has more than {MAX_LENGTH} characters", Quoted(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_hosts() {
        for (text, shown) in [
            ("*", "*"),
            ("*.Example.com", "*.example.com"),
            ("*.com", "*.com"),
            ("Checkout.Example.COM", "checkout.example.com"),
            ("localhost", "localhost"),
            ("_dmarc.a_b.example.com", "_dmarc.a_b.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("10.0.0.1", "10.0.0.1"),
            ("1password.com", "1password.com"),
            ("[::1]", "[::1]"),
            ("[2001:DB8:0:0::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(pattern(text).map(|host| host.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn bad_hosts() {
        let long = format!("{}.com", "a.".repeat(130));
        for (text, why) in [
            ("", "must not be empty"),
            ("http://example.com", "leave out the scheme"),
            ("example.com/cart", "leave out the path"),
            ("example.com:8080", "leave out the port"),
            ("10.0.0.1:80", "leave out the port"),
            ("[::1]:80", "leave out the port"),
            ("::1", "must stand in brackets"),
            ("[::g]", "is not an IPv6 address"),
            ("*.", "must not be empty"),
            ("*example.com", "a wildcard can only"),
            ("a.*.com", "a wildcard can only"),
            ("example.*", "a wildcard can only"),
            ("**", "a wildcard can only"),
            ("*.10.0.0.1", "its last label is a number"),
            ("300.0.0.1", "its last label is a number"),
            ("example.com.", "leave out the dot at the end"),
            ("a..b", "1 to 63 characters"),
            (".a", "1 to 63 characters"),
            ("-a.com", "with a hyphen neither first nor last"),
            ("a b.com", "letters, digits"),
            ("a\n.com", "letters, digits"),
            ("bücher.example", "punycode"),
            (&long, "more than 253 characters"),
        ] {
            let refused = pattern(text).expect_err(text);
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }
}
