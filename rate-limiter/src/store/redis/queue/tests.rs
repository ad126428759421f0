use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;
use crate::{
    model::{
        cell::Meter,
        descriptor::Hits,
        key::CellKey,
        limit::{Algorithm, Limit},
    },
    store::redis::{script::TICKS_PER_SECOND, ticket::Wait},
};

const MS: Duration = Duration::from_millis(1);

fn open() -> Queue {
    let queue = Queue::default();
    queue.open();
    queue
}

/// The `key` tells items apart.
fn item(key: u128, hits: Hits, asked: Instant) -> Item {
    let limit = Limit::new(10, Duration::from_secs(1), None, Algorithm::TokenBucket).unwrap();
    let call = Call { key: CellKey(key), meter: Meter::new(&limit, TICKS_PER_SECOND), hits, debt: false, want: 0 };
    Item { call, ticket: None, asked, noted: false }
}

fn put(queue: &Queue, key: u128, now: Instant) {
    queue.put(std::iter::once(item(key, Hits::Take(1), now)), now).unwrap();
}

fn put_behind(queue: &Queue, keys: std::ops::Range<u128>, now: Instant) {
    for key in keys {
        queue.put_behind(item(key, Hits::Take(0), now)).unwrap();
    }
}

fn take(queue: &Queue, idle: bool) -> Vec<u128> {
    let mut items = Vec::new();
    queue.take(&mut items, idle);
    keys(&items)
}

fn keys(items: &[Item]) -> Vec<u128> {
    items.iter().map(|item| item.call.key.0).collect()
}

fn rang(queue: &Queue) -> bool {
    queue.bell.notified().now_or_never().is_some()
}

#[test]
fn what_somebody_waits_for_goes_first_and_the_rest_in_portions() {
    let (queue, now) = (open(), Instant::now());
    put_behind(&queue, 100..300, now);
    put(&queue, 1, now);
    let taken = take(&queue, false);
    assert_eq!((taken[0], taken.len()), (1, 1 + FEW));
    assert_eq!(take(&queue, false), [], "nobody is in front, and something is under way");
    let taken = take(&queue, true);
    assert_eq!((taken[0], taken.len()), (100 + FEW as u128, PORTION));
    for key in 0..200 {
        put(&queue, key, now);
    }
    assert_eq!(take(&queue, false).len(), 200 + PORTION);
    assert_eq!(take(&queue, true).len(), 200 - FEW - 2 * PORTION);
}

#[test]
fn the_bell_rings_once_for_each_lot_unless_what_came_is_held() {
    let (queue, now) = (open(), Instant::now());
    put_behind(&queue, 0..2, now);
    assert!(rang(&queue));
    put(&queue, 1, now);
    assert!(rang(&queue), "the first in front");
    put(&queue, 2, now);
    put_behind(&queue, 2..3, now);
    assert!(!rang(&queue));
    assert!(queue.hold(Some(now + MS)));
    put(&queue, 3, now);
    assert!(!rang(&queue), "too early");
    put(&queue, 4, now + MS);
    assert!(rang(&queue));
    put(&queue, 5, now + MS);
    assert!(!rang(&queue), "it is known");
    take(&queue, true);
    assert!(!queue.hold(Some(now)), "nothing is there");
}

#[test]
fn what_is_owed_stays_when_nobody_waits_for_it_any_more() {
    let (queue, now) = (open(), Instant::now());
    let ticket = Ticket::new(3);
    let asked = [Hits::Take(1), Hits::GiveBack(2), Hits::Take(3)].into_iter().enumerate().map(|(slot, hits)| {
        let mut item = item(slot as u128, hits, now);
        // A bill for what was used.
        item.call.debt = slot == 2;
        item.ticket = Some((ticket.clone(), slot));
        item
    });
    queue.put(asked, now).unwrap();
    put(&queue, 9, now + MS);
    queue.put_behind(item(10, Hits::GiveBack(1), now)).unwrap();
    queue.put_behind(item(11, Hits::Take(0), now)).unwrap();
    let expired = queue.take_older(now);
    assert_eq!((keys(&expired.items), expired.waited()), (vec![0, 11], 3));
    for (ticket, slot) in expired.tickets {
        assert!(ticket.answer(slot, None));
    }
    assert!(expired.items[0].ticket.as_ref().is_some_and(|(ticket, slot)| ticket.answer(*slot, None)));
    assert!(Wait(ticket).now_or_never().is_some());
    let again = queue.take_older(now);
    assert!(again.items.is_empty() && again.waited() == 0);
    assert_eq!(take(&queue, false), [1, 2, 9, 10]);
}

#[test]
fn too_much_is_refused_and_an_outage_takes_all() {
    let (queue, now) = (open(), Instant::now());
    let many = |count| std::iter::repeat_n((), count).map(move |()| item(1, Hits::Take(1), now));
    queue.put(many(MOST - 1), now).unwrap();
    assert_eq!(queue.put(many(2), now), Err(Closed::Full));
    queue.put_behind(item(2, Hits::GiveBack(1), now)).unwrap();
    assert_eq!(queue.put_behind(item(2, Hits::GiveBack(1), now)), Err(Closed::Full));
    assert_eq!(queue.shut().len(), MOST);
    assert_eq!(queue.put(many(1), now), Err(Closed::Away));
    assert_eq!(queue.put_behind(item(2, Hits::GiveBack(1), now)), Err(Closed::Away));
}
