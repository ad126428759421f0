//! The last requests that a fleet has seen. Pure: the time is told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use chancery_proto::envoy::{access_log_data::HttpAccessLogEntry, core::RequestMethod};
use time::OffsetDateTime;

use crate::translate::access_log::ORIGINAL_HOST;

/// How many requests are kept of a fleet, each once however often it was seen.
pub const MOST_REQUESTS: usize = 1000;

/// The longest host and the longest path, in bytes; who asks for more is left out.
const LONGEST_HOST: usize = 255;
const LONGEST_PATH: usize = 2048;

/// A request, as far as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// The method, in upper case.
    pub method: &'static str,
    /// The host that it named, with a port or without, in lower case.
    pub authority: String,
    /// The path, without the query.
    pub path: String,
}

impl Request {
    /// The request of an entry, as it came; `None` if it is none that is kept.
    pub fn of(entry: &HttpAccessLogEntry) -> Option<Self> {
        let request = entry.request.as_ref()?;
        let method = RequestMethod::try_from(request.request_method).ok()?;
        if method == RequestMethod::MethodUnspecified {
            return None;
        }
        // Once a rule has rewritten them, path and host are not what the client asked for.
        let path = if request.original_path.is_empty() { &request.path } else { &request.original_path };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let authority = request.request_headers.get(ORIGINAL_HOST).unwrap_or(&request.authority);
        let is_kept = |text: &str, most| (1..=most).contains(&text.len()) && !text.contains(char::is_control);
        (is_kept(authority, LONGEST_HOST) && is_kept(path, LONGEST_PATH)).then(|| Self {
            method: method.as_str_name(),
            authority: authority.to_ascii_lowercase(),
            path: path.to_owned(),
        })
    }
}

/// A request, and how often it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRequest {
    /// The request.
    pub request: Arc<Request>,
    /// How often, since it is kept.
    pub count: u64,
    /// When last.
    pub last: OffsetDateTime,
}

/// The last requests.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    seen: HashMap<Arc<Request>, Seen>,
    /// By when each was seen last, the oldest first.
    order: BTreeMap<u64, Arc<Request>>,
    next: u64,
    since: Option<OffsetDateTime>,
    total: u64,
    left_out: u64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    order: u64,
    count: u64,
    last: OffsetDateTime,
}

impl Requests {
    /// Notes what was seen at `now`. If that is too much, what was not seen for longest is forgotten.
    pub fn note(&mut self, request: Option<Request>, now: OffsetDateTime) {
        self.since.get_or_insert(now);
        self.total = self.total.saturating_add(1);
        let Some(request) = request else {
            self.left_out = self.left_out.saturating_add(1);
            return;
        };
        let order = self.next;
        self.next += 1;
        let known = self.seen.get_mut(&request).and_then(|seen| {
            let request = self.order.remove(&seen.order)?;
            *seen = Seen { order, count: seen.count.saturating_add(1), last: now };
            Some(request)
        });
        let request = known.unwrap_or_else(|| {
            let request = Arc::new(request);
            self.seen.insert(request.clone(), Seen { order, count: 1, last: now });
            request
        });
        self.order.insert(order, request);
        if self.order.len() > MOST_REQUESTS
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.seen.remove(&oldest);
        }
    }

    /// What is kept, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = SeenRequest> {
        self.order.values().rev().filter_map(|request| {
            let Seen { order: _, count, last } = *self.seen.get(request)?;
            Some(SeenRequest { request: request.clone(), count, last })
        })
    }

    /// Since when requests are noted; `None`: there were none.
    pub fn since(&self) -> Option<OffsetDateTime> {
        self.since
    }

    /// How many were noted, those that are not kept included.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many of them are none that is kept: too long, or with a method that Envoy has no name for.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use chancery_proto::envoy::access_log_data::HttpRequestProperties;
    use proptest::prelude::*;

    use super::*;

    fn entry(request: HttpRequestProperties) -> HttpAccessLogEntry {
        HttpAccessLogEntry { request: Some(request), ..HttpAccessLogEntry::default() }
    }

    fn asked(authority: &str, path: &str) -> HttpRequestProperties {
        let (authority, path) = (authority.to_owned(), path.to_owned());
        HttpRequestProperties {
            request_method: RequestMethod::Get.into(),
            authority,
            path,
            ..HttpRequestProperties::default()
        }
    }

    fn request(path: &str) -> Request {
        Request::of(&entry(asked("shop.example.com", path))).unwrap()
    }

    #[test]
    fn what_a_client_asked_for_is_kept_without_what_may_be_secret() {
        let mut rewritten = asked("Inner", "/new?token=secret");
        rewritten.original_path = "/old?token=secret".into();
        rewritten.request_headers = [(ORIGINAL_HOST.to_owned(), "Shop.example.com:80".to_owned())].into();
        rewritten.user_agent = "secret".into();
        let kept = Request::of(&entry(rewritten)).unwrap();
        assert_eq!((kept.method, kept.authority.as_str(), kept.path.as_str()), ("GET", "shop.example.com:80", "/old"));
        assert_eq!(request("/a?b#c"), request("/a"));
        assert_eq!(request("/a#c"), request("/a"));
    }

    #[test]
    fn what_is_no_request_is_left_out() {
        let odd = HttpRequestProperties { request_method: 0, ..asked("a", "/") };
        let unknown = HttpRequestProperties { request_method: 99, ..asked("a", "/") };
        let long = asked("a", &"/".repeat(LONGEST_PATH + 1));
        for bad in [odd, unknown, long, asked("", "/"), asked("a", ""), asked("a", "?b"), asked("a\n", "/")] {
            assert_eq!(Request::of(&entry(bad.clone())), None, "{bad:?}");
        }
        assert_eq!(Request::of(&HttpAccessLogEntry::default()), None);
    }

    #[test]
    fn each_is_kept_once_and_the_newest_come_first() {
        let at = |second| OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second);
        let mut requests = Requests::default();
        assert_eq!((requests.since(), requests.newest().count()), (None, 0));
        for (second, path) in [(1, "/a"), (2, "/b"), (3, "/a")] {
            requests.note(Some(request(path)), at(second));
        }
        requests.note(None, at(4));
        let seen: Vec<_> = requests.newest().map(|seen| (seen.request.path.clone(), seen.count, seen.last)).collect();
        assert_eq!(seen, [("/a".to_owned(), 2, at(3)), ("/b".to_owned(), 1, at(2))]);
        assert_eq!((requests.since(), requests.total(), requests.left_out()), (Some(at(1)), 4, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn the_last_ones_are_kept(paths in proptest::collection::vec(0..3000_u32, 1..6000)) {
            let mut requests = Requests::default();
            for path in &paths {
                requests.note(Some(request(&format!("/{path}"))), OffsetDateTime::UNIX_EPOCH);
            }
            let mut expected: Vec<u32> = Vec::new();
            for path in paths.iter().rev() {
                if expected.len() < MOST_REQUESTS && !expected.contains(path) {
                    expected.push(*path);
                }
            }
            let kept: Vec<_> = requests.newest().map(|seen| seen.request.path[1..].parse::<u32>().unwrap()).collect();
            prop_assert_eq!(kept, expected);
            prop_assert_eq!((requests.seen.len(), requests.total()), (requests.order.len(), paths.len() as u64));
        }
    }
}
