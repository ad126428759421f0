//! The task of a link: connects, sends, answers, gives up in time.

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use redis::cluster_routing::Slot;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    LinkOptions,
    flight::{Landed, Trouble, launch},
};
use crate::store::redis::{
    breaker::Breaker,
    connect::{Connection, Connector},
    metrics::{self, LinkMetrics},
    queue::{Item, Queue},
    script::MOST_KEYS,
    ticket::Ticket,
};

/// Calls to a cluster that may be under way.
const MOST_FLIGHTS: usize = 1_024;

/// How long a call may go unanswered before the connection is given up.
const STALLED: Duration = Duration::from_secs(1);

/// For how long a slot of a cluster is not asked after a failure.
const SLOT_AWAY: Duration = Duration::from_millis(100);

/// A cluster of which no node has answered for this long is away as a whole.
const CLUSTER_AWAY: Duration = Duration::from_millis(250);

type Flights = FuturesUnordered<BoxFuture<'static, Landed>>;

/// Why a connection is no longer of use.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the connection was closed")]
    Closed,
    #[error("no answer for {STALLED:?}")]
    Stalled,
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

pub(super) struct Task {
    queue: Arc<Queue>,
    connector: Arc<Connector>,
    options: LinkOptions,
    metrics: LinkMetrics,
    breaker: Breaker,
    /// What has been sent, oldest first; also what has been answered since the last look.
    pending: VecDeque<(Instant, Arc<Ticket>)>,
    /// Slots that failed, and until when they are not asked.
    slots_away: HashMap<Slot, Instant>,
    batch: Vec<Item>,
    answers: bool,
    /// When Redis last answered in time.
    answered: Instant,
}

impl Task {
    pub(super) fn new(queue: Arc<Queue>, connector: Arc<Connector>, options: LinkOptions) -> Self {
        Self {
            queue,
            connector,
            options,
            metrics: LinkMetrics::new(),
            breaker: Breaker::default(),
            pending: VecDeque::new(),
            slots_away: HashMap::new(),
            batch: Vec::new(),
            answers: false,
            answered: Instant::now(),
        }
    }

    /// Keeps up a connection and serves on it, until dropped.
    pub(super) async fn run(mut self) {
        let mut told = false;
        loop {
            sleep(self.breaker.pause(rand::random())).await;
            let lost = Arc::new(Notify::new());
            let connection = match self.connector.connect(&lost).await {
                Ok(connection) => connection,
                Err(error) => {
                    metrics::error("connect");
                    // Once per outage: attempts come every second.
                    if !std::mem::replace(&mut told, true) {
                        let causes = chancery_runtime::telemetry::chain(&error);
                        tracing::warn!(address = %self.connector.address(), causes, "no connection to Redis: each rule's policy applies");
                    }
                    continue;
                }
            };
            tracing::info!(address = %self.connector.address(), "connected to Redis");
            told = false;
            self.close_breaker();
            let ended = self.serve(&connection, &lost).await;
            self.open_breaker();
            let causes = chancery_runtime::telemetry::chain(&ended);
            tracing::warn!(address = %self.connector.address(), causes, "lost Redis");
        }
    }

    async fn serve(&mut self, connection: &Connection, lost: &Notify) -> Ended {
        let cluster = connection.is_cluster();
        let look_every = (self.options.timeout / 4).max(Duration::from_micros(500));
        let mut flights = Flights::new();
        let mut oldest_sent = Instant::now();
        let look = sleep(look_every);
        tokio::pin!(look);
        loop {
            if flights.is_empty() || cluster && flights.len() < MOST_FLIGHTS {
                if flights.is_empty() {
                    oldest_sent = Instant::now();
                }
                self.launch_all(&mut flights, connection);
            }
            let room = flights.is_empty() || cluster && flights.len() < MOST_FLIGHTS;
            let opened = tokio::select! {
                biased;
                Some(landed) = flights.next(), if !flights.is_empty() => match self.land(landed, cluster) {
                    ControlFlow::Continue(opened) => opened,
                    ControlFlow::Break(trouble) => return trouble.into(),
                },
                () = self.queue.bell.notified(), if room => false,
                () = lost.notified(), if !cluster => return Ended::Closed,
                () = &mut look, if !self.pending.is_empty() || !flights.is_empty() => {
                    let now = Instant::now();
                    look.as_mut().reset(now + look_every);
                    self.give_up_late(now);
                    !flights.is_empty() && now > oldest_sent + 3 * self.options.timeout && self.speaks_for_all(cluster)
                }
            };
            if opened {
                self.open_breaker();
                if let Err(ended) = self.wait_for_recovery(connection, &mut flights, oldest_sent, cluster).await {
                    return ended;
                }
                self.close_breaker();
            }
        }
    }

    /// Sends everything that is waiting.
    fn launch_all(&mut self, flights: &mut Flights, connection: &Connection) {
        let mut batch = std::mem::take(&mut self.batch);
        self.queue.take(&mut batch);
        if batch.is_empty() {
            self.batch = batch;
            return;
        }
        self.metrics.batch_size.record(batch.len() as f64);
        for item in &batch {
            if let Some((ticket, _)) = &item.ticket {
                self.pending.push_back((item.asked, ticket.clone()));
            }
        }
        let given = self.options.given_time.as_ref().map(|now| now.load(Ordering::Acquire));
        let start = |items, slot| {
            flights.push(launch(items, slot, connection.clone(), self.connector.clone(), given));
        };
        if !connection.is_cluster() {
            while batch.len() > MOST_KEYS {
                let rest = batch.split_off(MOST_KEYS);
                start(std::mem::replace(&mut batch, rest), None);
            }
            start(batch, None);
            return;
        }
        let mut by_slot: HashMap<Slot, Vec<Item>> = HashMap::new();
        for item in batch.drain(..) {
            by_slot.entry(Slot::for_key(item.call.key())).or_default().push(item);
        }
        self.batch = batch;
        let now = Instant::now();
        self.slots_away.retain(|_, until| *until > now);
        for (slot, mut items) in by_slot {
            if self.slots_away.contains_key(&slot) {
                items.iter().for_each(|item| give_up(item, &self.options));
                continue;
            }
            while items.len() > MOST_KEYS {
                let rest = items.split_off(MOST_KEYS);
                start(std::mem::replace(&mut items, rest), Some(slot));
            }
            start(items, Some(slot));
        }
    }

    /// Answers those who wait. Continues with whether the breaker is to open; breaks if the connection is of no use.
    fn land(&mut self, landed: Landed, cluster: bool) -> ControlFlow<Trouble, bool> {
        let Landed { mut items, slot, sent, result } = landed;
        let took = sent.elapsed();
        self.metrics.call_seconds.record(took.as_secs_f64());
        match result {
            Ok(replies) => {
                for (item, reply) in items.iter().zip(&replies) {
                    if item.noted {
                        (self.options.settle)(&item.call, sent, Some(reply));
                    }
                    if let Some((ticket, slot)) = &item.ticket {
                        ticket.answer(*slot, Some(reply.outcome()));
                    }
                }
                if self.batch.capacity() == 0 {
                    items.clear();
                    self.batch = items;
                }
                if took <= self.options.timeout {
                    self.breaker.success();
                    self.answered = Instant::now();
                    return ControlFlow::Continue(false);
                }
                metrics::error("late");
                ControlFlow::Continue(self.breaker.trouble() && self.speaks_for_all(cluster))
            }
            Err(trouble) => {
                metrics::error(trouble.kind());
                items.iter().for_each(|item| give_up(item, &self.options));
                let causes = chancery_runtime::telemetry::chain(&trouble);
                tracing::debug!(causes, charges = items.len(), "a call to Redis failed");
                let opened = self.breaker.trouble();
                match (slot, trouble) {
                    // The cluster's client finds the new primary by itself.
                    (Some(slot), _) => {
                        self.slots_away.insert(slot, Instant::now() + SLOT_AWAY);
                        ControlFlow::Continue(opened && self.speaks_for_all(cluster))
                    }
                    (None, trouble @ (Trouble::Lost(_) | Trouble::Away(_))) => ControlFlow::Break(trouble),
                    (None, _) => ControlFlow::Continue(opened),
                }
            }
        }
    }

    /// Whether a trouble is one of Redis as a whole. One node of a cluster says nothing of the others.
    fn speaks_for_all(&self, cluster: bool) -> bool {
        !cluster || self.answered.elapsed() > CLUSTER_AWAY
    }

    /// Answers whoever's deadline has passed.
    fn give_up_late(&mut self, now: Instant) {
        let Some(then) = now.checked_sub(self.options.timeout) else { return };
        while let Some((asked, ticket)) = self.pending.front() {
            if !ticket.is_closed() {
                if *asked > then {
                    break;
                }
                ticket.close();
            }
            self.pending.pop_front();
        }
        for item in self.queue.take_older(then) {
            give_up(&item, &self.options);
        }
    }

    /// Waits for what is under way, then probes until an answer comes in time. Meanwhile nobody asks.
    async fn wait_for_recovery(
        &mut self,
        connection: &Connection,
        flights: &mut Flights,
        oldest_sent: Instant,
        cluster: bool,
    ) -> Result<(), Ended> {
        while !flights.is_empty() {
            match timeout_at(oldest_sent + STALLED, flights.next()).await {
                Ok(Some(landed)) => {
                    if let ControlFlow::Break(trouble) = self.land(landed, cluster) {
                        return Err(trouble.into());
                    }
                }
                Ok(None) => break,
                Err(_) => return Err(Ended::Stalled),
            }
        }
        let mut connection = connection.clone();
        loop {
            sleep_until(Instant::now() + self.breaker.pause(rand::random())).await;
            let asked = Instant::now();
            let probe = self.connector.script.invoke(std::iter::empty(), None, false);
            match timeout(STALLED, connection.ask(&probe)).await {
                Err(_) => return Err(Ended::Stalled),
                Ok(Err(error)) => return Err(Trouble::new(error).into()),
                Ok(Ok(_)) if asked.elapsed() <= self.options.timeout => {
                    self.breaker.half_closed();
                    return Ok(());
                }
                Ok(Ok(_)) => {}
            }
        }
    }

    fn close_breaker(&mut self) {
        if !std::mem::replace(&mut self.answers, true) {
            self.metrics.links_closed.increment(1.0);
            self.answered = Instant::now();
            self.queue.open();
        }
    }

    fn open_breaker(&mut self) {
        if std::mem::replace(&mut self.answers, false) {
            self.metrics.links_closed.decrement(1.0);
        }
        for item in self.queue.shut() {
            give_up(&item, &self.options);
        }
        for (_, ticket) in self.pending.drain(..) {
            ticket.close();
        }
    }
}

/// Nobody is left waiting when the link ends.
impl Drop for Task {
    fn drop(&mut self) {
        self.open_breaker();
    }
}

fn give_up(item: &Item, options: &LinkOptions) {
    if item.noted {
        (options.settle)(&item.call, item.asked, None);
    }
    if let Some((ticket, slot)) = &item.ticket {
        ticket.answer(*slot, None);
    }
}
