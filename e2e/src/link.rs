//! A network between two programs on this machine: bytes take their time, stand still, or come to an end.
//!
//! On loopback an update is applied before the next one is written, so nothing ever has to be put in order. Over a
//! link with latency, changes pile up while an acknowledgement is on its way, as they do in production.
//!
//! A link to several servers is a load balancer as one stands before replicas: a connection goes to the next of them that takes it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

/// How many pieces may be under way in one direction; beyond that the sender has to wait.
const UNDER_WAY: usize = 1024;

/// A way to a server. Dropping it cuts every connection over it.
#[derive(Debug)]
pub struct Link {
    /// Where to connect instead of the server.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    // Aborts the acceptor, which owns the connections.
    _acceptor: JoinSet<()>,
}

#[derive(Clone, Debug)]
struct State {
    servers: Arc<[SocketAddr]>,
    latency: Duration,
    /// Nothing is taken on.
    cut: bool,
    /// Nothing is carried.
    stalled: bool,
    /// Connections of another era than this have ended.
    era: u64,
}

impl Link {
    /// A link to `server` over which everything takes `latency` in each direction.
    pub async fn slow(server: SocketAddr, latency: Duration) -> Result<Self> {
        let link = Self::to(&[server]).await?;
        link.slow_down(latency);
        Ok(link)
    }

    /// A link to these servers.
    pub async fn to(servers: &[SocketAddr]) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = State { servers: servers.into(), latency: Duration::ZERO, cut: false, stalled: false, era: 0 };
        let (state, seen) = watch::channel(state);
        let mut acceptor = JoinSet::new();
        acceptor.spawn(async move {
            let mut connections = JoinSet::new();
            let mut turn = 0;
            loop {
                // A client that is gone before it was accepted is no reason to stop.
                let Ok((client, _)) = listener.accept().await else { continue };
                connections.spawn(carry(client, seen.clone(), turn));
                turn += 1;
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, state, _acceptor: acceptor })
    }

    /// Everything takes `latency` in each direction from now on.
    pub fn slow_down(&self, latency: Duration) {
        self.state.send_modify(|state| state.latency = latency);
    }

    /// Ends every connection and every new one, until it is healed.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.cut = true;
            state.era += 1;
        });
    }

    /// Carries nothing any more, as a network that swallows packets, until it is healed: connections stay open, and go on then.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.stalled = true);
    }

    /// Carries everything again.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            (state.cut, state.stalled, state.latency) = (false, false, Duration::ZERO);
        });
    }

    /// Leads to these servers from now on; connections to others end.
    pub fn point_at(&self, servers: &[SocketAddr]) {
        self.state.send_modify(|state| {
            state.servers = servers.into();
            state.era += 1;
        });
    }
}

async fn carry(client: TcpStream, mut state: watch::Receiver<State>, turn: usize) {
    let born = state.borrow_and_update().era;
    let mut ended = state.clone();
    let over = async move { drop(ended.wait_for(|state| state.era != born || state.cut).await) };
    let carried = async move {
        // A server that is away looks to the client as it would without the link: the connection ends.
        let Some(server) = connect(&mut state, turn).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((client_read, client_write), (server_read, server_write)) = (split(client), split(server));
        tokio::select! {
            () = forward(client_read, server_write, state.clone()) => {}
            () = forward(server_read, client_write, state) => {}
        }
    };
    tokio::select! {
        () = over => {}
        () = carried => {}
    }
}

/// Connects to the next server that takes the connection.
async fn connect(state: &mut watch::Receiver<State>, turn: usize) -> Option<TcpStream> {
    let servers = state.wait_for(|state| !state.stalled).await.ok()?.servers.clone();
    for step in 0..servers.len() {
        if let Ok(server) = TcpStream::connect(servers[(turn + step) % servers.len()]).await {
            return Some(server);
        }
    }
    None
}

/// Forwards until one side ends. Pieces overlap on the way: latency does not limit how much is carried.
async fn forward(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: watch::Receiver<State>,
) {
    let (depart, mut arrive) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let mut weather = state.clone();
    let send = async move {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        while from.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
            let due = Instant::now() + state.borrow().latency;
            if depart.send((due, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    };
    let receive = async {
        while let Some((due, bytes)) = arrive.recv().await {
            sleep_until(due).await;
            if weather.wait_for(|state| !state.stalled).await.is_err() || to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(send, receive);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{Connection, get},
        upstream::Upstream,
    };

    #[tokio::test]
    async fn what_is_carried_arrives_whole_and_late() {
        let latency = Duration::from_millis(20);
        let upstream = Upstream::start("far").await.unwrap();
        let link = Link::slow(upstream.address, latency).await.unwrap();
        let mut connection = Connection::open(link.address).await.unwrap();
        let begun = Instant::now();
        assert_eq!(connection.send(get("far", "/")).await.unwrap().header("x-upstream"), "far");
        assert!(begun.elapsed() >= 2 * latency);
    }

    #[tokio::test]
    async fn what_is_cut_ends_and_what_is_stalled_goes_on() {
        let upstreams = [Upstream::start("one").await.unwrap(), Upstream::start("two").await.unwrap()];
        let link = Link::to(&upstreams.each_ref().map(|upstream| upstream.address)).await.unwrap();
        let who = async |connection: &mut Connection| {
            connection.send(get("far", "/")).await.map(|response| response.header("x-upstream").to_owned())
        };
        let mut first = Connection::open(link.address).await.unwrap();
        let mut second = Connection::open(link.address).await.unwrap();
        assert_eq!((who(&mut first).await.unwrap(), who(&mut second).await.unwrap()), ("one".into(), "two".into()));

        link.stall();
        let late = tokio::time::timeout(Duration::from_millis(100), who(&mut first)).await;
        assert!(late.is_err(), "{late:?}");
        link.heal();
        assert_eq!(who(&mut second).await.unwrap(), "two", "it was not ended");

        link.cut();
        assert!(who(&mut second).await.is_err());
        link.heal();
        drop(upstreams);
        let third = Upstream::start("three").await.unwrap();
        assert!(who(&mut second).await.is_err());
        link.point_at(&[upstreams_gone(), third.address]);
        assert_eq!(who(&mut Connection::open(link.address).await.unwrap()).await.unwrap(), "three");
    }

    /// Where nobody listens.
    fn upstreams_gone() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, crate::port::free_port()))
    }
}
