//! A way to a Redis that takes time, as a network does: each byte comes on so much later, in order.
//!
//! Threads and not tasks: the timers of the runtime are a millisecond coarse, and what is tested would wait for them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Chunks that may be on their way in one direction.
const ON_THE_WAY: usize = 65_536;

/// A port that leads to another one.
pub(crate) struct Far {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    each_way: AtomicU64,
    asked: AtomicU64,
    ended: AtomicBool,
}

impl Far {
    /// A way to `port` that takes `each_way`.
    pub(crate) fn from(port: u16, each_way: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let far = Self { address: listener.local_addr().unwrap(), shared: Arc::default() };
        far.moves(each_way);
        let shared = far.shared.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                if shared.ended.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(near), Ok(far)) = (near, TcpStream::connect((Ipv4Addr::LOCALHOST, port))) else { continue };
                carry(near.try_clone().unwrap(), far.try_clone().unwrap(), shared.clone(), true);
                carry(far, near, shared.clone(), false);
            }
        });
        far
    }

    /// From now on it takes `each_way`.
    pub(crate) fn moves(&self, each_way: Duration) {
        self.shared.each_way.store(each_way.as_nanos() as u64, Ordering::SeqCst);
    }

    /// How often something was sent towards Redis.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, shared: Arc<Shared>, towards: bool) {
    to.set_nodelay(true).unwrap();
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(ON_THE_WAY);
    thread::spawn(move || {
        let mut chunk = [0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            shared.asked.fetch_add(u64::from(towards), Ordering::SeqCst);
            let arrives = Instant::now() + Duration::from_nanos(shared.each_way.load(Ordering::SeqCst));
            if sender.send((arrives, chunk[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (arrives, chunk) in receiver {
            loop {
                let early = arrives.saturating_duration_since(Instant::now());
                if early.is_zero() {
                    break;
                }
                thread::park_timeout(early);
            }
            if to.write_all(&chunk).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
