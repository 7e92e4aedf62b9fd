//! Who dials is who has the lower id; so a node that the other side does not know, or does not reach, would wait in
//! silence. It asks to be dialled (*knocks*): the same call, with the address at which it is reached.
//!
//! What always holds: a knock makes no link by itself, it is answered by what its peer does about it, in words for the
//! operator of the node that knocked; links that knocks lead to are as any other, and so is what they must show.

use std::rc::Rc;

use super::dial;
use super::target::{Duty, Target};
use super::{Inner, LinkEvent};
use crate::config::Endpoint;
use crate::limits::{LINK_GUESTS_MAX, LINK_KNOCK_MS};
use crate::placement::view::NodeId;
use crate::rpc::channel::backoff::Backoff;
use crate::wire::grpc::{Status, code};

/// Who knocks is not among the members.
const UNKNOWN: i32 = code::NOT_FOUND;

/// Asks a peer of a lower id to dial this node, as long as there is no link.
pub(super) async fn keep(inner: Rc<Inner>, target: Rc<Target>) {
    let mut pauses = Backoff::new(LINK_KNOCK_MS, LINK_KNOCK_MS, inner.seed(&target.peer));
    loop {
        target.pause(pauses.pause_ms()).await;
        if target.is_stopped() {
            return;
        }
        if !inner.of_peer(&target.peer).is_empty() {
            continue;
        }
        let answered = dial::attempt(&inner, &target, &inner.counts.knocks).await;
        if target.is_stopped() || !inner.of_peer(&target.peer).is_empty() {
            continue; // it came meanwhile
        }
        if let Err(missed) = answered {
            if missed.code == Some(UNKNOWN) {
                inner.tell(LinkEvent::Uncounted(target.peer.clone()));
            }
            inner.refuse(&target.peer, &missed.why);
        }
    }
}

impl Inner {
    /// A peer of a higher id asks to be dialled at `at`: what is done about it.
    pub(super) fn knocked(self: &Rc<Self>, from: &NodeId, at: &str) -> Status {
        let own = &self.plan.own;
        let said = |target: &Target| {
            let why = target.missed().map(|why| format!("; the last attempt: {why}"));
            let text = format!("{own} dials {from} at {}{}", target.address, why.unwrap_or_default());
            Status::new(code::FAILED_PRECONDITION, text)
        };
        if self.ended.get() {
            return Status::new(code::UNAVAILABLE, "the node is leaving");
        }
        if let Some(target) = self.targets.borrow().get(from).filter(|target| !target.address.is_empty()) {
            return said(target);
        }
        if Endpoint::parse(at).is_none() {
            let text = format!("{}, and {at:?} is no HOST:PORT", unknown(own, from));
            return Status::new(code::INVALID_ARGUMENT, text);
        }
        let mut guests = self.guests.borrow_mut();
        let before = guests.get(from).filter(|guest| !guest.is_stopped() || guest.address == at).cloned();
        if let Some(guest) = before.as_ref().filter(|guest| !guest.is_stopped()) {
            return Status { code: UNKNOWN, ..said(guest) };
        }
        guests.retain(|id, guest| !guest.is_stopped() || id == from);
        if !guests.contains_key(from) && guests.len() >= LINK_GUESTS_MAX {
            let text = format!("{}, and dials too many such nodes", unknown(own, from));
            self.counts.refused.add(1);
            return Status::new(code::RESOURCE_EXHAUSTED, text);
        }
        let guest = Target::new(from.clone(), at.to_owned(), Duty::Once);
        guest.note(before.as_ref().and_then(|before| before.missed()));
        if before.is_none() {
            tracing::warn!(
                peer = %from, at,
                "a node that has no address among this node's members is dialled, as it asks: is it missing in \
                 cluster.members?"
            );
        }
        guests.insert(from.clone(), Rc::clone(&guest));
        drop(guests);
        monoio::spawn(dial::keep(Rc::clone(self), Rc::clone(&guest)));
        let mut status = said(&guest);
        status.message = format!("{}; {}", unknown(own, from), status.message);
        status.code = UNKNOWN;
        status
    }
}

fn unknown(own: &NodeId, from: &NodeId) -> String {
    format!("{own} has no address of {from} among its members: is its line missing in the list of {own}?")
}
