//! Configuration from anywhere: any bytes are rules or problems, never a crash, and rules that were read can be built.
#![no_main]

use chancery_rate_limiter::{
    config::yaml::parse,
    model::{limit::Algorithm, rule::Rules},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        match parse("fuzz.yaml", text, algorithm) {
            Ok(specs) => assert!(Rules::build(&specs).is_ok(), "what was read without a problem has one"),
            Err(problems) => assert!(!problems.is_empty(), "refused without a reason"),
        }
    }
});
