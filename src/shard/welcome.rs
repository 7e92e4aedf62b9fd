//! Lets connections in where the engine accepts them itself: the ring, by one multishot accept.
//!
//! It works within the loop's turn, so a connection whose head is there already is with the hub in the turn that
//! accepted it. What always holds is what holds for `acceptor.rs`, which does this for the other engine: it never
//! spins, and too many open handshakes leave the next connections in the kernel's queue, but for the few that the
//! kernel had accepted before it was told; those wait here.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::rc::Rc;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::door::Door;
use super::engine::Engine;
use super::pulse::Activity;
use super::socket::Socket;
use super::spare::{Spare, is_exhaustion};
use super::transform::Identity;
use super::{acceptor, clock};
use crate::limits::{ACCEPT_BATCH_MAX, ACCEPT_PAUSE_MS};
use crate::metrics::Metric;
use crate::time::Mono;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Welcome {
    spare: Spare,
    exhausted: bool,
    /// No new accept before.
    pause: Option<Mono>,
    /// Found no room, and there is none yet.
    waiting: bool,
    /// The listener was shut down.
    closed: bool,
}

impl Welcome {
    pub(super) fn new() -> Self {
        Self { spare: Spare::reserve(), exhausted: false, pause: None, waiting: false, closed: true }
    }

    /// Starts accepting; an earlier listener of this door is closed.
    ///
    /// # Errors
    /// epoll does not take the listener.
    pub(super) fn listen(
        &mut self,
        door: &Door,
        engine: &mut Engine<Identity>,
        listener: TcpListener,
    ) -> io::Result<()> {
        door.set_listener(Some(Rc::new(Socket::adopt_pollable(listener.into())?)));
        engine.accept_from_another();
        self.closed = false;
        Ok(())
    }

    /// Takes in a batch of those who came. Returns whether more are there already.
    pub(super) fn take_in(&mut self, door: &Rc<Door>, engine: &mut Engine<Identity>) -> bool {
        door.plan.pulse.enter(Activity::Accept, None);
        let mut highest = -1;
        for _ in 0..ACCEPT_BATCH_MAX {
            if !door.is_draining() && !door.has_room_now() {
                if !std::mem::replace(&mut self.waiting, true) {
                    door.count(Metric::AcceptWaits);
                    engine.pause_accept();
                }
                return false; // the end of a handshake wakes the loop
            }
            self.waiting = false;
            match engine.next_accepted() {
                Some(Ok(socket)) => {
                    highest = highest.max(socket.as_raw_fd());
                    self.receive(door, socket.into());
                }
                Some(Err(error)) => self.meet(door, error),
                None => {
                    if is_beyond_limit(highest) {
                        engine.pause_accept();
                    }
                    self.go_on(door, engine);
                    return false;
                }
            }
        }
        true
    }

    fn receive(&mut self, door: &Rc<Door>, socket: TcpStream) {
        if std::mem::take(&mut self.exhausted) {
            tracing::info!("accepting again");
            self.spare.refill();
        }
        // A multishot accept does not tell it.
        let peer = socket.peer_addr().ok();
        acceptor::receive(door, socket, peer);
    }

    /// An accept has ended, or failed for one connection.
    fn meet(&mut self, door: &Door, error: Errno) {
        match error {
            Errno::CANCELED => return, // paused
            Errno::INVAL => {
                self.closed = true; // by a drain, or by main because this shard stalled
                return;
            }
            // accept(2): errors of the connection itself come out here; the next one may be fine.
            Errno::INTR | Errno::CONNABORTED | Errno::PROTO | Errno::PERM => {
                return door.count(Metric::AcceptErrors);
            }
            _ => {}
        }
        door.count(Metric::AcceptErrors);
        self.pause = Some(clock::now().mono.plus_ms(ACCEPT_PAUSE_MS));
        if !is_exhaustion(error) {
            return tracing::warn!(%error, "accept failed; trying again in {ACCEPT_PAUSE_MS} ms");
        }
        if !std::mem::replace(&mut self.exhausted, true) {
            tracing::warn!(%error, "no resources to accept; refusing, and looking every {ACCEPT_PAUSE_MS} ms");
        }
        door.count(Metric::AcceptPauses);
        let Some(listener) = door.listener() else { return };
        for _ in 0..self.spare.refuse(&*listener, ACCEPT_BATCH_MAX) {
            door.count(Metric::Accepted);
            door.count(Metric::HandshakeNoFiles);
        }
    }

    /// Arms the accept again, unless it is armed, or paused (the ticker comes by), or the listener is gone.
    fn go_on(&mut self, door: &Door, engine: &mut Engine<Identity>) {
        let Some(listener) = door.listener() else { return };
        if self.closed || self.pause.is_some_and(|until| clock::now().mono < until) {
            return;
        }
        if self.pause.take().is_some() {
            self.spare.refill();
        }
        engine.accept(listener.as_fd());
    }
}

/// Whether a descriptor is one that the open-file limit does not allow. A multishot accept goes by the limit that was
/// in force when it was armed; once the limit was lowered (prlimit(1)) it has to be armed again.
fn is_beyond_limit(descriptor: RawFd) -> bool {
    let Ok(descriptor) = u64::try_from(descriptor) else {
        return false; // none came
    };
    getrlimit(Resource::Nofile).current.is_some_and(|limit| descriptor >= limit)
}
