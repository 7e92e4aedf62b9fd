//! A peer that dialled this node.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;

use super::transport::{Ended, Reader, Transport};
use super::{AT, FROM, Inner, LinkEvent, Place, TO};
use crate::limits::{LINK_HELLO_MS, LINK_PEERS_MAX, LINK_STALL_MS, LINK_TRANSPORTS_MAX};
use crate::placement::view::NodeId;
use crate::rpc::call::{End, StreamCall};
use crate::rpc::stream::Outbound;
use crate::wire::grpc::{PREFIX_BYTES, Status, code};

/// Serves it to the end of its stream.
pub(super) async fn serve(inner: &Rc<Inner>, call: StreamCall) -> Result<(), End> {
    let peer = caller(inner, &call.headers)?;
    let place = enter(inner, peer)?;
    let transport = Rc::clone(&place.transport);
    let out = call.outbound.with_stall(LINK_STALL_MS);
    let reader = Reader::new(call.inbound.into_body());
    let mut link = pin!(carry(inner, &transport, reader, &out));
    // The thread leaves: what waits still goes out.
    let ended = poll_fn(|cx| {
        if call.drain.poll(cx).is_ready() && !inner.ended.get() {
            inner.end();
        }
        link.as_mut().poll(cx)
    });
    let ended = ended.await;
    answer(inner, &transport.peer, ended)
}

async fn carry(inner: &Inner, transport: &Transport, mut reader: Reader, out: &Outbound) -> Ended {
    // An empty message: come in.
    if out.send_framed(Bytes::from_static(&[0; PREFIX_BYTES])).await.is_err() {
        return Ended::Gone("it did not come in".to_owned());
    }
    let hello = monoio::time::timeout(Duration::from_millis(LINK_HELLO_MS), reader.next()).await;
    match hello {
        Ok(Ok(message)) => match transport.take(inner, message).await {
            Ok(()) => transport.carry(inner, &mut reader, out).await,
            Err(ended) => ended,
        },
        Ok(Err(ended)) => ended,
        Err(_) => Ended::Fault(code::DEADLINE_EXCEEDED, "no Hello came in time".to_owned()),
    }
}

/// Who calls, if it may.
fn caller(inner: &Rc<Inner>, headers: &HeaderMap) -> Result<NodeId, Status> {
    let named = |key| {
        let text = headers.get(key).and_then(|value| value.to_str().ok());
        text.and_then(|text| NodeId::new(text).ok())
    };
    let (Some(from), Some(to)) = (named(FROM), named(TO)) else {
        let text = format!("a link carries the metadata {FROM} and {TO}: ids of nodes");
        return Err(Status::new(code::INVALID_ARGUMENT, text));
    };
    let own = &inner.plan.own;
    let refused = |text: String| {
        inner.refuse(&from, &text);
        Err(Status::new(code::FAILED_PRECONDITION, text))
    };
    if to != *own {
        return refused(format!(
            "this node is {own}, not {to}: the address of {to} in the membership is wrong or old"
        ));
    }
    if from == *own {
        return refused(format!("two nodes are named {own}: give each its own cluster.node_id"));
    }
    let at = headers.get(AT).and_then(|value| value.to_str().ok());
    if let (true, Some(at)) = (from > *own, at) {
        return Err(inner.knocked(&from, at));
    }
    if from > *own {
        return refused(format!("the node with the lower id dials: {own} dials {from}"));
    }
    Ok(from)
}

/// A place for its transport, if there is one.
fn enter(inner: &Rc<Inner>, peer: NodeId) -> Result<Place, Status> {
    if inner.ended.get() {
        return Err(Status::new(code::UNAVAILABLE, "the node is leaving"));
    }
    let (peers, of_peer) = inner.load(&peer);
    if of_peer >= LINK_TRANSPORTS_MAX || (of_peer == 0 && peers >= LINK_PEERS_MAX) {
        let text = format!("{of_peer} links of {peer} are open, of {peers} nodes");
        inner.refuse(&peer, &text);
        return Err(Status::new(code::RESOURCE_EXHAUSTED, text));
    }
    Ok(Place::new(inner, Transport::new(peer)))
}

/// What the peer is told of the end.
fn answer(inner: &Inner, peer: &NodeId, ended: Ended) -> Result<(), End> {
    inner.note_end(peer, &ended);
    match ended {
        Ended::Closed => Ok(()),
        Ended::Gone(_) | Ended::Refused(_) => Err(End::Gone),
        Ended::Fault(code, text) => Err(Status::new(code, text).into()),
        Ended::Overflow => Err(Status::new(code::RESOURCE_EXHAUSTED, "too much waited for this link").into()),
        Ended::Stalled => Err(End::TooSlow),
    }
}

impl Inner {
    /// Says why there is no link with a peer.
    pub(super) fn refuse(&self, peer: &NodeId, why: &str) {
        self.counts.refused.add(1);
        self.tell(LinkEvent::Refused { peer: peer.clone(), why: why.to_owned() });
    }

    /// Counts how a link ended, and says what the operator should know.
    pub(super) fn note_end(&self, peer: &NodeId, ended: &Ended) {
        match ended {
            Ended::Closed => {}
            Ended::Gone(why) => tracing::debug!(%peer, %why, "a link has ended"),
            Ended::Overflow => {
                self.counts.overflows.add(1);
                tracing::warn!(%peer, "a link is ended: too much waits for the peer");
            }
            Ended::Stalled => {
                self.counts.stalls.add(1);
                tracing::warn!(%peer, "a link is ended: the peer takes nothing");
            }
            Ended::Fault(_, why) => {
                self.counts.faults.add(1);
                self.refuse(peer, why);
            }
            Ended::Refused(status) => self.refuse(peer, &super::dial::remedy(status)),
        }
    }
}
