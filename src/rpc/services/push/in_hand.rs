//! The messages of one `pinion.v1.Push` call whose last verdict was not sent yet, and when there is room for more.
//!
//! What always holds: at most so many messages as the call may have, and one batch above the bytes that it may hold.
//! Here is no queue: whoever pushes waits.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::verdicts::Unsaid;
use crate::cluster::batch::BatchMessage;
use crate::cluster::router::{Busy, Push, To};
use crate::hub::mail::{PushBody, PushRules};
use crate::ids::{RpcTicket, SourceId};
use crate::limits::{
    PUSH_BATCH_MAX, PUSH_DEADLINE_MS, PUSH_RETRY_MS, PUSH_STREAM_BYTES, PUSH_STREAM_MESSAGES_MAX,
};
use crate::metrics::Metric;
use crate::rpc::call::Service;
use crate::rpc::exchange::{Held, Tray};
use crate::rpc::frames;
use crate::shard::clock;
use crate::time::Mono;
use crate::wire::grpc::{Status, code};

/// See the module's documentation.
pub(super) struct InHand {
    service: Rc<Service>,
    tray: Tray,
    source: SourceId,
    messages: RefCell<BTreeMap<RpcTicket, Message>>,
    messages_max: usize,
    pushed: Cell<usize>,
    bytes: Rc<Cell<usize>>,
    no_more: Cell<bool>,
}

struct Message {
    id: u64,
    position: usize,
    _account: Rc<Account>,
}

/// The bytes of one batch, until its last message is let go.
pub(super) struct Account {
    held: Held,
    total: Rc<Cell<usize>>,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.held.bytes());
    }
}

/// When the verdicts of a message are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    arrived: Mono,
    /// `None`: [`PUSH_DEADLINE_MS`] after it was pushed, or when it expires if that is later.
    deadline: Option<Mono>,
}

impl Due {
    /// On a stream each message has its own time.
    pub(super) fn in_its_time(arrived: Mono) -> Self {
        Self { arrived, deadline: None }
    }

    /// In one call all are due together.
    pub(super) fn together(arrived: Mono, deadline: Mono) -> Self {
        Self { arrived, deadline: Some(deadline) }
    }
}

impl InHand {
    /// For a stream.
    pub(super) fn of_stream(service: &Rc<Service>) -> Self {
        Self::new(service, PUSH_STREAM_MESSAGES_MAX)
    }

    /// For all messages of one batch.
    pub(super) fn of_one_batch(service: &Rc<Service>) -> Self {
        Self::new(service, PUSH_BATCH_MAX)
    }

    fn new(service: &Rc<Service>, messages_max: usize) -> Self {
        Self {
            service: Rc::clone(service),
            tray: service.exchange.tray(),
            source: service.exchange.source(),
            messages: RefCell::default(),
            messages_max,
            pushed: Cell::new(0),
            bytes: Rc::default(),
            no_more: Cell::new(false),
        }
    }

    /// Accounts for a batch.
    pub(super) fn account(&self, held: Held) -> Rc<Account> {
        self.bytes.set(self.bytes.get() + held.bytes());
        Rc::new(Account { held, total: Rc::clone(&self.bytes) })
    }

    /// Completes when another batch may be read. What makes room is [`InHand::let_go`] in the same task: nothing else
    /// wakes this.
    pub(super) async fn batch_fits(&self) {
        self.room(|| self.message_fits() && self.bytes.get() < PUSH_STREAM_BYTES).await;
    }

    fn message_fits(&self) -> bool {
        self.messages.borrow().len() < self.messages_max
    }

    async fn room(&self, has_room: impl Fn() -> bool) {
        if !has_room() {
            self.service.exchange.count(Metric::RpcStreamWaitsHand);
        }
        poll_fn(|_| if has_room() { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    /// Pushes a message when it has room.
    pub(super) async fn push(
        &self,
        message: BatchMessage,
        due: Due,
        account: &Rc<Account>,
    ) -> Result<(), Status> {
        self.room(|| self.message_fits()).await;
        self.shards_have_room(&message, due).await;
        let expires = (message.expire_after_ms > 0).then(|| due.arrived.plus_ms(message.expire_after_ms));
        let own_deadline = || {
            let deadline = clock::now().mono.plus_ms(PUSH_DEADLINE_MS);
            expires.map_or(deadline, |expires| expires.max(deadline))
        };
        let mut body = PushBody {
            conversation: message.facts.conversation(),
            operation_id: message.operation_id,
            msg_data: message.msg_data,
            frames: None,
        };
        let mesh = self.service.mesh.get().filter(|_| matches!(message.to, To::Users(_)));
        if mesh.is_none() {
            frames::share(&self.service, &mut body).await;
        }
        let push = Push {
            source: self.source,
            body,
            to: message.to,
            rules: PushRules { report: message.report, only_if_online: message.only_if_online, expires },
            deadline: due.deadline.unwrap_or_else(own_deadline),
        };
        let ticket = match (mesh, &push.to) {
            (Some(mesh), To::Users(users)) => mesh.push_to_tray(&self.tray, users.clone(), push),
            _ => self.tray.push(push).map_err(|Busy| {
                Status::new(code::UNAVAILABLE, "too many pushes are waiting for the shards")
            })?,
        };
        let position = self.pushed.replace(self.pushed.get() + 1);
        let message = Message { id: message.id, position, _account: Rc::clone(account) };
        self.messages.borrow_mut().insert(ticket, message);
        Ok(())
    }

    /// Waits for the shards, but not longer than for a verdict: then the message is pushed all the same, so that who
    /// is not reached is known.
    async fn shards_have_room(&self, message: &BatchMessage, due: Due) {
        if self.tray.has_room(&message.to) {
            return;
        }
        self.service.exchange.count(Metric::RpcStreamWaitsShard);
        let start = clock::now().mono;
        let until = due.deadline.unwrap_or(start.plus_ms(PUSH_DEADLINE_MS));
        while !self.tray.has_room(&message.to) && clock::now().mono < until {
            monoio::time::sleep(Duration::from_millis(PUSH_RETRY_MS)).await;
        }
    }

    /// No message follows.
    pub(super) fn no_more(&self) {
        self.no_more.set(true);
    }

    /// Waits for verdicts. `false`: all were given out and let go, and no message follows.
    pub(super) async fn news(&self) -> bool {
        poll_fn(|cx| {
            if self.tray.poll_news(cx).is_ready() {
                return Poll::Ready(true);
            }
            if self.no_more.get() && self.messages.borrow().is_empty() {
                return Poll::Ready(false);
            }
            Poll::Pending
        })
        .await
    }

    /// The next part of verdicts.
    pub(super) fn next(&self) -> Option<Unsaid> {
        let (ticket, part) = self.tray.next()?;
        let messages = self.messages.borrow();
        let message = messages.get(&ticket)?;
        Some(Unsaid::new(ticket, message.id, message.position, part))
    }

    /// The last verdict of this message has been sent.
    pub(super) fn let_go(&self, ticket: RpcTicket) {
        self.messages.borrow_mut().remove(&ticket);
    }

    /// Whoever has no verdict yet is not reached.
    pub(super) fn give_up(&self) {
        self.tray.give_up();
    }
}
