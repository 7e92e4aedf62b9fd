//! Callers that leave, that break the rules, or that flood.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use h2::client::SendRequest;
use http::{Request, Response};
use monoio::io::IntoPollIo;

use super::grpc::{PUSH, push_request};
use super::*;
use crate::pb::openim::msggateway::OnlineBatchPushOneMsgResp;
use crate::shard::thread::block_on;
use crate::wire::grpc::frame;

const TIMEOUT: Duration = Duration::from_secs(10);

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
        assert!(clock::now().mono.since_ms(start) < 10_000, "the shard saw nothing");
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
fn what_is_not_http2_is_closed_and_counted() {
    on_each_driver(Shards::Answer, |node| {
        let mut stream = TcpStream::connect(node.grpc).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an end.
        assert!(
            stream
                .read_to_end(&mut answer)
                .map_or_else(|e| e.kind() != std::io::ErrorKind::WouldBlock, |_| true)
        );
        node.await_count(Metric::RpcRefused, 1);
    });
}

#[test]
fn a_flood_of_tiny_frames_does_not_stop_other_callers() {
    on_each_driver(Shards::Answer, |node| {
        // Dropped at the end of the scope's closure, also when the test fails.
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        std::thread::scope(|scope| {
            let _stop = stop;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(node.grpc).unwrap();
                stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
                // PRIORITY frames of stream 1, which a server ignores.
                let flood = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10".repeat(4_096);
                while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                    stream.write_all(&flood).unwrap();
                }
            });
            for _ in 0..20 {
                let answer = node.call::<OnlineBatchPushOneMsgResp>(PUSH, &push_request(&["on1", "on2"]));
                assert_eq!(answer.map(|a| a.single_push_result.len()), Ok(2));
            }
        });
    });
}

#[test]
fn a_drain_finishes_open_calls_and_takes_no_new_connections() {
    on_each_driver(Shards::Mute, |node| {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                let path = format!("/openim.msggateway.msgGateway/{PUSH}");
                let request = push_request(&["on1"]).encode_to_vec();
                call_once(node.grpc, &path, &[("operationid", "op")], request.into(), 1_500)
            });
            assert!(matches!(node.noted.recv_timeout(TIMEOUT), Ok(Noted::Push(_))));
            node.rpc.post(RpcMail::Drain(clock::now().mono.plus_ms(10_000))).unwrap();
            let answer = OnlineBatchPushOneMsgResp::decode(call.join().unwrap().unwrap()).unwrap();
            assert_eq!(answer.single_push_result.len(), 1);
        });
        let outcome = call_once(node.grpc, "/a/b", &[], Bytes::new(), 10_000);
        assert!(matches!(outcome, Err(CallError::Connect(..))), "{outcome:?}");
    });
}
