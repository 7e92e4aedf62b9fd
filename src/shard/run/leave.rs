//! When a shard lets clients in and when it does not: listeners come and go, it empties itself, it ends.

use super::super::acceptor;
use super::super::mailbox::Control;
use super::Loop;
use crate::hub::Input;
use crate::limits::LINGER_MS;

impl Loop {
    /// What main says about listeners and about leaving.
    pub(super) fn open_or_close(&mut self, control: Control) {
        match control {
            Control::Listen(listener) => {
                let listens = if self.engine.accepts() {
                    self.welcome.listen(&self.door, &mut self.engine, listener)
                } else {
                    acceptor::listen(&self.door, listener, &self.turns)
                };
                if let Err(error) = listens {
                    tracing::error!(shard = self.id.0, %error, "cannot listen");
                }
            }
            Control::Adopt(number, listener) => {
                if let Err(error) = acceptor::adopt(&self.door, (number, listener), &self.turns) {
                    tracing::error!(shard = self.id.0, %error, "cannot listen on another node's address");
                }
            }
            Control::GiveBack(number) => acceptor::give_back(&self.door, number),
            Control::Drain(deadline) => {
                self.drain = Some(deadline);
                acceptor::drain(&self.door);
                self.hub.input(self.now, Input::Drain(deadline));
            }
            // The end of the node is not taken back.
            Control::Evict(_) | Control::Serve if self.drain.is_some() => {}
            Control::Evict(pace) => {
                acceptor::drain(&self.door);
                self.hub.input(self.now, Input::Evict(pace));
            }
            Control::Serve => {
                self.door.end_drain();
                self.hub.input(self.now, Input::Serve);
            }
            Control::Hub(_) | Control::Policy(_) | Control::Stall(_) => {}
        }
    }

    /// Nobody is left: no session, no socket, no handshake, and nothing that rpc threads should hear of.
    pub(super) fn is_drained(&self) -> bool {
        let Some(deadline) = self.drain else { return false };
        let empty = self.hub.connections() == 0
            && self.engine.sockets() == 0
            && self.door.handshakes() == 0
            && self.inbox.depths().hand_over == 0;
        // An rpc thread that takes no mail must not keep the node from ending.
        let said = self.presence.is_empty()
            && self.outcomes.is_empty()
            && self.cluster.is_empty()
            && self.hub.is_silent()
            || self.now.mono > deadline.plus_ms(LINGER_MS);
        empty && said && !self.hub.has_work()
    }
}
