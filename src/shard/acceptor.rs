//! Lets connections in: one accept loop per listener, one short task per handshake (`head.rs`).
//!
//! The loop waits for readiness and then accepts without waiting: a pending accept operation could be lost with its
//! connection (platform.md rule 8). It ends when its listener is shut down. It never spins: a failed accept pauses it,
//! and too many open handshakes leave the next connection in the kernel's queue.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

use super::door::{Door, Guest, Place};
use super::head;
use super::pulse::Activity;
use super::socket::{Socket, canonical};
use super::turn::Turns;
use crate::limits::{ACCEPT_BATCH_MAX, ACCEPT_PAUSE_MS, LISTEN_QUEUE_MAX};
use crate::metrics::Metric;

/// Why a round of accepting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// Nobody waits.
    Empty,
    /// The batch is full; more may wait.
    Full,
    /// No descriptors or no memory.
    Failed,
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

/// Takes in who is in the kernel's queue already (closing the listener would reset them), closes the listener, and
/// lets nobody in any more.
pub(super) fn drain(door: &Rc<Door>) {
    if let Some(listener) = door.listener() {
        accept_batch(door, &listener, LISTEN_QUEUE_MAX);
        door.set_listener(None);
    }
    door.begin_drain();
}

async fn accept_loop(door: Rc<Door>, listener: Rc<Socket>, turns: Turns) {
    loop {
        door.has_room().await;
        listener.readable().await;
        match accept_batch(&door, &listener, ACCEPT_BATCH_MAX) {
            Round::Empty => {}
            Round::Full => turns.turn().await,
            Round::Failed => monoio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await,
            Round::Closed => return,
        }
    }
}

fn accept_batch(door: &Rc<Door>, listener: &Socket, max: usize) -> Round {
    door.plan.pulse.enter(Activity::Accept, None);
    for _ in 0..max {
        match acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok((fd, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
                receive(door, fd.into(), peer);
            }
            Err(Errno::AGAIN) => return Round::Empty,
            Err(Errno::INVAL) => return Round::Closed,
            // accept(2): errors of the connection itself come out here; the next one may be fine.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM) => {
                door.count(Metric::AcceptErrors);
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed; trying again in {ACCEPT_PAUSE_MS} ms");
                door.count(Metric::AcceptErrors);
                return Round::Failed;
            }
        }
    }
    Round::Full
}

fn receive(door: &Rc<Door>, socket: TcpStream, peer: Option<SocketAddr>) {
    door.count(Metric::Accepted);
    let (Ok(socket), Some(peer)) = (Socket::adopt(socket), peer) else {
        return door.count(Metric::AcceptErrors);
    };
    tracing::trace!(%peer, "accepted");
    let guest =
        Guest { socket: Rc::new(socket), peer: canonical(peer), place: Place::take(&door.plan.admission) };
    head::greet(door, guest);
}
