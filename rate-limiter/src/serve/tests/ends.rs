//! How calls and connections end: deadlines, clients that leave, a server that drains.

use std::time::Instant;

use chancery_proto::envoy::{
    rlqs::{
        BucketId, RateLimitQuotaUsageReports, rate_limit_quota_service_client::RateLimitQuotaServiceClient,
        rate_limit_quota_usage_reports::BucketQuotaUsage,
    },
    rls::rate_limit_response::Code,
};
use h2::Reason;
use tokio_stream::StreamExt as _;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest,
};

use super::{
    raw::{Call, Client, Heard, frame, hear},
    scene::{SERVERS, SOON, Setting, Valve, request, until},
};
use crate::serve::worker::{DRAIN, GrpcServer};

fn good() -> Call {
    Call::with(frame(&request("edge")))
}

#[tokio::test]
async fn a_call_whose_deadline_passes_is_told_so() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        scene.store().turn(Valve::Hang);
        let mut client = Client::connect(scene.address).await;
        let heard = client.call(&good().header("grpc-timeout", "20m")).await;
        // tonic's own server says "cancelled" (1), where the protocol has a code of its own.
        let expected = if server == GrpcServer::H2 { 4 } else { 1 };
        assert_eq!(heard.code(), Some(expected), "{heard:?}");
        scene.store().until_waiting(0).await;
        // A call that is decided at once needs none of it.
        scene.store().turn(Valve::Admit);
        let hurried = client.call(&good().header("grpc-timeout", "1n")).await;
        if server == GrpcServer::H2 {
            assert_eq!(hurried.code(), Some(0));
        }
    }
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_waits_no_longer() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        scene.store().turn(Valve::Hang);
        let mut client = Client::connect(scene.address).await;
        let (response, mut stream) = client.start(&good()).await.unwrap();
        scene.store().until_waiting(1).await;
        stream.send_reset(Reason::CANCEL);
        drop(response);
        scene.store().until_waiting(0).await;
        scene.store().turn(Valve::Admit);
        assert_eq!(client.call(&good()).await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_calls_with_it() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        scene.store().turn(Valve::Hang);
        let mut client = Client::connect(scene.address).await;
        let (response, stream) = client.start(&good()).await.unwrap();
        scene.store().until_waiting(1).await;
        client.connection.abort();
        drop((response, stream));
        scene.store().until_waiting(0).await;
    }
}

#[tokio::test]
async fn a_thousand_calls_that_are_given_up_leave_nothing_behind() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        scene.store().turn(Valve::Hang);
        let mut client = Client::connect(scene.address).await;
        let mut connected = true;
        for _ in 0..1_000 {
            // Too many resets in a row may end the connection: that, too, is a bound.
            match client.start(&good()).await {
                Ok((_, mut stream)) => stream.send_reset(Reason::CANCEL),
                Err(_) => {
                    connected = false;
                    break;
                }
            }
        }
        scene.store().until_waiting(0).await;
        scene.store().turn(Valve::Admit);
        if !connected {
            client = Client::connect(scene.address).await;
        }
        let heard = client.call(&good()).await;
        assert!(heard == Heard::Broken || heard.code() == Some(0), "{heard:?}");
        let mut another = scene.client().await;
        assert_eq!(another.should_rate_limit(request("edge")).await.unwrap().into_inner().overall_code(), Code::Ok);
    }
}

#[tokio::test]
async fn the_end_lets_calls_finish_and_takes_no_new_connections() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        scene.store().turn(Valve::Hang);
        let mut client = Client::connect(scene.address).await;
        let (response, _stream) = client.start(&good()).await.unwrap();
        scene.store().until_waiting(1).await;
        scene.shutdown.begin();
        let address = scene.address;
        let refused = async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, refused).await.unwrap();
        scene.store().turn(Valve::Admit);
        let heard = tokio::time::timeout(SOON, async { hear(response.await).await }).await.unwrap();
        assert_eq!(heard.unwrap().code(), Some(0));
        // The server says goodbye, without an error.
        tokio::time::timeout(SOON, client.connection).await.unwrap().unwrap().unwrap();
        assert_eq!(scene.ends().await, Ok(()));
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_delay_the_end() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = Client::connect(scene.address).await;
        assert_eq!(client.call(&good()).await.code(), Some(0));
        let began = Instant::now();
        assert_eq!(scene.ends().await, Ok(()));
        // It was closed, not cut off.
        assert!(began.elapsed() < DRAIN);
        tokio::time::timeout(SOON, client.connection).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn waiting_calls_are_counted_while_they_wait() {
    let scene = Setting::of(GrpcServer::H2).play().await;
    scene.store().turn(Valve::Hang);
    let mut client = Client::connect(scene.address).await;
    let (response, _stream) = client.start(&good()).await.unwrap();
    scene.store().until_waiting(1).await;
    assert_eq!(scene.meters.count(), 0);
    scene.store().turn(Valve::Admit);
    assert!(hear(response.await).await.is_some());
    until("the call is timed", || scene.meters.count() == 1).await;
}

/// What a proxy reports, and where.
fn report() -> (&'static str, RateLimitQuotaUsageReports) {
    let bucket_id = Some(BucketId { bucket: [("user".to_owned(), "ann".to_owned())].into() });
    let usage = BucketQuotaUsage { bucket_id, num_requests_allowed: 1, ..BucketQuotaUsage::default() };
    let report = RateLimitQuotaUsageReports { domain: "edge".into(), bucket_quota_usages: vec![usage] };
    ("/envoy.service.rate_limit_quota.v3.RateLimitQuotaService/StreamRateLimitQuotas", report)
}

#[tokio::test]
async fn what_has_no_end_of_its_own_does_not_delay_the_end() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let channel = scene.endpoint().connect().await.unwrap();
        let mut watch = HealthClient::new(channel.clone()).watch(HealthCheckRequest::default()).await.unwrap();
        watch.get_mut().message().await.unwrap().unwrap();
        let quotas = tokio_stream::iter([report().1]).chain(tokio_stream::pending());
        let mut quotas =
            RateLimitQuotaServiceClient::new(channel.clone()).stream_rate_limit_quotas(quotas).await.unwrap();
        quotas.get_mut().message().await.unwrap().unwrap();
        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let questions = tokio_stream::iter([question]).chain(tokio_stream::pending());
        let mut reflection =
            ServerReflectionClient::new(channel.clone()).server_reflection_info(questions).await.unwrap();
        reflection.get_mut().message().await.unwrap().unwrap();

        let began = Instant::now();
        assert_eq!(scene.ends().await, Ok(()));
        assert!(began.elapsed() < DRAIN, "they were cut off");
        assert_eq!(quotas.get_mut().message().await.unwrap_err().code(), tonic::Code::Unavailable);
        assert_eq!(reflection.get_mut().message().await.unwrap_err().code(), tonic::Code::Unavailable);
        // It may have been told that the server does not serve any more.
        while let Ok(told) = watch.get_mut().message().await {
            told.unwrap();
        }
    }
}

#[tokio::test]
async fn a_connection_has_a_few_quota_streams() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = Client::connect(scene.address).await;
        let (path, report) = report();
        let stream = Call { ends: false, ..Call::with(frame(&report)).path(path) };
        let mut open = Vec::new();
        let refused = loop {
            let (response, stream) = client.start(&stream).await.unwrap();
            let mut response = tokio::time::timeout(SOON, response).await.unwrap().unwrap();
            // Its head says so already if it was refused.
            if response.headers().contains_key("grpc-status") {
                break hear(Ok(response)).await.unwrap();
            }
            assert!(response.body_mut().data().await.is_some_and(|data| data.is_ok()));
            open.push((response, stream));
        };
        assert_eq!((open.len(), refused.code()), (8, Some(8)), "{server:?}");
        // Other connections have their own, and so has who gives one up.
        let mut another = Client::connect(scene.address).await;
        let (response, _stream) = another.start(&stream).await.unwrap();
        assert!(!response.await.unwrap().headers().contains_key("grpc-status"));
        drop(open.pop());
        let again = async {
            loop {
                let (response, _stream) = client.start(&stream).await.unwrap();
                if !response.await.unwrap().headers().contains_key("grpc-status") {
                    break;
                }
            }
        };
        tokio::time::timeout(SOON, again).await.unwrap();
    }
}
