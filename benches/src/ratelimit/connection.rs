//! One HTTP/2 connection of the load: what is under way on it, what may be sent, what an answer says.
//!
//! Of an answer only the first field is looked at, the verdict; whether the rest is right is asked of each server with
//! [`Connection::ask`] once the load is over.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use chancery_proto::{
    Message as _,
    envoy::rls::{RateLimitRequest, RateLimitResponse, rate_limit_response::Code},
};

use super::{
    frames::{self, Frame, Inbox, PREFACE, flag, kind, setting},
    requests::{Cursor, Requests, Spelling, grpc, header_block},
};

/// A server that is silent for so long has failed.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// Streams that can be under way before the oldest has to be answered; a power of two.
const FLIGHTS: usize = 8192;

/// A header table of this size is what HTTP/2 starts with, and more than our headers need.
const TABLE: u32 = 4096;

/// What a connection may receive before it has to say that it took it: as much as there can be.
const WINDOW: u32 = (1 << 31) - 1;

/// What HTTP/2 starts with.
const FIRST_WINDOW: u32 = 65_535;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Admitted,
    Refused,
    /// No message, or one without a verdict.
    Failed,
}

/// A request that is under way.
#[derive(Clone, Copy)]
struct Flight {
    /// 0: none.
    stream: u32,
    since: Instant,
    received: u32,
    code: u8,
}

impl Flight {
    /// Takes a part of the message: five bytes of gRPC's, then field 1, if it is not 0, then the rest.
    fn take(&mut self, part: &[u8]) {
        let wanted = |at: u32| at.checked_sub(self.received).and_then(|at| part.get(at as usize)).copied();
        if wanted(5).is_some_and(|tag| tag != 0x08) {
            self.code = u8::MAX;
        } else if let (Some(code), 0) = (wanted(6), self.code) {
            self.code = code;
        }
        self.received += u32::try_from(part.len()).unwrap_or(u32::MAX);
    }

    fn answer(&self) -> Answer {
        match i32::from(self.code) {
            code if code == Code::Ok as i32 => Answer::Admitted,
            code if code == Code::OverLimit as i32 => Answer::Refused,
            _ => Answer::Failed,
        }
    }
}

/// What a server allows, from its first frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowed {
    /// Whether it remembers headers.
    pub(super) remembers: bool,
    most_streams: usize,
}

/// The sending half, and what is under way.
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) allowed: Allowed,
    out: Vec<u8>,
    next_stream: u32,
    told_headers: bool,
    credit: i64,
    taken: u32,
    flights: Box<[Flight]>,
    in_flight: usize,
}

impl Connection {
    /// Connects, and waits for the server's settings.
    pub(super) fn open(to: SocketAddr) -> Result<(Self, Inbox)> {
        let mut stream = TcpStream::connect(to).with_context(|| format!("nobody listens on {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let mut out = PREFACE.to_vec();
        let no_push = [&setting::ENABLE_PUSH.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
        frames::append(&mut out, kind::SETTINGS, 0, 0, &no_push);
        frames::append(&mut out, kind::WINDOW_UPDATE, 0, 0, &(WINDOW - FIRST_WINDOW).to_be_bytes());
        stream.write_all(&out)?;
        out.clear();

        let none = Flight { stream: 0, since: Instant::now(), received: 0, code: 0 };
        let mut connection = Self {
            stream,
            allowed: Allowed { remembers: true, most_streams: FLIGHTS / 2 },
            out,
            next_stream: 1,
            told_headers: false,
            credit: FIRST_WINDOW.into(),
            taken: 0,
            flights: vec![none; FLIGHTS].into(),
            in_flight: 0,
        };
        let mut inbox = Inbox::new();
        let mut settled = false;
        while !settled {
            inbox.fill(&connection.stream).context("the server accepts, but sends nothing")?;
            while let Some(frame) = inbox.next() {
                settled |= frame.kind == kind::SETTINGS && !frame.has(flag::ACK);
                connection.control(&frame)?;
            }
        }
        connection.flush()?;
        Ok((connection, inbox))
    }

    /// Another handle of the socket, to read from.
    pub(super) fn reader(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// How many requests are under way.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the server has room for one more.
    pub(super) fn has_room(&self, requests: &Requests) -> bool {
        self.in_flight < self.allowed.most_streams && self.credit >= requests.weight().into()
    }

    /// Puts one request into what [`Self::flush`] sends, with the time its latency runs from.
    pub(super) fn send(&mut self, requests: &Requests, cursor: &mut Cursor, since: Instant) -> Result<()> {
        let stream = self.next_stream;
        let place = flight_of(stream);
        ensure!(self.flights[place].stream == 0, "the server left a request behind that {FLIGHTS} others overtook");
        requests.append(&mut self.out, stream, !self.told_headers, cursor);
        self.told_headers = true;
        self.credit -= i64::from(requests.weight());
        self.next_stream += 2;
        self.in_flight += 1;
        self.flights[place] = Flight { stream, since, received: 0, code: 0 };
        Ok(())
    }

    /// Sends what there is to send.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Takes a frame in; one that ends a request gives its answer, and the time it runs from.
    pub(super) fn take(&mut self, frame: &Frame<'_>) -> Result<Option<(Answer, Instant)>> {
        if !matches!(frame.kind, kind::DATA | kind::HEADERS | kind::RST_STREAM) {
            self.control(frame)?;
            return Ok(None);
        }
        let flight = &mut self.flights[flight_of(frame.stream)];
        ensure!(flight.stream == frame.stream, "an answer to request {}, which is not under way", frame.stream);
        let mut ended = frame.has(flag::END_STREAM);
        match frame.kind {
            kind::DATA => {
                ensure!(!frame.has(flag::PADDED), "padding, which nobody here sends");
                flight.take(frame.payload);
                self.taken += u32::try_from(frame.payload.len())?;
            }
            kind::RST_STREAM => {
                // NO_ERROR after a whole answer is how a server says that it needs no more of the request.
                ended = true;
            }
            _ => {}
        }
        let answer = ended.then(|| (flight.answer(), flight.since));
        if ended {
            flight.stream = 0;
            self.in_flight -= 1;
        }
        if self.taken > WINDOW / 4 {
            frames::append(&mut self.out, kind::WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
            self.taken = 0;
        }
        Ok(answer)
    }

    /// What concerns the connection and no request.
    fn control(&mut self, frame: &Frame<'_>) -> Result<()> {
        match frame.kind {
            kind::SETTINGS if !frame.has(flag::ACK) => {
                for (name, value) in frame.settings() {
                    match name {
                        setting::HEADER_TABLE_SIZE => self.allowed.remembers = value >= TABLE,
                        setting::MAX_CONCURRENT_STREAMS => {
                            self.allowed.most_streams = (FLIGHTS / 2).min(value as usize);
                        }
                        _ => {}
                    }
                }
                frames::append(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
            }
            kind::PING if !frame.has(flag::ACK) => {
                frames::append(&mut self.out, kind::PING, flag::ACK, 0, frame.payload);
            }
            // A request is far shorter than a stream's own window, which therefore does not matter.
            kind::WINDOW_UPDATE if frame.stream == 0 => self.credit += i64::from(frame.number().unwrap_or(0)),
            kind::GOAWAY => bail!("the server wants no more of this connection: {}", frame.payload.escape_ascii()),
            _ => {}
        }
        Ok(())
    }

    /// Asks one thing and waits for the whole answer. Nothing else may be under way.
    pub(super) fn ask(&mut self, inbox: &mut Inbox, request: &RateLimitRequest) -> Result<RateLimitResponse> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let headers = header_block(AUTHORITY, Spelling::Forget);
        let message = grpc(request);
        self.credit -= i64::try_from(message.len())?;
        frames::append(&mut self.out, kind::HEADERS, flag::END_HEADERS, stream, &headers);
        frames::append(&mut self.out, kind::DATA, flag::END_STREAM, stream, &message);
        let (mut answer, mut ended) = (Vec::new(), false);
        while !ended {
            self.flush()?;
            inbox.fill(&self.stream).context("no answer")?;
            while let Some(frame) = inbox.next() {
                match frame.kind {
                    kind::DATA => answer.extend_from_slice(frame.payload),
                    kind::HEADERS => {}
                    kind::RST_STREAM => bail!("the server reset the request"),
                    _ => {
                        self.control(&frame)?;
                        continue;
                    }
                }
                ended = frame.has(flag::END_STREAM);
            }
        }
        let message = answer.get(5..).context("an error instead of a message")?;
        RateLimitResponse::decode(message).context("not a RateLimitResponse")
    }
}

/// Whom every request names.
pub(super) const AUTHORITY: &str = "ratelimit";

fn flight_of(stream: u32) -> usize {
    (stream / 2) as usize % FLIGHTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(parts: &[&[u8]]) -> Answer {
        let mut flight = Flight { stream: 1, since: Instant::now(), received: 0, code: 0 };
        parts.iter().for_each(|part| flight.take(part));
        flight.answer()
    }

    #[test]
    fn the_verdict_is_read_however_the_message_is_cut() {
        assert_eq!(verdict(&[&[0, 0, 0, 0, 2, 8, 1]]), Answer::Admitted);
        assert_eq!(verdict(&[&[0, 0, 0, 0, 4, 8, 2, 18, 0]]), Answer::Refused);
        assert_eq!(verdict(&[&[0, 0, 0, 0, 4], &[8, 2, 18, 0]]), Answer::Refused);
        assert_eq!(verdict(&[&[0, 0, 0, 0, 4, 8], &[2, 18], &[0, 8, 1, 1, 1]]), Answer::Refused);
        assert_eq!(verdict(&[&[0, 0, 0, 0, 2, 18, 1]]), Answer::Failed, "no verdict");
        assert_eq!(verdict(&[]), Answer::Failed, "no message");
    }
}
