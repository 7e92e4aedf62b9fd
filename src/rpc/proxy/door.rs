//! Who is let in, who is refused, and how: limits, want of descriptors, drain.
//!
//! What always holds: a client that is refused gets an answer where the system still gives a descriptor, and lingers
//! for a bounded time and number.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData};
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, SocketFlags, acceptfrom_with, recv};

use super::deadlines::Due;
use super::pair::{Pair, Place, Side, Stage, token};
use super::relay::send_now;
use super::run::{ET, Run};
use crate::admission::AddressVerdict;
use crate::ids::SlotId;
use crate::limits::{
    ACCEPT_BATCH_MAX, ACCEPT_PAUSE_MS, LINGER_BYTES, LINGER_MS, LISTEN_QUEUE_MAX, PROXY_LINGERING_MAX,
    PROXY_OPENINGS_MAX,
};
use crate::metrics::proxy::ProxyMetric;
use crate::shard::socket::canonical;
use crate::shard::spare::is_exhaustion;
use crate::time::Mono;
use crate::wire::upgrade;

impl Run {
    pub(super) fn accept(&mut self) {
        let Some(from) = self.accept_from else {
            return;
        };
        if from > self.now {
            return;
        }
        for _ in 0..ACCEPT_BATCH_MAX {
            if self.openings >= PROXY_OPENINGS_MAX {
                return self.tally.count(ProxyMetric::AcceptWaits);
            }
            if !self.accept_one() {
                return;
            }
        }
    }

    /// `false`: nobody waits, or not now.
    fn accept_one(&mut self) -> bool {
        let Some(listener) = &self.listener else {
            self.accept_from = None;
            return false;
        };
        self.is_published = false;
        match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((socket, peer)) => {
                self.tally.count(ProxyMetric::Accepted);
                match peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                    Some(peer) => self.welcome(socket, canonical(peer)),
                    None => self.tally.count(ProxyMetric::AcceptErrors),
                }
                true
            }
            Err(Errno::AGAIN) => {
                self.accept_from = None;
                false
            }
            // accept(2): errors of the connection itself come out here; the next one may be fine.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {
                self.tally.count(ProxyMetric::AcceptErrors);
                true
            }
            Err(error) => {
                self.tally.count(ProxyMetric::AcceptErrors);
                tracing::warn!(%error, "accept failed; looking again in {ACCEPT_PAUSE_MS} ms");
                if is_exhaustion(error) {
                    let refused = self.spare.refuse(listener, ACCEPT_BATCH_MAX) as u64;
                    self.tally.add(ProxyMetric::Accepted, refused);
                    self.tally.add(ProxyMetric::NoFiles, refused);
                }
                self.accept_from = Some(self.now.plus_ms(ACCEPT_PAUSE_MS));
                false
            }
        }
    }

    fn welcome(&mut self, socket: OwnedFd, peer: SocketAddr) {
        let admission = &self.plan.admission;
        let (place, refused) = match () {
            () if self.draining.is_some() => (Place::None, Some(ProxyMetric::Draining)),
            () if !admission.enter() => (Place::None, Some(ProxyMetric::PairsFull)),
            () => match admission.enter_address(peer.ip()) {
                AddressVerdict::Free => (Place::Taken, None),
                AddressVerdict::Counted(place) => (Place::OfAddress(place), None),
                AddressVerdict::Full => (Place::Taken, Some(ProxyMetric::AddressFull)),
            },
        };
        let Ok(id) = self.pairs.insert(Pair::new(socket, peer, place)) else {
            return; // there is room for 2^32
        };
        self.openings += 1;
        let watched = self.pairs.get(id).map(|pair| {
            epoll::add(&self.epoll, &pair.client, EventData::new_u64(token(id, Side::Client)), ET)
        });
        match (refused, watched) {
            (Some(outcome), _) => self.refuse(id, outcome, &upgrade::unavailable()),
            (None, Some(Ok(()))) => {
                self.set_deadline(id, self.now.plus_ms(self.plan.head_ms));
                self.read_head(id);
            }
            _ => self.refuse(id, ProxyMetric::NoFiles, &upgrade::unavailable()),
        }
    }

    /// Answers once, as far as the socket takes it, and gives the client some time to read it.
    pub(super) fn refuse(&mut self, id: SlotId, outcome: ProxyMetric, answer: &[u8]) {
        let may_linger = self.lingering < PROXY_LINGERING_MAX;
        let Some(pair) = self.pairs.get_mut(id) else {
            return;
        };
        if let Some(opening) = pair.opening.take() {
            tracing::debug!(peer = %opening.peer, ?outcome, "refused");
        }
        pair.member = None;
        let place = std::mem::replace(&mut pair.place, Place::None);
        let told = send_now(pair.client.as_fd(), answer).is_ok();
        let shut = rustix::net::shutdown(&pair.client, Shutdown::Write).is_ok();
        self.tally.count(outcome);
        self.give_back(place);
        if told && shut && !may_linger {
            self.tally.count(ProxyMetric::LingeringFull);
        }
        if !(told && shut && may_linger) {
            return self.remove(id);
        }
        if let Some(pair) = self.pairs.get_mut(id) {
            pair.stage = Stage::Lingering;
            self.openings -= 1;
            self.lingering += 1;
            self.set_deadline(id, self.now.plus_ms(LINGER_MS));
            self.discard(id);
        }
    }

    /// Reads and forgets what a refused client still sends: a socket closed over unread bytes resets, which would take
    /// the answer away from him.
    pub(super) fn discard(&mut self, id: SlotId) {
        let Some(pair) = self.pairs.get(id) else {
            return;
        };
        let mut scratch = [0; 4096];
        for _ in 0..LINGER_BYTES / scratch.len() {
            match recv(&pair.client, &mut scratch[..], RecvFlags::DONTWAIT) {
                Ok((_, n)) if n > 0 => {}
                Err(Errno::AGAIN | Errno::INTR) => return,
                _ => break,
            }
        }
        self.remove(id);
    }

    /// Who is in the kernel's queue already gets an answer: closing the listener would reset him.
    pub(super) fn drain(&mut self, deadline: Mono) {
        self.deadlines.set(deadline, Due::Drain); // ends the wait
        if self.draining.replace(deadline).is_some() {
            return;
        }
        for _ in 0..LISTEN_QUEUE_MAX {
            if !self.accept_one() {
                break;
            }
        }
        self.listener = None;
        let reading: Vec<SlotId> =
            self.pairs.iter().filter(|(_, pair)| pair.stage == Stage::Head).map(|(id, _)| id).collect();
        for id in reading {
            self.refuse(id, ProxyMetric::Draining, &upgrade::unavailable());
        }
    }
}
