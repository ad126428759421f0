//! An installation as one would run it: two control planes on Postgres, two limiters on Redis, proxies, a sidecar, two endpoints of
//! a service. Between any two of them is a [`Link`], which a test can cut.
//!
//! The service `shop` is reached by two routes, of which one is limited, and [`Observation`]s say what was lost on each.

mod edits;
mod observe;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use edits::{Edits, Told};
pub use observe::{Meanwhile, Observation, Seen, Table};

use crate::{
    api::Api,
    bootstrap::{Protocol, Proxy},
    certificates::Authority,
    control_plane::{ADMIN_TOKEN, ControlPlane},
    document::{fleet_asking, limit_per_key, listener, route, route_saying, service},
    envoy::Envoy,
    limiter::Limiter,
    link::Link,
    port::free_port,
    postgres::Postgres,
    redis::Redis,
    required,
    scripted::script::edit_text,
    sidecar::Sidecar,
    upstream::Upstream,
};

/// The host of the route without limits.
pub const OPEN: &str = "open.example.com";

/// The host of the limited one.
pub const LIMITED: &str = "limited.example.com";

/// The host of the route that is edited, by which the proxy says which edit it has.
pub const EDITED: &str = "edited.example.com";

/// What differs from one estate to another.
pub struct Plan {
    /// What becomes of requests that nobody decides: `allow` or `deny`.
    pub on_failure: &'static str,
    /// How long proxies wait for a decision.
    pub timeout: &'static str,
    /// Limits on the limited route.
    pub limit: Value,
    /// How many real proxies there are.
    pub envoys: usize,
    /// Whether there is a sidecar.
    pub sidecar: bool,
}

impl Default for Plan {
    /// Nobody is refused, whatever happens.
    fn default() -> Self {
        let limit = limit_per_key("per-client", 1_000_000, "1s", json!({}));
        Self { on_failure: "allow", timeout: "300ms", limit, envoys: 1, sidecar: false }
    }
}

/// All parts, at work. Fields are dropped in order, the folder last.
pub struct Estate {
    /// Both control planes.
    pub control_planes: Vec<ControlPlane>,
    /// Both limiters.
    pub limiters: Vec<Limiter>,
    /// The proxies, who share a port.
    pub envoys: Vec<Envoy>,
    /// The sidecar.
    pub sidecar: Option<Sidecar>,
    /// Both endpoints of the service.
    pub upstreams: Vec<Option<Upstream>>,
    /// Where the endpoints are, whether they live or not.
    pub addresses: Vec<SocketAddr>,
    /// The database.
    pub postgres: Postgres,
    /// What the limiters count in, and the link to it; nothing where they count elsewhere.
    pub redis: Option<(Redis, Link)>,
    /// From control planes to the database.
    pub to_database: Link,
    /// From proxies, limiters and sidecar to the control planes, as a load balancer.
    pub to_xds: Link,
    /// From callers of the API to the control planes, as a load balancer.
    pub to_api: Link,
    /// From proxies to each limiter.
    pub to_limiters: Vec<Link>,
    /// From proxies and sidecar to each endpoint of the service, once there are such: see [`Estate::link_upstreams`].
    pub to_upstreams: Vec<Link>,
    /// A caller of the API, as administrator.
    pub api: Api,
    /// Where the proxies listen.
    pub web: SocketAddr,
    /// Who issued all certificates.
    pub authority: Authority,
    program: PathBuf,
    folder: TempDir,
}

impl Estate {
    /// Sets it up. `None` where this machine lacks what it needs and that may be (see [`required`]).
    pub async fn start(plan: Plan) -> Result<Option<Self>> {
        let folder = tempfile::tempdir()?;
        let Some(redis) = Redis::start(folder.path()).await? else { return Ok(None) };
        let link = Link::to(&[redis.address]).await?;
        let url = format!("redis://{}", link.address);
        Ok(Self::start_counting(folder, &url, plan).await?.map(|estate| Self { redis: Some((redis, link)), ..estate }))
    }

    /// The same with limiters that count at `store`, which is the caller's.
    pub async fn start_counting(folder: TempDir, store: &str, plan: Plan) -> Result<Option<Self>> {
        let Some(program) = required::envoy() else { return Ok(None) };
        let Some(postgres) = Postgres::start().await? else { return Ok(None) };
        let url = postgres.create_database().await?;
        let to_database = Link::to(&[([127, 0, 0, 1], postgres.port()).into()]).await?;
        let database = url.replace(&format!(":{}/", postgres.port()), &format!(":{}/", to_database.address.port()));
        let authority = Authority::create(folder.path(), "authority")?;
        let mut control_planes = Vec::new();
        for name in ["first", "second"] {
            control_planes.push(ControlPlane::start(folder.path(), name, &database, &authority).await?);
        }
        let all = |of: fn(&ControlPlane) -> SocketAddr| control_planes.iter().map(of).collect::<Vec<_>>();
        let (to_xds, to_api) =
            (Link::to(&all(|replica| replica.xds)).await?, Link::to(&all(|replica| replica.api)).await?);
        let api = Api::new(to_api.address, ADMIN_TOKEN);

        let mut limiters = Vec::new();
        let mut to_limiters = Vec::new();
        for name in ["one", "two"] {
            let xds = to_xds.address.to_string();
            // A machine under test is busy; what is tested here is how much, not how soon.
            let arguments = ["--xds", &xds, "--store", store, "--workers", "1", "--redis-timeout", "1000"];
            let limiter = Limiter::start_secure(folder.path(), name, &authority, &arguments).await?;
            to_limiters.push(Link::to(&[limiter.grpc]).await?);
            limiters.push(limiter);
        }
        let upstreams = [Upstream::start("left").await?, Upstream::start("right").await?];
        let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
        let web = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut estate = Self {
            control_planes,
            limiters,
            envoys: Vec::new(),
            sidecar: None,
            upstreams: upstreams.into_iter().map(Some).collect(),
            addresses,
            postgres,
            redis: None,
            to_database,
            to_xds,
            to_api,
            to_limiters,
            to_upstreams: Vec::new(),
            api,
            web,
            authority,
            program,
            folder,
        };
        estate.furnish(&plan).await?;
        Ok(Some(estate))
    }

    async fn furnish(&mut self, plan: &Plan) -> Result<()> {
        let limiters: Vec<_> = self.to_limiters.iter().map(|link| link.address).collect();
        let fleet = fleet_asking("edge", &limiters, json!({ "onFailure": plan.on_failure, "timeout": plan.timeout }));
        let retry = json!({ "on": ["connect-failure", "reset", "5xx"], "attempts": 3, "perTryTimeout": "1s" });
        let rule = json!({ "to": [{ "service": "shop" }], "timeout": "5s", "retry": retry });
        let mut limited = rule.clone();
        limited["rateLimits"] = json!([plan.limit["name"]]);
        let resources = [
            fleet,
            listener("web", "edge", self.web.port()),
            shop(&self.addresses),
            plan.limit.clone(),
            route("open", OPEN, &json!([rule])),
            route("limited", LIMITED, &json!([limited])),
            edited(0),
        ];
        self.api.apply(&resources).await?;
        for number in 0..plan.envoys {
            self.start_envoy(&format!("envoy-{number}")).await?;
        }
        if plan.sidecar {
            let (folder, xds) = (self.folder.path(), self.to_xds.address);
            let sidecar = Sidecar::start(folder, "side", &self.authority, xds, &["--insecure"]).await?;
            sidecar.ready().await?;
            self.sidecar = Some(sidecar);
        }
        self.well().await?;
        Ok(())
    }

    /// Starts one more proxy, or one once more.
    pub async fn start_envoy(&mut self, id: &str) -> Result<()> {
        let proxy = Proxy {
            fleet: "edge",
            id,
            protocol: Protocol::Delta,
            xds: self.to_xds.address,
            authority: &self.authority,
        };
        let envoy = Envoy::of(&self.program, self.folder.path(), &proxy).await?;
        self.envoys.push(envoy);
        Ok(())
    }

    /// Puts links before the endpoints of the service. One that is dead looks different behind a link: it takes connections, and
    /// ends them. Who does not answer is left alone after a while: a try waits for as long as it may, however many did before.
    pub async fn link_upstreams(&mut self) -> Result<()> {
        for address in &self.addresses {
            self.to_upstreams.push(Link::to(&[*address]).await?);
        }
        let addresses: Vec<_> = self.to_upstreams.iter().map(|link| link.address).collect();
        let mut shop = shop(&addresses);
        shop["spec"]["outlierDetection"] = json!({ "consecutive5xx": 3, "ejectFor": "5s", "maxEjectedPercent": 50 });
        self.api.put_and_wait(&shop).await?;
        Ok(())
    }

    /// Where files of this estate may lie.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Ends an endpoint with all its connections.
    pub fn kill_upstream(&mut self, number: usize) {
        self.upstreams[number] = None;
    }

    /// Starts it again where it was.
    pub async fn start_upstream(&mut self, number: usize) -> Result<()> {
        self.upstreams[number] = Some(Upstream::start_at("again", self.addresses[number]).await?);
        Ok(())
    }
}

/// The service with these endpoints. Envoy tries three requests again at a time, unless it is told otherwise; here are more.
fn shop(addresses: &[SocketAddr]) -> Value {
    let mut shop = service("shop", addresses);
    shop["spec"]["breaker"] = json!({ "maxRetries": 20 });
    shop
}

/// The route by which proxies say that they have this edit.
fn edited(number: u64) -> Value {
    route_saying("edited", EDITED, &edit_text(number))
}
