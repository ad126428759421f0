//! Endpoints in stopped time.

use http_body_util::{BodyExt, StreamBody};
use tokio::time::advance;

use super::*;
use crate::{
    layer::testing::{Frames, watch},
    policy::{deadline::Timeouts, endpoints},
};

fn cluster(endpoints: usize) -> (Arc<Endpoints>, Vec<Host>) {
    let cluster = Endpoints::new(Clock::start(), endpoints::Settings::default());
    let hosts = (0..endpoints).map(|_| Host { id: cluster.insert(), weight: 1, healthy: true }).collect();
    (cluster, hosts)
}

fn ticket(cluster: &Arc<Endpoints>, hosts: &[Host]) -> Ticket {
    cluster.choose(hosts, &Tried::default(), Deadline::NEVER).unwrap()
}

/// Opens the breaker of the first host.
fn open(cluster: &Arc<Endpoints>, hosts: &[Host]) {
    while cluster.standing(hosts[0].id) == Standing::In {
        ticket(cluster, &hosts[..1]).judge(Outcome::http(500), None);
    }
}

fn response(status: u16, headers: &[(&'static str, &str)], body: Frames) -> Result<Response<Frames>, Failed> {
    let mut response = Response::builder().status(status).body(body).unwrap();
    response.headers_mut().extend(crate::layer::testing::headers(headers));
    Ok(response)
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

#[tokio::test(start_paused = true)]
async fn one_that_always_fails_is_left_alone() {
    let (cluster, hosts) = cluster(3);
    let mut failed = 0;
    for _ in 0..300 {
        let ticket = ticket(&cluster, &hosts);
        let status = if ticket.endpoint() == hosts[0].id { 500 } else { 200 };
        failed += u32::from(status == 500);
        watch(ticket, async { response(status, &[], Frames::default()) }).await.unwrap();
    }
    // The first failure costs so much that it is hardly chosen again.
    assert!(failed <= 5, "{failed}");
    open(&cluster, &hosts);
    for _ in 0..50 {
        assert_ne!(ticket(&cluster, &hosts).endpoint(), hosts[0].id);
    }
}

#[tokio::test(start_paused = true)]
async fn one_request_probes_and_traffic_returns() {
    let (cluster, hosts) = cluster(2);
    let answers = |ticket| async {
        // As long as is assumed of who has not answered.
        advance(Duration::from_millis(30)).await;
        watch(ticket, async { response(200, &[], Frames::default()) }).await.unwrap();
    };
    open(&cluster, &hosts);
    advance(Duration::from_millis(1_500)).await;
    answers(ticket(&cluster, &hosts[1..])).await;
    let probe = ticket(&cluster, &hosts);
    assert!(probe.is_probe() && probe.endpoint() == hosts[0].id);
    assert_eq!(ticket(&cluster, &hosts).endpoint(), hosts[1].id, "one probe");
    answers(probe).await;
    let under_way: Vec<_> = (0..100).map(|_| ticket(&cluster, &hosts)).collect();
    let to_the_first = under_way.iter().filter(|ticket| ticket.endpoint() == hosts[0].id).count();
    assert!((40..=60).contains(&to_the_first), "what it cost before is forgotten: {to_the_first} of 100");
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_goes_away_is_given_back() {
    let (cluster, hosts) = cluster(2);
    open(&cluster, &hosts);
    advance(Duration::from_millis(1_500)).await;
    for _ in 0..5 {
        let probe = ticket(&cluster, &hosts);
        assert!(probe.is_probe());
        let waits = watch(probe, std::future::pending::<Result<Response<Frames>, Failed>>());
        assert!(tokio::time::timeout(Duration::from_millis(10), waits).await.is_err());
    }
    assert_eq!(cluster.pending(hosts[0].id), 0);
    watch(ticket(&cluster, &hosts), async { response(200, &[], Frames::default()) }).await.unwrap();
    assert_eq!(cluster.standing(hosts[0].id), Standing::In);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_has_failed_when_the_deadline_comes() {
    for (limit, wait, standing) in [(100, 100, Standing::Out), (100, 99, Standing::In)] {
        let (cluster, hosts) = cluster(2);
        for _ in 0..7 {
            let route = Some(Duration::from_millis(limit));
            let deadline = Deadline::new(cluster.clock.now(), Timeouts { route, ..Timeouts::default() });
            let Some(ticket) = cluster.choose(&hosts[..1], &Tried::default(), deadline) else { break };
            let waits = watch(ticket, std::future::pending::<Result<Response<Frames>, Failed>>());
            assert!(tokio::time::timeout(Duration::from_millis(wait), waits).await.is_err());
        }
        assert_eq!(cluster.standing(hosts[0].id), standing, "after {wait} of {limit} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_grpc_status_counts_wherever_it_is() {
    let bad = &[("grpc-status", "14")];
    for (headers, body, counts) in [
        (vec![GRPC, ("grpc-status", "14")], Frames::default(), true),
        (vec![GRPC], Frames::default().with_trailers(bad), true),
        (vec![GRPC], Frames::of(&["x"]).with_trailers(bad), true),
        (vec![GRPC], Frames::of(&["x", "y"]).with_trailers(bad), false),
        (vec![GRPC], Frames::of(&["x"]).with_trailers(&[("grpc-status", "5")]), false),
        (vec![GRPC], Frames::default(), true),
        (vec![GRPC], Frames::of(&["x"]), true),
        (vec![GRPC], Frames::of(&["x"]).with_trailers(&[]), true),
        (vec![], Frames::default().with_trailers(bad), false),
    ] {
        let (cluster, hosts) = cluster(2);
        for _ in 0..5 {
            let frames = Frames(body.0.iter().map(clone_frame).collect());
            let response =
                watch(ticket(&cluster, &hosts[..1]), async { response(200, &headers, frames) }).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        let expected = if counts { Standing::Out } else { Standing::In };
        assert_eq!(cluster.standing(hosts[0].id), expected, "{headers:?} {body:?}");
        assert_eq!(cluster.pending(hosts[0].id), 0);
    }
}

fn clone_frame(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (_, trailers) => Frame::trailers(trailers.unwrap().clone()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_is_held_against_the_endpoint() {
    for headers in [&[][..], &[GRPC]] {
        let (cluster, hosts) = cluster(2);
        for _ in 0..20 {
            let Some(ticket) = cluster.choose(&hosts[..1], &Tried::default(), Deadline::NEVER) else { break };
            let broken =
                futures_util::stream::iter([Ok(Frame::data(Bytes::from("x"))), Err(std::io::Error::other("reset"))]);
            let mut head = Response::new(StreamBody::new(broken));
            head.headers_mut().extend(crate::layer::testing::headers(headers));
            let response = watch(ticket, async { Ok(head) }).await.unwrap();
            assert!(response.into_body().collect().await.is_err());
        }
        assert_eq!(cluster.standing(hosts[0].id), Standing::Out, "{headers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_stays_open_is_well() {
    let (cluster, hosts) = cluster(2);
    open(&cluster, &hosts);
    advance(Duration::from_millis(1_500)).await;
    let message = futures_util::stream::iter([Ok::<_, Failed>(Frame::data(Bytes::from("x")))]);
    let stream = futures_util::StreamExt::chain(message, futures_util::stream::pending());
    let mut head = Response::new(StreamBody::new(stream));
    head.headers_mut().extend(crate::layer::testing::headers(&[GRPC]));
    let mut response = watch(ticket(&cluster, &hosts), async { Ok(head) }).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(cluster.standing(hosts[0].id), Standing::Out, "undecided");
    assert!(tokio::time::timeout(Duration::from_millis(1), response.body_mut().frame()).await.is_err());
    assert_eq!(cluster.standing(hosts[0].id), Standing::In);
}

#[tokio::test(start_paused = true)]
async fn our_own_overload_is_not_the_endpoints() {
    let (cluster, hosts) = cluster(2);
    for _ in 0..50 {
        let overloaded = async { Err::<Response<Frames>, _>(Failed::Overloaded(crate::layer::Overload::QueueFull)) };
        assert!(watch(ticket(&cluster, &hosts[..1]), overloaded).await.is_err());
    }
    assert_eq!(cluster.standing(hosts[0].id), Standing::In);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_is_not_the_endpoints_fault() {
    for (client, standing) in
        [(Err(std::io::Error::other("gone")), Standing::In), (Ok(Frame::data(Bytes::new())), Standing::Out)]
    {
        let (cluster, hosts) = cluster(2);
        let client = Arc::new(client);
        for _ in 0..7 {
            let Some(mut ticket) = cluster.choose(&hosts[..1], &Tried::default(), Deadline::NEVER) else { break };
            let frame = match &*client {
                Ok(frame) => Ok(clone_frame(frame)),
                Err(error) => Err(std::io::Error::other(error.to_string())),
            };
            let mut body = ticket.upload(StreamBody::new(futures_util::stream::iter([frame])));
            let fails = async move {
                let _ = body.frame().await;
                Err::<Response<Frames>, _>(Failed::upstream(Fault::Reset))
            };
            assert!(watch(ticket, fails).await.is_err());
        }
        assert_eq!(cluster.standing(hosts[0].id), standing);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_under_way_until_its_body_has_ended() {
    let (cluster, hosts) = cluster(1);
    let mut first = watch(ticket(&cluster, &hosts), async { response(200, &[], Frames::of(&["x"])) }).await.unwrap();
    let second = watch(ticket(&cluster, &hosts), async { response(200, &[], Frames::of(&["x"])) }).await.unwrap();
    assert_eq!(cluster.pending(hosts[0].id), 2);
    first.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(cluster.pending(hosts[0].id), 1);
    drop(second);
    assert_eq!(cluster.pending(hosts[0].id), 0);
}

#[tokio::test(start_paused = true)]
async fn another_host_is_tried_and_the_unhealthy_last() {
    let (cluster, mut hosts) = cluster(3);
    for _ in 0..20 {
        let tried = Tried::default();
        let chosen: std::collections::BTreeSet<_> =
            (0..3).map(|_| cluster.choose(&hosts, &tried, Deadline::NEVER).unwrap().endpoint()).collect();
        assert_eq!(chosen.len(), 3);
        assert!(cluster.choose(&hosts, &tried, Deadline::NEVER).is_some(), "one that was tried, rather than none");
    }
    let once = Tried::once();
    assert!((0..4).all(|_| cluster.choose(&hosts, &once, Deadline::NEVER).is_some()));
    hosts[0].healthy = false;
    assert!((0..30).all(|_| ticket(&cluster, &hosts).endpoint() != hosts[0].id));
    hosts.iter_mut().for_each(|host| host.healthy = false);
    assert!(cluster.choose(&hosts, &Tried::default(), Deadline::NEVER).is_some(), "panic");
    assert!(cluster.choose(&[], &Tried::default(), Deadline::NEVER).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_goes_takes_its_requests_along() {
    let (cluster, hosts) = cluster(2);
    let mut under_way = ticket(&cluster, &hosts[..1]);
    cluster.remove(hosts[0].id);
    assert_eq!(under_way.judge(Outcome::http(500), None), Change::None);
    drop(under_way);
    assert!(cluster.choose(&hosts[..1], &Tried::default(), Deadline::NEVER).is_none());
}
