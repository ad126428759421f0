//! From the application to others.

use std::{convert::Infallible, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{HeaderValue, Request, Response, header::LOCATION};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tower::{Service as _, ServiceBuilder};

use super::{Arrived, elapsed, upgrade};
use crate::{
    config::routes::{self, Action, Forward},
    layer::{
        Clock, Failed, concurrency::ConcurrencyLayer, deadline::DeadlineLayer, hedge::HedgeLayer, queue::QueueLayer,
        retry::RetryLayer,
    },
    policy::{concurrency::Concurrency, grpc::is_grpc, retry::RetryPolicy},
    proxy::{
        balance::Balance,
        body::{self, Body, boxed},
        failure::Failure,
        message,
        meters::Meters,
        route::{self, Way},
        trace,
        world::{Base, Upstream, World},
    },
};

/// The way out.
pub struct Outbound {
    /// What all clusters share.
    pub base: Base,
    /// The configuration of the moment.
    pub world: Arc<ArcSwap<World>>,
    /// Only by the routes of this listener; `None`: of any.
    pub listener: Option<Arc<str>>,
    /// Requests at the same time.
    pub concurrency: Arc<Mutex<Concurrency>>,
}

impl Outbound {
    fn clock(&self) -> Clock {
        self.base.clock
    }

    /// Answers a request.
    ///
    /// # Errors
    /// None: what fails is answered too.
    pub async fn call(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let grpc = is_grpc(request.headers());
        let span = trace::received(&self.base, "outbound", "http", &mut request);
        let arrived = Arrived::new(self.clock(), "outbound", grpc, span);
        let answer = self.answer(request, arrived.began).await;
        Ok(arrived.answered(answer))
    }

    async fn answer(&self, request: Request<Incoming>, began: Duration) -> Result<Response<Body>, Failure> {
        let authority = message::check(&request)?;
        let world = self.world.load_full();
        let way = route::choose(&world, self.listener.as_deref(), &request, authority, rand::random())?;
        let mut response = match (&way.route.action, &way.upstream) {
            (Action::Forward(forward), Some(upstream)) => {
                let meters = upstream
                    .meters
                    .of(&way.route.name, |route| Meters::new(upstream.cluster.name.clone(), route.clone()));
                let answer = self.forward(request, &way, forward, upstream).await;
                meters.answered(&answer, elapsed(self.clock(), began));
                answer?
            }
            (action, _) => local(action, &way, request.uri().query()),
        };
        routes::edit(response.headers_mut(), &way.route.response_headers);
        Ok(response)
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        way: &Way,
        forward: &Forward,
        upstream: &Arc<Upstream>,
    ) -> Result<Response<Body>, Failure> {
        let protocol = upstream.cluster.settings.protocol;
        let tunnel = upgrade::begin(&mut request, protocol)?;
        message::strip(request.headers_mut());
        if !way.route.request_headers.is_empty() {
            routes::edit(request.headers_mut(), &way.route.request_headers);
            // A route adds nothing that is of one connection only, either.
            message::strip(request.headers_mut());
        }
        message::address(&mut request, protocol, &way.authority, way.path.clone())?;
        if let Some(tunnel) = tunnel {
            tunnel.ask(&mut request);
            let mut response = self.once(request, forward, upstream).await?;
            tunnel.finish(&mut response, &self.base.tasks);
            return Ok(response);
        }
        let hedge = self.hedge(way, forward, upstream);
        let mut response = match &forward.retry {
            None if hedge.is_none() => self.once(request, forward, upstream).await?,
            // Who hedges keeps the body and pays from the budget, too, and may have asked for no retries at all.
            policy => self.repeated(request, forward, policy.clone().unwrap_or_default(), hedge, upstream).await?,
        };
        message::strip(response.headers_mut());
        Ok(response)
    }

    /// How requests of this way are hedged, if its cluster asks for it.
    fn hedge(&self, way: &Way, forward: &Forward, upstream: &Arc<Upstream>) -> Option<HedgeLayer> {
        Some(HedgeLayer {
            clock: self.clock(),
            settings: upstream.cluster.settings.hedge?,
            repeatable: forward.retry.as_ref().is_some_and(|policy| policy.repeatable),
            latencies: upstream.hedging.of(&way.route.name, |_| Mutex::default()),
            budget: upstream.budget.clone(),
        })
    }

    /// The stack, from the outside in. No async function: those copy their arguments, and a request is large.
    fn repeated(
        &self,
        request: Request<Incoming>,
        forward: &Forward,
        policy: Arc<RetryPolicy>,
        hedge: Option<HedgeLayer>,
        upstream: &Arc<Upstream>,
    ) -> impl Future<Output = Result<Response<Body>, Failed>> + use<> {
        let clock = self.clock();
        let mut stack = ServiceBuilder::new()
            .layer(DeadlineLayer { clock, route: forward.timeout.clone() })
            .layer(ConcurrencyLayer { clock, concurrency: self.concurrency.clone() })
            .layer(RetryLayer {
                clock,
                policy,
                retriable_headers: None,
                budget: upstream.budget.clone(),
                cluster: upstream.cluster.name.clone(),
            })
            .option_layer(hedge)
            .layer(QueueLayer { queue: upstream.queue.clone() })
            .service(Balance { upstream: upstream.clone() });
        let answer = stack.call(request);
        async { Ok(answer.await?.map(boxed)) }
    }

    /// The same without retries and hedges, and so without a copy of the body.
    fn once(
        &self,
        request: Request<Incoming>,
        forward: &Forward,
        upstream: &Arc<Upstream>,
    ) -> impl Future<Output = Result<Response<Body>, Failed>> + use<> {
        let clock = self.clock();
        let mut stack = ServiceBuilder::new()
            .layer(DeadlineLayer { clock, route: forward.timeout.clone() })
            .layer(ConcurrencyLayer { clock, concurrency: self.concurrency.clone() })
            .layer(QueueLayer { queue: upstream.queue.clone() })
            .service(Balance { upstream: upstream.clone() });
        let answer = stack.call(request);
        async { Ok(answer.await?.map(boxed)) }
    }
}

/// The answer of a route that answers itself.
fn local(action: &Action, way: &Way, query: Option<&str>) -> Response<Body> {
    match action {
        Action::Respond { status, body } => {
            let mut response = Response::new(body::full(body.to_string()));
            *response.status_mut() = *status;
            response
        }
        Action::Redirect(redirect) => {
            let mut response = Response::new(body::empty());
            *response.status_mut() = redirect.status;
            let location = redirect.location(&way.route, &way.authority, way.path.path(), query);
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(LOCATION, location);
            }
            response
        }
        // Only a route that forwards has a cluster to be without, and that was found.
        Action::Forward(_) => Failure::NoRoute.answer(false),
    }
}
