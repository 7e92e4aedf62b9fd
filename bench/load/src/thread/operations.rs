//! What the script asks for, begun.

use std::cmp::Reverse;

use pinion::wire::envelope::Request;
use pinion::wire::frame::Opcode;
use pinion_bench_kit::clock::now_ns;

use super::conn::{Awaited, Pending, State};
use super::load::Load;
use super::pace::{Act, Deed};
use crate::calls::Caller;
use crate::openim;
use crate::script::{Ending, MessageKind, Operation};

/// What an idle closed loop waits before it asks again.
const IDLE_NS: u64 = 100_000_000;
/// Ids of operations that are not timed lie above this, those of timed ones below.
const UNTIMED: u32 = 1 << 31;

/// When an operation was due; `None`: it is not timed.
type Due = Option<u64>;

impl Load {
    /// Asks the script what to do, and does it.
    pub(super) fn begin(&mut self, index: usize, due_ns: u64) {
        let Some(operation) = self.ask(index, |script, conn| script.request(conn)) else { return };
        if operation == Operation::Idle {
            if self.pace.is_closed_loop() && !self.hooks.delay {
                self.next_round_at(index, self.now_ns + IDLE_NS);
            } else {
                self.start_round(index);
            }
            return;
        }
        self.tally.begun += 1;
        self.execute(index, operation, Some(due_ns));
    }

    /// What a hook wants to be sent at once.
    pub(super) fn begin_untimed(&mut self, index: usize, operations: Vec<Operation>) {
        for operation in operations {
            self.execute(index, operation, None);
        }
    }

    fn execute(&mut self, index: usize, operation: Operation, due: Due) {
        let id = self.next_id | if due.is_none() { UNTIMED } else { 0 };
        self.next_id = (self.next_id + 1) % UNTIMED;
        let stamp_ns = due.unwrap_or(self.now_ns);
        match operation {
            Operation::Idle => {}
            Operation::Message { data, kind } => self.message(index, (data, kind), (id, due, stamp_ns)),
            Operation::Request { identifier, data } => {
                self.request(index, (identifier, data), (id, due, stamp_ns));
            }
            Operation::Chat { to, bytes } => {
                let unique = format!("{}-{}-{id}", self.part.epoch_ns, self.number(index));
                let data = openim::chat(&self.user(index), &to, bytes, &unique);
                self.request(index, (openim::SEND_MESSAGE, data), (id, due, stamp_ns));
            }
            Operation::Push { users, bytes } => {
                let unique = format!("{}-{}-{id}", self.part.epoch_ns, self.number(index));
                let mut message = openim::push(users, bytes, &unique);
                self.marks.stamp(&mut message, stamp_ns);
                self.expect(index, id, Awaited::Call, due);
                if !self.calls.push(Caller { connection: index, operation: id }, &message) {
                    self.fail("the script pushes, but no gRPC port was given (--push HOST:PORT)".to_owned());
                }
            }
            Operation::Post { address, path, mut body } => {
                self.marks.stamp(&mut body, stamp_ns);
                self.expect(index, id, Awaited::Call, due);
                self.calls.post(Caller { connection: index, operation: id }, address, &path, &body);
            }
            Operation::Reconnect { how } => self.log_in_again(index, how, (id, due)),
            Operation::Stall { milliseconds } => {
                self.expect(index, id, Awaited::Pause, due);
                let conn = &self.conns[index];
                self.todo.pause.push(conn.id(index));
                let at_ns = self.now_ns + milliseconds * 1_000_000;
                self.acts.push(Reverse(Act { at_ns, deed: Deed::Resume, index, check: conn.generation }));
            }
        }
    }

    fn log_in_again(&mut self, index: usize, how: Ending, (id, due): (u32, Due)) {
        if self.conns[index].state == State::Open {
            self.expect(index, id, Awaited::Login, due);
            self.reconnect(index, how);
        }
    }

    /// A message as the script made it.
    fn message(
        &mut self,
        index: usize,
        (mut data, kind): (Vec<u8>, MessageKind),
        (id, due, stamp_ns): (u32, Due, u64),
    ) {
        self.marks.stamp(&mut data, stamp_ns);
        let opcode = match kind {
            MessageKind::Text => Opcode::Text,
            MessageKind::Binary => Opcode::Binary,
        };
        let waits = due.map(|_| Awaited::Message);
        self.send_operation(index, (opcode, &data), waits, (id, due));
    }

    /// An envelope. Its reply is known by `msgIncr`.
    fn request(
        &mut self,
        index: usize,
        (identifier, mut data): (i32, Vec<u8>),
        (id, due, stamp_ns): (u32, Due, u64),
    ) {
        let Some(variant) = self.variant else {
            return self.fail("the script sends an envelope, but the protocol is not OpenIM's".to_owned());
        };
        self.marks.stamp(&mut data, stamp_ns);
        let request = Request {
            id: identifier,
            send_id: self.user(index).into(),
            operation_id: "bench".into(),
            msg_incr: id.to_string().into(),
            data: data.into(),
        };
        let envelope = self.codec.encode_request(variant, &request);
        self.send_operation(index, (Opcode::Binary, &envelope), Some(Awaited::Reply), (id, due));
    }

    fn send_operation(
        &mut self,
        index: usize,
        (opcode, payload): (Opcode, &[u8]),
        waits: Option<Awaited>,
        (id, due): (u32, Due),
    ) {
        if !self.send(index, opcode, payload) {
            return self.not_sent(index, due);
        }
        self.tally.messages_out += 1;
        if let Some(waits) = waits {
            self.expect(index, id, waits, due);
        }
    }

    /// Notes a timed operation. Those without a time are answered, too, but nobody waits.
    fn expect(&mut self, index: usize, id: u32, waits_for: Awaited, due: Due) {
        let Some(due_ns) = due else { return };
        let round = self.conns[index].round;
        let pending = Pending { id, waits_for, expired: false, round, due_ns, sent_ns: now_ns() };
        if !self.conns[index].expect(pending) {
            self.not_sent(index, due);
        }
    }

    /// Too much waits on this connection already.
    fn not_sent(&mut self, index: usize, due: Due) {
        self.errors().write += 1;
        if due.is_some() && self.pace.is_closed_loop() {
            self.next_round_at(index, self.now_ns + IDLE_NS);
        }
    }
}
