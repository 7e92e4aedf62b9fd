//! What comes: frames, envelopes, outcomes of calls; and which operation each of them answers.

use pinion::wire::frame::Opcode;
use pinion::wire::message::Event;

use super::conn::{Awaited, Pending, State};
use super::load::Load;
use crate::calls::Outcome;
use crate::openim;
use crate::script::Incoming;
use crate::websocket::error_code;

/// Close codes of ours.
const PROTOCOL_ERROR: u16 = 1002;

impl Load {
    /// Received bytes of an open connection.
    pub(super) fn frames(&mut self, index: usize, bytes: &mut [u8]) {
        let mut inbound = std::mem::take(&mut self.conns[index].inbound);
        let limits = self.limits;
        let mut feed = inbound.feed(bytes, &limits);
        loop {
            match feed.next() {
                Ok(Some(Event::Message { text, payload })) => self.incoming(index, text, payload),
                Ok(Some(Event::Ping(payload))) => {
                    self.send(index, Opcode::Pong, payload);
                }
                Ok(Some(Event::Pong(_))) => {}
                Ok(Some(Event::Close(code))) => self.closed_by_server(index, code),
                Ok(None) => break,
                Err(_) => {
                    self.broken(index);
                    break;
                }
            }
            if !matches!(self.conns[index].state, State::Open | State::FirstFrame) {
                return;
            }
        }
        drop(feed);
        self.conns[index].inbound = inbound;
    }

    /// The server breaks RFC 6455, or an envelope is none.
    fn broken(&mut self, index: usize) {
        self.errors().protocol += 1;
        self.gone(index, PROTOCOL_ERROR, "");
    }

    fn incoming(&mut self, index: usize, text: bool, payload: &[u8]) {
        self.tally.messages_in += 1;
        if self.conns[index].state == State::FirstFrame {
            return self.first_frame(index, payload);
        }
        if let Some(pending) = self.conns[index].first(Awaited::Message) {
            self.note_delivery(payload);
            return self.answered(index, &pending, &Incoming { data: payload, ..Incoming::default() });
        }
        match self.variant {
            Some(_) if !text => self.envelope(index, payload),
            _ => {
                self.note_delivery(payload);
                self.unasked(index, &Incoming { data: payload, ..Incoming::default() });
            }
        }
    }

    /// The outcome of a login with `isMsgResp` (spec 1.4).
    fn first_frame(&mut self, index: usize, payload: &[u8]) {
        match error_code(payload) {
            Some(code) if code == "0" => self.logged_in(index),
            Some(code) => self.refused(index, code),
            None => self.refused(index, "no outcome".to_owned()),
        }
    }

    /// A reply, a push or a kick.
    fn envelope(&mut self, index: usize, payload: &[u8]) {
        let Some(variant) = self.variant else { return };
        let Ok(envelope) = self.codec.decode_response(variant, payload) else {
            return self.broken(index);
        };
        let data = envelope.data.unwrap_or_default();
        let incoming = Incoming {
            identifier: envelope.id,
            code: envelope.err_code,
            error: &envelope.err_msg,
            data: &data,
        };
        if !envelope.msg_incr.is_empty() {
            let pending = envelope.msg_incr.parse().ok().and_then(|id| self.conns[index].answered(id));
            return match pending {
                Some(pending) => self.answered(index, &pending, &incoming),
                // Of an operation that was not timed.
                None => self.tell_response(index, &incoming),
            };
        }
        if envelope.id == openim::KICK {
            self.tally.kicked += 1;
            self.conns[index].kicked = true;
        }
        self.note_delivery(&data);
        self.unasked(index, &incoming);
    }

    /// Times a message that carries its time.
    fn note_delivery(&mut self, data: &[u8]) {
        if let Some(due_ns) = self.marks.due(data) {
            let took_ns = self.now_ns.saturating_sub(due_ns);
            self.last_ns = self.now_ns;
            self.tally.deliveries += 1;
            self.tally.delivery.record(took_ns);
            self.second.deliveries += 1;
            self.second_deliveries.record(took_ns);
        }
    }

    fn unasked(&mut self, index: usize, incoming: &Incoming<'_>) {
        if self.hooks.message
            && let Some(operations) = self.ask(index, |script, conn| script.message(conn, incoming))
        {
            self.begin_untimed(index, operations);
        }
    }

    fn tell_response(&mut self, index: usize, incoming: &Incoming<'_>) {
        if self.hooks.response {
            self.ask(index, |script, conn| script.response(conn, incoming));
        }
    }

    /// An answer to an operation: counted, told, and the closed loop goes on.
    fn answered(&mut self, index: usize, pending: &Pending, incoming: &Incoming<'_>) {
        if !pending.expired {
            self.count_answer(index, pending, (incoming.code != 0).then(|| incoming.code.to_string()));
        }
        self.tell_response(index, incoming);
        self.go_on(index, pending);
    }

    /// Counts it. `error`: it was answered with this.
    pub(super) fn count_answer(&mut self, index: usize, pending: &Pending, error: Option<String>) {
        if pending.expired {
            return;
        }
        self.last_ns = self.now_ns;
        if let Some(error) = error {
            *self.errors().answer.entry(error).or_default() += 1;
            return;
        }
        let seen_ns = self.now_ns.saturating_sub(pending.sent_ns);
        self.tally.answered += 1;
        self.second.answered += 1;
        self.tally.raw.record(seen_ns);
        // A closed loop's is corrected at the end, when the interval to be expected is known.
        if !self.pace.is_closed_loop() {
            self.tally.latency.record(self.now_ns.saturating_sub(pending.due_ns));
        }
        self.second_answers.record(seen_ns);
        if !self.hooks.request {
            self.conns[index].tidy();
        }
    }

    /// The closed loop's next operation, unless the connection has begun anew meanwhile.
    pub(super) fn go_on(&mut self, index: usize, pending: &Pending) {
        if pending.round == self.conns[index].round && !pending.expired {
            self.start_round(index);
        }
    }

    /// Outcomes of pushes and posts.
    pub fn take_calls(&mut self) {
        for (caller, outcome) in self.calls.take() {
            let index = caller.connection;
            let pending = self.conns[index].answered(caller.operation);
            match (outcome, pending) {
                (Outcome::Answered { status, good, body }, pending) => {
                    if let Some(pending) = &pending {
                        self.count_answer(index, pending, (!good).then(|| status.to_string()));
                    }
                    let incoming = Incoming { code: status, data: &body, ..Incoming::default() };
                    self.tell_response(index, &incoming);
                    if let Some(pending) = pending {
                        self.go_on(index, &pending);
                    }
                }
                (Outcome::Lost(why), pending) => {
                    self.why_not.get_or_insert(why);
                    *self.errors().answer.entry("lost".to_owned()).or_default() += 1;
                    if let Some(pending) = pending {
                        self.go_on_later(index, &pending);
                    }
                }
            }
        }
    }
}
