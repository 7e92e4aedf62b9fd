//! The life of the links (L1 to L4): hello, beats, generations, and how one ends.

use super::Node;
use super::frame::{Body, Frame, Generation, Hello};
use super::io::{Count, Output};
use super::peer::{Greeting, Link, Peer, Up};
use super::rules::Rule;
use crate::limits::{BEAT_MS, COVER_MS, LINK_KNOWS_MAX};
use crate::placement::view::{Incarnation, NodeId};

impl Node {
    /// A transport is open that this node dialled. A generation before it ends first.
    pub(super) fn opened(&mut self, to: NodeId) {
        self.end_link(&to);
        let now = self.now.mono;
        let hello = self.hello();
        self.dials += 1;
        let count = self.dials;
        let peer = self.peers.entry(to.clone()).or_default();
        peer.link = Link::Dialling { count, since: now };
        let generation = Generation { dialler: self.me.incarnation, count, acceptor: Incarnation(0) };
        self.out.push(Output::Send(to, Frame { generation, seen: 0, body: Body::Hello(hello) }));
    }

    fn hello(&mut self) -> Hello {
        let knows = self.known();
        if knows.len() > LINK_KNOWS_MAX {
            self.count(Count::KnowsCut); // on the wire
        }
        Hello {
            node: self.me.node_id.clone(),
            incarnation: self.me.incarnation,
            first_epoch: self.me.first_epoch,
            registered_epoch: self.registered_epoch,
            view_epoch: self.view.epoch(),
            fingerprint: self.fingerprint(),
            knows,
        }
    }

    /// A frame from the transport of `from`.
    pub(super) fn frame(&mut self, from: NodeId, frame: Frame) {
        match frame.body {
            Body::Hello(hello) => return self.take_hello(&from, frame.generation, &hello),
            Body::HelloAck(hello) => return self.take_hello_ack(&from, frame.generation, &hello),
            _ => {}
        }
        let now = self.now.mono;
        let unchecked = !self.rules.hold(Rule::GenerationChecked);
        let Some(up) = self.peers.get_mut(&from).and_then(Peer::up_mut) else {
            return self.count(Count::StaleFrame);
        };
        if frame.generation != up.generation {
            if !unchecked {
                return self.count(Count::StaleFrame);
            }
        } else if !up.take_echo(frame.seen, now) {
            self.count(Count::StaleLink);
            return self.end_link(&from);
        }
        self.heard_from(&from, frame.seen);
        self.body(&from, frame.body);
    }

    /// A fresh frame of the present generation: the peer has recorded this node.
    fn heard_from(&mut self, from: &NodeId, seen: u64) {
        let Some(peer) = self.peers.get_mut(from) else { return };
        peer.contact = Some(self.now.mono);
        if let Some(greeting) = &mut peer.greeted {
            greeting.mutual = true;
            greeting.echoed |= seen > 0;
        }
    }

    fn body(&mut self, from: &NodeId, body: Body) {
        match body {
            Body::Hello(_) | Body::HelloAck(_) => {}
            Body::Beat(number) => {
                if let Some(up) = self.peers.get_mut(from).and_then(Peer::up_mut) {
                    up.heard = up.heard.max(number);
                }
            }
            Body::Claim(claim) => self.claimed(from, claim),
            Body::ClaimAck { number, time } => self.claim_acked(from, number, time),
            Body::Confirm { number, key } => self.confirmed(from, number, key),
            Body::Unclaim(number) => self.unclaimed(from, number),
            Body::Declare { number, fingerprint } => self.declared(from, number, fingerprint),
            Body::DeclareAck(number) => self.declare_acked(from, number),
            Body::Route(copy) => self.routed(from, copy),
            Body::RouteReply { leg, verdicts } => self.route_replied(from, leg, verdicts),
            Body::NotHome { leg, recipients, seat } => self.not_home(from, leg, recipients, &seat),
            Body::Deliver { copy, attempt } => self.deliver_for(from, copy, attempt),
            Body::DeliverReply { leg, answers } => self.deliver_replied(from, leg, answers),
            Body::Kick { number, winner } => self.kick_own(number, winner),
            Body::Met(key) => self.met(&key),
            Body::Marks(marks) => self.take_marks(marks),
            Body::Goodbye => self.proven_gone_by_itself(from),
        }
    }

    fn take_hello(&mut self, from: &NodeId, asked: Generation, hello: &Hello) {
        let generation = Generation { acceptor: self.me.incarnation, ..asked };
        let stale = self.peers.get(from).is_some_and(|peer| {
            let older_life =
                |known: Option<Incarnation>| known.is_some_and(|known| known > hello.incarnation);
            older_life(peer.greeted.map(|greeting| greeting.incarnation))
                || peer.gone.is_some_and(|gone| gone >= hello.incarnation)
                || peer.newest.is_some_and(|newest| newest >= generation)
        });
        if hello.node != *from || stale {
            self.count(Count::StaleFrame);
            return self.out.push(Output::Close(from.clone(), generation));
        }
        self.end_link(from);
        self.greeted_by(hello, Mutual::NotYet);
        let now = self.now.mono;
        let peer = self.peers.entry(from.clone()).or_default();
        peer.newest = Some(generation);
        peer.link = Link::Up(Up::new(generation, now, now));
        let answer = self.hello();
        self.send(from, Body::HelloAck(answer));
        self.link_is_up(from);
    }

    fn take_hello_ack(&mut self, from: &NodeId, generation: Generation, hello: &Hello) {
        let now = self.now.mono;
        let dialling = self.peers.get(from).map(|peer| &peer.link);
        let Some(&Link::Dialling { count, since }) = dialling else {
            return self.count(Count::StaleFrame);
        };
        if hello.node != *from || generation.dialler != self.me.incarnation || generation.count != count {
            return self.count(Count::StaleFrame);
        }
        let known = self.peers.get(from).and_then(|peer| peer.greeted).map(|greeting| greeting.incarnation);
        if now.since_ms(since) > COVER_MS || known.is_some_and(|known| known > hello.incarnation) {
            self.count(Count::StaleLink);
            if let Some(peer) = self.peers.get_mut(from) {
                peer.link = Link::Down;
            }
            return self.out.push(Output::Close(from.clone(), generation));
        }
        self.greeted_by(hello, Mutual::Yes);
        let peer = self.peers.entry(from.clone()).or_default();
        let mut up = Up::new(generation, since, now);
        up.take_echo(0, now);
        peer.link = Link::Up(up);
        self.link_is_up(from);
    }

    fn greeted_by(&mut self, hello: &Hello, mutual: Mutual) {
        let now = self.now.mono;
        let peer = self.peers.entry(hello.node.clone()).or_default();
        let before = peer.greeted.filter(|greeting| greeting.incarnation == hello.incarnation);
        peer.greeted = Some(Greeting {
            incarnation: hello.incarnation,
            registered_epoch: hello
                .registered_epoch
                .max(before.map_or(hello.registered_epoch, |g| g.registered_epoch)),
            mutual: mutual == Mutual::Yes || before.is_some_and(|greeting| greeting.mutual),
            echoed: before.is_some_and(|greeting| greeting.echoed),
        });
        peer.knows.clone_from(&hello.knows);
        // A Hello proves nothing of its age, nor that what this node says arrives: the fence must not wait for it (M9).
        peer.contact = if mutual == Mutual::Yes { Some(now) } else { peer.contact.or(Some(now)) };
    }

    /// Full replay (L1): what the peer must know, the promise, then a beat, so that it learns that it is recorded.
    fn link_is_up(&mut self, with: &NodeId) {
        if let Some(peer) = self.peers.get_mut(with) {
            if self.rules.hold(Rule::ClaimsDieWithLink) {
                peer.drop_claims();
            }
            peer.promises.clear();
            peer.promised = 0;
            peer.void_at = None;
            peer.down_since = None;
        }
        if !self.view.members().is_empty() {
            self.promise(with);
        }
        self.send_beat(with);
    }

    fn send_beat(&mut self, to: &NodeId) {
        let now = self.now.mono;
        if let Some(up) = self.peers.get_mut(to).and_then(Peer::up_mut) {
            let number = up.beat(now);
            self.send(to, Body::Beat(number));
        }
    }

    pub(super) fn beat(&mut self) {
        let now = self.now.mono;
        let late = |peer: &Peer| peer.up().is_some_and(|up| now.since_ms(up.beat_at()) >= BEAT_MS);
        let due: Vec<NodeId> = self.peers.iter().filter(|(_, p)| late(p)).map(|(id, _)| id.clone()).collect();
        for to in due {
            self.send_beat(&to);
        }
    }

    /// Links whose peer has not echoed a young enough beat (L3).
    pub(super) fn expire_links(&mut self) {
        let now = self.now.mono;
        let expired = |peer: &Peer| match &peer.link {
            Link::Down => false,
            Link::Dialling { since, .. } => now.since_ms(*since) > COVER_MS,
            Link::Up(up) => now >= up.covered_until() && self.rules.hold(Rule::CoverLeased),
        };
        let ended: Vec<NodeId> =
            self.peers.iter().filter(|(_, p)| expired(p)).map(|(id, _)| id.clone()).collect();
        for peer in ended {
            self.count(Count::StaleLink);
            self.end_link(&peer);
        }
    }

    /// The transport of that generation has ended.
    pub(super) fn closed(&mut self, peer: &NodeId, generation: Generation) {
        let (dialler, count) = match self.peers.get(peer).map(|peer| &peer.link) {
            Some(Link::Up(up)) => (up.generation.dialler, up.generation.count),
            Some(Link::Dialling { count, .. }) => (self.me.incarnation, *count),
            _ => return,
        };
        if (dialler, count) == (generation.dialler, generation.count) {
            self.end_link(peer);
        }
    }

    /// Ends the present generation (L4): what the peer claimed goes at once, what was promised to it stays until void.
    pub(super) fn end_link(&mut self, with: &NodeId) {
        let now = self.now.mono;
        let Some(peer) = self.peers.get_mut(with) else { return };
        let generation = match &peer.link {
            Link::Down => return,
            Link::Dialling { count, .. } => {
                Generation { dialler: self.me.incarnation, count: *count, acceptor: Incarnation(0) }
            }
            Link::Up(up) => up.generation,
        };
        peer.down(now);
        if self.rules.hold(Rule::ClaimsDieWithLink) {
            peer.drop_claims();
        }
        if !self.rules.hold(Rule::VoidWait) {
            peer.promises.clear();
        }
        self.out.push(Output::Close(with.clone(), generation));
        self.strays.link_down(with);
        self.routes_lost(with);
        self.copies_lost(with);
        self.strays.recheck = true;
    }
}

/// Whether the peer is known to have recorded this node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mutual {
    Yes,
    NotYet,
}
