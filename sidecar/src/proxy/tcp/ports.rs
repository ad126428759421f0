//! The ports to which the application makes connections that are carried as they are. One is opened when its listener comes, and
//! closed when it goes; connections that are open then go on to their end.
//!
//! Only listeners that the sidecar was told to take on have a port. Its fleet's other proxies have the same listeners, and may
//! stand on the same host.
//!
//! A port that cannot be opened, since somebody else has it, is tried again with every look.

use std::{io, net::SocketAddr, sync::Arc};

use chancery_runtime::Shutdown;
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Handle,
};
use tokio_util::sync::CancellationToken;

use super::Tcp;
use crate::{
    config::tcp::TcpPort,
    proxy::accept::{AcceptLimits, Port, PortEnd},
};

/// Connections that wait until they are accepted.
const BACKLOG: u32 = 1024;

/// The ports of a sidecar.
pub struct Ports {
    tcp: Arc<Tcp>,
    limits: AcceptLimits,
    end: PortEnd,
    /// Owns those that serve.
    shutdown: Shutdown,
    /// Where they do.
    runtime: Handle,
    ports: Mutex<Vec<(TcpPort, Standing)>>,
}

/// How it stands with a port.
#[derive(Clone, Debug)]
pub enum Standing {
    /// There is no such listener, or none that carries TCP and says where.
    Absent,
    /// It is open.
    Open {
        /// Where it was to be opened.
        asked: SocketAddr,
        /// Where it is.
        at: SocketAddr,
        /// Closes it.
        retire: CancellationToken,
    },
    /// It cannot be opened.
    Failed {
        /// Where.
        at: SocketAddr,
        /// Why.
        reason: String,
    },
}

impl Ports {
    /// Of the listeners in `wanted`, none of which is open yet. They end together, as `end` says, and serve on the runtime of whoever
    /// calls this.
    pub fn new(tcp: Arc<Tcp>, wanted: Vec<TcpPort>, limits: AcceptLimits, end: PortEnd, shutdown: Shutdown) -> Self {
        let ports = wanted.into_iter().map(|port| (port, Standing::Absent)).collect();
        Self { tcp, limits, end, shutdown, runtime: Handle::current(), ports: Mutex::new(ports) }
    }

    /// Opens and closes what the configuration of the moment says. To be called when that has changed, and every second or so.
    pub fn follow(&self) {
        let mut ports = self.ports.lock();
        // Under the lock, so that of two who look the later one sees the newer.
        let world = self.tcp.world.load();
        for (port, standing) in &mut *ports {
            let proxy = world.snapshot.tcp.get(&port.listener);
            let wanted = proxy.and_then(|proxy| port.address.or(proxy.address));
            let next = match (&*standing, wanted) {
                (Standing::Open { asked, .. }, Some(at)) if *asked == at => continue,
                (Standing::Absent, None) => continue,
                (_, Some(at)) => self.opened(&port.listener, at),
                (_, None) => Standing::Absent,
            };
            tell(&port.listener, standing, &next);
            if let Standing::Open { retire, .. } = std::mem::replace(standing, next) {
                retire.cancel();
            }
        }
    }

    /// Each, and how it stands with it.
    pub fn shown(&self) -> Vec<(TcpPort, Standing)> {
        self.ports.lock().clone()
    }

    fn opened(&self, listener: &Arc<str>, asked: SocketAddr) -> Standing {
        match self.open(listener, asked) {
            Ok((at, retire)) => Standing::Open { asked, at, retire },
            Err(error) => Standing::Failed { at: asked, reason: error.to_string() },
        }
    }

    fn open(&self, listener: &Arc<str>, asked: SocketAddr) -> io::Result<(SocketAddr, CancellationToken)> {
        let _on = self.runtime.enter();
        let port = Port::new(listen(asked)?, None, self.limits).ending(self.end.clone());
        let (at, retire) = (port.address()?, port.retire.clone());
        let (tcp, listener) = (self.tcp.clone(), listener.clone());
        let serving = port.each(move |stream, _| tcp.clone().carry(listener.clone(), stream));
        self.shutdown.spawn("a port of TCP", serving);
        Ok((at, retire))
    }
}

/// At once, unlike [`TcpListener::bind`], which may have to look up a name.
fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = if at.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections to a port that was closed may still be open.
    socket.set_reuseaddr(true)?;
    socket.bind(at)?;
    socket.listen(BACKLOG)
}

fn tell(listener: &str, before: &Standing, now: &Standing) {
    match (before, now) {
        (_, Standing::Open { at, .. }) => tracing::info!(listener, address = %at, "a listener is carried"),
        (_, Standing::Absent) => tracing::info!(listener, "a listener is carried no more"),
        // It is tried again and again.
        (Standing::Failed { at: before, .. }, Standing::Failed { at, .. }) if before == at => {}
        (_, Standing::Failed { at, reason }) => {
            tracing::warn!(listener, address = %at, reason, "a listener cannot be carried; another address may be said with --tcp-listener");
        }
    }
}
