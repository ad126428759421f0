//! A network between two programs on this machine: bytes take their time.
//!
//! On loopback an update is applied before the next one is written, so nothing ever has to be put in order. Over a
//! link with latency, changes pile up while an acknowledgement is on its way, as they do in production.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, split},
    net::{TcpListener, TcpStream},
    sync::mpsc,
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
    // Aborts the acceptor, which owns the connections.
    _acceptor: JoinSet<()>,
}

impl Link {
    /// A link to `server` over which everything takes `latency` in each direction.
    pub async fn slow(server: SocketAddr, latency: Duration) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut acceptor = JoinSet::new();
        acceptor.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, server, latency));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _acceptor: acceptor })
    }
}

async fn carry(client: TcpStream, server: SocketAddr, latency: Duration) {
    // A server that is away looks to the client as it would without the link: the connection ends.
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((client_read, client_write), (server_read, server_write)) = (split(client), split(server));
    tokio::select! {
        () = forward(client_read, server_write, latency) => {}
        () = forward(server_read, client_write, latency) => {}
    }
}

/// Forwards until one side ends. Pieces overlap on the way: latency does not limit how much is carried.
async fn forward(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, latency: Duration) {
    let (depart, mut arrive) = mpsc::channel::<(Instant, Bytes)>(UNDER_WAY);
    let send = async move {
        let mut buffer = BytesMut::with_capacity(64 << 10);
        while from.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
            if depart.send((Instant::now() + latency, buffer.split().freeze())).await.is_err() {
                return;
            }
        }
    };
    let receive = async {
        while let Some((due, bytes)) = arrive.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
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
}
