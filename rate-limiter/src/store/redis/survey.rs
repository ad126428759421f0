//! How a Redis stands, for whoever checks an installation: looked at from outside, with the limiter's own connection and script.
//!
//! What is written is one cell of a name that nobody else has, which Redis forgets a second later. The secret of the fingerprints is
//! neither read nor proposed, so nothing of the limiters' own is touched.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use redis::Value;
use tokio::{sync::Notify, time::timeout};

use super::{
    RedisSettings, SaltCell,
    connect::{CONNECTING, ConnectError, Connection, Connector, InvalidTls},
    script::{Call, replies},
};
use crate::{
    model::{
        descriptor::Hits,
        key::CellKey,
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::Ask,
};

/// How long each question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The TLS files.
    #[error("the TLS files cannot be used")]
    Tls(#[source] InvalidTls),
    /// The connection.
    #[error("there is no connection")]
    Connect(#[source] ConnectError),
}

/// What is known of a Redis.
#[derive(Debug)]
pub struct Survey {
    /// Whether the limiter's script does what it should, or why not.
    pub script: Result<(), String>,
    /// Each server by its address, or why they do not say how they are; that of a single one is `redis`.
    pub servers: Result<Vec<ServerSurvey>, String>,
    /// Whether it is a cluster and serves all of its keys; `None`: it is none.
    pub cluster: Option<Result<(), String>>,
    /// How many seconds its clock is ahead of ours, or why it does not say.
    pub clock_ahead: Result<f64, String>,
}

/// How one server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSurvey {
    /// Its address.
    pub address: String,
    /// Its version, as it says.
    pub version: String,
    /// Bytes it uses.
    pub used: u64,
    /// Bytes it may use; 0: as many as there are.
    pub most: u64,
    /// What it throws away once it has no more.
    pub policy: String,
}

/// Looks at the Redis of `settings`, within a few seconds.
///
/// # Errors
/// There is no connection.
pub async fn survey(settings: RedisSettings) -> Result<Survey, SurveyError> {
    // Of no meaning: nothing is fingerprinted.
    let salt = SaltCell::random();
    let connector = Connector::new(settings.address, &settings.tls, salt).map_err(SurveyError::Tls)?;
    let lost = Arc::new(Notify::new());
    let opening = timeout(CONNECTING, Box::pin(connector.open(&lost)));
    let opened = opening.await.map_err(|_| ConnectError::Timeout).and_then(|opened| Ok(opened?));
    let mut connection = opened.map_err(SurveyError::Connect)?;
    let script = run_script(&connector, &mut connection).await;
    let servers = bounded(connection.info()).await;
    let servers = servers.map(|all| all.iter().map(|(address, info)| server(address, info)).collect());
    let cluster = match connection.is_cluster() {
        true => Some(slots(&mut connection).await),
        false => None,
    };
    let clock_ahead = clock(&mut connection).await;
    Ok(Survey { script, servers, cluster, clock_ahead })
}

/// Charges a cell of its own once: one hit of one a second has to be admitted.
async fn run_script(connector: &Connector, connection: &mut Connection) -> Result<(), String> {
    let limit = Limit::new(1, Duration::from_secs(1), Some(1), Algorithm::TokenBucket);
    let limit = limit.map_err(|error| error.to_string())?;
    let ask = Ask { key: CellKey(rand::random()), limit, hits: Hits::Take(1), policy: Policy::default() };
    let call = Call::new(&ask, 0).ok_or("a limit of one cannot be counted")?;
    bounded(async { connection.ask(&connector.script.load()).await.map(drop) }).await?;
    let answer = bounded(connector.charge(connection, std::iter::once(&call), None)).await?;
    match replies(&answer, std::iter::once(&call)).map_err(|error| error.to_string())?.as_slice() {
        [reply] if reply.charged.admitted => Ok(()),
        _ => Err("a cell that nobody has used refuses its first hit".to_owned()),
    }
}

async fn slots(connection: &mut Connection) -> Result<(), String> {
    let info = bounded(connection.cluster_info()).await?;
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or("?").to_owned();
    let (state, served) = (field("cluster_state:"), field("cluster_slots_ok:"));
    if state == "ok" { Ok(()) } else { Err(format!("its state is {state}, {served} of 16384 slots are served")) }
}

async fn clock(connection: &mut Connection) -> Result<f64, String> {
    let asked = SystemTime::now();
    let answer = bounded(connection.ask(&redis::cmd("TIME"))).await?;
    let round_trip = asked.elapsed().unwrap_or_default();
    let (seconds, microseconds): (String, String) =
        redis::from_redis_value(answer).map_err(|_| "it does not answer with a time".to_owned())?;
    let theirs = seconds.parse::<f64>().ok().zip(microseconds.parse::<f64>().ok());
    let (seconds, microseconds) = theirs.ok_or("it does not answer with a time")?;
    let ours = asked.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + round_trip / 2;
    Ok(seconds + microseconds / 1e6 - ours.as_secs_f64())
}

/// Reads what a server says of itself.
fn server(address: &str, info: &str) -> ServerSurvey {
    let field = |name: &str| info.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_default();
    ServerSurvey {
        address: address.to_owned(),
        version: field("redis_version:").to_owned(),
        used: field("used_memory:").parse().unwrap_or(0),
        most: field("maxmemory:").parse().unwrap_or(0),
        policy: field("maxmemory_policy:").to_owned(),
    }
}

async fn bounded<T>(answer: impl Future<Output = Result<T, redis::RedisError>>) -> Result<T, String> {
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(answered) => answered.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {ANSWER_WITHIN:?}")),
    }
}

impl Connection {
    /// What each server says of itself, as [`Connection::memory`] has it of its memory.
    async fn info(&mut self) -> Result<Vec<(String, String)>, redis::RedisError> {
        self.told_by_each(redis::cmd("INFO")).await
    }

    /// How a node sees the cluster.
    async fn cluster_info(&mut self) -> Result<String, redis::RedisError> {
        let mut ask = redis::cmd("CLUSTER");
        ask.arg("INFO");
        match self.ask(&ask).await? {
            Value::VerbatimString { text, .. } => Ok(text),
            other => Ok(redis::from_redis_value(other)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::redis::testing::RedisServer;

    #[test]
    fn what_a_server_says_is_read() {
        let info = "# Server\r\nredis_version:7.0.15\r\n# Memory\r\nused_memory:1024\r\nmaxmemory:4096\r\nmaxmemory_policy:noeviction\r\n";
        let expected = ServerSurvey {
            address: "redis".to_owned(),
            version: "7.0.15".to_owned(),
            used: 1024,
            most: 4096,
            policy: "noeviction".to_owned(),
        };
        assert_eq!(server("redis", info), expected);
    }

    #[tokio::test]
    async fn a_server_is_looked_at_and_left_as_it_was() {
        let Some(server) = RedisServer::start(&[]).await else { return };
        let address = format!("redis://127.0.0.1:{}", server.port);
        let found = survey(RedisSettings::new(address.parse().unwrap())).await.unwrap();
        assert_eq!((found.script, found.cluster), (Ok(()), None));
        assert!(found.clock_ahead.unwrap().abs() < 5.0);
        assert!(found.servers.unwrap()[0].version.starts_with(char::is_numeric));
    }
}
