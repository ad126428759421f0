//! Ordinary use: verdicts, many calls at once, calls that wait, health.

use std::sync::atomic::Ordering::SeqCst;

use chancery_proto::envoy::rls::{RateLimitResponse, rate_limit_response::Code};
use tonic::{Code as Grpc, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::scene::{SERVERS, SOON, Setting, Valve, request, until};
use crate::serve::grpc::SERVICE_NAME;

#[tokio::test]
async fn a_verdict_comes_with_all_that_envoy_reads() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = scene.client().await;
        let answer = client.should_rate_limit(request("edge")).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), Code::Ok);
        let [status] = answer.statuses.as_slice() else { panic!("{answer:?}") };
        assert_eq!((status.code(), status.limit_remaining), (Code::Ok, 7));
        assert_eq!(status.duration_until_reset.as_ref().unwrap().seconds, 2);
        let limit = status.current_limit.as_ref().unwrap();
        assert_eq!((limit.requests_per_unit, limit.unit, limit.name.as_str()), (10, 2, "per user"));

        scene.store().turn(Valve::Refuse);
        let answer = client.should_rate_limit(request("edge")).await.unwrap().into_inner();
        assert_eq!(answer.overall_code(), Code::OverLimit);
        assert_eq!(answer.statuses[0].code(), Code::OverLimit);
        assert_eq!(answer.raw_body, b"slow down");

        // No rule, no charge, and yet one status for each descriptor.
        let asked = scene.store().asked.load(SeqCst);
        let answer = client.should_rate_limit(request("elsewhere")).await.unwrap().into_inner();
        assert_eq!((answer.overall_code(), answer.statuses.len()), (Code::Ok, 1));
        assert_eq!(scene.store().asked.load(SeqCst), asked);
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_the_reason() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = scene.client().await;
        let mut refused = async |request| {
            let status: Status = client.should_rate_limit(request).await.unwrap_err();
            (status.code(), status.message().to_owned())
        };
        assert_eq!(refused(request("")).await, (Grpc::InvalidArgument, "the domain must not be empty".into()));
        let mut empty = request("edge");
        empty.descriptors.clear();
        assert_eq!(refused(empty).await, (Grpc::InvalidArgument, "there must be at least one descriptor".into()));
        let mut large = request("edge");
        let entry = large.descriptors[0].entries[0].clone();
        large.descriptors[0].entries = vec![entry; 10_000];
        let (code, message) = refused(large).await;
        assert_eq!(code, Grpc::InvalidArgument);
        assert!(message.contains("10000 entries"), "{message}");
    }
}

#[tokio::test]
async fn a_thousand_calls_on_one_connection_are_each_answered() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let client = scene.client().await;
        let calls: Vec<_> = (0..1_000_usize)
            .map(|call| {
                let mut client = client.clone();
                let mut request = request("edge");
                // As many descriptors as tell the answers apart.
                let descriptor = request.descriptors[0].clone();
                request.descriptors = vec![descriptor; 1 + call % 7];
                tokio::spawn(async move { client.should_rate_limit(request).await.map(tonic::Response::into_inner) })
            })
            .collect();
        for (call, answer) in calls.into_iter().enumerate() {
            let answer: RateLimitResponse = answer.await.unwrap().unwrap();
            assert_eq!(answer.statuses.len(), 1 + call % 7);
        }
    }
}

#[tokio::test]
async fn calls_that_wait_delay_no_others_and_end_when_the_store_answers() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = scene.client().await;
        scene.store().turn(Valve::Hang);
        let waiting: Vec<_> = (0..100)
            .map(|_| {
                let mut client = client.clone();
                tokio::spawn(async move { client.should_rate_limit(request("edge")).await })
            })
            .collect();
        scene.store().until_waiting(100).await;
        assert!(client.should_rate_limit(request("elsewhere")).await.is_ok());
        scene.store().turn(Valve::Refuse);
        for answer in waiting {
            assert_eq!(answer.await.unwrap().unwrap().into_inner().overall_code(), Code::OverLimit);
        }
    }
}

#[tokio::test]
async fn connections_are_spread_evenly_over_the_workers() {
    for server in SERVERS {
        let scene = Setting { workers: 2, ..Setting::of(server) }.play().await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            let mut client = scene.client().await;
            client.should_rate_limit(request("edge")).await.unwrap();
            clients.push(client);
        }
        let asked: Vec<_> = scene.stores.iter().map(|store| store.asked.load(SeqCst)).collect();
        assert_eq!(asked, [4, 4]);
    }
}

#[tokio::test]
async fn connections_beyond_the_bound_wait_for_a_place() {
    for server in SERVERS {
        let scene = Setting { max_connections: 2, ..Setting::of(server) }.play().await;
        let mut first = scene.client().await;
        let mut second = scene.client().await;
        for client in [&mut first, &mut second] {
            client.should_rate_limit(request("edge")).await.unwrap();
        }
        // It lies in the system's backlog: connected, but nobody is at the other end.
        let third = tokio::spawn({
            let endpoint = scene.endpoint();
            async move {
                let channel = endpoint.connect().await.unwrap();
                let mut client =
                    chancery_proto::envoy::rls::rate_limit_service_client::RateLimitServiceClient::new(channel);
                client.should_rate_limit(request("edge")).await
            }
        });
        first.should_rate_limit(request("edge")).await.unwrap();
        assert_eq!(scene.store().asked.load(SeqCst), 3);
        drop(first);
        tokio::time::timeout(SOON, third).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn health_tells_whether_rules_are_loaded_and_the_end_has_begun() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut health = HealthClient::new(scene.endpoint().connect().await.unwrap());
        let mut status = async |service: &str| {
            let request = HealthCheckRequest { service: service.into() };
            health.check(request).await.map(|response| response.into_inner().status())
        };
        for service in ["", SERVICE_NAME] {
            assert_eq!(status(service).await.unwrap(), ServingStatus::NotServing);
        }
        assert_eq!(status("other").await.unwrap_err().code(), Grpc::NotFound);
        scene.rules_loaded.met();
        for service in ["", SERVICE_NAME] {
            while status(service).await.unwrap() != ServingStatus::Serving {
                tokio::task::yield_now().await;
            }
        }

        let request = HealthCheckRequest { service: String::new() };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        scene.shutdown.begin();
        assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    }
}

#[tokio::test]
async fn tools_are_told_what_is_served() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = ServerReflectionClient::new(scene.endpoint().connect().await.unwrap());
        let ask = |request| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let questions = [
            ask(MessageRequest::ListServices(String::new())),
            ask(MessageRequest::FileContainingSymbol(SERVICE_NAME.into())),
        ];
        let mut answers = client.server_reflection_info(tokio_stream::iter(questions)).await.unwrap().into_inner();
        let services = match answers.message().await.unwrap().unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => list.service,
            other => panic!("{other:?}"),
        };
        let mut names: Vec<_> = services.into_iter().map(|service| service.name).collect();
        names.sort();
        let quota = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService";
        assert_eq!(names, [quota, SERVICE_NAME, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]);
        let files = answers.message().await.unwrap().unwrap().message_response.unwrap();
        assert!(matches!(files, MessageResponse::FileDescriptorResponse(_)), "{files:?}");
    }
}

#[tokio::test]
async fn calls_are_timed() {
    for server in SERVERS {
        let scene = Setting::of(server).play().await;
        let mut client = scene.client().await;
        for _ in 0..3 {
            client.should_rate_limit(request("edge")).await.unwrap();
        }
        until("three calls are counted", || scene.meters.count() == 3).await;
    }
}
