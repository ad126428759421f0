//! Chooses an endpoint for each try, and tells the endpoints' breakers, outlier detection and averages what the try met.
//!
//! A [`Ticket`] is the right to ask one endpoint, and the duty to say what came of it. It is given back when dropped: then nothing came
//! of it, unless its deadline has passed, in which case the endpoint did not answer in time. So a caller that goes away
//! never leaves a probe behind, and an endpoint that hangs is not overlooked since it is always the caller who ends the wait.
//!
//! Verdicts are given at the response's head; for gRPC at its status, be that in the head or in trailers after one DATA frame at most.
//! A stream that stays open after its first message is well. One that says nothing at all is undecided, and as a probe it is
//! given up at the probe's deadline. A body that breaks later is held against the endpoint on its own.
//!
//! Where the client's own body breaks, the try fails without fault of the endpoint: [`Ticket::upload`] notes it.
//!
//! One lock is held to choose and to judge, never while a request is under way. It covers choice and admission together, so that
//! of many who see that a probe is due only one is sent.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::{Clock, Failed, chance, grpc};
use crate::policy::{
    classify::{Fault, Outcome, Verdict},
    deadline::Deadline,
    endpoints::{Admission, Change, Condition, Counts, EndpointId, EndpointSet, Settings},
    ewma::{self, PeakEwma},
    p2c::{self, Candidate, Standing},
};

/// The endpoints of a cluster, shared by all its requests.
#[derive(Debug)]
pub struct Endpoints {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    set: EndpointSet,
    loads: BTreeMap<EndpointId, Load>,
    /// Room for those among whom is being chosen, so that no choice has to make it.
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
struct Load {
    average: PeakEwma,
    pending: u32,
}

/// An endpoint that a request may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Which one.
    pub id: EndpointId,
    /// Its share of the load.
    pub weight: u32,
    /// Whether whoever named it calls it healthy. If not, it is asked only if nobody else is left.
    pub healthy: bool,
}

/// The endpoints that one request has been sent to. Its tries share it.
#[derive(Clone, Debug)]
pub struct Tried(Option<Arc<Mutex<Vec<EndpointId>>>>);

impl Tried {
    /// Of a request that has one try only, so that nobody is to remember anything.
    pub fn once() -> Self {
        Self(None)
    }
}

impl Default for Tried {
    /// None yet.
    fn default() -> Self {
        Self(Some(Arc::default()))
    }
}

impl Endpoints {
    /// Without endpoints.
    pub fn new(clock: Clock, settings: Settings) -> Arc<Self> {
        let set = EndpointSet::new(settings, clock.now());
        Arc::new(Self { clock, state: Mutex::new(State { set, loads: BTreeMap::new(), candidates: Vec::new() }) })
    }

    /// Takes new settings.
    pub fn configure(&self, settings: Settings) {
        let now = self.clock.now();
        let state = &mut *self.state.lock();
        for id in state.set.configure(settings, now) {
            state.forgive(id, now);
        }
    }

    /// A new endpoint.
    pub fn insert(&self) -> EndpointId {
        let state = &mut *self.state.lock();
        let id = state.set.insert();
        state
            .loads
            .insert(id, Load { average: PeakEwma::new(ewma::Settings::default(), self.clock.now()), pending: 0 });
        id
    }

    /// An endpoint is gone. Requests that are under way there end as they do.
    pub fn remove(&self, id: EndpointId) {
        let now = self.clock.now();
        let state = &mut *self.state.lock();
        state.loads.remove(&id);
        for id in state.set.remove(id, now) {
            state.forgive(id, now);
        }
    }

    /// How often endpoints were put out, or would have been.
    pub fn counts(&self) -> Counts {
        self.state.lock().set.counts()
    }

    /// How many are out.
    pub fn out(&self) -> usize {
        self.state.lock().set.out()
    }

    /// Whether an endpoint may be asked.
    pub fn standing(&self, id: EndpointId) -> Standing {
        self.state.lock().set.standing(id, self.clock.now())
    }

    /// How an endpoint stands. None if it is gone.
    pub fn condition(&self, id: EndpointId) -> Option<Condition> {
        self.state.lock().set.condition(id, self.clock.now())
    }

    /// How long an endpoint takes on average, in seconds; a failure counts as five.
    pub fn average(&self, id: EndpointId) -> Option<f64> {
        self.state.lock().loads.get(&id).map(|load| load.average.average(self.clock.now()))
    }

    /// How many requests are under way to an endpoint.
    pub fn pending(&self, id: EndpointId) -> u32 {
        self.state.lock().loads.get(&id).map_or(0, |load| load.pending)
    }

    /// Chooses one of `hosts`, preferably one that has not been `tried`, for a try that ends with `deadline`. None if there are none.
    pub fn choose(self: &Arc<Self>, hosts: &[Host], tried: &Tried, deadline: Deadline) -> Option<Ticket> {
        let now = self.clock.now();
        let mut tried = tried.0.as_ref().map(|tried| tried.lock());
        let before = tried.as_ref().map_or(&[][..], |tried| tried);
        let state = &mut *self.state.lock();
        if state.set.next_tick().is_some_and(|tick| tick <= now) {
            for (id, change) in state.set.tick(now, &mut chance) {
                if change == Change::Back {
                    state.forgive(id, now);
                }
            }
        }
        let mut candidates = std::mem::take(&mut state.candidates);
        candidates.clear();
        candidates.extend(hosts.iter().map(|host| state.candidate(host, before, now)));
        let cost =
            |index: usize| state.loads.get(&hosts[index].id).map_or(0.0, |load| load.average.cost(load.pending, now));
        let choice = p2c::choose(&candidates, cost, [chance(), chance()]);
        state.candidates = candidates;
        let choice = choice?;
        let id = hosts[choice.index].id;
        let admission = state.set.admit(id, choice.panic, now)?;
        if let Some(load) = state.loads.get_mut(&id) {
            load.pending += 1;
        }
        if let Some(tried) = &mut tried {
            tried.push(id);
        }
        Some(Ticket {
            endpoints: Arc::clone(self),
            id,
            admission: Some(admission),
            began: now,
            took: None,
            deadline,
            upload: None,
        })
    }
}

impl State {
    fn candidate(&self, host: &Host, tried: &[EndpointId], now: Duration) -> Candidate {
        let standing = if host.healthy { self.set.standing(host.id, now) } else { Standing::Out };
        let load = self.loads.get(&host.id);
        let unknown = load.is_some_and(|load| load.average.is_unknown(load.pending, now));
        // Nothing else would tell what it is like.
        let standing = if standing == Standing::In && unknown { Standing::Probe } else { standing };
        Candidate { weight: host.weight, standing, tried: tried.contains(&host.id) }
    }

    /// An endpoint is back: what it cost before is not held against it.
    fn forgive(&mut self, id: EndpointId, now: Duration) {
        if let Some(load) = self.loads.get_mut(&id) {
            load.average.forgive(now);
        }
    }
}

/// One try at one endpoint.
#[must_use = "a ticket that is dropped says that nothing came of it"]
#[derive(Debug)]
pub struct Ticket {
    endpoints: Arc<Endpoints>,
    id: EndpointId,
    /// Until it is judged.
    admission: Option<Admission>,
    began: Duration,
    /// Time to the response's head.
    took: Option<Duration>,
    deadline: Deadline,
    /// Whether the client's body has broken.
    upload: Option<Arc<AtomicBool>>,
}

impl Ticket {
    /// The endpoint.
    pub fn endpoint(&self) -> EndpointId {
        self.id
    }

    /// Whether this is the probe of an open breaker.
    pub fn is_probe(&self) -> bool {
        self.admission.as_ref().is_some_and(Admission::is_probe)
    }

    /// The request's body, of which is noted whether it breaks: what follows from that is not the endpoint's doing.
    pub fn upload<B>(&mut self, body: B) -> Upload<B> {
        Upload { body, broken: Arc::clone(self.upload.get_or_insert_default()) }
    }

    /// Says what came of it; the first time counts. `asked`: for how long the endpoint would be left alone.
    pub fn judge(&mut self, outcome: Outcome, asked: Option<Duration>) -> Change {
        let now = self.endpoints.clock.now();
        self.judge_now(outcome, asked, now)
    }

    fn judge_now(&mut self, outcome: Outcome, asked: Option<Duration>, now: Duration) -> Change {
        let Some(admission) = self.admission.take() else { return Change::None };
        let took = self.took.unwrap_or_else(|| now.saturating_sub(self.began));
        let verdict = match outcome {
            Outcome::Fault(_) if self.client_broke() => Verdict::Ignored,
            outcome => outcome.verdict(),
        };
        let state = &mut *self.endpoints.state.lock();
        let change = state.set.record(self.id, admission, verdict, asked, now, &mut chance);
        if let Some(load) = state.loads.get_mut(&self.id) {
            match verdict {
                Verdict::Success => load.average.record(took, now),
                Verdict::Failure { .. } | Verdict::RateLimited => load.average.fail(took, asked, now),
                Verdict::Ignored => {}
            }
        }
        if change == Change::Back {
            state.forgive(self.id, now);
        }
        change
    }

    fn client_broke(&self) -> bool {
        self.upload.as_ref().is_some_and(|broken| broken.load(Ordering::Relaxed))
    }

    /// The response broke after it had been judged.
    fn broke_later(&mut self) {
        if self.client_broke() {
            return;
        }
        let now = self.endpoints.clock.now();
        let state = &mut *self.endpoints.state.lock();
        match state.set.admit(self.id, false, now) {
            Some(admission) if admission.is_probe() => state.set.cancel(self.id, admission, now),
            Some(admission) => {
                let verdict = Outcome::Fault(Fault::Reset).verdict();
                state.set.record(self.id, admission, verdict, None, now, &mut chance);
            }
            None => {}
        }
    }

    /// The endpoint is judged by what the try met: at once, or by what comes of the body.
    ///
    /// # Errors
    /// That of `met`.
    pub fn met<B: Body>(mut self, met: Result<Response<B>, Failed>) -> Result<Response<Watched<B>>, Failed> {
        match met {
            Ok(response) => {
                let now = self.endpoints.clock.now();
                self.took = Some(now.saturating_sub(self.began));
                let (status, headers) = (response.status().as_u16(), response.headers());
                let grpc = grpc::status(headers);
                let undecided = status == 200 && grpc.is_none() && grpc::is_grpc(headers);
                if !undecided {
                    self.judge_now(Outcome::Response { status, grpc }, grpc::pushback(headers).after(), now);
                }
                Ok(response.map(|body| {
                    let mut watched = Watched { body, ticket: Some(self), undecided, began: false };
                    if watched.body.is_end_stream() {
                        watched.end();
                    }
                    watched
                }))
            }
            Err(failed) => {
                self.judge(failed.outcome(), None);
                Err(failed)
            }
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.endpoints.clock.now();
        if self.took.is_none() && self.deadline.has_passed(now) {
            self.judge(Outcome::Fault(Fault::TryTimeout), None);
        }
        let state = &mut *self.endpoints.state.lock();
        if let Some(admission) = self.admission.take() {
            state.set.cancel(self.id, admission, now);
        }
        if let Some(load) = state.loads.get_mut(&self.id) {
            load.pending = load.pending.saturating_sub(1);
        }
    }
}

/// A request's body that is watched; see [`Ticket::upload`].
#[derive(Debug)]
pub struct Upload<B> {
    body: B,
    broken: Arc<AtomicBool>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Upload<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.broken.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, of which the endpoint hears how it ended.
#[derive(Debug)]
pub struct Watched<B> {
    body: B,
    /// Until the end: the request is under way.
    ticket: Option<Ticket>,
    undecided: bool,
    /// There was a DATA frame.
    began: bool,
}

impl<B> Watched<B> {
    fn judge(&mut self, outcome: Outcome, asked: Option<Duration>) {
        if let Some(ticket) = self.ticket.as_mut().filter(|_| self.undecided) {
            ticket.judge(outcome, asked);
            self.undecided = false;
        }
    }

    fn saw<E>(&mut self, frame: Option<&Result<Frame<Bytes>, E>>) {
        match frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let outcome = grpc::status(trailers).map_or(Outcome::Fault(Fault::Malformed), |status| {
                        Outcome::Response { status: 200, grpc: Some(status) }
                    });
                    self.judge(outcome, grpc::pushback(trailers).after());
                } else {
                    if self.began {
                        self.judge(Outcome::http(200), None);
                    }
                    self.began = true;
                }
            }
            Some(Err(_)) if self.undecided => self.judge(Outcome::Fault(Fault::Reset), None),
            Some(Err(_)) => self.ticket.as_mut().into_iter().for_each(Ticket::broke_later),
            None => {}
        }
    }

    /// It has ended. A gRPC response without a status has broken off.
    fn end(&mut self) {
        self.judge(Outcome::Fault(Fault::Malformed), None);
        self.ticket = None;
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(frame) => {
                self.saw(frame.as_ref());
                if matches!(frame, None | Some(Err(_))) || self.body.is_end_stream() {
                    self.end();
                }
            }
            Poll::Pending if self.began => self.judge(Outcome::http(200), None),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
