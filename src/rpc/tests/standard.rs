//! gRPC's own services: health and server reflection.

use std::time::Duration;

use h2::{RecvStream, SendStream};
use http::Request;

use super::raw::connect;
use super::*;
use crate::pb::grpc::health::health_check_response::ServingStatus;
use crate::pb::grpc::health::{HealthCheckRequest, HealthCheckResponse};
use crate::pb::grpc::reflection::server_reflection_request::MessageRequest;
use crate::pb::grpc::reflection::server_reflection_response::MessageResponse;
use crate::pb::grpc::reflection::{ServerReflectionRequest, ServerReflectionResponse};
use crate::shard::thread::block_on;
use crate::wire::grpc::{Messages, frame};

const TIMEOUT: Duration = Duration::from_secs(60);

const SERVICES: [&str; 7] = [
    "openim.msggateway.msgGateway",
    "OpenIMServer.msggateway.msgGateway",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "pinion.v1.Push",
    "pinion.v1.Node",
];

/// A call that streams.
struct Talk {
    requests: SendStream<Bytes>,
    answers: RecvStream,
    messages: Messages,
}

impl Talk {
    async fn start(node: &Node, path: &str) -> Self {
        let request = Request::post(format!("http://gateway{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, requests) = connect(node.grpc).await.send_request(request, false).unwrap();
        let response = monoio::time::timeout(TIMEOUT, response).await.unwrap().unwrap();
        Self {
            requests,
            answers: response.into_body(),
            messages: Messages::new(limits::GRPC_MESSAGE_BYTES_MAX),
        }
    }

    fn ask(&mut self, request: &impl Message) {
        self.requests.send_data(frame(&request.encode_to_vec()).unwrap(), false).unwrap();
    }

    /// The next answer; `None`: the stream has ended.
    async fn next<M: Message + Default>(&mut self) -> Option<M> {
        loop {
            if let Some(message) = self.messages.take().unwrap() {
                return Some(M::decode(message.bytes).unwrap());
            }
            let chunk = monoio::time::timeout(TIMEOUT, self.answers.data()).await.expect("an answer in time");
            self.messages.push(chunk?.unwrap());
        }
    }

    /// `grpc-status` of the trailers.
    async fn status(mut self) -> String {
        let trailers = self.answers.trailers().await.unwrap().unwrap();
        trailers["grpc-status"].to_str().unwrap().to_owned()
    }
}

fn check(node: &Node, service: &str) -> Result<ServingStatus, i32> {
    let request = HealthCheckRequest { service: service.to_owned() };
    let answer = node.call_path::<HealthCheckResponse>("/grpc.health.v1.Health/Check", &[], &request);
    answer.map(|a| a.status()).map_err(|s| s.code)
}

#[test]
fn health_follows_the_node_and_needs_no_metadata() {
    on_each_driver(Shards::Answer, |node| {
        for (state, expected) in [
            (NodeState::Starting, ServingStatus::NotServing),
            (NodeState::Ready, ServingStatus::Serving),
            (NodeState::Draining, ServingStatus::NotServing),
        ] {
            node.admission.set_state(state);
            for service in [""].into_iter().chain(SERVICES) {
                assert_eq!(check(node, service), Ok(expected), "{state:?} {service:?}");
            }
            assert_eq!(check(node, "openim.msggateway"), Err(5), "{state:?}");
        }
        node.await_count(Metric::RpcOtherOk, 24);
        node.await_count(Metric::RpcOtherError, 3);
    });
}

#[test]
fn a_watcher_hears_of_each_change_and_of_the_end() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut talk = Talk::start(node, "/grpc.health.v1.Health/Watch").await;
            talk.ask(&HealthCheckRequest::default());
            talk.requests.send_data(Bytes::new(), true).unwrap();
            let mut heard = Vec::new();
            for state in [NodeState::Ready, NodeState::Draining, NodeState::Ready] {
                heard.push(talk.next::<HealthCheckResponse>().await.unwrap().status());
                node.admission.set_state(state);
            }
            heard.push(talk.next::<HealthCheckResponse>().await.unwrap().status());
            node.rpc.post(RpcMail::Drain(clock::now().mono.plus_ms(60_000))).unwrap();
            heard.push(talk.next::<HealthCheckResponse>().await.unwrap().status());
            let (serving, not) = (ServingStatus::Serving, ServingStatus::NotServing);
            assert_eq!(heard, [not, serving, not, serving, not]);
            assert_eq!(talk.next::<HealthCheckResponse>().await, None);
            assert_eq!(talk.status().await, "14");
        });
    });
}

#[test]
fn a_watcher_of_an_unknown_service_is_told_so_and_may_leave() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut talk = Talk::start(node, "/grpc.health.v1.Health/Watch").await;
            talk.ask(&HealthCheckRequest { service: "nothing".into() });
            talk.requests.send_data(Bytes::new(), true).unwrap();
            let heard = talk.next::<HealthCheckResponse>().await.unwrap().status();
            assert_eq!(heard, ServingStatus::ServiceUnknown);
            talk.requests.send_reset(h2::Reason::CANCEL);
            // The connection lives until the reset is sent and seen.
            let start = clock::now().mono;
            while node.block.value(Metric::RpcCancelled) == 0 {
                assert!(clock::now().mono.since_ms(start) < 60_000, "the reset was not noticed");
                monoio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    });
}

#[test]
fn reflection_answers_each_question_of_a_stream_in_order_in_both_versions() {
    on_each_driver(Shards::Answer, |node| {
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            block_on(DriverKind::Epoll, |_| async {
                let mut talk = Talk::start(node, &path).await;
                let questions = [
                    MessageRequest::ListServices(String::new()),
                    MessageRequest::FileContainingSymbol("openim.msggateway.msgGateway".into()),
                    MessageRequest::FileByFilename("nothing.proto".into()),
                ];
                let mut answers = Vec::new();
                for question in questions {
                    let request =
                        ServerReflectionRequest { host: String::new(), message_request: Some(question) };
                    talk.ask(&request);
                    let answer = talk.next::<ServerReflectionResponse>().await.unwrap();
                    assert_eq!(answer.original_request, Some(request));
                    answers.push(answer.message_response.unwrap());
                }
                talk.requests.send_data(Bytes::new(), true).unwrap();
                assert_eq!(talk.next::<ServerReflectionResponse>().await, None);
                assert_eq!(talk.status().await, "0");
                let [services, files, missing] = answers.try_into().unwrap();
                let MessageResponse::ListServicesResponse(list) = services else { panic!("{services:?}") };
                assert!(list.service.iter().map(|s| s.name.as_str()).eq(SERVICES));
                let MessageResponse::FileDescriptorResponse(files) = files else { panic!("{files:?}") };
                assert_eq!(files.file_descriptor_proto.len(), 2);
                let MessageResponse::ErrorResponse(error) = missing else { panic!("{missing:?}") };
                assert_eq!(error.error_code, 5);
            });
        }
    });
}
