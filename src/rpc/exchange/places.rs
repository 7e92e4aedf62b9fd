//! What connections and calls take from an rpc thread while they last, given back when dropped: places, bytes, and an
//! ear for the drain.

use std::task::{Context, Poll};

use super::Exchange;
use crate::limits::{RPC_CALLS_MAX, RPC_HELD_BYTES};
use crate::wire::grpc::{Status, code};

impl Exchange {
    /// A place for a connection; `None`: there are `most` already.
    pub(in crate::rpc) fn enter_connection(&self, most: usize) -> Option<ConnectionPlace> {
        let mut state = self.state.borrow_mut();
        if state.connections_open >= most {
            return None;
        }
        state.connections_open += 1;
        self.stir();
        drop(state);
        Some(ConnectionPlace { watch: self.watch_drain() })
    }

    /// A place for a call; `None`: there are too many.
    pub(in crate::rpc) fn enter_call(&self) -> Option<CallPlace> {
        let mut state = self.state.borrow_mut();
        if state.calls_open >= RPC_CALLS_MAX {
            return None;
        }
        state.calls_open += 1;
        self.stir();
        Some(CallPlace { exchange: self.clone() })
    }

    /// An account of bytes, empty at first.
    pub(in crate::rpc) fn hold_nothing(&self) -> Held {
        Held { exchange: self.clone(), bytes: 0 }
    }

    /// An ear for the drain, for one task.
    pub(in crate::rpc) fn watch_drain(&self) -> DrainWatch {
        let key = self.state.borrow_mut().drain_watches.insert(None);
        DrainWatch { exchange: self.clone(), key }
    }
}

/// A place among the connections.
pub(in crate::rpc) struct ConnectionPlace {
    watch: DrainWatch,
}

impl ConnectionPlace {
    /// Whether the thread drains; if not, the task is woken when it does.
    pub(in crate::rpc) fn poll_draining(&self, cx: &mut Context<'_>) -> bool {
        self.watch.poll(cx).is_ready()
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.watch.exchange.state.borrow_mut().connections_open -= 1;
        self.watch.exchange.stir();
    }
}

/// A place among the calls.
pub(in crate::rpc) struct CallPlace {
    exchange: Exchange,
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        self.exchange.state.borrow_mut().calls_open -= 1;
        self.exchange.stir();
    }
}

/// Tells one task of the drain.
pub(in crate::rpc) struct DrainWatch {
    exchange: Exchange,
    key: usize,
}

impl DrainWatch {
    /// Ready when the thread drains; until then the task is woken when it does.
    pub(in crate::rpc) fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.exchange.state.borrow_mut();
        if state.drain.is_some() {
            return Poll::Ready(());
        }
        if let Some(waker) = state.drain_watches.get_mut(self.key)
            && !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        let waker = self.exchange.state.borrow_mut().drain_watches.try_remove(self.key);
        drop(waker); // after the borrow
    }
}

/// Bytes of requests and answers that are held for a call.
pub(in crate::rpc) struct Held {
    exchange: Exchange,
    bytes: usize,
}

impl Held {
    /// Accounts for so many more bytes, or refuses them.
    pub(in crate::rpc) fn grow(&mut self, bytes: usize) -> Result<(), Status> {
        let mut state = self.exchange.state.borrow_mut();
        if state.held_bytes + bytes > RPC_HELD_BYTES {
            return Err(Status::new(
                code::RESOURCE_EXHAUSTED,
                "requests and answers in flight exceed the memory set aside for them",
            ));
        }
        state.held_bytes += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// An account of its own for so many of these bytes, or all of them.
    pub(in crate::rpc) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { exchange: self.exchange.clone(), bytes }
    }

    /// How many.
    pub(in crate::rpc) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.exchange.state.borrow_mut().held_bytes -= self.bytes;
    }
}
