//! Clients that keep requesting while a test does something, and count what they lost.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Connection, Response},
    wait::{PATIENCE, until},
};

/// How many failures are kept in full for the report.
const KEPT_FAILURES: usize = 10;

/// What became of the requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Responses by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests that got no response.
    pub errors: u64,
    /// The longest time to a response.
    pub slowest: Duration,
    /// The first failures: when, on which connection, what.
    pub first_failures: Vec<String>,
}

impl Tally {
    /// Requests that ended, well or not.
    pub fn requests(&self) -> u64 {
        self.by_status.values().sum::<u64>() + self.errors
    }

    /// Requests that got anything but a 2xx.
    pub fn failed(&self) -> u64 {
        let good: u64 = self.by_status.range(200..300).map(|(_, count)| count).sum();
        self.requests() - good
    }

    /// Requests that got no answer, or one that says that something is broken.
    pub fn lost(&self) -> u64 {
        self.errors + self.by_status.range(500..).map(|(_, count)| count).sum::<u64>()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by_status, errors, slowest, first_failures } = self;
        write!(f, "{} requests, by status {by_status:?}, {errors} errors, slowest {slowest:?}", self.requests())?;
        first_failures.iter().try_for_each(|failure| write!(f, "\n  {failure}"))
    }
}

/// Clients at work. Each has one connection and sends the next request when the last is answered.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts `clients` of them against `address`. `request` makes the next request of a client.
    pub fn start(
        address: SocketAddr,
        clients: usize,
        request: impl Fn() -> Request<Bytes> + Clone + Send + 'static,
    ) -> Self {
        Self::start_paced(address, clients, Duration::ZERO, request)
    }

    /// As [`Load::start`]; each client rests for `pause` after each request.
    pub fn start_paced(
        address: SocketAddr,
        clients: usize,
        pause: Duration,
        request: impl Fn() -> Request<Bytes> + Clone + Send + 'static,
    ) -> Self {
        let tally = Arc::<Mutex<Tally>>::default();
        let stop = CancellationToken::new();
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for client in 0..clients {
            let (tally, stop, request) = (tally.clone(), stop.clone(), request.clone());
            tasks.spawn(async move {
                let mut connection = None;
                // A request that was begun is waited for: a stop must not look like a loss.
                while !stop.is_cancelled() {
                    let sent = Instant::now();
                    let result = exchange(&mut connection, address, request()).await;
                    let label = || format!("{:?} after the start, client {client}", started.elapsed());
                    record(&tally, result, sent.elapsed(), label);
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            });
        }
        Self { tally, stop, clients: tasks }
    }

    /// The count so far.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `more` requests have ended from now on: that many have met what was done before.
    pub async fn goes_on_for(&self, more: u64) -> Result<()> {
        let goal = self.so_far().requests() + more;
        until(&format!("{more} more requests"), PATIENCE, async || {
            let now = self.so_far().requests();
            ensure!(now >= goal, "{now} of {goal}");
            Ok(())
        })
        .await
    }

    /// Ends the clients, after the request each has in flight.
    pub async fn stop(mut self) -> Result<Tally> {
        self.stop.cancel();
        while let Some(client) = self.clients.join_next().await {
            client.context("a client of the load panicked")?;
        }
        Ok(self.so_far())
    }
}

async fn exchange(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    request: Request<Bytes>,
) -> Result<Response> {
    // Taken out and put back only after a success: what failed may be broken.
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address).await?,
    };
    let response = open.send(request).await?;
    *connection = Some(open);
    Ok(response)
}

fn record(tally: &Mutex<Tally>, result: Result<Response>, took: Duration, label: impl Fn() -> String) {
    let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
    tally.slowest = tally.slowest.max(took);
    let failure = match result {
        Ok(response) => {
            *tally.by_status.entry(response.status).or_default() += 1;
            (!(200..300).contains(&response.status)).then(|| format!("{} {}", response.status, response.text()))
        }
        Err(error) => {
            tally.errors += 1;
            Some(format!("{error:#}"))
        }
    };
    if let Some(failure) = failure.filter(|_| tally.first_failures.len() < KEPT_FAILURES) {
        tally.first_failures.push(format!("{}: {failure}", label()));
    }
}
