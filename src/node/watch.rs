//! What the node does about a stalled shard: its listener leaves the accept group and comes back, or the process ends.

use std::net::{Shutdown, TcpListener};
use std::sync::Arc;

use super::{Failure, Node, NodeState};
use crate::ids::ShardId;
use crate::limits::STALL_WATCH_MS;
use crate::shard::mailbox::Control;
use crate::shard::stall::StallResponse;
use crate::shard::{bind_listener, clock};

impl Node {
    /// Looks at all heartbeats, and tells systemd while none is missing. Returns after how many milliseconds to do it
    /// again: at most `limits::STALL_SUSPECT_MS` and one.
    ///
    /// # Errors
    /// A shard is stuck for so long that the process must end.
    pub(super) fn watch(&mut self) -> Result<u64, Failure> {
        // Taken out for the round: the watcher reports to the node that holds it.
        let Some(mut watcher) = self.watcher.take() else {
            return Ok(STALL_WATCH_MS);
        };
        let now = clock::now().mono;
        watcher.round(now, self);
        if watcher.all_turn() {
            self.supervisor.all_turn(now);
        }
        let next = watcher.next_check(now).min(self.supervisor.next_feed(now));
        self.watcher = Some(watcher);
        self.condemned.map_or(Ok(next.since_ms(now)), |shard| Err(Failure::Stalled(shard)))
    }

    /// A new listener for a shard whose old one was shut down.
    fn relisten(&mut self, shard: ShardId) -> Result<(), String> {
        let (config, port) = (Arc::clone(&self.config), self.facts.websocket.port());
        let Some(shard) = self.shards.get_mut(usize::from(shard.0)) else {
            return Ok(());
        };
        let listener = bind_listener(&config, port).map_err(|e| e.to_string())?;
        let ours = listener.try_clone().map_err(|e| e.to_string())?;
        let sent = shard.address.control(Control::Listen(listener));
        sent.map_err(|_| "its control lane is full".to_owned())?;
        shard.listener = Some(ours);
        Ok(())
    }
}

impl StallResponse for Node {
    fn leave_accept_group(&mut self, shard: ShardId) {
        let Some(held) = self.shards.get_mut(usize::from(shard.0)) else { return };
        let adopted = std::mem::take(&mut held.adopted).into_values();
        for listener in held.listener.take().into_iter().chain(adopted) {
            if let Err(error) = shut(&listener) {
                tracing::error!(shard = shard.0, %error, "the listener could not leave the accept group");
            }
        }
    }

    fn rejoin_accept_group(&mut self, shard: ShardId) {
        if self.admission.state() == NodeState::Draining {
            return;
        }
        let own = self.relisten(shard);
        if let Err(why) = own.and_then(|()| self.relisten_adopted(usize::from(shard.0))) {
            // The other shards accept for it; its users still reach it by hand-over.
            tracing::error!(shard = shard.0, why, "the shard accepts no connections of its own any more");
        }
    }

    fn abort(&mut self, shard: ShardId) {
        self.condemned = Some(shard);
    }
}

/// `shutdown(2)` wakes the shard's accept loop and takes the socket out of the group at once.
fn shut(listener: &TcpListener) -> std::io::Result<()> {
    let duplicate = std::net::TcpStream::from(std::os::fd::OwnedFd::from(listener.try_clone()?));
    duplicate.shutdown(Shutdown::Both)
}
