//! What ours is compared with and this program can serve itself: `chancery-bench serve …`.
//!
//! The **floor** is tonic as its documentation shows it, answering at once: what any service on tonic costs before it decides
//! anything. **Limitador** is that library behind the same service, its limits written as its own server's users
//! write them; like that server it leaves the list of statuses empty.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, anyhow};
use chancery_proto::envoy::rls::{
    RateLimitRequest, RateLimitResponse,
    rate_limit_response::Code,
    rate_limit_service_server::{RateLimitService, RateLimitServiceServer},
};
use clap::{Args, ValueEnum};
use limitador::{RateLimiter, limit::Limit};
use tonic::{Request, Response, Status, async_trait, transport::Server};

use super::{
    case::{CHECKED, Quota},
    requests::{DOMAIN, entry_key},
};

/// How many counters Limitador may hold: more than any load here has keys.
const COUNTERS: u64 = 2_000_000;

/// Which of them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    Floor,
    Limitador,
}

/// What to serve, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    peer: Peer,
    #[arg(long)]
    address: SocketAddr,
    /// 1: a current-thread runtime; more: a multi-thread runtime with so many
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// How many descriptors requests will have
    #[arg(long, default_value_t = 1)]
    descriptors: usize,
    /// The limit of every key, as REQUESTS/SECONDS
    #[arg(long, default_value = "1000000/1")]
    quota: Quota,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut runtime = if options.threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.worker_threads(options.threads).enable_all().build()?;
    let mut server = Server::builder();
    runtime.block_on(async {
        match options.peer {
            Peer::Floor => server.add_service(RateLimitServiceServer::new(Floor)).serve(options.address).await,
            Peer::Limitador => {
                let limiter = Limitador::new(options.descriptors, options.quota)?;
                server.add_service(RateLimitServiceServer::new(limiter)).serve(options.address).await
            }
        }
        .context("cannot serve")
    })
}

struct Floor;

#[async_trait]
impl RateLimitService for Floor {
    async fn should_rate_limit(&self, _: Request<RateLimitRequest>) -> Result<Response<RateLimitResponse>, Status> {
        Ok(answer(Code::Ok))
    }
}

/// Serves it on a free port, in the background.
#[cfg(test)]
pub(super) async fn limitador_on(limiter: Limitador) -> Result<SocketAddr> {
    let incoming = tonic::transport::server::TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = incoming.local_addr()?;
    let server = Server::builder().add_service(RateLimitServiceServer::new(limiter));
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(address)
}

/// That library, as the service.
pub(super) struct Limitador(Arc<RateLimiter>);

impl Limitador {
    /// With one limit per descriptor, and one for the check.
    pub(super) fn new(descriptors: usize, quota: Quota) -> Result<Self> {
        let limiter = RateLimiter::new(COUNTERS);
        let limit = |domain, descriptor: usize, key: String, quota: Quota| {
            let variable = format!("descriptors[{descriptor}]['{key}']");
            let variable = variable.try_into().map_err(|_| anyhow!("{key} is no name in CEL"))?;
            anyhow::Ok(Limit::new(domain, quota.requests.into(), quota.seconds, [], [variable]))
        };
        for descriptor in 0..descriptors {
            limiter.add_limit(limit(DOMAIN, descriptor, entry_key(descriptor), quota)?);
        }
        limiter.add_limit(limit(CHECKED, 0, entry_key(0), Quota::ONCE)?);
        Ok(Self(limiter.into()))
    }
}

#[async_trait]
impl RateLimitService for Limitador {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let descriptors = request.descriptors.into_iter();
        let entries = descriptors.map(|descriptor| {
            descriptor.entries.into_iter().map(|entry| (entry.key, entry.value)).collect::<HashMap<_, _>>()
        });
        let mut context = limitador::limit::Context::default();
        context.list_binding("descriptors".to_owned(), entries.collect());
        let hits = request.hits_addend.max(1).into();
        let checked = self.0.check_rate_limited_and_update(&request.domain.into(), &context, hits);
        match checked {
            Ok(checked) if checked.limited => Ok(answer(Code::OverLimit)),
            Ok(_) => Ok(answer(Code::Ok)),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

fn answer(code: Code) -> Response<RateLimitResponse> {
    Response::new(RateLimitResponse { overall_code: code.into(), ..RateLimitResponse::default() })
}
