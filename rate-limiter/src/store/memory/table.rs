//! A table of cells with a bound, in which a cell that exists is charged without a lock.
//!
//! # Shape
//! A key has two buckets of eight slots, both in the same shard. A bucket is a cache line of tags and one of cells, side by
//! side as processors fetch them; a hit reads one or two lines of tags and changes one cell. When windows end is
//! kept apart, in memory that token buckets never touch. All of it is taken from the system at the start, page by page, and
//! nothing is ever rehashed or moved: no call waits for the table to grow.
//!
//! A tag is 62 bits of the key; other bits choose the buckets. A new key therefore takes another's cell for its
//! own with a chance of 16 in 2^62: at a million new keys a second, once in nine thousand years. The key is a
//! keyed hash, so nobody can try for it. (The remaining two bits: that the slot is taken, and whether it counts windows, since
//! the two algorithms read a cell's bits differently.)
//!
//! # Who may do what
//! Charging is a compare-and-swap of the cell, by anyone, at any time. Changing a tag takes the shard's lock, and happens in
//! steps: the cell is swapped for [`DEAD`], the tag is changed, the new cell is stored. From this follows:
//! - Who holds the lock sees a key in no slot, or in one: a second cannot come up beside it.
//! - Who charges loads tag, cell, tag. Stores are releases and loads acquires, so a cell of the slot's next owner is
//!   never seen with the tag of the last: the second look at the tag comes after the new cell, which came after the new tag.
//! - A charge and the slot's loss cannot both succeed: both swap the same value of the cell. Whoever loses looks again,
//!   with the lock.
//! - The one thing left: a thread stopped between its second look and its swap, while the slot is emptied, filled by
//!   another key and brought to the very same value, to the nanosecond. Then that key pays for the hit: it may be refused too early,
//!   nobody is admitted too much.
//!
//! # Time
//! A bucket's cell is a point in time, and charging takes the later of it and now: a `now` that was read a moment
//! ago does no harm. A window's cell must not fall back to the window before, so its charge reads the clock after the
//! cell: who sees a cell of the new window is told a time in it. An absent key is inserted at a time read under the
//! lock, which is no earlier than the time at which its last cell was found expired.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    model::{
        cell::{Charged, Meter},
        descriptor::Hits,
        key::CellKey,
    },
    store::Clock,
};

/// Slots of a bucket: as many words as a cache line has.
const WIDTH: usize = 8;
/// Words of a bucket: its tags and its cells.
const BUCKET: usize = 2 * WIDTH;
/// The bytes of a bucket, and where one begins.
const ALIGNMENT: usize = BUCKET * size_of::<u64>();
/// Bits of a key that choose one bucket of a shard.
const CHOICE_BITS: u32 = 29;
const MOST_SHARDS: usize = 64;
/// Bytes of the smallest page there is.
const PAGE: usize = 4096;

/// Bit of a tag: the slot is taken.
const TAKEN: u64 = 1;
/// Bit of a tag: the cell counts windows.
const WINDOW: u64 = 2;

/// A cell whose slot is changing hands, or has no owner. No charge reaches it.
const DEAD: u64 = u64::MAX;

pub(super) struct Table {
    words: Box<[AtomicU64]>,
    /// Where the first bucket is in `words`.
    origin: usize,
    /// When the windows end, by bucket and slot.
    ends: Box<[AtomicU64]>,
    /// A power of two.
    shards: Box<[Shard]>,
    buckets_per_shard: usize,
    evicted: AtomicU64,
}

/// Slots of it that are taken, under the lock that is needed to take one. On a line of its own.
#[repr(align(64))]
struct Shard(Mutex<usize>);

/// One charge.
#[derive(Clone, Copy)]
pub(super) struct Charge<'c> {
    pub(super) meter: Meter,
    pub(super) hits: Hits,
    pub(super) debt: bool,
    pub(super) clock: &'c Clock,
}

/// Where a key may be.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    buckets: [usize; 2],
    tag: u64,
}

#[derive(Clone, Copy)]
struct Slot<'t> {
    tag: &'t AtomicU64,
    cell: &'t AtomicU64,
    end: &'t AtomicU64,
}

impl Table {
    /// A table with at least `slots` slots.
    pub(super) fn new(slots: usize) -> Self {
        let buckets = slots.div_ceil(WIDTH).max(1);
        // Small tables have few shards, so that each still has many buckets to choose from.
        let shards = (buckets / 16).clamp(1, MOST_SHARDS).next_power_of_two();
        let buckets_per_shard = buckets.div_ceil(shards);
        let words = zeros((shards * buckets_per_shard + 1) * BUCKET);
        let origin = (ALIGNMENT - words.as_ptr().addr() % ALIGNMENT) % ALIGNMENT / size_of::<u64>();
        let ends = zeros(shards * buckets_per_shard * WIDTH);
        let shards = (0..shards).map(|_| Shard(Mutex::new(0))).collect();
        Self { words, origin, ends, shards, buckets_per_shard, evicted: AtomicU64::new(0) }
    }

    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.buckets() * WIDTH
    }

    pub(super) fn buckets(&self) -> usize {
        self.shards.len() * self.buckets_per_shard
    }

    /// How many slots are taken.
    pub(super) fn taken(&self) -> usize {
        self.shards.iter().map(|shard| *shard.0.lock()).sum()
    }

    /// How many cells that still said something were given up for others, since the start.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted.load(Ordering::Relaxed)
    }

    /// Charges the cell of `key`; `now` is what the clock said a moment ago.
    #[inline]
    pub(super) fn charge(&self, key: CellKey, now: u64, charge: Charge<'_>) -> Charged {
        let place = self.place(key, charge.meter);
        self.find(place)
            .and_then(|slot| slot.charge(place.tag, now, charge))
            .unwrap_or_else(|| self.charge_or_insert(place, charge))
    }

    /// The same for a key that was not found, or was lost while it was charged.
    #[cold]
    fn charge_or_insert(&self, place: Place, charge: Charge<'_>) -> Charged {
        let mut taken = self.shards[place.shard].0.lock();
        let now = charge.clock.now();
        // Another thread may have been here first. Under the lock nobody takes the slot away.
        if let Some(charged) = self.find(place).and_then(|slot| slot.charge(place.tag, now, charge)) {
            return charged;
        }
        let charged = charge.meter.charge(0, now, charge.hits, charge.debt);
        let end = charge.meter.expires(charged.cell, now);
        if matches!(charge.hits, Hits::Take(1..)) && end > now {
            let slot = self.vacate(place, now, &mut taken);
            slot.tag.store(place.tag, Ordering::Release);
            if place.tag & WINDOW != 0 {
                slot.end.store(end, Ordering::Relaxed);
            }
            slot.cell.store(charged.cell.min(DEAD - 1), Ordering::Release);
        }
        charged
    }

    /// A slot for a new cell, its old one dead: one without an owner or with an expired cell, in the emptier bucket; else the
    /// one that expires soonest.
    fn vacate(&self, place: Place, now: u64, taken: &mut MutexGuard<'_, usize>) -> Slot<'_> {
        let free = |bucket| self.slots_of(bucket).filter(|slot| slot.is_free(now)).count();
        let [mut emptier, mut fuller] = place.buckets;
        if free(fuller) > free(emptier) {
            (emptier, fuller) = (fuller, emptier);
        }
        for slot in self.slots_of(emptier).chain(self.slots_of(fuller)) {
            match slot.bury(now) {
                Burial::Vacant => {
                    **taken += 1;
                    return slot;
                }
                Burial::Expired => return slot,
                Burial::Alive => {}
            }
        }
        let soonest = self.slots_of(emptier).chain(self.slots_of(fuller)).min_by_key(|slot| slot.expires());
        let slot = soonest.unwrap_or_else(|| unreachable!("a bucket has slots"));
        slot.cell.swap(DEAD, Ordering::AcqRel);
        self.evicted.fetch_add(1, Ordering::Relaxed);
        slot
    }

    /// Frees the slots of a bucket whose cells have expired, and says how many.
    pub(super) fn sweep(&self, bucket: usize, clock: &Clock) -> usize {
        let now = clock.now();
        if !self.slots_of(bucket).any(|slot| slot.is_taken() && slot.is_free(now)) {
            return 0;
        }
        let mut taken = self.shards[bucket / self.buckets_per_shard].0.lock();
        let mut freed = 0;
        for slot in self.slots_of(bucket) {
            if slot.bury(now) == Burial::Expired {
                slot.tag.store(0, Ordering::Release);
                freed += 1;
            }
        }
        *taken -= freed;
        freed
    }

    fn place(&self, CellKey(key): CellKey, meter: Meter) -> Place {
        let (choices, tag) = ((key >> 64) as u64, key as u64);
        let shard = (choices >> (2 * CHOICE_BITS)) as usize & (self.shards.len() - 1);
        let bucket = |choice: u64| {
            let choice = choice & ((1 << CHOICE_BITS) - 1);
            shard * self.buckets_per_shard + ((choice * self.buckets_per_shard as u64) >> CHOICE_BITS) as usize
        };
        let algorithm = if matches!(meter, Meter::Window { .. }) { WINDOW } else { 0 };
        Place {
            shard,
            buckets: [bucket(choices), bucket(choices >> CHOICE_BITS)],
            tag: tag & !(TAKEN | WINDOW) | TAKEN | algorithm,
        }
    }

    #[inline]
    fn find(&self, place: Place) -> Option<Slot<'_>> {
        place.buckets.into_iter().find_map(|bucket| {
            let tags = &self.words_of(bucket)[..WIDTH];
            let index = tags.iter().position(|tag| tag.load(Ordering::Acquire) == place.tag)?;
            Some(self.slot(bucket, index))
        })
    }

    fn slots_of(&self, bucket: usize) -> impl Iterator<Item = Slot<'_>> {
        (0..WIDTH).map(move |index| self.slot(bucket, index))
    }

    #[inline]
    fn slot(&self, bucket: usize, index: usize) -> Slot<'_> {
        let words = self.words_of(bucket);
        Slot { tag: &words[index], cell: &words[WIDTH + index], end: &self.ends[bucket * WIDTH + index] }
    }

    #[inline]
    fn words_of(&self, bucket: usize) -> &[AtomicU64] {
        let start = self.origin + bucket * BUCKET;
        &self.words[start..start + BUCKET]
    }
}

/// Zeros in memory that the system has really given: it gives a page when it is first written, which takes milliseconds where
/// pages are huge, and the requests that come first would wait for all of them.
fn zeros(count: usize) -> Box<[AtomicU64]> {
    let zeros: Box<[AtomicU64]> = vec![0; count].into_iter().map(AtomicU64::new).collect();
    for page in zeros.chunks(PAGE / size_of::<u64>()) {
        page[0].store(0, Ordering::Relaxed);
    }
    zeros
}

/// What became of an attempt to take a slot from its owner.
#[derive(PartialEq, Eq)]
enum Burial {
    /// It had none.
    Vacant,
    /// Its cell had expired.
    Expired,
    /// Its cell still says something.
    Alive,
}

impl Slot<'_> {
    /// Charges the cell, if the slot is (still) `tag`'s.
    #[inline]
    fn charge(self, tag: u64, now: u64, charge: Charge<'_>) -> Option<Charged> {
        let Charge { meter, hits, debt, clock } = charge;
        let windows = tag & WINDOW != 0;
        let mut cell = self.cell.load(Ordering::Acquire);
        loop {
            if cell == DEAD || self.tag.load(Ordering::Acquire) != tag {
                return None;
            }
            let now = if windows { clock.now() } else { now };
            // The cell's own number of the window is short, and comes round again.
            let over = windows && self.end.load(Ordering::Relaxed) <= now;
            let charged = meter.charge(if over { 0 } else { cell }, now, hits, debt);
            let next = charged.cell.min(DEAD - 1);
            if next == cell {
                return Some(charged);
            }
            if windows {
                // Before the cell, so that whoever sees the cell knows at least how long to keep it.
                let end = meter.expires(next, now);
                if self.end.load(Ordering::Relaxed) < end {
                    self.end.fetch_max(end, Ordering::Relaxed);
                }
            }
            match self.cell.compare_exchange_weak(cell, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(charged),
                Err(other) => cell = other,
            }
        }
    }

    /// Marks the cell dead if nobody misses it. With the shard's lock.
    fn bury(self, now: u64) -> Burial {
        if !self.is_taken() {
            self.cell.store(DEAD, Ordering::Release);
            return Burial::Vacant;
        }
        let cell = self.cell.load(Ordering::Acquire);
        if self.expiry_of(cell) <= now
            && self.cell.compare_exchange(cell, DEAD, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            Burial::Expired
        } else {
            Burial::Alive
        }
    }

    fn is_taken(self) -> bool {
        self.tag.load(Ordering::Acquire) != 0
    }

    /// Whether a new cell could come here: an estimate, unless with the shard's lock.
    fn is_free(self, now: u64) -> bool {
        !self.is_taken() || self.expires() <= now
    }

    fn expires(self) -> u64 {
        self.expiry_of(self.cell.load(Ordering::Acquire))
    }

    /// When `cell`, loaded before, says no more than an absent one.
    fn expiry_of(self, cell: u64) -> u64 {
        if self.tag.load(Ordering::Acquire) & WINDOW == 0 { cell } else { self.end.load(Ordering::Acquire) }
    }
}

/// What two threads may do to each other in between two steps, one step at a time.
#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FIRST: CellKey = CellKey(0x1111_1111_1111_1110);
    const SECOND: CellKey = CellKey(0x2222_2222_2222_2220);
    const METERS: [Meter; 2] =
        [Meter::Bucket { interval: 10, tolerance: 100, most: 200 }, Meter::Window { period: 100, requests: 10 }];

    #[test]
    fn who_found_a_slot_that_is_dying_charges_nothing() {
        for meter in METERS {
            let (table, clock) = (Table::new(8), Clock::by_hand(Duration::from_nanos(1_000)));
            let charge = Charge { meter, hits: Hits::Take(1), debt: false, clock: &clock.0 };
            table.charge(FIRST, 1_000, charge);
            let place = table.place(FIRST, meter);
            let slot = table.find(place).expect("it was inserted");
            assert!(slot.bury(1_005) == Burial::Alive);
            clock.1.advance(Duration::from_nanos(100));
            assert!(slot.bury(1_100) == Burial::Expired);
            assert_eq!(slot.charge(place.tag, 1_005, charge), None);
            assert_eq!(slot.cell.load(Ordering::Relaxed), DEAD);
        }
    }

    #[test]
    fn who_found_a_slot_that_is_anothers_by_now_charges_nothing() {
        for meter in METERS {
            let (table, clock) = (Table::new(8), Clock::by_hand(Duration::from_nanos(1_000)));
            let charge = Charge { meter, hits: Hits::Take(1), debt: false, clock: &clock.0 };
            table.charge(FIRST, 1_000, charge);
            let place = table.place(FIRST, meter);
            let slot = table.find(place).expect("it was inserted");
            clock.1.advance(Duration::from_nanos(100));
            table.charge(SECOND, 1_100, charge);
            let cell = slot.cell.load(Ordering::Relaxed);
            assert_eq!(slot.tag.load(Ordering::Relaxed), table.place(SECOND, meter).tag, "it took the same slot");
            assert_eq!(slot.charge(place.tag, 1_005, charge), None);
            assert_eq!(slot.cell.load(Ordering::Relaxed), cell);
            assert_eq!(table.charge(FIRST, 1_005, charge).remaining, 9, "and is found afresh");
        }
    }

    #[test]
    fn who_did_not_find_a_key_finds_it_under_the_lock_if_another_was_faster() {
        for meter in METERS {
            let (table, clock) = (Table::new(8), Clock::by_hand(Duration::from_nanos(1_000)));
            let charge = Charge { meter, hits: Hits::Take(1), debt: false, clock: &clock.0 };
            let place = table.place(FIRST, meter);
            assert_eq!(table.charge_or_insert(place, charge).remaining, 9);
            assert_eq!(table.charge_or_insert(place, charge).remaining, 8);
            assert_eq!(table.taken(), 1);
        }
    }

    #[test]
    fn who_was_told_the_time_long_ago_does_not_turn_a_window_back() {
        let (table, clock) = (Table::new(8), Clock::by_hand(Duration::from_nanos(1_000)));
        let charge = Charge { meter: METERS[1], hits: Hits::Take(1), debt: false, clock: &clock.0 };
        table.charge(FIRST, 1_000, charge);
        clock.1.advance(Duration::from_nanos(100));
        assert_eq!(table.charge(FIRST, 1_100, charge).remaining, 9);
        assert_eq!(table.charge(FIRST, 1_000, charge).remaining, 8);
        assert_eq!(table.charge(FIRST, 1_100, charge).remaining, 7);
    }
}
