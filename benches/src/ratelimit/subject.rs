//! The servers that are compared: how each is started, and whether what it answers is right.

use std::{
    env, fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use chancery_e2e::{
    client::{fetch, get},
    peer,
    port::free_port,
    process::{Process, own_program},
    wait::{PATIENCE, until},
};
use chancery_proto::envoy::rls::rate_limit_response::Code;
use clap::ValueEnum;
use serde::Serialize;

use super::{
    case::{CHECKED, Case, Cores},
    connection::Connection,
    redis::Redis,
    requests::{DOMAIN, entry_key, request},
};
use crate::cores::{SERVER_CORE, on_core};

/// Ours counts here what it decided alone.
const WITHOUT_REDIS: &str = "chancery_rate_limiter_without_redis_total";

/// So often is asked under a limit of one. More than twice, because a decision without Redis, as a busy machine brings
/// about, counts elsewhere.
const TRIES: usize = 4;

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Subject {
    /// A tonic service that answers at once
    Floor,
    /// Chancery, cells in memory
    Memory,
    /// Chancery on Redis with leases
    Leased,
    /// Chancery on Redis, every decision exact
    Exact,
    /// Limitador's library behind the floor's service, in memory
    Limitador,
    /// envoyproxy/ratelimit on Redis
    Envoyproxy,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor",
            Self::Memory => "chancery, memory",
            Self::Leased => "chancery, Redis leased",
            Self::Exact => "chancery, Redis exact",
            Self::Limitador => "limitador, memory",
            Self::Envoyproxy => "envoyproxy/ratelimit",
        })
    }
}

impl Subject {
    /// Whether it counts in Redis.
    pub(super) fn on_redis(self) -> bool {
        matches!(self, Self::Leased | Self::Exact | Self::Envoyproxy)
    }

    /// Whether a status comes with every descriptor.
    fn tells_statuses(self) -> bool {
        !matches!(self, Self::Floor | Self::Limitador)
    }

    /// Starts it for a case and waits until it answers.
    pub(super) async fn start(self, case: &Case, redis: Option<&Redis>, folder: &Path) -> Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let command = self.command(case, redis, folder, address, admin)?;
        let process = Process::spawn("server", command, folder)?;
        let mut server = Server { subject: self, process, address, admin };
        let what = format!("{self} answers");
        let answers = until(&what, PATIENCE, async || {
            ensure!(server.process.is_running(), "{self} ended: {}", server.process.log());
            let before = server.without_redis().await?;
            server.admits(DOMAIN, case.descriptors, "ready").context("no answer yet")?;
            ensure!(server.without_redis().await? == before, "it answers, but without Redis");
            Ok(())
        });
        answers.await.with_context(|| server.process.log())?;
        Ok(server)
    }

    fn command(
        self,
        case: &Case,
        redis: Option<&Redis>,
        folder: &Path,
        address: SocketAddr,
        admin: SocketAddr,
    ) -> Result<Command> {
        let threads = if case.cores == Cores::Apart { "1" } else { "2" };
        let redis_address = || redis.map(Redis::address).context("there is no Redis");
        let program = match self {
            Self::Floor | Self::Limitador => env::current_exe()?,
            Self::Memory | Self::Leased | Self::Exact => own_program("chancery-rate-limiter")?,
            Self::Envoyproxy => peer::installed().context("envoyproxy/ratelimit is not built")?,
        };
        let mut command = on_core((case.cores == Cores::Apart).then_some(SERVER_CORE), &program);
        match self {
            Self::Floor | Self::Limitador => {
                command.args(["serve", if self == Self::Floor { "floor" } else { "limitador" }]);
                command.args(["--address", &address.to_string(), "--threads", threads]);
                command.args(["--descriptors", &case.descriptors.to_string(), "--quota", &case.quota.to_string()]);
            }
            Self::Memory | Self::Leased | Self::Exact => {
                let rules = write_rules(&folder.join("rules"), case, self == Self::Exact)?;
                let store = if self.on_redis() { format!("redis://{}", redis_address()?) } else { "memory".to_owned() };
                command.args(["--insecure", "--grpc-addr", &address.to_string(), "--http-addr", &admin.to_string()]);
                command.args(["--store", &store, "--workers", threads]).arg("--config").arg(rules);
                // A closed loop fills every queue. With the usual few milliseconds, a slow machine would be measured
                // deciding without Redis; envoyproxy/ratelimit waits ten seconds.
                command.args(["--redis-timeout", "100"]);
                if case.fill {
                    // Whoever expects so many keys makes room for them.
                    command.args(["--memory-cells", &(2 * case.keys.count()).to_string()]);
                }
            }
            Self::Envoyproxy => {
                write_rules(&folder.join("runtime/ratelimit/config"), case, false)?;
                command.env("RUNTIME_ROOT", folder.join("runtime")).env("RUNTIME_SUBDIRECTORY", "ratelimit");
                command.env("RUNTIME_WATCH_ROOT", "false").env("USE_STATSD", "false").env("LOG_LEVEL", "error");
                command.env("GRPC_HOST", "127.0.0.1").env("GRPC_PORT", address.port().to_string());
                command.env("HOST", "127.0.0.1").env("PORT", admin.port().to_string());
                command.env("DEBUG_HOST", "127.0.0.1").env("DEBUG_PORT", free_port().to_string());
                command.env("REDIS_SOCKET_TYPE", "tcp").env("REDIS_URL", redis_address()?);
            }
        }
        Ok(command)
    }
}

fn write_rules(folder: &Path, case: &Case, strict: bool) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    for (name, text) in case.rules(strict) {
        fs::write(folder.join(name), text)?;
    }
    Ok(folder.to_owned())
}

/// One that runs. Dropping it ends it.
pub(super) struct Server {
    subject: Subject,
    process: Process,
    /// Where it serves.
    pub(super) address: SocketAddr,
    /// Where it tells its metrics.
    admin: SocketAddr,
}

impl Server {
    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Asks once, on a connection of its own, and tells whether it was admitted.
    fn admits(&self, domain: &str, descriptors: usize, value: &str) -> Result<bool> {
        let (mut connection, mut inbox) = Connection::open(self.address)?;
        let entries = (0..descriptors).map(|descriptor| (entry_key(descriptor), value.to_owned()));
        let answer = connection.ask(&mut inbox, &request(domain, entries))?;
        let wanted = if self.subject.tells_statuses() { descriptors } else { 0 };
        ensure!(answer.statuses.len() == wanted, "{} statuses for {descriptors} descriptors", answer.statuses.len());
        match answer.overall_code {
            code if code == i32::from(Code::Ok) => Ok(true),
            code if code == i32::from(Code::OverLimit) => Ok(false),
            other => anyhow::bail!("verdict {other}"),
        }
    }

    /// How many decisions ours made without Redis, because that was too slow: they are quick, but not what is measured.
    pub(super) async fn without_redis(&self) -> Result<u64> {
        let ours = matches!(self.subject, Subject::Leased | Subject::Exact);
        if !ours {
            return Ok(0);
        }
        let response = fetch(self.admin, get("localhost", "/metrics")).await?;
        ensure!(response.status == 200, "no metrics: {}", response.status);
        let text = response.text();
        let counts = text.lines().filter_map(|line| line.strip_prefix(WITHOUT_REDIS)?.trim().parse::<u64>().ok());
        Ok(counts.sum())
    }

    /// Whether it still answers as it should: nobody is quick by being wrong.
    pub(super) async fn check(&mut self, case: &Case) -> Result<()> {
        let subject = self.subject;
        ensure!(self.process.is_running(), "{subject} ended under the load: {}", self.process.log());
        // After more load than it could bear it may have some left to do.
        let admits =
            until("an answer after the load", PATIENCE, async || self.admits(DOMAIN, case.descriptors, "fresh"));
        ensure!(admits.await?, "{subject} refuses a key that nobody used");
        let seen: Vec<bool> = (0..TRIES).map(|_| self.admits(CHECKED, 1, "once")).collect::<Result<_>>()?;
        ensure!(seen[0], "{subject} refuses under a limit of one at once");
        let refuses = seen.contains(&false);
        ensure!(refuses == (subject != Subject::Floor), "{subject} admits {seen:?} under a limit of one");
        Ok(())
    }
}
