//! Input that is wrong in every way we know: the same answers as tonic's server, and nothing else suffers.

use bytes::Bytes;
use http::Method;
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    raw::{Call, Client, Heard, frame, framed},
    scene::{SERVERS, SOON, Setting, request},
};
use crate::serve::worker::GrpcServer;

/// Calls with their names.
fn calls() -> Vec<(&'static str, Call)> {
    let good = || frame(&request("edge"));
    let message = || prost::Message::encode_to_vec(&request("edge"));
    let with_head = |flag: u8, len: usize, rest: &[u8]| -> Vec<u8> {
        [&[flag], (len as u32).to_be_bytes().as_slice(), rest].concat()
    };
    let mut bad_text = message();
    let at = bad_text.len() - 1;
    bad_text[at] = 0xff;
    let none = |headers: Vec<(&'static str, &'static str)>| Call { headers, ..Call::with(good()) };
    vec![
        ("good", Call::with(good())),
        ("good, in pieces of one byte", Call::with(good()).in_pieces(1)),
        ("good, its head apart", Call::with(good()).in_pieces(5)),
        ("good, with trailers", Call { trailers: true, ..Call::with(good()) }),
        ("good, with an empty last frame", Call { body: vec![good().into(), Bytes::new()], ..Call::with("") }),
        ("GET", Call { method: Method::GET, ..Call::with(good()) }),
        ("OPTIONS", Call { method: Method::OPTIONS, ..Call::with(good()) }),
        ("other content type", none(vec![("content-type", "application/json")])),
        ("no headers", none(vec![])),
        ("with the format", none(vec![("content-type", "application/grpc+proto")])),
        ("no such path", Call::with(good()).path("/nowhere")),
        ("root", Call::with(good()).path("/")),
        ("no such service", Call::with(good()).path("/a.B/ShouldRateLimit")),
        ("no such method", Call::with(good()).path("/envoy.service.ratelimit.v3.RateLimitService/Other")),
        ("with a query", Call::with(good()).path("/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit?a=b")),
        ("compression announced", Call::with(good()).header("grpc-encoding", "gzip")),
        ("no compression announced", Call::with(good()).header("grpc-encoding", "identity")),
        ("unknown compression", Call::with(good()).header("grpc-encoding", "lz4")),
        ("compression accepted", Call::with(good()).header("grpc-accept-encoding", "gzip,identity")),
        ("flagged as compressed", Call::with(with_head(1, message().len(), &message()))),
        ("flagged as who knows what", Call::with(with_head(7, message().len(), &message()))),
        ("no message", Call { body: vec![], ..Call::with("") }),
        ("half a head", Call::with(vec![0, 0, 0])),
        ("half a message", Call::with(good()[..good().len() - 3].to_vec())),
        ("a byte too many", Call::with([good(), vec![0]].concat())),
        ("two messages", Call::with([good(), good()].concat())),
        ("two messages, apart", Call { body: vec![good().into(), good().into()], ..Call::with("") }),
        ("a good message and a bad one", Call::with([good(), framed(&[0xff])].concat())),
        ("too large", Call::with(with_head(0, (4 << 20) + 1, &[]))),
        ("too large by far", Call::with(with_head(0, u32::MAX as usize, &[0; 100]))),
        ("nothing in it", Call::with(framed(&[]))),
        ("no protobuf", Call::with(framed(&[0xff; 40]))),
        ("no protobuf, in pieces", Call::with(framed(&[0xff; 40])).in_pieces(7)),
        ("no text", Call::with(framed(&bad_text))),
        ("a field nobody knows", Call::with(framed(&[message(), vec![0xfa, 0x3f, 1, 0]].concat()))),
        ("a unit that does not exist", Call::with(framed(&[message(), vec![0x12, 4, 0x12, 2, 0x10, 9]].concat()))),
        (
            "a megabyte",
            Call::with(framed(&[message(), [vec![0xfa, 0x3f, 0x80, 0x80, 0x40], vec![0; 1 << 20]].concat()].concat())),
        ),
        ("a timeout that cannot be read", Call::with(good()).header("grpc-timeout", "soon")),
        ("hardly any time", Call::with(good()).header("grpc-timeout", "1S")),
    ]
}

#[tokio::test]
async fn whatever_is_sent_both_servers_answer_alike() {
    let [ours, tonics] = [Setting::of(SERVERS[0]).play().await, Setting::of(SERVERS[1]).play().await];
    let mut ours = Client::connect(ours.address).await;
    let mut tonics = Client::connect(tonics.address).await;
    let mut differ = Vec::new();
    for (name, call) in calls() {
        let (heard, expected) = (ours.call(&call).await, tonics.call(&call).await);
        if heard != expected {
            differ.push(format!("{name}:\n  ours {heard:?}\n  tonic's {expected:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[tokio::test]
async fn statuses_are_those_of_the_protocol() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = Client::connect(scene.address).await;
        let expected = [
            ("good", 0),
            ("good, in pieces of one byte", 0),
            ("no such path", 12),
            ("no such method", 12),
            ("compression announced", 12),
            ("flagged as compressed", 13),
            ("no message", 13),
            ("half a message", 13),
            ("too large", 11),
            ("no protobuf", 13),
            ("nothing in it", 3),
            ("a unit that does not exist", 3),
        ];
        for (name, code) in expected {
            let (_, call) = calls().into_iter().find(|(found, _)| *found == name).unwrap();
            assert_eq!(client.call(&call).await.code(), Some(code), "{name}");
        }
    }
}

/// Any bytes as the body of a call.
#[test]
fn any_body_is_answered_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (scenes, mut clients) = runtime.block_on(async {
        let scenes = [Setting::of(SERVERS[0]).play().await, Setting::of(SERVERS[1]).play().await];
        let clients = [Client::connect(scenes[0].address).await, Client::connect(scenes[1].address).await];
        (scenes, clients)
    });
    let good = frame(&request("edge"));
    let bodies = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        (prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), any::<prop::sample::Index>())
            .prop_map(move |(damage, end)| {
                let mut bytes = good.clone();
                for (at, value) in damage {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                let end = end.index(bytes.len() * 4);
                bytes.truncate(end.max(1));
                bytes
            }),
    ];
    let cases = (bodies, 1..70_usize);
    let clients = std::cell::RefCell::new(&mut clients);
    let outcome =
        TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() }).run(&cases, |(body, piece)| {
            let call = Call::with(body).in_pieces(piece);
            let mut clients = clients.borrow_mut();
            let [ours, tonics] = &mut **clients;
            let (heard, expected) = runtime.block_on(async { (ours.call(&call).await, tonics.call(&call).await) });
            prop_assert_eq!(heard, expected);
            Ok(())
        });
    outcome.unwrap();
    drop(scenes);
}

#[tokio::test]
async fn bytes_that_are_no_http2_end_only_their_own_connection() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let after = |bytes: &[u8]| [preface.as_slice(), &settings, bytes].concat();
    let hostile = [
        b"GET / HTTP/1.1\r\nhost: limiter\r\n\r\n".to_vec(),
        vec![0xff; 1_000],
        after(&[0xff; 1_000]),
        // A frame larger than allowed.
        after(&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]),
        // DATA on a stream that is not open.
        after(&[0, 0, 1, 0, 0, 0, 0, 0, 7, 0]),
        // HEADERS that cannot be decoded.
        after(&[0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]),
        // A window update of nothing.
        after(&[0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = Client::connect(scene.address).await;
        for bytes in &hostile {
            let mut stream = TcpStream::connect(scene.address).await.unwrap();
            // The server may close before it has been told everything.
            let _ = stream.write_all(bytes).await;
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "{server:?} stays connected after {bytes:?}");
            assert_eq!(client.call(&Call::with(frame(&request("edge")))).await.code(), Some(0));
        }
    }
}

#[tokio::test]
async fn what_one_connection_can_pile_up_is_bounded() {
    let scene = Setting::of(GrpcServer::H2).play().await;
    let mut client = Client::connect(scene.address).await;
    let part = [&[0], (4_u32 << 20).to_be_bytes().as_slice(), &vec![0; 7 << 19]].concat();
    let half = Call { ends: false, ..Call::with(part) };
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(client.start(&half).await.unwrap());
    }
    // The fifth is one too many.
    let (response, _stream) = client.start(&half).await.unwrap();
    let heard = tokio::time::timeout(SOON, async { super::raw::hear(response.await).await }).await.unwrap();
    assert_eq!(heard.unwrap().code(), Some(8));
    assert_eq!(client.call(&Call::with(frame(&request("edge")))).await.code(), Some(0));
    drop(open);
    let large = framed(&[vec![0xfa, 0x3f, 0x80, 0x80, 0xc0, 0x01], vec![0; 3 << 20]].concat());
    // What was given up counts no longer.
    let heard = client.call(&Call::with(large)).await;
    assert_eq!(heard.code(), Some(3), "{heard:?}");
    assert_ne!(heard, Heard::Broken);
}
