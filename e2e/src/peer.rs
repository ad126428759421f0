//! envoyproxy/ratelimit as a process of its own: the service that ours takes the place of, asked beside it.
//!
//! It counts in Redis only, and reads its rules from a folder that both can be given, or takes them from a control plane.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    certificates::{Authority, Identity},
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
        let rules = [
            ("RUNTIME_ROOT", folder.join("peer").display().to_string()),
            ("RUNTIME_SUBDIRECTORY", "ratelimit".to_owned()),
            ("RUNTIME_WATCH_ROOT", "false".to_owned()),
        ];
        Self::start_as(program, folder, redis, &rules).await
    }

    /// Starts `program` as the limiter `id` of the control plane that serves xDS at `xds`, over mTLS with a certificate of
    /// `authority`.
    pub async fn start_over_xds(
        program: &Path,
        folder: &Path,
        redis: &Redis,
        xds: SocketAddr,
        (authority, id): (&Authority, &str),
    ) -> Result<Self> {
        let Identity { certificate, key } = authority.rate_limiter(id)?;
        let file = |path: PathBuf| path.display().to_string();
        let control_plane = [
            ("CONFIG_TYPE", "GRPC_XDS_SOTW".to_owned()),
            ("CONFIG_GRPC_XDS_NODE_ID", id.to_owned()),
            ("CONFIG_GRPC_XDS_SERVER_URL", xds.to_string()),
            ("CONFIG_GRPC_XDS_SERVER_USE_TLS", "true".to_owned()),
            ("CONFIG_GRPC_XDS_CLIENT_TLS_CERT", file(certificate)),
            ("CONFIG_GRPC_XDS_CLIENT_TLS_KEY", file(key)),
            ("CONFIG_GRPC_XDS_SERVER_TLS_CACERT", file(authority.file())),
            ("CONFIG_GRPC_XDS_SERVER_TLS_SAN", "localhost".to_owned()),
        ];
        Self::start_as(program, folder, redis, &control_plane).await
    }

    async fn start_as(program: &Path, folder: &Path, redis: &Redis, rules: &[(&str, String)]) -> Result<Self> {
        let [grpc, http, debug] = [(); 3].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
        let mut command = Command::new(program);
        command.envs(rules.iter().map(|(name, value)| (name, value)));
        command.env("USE_STATSD", "false").env("LOG_LEVEL", "error");
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
