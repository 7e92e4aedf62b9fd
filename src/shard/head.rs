//! One handshake, from accept to the hub: reads the request head, checks its arguments, refuses or passes on.
//!
//! A head that is there at accept is answered at once; else a short task waits for the rest of it, and ends with the
//! handshake. Not here: the token check and the upgrade, which the owner's hub does. What always holds: a head is
//! bounded in bytes and time, a connection changes shards only before its 101 and with nothing in flight, and every
//! handshake that ends here is counted once.

use std::ops::ControlFlow;
use std::rc::Rc;

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown};

use super::clock;
use super::door::{Arrival, Door, Guest, Place, Stage};
use super::mailbox::HandOver;
use super::pulse::Activity;
use super::socket::Socket;
use crate::ids::SlotId;
use crate::limits::{HEAD_BYTES_MAX, HEAD_DEADLINE_MS, LINGER_BYTES, LINGER_MS};
use crate::metrics::Metric;
use crate::session::handshake::origin::address_text;
use crate::session::handshake::{Judgement, Login, Refusal, judge};
use crate::wire::proxy::{self, Source};
use crate::wire::upgrade::{self, Head};

/// Room for a typical head, so that the buffer grows seldom.
const HEAD_BYTES_TYPICAL: usize = 1024;

/// Why a handshake ends here, and what the client is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct No {
    outcome: Metric,
    answer: Option<Vec<u8>>,
}

impl No {
    /// A refusal that the client may try again elsewhere or later: 503 without JSON (spec trap 1).
    pub(super) fn busy() -> Self {
        Self::over(Metric::HandshakeBusy)
    }

    /// As [`No::busy`], counted as the limit that it met.
    pub(super) fn over(limit: Metric) -> Self {
        Self::answered(limit, upgrade::unavailable())
    }

    fn answered(outcome: Metric, answer: Vec<u8>) -> Self {
        Self { outcome, answer: Some(answer) }
    }

    fn silent(outcome: Metric) -> Self {
        Self { outcome, answer: None }
    }
}

/// Takes an accepted connection to the hub of its user's shard, or refuses it. A handshake that has to wait is known to
/// the door before its task runs, so that a drain does not overlook it.
pub(super) fn greet(door: &Rc<Door>, mut guest: Guest) {
    let mut reader = Reader::new(door, &guest);
    match reader.read(door, &guest) {
        Ok(Some(read)) => match decide(door, &mut guest, &read) {
            Ok(login) => pass_on(door, guest, login),
            Err(no) => refuse(door, guest, no),
        },
        Err(Stop::No(no)) => refuse(door, guest, no),
        Err(Stop::Ended) => refuse(door, guest, No::silent(Metric::HandshakeGone)),
        Ok(None) => {
            let deadline = clock::now().mono.plus_ms(HEAD_DEADLINE_MS);
            match door.begin(&guest.socket, Stage::Head, deadline) {
                Some(id) => drop(monoio::spawn(converse(Rc::clone(door), id, guest, reader))),
                None => door.count(Metric::HandshakeBusy),
            }
        }
    }
}

/// Refuses a connection that is beyond its head: no room in the hub or in the owner's lane.
pub(super) fn refuse(door: &Rc<Door>, guest: Guest, no: No) {
    let deadline = clock::now().mono.plus_ms(LINGER_MS);
    let Some(id) = door.begin(&guest.socket, Stage::Lingering, deadline) else {
        return door.count(no.outcome);
    };
    let door = Rc::clone(door);
    monoio::spawn(async move {
        say_no(&door, id, &guest, no).await;
        door.end(id);
    });
}

async fn converse(door: Rc<Door>, id: SlotId, mut guest: Guest, mut reader: Reader) {
    let read = loop {
        guest.socket.readable().await;
        match reader.read(&door, &guest) {
            Ok(None) => {}
            Ok(Some(read)) => break Ok(read),
            Err(Stop::Ended) => break Err(why_it_ended(&door, id)),
            Err(Stop::No(no)) => break Err(no),
        }
    };
    drop(reader);
    let verdict = read.and_then(|read| decide(&door, &mut guest, &read));
    match verdict {
        Ok(login) => {
            door.end(id);
            pass_on(&door, guest, login);
        }
        Err(no) => {
            say_no(&door, id, &guest, no).await;
            door.end(id);
        }
    }
}

/// What has come of a head.
struct Reader {
    received: Vec<u8>,
    /// What a PROXY header has said; `None`: it has to come yet.
    source: Option<Source>,
}

/// Why a head is not read on.
enum Stop {
    /// Nothing more will come.
    Ended,
    No(No),
}

impl Reader {
    fn new(door: &Door, guest: &Guest) -> Self {
        let source = (!door.plan.proxies.expect_header(guest.peer.ip())).then_some(Source::Unsaid);
        Self { received: Vec::new(), source }
    }

    /// Reads what is there of the PROXY header, if one has to come, and of the request head. `None`: not all of it.
    fn read(&mut self, door: &Door, guest: &Guest) -> Result<Option<(Source, Head)>, Stop> {
        door.plan.pulse.enter(Activity::Head, None);
        loop {
            match read_more(&guest.socket, &mut self.received) {
                Ok(0) => return Err(Stop::Ended),
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(None),
                Err(_) => return Err(Stop::No(No::silent(Metric::HandshakeGone))),
            }
            if let Some(read) = self.parse().map_err(Stop::No)? {
                return Ok(Some(read));
            }
        }
    }

    fn parse(&mut self) -> Result<Option<(Source, Head)>, No> {
        let source = match self.source {
            Some(source) => source,
            None => match proxy::parse(&self.received) {
                Ok(Some((said, n))) => {
                    self.received.drain(..n);
                    *self.source.insert(said)
                }
                Ok(None) => return Ok(None),
                Err(_) => return Err(No::silent(Metric::HandshakeProxy)),
            },
        };
        match upgrade::parse(&self.received) {
            // Bytes before the 101 (spec 1.1): upstream closes, and there must be none to carry to another shard.
            Ok(Some((_, n))) if n < self.received.len() => Err(No::silent(Metric::HandshakeBad)),
            Ok(Some((head, _))) => Ok(Some((source, head))),
            Ok(None) => Ok(None),
            Err(fault) => {
                let outcome = match fault {
                    upgrade::HeadFault::Malformed => Metric::HandshakeBad,
                    upgrade::HeadFault::TooLong => Metric::HandshakeTooLong,
                };
                Err(No::answered(outcome, upgrade::bad_head(fault.status())))
            }
        }
    }
}

/// Appends what is there. The parser refuses a head of `HEAD_BYTES_MAX`, so there is always room for a byte.
fn read_more(socket: &Socket, received: &mut Vec<u8>) -> Result<usize, Errno> {
    let room = HEAD_BYTES_MAX.saturating_sub(received.len()).clamp(1, HEAD_BYTES_TYPICAL);
    received.reserve(room);
    let (_, n) = rustix::net::recv(socket, spare_capacity(received), RecvFlags::DONTWAIT)?;
    Ok(n)
}

/// Nothing more will come: the client left, or the deadline or a drain ended our reading.
fn why_it_ended(door: &Door, id: SlotId) -> No {
    if door.stage(id) == Stage::Late {
        No::answered(Metric::HandshakeTooSlow, upgrade::bad_head(408))
    } else if door.is_draining() {
        No::busy()
    } else {
        No::silent(Metric::HandshakeGone)
    }
}

/// Spec 1.3, checks 1 to 3; before them the limit of the address that a proxy tells.
fn decide(door: &Door, guest: &mut Guest, (source, head): &(Source, Head)) -> Result<Box<Login>, No> {
    if door.is_draining() {
        return Err(No::busy());
    }
    if guest.place.is_none() {
        let full = Refusal {
            code: 1601,
            message: "ConnOverMaxNumLimit".into(),
            detail: "over max conn num limit".into(),
        };
        return Err(No::answered(Metric::HandshakeFull, upgrade::refused(&full.json())));
    }
    let proxied = door.plan.proxies.contain(guest.peer.ip());
    if proxied && !meet_client(door, guest, (*source, head)) {
        return Err(No::over(Metric::HandshakeAddressFull));
    }
    match judge(head, door.plan.rules.get()) {
        Judgement::Login(login) if proxied => Ok(login),
        Judgement::Login(mut login) => {
            login.forwarded_for = None; // nobody that is asked has said it
            Ok(login)
        }
        Judgement::Refuse(refusal) => {
            let client = address_text(guest.client);
            tracing::debug!(peer = %guest.peer, %client, code = refusal.code, "bad login arguments");
            Err(No::answered(Metric::HandshakeArgs, upgrade::refused(&refusal.json())))
        }
        Judgement::Redirect(location) => Err(No::answered(Metric::HandshakeArgs, upgrade::moved(&location))),
    }
}

/// Finds out who the client behind a proxy is. `false`: its address has as many connections as it may. A proxy that
/// speaks for itself is not limited.
fn meet_client(door: &Door, guest: &mut Guest, (source, head): (Source, &Head)) -> bool {
    let proxies = &door.plan.proxies;
    guest.client = proxies.client(guest.peer, source, head.forwarded_for.as_deref());
    let address = guest.client.ip();
    proxies.contain(address) || guest.place.as_mut().is_none_or(|place| place.enter_address(address))
}

/// To our own loop, or to the shard that owns the user.
fn pass_on(door: &Rc<Door>, guest: Guest, login: Box<Login>) {
    let owner = door.plan.ownership.owner(&login.user);
    if owner == door.plan.me {
        return door.arrive(Arrival { guest, login });
    }
    let Guest { socket, peer, client, place } = guest;
    let (Ok(socket), Some(address)) = (Rc::try_unwrap(socket), door.plan.shards.get(usize::from(owner.0)))
    else {
        tracing::error!(%peer, "a connection could not be handed over"); // its head task was its only owner
        return door.count(Metric::HandshakeBusy);
    };
    let counted = place.as_ref().and_then(Place::address);
    let sent =
        address.hand_over(HandOver { socket: socket.release(), peer, client, address: counted, login });
    match (sent, place) {
        (Ok(()), place) => {
            tracing::trace!(%peer, owner = owner.0, "handed over");
            door.count(Metric::HandOversOut);
            place.into_iter().for_each(Place::pass_on);
        }
        (Err(back), place) => match Socket::adopt_nonblocking(back.socket) {
            Ok(socket) => {
                let guest = Guest { socket: Rc::new(socket), peer, client, place };
                refuse(door, guest, No::busy());
            }
            Err(_) => door.count(Metric::HandshakeBusy),
        },
    }
}

/// Answers once, as far as the socket takes it, and gives the client some time to read it: a socket closed with unread
/// bytes sends a reset, which takes the answer away from the client.
async fn say_no(door: &Door, id: SlotId, guest: &Guest, no: No) {
    let client = address_text(guest.client);
    tracing::debug!(peer = %guest.peer, %client, outcome = ?no.outcome, "handshake refused");
    door.count(no.outcome);
    let Some(answer) = no.answer else { return };
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if rustix::net::send(&*guest.socket, &answer, flags).is_err() {
        return;
    }
    guest.socket.shut_down(Shutdown::Write);
    door.set_stage(id, Stage::Lingering, clock::now().mono.plus_ms(LINGER_MS));
    let mut budget = LINGER_BYTES;
    while discard(&guest.socket, &mut budget).is_continue() {
        guest.socket.readable().await;
    }
}

/// Reads and forgets what is there. `Break`: the client closed, or sends too much.
fn discard(socket: &Socket, budget: &mut usize) -> ControlFlow<()> {
    let mut scratch = [0; 4096]; // not across an await: it would be part of the task
    loop {
        match rustix::net::recv(socket, &mut scratch[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return ControlFlow::Break(()),
            Ok((_, n)) if n <= *budget => *budget -= n,
            Err(Errno::AGAIN | Errno::INTR) => return ControlFlow::Continue(()),
            _ => return ControlFlow::Break(()),
        }
    }
}
