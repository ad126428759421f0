//! What the store in memory costs: time per charge, memory per cell, the longest call while a million cells are filled in.
//!
//! `cargo run --release -p chancery-rate-limiter --example memory_store`
#![allow(clippy::unwrap_used, reason = "a panic is how a measurement fails")]

use std::{
    hint::black_box,
    sync::Barrier,
    time::{Duration, Instant},
};

use chancery_rate_limiter::{
    model::{
        descriptor::Hits,
        key::CellKey,
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::{Ask, Charging, Clock, Memory, Store as _},
};

const CELLS: u64 = 1_000_000;
/// How often the table is filled.
const ROUNDS: usize = 5;
/// Charges of a thread in one measurement.
const CHARGES: u64 = 300_000;
/// Measurements, of which the best counts: a busy machine only adds.
const TRIES: usize = 10;

fn main() {
    fill();
    println!("\n{:>10} {:>8} {:>14} {:>10} {:>10}", "keys", "threads", "", "ns/charge", "million/s");
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        for keys in [1, 1_000, 100_000, CELLS] {
            for threads in [1, 2] {
                charge(keys, threads, limit(u32::MAX, 1, algorithm), "admitted");
            }
        }
    }
    for keys in [1, CELLS] {
        charge(keys, 1, limit(1, 86_400, Algorithm::TokenBucket), "refused");
    }
}

/// Inserts as many cells as there is room for, several times, and takes each call's best: what the table itself makes a
/// call wait for comes at the same call each time, what else the machine is busy with does not.
fn fill() {
    let limit = limit(1, 86_400, Algorithm::TokenBucket);
    let mut calls = vec![Duration::MAX; CELLS as usize];
    // All of them are kept: memory that was given back would come with its pages.
    let mut memories = Vec::new();
    for _ in 0..ROUNDS {
        let before = resident();
        let memory = Memory::new(CELLS as usize, Clock::system());
        let empty = resident().saturating_sub(before);
        for (n, call) in (0..).zip(calls.iter_mut()) {
            let ask = ask(n, limit);
            let start = Instant::now();
            black_box(memory.charge(&[ask]));
            *call = start.elapsed().min(*call);
        }
        let full = resident().saturating_sub(before) as f64 * 1024.0 / CELLS as f64;
        let (slots, cells, evicted) = (memory.slots(), memory.cells(), memory.evicted());
        println!("{slots} slots, {empty} kB resident; {cells} cells, {evicted} evicted, {full:.1} bytes resident each");
        sweep(&memory);
        memories.push(memory);
    }
    calls.sort_unstable();
    let at = |share: f64| calls[((calls.len() - 1) as f64 * share) as usize];
    let (median, high, longest) = (at(0.5), at(0.999), at(1.0));
    println!("inserting: median {median:?}, p99.9 {high:?}, longest {longest:?} (best of {ROUNDS} for each call)");
}

/// A whole round of the sweep, a step at a time.
fn sweep(memory: &Memory) {
    let mut steps: Vec<Duration> = (0..memory.slots() / 8 / 512)
        .map(|_| {
            let start = Instant::now();
            black_box(memory.sweep(512));
            start.elapsed()
        })
        .collect();
    steps.sort_unstable();
    println!("sweeping 512 buckets: median {:?}, longest {:?}", steps[steps.len() / 2], steps[steps.len() - 1]);
}

/// Charges random keys of so many, all of which exist.
fn charge(keys: u64, threads: u64, limit: Limit, what: &str) {
    let memory = Memory::new(CELLS as usize, Clock::system());
    for n in 0..keys {
        memory.charge(&[ask(n, limit)]);
    }
    let best = (0..TRIES).map(|_| round(&memory, keys, threads, limit)).min().unwrap();
    let nanoseconds = best.as_nanos() as f64 / CHARGES as f64;
    let what = format!("{what} {}", if limit.algorithm() == Algorithm::TokenBucket { "b" } else { "w" });
    let millions = threads as f64 * 1e3 / nanoseconds;
    println!("{keys:>10} {threads:>8} {what:>14} {nanoseconds:>10.1} {millions:>10.1}");
}

fn round(memory: &Memory, keys: u64, threads: u64, limit: Limit) -> Duration {
    let barrier = Barrier::new(threads as usize);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let mut chance = 0x9E37_79B9_7F4A_7C15 ^ (thread << 17);
                    barrier.wait();
                    let start = Instant::now();
                    for _ in 0..CHARGES {
                        chance ^= chance << 13;
                        chance ^= chance >> 7;
                        chance ^= chance << 17;
                        let Charging::Done(outcomes) = memory.charge(&[ask(chance % keys, limit)]) else {
                            panic!("memory has nothing to wait for");
                        };
                        black_box(outcomes[0].admitted);
                    }
                    start.elapsed()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).max().unwrap()
    })
}

fn limit(requests: u32, seconds: u64, algorithm: Algorithm) -> Limit {
    Limit::new(requests, Duration::from_secs(seconds), None, algorithm).unwrap()
}

fn ask(n: u64, limit: Limit) -> Ask {
    // Keys are hashes: all their bits differ.
    let n = u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let key = CellKey((n ^ (n >> 67)).wrapping_mul(0xD6E8_FEB8_6659_FD93_C2B2_AE3D_27D4_EB4F));
    Ask { key, limit, hits: Hits::Take(1), policy: Policy::default() }
}

/// This process's resident memory, in kB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
