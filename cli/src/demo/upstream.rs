//! The port of a demo upstream: who connects, is refused, and is cut off.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    answer::answer,
    chaos::{Chaos, Fault},
    counts::Counts,
    line::{Line, Socket},
};

/// How long to wait when the system cannot give another connection, or the port.
const RETRY: Duration = Duration::from_millis(50);

/// What all connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) name: String,
    pub(super) chaos: watch::Sender<Chaos>,
    pub(super) counts: Counts,
    requests: AtomicU64,
}

impl State {
    pub(super) fn new(name: &str, chaos: Chaos) -> Self {
        Self {
            name: name.to_owned(),
            chaos: watch::Sender::new(chaos),
            counts: Counts::default(),
            requests: AtomicU64::new(0),
        }
    }

    /// An id for a request that has none.
    pub(super) fn next_id(&self) -> u64 {
        self.requests.fetch_add(1, Relaxed)
    }

    fn refuses_all(&self) -> bool {
        self.chaos.borrow().share(Fault::Refuse) >= 1.0
    }
}

/// A running upstream; dropping it ends it and its connections.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Upstream {
    /// Serves at `address` as `name`, without faults.
    pub(crate) async fn start(name: &str, address: SocketAddr) -> Result<Self> {
        Self::of(Arc::new(State::new(name, Chaos::default())), address).await
    }

    /// Serves at `address` as one of those that share `state`.
    pub(super) async fn of(state: Arc<State>, address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("the upstream {} cannot listen on {address}", state.name))?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, address, state));
        Ok(Self { address, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where it serves.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens, and while all are refused does not.
async fn serve(listener: TcpListener, address: SocketAddr, state: Arc<State>) {
    let mut chaos = state.chaos.subscribe();
    let mut number = 0;
    let mut listener = Some(listener);
    loop {
        if let Some(listener) = listener.take() {
            tokio::select! {
                () = accept(&listener, &state, &mut number) => {}
                // What there is of connections ends with this.
                _ = chaos.wait_for(|_| state.refuses_all()) => {}
            }
        }
        // Its sender is in `state`.
        let _ = chaos.wait_for(|_| !state.refuses_all()).await;
        match TcpListener::bind(address).await {
            Ok(again) => listener = Some(again),
            Err(error) => {
                tracing::warn!(%address, %error, "the demo upstream cannot listen again");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn accept(listener: &TcpListener, state: &Arc<State>, number: &mut u64) {
    // Connections end with the set.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors: a connection that ends makes room.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        *number += 1;
        if state.chaos.borrow().of_connection(Fault::Refuse, *number, 0) {
            let _ = stream.set_zero_linger();
            continue;
        }
        let _ = stream.set_nodelay(true);
        connections.spawn(connection(stream, *number, state.clone()));
    }
}

async fn connection(stream: TcpStream, number: u64, state: Arc<State>) {
    let line = Arc::new(Line::new(number));
    let socket = Socket::new(stream, line.clone(), state.chaos.subscribe());
    let on_line = line.clone();
    let answering = service_fn(move |request| answer(state.clone(), on_line.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(socket), answering);
    tokio::pin!(connection);
    let mut ending = false;
    loop {
        tokio::select! {
            // An error is a client that went away, or a fault.
            _ = connection.as_mut() => return,
            () = line.cut.notified() => return,
            () = line.goaway.notified(), if !ending => {
                ending = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
