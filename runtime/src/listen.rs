//! A TCP port that several threads listen on, each with a socket of its own.
//!
//! With `SO_REUSEPORT` the system spreads connections over the sockets, so that threads share
//! neither a queue nor a lock. A single socket is bound without it: another process of the same user could otherwise join
//! the port by mistake, and take a share of its connections.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the system completes before they are accepted.
const BACKLOG: i32 = 4096;

/// `count` sockets (at least one) that listen on `address`, for as many threads. Port 0 is chosen once, for all of them.
///
/// They do not block, as `tokio::net::TcpListener::from_std` wants it.
///
/// # Errors
/// The address cannot be listened on.
pub fn bind_shared(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    let shared = count > 1;
    let first = bind(address, shared)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    while sockets.len() < count {
        sockets.push(bind(address, shared)?);
    }
    Ok(sockets)
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' last packets.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_share_a_port_that_nobody_else_can_take() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = bind_shared(local, 3).unwrap();
        let address = sockets[0].local_addr().unwrap();
        assert_ne!(address.port(), 0);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(bind_shared(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);

        let alone = bind_shared(local, 1).unwrap();
        let taken = alone[0].local_addr().unwrap();
        assert_eq!(bind_shared(taken, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
