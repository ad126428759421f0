//! Which fault meets which request.
//!
//! Pure. Whether a request meets a fault depends on the seed, on its id and on how often it has come, and on nothing
//! else: neither on the order in which requests arrive nor on who else is there. So a run can be repeated.

use std::{collections::BTreeMap, str::FromStr};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A way in which a service fails. All but the last two come over a request; at most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Fault {
    /// It answers with an error.
    Error,
    /// It answers late.
    Latency,
    /// It answers with 429 and `retry-after`.
    RateLimited,
    /// It executes the request, and the connection is reset before a byte of the answer.
    HangUp,
    /// The answer breaks off in the middle of its body: HTTP/1.1 by a reset of the connection, HTTP/2 by one of the stream.
    ResetMidBody,
    /// It answers before it has read the body of the request, and never reads it.
    EarlyResponse,
    /// The body of the answer comes bit by bit.
    Drip,
    /// A gRPC call gets a status and nothing else; what is no gRPC call gets an error.
    TrailersOnly,
    /// The connection is ended in an orderly way while the request is executed: `GOAWAY`, or `connection: close`.
    Goaway,
    /// An idle connection is closed at the very moment at which the next request comes, which is not looked at.
    FinOnReuse,
    /// A connection is reset as soon as it is there. At a share of 1 nobody listens, and those that there are end.
    Refuse,
}

impl Fault {
    /// Those that come over requests, in the order in which they share the range of chance.
    const OF_REQUESTS: [Self; 9] = [
        Self::Error,
        Self::Latency,
        Self::RateLimited,
        Self::HangUp,
        Self::ResetMidBody,
        Self::EarlyResponse,
        Self::Drip,
        Self::TrailersOnly,
        Self::Goaway,
    ];
}

/// The faults of the moment, and how often they come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Chaos {
    /// Other faults for another seed.
    pub(super) seed: u64,
    /// The share of requests, or of connections, that meet each; from 0 to 1, those of requests together at most 1.
    pub(super) faults: BTreeMap<Fault, f64>,
    /// The status of [`Fault::Error`]; a 5xx or 4xx.
    pub(super) status: u16,
    /// The wait of [`Fault::Latency`], in milliseconds.
    pub(super) latency_ms: u32,
    /// The wait between two pieces of [`Fault::Drip`], in milliseconds.
    pub(super) drip_ms: u32,
    /// What [`Fault::RateLimited`] asks for, in seconds.
    pub(super) retry_after: u32,
    /// The status of [`Fault::TrailersOnly`].
    pub(super) grpc_status: u8,
}

impl Default for Chaos {
    fn default() -> Self {
        Self {
            seed: 0,
            faults: BTreeMap::new(),
            status: 503,
            latency_ms: 100,
            drip_ms: 5,
            retry_after: 1,
            grpc_status: 14,
        }
    }
}

/// Why faults cannot be had as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChaosError {
    #[error("no faults in JSON: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error("the share of {0:?} is none: from 0 to 1")]
    Share(Fault),
    #[error("the faults of requests come to more than 1")]
    Sum,
    #[error("{0} is the status of no error: from 400 to 599")]
    Status(u16),
}

impl FromStr for Chaos {
    type Err = ChaosError;

    fn from_str(text: &str) -> Result<Self, ChaosError> {
        let chaos: Self = serde_json::from_str(text)?;
        if let Some((fault, _)) = chaos.faults.iter().find(|(_, share)| !(0.0..=1.0).contains(*share)) {
            return Err(ChaosError::Share(*fault));
        }
        // What is written in decimals does not quite add up.
        if Fault::OF_REQUESTS.iter().map(|fault| chaos.share(*fault)).sum::<f64>() > 1.000_001 {
            return Err(ChaosError::Sum);
        }
        if !(400..600).contains(&chaos.status) {
            return Err(ChaosError::Status(chaos.status));
        }
        Ok(chaos)
    }
}

impl Chaos {
    pub(super) fn share(&self, fault: Fault) -> f64 {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    /// What meets the request of this id when it comes for the `nth` time.
    pub(super) fn of_request(&self, id: &[u8], nth: u64) -> Option<Fault> {
        let mut chance = self.chance(id, nth);
        Fault::OF_REQUESTS.into_iter().find(|fault| {
            chance -= self.share(*fault);
            chance < 0.0
        })
    }

    /// Whether connection `number` meets `fault`, before its `nth` request.
    pub(super) fn of_connection(&self, fault: Fault, number: u64, nth: u64) -> bool {
        let share = self.share(fault);
        share > 0.0 && self.chance(&number.to_be_bytes(), nth) < share
    }

    /// A number from 0 to 1.
    fn chance(&self, id: &[u8], nth: u64) -> f64 {
        let hash = xxh3_64_with_seed(id, xxh3_64_with_seed(&nth.to_be_bytes(), self.seed));
        // As many bits as the number has room for.
        (hash >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chaos(text: &str) -> Chaos {
        text.parse().unwrap()
    }

    #[test]
    fn every_fault_comes_as_often_as_was_asked() {
        let chaos = chaos(r#"{"seed": 7, "faults": {"error": 0.1, "drip": 0.3, "goaway": 0.05}}"#);
        let mut met = BTreeMap::<_, u32>::new();
        for id in 0..20_000_u32 {
            *met.entry(chaos.of_request(&id.to_be_bytes(), 1)).or_default() += 1;
        }
        for (fault, wanted) in
            [(Some(Fault::Error), 2_000), (Some(Fault::Drip), 6_000), (Some(Fault::Goaway), 1_000), (None, 11_000)]
        {
            assert!(met[&fault].abs_diff(wanted) < 300, "{fault:?}: {}", met[&fault]);
        }
        assert_eq!(met.len(), 4);
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_try_another_chance() {
        let one = chaos(r#"{"seed": 1, "faults": {"error": 0.5}}"#);
        let other = chaos(r#"{"seed": 2, "faults": {"error": 0.5}}"#);
        let fates = |chaos: &Chaos, nth| (0..64_u8).map(|id| chaos.of_request(&[id], nth)).collect::<Vec<_>>();
        assert_eq!(fates(&one, 1), fates(&one, 1));
        assert_ne!(fates(&one, 1), fates(&other, 1));
        assert_ne!(fates(&one, 1), fates(&one, 2));
    }

    #[test]
    fn all_or_nothing_is_exact() {
        let all = chaos(r#"{"faults": {"hangUp": 1, "refuse": 1}}"#);
        let none = Chaos::default();
        for number in 0..500_u64 {
            assert_eq!(all.of_request(&number.to_be_bytes(), 1), Some(Fault::HangUp));
            assert!(all.of_connection(Fault::Refuse, number, 0));
            assert!(!all.of_connection(Fault::FinOnReuse, number, 0));
            assert_eq!(none.of_request(&number.to_be_bytes(), 1), None);
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        for text in [
            "",
            "{",
            r#"{"fault": {}}"#,
            r#"{"faults": {"flood": 0.1}}"#,
            r#"{"faults": {"error": -0.1}}"#,
            r#"{"faults": {"error": 1.1}}"#,
            r#"{"faults": {"error": 0.6, "drip": 0.6}}"#,
            r#"{"status": 200}"#,
        ] {
            assert!(text.parse::<Chaos>().is_err(), "{text}");
        }
        assert!(
            r#"{"faults": {"error": 0.6, "drip": 0.4, "refuse": 0.5, "finOnReuse": 0.5}}"#.parse::<Chaos>().is_ok()
        );
    }
}
