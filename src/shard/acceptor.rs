//! Lets connections in beside the task engine: one accept loop per listener, then `head.rs`.
//!
//! The loop waits for readiness and then accepts without waiting: a pending accept operation could be lost with its
//! connection (platform.md rule 8). It ends when its listener is shut down. It never spins: a failed accept pauses it,
//! and too many open handshakes leave the next connection in the kernel's queue. Without descriptors or memory it
//! refuses some of those who wait (`spare.rs`), then pauses; connections that are there go on.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with};

use super::clock;
use super::door::{Door, Guest, Place};
use super::head::{self, No};
use super::pulse::Activity;
use super::socket::{Socket, canonical};
use super::spare::{Spare, is_exhaustion};
use super::turn::Turns;
use crate::limits::{ACCEPT_BATCH_MAX, ACCEPT_PAUSE_MS, LISTEN_QUEUE_MAX};
use crate::metrics::Metric;

/// Why a round of accepting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nobody waited.
    Empty,
    /// Some were let in, and nobody waits any more.
    Served,
    /// The batch is full; more may wait.
    Full,
    /// No descriptors or no memory.
    Exhausted(Errno),
    /// Something unexpected.
    Failed(Errno),
    /// The listener was shut down.
    Closed,
}

/// Starts accepting; an earlier listener of this door is closed.
///
/// # Errors
/// epoll does not take the listener.
pub(super) fn listen(door: &Rc<Door>, listener: TcpListener, turns: &Turns) -> io::Result<()> {
    let listener = Rc::new(Socket::adopt_pollable(listener.into())?);
    door.set_listener(Some(Rc::clone(&listener)));
    monoio::spawn(accept_loop(Rc::clone(door), listener, turns.clone()));
    Ok(())
}

/// Takes in who is in the kernel's queue already (closing the listener would reset them), closes the listeners, and
/// lets nobody in any more.
pub(super) fn drain(door: &Rc<Door>) {
    if let Some(listener) = door.listener() {
        accept_batch(door, &listener, LISTEN_QUEUE_MAX);
        door.set_listener(None);
    }
    for listener in door.give_all_back().into_values() {
        close(door, &listener);
    }
    door.begin_drain();
}

/// Accepts on another node's address, beside the door's own listener and under either engine; an earlier listener of
/// that number is closed.
///
/// # Errors
/// epoll does not take the listener.
pub(super) fn adopt(
    door: &Rc<Door>,
    (number, listener): (u16, TcpListener),
    turns: &Turns,
) -> io::Result<()> {
    let listener = Rc::new(Socket::adopt_pollable(listener.into())?);
    if let Some(earlier) = door.adopt_listener(number, Rc::clone(&listener)) {
        close(door, &earlier);
    }
    monoio::spawn(accept_loop(Rc::clone(door), listener, turns.clone()));
    Ok(())
}

/// Ends [`adopt`]; who was let in stays.
pub(super) fn give_back(door: &Rc<Door>, number: u16) {
    if let Some(listener) = door.give_back(number) {
        close(door, &listener);
    }
}

/// Ends the accept loop of a listener, after who waits in its queue was taken in.
fn close(door: &Rc<Door>, listener: &Socket) {
    accept_batch(door, listener, LISTEN_QUEUE_MAX);
    listener.shut_down(Shutdown::Both);
}

async fn accept_loop(door: Rc<Door>, listener: Rc<Socket>, turns: Turns) {
    let pause = Duration::from_millis(ACCEPT_PAUSE_MS);
    let (mut spare, mut exhausted) = (Spare::reserve(), false);
    loop {
        door.has_room().await;
        listener.readable().await;
        let round = accept_batch(&door, &listener, ACCEPT_BATCH_MAX);
        match round {
            Round::Empty => {}
            Round::Served | Round::Full => {
                if std::mem::take(&mut exhausted) {
                    tracing::info!("accepting again");
                    spare.refill();
                }
                if round == Round::Full {
                    turns.turn().await;
                }
            }
            Round::Exhausted(error) => {
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::warn!(%error, "no resources to accept; refusing, and looking every {ACCEPT_PAUSE_MS} ms");
                }
                door.count(Metric::AcceptPauses);
                for _ in 0..spare.refuse(&*listener, ACCEPT_BATCH_MAX) {
                    door.count(Metric::Accepted);
                    door.count(Metric::HandshakeNoFiles);
                }
                monoio::time::sleep(pause).await;
                spare.refill();
            }
            Round::Failed(error) => {
                tracing::warn!(%error, "accept failed; trying again in {ACCEPT_PAUSE_MS} ms");
                monoio::time::sleep(pause).await;
            }
            Round::Closed => return,
        }
    }
}

fn accept_batch(door: &Rc<Door>, listener: &Socket, max: usize) -> Round {
    door.plan.pulse.enter(Activity::Accept, None);
    for n in 0..max {
        match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((fd, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                receive(door, fd.into(), peer);
            }
            Err(Errno::AGAIN) => return if n == 0 { Round::Empty } else { Round::Served },
            Err(Errno::INVAL) => return Round::Closed,
            // accept(2): errors of the connection itself come out here; the next one may be fine.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {
                door.count(Metric::AcceptErrors);
            }
            Err(error) => {
                door.count(Metric::AcceptErrors);
                return if is_exhaustion(error) { Round::Exhausted(error) } else { Round::Failed(error) };
            }
        }
    }
    Round::Full
}

/// Lets an accepted connection in, or refuses it.
pub(super) fn receive(door: &Rc<Door>, socket: TcpStream, peer: Option<SocketAddr>) {
    door.count(Metric::Accepted);
    let (Ok(socket), Some(peer)) = (Socket::adopt_nonblocking(socket), peer) else {
        return door.count(Metric::AcceptErrors);
    };
    let (peer, plan) = (canonical(peer), &door.plan);
    tracing::trace!(%peer, "accepted");
    let mut guest = Guest { socket: Rc::new(socket), peer, client: peer, place: None };
    if !plan.admission.may_accept(clock::now().mono) {
        return head::refuse(door, guest, No::over(Metric::HandshakeTooFast));
    }
    let mut place = Place::take(&plan.admission);
    // A proxy's clients are counted under their own addresses, once it has told them.
    let limited = !plan.proxies.contain(peer.ip());
    if limited && place.as_mut().is_some_and(|place| !place.enter_address(peer.ip())) {
        return head::refuse(door, guest, No::over(Metric::HandshakeAddressFull));
    }
    guest.place = place;
    head::greet(door, guest);
}
