//! A service of a protocol that no proxy knows and in which the server speaks first. Both ends see whether all that was sent has
//! arrived, once and in order.
//!
//! The server says its name, a hash and the many bytes of which it is the hash. The client says whatever it likes and closes its half of
//! the connection; then the server answers with the hash of what it heard, and is done.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::wait::PATIENCE;

/// How much the server says first: more than fits into the buffers on its way.
const GREETING: usize = 3_000_000;

/// A server on a port of its own. Dropping it closes the port and every connection.
#[derive(Debug)]
pub struct Speaker {
    /// Where it listens.
    pub address: SocketAddr,
    _acceptor: JoinSet<()>,
}

impl Speaker {
    /// Starts one on a free port of the loopback interface.
    pub async fn start(name: &'static str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let mut acceptor = JoinSet::new();
        acceptor.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                // A client that is gone before it was accepted is no reason to stop.
                let Ok((stream, _)) = listener.accept().await else { continue };
                // Whether all went well, its client sees.
                connections.spawn(async move { drop(serve(stream, name).await) });
            }
        });
        Ok(Self { address, _acceptor: acceptor })
    }
}

async fn serve(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let greeting = bytes(name.len(), GREETING);
    stream.write_all(format!("{name} {}\n", hash(&greeting)).as_bytes()).await?;
    stream.write_all(&greeting).await?;
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await?;
    stream.write_all(hash(&heard).as_bytes()).await
}

/// A connection to a [`Speaker`], which has said what it says first.
#[derive(Debug)]
pub struct Talk {
    /// Who is at the other end.
    pub with: String,
    stream: BufReader<TcpStream>,
    said: Vec<u8>,
}

impl Talk {
    /// Connects, and hears the greeting.
    ///
    /// # Errors
    /// It does not come whole, or not in time.
    pub async fn begin(address: SocketAddr) -> Result<Self> {
        let begin = async {
            let mut stream = BufReader::new(TcpStream::connect(address).await?);
            let (mut line, mut greeting) = (String::new(), vec![0; GREETING]);
            stream.read_line(&mut line).await?;
            let (with, expected) = line.trim_end().split_once(' ').context("no greeting comes")?;
            stream.read_exact(&mut greeting).await.context("the greeting breaks off")?;
            ensure!(hash(&greeting) == expected, "the greeting of {with} is another one");
            Ok(Self { with: with.to_owned(), stream, said: Vec::new() })
        };
        timeout(PATIENCE, begin).await.context("no greeting in time")?
    }

    /// Says so many bytes.
    ///
    /// # Errors
    /// Nobody takes them.
    pub async fn say(&mut self, length: usize) -> Result<()> {
        let said = bytes(self.said.len(), length);
        timeout(PATIENCE, self.stream.write_all(&said)).await.context("nobody listens")??;
        self.said.extend(said);
        Ok(())
    }

    /// Is done with saying, and hears the answer to its end.
    ///
    /// # Errors
    /// The server has heard something else, or does not say what.
    pub async fn end(mut self) -> Result<()> {
        let end = async {
            self.stream.shutdown().await?;
            let mut answer = String::new();
            self.stream.read_to_string(&mut answer).await?;
            ensure!(answer == hash(&self.said), "{} has heard something else: {answer:?}", self.with);
            Ok(())
        };
        timeout(PATIENCE, end).await.context("no answer in time")?
    }
}

/// Bytes of which no two places are alike, so that what is missing or doubled shows.
fn bytes(seed: usize, length: usize) -> Vec<u8> {
    (seed..seed + length).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

fn hash(bytes: &[u8]) -> String {
    format!("{:016x}", xxh3_64(bytes))
}
