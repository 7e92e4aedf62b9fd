//! From accept to the answer of a member: reads the head, finds whom to dial, dials, hands the head over.
//!
//! What always holds: a head is bounded in bytes and time; it is forwarded as it came; each handshake has one outcome
//! that is counted; whoever is refused here gets an answer without JSON, after which every SDK tries again (spec trap
//! 1), but for a head that is none.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, connect, ipproto, recv, sockopt};

use super::Plan;
use super::pair::{NEVER, Opening, Pair, Side, Stage, Target, token};
use super::relay::{Hint, send_now};
use super::routes::Routes;
use super::run::{ET, Run};
use crate::ids::SlotId;
use crate::limits::{
    HEAD_BYTES_MAX, KEEP_ALIVE_MS, PROXY_ATTEMPTS_MAX, PROXY_AVOID_MS, PROXY_STATUS_BYTES,
    TCP_USER_TIMEOUT_MS,
};
use crate::metrics::proxy::ProxyMetric;
use crate::placement::view::NodeId;
use crate::session::handshake;
use crate::shard::socket::canonical;
use crate::shard::spare::is_exhaustion;
use crate::time::Mono;
use crate::wire::proxy;
use crate::wire::upgrade::{self, Head, HeadFault};

/// Room for a typical head, so that the buffer grows seldom.
const HEAD_BYTES_TYPICAL: usize = 1024;

/// Members that were not reached, each until when it comes after the others.
#[derive(Debug, Default)]
pub(super) struct Avoided(BTreeMap<NodeId, Mono>);

impl Avoided {
    /// Whether it is to be tried after the others. When its time is over one caller is told no, and the next ones not
    /// before that one's dial can have failed.
    fn is(&mut self, node: &NodeId, now: Mono, connect_ms: u64) -> bool {
        match self.0.get_mut(node) {
            Some(until) if *until <= now => {
                *until = now.plus_ms(connect_ms);
                false
            }
            found => found.is_some(),
        }
    }

    fn add(&mut self, node: &NodeId, now: Mono) {
        if self.0.insert(node.clone(), now.plus_ms(PROXY_AVOID_MS)).is_none() {
            tracing::warn!(member = %node, "not reached; its users go elsewhere until it is");
        }
    }

    fn remove(&mut self, node: &NodeId) {
        if !self.0.is_empty() && self.0.remove(node).is_some() {
            tracing::info!(member = %node, "reached again");
        }
    }

    /// Only members of these routes stay.
    pub(super) fn keep(&mut self, routes: &Routes) {
        let ranked = routes.ranked("");
        self.0.retain(|node, _| ranked.iter().any(|(member, _)| *member == node));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// What has come of a head.
enum Read {
    Partial,
    Whole(Head),
    Gone,
    Bad(HeadFault),
}

impl Opening {
    fn read(&mut self, client: impl AsFd) -> Read {
        loop {
            let room = HEAD_BYTES_MAX.saturating_sub(self.received.len()).clamp(1, HEAD_BYTES_TYPICAL);
            self.received.reserve(room);
            match recv(&client, spare_capacity(&mut self.received), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Read::Gone,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Read::Partial,
                Err(_) => return Read::Gone,
            }
            // What comes behind the head goes to the member with it: he judges it.
            match upgrade::parse(&self.received) {
                Ok(Some((head, _))) => return Read::Whole(head),
                Ok(None) => {}
                Err(fault) => return Read::Bad(fault),
            }
        }
    }
}

impl Run {
    /// Reads what is there of the head.
    pub(super) fn read_head(&mut self, id: SlotId) {
        let Some(Pair { client, opening: Some(opening), .. }) = self.pairs.get_mut(id) else {
            return;
        };
        match opening.read(client.as_fd()) {
            Read::Partial => {}
            Read::Gone => self.give_up(id, ProxyMetric::ClientGone),
            Read::Whole(head) => self.choose(id, &head),
            Read::Bad(fault) => {
                let outcome = match fault {
                    HeadFault::Malformed => ProxyMetric::BadHead,
                    HeadFault::TooLong => ProxyMetric::HeadTooLong,
                };
                self.refuse(id, outcome, &upgrade::bad_head(fault.status()));
            }
        }
    }

    /// Finds out whom to dial: the home first, then who would be it without those before. Who was not reached lately
    /// comes last. A head that names no user goes by the client's address.
    fn choose(&mut self, id: SlotId, head: &Head) {
        let Some(Pair { opening: Some(opening), .. }) = self.pairs.get_mut(id) else {
            return;
        };
        let user = handshake::user(head).unwrap_or_else(|| opening.peer.ip().to_string().into());
        let (mut targets, mut avoided) = (Vec::new(), Vec::new());
        for (rank, (node, addresses)) in self.routes.ranked(&user).into_iter().enumerate() {
            if targets.len() >= PROXY_ATTEMPTS_MAX || addresses.is_empty() {
                continue;
            }
            let is_avoided = self.avoided.is(node, self.now, self.plan.connect_ms);
            let list = if is_avoided { &mut avoided } else { &mut targets };
            let target =
                |address: &SocketAddr| Target { node: node.clone(), address: *address, is_home: rank == 0 };
            list.extend(addresses.iter().map(target));
        }
        targets.extend(avoided);
        targets.truncate(PROXY_ATTEMPTS_MAX);
        targets.reverse();
        opening.targets = targets;
        self.dial(id);
    }

    /// Dials the next member.
    pub(super) fn dial(&mut self, id: SlotId) {
        loop {
            let Some(Pair { opening: Some(opening), member, stage, .. }) = self.pairs.get_mut(id) else {
                return;
            };
            *member = None;
            opening.target = opening.targets.pop();
            let Some(target) = opening.target.clone() else {
                tracing::debug!(peer = %opening.peer, tried = opening.tried, "no member was reached");
                return self.refuse(id, ProxyMetric::Unreachable, &upgrade::bad_gateway(502));
            };
            opening.tried += 1;
            *stage = Stage::Dialling;
            match start_dial(target.address, &self.plan) {
                Ok((socket, connected)) => {
                    let watched = epoll::add(
                        &self.epoll,
                        &socket,
                        epoll::EventData::new_u64(token(id, Side::Member)),
                        ET,
                    );
                    *member = Some(socket);
                    if watched.is_err() {
                        return self.refuse(id, ProxyMetric::NoFiles, &upgrade::unavailable());
                    }
                    self.set_deadline(id, self.now.plus_ms(self.plan.connect_ms));
                    if connected {
                        self.hand_over(id);
                    }
                    return;
                }
                Err(error) if is_exhaustion(error) => {
                    return self.refuse(id, ProxyMetric::NoFiles, &upgrade::unavailable());
                }
                Err(error) => self.note_failed_dial(&target, error),
            }
        }
    }

    /// The kernel has news of a dial.
    pub(super) fn dialled(&mut self, id: SlotId) {
        let Some(Pair { member: Some(socket), opening: Some(opening), .. }) = self.pairs.get_mut(id) else {
            return;
        };
        match sockopt::socket_error(socket.as_fd()).and_then(|outcome| outcome) {
            Ok(()) => self.hand_over(id),
            Err(error) => {
                if let Some(target) = opening.target.clone() {
                    self.note_failed_dial(&target, error);
                }
                self.dial(id);
            }
        }
    }

    /// A member does not take the connection in time.
    pub(super) fn dial_timed_out(&mut self, id: SlotId) {
        if let Some(Pair { opening: Some(opening), .. }) = self.pairs.get_mut(id)
            && let Some(target) = opening.target.clone()
        {
            self.note_failed_dial(&target, Errno::TIMEDOUT);
        }
        self.dial(id);
    }

    fn note_failed_dial(&mut self, target: &Target, error: Errno) {
        self.tally.count(match error {
            Errno::CONNREFUSED => ProxyMetric::DialRefused,
            Errno::TIMEDOUT => ProxyMetric::DialTimeout,
            _ => ProxyMetric::DialFailed,
        });
        tracing::debug!(member = %target.node, address = %target.address, %error, "dial");
        self.avoided.add(&target.node, self.now);
    }

    /// Gives the member the head, as it came.
    fn hand_over(&mut self, id: SlotId) {
        let Some(Pair { member: Some(socket), opening: Some(opening), client, up, stage, .. }) =
            self.pairs.get_mut(id)
        else {
            return;
        };
        let mut bytes = Vec::new();
        if let Some(version) = self.plan.header {
            let at = rustix::net::getsockname(client).ok().and_then(|at| SocketAddr::try_from(at).ok());
            bytes = proxy::header(version, opening.peer, canonical(at.unwrap_or(opening.peer)));
        }
        bytes.append(&mut opening.received);
        opening.received = Vec::new();
        let sent = match send_now(socket.as_fd(), &bytes) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => 0,
            Err(error) => {
                // Connected and reset at once; the head may have arrived, so nobody else gets it.
                tracing::debug!(peer = %opening.peer, %error, "the member does not take the head");
                return self.refuse(id, ProxyMetric::BadAnswer, &upgrade::bad_gateway(502));
            }
        };
        up.hold(bytes.get(sent..).unwrap_or_default());
        *stage = Stage::Answer;
        self.tally.add(ProxyMetric::BytesUp, bytes.len() as u64);
        if let Some(target) = &opening.target {
            let metric = if target.is_home { ProxyMetric::DialHome } else { ProxyMetric::DialElsewhere };
            self.tally.count(metric);
            self.avoided.remove(&target.node);
            tracing::debug!(peer = %opening.peer, member = %target.node, home = target.is_home, "handed over");
        }
        self.set_deadline(id, self.now.plus_ms(self.plan.answer_ms));
    }

    /// Looks whether the member has begun to answer; from then on bytes are moved. One that ends within its status has
    /// not answered: what is there says nothing to a client.
    pub(super) fn look_at_answer(&mut self, id: SlotId, hint: Hint) {
        let Some(Pair { member: Some(socket), stage, opening, .. }) = self.pairs.get_mut(id) else {
            return;
        };
        let mut start = [0; PROXY_STATUS_BYTES];
        match recv(&*socket, &mut start[..], RecvFlags::DONTWAIT | RecvFlags::PEEK) {
            Ok((n, _)) if n == start.len() => {
                let upgraded = start.ends_with(b" 101");
                *stage = Stage::Open;
                *opening = None;
                self.openings -= 1;
                self.tally.count(if upgraded { ProxyMetric::Upgraded } else { ProxyMetric::RefusedByMember });
                self.set_deadline(id, NEVER);
                self.pump_both(id);
            }
            Ok((n, _)) if n > 0 && hint == Hint::Data => {}
            Err(Errno::AGAIN | Errno::INTR) => {}
            _ => self.refuse(id, ProxyMetric::BadAnswer, &upgrade::bad_gateway(502)),
        }
    }

    /// The member has the head and says nothing.
    pub(super) fn answer_timed_out(&mut self, id: SlotId) {
        if let Some(Pair { opening: Some(opening), .. }) = self.pairs.get_mut(id)
            && let Some(target) = opening.target.clone()
        {
            tracing::warn!(member = %target.node, peer = %opening.peer, "no answer to a handshake");
            self.avoided.add(&target.node, self.now);
        }
        self.refuse(id, ProxyMetric::NoAnswer, &upgrade::bad_gateway(504));
    }
}

/// A socket on its way to a member; `true`: it is there already.
fn start_dial(address: SocketAddr, plan: &Plan) -> Result<(OwnedFd, bool), Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Before connect: the receive buffer decides the window scale.
    sockopt::set_socket_send_buffer_size(&fd, plan.buffers.send_bytes)?;
    sockopt::set_socket_recv_buffer_size(&fd, plan.buffers.receive_bytes)?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    sockopt::set_socket_keepalive(&fd, true)?;
    sockopt::set_tcp_keepidle(&fd, Duration::from_millis(KEEP_ALIVE_MS))?;
    sockopt::set_tcp_keepintvl(&fd, Duration::from_millis(KEEP_ALIVE_MS))?;
    sockopt::set_tcp_user_timeout(&fd, TCP_USER_TIMEOUT_MS)?;
    match connect(&fd, &address) {
        Ok(()) => Ok((fd, true)),
        Err(Errno::INPROGRESS) => Ok((fd, false)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_was_not_reached_comes_last_for_so_long_and_then_one_tries_it() {
        let (node, connect_ms) = (NodeId::new("a").unwrap(), 70);
        let mut avoided = Avoided::default();
        let mut is = |at| avoided.is(&node, Mono(at), connect_ms);
        assert!(!is(0), "nothing is known of it");
        avoided.add(&node, Mono(0));
        let mut is = |at| avoided.is(&node, Mono(at), connect_ms);
        assert!(is(PROXY_AVOID_MS - 1));
        assert!(!is(PROXY_AVOID_MS), "one tries it");
        assert!(
            is(PROXY_AVOID_MS) && is(PROXY_AVOID_MS + connect_ms - 1),
            "the others wait for what he finds"
        );
        assert!(!is(PROXY_AVOID_MS + connect_ms));
    }
}
