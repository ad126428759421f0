//! The task of a link: connects, sends, answers, gives up in time.

use std::{
    collections::{HashMap, VecDeque},
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use redis::cluster_routing::Slot;
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    LinkOptions,
    flight::{Landed, Trouble, launch},
    outage::Outage,
    pipe::Pipe,
};
use crate::store::redis::{
    breaker::Breaker,
    connect::{Connection, Connector},
    metrics::{self, LinkMetrics},
    queue::{Item, Queue},
    script::MOST_KEYS,
    ticket::Ticket,
};

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

/// Why nobody is to ask Redis for a while, though the connection stands.
#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("answers do not come within the deadline")]
    Late,
    #[error(transparent)]
    Trouble(#[from] Trouble),
}

pub(super) struct Task {
    queue: Arc<Queue>,
    connector: Arc<Connector>,
    options: LinkOptions,
    metrics: LinkMetrics,
    breaker: Breaker,
    outage: Outage,
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
            outage: Outage::default(),
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
                        tracing::warn!(address = %self.connector.address(), error = causes, "no connection to Redis: each rule's policy applies");
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
            tracing::warn!(address = %self.connector.address(), error = causes, "lost Redis");
        }
    }

    async fn serve(&mut self, connection: &Connection, lost: &Notify) -> Ended {
        let cluster = connection.is_cluster();
        let look_every = (self.options.timeout / 4).max(Duration::from_micros(500));
        let mut flights = Flights::new();
        let mut pipe = Pipe::new(cluster, self.options.timeout, Instant::now());
        let (look, room) = (sleep(look_every), sleep(Duration::ZERO));
        tokio::pin!(look, room);
        loop {
            let now = Instant::now();
            let opens = pipe.opens(now);
            let mut waits_for_room = false;
            if opens.is_some_and(|at| at <= now) {
                self.launch_all(&mut flights, &mut pipe, connection, now);
            } else if self.queue.hold(opens)
                && let Some(at) = opens
            {
                waits_for_room = true;
                room.as_mut().reset(at);
            }
            let step = tokio::select! {
                biased;
                Some(landed) = flights.next(), if !pipe.is_empty() => self.land(landed, &mut pipe, cluster),
                () = self.queue.bell.notified() => continue,
                () = lost.notified(), if !cluster => return Ended::Closed,
                () = &mut room, if waits_for_room => continue,
                () = &mut look, if !self.pending.is_empty() || !pipe.is_empty() => {
                    // What is there already came in time, even if this thread had no time to look at it.
                    yield_now().await;
                    look.as_mut().reset(Instant::now() + look_every);
                    let mut step = ControlFlow::Continue(None);
                    while let ControlFlow::Continue(None) = step
                        && let Some(Some(landed)) = flights.next().now_or_never()
                    {
                        step = self.land(landed, &mut pipe, cluster);
                    }
                    if let ControlFlow::Continue(None) = step {
                        step = ControlFlow::Continue(self.give_up_late(&pipe, cluster));
                    }
                    step
                }
            };
            match step {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(Some(cause)) => {
                    self.open_breaker();
                    if self.outage.begins(Instant::now()) {
                        let causes = chancery_runtime::telemetry::chain(&cause);
                        tracing::warn!(address = %self.connector.address(), error = causes, "Redis does not serve: each rule's policy applies");
                    }
                    if let Err(ended) = self.wait_for_recovery(connection, &mut flights, &mut pipe, cluster).await {
                        return ended;
                    }
                    self.outage.ends(Instant::now());
                    self.close_breaker();
                }
                ControlFlow::Break(trouble) => return trouble.into(),
            }
        }
    }

    /// Sends what is waiting.
    fn launch_all(&mut self, flights: &mut Flights, pipe: &mut Pipe, connection: &Connection, now: Instant) {
        let mut batch = std::mem::take(&mut self.batch);
        self.queue.take(&mut batch, pipe.is_empty());
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
        let mut start = |items, slot| {
            pipe.send(now);
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

    /// Answers those who wait. Continues with why the breaker is to open, if it is; breaks if the connection is of no use.
    fn land(&mut self, landed: Landed, pipe: &mut Pipe, cluster: bool) -> ControlFlow<Trouble, Option<Cause>> {
        let Landed { mut items, slot, sent, result } = landed;
        let now = Instant::now();
        pipe.land(now);
        let took = now.saturating_duration_since(sent);
        self.metrics.call_seconds.record(took.as_secs_f64());
        match result {
            Ok(replies) => {
                let mut too_late = false;
                for (item, reply) in items.iter().zip(&replies) {
                    if item.noted {
                        (self.options.settle)(&item.call, sent, Some(reply));
                    }
                    if let Some((ticket, slot)) = &item.ticket {
                        too_late |= !ticket.answer(*slot, Some(reply.outcome()));
                    }
                }
                if self.batch.capacity() == 0 {
                    items.clear();
                    self.batch = items;
                }
                if took <= self.options.timeout && !too_late {
                    self.breaker.success();
                    self.answered = now;
                    if self.outage.heals(now) {
                        tracing::info!(address = %self.connector.address(), "Redis serves again");
                    }
                    return ControlFlow::Continue(None);
                }
                // Those who waited for it were counted when they gave up.
                if !too_late {
                    metrics::error("late");
                }
                ControlFlow::Continue(self.trouble(cluster, Cause::Late))
            }
            Err(trouble) => {
                metrics::error(trouble.kind());
                items.iter().for_each(|item| give_up(item, &self.options));
                let causes = chancery_runtime::telemetry::chain(&trouble);
                tracing::debug!(error = causes, count = items.len(), "a call to Redis failed");
                match (slot, trouble) {
                    // The cluster's client finds the new primary by itself.
                    (Some(slot), trouble) => {
                        self.slots_away.insert(slot, now + SLOT_AWAY);
                        ControlFlow::Continue(self.trouble(cluster, trouble.into()))
                    }
                    (None, trouble @ (Trouble::Lost(_) | Trouble::Away(_))) => ControlFlow::Break(trouble),
                    (None, trouble) => ControlFlow::Continue(self.trouble(cluster, trouble.into())),
                }
            }
        }
    }

    /// Counts a trouble. `cause`, if it was one too many.
    fn trouble(&mut self, cluster: bool, cause: Cause) -> Option<Cause> {
        (self.breaker.trouble() && self.speaks_for_all(cluster)).then_some(cause)
    }

    /// Whether a trouble is one of Redis as a whole. One node of a cluster says nothing of the others.
    fn speaks_for_all(&self, cluster: bool) -> bool {
        !cluster || self.answered.elapsed() > CLUSTER_AWAY
    }

    /// Answers whoever's deadline has passed. Says why the breaker is to open, if it is.
    fn give_up_late(&mut self, pipe: &Pipe, cluster: bool) -> Option<Cause> {
        let now = Instant::now();
        let then = now.checked_sub(self.options.timeout)?;
        let mut late = 0;
        while let Some((asked, ticket)) = self.pending.front() {
            if !ticket.is_closed() {
                if *asked > then {
                    break;
                }
                late += usize::from(ticket.close());
            }
            self.pending.pop_front();
        }
        let unsent = self.queue.take_older(then);
        let waited = unsent.waited();
        unsent.items.iter().for_each(|item| give_up(item, &self.options));
        for (ticket, slot) in unsent.tickets {
            ticket.answer(slot, None);
        }
        metrics::errors("late", (late + waited) as u64);
        // What is under way is a trouble when it lands.
        let opens = if waited > 0 { self.trouble(cluster, Cause::Late) } else { None };
        let stuck = pipe.stuck_since().is_some_and(|since| now > since + 3 * self.options.timeout);
        opens.or_else(|| (stuck && self.speaks_for_all(cluster)).then_some(Cause::Late))
    }

    /// Waits for what is under way, then probes until an answer comes in time. Meanwhile nobody asks.
    async fn wait_for_recovery(
        &mut self,
        connection: &Connection,
        flights: &mut Flights,
        pipe: &mut Pipe,
        cluster: bool,
    ) -> Result<(), Ended> {
        let stalled = pipe.stuck_since().unwrap_or_else(Instant::now) + STALLED;
        while !pipe.is_empty() {
            match timeout_at(stalled, flights.next()).await {
                Ok(Some(landed)) => {
                    if let ControlFlow::Break(trouble) = self.land(landed, pipe, cluster) {
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
