//! A name server that knows one address, says so or not.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use anyhow::Result;
use tokio::{net::UdpSocket, task::JoinSet};

/// How it answers questions about any name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Answers {
    /// It is on the loopback interface, for the next second.
    Address,
    /// Not at all.
    Nothing,
    /// There is no such name.
    NoSuchName,
}

/// The server, on port 53. Dropping it closes the port.
#[derive(Debug)]
pub struct NameServer {
    /// Its address.
    pub address: Ipv4Addr,
    answers: Arc<AtomicU8>,
    asked: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl NameServer {
    /// Starts one at an address of its own on the loopback interface; only root may.
    pub async fn start() -> Result<Self> {
        let [high, low] = crate::port::free_port().to_be_bytes();
        let address = Ipv4Addr::new(127, 53, high, low.max(1));
        let socket = UdpSocket::bind(SocketAddr::from((address, 53))).await?;
        let (answers, asked) = (Arc::new(AtomicU8::new(Answers::Address as u8)), Arc::<AtomicU64>::default());
        let mut task = JoinSet::new();
        {
            let (answers, asked) = (answers.clone(), asked.clone());
            task.spawn(async move {
                let mut query = [0; 512];
                loop {
                    let Ok((length, from)) = socket.recv_from(&mut query).await else { continue };
                    asked.fetch_add(1, Relaxed);
                    if let Some(answer) = answer(&query[..length], answers.load(Relaxed)) {
                        let _ = socket.send_to(&answer, from).await;
                    }
                }
            });
        }
        Ok(Self { address, answers, asked, _task: task })
    }

    /// Answers so from now on.
    pub fn answer(&self, how: Answers) {
        self.answers.store(how as u8, Relaxed);
    }

    /// How many questions it got.
    pub fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }
}

/// The message that answers `query` (RFC 1035, section 4), if there is one.
fn answer(query: &[u8], how: u8) -> Option<Vec<u8>> {
    const HEADER: usize = 12;
    const ADDRESS: [u8; 2] = [0, 1];
    if how == Answers::Nothing as u8 || query.len() < HEADER {
        return None;
    }
    let name = query[HEADER..].iter().position(|byte| *byte == 0)? + HEADER + 1;
    let question = query.get(HEADER..name + 4)?;
    let found = how == Answers::Address as u8 && query.get(name..name + 2)? == ADDRESS;
    let code = if how == Answers::NoSuchName as u8 { 3 } else { 0 };
    let mut message = query[..2].to_vec();
    // An answer, recursion asked for and to be had; one question, perhaps one answer, nothing else.
    message.extend([0x81, 0x80 | code, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
    message.extend(question);
    if found {
        // The name of the question, an address, of the Internet, for a second, four bytes.
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
    }
    Some(message)
}
