use std::sync::{Arc, Barrier, atomic::AtomicU64};

use super::*;
use crate::{
    model::{
        descriptor::Hits,
        key::CellKey,
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::{
        clock::Hand,
        conformance::{START, Subject, Ticks, conforms},
    },
};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn conforms_to_what_every_store_does() {
    let (memory, hand) = memory(10_000);
    let ticks = Ticks { per_second: 1_000_000_000, epoch: Duration::ZERO };
    conforms(&Subject { store: &memory, set_now: &|now| hand.set(now), ticks }).await;
    assert_eq!(memory.evicted(), 0);
}

#[test]
fn the_short_way_to_a_meter_leads_to_the_same() {
    for per in [1, 7, 1_000, 60_000, 86_399_999, 366 * 86_400_000].map(Duration::from_millis) {
        for requests in [0, 1, 3, 10, 999_983, u32::MAX] {
            for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
                let limit = Limit::new(requests, per, None, algorithm).unwrap();
                assert_eq!(Meter::in_nanoseconds(&limit), Meter::new(&limit, 1_000_000_000), "{limit:?}");
            }
        }
    }
}

/// Threads that charge the same few keys, new to the table, at one point in time.
#[test]
fn many_threads_are_admitted_exactly_the_burst() {
    const THREADS: u64 = 8;
    const KEYS: u64 = 50;
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        let limit = Limit::new(500, HOUR, None, algorithm).unwrap();
        let (memory, _hand) = memory(1_000);
        let admitted: [AtomicU64; KEYS as usize] = std::array::from_fn(|_| AtomicU64::new(0));
        let barrier = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    barrier.wait();
                    for hit in 0..100 * KEYS {
                        if take(&memory, hit % KEYS, limit, 1).admitted {
                            admitted[(hit % KEYS) as usize].fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        for admitted in &admitted {
            assert_eq!(admitted.load(Ordering::Relaxed), 500);
        }
        assert_eq!(memory.cells(), KEYS as usize);
    }
}

/// Every key is inserted by all threads at once: a cell beside the cell would admit it twice.
#[test]
fn a_key_that_many_insert_at_once_has_one_cell() {
    const THREADS: usize = 4;
    const KEYS: u64 = 5_000;
    let limit = bucket(1, HOUR);
    let (memory, _hand) = memory(2 * KEYS as usize);
    let admitted = AtomicU64::new(0);
    let barrier = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for key in 0..KEYS {
                    if key % 64 == 0 {
                        barrier.wait();
                    }
                    admitted.fetch_add(take(&memory, key, limit, 1).admitted.into(), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(admitted.into_inner(), KEYS);
    assert_eq!((memory.cells(), memory.evicted()), (KEYS as usize, 0));
}

/// Slots change hands all the time, under threads that charge them, let time go on, and sweep.
#[test]
fn never_too_much_while_cells_expire_and_slots_change_hands() {
    const THREADS: u64 = 3;
    const STEPS: u64 = 2_000;
    const KEYS: u64 = 64;
    let per = Duration::from_millis(10);
    for algorithm in [Algorithm::TokenBucket, Algorithm::FixedWindow] {
        let limit = Limit::new(2, per, Some(2), algorithm).unwrap();
        let (memory, hand) = memory(4 * KEYS as usize);
        let admitted: [AtomicU64; KEYS as usize] = std::array::from_fn(|_| AtomicU64::new(0));
        let barrier = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (memory, hand, admitted, barrier) = (&memory, &hand, &admitted, &barrier);
                scope.spawn(move || {
                    let mut chance = thread;
                    barrier.wait();
                    for _ in 0..STEPS {
                        for _ in 0..30 {
                            chance = (chance + 1) * 48_271 % 2_147_483_647;
                            let key = chance % KEYS;
                            admitted[key as usize]
                                .fetch_add(take(memory, key, limit, 1).admitted.into(), Ordering::Relaxed);
                        }
                        hand.advance(Duration::from_millis(1));
                        memory.sweep(8);
                    }
                });
            }
        });
        assert_eq!(memory.evicted(), 0);
        // Beside the burst, 2 in each period; windows are aligned, and one more is begun.
        let most = 2 + 2 * THREADS * STEPS / 10;
        for (key, admitted) in admitted.iter().enumerate() {
            let admitted = admitted.load(Ordering::Relaxed);
            assert!(admitted <= most, "{algorithm:?}: key {key} was admitted {admitted} times, and not {most}");
            assert!(admitted > most / 2, "{algorithm:?}: key {key} was admitted only {admitted} times");
        }
    }
}

#[test]
fn under_pressure_the_cell_nearest_to_its_expiry_goes_and_is_counted() {
    // One bucket of eight, which every key shares.
    let (memory, _hand) = memory(5);
    assert_eq!(memory.slots(), 8);
    for key in 0..8 {
        take(&memory, key, bucket(100, HOUR), 10 + key);
    }
    assert_eq!((memory.cells(), memory.evicted()), (8, 0));
    assert_eq!(take(&memory, 100, bucket(100, HOUR), 50).remaining, 50);
    assert_eq!((memory.cells(), memory.evicted()), (8, 1));
    for key in (1..8).rev() {
        assert_eq!(take(&memory, key, bucket(100, HOUR), 0).remaining, 90 - key, "{key} is still there");
    }
    assert_eq!(take(&memory, 0, bucket(100, HOUR), 0).remaining, 100, "the one with the least to remember went");
}

#[test]
fn a_flood_of_keys_stays_within_the_table() {
    let (memory, _hand) = memory(1_000);
    for key in 0..20_000 {
        assert!(take(&memory, key, bucket(1, HOUR), 1).admitted);
    }
    assert!(memory.cells() <= memory.slots() && memory.slots() < 1_600, "{} of {}", memory.cells(), memory.slots());
    assert_eq!(memory.cells() as u64 + memory.evicted(), 20_000);
}

#[test]
fn as_many_cells_as_asked_for_have_room() {
    let (memory, _hand) = memory(50_000);
    for key in 0..50_000 {
        take(&memory, key, bucket(1, HOUR), 1);
    }
    assert_eq!((memory.cells(), memory.evicted()), (50_000, 0));
}

#[test]
fn expired_cells_are_replaced_and_are_no_eviction() {
    for limit in [bucket(1, HOUR), window(1, HOUR)] {
        let (memory, hand) = memory(5);
        for key in 0..8 {
            take(&memory, key, limit, 1);
        }
        hand.advance(HOUR);
        for key in 10..18 {
            assert!(take(&memory, key, limit, 1).admitted);
        }
        assert_eq!((memory.cells(), memory.evicted()), (8, 0));
    }
}

#[test]
fn the_sweep_removes_what_expired_and_nothing_else() {
    let (memory, hand) = memory(6_000);
    for key in 0..1_000 {
        take(&memory, key, bucket(1, HOUR), 1);
        take(&memory, 1_000 + key, window(1, HOUR), 1);
        take(&memory, 2_000 + key, bucket(1, 3 * HOUR), 1);
    }
    hand.advance(HOUR - Duration::from_nanos(1));
    assert_eq!(memory.sweep(usize::MAX), 0);
    hand.advance(Duration::from_nanos(1));
    let before = memory.cells();
    // A small budget gets there too, a step at a time.
    let mut freed = 0;
    for _ in 0..memory.slots() / 8 {
        let step = memory.sweep(1);
        assert!(step <= 8);
        freed += step;
    }
    assert_eq!((freed, memory.cells()), (2_000, before - 2_000));
    for key in 2_000..3_000 {
        assert!(!take(&memory, key, bucket(1, 3 * HOUR), 1).admitted);
    }
    for key in 0..1_000 {
        assert!(take(&memory, key, bucket(1, HOUR), 1).admitted);
    }
}

#[test]
fn a_window_that_goes_on_is_not_swept_by_its_first_end() {
    let (memory, hand) = memory(100);
    take(&memory, 1, window(5, HOUR), 1);
    hand.advance(HOUR);
    assert_eq!(take(&memory, 1, window(5, HOUR), 2).remaining, 3);
    assert_eq!(memory.sweep(usize::MAX), 0);
    assert_eq!(take(&memory, 1, window(5, HOUR), 0).remaining, 3);
}

#[test]
fn what_says_nothing_takes_no_slot() {
    let (memory, _hand) = memory(100);
    for limit in [bucket(5, HOUR), window(5, HOUR), bucket(0, HOUR)] {
        take(&memory, 1, limit, 0);
        charge(&memory, 1, limit, Hits::GiveBack(3));
    }
    take(&memory, 2, bucket(5, HOUR), 6);
    take(&memory, 3, bucket(0, HOUR), 1);
    assert_eq!(memory.cells(), 0);
}

#[tokio::test]
async fn tending_sweeps_in_the_background() {
    let (memory, hand) = memory(5_000);
    let memory = Arc::new(memory);
    for key in 0..5_000 {
        take(&memory, key, bucket(1, HOUR), 1);
    }
    hand.advance(HOUR);
    let tending = tokio::spawn(tend(memory.clone()));
    let swept = async {
        while memory.cells() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), swept).await.expect("swept");
    tending.abort();
}

fn memory(capacity: usize) -> (Memory, Hand) {
    let (clock, hand) = Clock::by_hand(START);
    (Memory::new(capacity, clock), hand)
}

fn take(memory: &Memory, key: u64, limit: Limit, hits: u64) -> Outcome {
    charge(memory, key, limit, Hits::Take(hits))
}

fn charge(memory: &Memory, key: u64, limit: Limit, hits: Hits) -> Outcome {
    let ask = Ask { key: spread(key), limit, hits, policy: Policy::default() };
    match memory.charge(&[ask]) {
        Charging::Done(outcomes) => outcomes[0],
        Charging::Waiting(_) => panic!("memory has nothing to wait for"),
    }
}

/// Keys are hashes: all their bits differ.
fn spread(n: u64) -> CellKey {
    let n = u128::from(n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    CellKey((n ^ (n >> 67)).wrapping_mul(0xD6E8_FEB8_6659_FD93_C2B2_AE3D_27D4_EB4F))
}

fn bucket(requests: u32, per: Duration) -> Limit {
    Limit::new(requests, per, None, Algorithm::TokenBucket).unwrap()
}

fn window(requests: u32, per: Duration) -> Limit {
    Limit::new(requests, per, None, Algorithm::FixedWindow).unwrap()
}
