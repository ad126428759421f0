//! The requests of a load, encoded once, and the order in which keys are asked for.
//!
//! What differs between two requests is the stream's number and a few digits in each descriptor; these are patched
//! into a copy. Headers are those that Envoy 1.40 sends for its rate-limit filter, compressed as it does that: each is spelt
//! out once per connection, but the path every time.

use chancery_proto::{
    Message as _,
    envoy::{
        rate_limit_common::{RateLimitDescriptor, rate_limit_descriptor::Entry},
        rls::RateLimitRequest,
    },
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::frames::{HEAD, STREAM_AT, append, flag, kind};

/// The domain that is loaded.
pub(super) const DOMAIN: &str = "bench";

/// `/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit` in the Huffman code of HPACK.
const PATH: [u8; 43] = [
    0x60, 0xb5, 0x77, 0x3f, 0xa5, 0xd0, 0x5b, 0x3b, 0x98, 0x85, 0x5e, 0xc1, 0xa4, 0xb4, 0x1a, 0x93, 0x25, 0x7e, 0xec,
    0xaf, 0xb4, 0x69, 0x2e, 0x73, 0x52, 0x64, 0xee, 0x2d, 0x9d, 0xcc, 0x42, 0xb1, 0xba, 0x73, 0xdb, 0x44, 0x9b, 0x46,
    0x92, 0xe7, 0x35, 0x26, 0x4f,
];

/// Key numbers have this many digits, so that every request of a load has the same length.
const DIGITS: usize = 7;

/// Stands for a key's number until one is patched in; occurs in nothing else.
const BLANK: &str = "~~~~~~~";

/// How many keys are drawn before the load; then the order repeats.
const DRAWN: usize = 1 << 19;

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Keys {
    /// Each as often as any other.
    Uniform(u32),
    /// The n-th most frequent 1/n as often as the most frequent.
    Zipf(u32),
    /// One after the other, each once.
    Each(u32),
}

impl Keys {
    /// How many there are.
    pub(super) fn count(self) -> u32 {
        let (Self::Uniform(count) | Self::Zipf(count) | Self::Each(count)) = self;
        count
    }

    /// Their numbers in the order they are asked for; the same in every run.
    pub(super) fn draw(self) -> Vec<u32> {
        let mut random = StdRng::seed_from_u64(0x00c4_a11c);
        match self {
            Self::Each(count) => (0..count).collect(),
            Self::Uniform(count) => (0..DRAWN).map(|_| random.random_range(0..count)).collect(),
            Self::Zipf(count) => {
                let mut sum = 0.0;
                let sums: Vec<f64> = (1..=count)
                    .map(|rank| {
                        sum += 1.0 / f64::from(rank);
                        sum
                    })
                    .collect();
                let mut draw = || {
                    let point = random.random_range(0.0..sum);
                    u32::try_from(sums.partition_point(|up_to| *up_to <= point)).unwrap_or(0)
                };
                (0..DRAWN).map(|_| draw()).collect()
            }
        }
    }
}

impl std::fmt::Display for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform(1) | Self::Zipf(1) | Self::Each(1) => write!(f, "one key"),
            Self::Uniform(count) => write!(f, "{count} keys, uniform"),
            Self::Zipf(count) => write!(f, "{count} keys, zipf"),
            Self::Each(count) => write!(f, "{count} keys, each once"),
        }
    }
}

/// How headers are spelt.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Spelling {
    /// In full, and the server is to remember them.
    Remember,
    /// As the server remembers them.
    Remembered,
    /// In full, because the server remembers nothing, or is not to.
    Forget,
}

/// The header block of every request, in HPACK (RFC 7541).
///
/// The deadline is a second, far beyond Envoy's usual 20 ms: a closed loop wants to know how much a server does, not
/// how often it was too slow.
pub(super) fn header_block(authority: &str, spelling: Spelling) -> Vec<u8> {
    // `:method: POST` and `:scheme: http` are in the static table, as are some names.
    let mut block = vec![0x83, 0x86, 0x04, 0x80 | 43];
    block.extend_from_slice(&PATH);
    let mut field = |name: Result<u8, &str>, value: &str, number: u8| {
        match (spelling, name) {
            (Spelling::Remembered, _) => return block.push(0x80 | number),
            (Spelling::Remember, name) => block.push(0x40 | name.unwrap_or(0)),
            // Four bits hold 15; the rest follows.
            (Spelling::Forget, Ok(known @ 15..)) => block.extend_from_slice(&[15, known - 15]),
            (Spelling::Forget, name) => block.push(name.unwrap_or(0)),
        }
        for text in name.err().into_iter().chain([value]) {
            // Lengths here are below 127, where one byte is the length.
            block.push(u8::try_from(text.len()).unwrap_or(0) & 0x7f);
            block.extend_from_slice(text.as_bytes());
        }
    };
    // What is remembered last is number 62.
    field(Ok(1), authority, 68);
    field(Err("te"), "trailers", 67);
    field(Err("grpc-timeout"), "1S", 66);
    field(Ok(31), "application/grpc", 65);
    field(Err("x-envoy-internal"), "true", 64);
    field(Err("x-forwarded-for"), "192.0.2.1", 63);
    field(Err("x-envoy-expected-rq-timeout-ms"), "1000", 62);
    block
}

/// A message, as gRPC frames it.
pub(super) fn grpc(request: &RateLimitRequest) -> Vec<u8> {
    let mut framed = vec![0; 5];
    request.encode(&mut framed).unwrap_or_else(|_| unreachable!("a Vec grows"));
    let length = u32::try_from(framed.len() - 5).unwrap_or(0);
    framed[1..5].copy_from_slice(&length.to_be_bytes());
    framed
}

/// A request with one entry per descriptor.
pub(super) fn request(domain: &str, entries: impl IntoIterator<Item = (String, String)>) -> RateLimitRequest {
    let descriptor = |(key, value)| RateLimitDescriptor { entries: vec![Entry { key, value }], ..Default::default() };
    let descriptors = entries.into_iter().map(descriptor).collect();
    RateLimitRequest { domain: domain.to_owned(), descriptors, hits_addend: 0 }
}

/// The key of the n-th descriptor's entry.
pub(super) fn entry_key(descriptor: usize) -> String {
    format!("key{descriptor}")
}

/// A request without its stream and its keys.
struct Template {
    bytes: Vec<u8>,
    data_at: usize,
    blanks: Vec<usize>,
    /// What it takes of the connection's window.
    weight: u32,
}

impl Template {
    fn new(headers: &[u8], message: &[u8]) -> Self {
        let mut bytes = Vec::new();
        append(&mut bytes, kind::HEADERS, flag::END_HEADERS, 0, headers);
        let data_at = bytes.len();
        append(&mut bytes, kind::DATA, flag::END_STREAM, 0, message);
        let blanks = bytes.windows(DIGITS).enumerate().filter(|(_, text)| *text == BLANK.as_bytes());
        let blanks = blanks.map(|(at, _)| at).collect();
        let weight = u32::try_from(message.len()).unwrap_or(u32::MAX);
        Self { bytes, data_at, blanks, weight }
    }
}

/// Where in the order of keys a connection is.
pub(super) struct Cursor {
    at: usize,
    step: usize,
}

impl Cursor {
    /// For connection `number` of `connections`, which take turns.
    pub(super) fn new(number: usize, connections: usize) -> Self {
        Self { at: number, step: connections }
    }
}

/// All requests that a load can ask for, to one server.
pub(super) struct Requests {
    first: Template,
    later: Template,
    order: Vec<u32>,
    repeats: bool,
}

impl Requests {
    /// Requests with this many descriptors each. `remembers` tells whether the server has room for our headers.
    pub(super) fn new(authority: &str, remembers: bool, descriptors: usize, keys: Keys) -> Self {
        let message = grpc(&request(DOMAIN, (0..descriptors).map(|n| (entry_key(n), BLANK.to_owned()))));
        let spelt = |remembering, otherwise| {
            let spelling = if remembers { remembering } else { otherwise };
            Template::new(&header_block(authority, spelling), &message)
        };
        Self {
            first: spelt(Spelling::Remember, Spelling::Forget),
            later: spelt(Spelling::Remembered, Spelling::Forget),
            order: keys.draw(),
            repeats: !matches!(keys, Keys::Each(_)),
        }
    }

    /// Whether each key was to be asked for once, and was.
    pub(super) fn are_used_up(&self, cursor: &Cursor) -> bool {
        !self.repeats && cursor.at >= self.order.len()
    }

    /// What one takes of the connection's window.
    pub(super) fn weight(&self) -> u32 {
        self.later.weight
    }

    /// Appends the next request, as `stream`. The first one on a connection tells the server the headers.
    pub(super) fn append(&self, out: &mut Vec<u8>, stream: u32, first: bool, cursor: &mut Cursor) {
        let template = if first { &self.first } else { &self.later };
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        let added = &mut out[start..];
        for at in [0, template.data_at] {
            added[at + STREAM_AT..at + HEAD].copy_from_slice(&stream.to_be_bytes());
        }
        for blank in &template.blanks {
            let mut number = self.order[cursor.at % self.order.len()];
            for digit in added[*blank..*blank + DIGITS].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
            cursor.at += cursor.step;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test reports")]

    use super::*;

    #[test]
    fn a_request_says_what_was_meant() {
        let requests = Requests::new("localhost", true, 3, Keys::Each(10));
        let (mut out, mut cursor) = (Vec::new(), Cursor::new(1, 2));
        requests.append(&mut out, 5, false, &mut cursor);
        assert_eq!(out[STREAM_AT..HEAD], 5_u32.to_be_bytes());
        let message = &out[requests.later.data_at + HEAD..];
        assert_eq!(requests.weight() as usize, message.len());
        let sent = RateLimitRequest::decode(&message[5..]).unwrap();
        let wanted = [("key0", "0000001"), ("key1", "0000003"), ("key2", "0000005")];
        assert_eq!(sent, request(DOMAIN, wanted.map(|(key, value)| (key.to_owned(), value.to_owned()))));
    }

    #[test]
    fn zipf_halves_from_the_first_to_the_second() {
        let drawn = Keys::Zipf(1000).draw();
        let count = |key| drawn.iter().filter(|drawn| **drawn == key).count();
        let (first, second) = (count(0), count(1));
        assert!((1.9..2.1).contains(&(first as f64 / second as f64)), "{first} and {second}");
        assert!(drawn.iter().all(|key| *key < 1000));
        assert_eq!(drawn, Keys::Zipf(1000).draw());
    }
}
