//! envoyproxy/ratelimit as a process of its own: the service that ours takes the place of, asked beside it.
//!
//! It counts in Redis only, and reads its rules from a folder that both can be given.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    limiter::Client,
    port::free_port,
    process::Process,
    redis::Redis,
    required::offered,
    wait::{PATIENCE, until},
};

/// One of them. Dropping it kills it.
#[derive(Debug)]
pub struct Peer {
    /// Where it answers Envoy.
    pub grpc: SocketAddr,
    _process: Process,
}

impl Peer {
    /// The folder, within `folder`, of whose files it reads its rules. It is made here.
    pub fn rules(folder: &Path) -> Result<PathBuf> {
        let rules = folder.join("peer/ratelimit/config");
        fs::create_dir_all(&rules)?;
        Ok(rules)
    }

    /// Starts `program` (see [`program`]) on what [`Peer::rules`] holds and `redis`.
    pub async fn start(program: &Path, folder: &Path, redis: &Redis) -> Result<Self> {
        let [grpc, http, debug] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut command = Command::new(program);
        command.env("RUNTIME_ROOT", folder.join("peer")).env("RUNTIME_SUBDIRECTORY", "ratelimit");
        command.env("RUNTIME_WATCH_ROOT", "false").env("USE_STATSD", "false").env("LOG_LEVEL", "error");
        for (part, address) in [("GRPC_", grpc), ("", http), ("DEBUG_", debug)] {
            command.env(format!("{part}HOST"), address.ip().to_string());
            command.env(format!("{part}PORT"), address.port().to_string());
        }
        command.env("REDIS_SOCKET_TYPE", "tcp").env("REDIS_URL", redis.address.to_string());
        let process = Process::spawn("envoyproxy-ratelimit", command, folder)?;
        // It listens only when it has read its rules.
        until("envoyproxy/ratelimit answers", PATIENCE, async || Client::connect(grpc).await).await?;
        Ok(Self { grpc, _process: process })
    }
}

/// The program, or `None` after saying that this machine has none.
pub fn program() -> Option<PathBuf> {
    offered("envoyproxy/ratelimit", "where there is Go", installed())
}

/// The program: `CHANCERY_ENVOYPROXY_RATELIMIT`, then what `scripts/setup` has built in `.dev/ratelimit`.
pub fn installed() -> Option<PathBuf> {
    let named = env::var_os("CHANCERY_ENVOYPROXY_RATELIMIT").map(PathBuf::from);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join(".dev/ratelimit/service_cmd"));
    [named, built].into_iter().flatten().find(|path| path.is_file())
}
