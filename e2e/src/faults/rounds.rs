//! One round of each fault.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use chancery_proto::{
    Message as _,
    envoy::{core::Node, discovery::DeltaDiscoveryRequest},
};
use h2::client::SendRequest;
use tokio::{
    net::TcpSocket,
    time::{sleep_until, timeout},
};
use tonic::Code;

use super::{Culprits, Fault, Record, id};
use crate::scripted::{
    script::{Envelope, TYPES, acknowledge, framed, node, read, reject},
    stream::{Connection, Stream, WINDOW, shake_hands},
};

/// What a slow reader lets the server send, in bytes.
const NARROW: u32 = 1000;

/// The receive buffer that a deaf socket asks the system for, in bytes.
const DEAF_BUFFER: u32 = 4096;

/// How many streams a stampede opens in one round.
const STAMPEDE: usize = 100;

/// Names that there are not, of which a liar says that it has them, and asks for them.
const LIES: usize = 1000;

/// How long a client that leaves in order waits for the connection to end.
const PARTING: Duration = Duration::from_secs(5);

impl Culprits {
    /// Does it once as client `number`, or for as long as it is let.
    pub(super) async fn round(&self, fault: Fault, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        match fault {
            Fault::SlowReader => self.slow_reader(number, xds, record).await,
            Fault::Deaf => self.deaf(number, xds, record).await,
            Fault::Reconnects => self.reconnect(number, xds, record).await,
            Fault::Stampede => self.stampede(number, xds, record).await,
            Fault::Refused => self.refused(number, xds, record).await,
            Fault::Nacks => self.nacks(number, xds, false, record).await,
            Fault::NackLoop => self.nacks(number, xds, true, record).await,
            Fault::Liar => self.lie(number, xds, record).await,
        }
    }

    async fn connect(&self, number: usize, xds: SocketAddr, window: u32) -> Result<Connection> {
        shake_hands(self.own.connect(xds, Some(number)).await?, window).await
    }

    /// Asks for everything at once.
    fn ask_all(&self, stream: &mut Stream, number: usize) -> Result<()> {
        let node = node(&id(number));
        (0..TYPES.len()).try_for_each(|at| stream.say(self.script.request(at, (at == 0).then_some(&node))))
    }

    async fn slow_reader(&self, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        let connection = self.connect(number, xds, NARROW).await?;
        talk(connection, async |requests| {
            let mut stream = Stream::open(requests).await?;
            self.ask_all(&mut stream, number)?;
            record.round();
            std::future::pending().await
        })
        .await
    }

    async fn deaf(&self, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(DEAF_BUFFER)?;
        let stream = self.own.connect_over(socket.connect(xds).await?, Some(number)).await?;
        let (requests, driver) = shake_hands(stream, WINDOW).await?;
        let mut driver = pin!(driver);
        let asked = async {
            let mut stream = Stream::open(requests).await?;
            self.ask_all(&mut stream, number)?;
            // It has heard something, so all that it said has gone out.
            stream.next(&record.received).await?;
            anyhow::Ok(stream)
        };
        let _stream = tokio::select! {
            stream = asked => stream?,
            _ = driver.as_mut() => bail!("the server closed the connection"),
        };
        record.round();
        // The driver is there, and is not polled.
        std::future::pending().await
    }

    async fn reconnect(&self, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        let (requests, driver) = self.connect(number, xds, WINDOW).await?;
        let mut driver = pin!(driver);
        let served = async {
            let mut stream = Stream::open(requests).await?;
            stream.say(self.script.request(0, Some(&node(&id(number)))))?;
            let response = stream.next(&record.received).await?.context("it was not served")?;
            stream.say(acknowledge(&Envelope::decode(response)?))
        };
        tokio::select! {
            served = served => served?,
            _ = driver.as_mut() => bail!("the server closed the connection"),
        }
        let in_order = record.rounds.load(Ordering::Relaxed).is_multiple_of(2);
        if in_order {
            // It ends when nothing is left that could be said on it.
            timeout(PARTING, driver).await.context("the connection does not end")??;
        }
        Ok(())
    }

    async fn stampede(&self, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        let connection = self.connect(number, xds, WINDOW).await?;
        talk(connection, async |requests| {
            for _ in 0..STAMPEDE {
                let mut stream = Stream::open(requests.clone()).await?;
                stream.say(self.script.request(0, Some(&node(&id(number)))))?;
                // Served or put off, it opens the next.
                stream.next(&record.received).await?;
                record.round();
            }
            Ok(())
        })
        .await
    }

    async fn refused(&self, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        let me = id(number);
        let claim = |id: &str, fleet: &str| Node { cluster: fleet.to_owned(), ..node(id) };
        let denied = async |connection: Connection, claim: Node| {
            let code = talk(connection, async |requests| self.outcome(requests, &claim).await).await?;
            ensure!(code == Code::PermissionDenied, "as {} of {} it got {code:?}", claim.id, claim.cluster);
            Ok(())
        };
        match record.rounds.load(Ordering::Relaxed) % 5 {
            0 => denied(self.connect(number, xds, WINDOW).await?, claim(&me, "another")).await,
            1 => denied(self.connect(number, xds, WINDOW).await?, claim("another", "edge")).await,
            2 => {
                let stream = self.homeless.connect(xds, Some(0)).await?;
                denied(shake_hands(stream, WINDOW).await?, claim(&id(0), "nowhere")).await
            }
            kind => {
                // What the server thinks of a certificate is heard only after the client has done its part.
                let certified = (kind == 3).then_some(0);
                let let_in = async {
                    let stream = self.strangers.connect(xds, certified).await?;
                    let connection = shake_hands(stream, WINDOW).await?;
                    talk(connection, async |requests| self.outcome(requests, &claim(&id(0), "edge")).await).await
                };
                match let_in.await {
                    Ok(code) => bail!("with no certificate to be trusted it got {code:?}"),
                    Err(_) => Ok(()),
                }
            }
        }
    }

    /// How a stream ends that is opened as `claim`.
    async fn outcome(&self, requests: SendRequest<Bytes>, claim: &Node) -> Result<Code> {
        let mut stream = Stream::open(requests).await?;
        stream.say(self.script.request(0, Some(claim)))?;
        stream.end().await
    }

    async fn nacks(&self, number: usize, xds: SocketAddr, asks_again: bool, record: &Record) -> Result<()> {
        let connection = self.connect(number, xds, WINDOW).await?;
        talk(connection, async |requests| {
            let mut stream = Stream::open(requests).await?;
            self.ask_all(&mut stream, number)?;
            loop {
                let message = stream.next(&record.received).await?.context("the server ended the stream")?;
                let mut nack = reject(&Envelope::decode(message.clone())?, "I take nothing");
                stream.say(framed(&nack))?;
                stream.say(framed(&nack))?;
                if asks_again {
                    let response = read(message)?;
                    let names = response.resources.into_iter().map(|resource| resource.name);
                    nack.resource_names_subscribe = names.chain(response.removed_resources).collect();
                }
                stream.say(framed(&nack))?;
                record.round();
            }
        })
        .await
    }

    async fn lie(&self, number: usize, xds: SocketAddr, record: &Record) -> Result<()> {
        let connection = self.connect(number, xds, WINDOW).await?;
        let me = node(&id(number));
        talk(connection, async |requests| {
            let mut stream = Stream::open(requests.clone()).await?;
            for (at, [asked, then @ ..]) in self.lies.iter().enumerate() {
                if at == 0 {
                    let asked = DeltaDiscoveryRequest { node: Some(me.clone()), ..asked_and_held(TYPES[0]) };
                    stream.say(framed(&asked))?;
                } else {
                    stream.say(asked.clone())?;
                }
                for request in then {
                    stream.say(request.clone())?;
                }
            }
            for _ in 0..TYPES.len() {
                let message = stream.next(&record.received).await?.context("the server ended the stream")?;
                let envelope = Envelope::decode(message)?;
                // Both, and both again.
                for _ in 0..2 {
                    stream.say(acknowledge(&envelope))?;
                    stream.say(framed(&reject(&envelope, "I had taken it")))?;
                }
            }
            // Who it is may be said again, and may not change.
            for claim in [me.clone(), Node { id: "another".to_owned(), ..me.clone() }] {
                let (node, type_url) = (Some(claim), TYPES[0].to_owned());
                stream.say(framed(&DeltaDiscoveryRequest { node, type_url, ..DeltaDiscoveryRequest::default() }))?;
            }
            let code = stream.end().await?;
            ensure!(code == Code::InvalidArgument, "the node changed, and it got {code:?}");
            let code = self.outcome(requests, &Node { cluster: "another".to_owned(), ..me.clone() }).await?;
            ensure!(code == Code::PermissionDenied, "it claimed another fleet and got {code:?}");
            Ok(())
        })
        .await
    }
}

/// What a liar says at first, for each type. Made once: the liar shares its cores with those who are not to feel it.
pub(super) fn lies() -> Vec<[Bytes; 4]> {
    let of_type = |type_url: &str| {
        let never_sent =
            |nonce: &str| Envelope { type_url: type_url.to_owned(), nonce: nonce.to_owned(), ..Envelope::default() };
        [
            framed(&asked_and_held(type_url)),
            acknowledge(&never_sent("18446744073709551616")),
            framed(&reject(&never_sent("no number"), "I never got it")),
            framed(&DeltaDiscoveryRequest {
                type_url: type_url.to_owned(),
                resource_names_unsubscribe: invented("never-asked").collect(),
                ..DeltaDiscoveryRequest::default()
            }),
        ]
    };
    TYPES.iter().map(|type_url| of_type(type_url)).collect()
}

/// Asks for everything and for what there is not, and says that it has what never was.
fn asked_and_held(type_url: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: type_url.to_owned(),
        resource_names_subscribe: std::iter::once("*".to_owned()).chain(invented("asked")).collect(),
        initial_resource_versions: invented("held").map(|name| (name, "a-version-never-made".to_owned())).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn invented(what: &str) -> impl Iterator<Item = String> {
    (0..LIES).map(move |name| format!("{what}-{name}"))
}

/// Does something on a connection, and then drops it without a word.
async fn talk<T>(connection: Connection, act: impl AsyncFnOnce(SendRequest<Bytes>) -> Result<T>) -> Result<T> {
    let (requests, driver) = connection;
    let mut act = pin!(act(requests));
    let ended = tokio::select! {
        done = act.as_mut() => return done,
        ended = driver => ended,
    };
    // What came before the end may not have been read yet.
    let rest = sleep_until((Instant::now() + PARTING).into());
    tokio::select! {
        done = act => done,
        () = rest => Err(ended.err().map_or_else(|| anyhow::anyhow!("the server closed the connection"), Into::into)),
    }
}
