//! A way to a Redis that takes time, as a network does: each byte comes on so much later, in order.
//!
//! Threads and not tasks: the timers of the runtime are a millisecond coarse, and what is tested would wait for them.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
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
    there: AtomicU64,
    back: AtomicU64,
    asked: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
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
                shared.open.lock().unwrap().push(near.try_clone().unwrap());
                carry(near.try_clone().unwrap(), far.try_clone().unwrap(), shared.clone(), true);
                carry(far, near, shared.clone(), false);
            }
        });
        far
    }

    /// From now on it takes `each_way`.
    pub(crate) fn moves(&self, each_way: Duration) {
        self.shared.there.store(each_way.as_nanos() as u64, Ordering::SeqCst);
        self.answers_after(each_way);
    }

    /// From now on it takes so long back, and there what it did.
    pub(crate) fn answers_after(&self, back: Duration) {
        self.shared.back.store(back.as_nanos() as u64, Ordering::SeqCst);
    }

    /// How often something was sent towards Redis.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// Ends all connections; what is on its way is lost.
    pub(crate) fn cut(&self) {
        for open in self.shared.open.lock().unwrap().drain(..) {
            // It may have ended by itself.
            let _ = open.shutdown(Shutdown::Both);
        }
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
            let takes = if towards { &shared.there } else { &shared.back };
            let arrives = Instant::now() + Duration::from_nanos(takes.load(Ordering::SeqCst));
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
