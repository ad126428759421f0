//! How many limiters share this Redis, told by themselves: each says every second that it is there.
//!
//! The number sizes leases and the local shares of a limit when Redis is away. It need not be exact: leases are bounded by
//! what is in the bucket whatever the number is. While Redis is away the last one stands.
//!
//! At the same time each proposes its secret of the fingerprints again. If the key was lost, to `FLUSHALL` or because Redis ran
//! out of memory, it is back before a limiter that starts could set another one, and if one did, all take that over:
//! limiters whose secrets differ would count apart.
//!
//! Now and then it asks how much memory Redis has left, for whoever watches the metrics.
//!
//! The task has a connection of its own, so that a worker's link carries nothing but charges.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{Cmd, RedisError, Value};
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use super::{
    breaker::Breaker,
    connect::{ConnectError, Connection, Connector},
    metrics,
};

const REPLICAS_KEY: &str = "ch:{replicas}";

/// How often a replica says that it is there.
const EVERY: Duration = Duration::from_secs(1);

/// For how long it counts after that.
const LIFE: Duration = Duration::from_secs(3);

/// How often the memory of Redis is asked for, in turns of the task.
const MEMORY_EVERY: u32 = 10;

/// One limiter among those on a Redis.
pub(crate) struct Presence {
    connector: Arc<Connector>,
    /// Chosen at random; a restarted limiter is another one.
    id: String,
    replicas: Arc<AtomicU32>,
}

impl Presence {
    pub(crate) fn new(connector: Arc<Connector>, replicas: Arc<AtomicU32>) -> Self {
        Self { connector, id: format!("{:032x}", rand::random::<u128>()), replicas }
    }

    /// Says so again and again, until dropped.
    pub(crate) async fn run(self: Arc<Self>) {
        let (mut breaker, mut shown) = (Breaker::default(), HashSet::new());
        loop {
            sleep(breaker.pause(rand::random())).await;
            // The link says loudly enough when Redis is away.
            let Ok(mut connection) = self.connector.connect(&Arc::new(Notify::new())).await else { continue };
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for turn in (0..MEMORY_EVERY).cycle() {
                ticks.tick().await;
                if turn == 0 && !matches!(timeout(EVERY, show_memory(&mut connection, &mut shown)).await, Ok(Ok(()))) {
                    // What the user may not ask, and what is lost, shows elsewhere.
                    tracing::debug!("Redis does not say how much memory it has");
                }
                match timeout(EVERY, self.once(&mut connection)).await {
                    Ok(Ok(())) => breaker.success(),
                    Ok(Err(_)) | Err(_) => break,
                }
            }
        }
    }

    async fn once(&self, connection: &mut Connection) -> Result<(), ConnectError> {
        let replicas = self.count(connection, LIFE).await?;
        self.replicas.store(replicas.max(1), Ordering::Relaxed);
        ::metrics::gauge!(metrics::REPLICAS).set(replicas);
        self.connector.agree_on_salt(connection).await
    }

    /// Leaves: the others share among one less at once.
    pub(crate) async fn leave(&self, connection: &mut Connection) -> Result<(), RedisError> {
        self.count(connection, Duration::ZERO).await.map(drop)
    }

    async fn count(&self, connection: &mut Connection, life: Duration) -> Result<u32, RedisError> {
        let mut cmd = Cmd::new();
        // Once a second: sending the text is simpler than keeping it loaded.
        cmd.arg("EVAL")
            .arg(include_str!("present.lua"))
            .arg(1)
            .arg(REPLICAS_KEY)
            .arg(&self.id)
            .arg(life.as_micros() as u64);
        match connection.ask(&cmd).await? {
            Value::Int(replicas) => Ok(u32::try_from(replicas).unwrap_or(1)),
            _ => Ok(1),
        }
    }
}

/// A node that was shown, and is not there any more, is shown with nothing.
async fn show_memory(connection: &mut Connection, shown: &mut HashSet<String>) -> Result<(), RedisError> {
    let nodes = connection.memory().await?;
    let there: HashSet<String> = nodes.iter().map(|(node, _)| node.clone()).collect();
    for gone in shown.difference(&there) {
        for gauge in [metrics::MEMORY_USED, metrics::MEMORY_MAX] {
            ::metrics::gauge!(gauge, "node" => gone.clone()).set(0.0);
        }
    }
    *shown = there;
    for (node, info) in nodes {
        let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)?.parse::<f64>().ok());
        for (gauge, bytes) in
            [(metrics::MEMORY_USED, field("used_memory:")), (metrics::MEMORY_MAX, field("maxmemory:"))]
        {
            if let Some(bytes) = bytes {
                ::metrics::gauge!(gauge, "node" => node.clone()).set(bytes);
            }
        }
    }
    Ok(())
}
