//! Which hosts a route gets from a listener: those that both name.
//!
//! `*.example.com` is every host below `example.com`, for the Gateway API as for Envoy.

/// The hosts that a listener and a route have in common; without any of its own, either takes those of the other.
pub(super) fn common(listener: Option<&str>, route: &[String]) -> Vec<String> {
    match (listener, route) {
        (None, []) => vec!["*".to_owned()],
        (Some(listener), []) => vec![listener.to_owned()],
        (None, route) => route.to_vec(),
        (Some(listener), route) => {
            let mut hosts: Vec<String> = Vec::new();
            for host in route {
                let narrower = if covers(listener, host) {
                    host
                } else if covers(host, listener) {
                    listener
                } else {
                    continue;
                };
                if !hosts.iter().any(|known| known == narrower) {
                    hosts.push(narrower.to_owned());
                }
            }
            hosts
        }
    }
}

/// Whether all that `host` means is part of what `wide` means.
pub(super) fn covers(wide: &str, host: &str) -> bool {
    if wide == "*" || wide == host {
        return true;
    }
    let below = wide.strip_prefix('*').filter(|suffix| suffix.starts_with('.'));
    below.is_some_and(|suffix| host.trim_start_matches('*').len() > suffix.len() && host.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_gets_what_both_name() {
        let common = |listener, route: &[&str]| {
            common(listener, &route.iter().map(|&host| host.to_owned()).collect::<Vec<_>>()).join(" ")
        };
        assert_eq!(common(None, &[]), "*");
        assert_eq!(common(Some("*.a.com"), &[]), "*.a.com");
        assert_eq!(common(None, &["x.a.com", "*.b.com"]), "x.a.com *.b.com");
        assert_eq!(
            common(Some("*.a.com"), &["x.a.com", "y.x.a.com", "a.com", "xa.com", "x.b.com"]),
            "x.a.com y.x.a.com"
        );
        assert_eq!(common(Some("x.a.com"), &["*.a.com", "*.com", "x.a.com"]), "x.a.com");
        assert_eq!(common(Some("*.a.com"), &["*.x.a.com", "*.com"]), "*.x.a.com *.a.com");
        assert_eq!(common(Some("a.com"), &["b.com"]), "");
    }
}
