//! Making a connection: to a server, to what sentinels call the master, or to a cluster.
//!
//! A connection is of use only when everything a charge needs is there: the script is loaded, and the secret of the
//! fingerprints is agreed on. So that is part of connecting, and its failure is a failure to connect.

use std::{path::PathBuf, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo as _, ProtocolVersion, PushInfo, PushKind, RedisConnectionInfo, RedisError, ServerErrorKind,
    TlsCertificates, TlsMode, Value,
    aio::MultiplexedConnection,
    cluster::ClusterClient,
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo},
    sentinel::{SentinelClientBuilder, SentinelServerType},
};
use tokio::{sync::Notify, time::timeout};

use super::{
    address::{Address, Topology},
    salt::SaltCell,
    script::{Call, ChargeScript},
};
use crate::model::key::Salt;

/// How long connecting may take, resolving names and asking sentinels included.
pub(super) const CONNECTING: Duration = Duration::from_secs(2);

/// How long a cluster may take over one command before the node counts as lost and the topology is asked for anew.
const NODE: Duration = Duration::from_millis(250);

/// How often a call follows a cluster that says its keys lie elsewhere.
const REDIRECTS: u32 = 3;

const SALT: &str = "ch:{salt}";

/// Files for TLS with Redis; all optional, and without meaning for `redis://`.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// The CA of the server's certificate, PEM; otherwise the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain, PEM; needs `key`.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
}

/// Why the TLS files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidTls {
    /// A file cannot be read.
    #[error("cannot read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("a client certificate for Redis needs both the certificate and its key")]
    Half,
    /// Files for a connection in plaintext.
    #[error("TLS files are given, but the address is not a rediss:// one")]
    Plaintext,
    /// What is in the files is no certificate or no key.
    #[error("the TLS files for Redis hold no usable certificates or key")]
    Content(#[source] RedisError),
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not within two seconds.
    #[error("no connection within {CONNECTING:?}")]
    Timeout,
    /// Redis, or what is in its place, refused.
    #[error("Redis refused the connection")]
    Refused(#[from] RedisError),
    /// What lies at the key of the secret is none.
    #[error("the key {SALT:?} in Redis holds something else than the limiters' secret")]
    Salt,
}

/// Makes connections.
pub(crate) struct Connector {
    address: Address,
    tls: Option<TlsCertificates>,
    pub(crate) script: ChargeScript,
    salt: SaltCell,
}

/// A connection that is ready for charges.
#[derive(Clone)]
pub(crate) enum Connection {
    Server(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connector {
    pub(crate) fn new(address: Address, files: &TlsFiles, salt: SaltCell) -> Result<Self, InvalidTls> {
        if address.tls {
            chancery_runtime::tls::install_crypto_provider();
        }
        let tls = certificates(&address, files)?;
        let connector = Self { address, tls, script: ChargeScript::new(), salt };
        // Malformed files show now, not when Redis is first there.
        let (host, port) = &connector.address.hosts[0];
        connector.client(host, *port).map_err(InvalidTls::Content)?;
        Ok(connector)
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// Connects, within two seconds. `lost` is notified when a server's connection ends later.
    pub(crate) async fn connect(&self, lost: &Arc<Notify>) -> Result<Connection, ConnectError> {
        let ready = async {
            let mut connection = self.open(lost).await?;
            let loaded = connection.ask(&self.script.load()).await;
            // A cluster with a node missing serves with the others; whoever lacks the script is sent it later.
            if !connection.is_cluster() {
                loaded?;
            }
            self.agree_on_salt(&mut connection).await?;
            Ok(connection)
        };
        timeout(CONNECTING, Box::pin(ready)).await.map_err(|_| ConnectError::Timeout)?
    }

    pub(super) async fn open(&self, lost: &Arc<Notify>) -> Result<Connection, RedisError> {
        let client = match &self.address.topology {
            Topology::Cluster => return self.open_cluster().await,
            Topology::Sentinel(master) => self.master(master).await?,
            Topology::Server => {
                let (host, port) = &self.address.hosts[0];
                self.client(host, *port)?
            }
        };
        let lost = lost.clone();
        let config = AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(Some(CONNECTING))
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    lost.notify_one();
                }
                Ok::<(), redis::aio::SendError>(())
            });
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        if self.address.topology == Topology::Server {
            let info: String = redis::cmd("INFO").arg("cluster").query_async(&mut connection).await?;
            if info.lines().any(|line| line.trim() == "cluster_enabled:1") {
                return self.open_cluster().await;
            }
        }
        Ok(Connection::Server(connection))
    }

    async fn open_cluster(&self) -> Result<Connection, RedisError> {
        let nodes =
            self.address.hosts.iter().map(|(host, port)| self.info(host, *port)).collect::<Result<Vec<_>, _>>()?;
        let mut builder = ClusterClient::builder(nodes)
            .use_protocol(ProtocolVersion::RESP3)
            .connection_timeout(Duration::from_secs(1))
            .response_timeout(NODE)
            // It would also repeat what may have been done already, and a refund that is given twice breaks a limit.
            .retries(0);
        if let Some(tls) = &self.tls {
            builder = builder.certs(tls.clone());
        }
        Ok(Connection::Cluster(builder.build()?.get_async_connection().await?))
    }

    async fn master(&self, name: &str) -> Result<Client, RedisError> {
        let sentinels = self.address.hosts.iter().map(|(host, port)| self.endpoint(host, *port));
        let mut builder = SentinelClientBuilder::new(sentinels, name, SentinelServerType::Master)?
            .set_client_to_redis_db(self.address.database)
            .set_client_to_redis_protocol(ProtocolVersion::RESP3);
        if self.address.tls {
            builder =
                builder.set_client_to_redis_tls_mode(TlsMode::Secure).set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(tls) = &self.tls {
            builder =
                builder.set_client_to_redis_certificates(tls.clone()).set_client_to_sentinel_certificates(tls.clone());
        }
        if let Some(user) = &self.address.user {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = &self.address.password {
            builder = builder.set_client_to_redis_password(password.expose());
        }
        builder.build()?.async_get_client().await
    }

    fn client(&self, host: &str, port: u16) -> Result<Client, RedisError> {
        let info = self.info(host, port)?;
        match &self.tls {
            Some(tls) => Client::build_with_tls(info, tls.clone()),
            None => Client::open(info),
        }
    }

    fn info(&self, host: &str, port: u16) -> Result<ConnectionInfo, RedisError> {
        let mut redis =
            RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(self.address.database);
        if let Some(user) = &self.address.user {
            redis = redis.set_username(user);
        }
        if let Some(password) = &self.address.password {
            redis = redis.set_password(password.expose());
        }
        Ok(self.endpoint(host, port).into_connection_info()?.set_redis_settings(redis))
    }

    fn endpoint(&self, host: &str, port: u16) -> ConnectionAddr {
        if self.address.tls {
            ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host.to_owned(), port)
        }
    }

    /// Charges `calls`, which in a cluster all lie in one slot, at `now` or by the server's clock.
    pub(crate) async fn charge(
        &self,
        connection: &mut Connection,
        calls: impl ExactSizeIterator<Item = &Call> + Clone,
        now: Option<u64>,
    ) -> Result<Value, RedisError> {
        let answer = connection.ask(&self.script.invoke(calls.clone(), now, false)).await;
        // The server was restarted, or somebody flushed its scripts. Nothing has been charged yet.
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)) {
            return connection.ask(&self.script.invoke(calls, now, true)).await;
        }
        answer
    }

    /// Proposes our secret, and takes over the one that is there.
    pub(super) async fn agree_on_salt(&self, connection: &mut Connection) -> Result<(), ConnectError> {
        let Salt(ours) = self.salt.current();
        let mut propose = redis::cmd("SET");
        propose.arg(SALT).arg(&ours[..]).arg("NX").arg("GET");
        let theirs = match connection.ask(&propose).await? {
            Value::Nil => return Ok(()),
            Value::BulkString(bytes) => bytes,
            _ => return Err(ConnectError::Salt),
        };
        let theirs = theirs.try_into().map_err(|_| ConnectError::Salt)?;
        if self.salt.adopt(Salt(theirs)) {
            tracing::debug!("adopted the secret that the other limiters on this Redis use");
        }
        Ok(())
    }
}

impl Connection {
    /// One command, routed by its first key; `SCRIPT LOAD` goes to all primaries of a cluster. What fails may have been done
    /// all the same, and is not repeated.
    pub(crate) async fn ask(&mut self, cmd: &Cmd) -> Result<Value, RedisError> {
        let cluster = match self {
            Self::Server(connection) => return cmd.query_async(connection).await,
            Self::Cluster(connection) => connection,
        };
        let mut answer = cmd.query_async(cluster).await;
        for _ in 0..REDIRECTS {
            // A node that sends a call on has done nothing with it.
            answer = match answer.as_ref().err().map(|error| (error.kind(), error.redirect_node())) {
                // The client learns where the keys lie before it sends anything else.
                Some((ErrorKind::Server(ServerErrorKind::Moved), _)) => cmd.query_async(cluster).await,
                Some((ErrorKind::Server(ServerErrorKind::Ask), Some((node, _)))) => {
                    let Some((host, port)) = host_and_port(node) else { break };
                    asking(cluster, cmd, SingleNodeRoutingInfo::ByAddress { host, port }).await
                }
                _ => break,
            };
        }
        answer
    }

    /// What each server says of its memory, by its address; that of a single one is `redis`.
    pub(super) async fn memory(&mut self) -> Result<Vec<(String, String)>, RedisError> {
        let mut ask = redis::cmd("INFO");
        ask.arg("memory");
        self.told_by_each(ask).await
    }

    /// What each server answers to `ask`, as [`Connection::memory`] has it.
    pub(super) async fn told_by_each(&mut self, ask: Cmd) -> Result<Vec<(String, String)>, RedisError> {
        match self {
            Self::Server(connection) => Ok(vec![("redis".to_owned(), ask.query_async(connection).await?)]),
            Self::Cluster(cluster) => {
                let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
                redis::from_redis_value(cluster.route_command(ask, primaries).await?).map_err(Into::into)
            }
        }
    }

    pub(crate) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Sends a command to a node that does not own its keys yet, but is about to.
async fn asking(cluster: &mut ClusterConnection, cmd: &Cmd, node: SingleNodeRoutingInfo) -> Result<Value, RedisError> {
    let mut both = redis::pipe();
    both.cmd("ASKING");
    both.add_command(cmd.clone());
    let mut answers = cluster.route_pipeline(both, 1, 1, node).await?;
    answers.pop().unwrap_or(Value::Nil).extract_error()
}

fn host_and_port(node: &str) -> Option<(String, u16)> {
    let (host, port) = node.rsplit_once(':')?;
    Some((host.to_owned(), port.parse().ok()?))
}

fn certificates(address: &Address, files: &TlsFiles) -> Result<Option<TlsCertificates>, InvalidTls> {
    let TlsFiles { ca, certificate, key } = files;
    let read = |path: &PathBuf| std::fs::read(path).map_err(|source| InvalidTls::Read { path: path.clone(), source });
    let client_tls = match (certificate, key) {
        (Some(certificate), Some(key)) => {
            Some(ClientTlsConfig { client_cert: read(certificate)?, client_key: read(key)? })
        }
        (None, None) => None,
        _ => return Err(InvalidTls::Half),
    };
    let root_cert = ca.as_ref().map(read).transpose()?;
    if !address.tls {
        return if client_tls.is_none() && root_cert.is_none() { Ok(None) } else { Err(InvalidTls::Plaintext) };
    }
    // Without files of ours the client trusts what the system trusts.
    Ok((client_tls.is_some() || root_cert.is_some()).then_some(TlsCertificates { client_tls, root_cert }))
}
