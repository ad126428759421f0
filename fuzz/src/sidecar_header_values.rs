//! Values of headers that tell the sidecar how long something may take, or when to come again.
#![no_main]

use std::time::Duration;

use chancery_sidecar::policy::{
    deadline::{format_grpc_timeout, parse_expected_timeout, parse_grpc_timeout},
    pushback::{MOST, parse_grpc_pushback, parse_retry_after},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (now, value) = input;
    for pushback in [parse_retry_after(value, Duration::from_secs(now)), parse_grpc_pushback(value)] {
        assert!(pushback.after().is_none_or(|wait| wait <= MOST), "nobody pushes back for longer");
    }
    parse_expected_timeout(value);
    if let Some(timeout) = parse_grpc_timeout(value) {
        let written = format_grpc_timeout(timeout);
        assert_eq!(parse_grpc_timeout(written.as_bytes()), Some(timeout), "{written} is as long");
    }
});
