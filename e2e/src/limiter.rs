//! The rate limiter as a process of its own, and clients that ask it as Envoy does.
//!
//! Its command line is known here and nowhere else in the tests.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use chancery_proto::envoy::{
    rate_limit_common::{RateLimitDescriptor, rate_limit_descriptor::Entry},
    rls::{
        RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
        rate_limit_service_client::RateLimitServiceClient,
    },
};
use serde_json::Value;
use tonic::{
    Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};

use crate::{
    certificates::{Authority, Identity},
    client::{fetch, get},
    clock::{self, Clock},
    process::{Process, own_program},
    wait::{PATIENCE, until},
};

/// How long one question of a test may take before it counts as lost.
const DEADLINE: Duration = Duration::from_secs(5);

/// A rate limiter. Dropping it kills it.
#[derive(Debug)]
pub struct Limiter {
    /// Where it answers Envoy.
    pub grpc: SocketAddr,
    /// Where it serves `/json`, `/limits`, health and metrics.
    pub http: SocketAddr,
    name: String,
    folder: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    process: Process,
}

impl Limiter {
    /// Starts one that takes plaintext, with these arguments beside its addresses.
    pub async fn start(folder: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut all = vec!["--insecure"];
        all.extend(arguments);
        Self::start_as(folder, name, &all, &[]).await
    }

    /// As [`Limiter::start`], in a process whose clock (not the one that measures time passed) is `ahead`. `None` where
    /// libfaketime is not installed and that may be (see [`required`](crate::required::required)).
    pub async fn start_ahead(folder: &Path, name: &str, ahead: &str, arguments: &[&str]) -> Result<Option<Self>> {
        let Some(library) = clock::library() else { return Ok(None) };
        let environment =
            [("LD_PRELOAD", library.as_str()), ("FAKETIME", ahead), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let mut all = vec!["--insecure"];
        all.extend(arguments);
        Self::start_as(folder, name, &all, &environment).await.map(Some)
    }

    /// Starts one that takes mTLS only, with a certificate of `authority`.
    pub async fn start_secure(folder: &Path, name: &str, authority: &Authority, arguments: &[&str]) -> Result<Self> {
        let Identity { certificate, key } = authority.rate_limiter(name)?;
        let files = [certificate, key, authority.file()].map(|file| file.display().to_string());
        let mut all = vec!["--tls-cert", &files[0], "--tls-key", &files[1], "--client-ca", &files[2]];
        all.extend(arguments);
        Self::start_as(folder, name, &all, &[]).await
    }

    async fn start_as(folder: &Path, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Self> {
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let environment = environment.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        Self::spawn(name.to_owned(), folder.to_owned(), arguments, environment, [anywhere; 2]).await
    }

    async fn spawn(
        name: String,
        folder: PathBuf,
        arguments: Vec<String>,
        environment: Vec<(String, String)>,
        addresses: [SocketAddr; 2],
    ) -> Result<Self> {
        let mut command = Command::new(own_program("chancery-rate-limiter")?);
        for (flag, address) in ["--grpc-addr", "--http-addr"].iter().zip(addresses) {
            command.arg(flag).arg(address.to_string());
        }
        command.args(&arguments).envs(environment.iter().map(|(name, value)| (name, value)));
        let mut process = Process::spawn(&name, command, &folder)?;
        let ready = process.ready(PATIENCE).await?;
        let address = |part: &str| -> Result<SocketAddr> {
            let text = ready[part].as_str().with_context(|| format!("the ready line names no {part}: {ready}"))?;
            Ok(text.parse()?)
        };
        Ok(Self { grpc: address("grpc")?, http: address("http")?, name, folder, arguments, environment, process })
    }

    /// A client over a connection of its own.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(self.grpc).await
    }

    /// What its HTTP port answers to a GET, as JSON.
    pub async fn json(&self, path: &str) -> Result<Value> {
        let response = fetch(self.http, get("limiter", path)).await?;
        serde_json::from_slice(&response.body).with_context(|| format!("{path}: {}", response.text()))
    }

    /// Waits until it holds rules, whoever gave them.
    pub async fn ready(&self) -> Result<()> {
        until(&format!("{} is ready", self.name), PATIENCE, async || {
            let answer = fetch(self.http, get("limiter", "/readyz")).await?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.text());
            Ok(())
        })
        .await
    }

    /// Its metrics.
    pub async fn metrics(&self) -> Result<String> {
        Ok(fetch(self.http, get("limiter", "/metrics")).await?.text())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends it in order.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE).await
    }

    /// Starts it again with the same arguments, on the same ports.
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.kill();
        let addresses = [self.grpc, self.http];
        let (arguments, environment) = (self.arguments.clone(), self.environment.clone());
        *self = Self::spawn(self.name.clone(), self.folder.clone(), arguments, environment, addresses).await?;
        Ok(())
    }

    /// The same by this clock.
    pub async fn start_again_by(&mut self, clock: &Clock) -> Result<()> {
        self.environment = clock.environment();
        self.start_again().await
    }

    /// Stops it where it stands: connections stay open, nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.process.signal(libc::SIGSTOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.signal(libc::SIGCONT)
    }

    /// Its log, of all its lives.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Asks a limiter as Envoy does.
#[derive(Clone, Debug)]
pub struct Client(RateLimitServiceClient<Channel>);

impl Client {
    /// Connects in plaintext.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let endpoint = Channel::from_shared(format!("http://{address}"))?.timeout(DEADLINE).connect_timeout(DEADLINE);
        Ok(Self(RateLimitServiceClient::new(endpoint.connect().await?)))
    }

    /// Connects over mTLS as the holder of `identity`, to a limiter whose certificate is of `authority`.
    pub async fn connect_as(address: SocketAddr, authority: &Authority, identity: &Identity) -> Result<Self> {
        Ok(Self(RateLimitServiceClient::new(secure(address, authority, identity).await?)))
    }

    /// The whole answer to a request.
    pub async fn ask(&mut self, request: RateLimitRequest) -> Result<RateLimitResponse, Status> {
        Ok(self.0.should_rate_limit(request).await?.into_inner())
    }

    /// Whether one hit of one descriptor passes.
    pub async fn passes(&mut self, domain: &str, entries: &[(&str, &str)]) -> Result<bool, Status> {
        let answer = self.ask(request(domain, &[entries])).await?;
        Ok(answer.overall_code() == Code::Ok)
    }
}

/// A connection over mTLS to a limiter of `authority`, as the holder of `identity`.
pub async fn secure(address: SocketAddr, authority: &Authority, identity: &Identity) -> Result<Channel> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(fs::read(authority.file())?))
        .identity(tonic::transport::Identity::from_pem(fs::read(&identity.certificate)?, fs::read(&identity.key)?))
        .domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect_timeout(DEADLINE);
    Ok(endpoint.connect().await?)
}

/// A request with these descriptors.
pub fn request(domain: &str, descriptors: &[&[(&str, &str)]]) -> RateLimitRequest {
    let descriptor = |entries: &&[(&str, &str)]| RateLimitDescriptor {
        entries: entries.iter().map(|&(key, value)| Entry { key: key.to_owned(), value: value.to_owned() }).collect(),
        ..RateLimitDescriptor::default()
    };
    RateLimitRequest {
        domain: domain.to_owned(),
        descriptors: descriptors.iter().map(descriptor).collect(),
        hits_addend: 0,
    }
}
