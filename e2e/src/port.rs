//! Ports that are free now, for what has to be told its port: an Envoy listener cannot take port 0.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, TcpListener},
    sync::Mutex,
};

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port on the loopback interface that nobody listens on, and that this process was not given before.
///
/// Another process may take it first; what binds it then fails, and says so.
///
/// # Panics
/// When the system has no port left.
pub fn free_port() -> u16 {
    loop {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on 127.0.0.1");
        let port = socket.local_addr().expect("a bound socket has an address").port();
        if GIVEN.lock().expect("no thread panics while it holds this").insert(port) {
            return port;
        }
    }
}
