//! Peers that speak another version, nonsense, or nothing.

use std::cell::Cell;
use std::rc::Rc;

use h2::client::SendRequest;
use http::Request;

use super::channel::until;
use super::peers::{Peer, beats, id, large, on_each, until_up};
use super::raw::connect;
use super::*;
use crate::cluster::protocol::codec::VERSION;
use crate::cluster::protocol::frame::{Body, Frame};
use crate::shard::turn::Turns;

/// Opens a link by hand, sends these bytes, and returns the status with which it ends.
pub(super) async fn refusal_of(to: SocketAddr, from: &str, node: &str, bytes: Vec<Bytes>) -> (i32, String) {
    let mut sender = connect(to).await;
    refusal_on(&mut sender, from, node, bytes).await
}

async fn refusal_on(
    sender: &mut SendRequest<Bytes>,
    from: &str,
    node: &str,
    bytes: Vec<Bytes>,
) -> (i32, String) {
    let request = Request::post("http://node/pinion.peer.v1.Peer/Link")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("pinion-from", from)
        .header("pinion-to", node)
        .body(())
        .unwrap();
    let (response, mut stream) = sender.send_request(request, false).unwrap();
    for bytes in bytes {
        stream.send_data(bytes, false).unwrap();
    }
    let mut body = response.await.unwrap().into_body();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    let status = crate::rpc::unary::status(&trailers).unwrap();
    (status.code, status.message)
}

/// A message as it is on the wire.
fn message(bytes: &[u8]) -> Bytes {
    crate::wire::grpc::frame(bytes).unwrap()
}

fn hello_of(version: u32, count: u64) -> Bytes {
    use crate::pb::pinion::peer as pb;
    let hello = pb::Hello { version, node: "a".to_owned(), incarnation: 1, ..Default::default() };
    let frames = vec![pb::Frame { seen: 0, body: Some(pb::frame::Body::Hello(hello)) }];
    let generation = Some(pb::Generation { dialler: 1, count, acceptor: 0 });
    message(&pb::Batch { generation, frames }.encode_to_vec())
}

fn beat_of(count: u64) -> Bytes {
    use crate::pb::pinion::peer as pb;
    let frames = vec![pb::Frame { seen: 0, body: Some(pb::frame::Body::Beat(1)) }];
    let generation = Some(pb::Generation { dialler: 1, count, acceptor: 1 });
    message(&pb::Batch { generation, frames }.encode_to_vec())
}

#[test]
fn a_peer_of_another_version_is_refused_by_both_numbers_and_reaches_no_router() {
    on_each(async |turns: Turns| {
        let b = Peer::start("b", &turns);
        let (code, text) = refusal_of(b.address, "a", "b", vec![hello_of(VERSION - 1, 1)]).await;
        assert!(code == 9 && text.contains("version 1 ") && text.contains("version 2:"), "{code} {text}");
        b.until_refused("the peer speaks version 1 ").await;
        assert_eq!((b.heard.borrow().len(), b.count_of(Metric::PeerFaults)), (1, 1), "the refusal only");
    });
}

#[test]
fn hostile_peers_lose_their_stream_and_nobody_else_notices() {
    on_each(async |turns: Turns| {
        let (aa, b) = (Peer::start("aa", &turns), Peer::start("b", &turns));
        aa.dial(&[&b]);
        until_up(&aa, &b).await;
        let oversize = [&[0][..], &u32::MAX.to_be_bytes(), b"x"].concat();
        let packed = [&[1][..], &1_u32.to_be_bytes(), b"x"].concat();
        for (bytes, text) in [
            (vec![message(&[0xff; 40])], "no batch of frames"),
            (vec![message(b"")], "no generation"),
            (vec![oversize.into()], "larger than max"),
            (vec![packed.into()], "compressed"),
            (vec![beat_of(1)], "the first frame of a link is a Hello"),
            (vec![hello_of(VERSION, 1), beat_of(2)], "another generation"),
            (vec![hello_of(VERSION, 1), hello_of(VERSION, 2)], "another generation"),
            (vec![hello_of(VERSION, 1), beat_of(1), message(b"\x12\x00")], "no generation"),
        ] {
            let (code, said) = refusal_of(b.address, "a", "b", bytes).await;
            assert!(matches!(code, 3 | 9) && said.contains(text), "{text}: {code} {said}");
        }
        // Streams that say nothing take the places of their peer, and of nobody else.
        let mut sender = connect(b.address).await;
        let silent: Vec<_> = (0..limits::LINK_TRANSPORTS_MAX).map(|_| silent(&mut sender)).collect();
        until("they are in", || b.links.up() == 1 && silent.iter().all(|s| s.1.get())).await;
        let (code, text) = refusal_on(&mut sender, "a", "b", vec![]).await;
        assert!(code == 8 && text.contains("links of a are open"), "{code} {text}");
        drop((silent, sender));
        aa.send(&b, Body::Beat(1));
        until("the other link stands", || b.bodies(&aa) == beats(1..2)).await;
        assert_eq!((aa.closed(), b.count_of(Metric::PeerFaults)), (0, 8));
    });
}

/// A stream that is let in and says nothing.
fn silent(sender: &mut SendRequest<Bytes>) -> (h2::SendStream<Bytes>, Rc<Cell<bool>>) {
    let request = Request::post("http://node/pinion.peer.v1.Peer/Link")
        .header("content-type", "application/grpc")
        .header("pinion-from", "a")
        .header("pinion-to", "b")
        .body(())
        .unwrap();
    let (response, stream) = sender.send_request(request, false).unwrap();
    let (is_in, told) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
    let tell = Rc::clone(&told);
    monoio::spawn(async move {
        let mut body = response.await.unwrap().into_body();
        while let Some(Ok(_)) = body.data().await {
            tell.set(true);
        }
        is_in.set(false);
    });
    (stream, told)
}

#[test]
fn a_peer_that_takes_nothing_loses_the_link_and_holds_a_bounded_queue() {
    on_each(async |turns: Turns| {
        let b = Peer::start("b", &turns);
        let mut sender = connect(b.address).await;
        let (mut stream, told) = silent(&mut sender);
        until("it is in", || told.get()).await;
        stream.send_data(hello_of(VERSION, 1), false).unwrap();
        until("the link is up", || b.links.up() == 1).await;
        let generation = b.up.borrow()[&id("a")];
        // Nobody gives window back.
        b.links.send(&id("a"), Frame { generation, seen: 0, body: large(2_000_000) });
        until("it is ended", || b.closed() == 1).await;
        assert_eq!((b.count_of(Metric::PeerStalls), b.count_of(Metric::PeerQueuedBytes)), (1, 0));
    });
}
