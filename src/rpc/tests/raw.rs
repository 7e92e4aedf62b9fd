//! Callers over a real HTTP/2 client that leave, send what is no call, or nothing more.

use std::pin::pin;
use std::time::Duration;

use h2::client::SendRequest;
use http::{Request, Response};
use monoio::io::IntoPollIo;

use super::grpc::{PUSH, push_request};
use super::*;
use crate::pb::openim::msggateway::OnlineBatchPushOneMsgResp;
use crate::shard::thread::block_on;
use crate::wire::grpc::frame;

const TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP/2 connection whose driver runs as a task of this runtime.
pub(super) async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = monoio::net::TcpStream::connect_addr(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream.into_poll_io().unwrap()).await.unwrap();
    monoio::spawn(async move {
        connection.await.unwrap_or_default();
    });
    sender.ready().await.unwrap()
}

fn head(content_type: &str) -> Request<()> {
    Request::post(format!("http://gateway/openim.msggateway.msgGateway/{PUSH}"))
        .header("content-type", content_type)
        .header("te", "trailers")
        .header("operationid", "op")
        .body(())
        .unwrap()
}

fn body() -> Bytes {
    frame(&push_request(&["on1"]).encode_to_vec()).unwrap()
}

async fn noted(node: &Node) -> Noted {
    let start = clock::now().mono;
    loop {
        if let Ok(noted) = node.noted.try_recv() {
            return noted;
        }
        assert!(clock::now().mono.since_ms(start) < 60_000, "the shard saw nothing");
        monoio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_caller_that_resets_its_stream_cancels_the_push_at_the_shards() {
    on_each_driver(Shards::Mute, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let (response, mut stream) = sender.send_request(head("application/grpc"), false).unwrap();
            stream.send_data(body(), true).unwrap();
            let Noted::Push(ticket) = noted(node).await else { panic!() };
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
            assert_eq!(noted(node).await, Noted::Cancel(ticket));
        });
        node.await_count(Metric::RpcCancelled, 1);
    });
}

#[test]
fn a_caller_whose_connection_breaks_cancels_too() {
    on_each_driver(Shards::Mute, |node| {
        // The client and its connection end with the runtime.
        let ticket = block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let (_response, mut stream) = sender.send_request(head("application/grpc"), false).unwrap();
            stream.send_data(body(), true).unwrap();
            let Noted::Push(ticket) = noted(node).await else { panic!() };
            ticket
        });
        assert_eq!(node.noted.recv_timeout(TIMEOUT), Ok(Noted::Cancel(ticket)));
        node.await_count(Metric::RpcCancelled, 1);
    });
}

/// HTTP status and grpc-status of a trailers-only answer.
fn verdict(response: &Response<h2::RecvStream>) -> (u16, &str) {
    let status = response.headers().get("grpc-status").map_or("", |s| s.to_str().unwrap());
    (response.status().as_u16(), status)
}

#[test]
fn bodies_and_heads_that_break_the_rules_get_their_status() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let compressed = Bytes::from_static(b"\x01\0\0\0\x01x");
            let short = Bytes::from_static(b"\0\0\0\0\x09x");
            let long = Bytes::from_static(b"\0\0\0\0\x01xx");
            let huge = Bytes::from_static(b"\0\xff\xff\xff\xffx");
            let table = [
                ("application/grpc", compressed, (200, "13")),
                ("application/grpc", short, (200, "13")),
                ("application/grpc", long, (200, "13")),
                ("application/grpc", huge, (200, "8")),
                ("application/grpc", Bytes::new(), (200, "13")),
                ("text/plain", body(), (415, "3")),
            ];
            let mut sender = connect(node.grpc).await;
            for (content_type, body, expected) in table {
                let (response, mut stream) = sender.send_request(head(content_type), false).unwrap();
                stream.send_data(body.clone(), true).unwrap();
                let response = response.await.unwrap();
                assert_eq!(verdict(&response), expected, "{content_type} {body:?}");
            }
            // The connection is still good.
            let (response, mut stream) = sender.send_request(head("application/grpc"), false).unwrap();
            stream.send_data(body(), true).unwrap();
            assert_eq!(
                verdict(&response.await.unwrap()),
                (200, ""),
                "an answer has its status in the trailers"
            );
        });
        node.await_count(Metric::RpcBadRequest, 5);
    });
}

#[test]
fn heads_are_judged_as_by_grpc_go() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let path = format!("http://gateway/openim.msggateway.msgGateway/{PUSH}");
            let post = || Request::post(&path).header("operationid", "op");
            let grpc = "application/grpc";
            let long = "x".repeat(limits::H2_HEADER_LIST_BYTES as usize);
            let table = [
                // grpc-go does not look at `te`.
                ("no te", post().header("content-type", grpc), (200, "")),
                (
                    "GET",
                    Request::get(&path).header("content-type", grpc).header("te", "trailers"),
                    (405, "13"),
                ),
                ("no content type", post(), (415, "3")),
                ("another content type", post().header("content-type", "application/json"), (415, "3")),
                ("too much metadata", post().header("content-type", grpc).header("x", long), (431, "")),
            ];
            let mut sender = connect(node.grpc).await;
            for (name, request, expected) in table {
                let (response, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
                drop(stream.send_data(body(), true)); // it may be refused already
                assert_eq!(verdict(&response.await.unwrap()), expected, "{name}");
            }
        });
    });
}

#[test]
fn bodies_that_never_end_cost_their_call_its_deadline_and_no_more() {
    on_each_driver(Shards::Answer, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            let announced = Bytes::from_static(b"\0\0\0\x27\x10");
            for (name, first, more) in [
                ("a head and then nothing", Bytes::new(), Bytes::new()),
                ("an announced length that never comes", announced.clone(), Bytes::new()),
                ("a byte now and then", announced, Bytes::from_static(b"x")),
            ] {
                let mut request = head("application/grpc");
                request.headers_mut().insert("grpc-timeout", http::HeaderValue::from_static("400m"));
                let (response, mut stream) = sender.send_request(request, false).unwrap();
                if !first.is_empty() {
                    stream.send_data(first, false).unwrap();
                }
                let mut response = pin!(response);
                let start = clock::now().mono;
                let response = loop {
                    let tick = Duration::from_millis(20);
                    if let Ok(response) = monoio::time::timeout(tick, response.as_mut()).await {
                        break response.unwrap();
                    }
                    if !more.is_empty() {
                        drop(stream.send_data(more.clone(), false)); // it may be over already
                    }
                    assert!(clock::now().mono.since_ms(start) < 60_000, "{name}: no answer");
                };
                assert_eq!(verdict(&response), (200, "4"), "{name}");
            }
        });
        node.await_count(Metric::RpcPushError, 3);
        node.await_count(Metric::RpcOpen, 0);
    });
}

#[test]
fn a_thousand_streams_cancelled_at_once_ten_times_over_is_honest() {
    on_each_driver(Shards::Mute, |node| {
        block_on(DriverKind::Epoll, |_| async {
            let mut sender = connect(node.grpc).await;
            for round in 0..10 {
                let mut calls = Vec::new();
                for _ in 0..1_000 {
                    sender = sender.ready().await.unwrap_or_else(|e| panic!("round {round}: {e}"));
                    let (response, mut stream) =
                        sender.send_request(head("application/grpc"), false).unwrap();
                    stream.send_data(body(), true).unwrap();
                    calls.push((response, stream));
                }
                // Some are under way, some are not even sent.
                noted(node).await;
                drop(calls);
            }
            let unknown = Request::post("http://gateway/a.B/C").header("content-type", "application/grpc");
            sender = sender.ready().await.unwrap();
            let (response, _stream) = sender.send_request(unknown.body(()).unwrap(), true).unwrap();
            assert_eq!(verdict(&response.await.unwrap()), (200, "12"));
        });
        for cut in [Metric::RpcCutControl, Metric::RpcCutResets, Metric::RpcCutExcess, Metric::RpcCutProtocol]
        {
            assert_eq!(node.block.value(cut), 0, "{cut:?}");
        }
    });
}

#[test]
fn a_drain_finishes_open_calls_and_takes_no_new_connections() {
    on_each_driver(Shards::Mute, |node| {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                let path = format!("/openim.msggateway.msgGateway/{PUSH}");
                let request = push_request(&["on1"]).encode_to_vec();
                call_once(node.grpc, &path, &[("operationid", "op")], request.into(), 5_000)
            });
            assert!(matches!(node.noted.recv_timeout(TIMEOUT), Ok(Noted::Push(_))));
            node.rpc.post(RpcMail::Drain(clock::now().mono.plus_ms(60_000))).unwrap();
            let answer = OnlineBatchPushOneMsgResp::decode(call.join().unwrap().unwrap()).unwrap();
            assert_eq!(answer.single_push_result.len(), 1);
        });
        let outcome = call_once(node.grpc, "/a/b", &[], Bytes::new(), 60_000);
        assert!(matches!(outcome, Err(CallError::Connect(..))), "{outcome:?}");
    });
}
