//! How a session ends and its slot becomes free; timers. The drain is in `drain.rs`.
//!
//! The one way out is [`Hub::end`]. It never waits and never calls back: it notes the reason, queues what the client
//! still gets, and leaves the rest to the queues and to the flush.

use super::follow::What;
use super::mail::DeviceOutcome;
use super::presence;
use super::queues::is_queued;
use super::{Effect, Hub, Kind, Note};
use crate::ids::{ConnId, Platform};
use crate::limits;
use crate::metrics::Metric;
use crate::session::disconnect::Disconnect;
use crate::session::outbox::Tag;
use crate::session::{Credentials, Departed, Phase, Session, Tick};
use crate::time::Now;
use crate::wire::frame::{Frame, Opcode};
use crate::wire::upgrade;

impl Hub {
    /// Ends a session, once: later reasons are ignored.
    pub(super) fn end(&mut self, now: Now, conn: ConnId, reason: Disconnect) {
        let words = reason.terms().close_frame.map_or("", |(_, words)| words);
        self.end_saying(now, conn, reason, words);
    }

    /// As [`Hub::end`], with other words in the close frame, if there is one.
    pub(super) fn end_saying(&mut self, now: Now, conn: ConnId, reason: Disconnect, words: &str) {
        let session = self.registry.sessions.get_mut(conn.0).filter(|s| s.phase < Phase::Closing);
        let Some(session) = session else { return };
        let terms = reason.terms();
        let (before, tick) = (session.phase, Tick::of(now.mono));
        session.phase = Phase::Closing;
        session.reason = Some(reason);
        self.registry.inbound_bytes -= session.inbound_bytes();
        session.inbound = Default::default();
        session.requests = None;
        session.deadline = tick.after_ms(limits::FLUSH_DEADLINE_MS);
        self.tally.count(terms.metric);
        self.trace.note(Note::Ended, &[conn.0.index.into(), reason as u64]);
        self.follow.note(now, conn, || What::Over { reason: terms.label.into() });
        if let Some((code, _)) = terms.close_frame.filter(|_| before == Phase::Open) {
            self.queue_last(conn, Frame::close(Some(code), words));
        }
        if before == Phase::Open {
            self.queues.push(&mut self.registry.sessions, Kind::Unregister, conn, tick);
        } else if reason == Disconnect::TransportLost {
            self.tally.count(Metric::HandshakeGone);
        }
        if before == Phase::Claiming {
            self.say_gone(conn);
        }
        let waiting = self.registry.session(conn).is_some_and(|s| s.outbox.is_some());
        if terms.flush && waiting {
            self.rearm(conn);
        } else {
            self.close(conn);
        }
    }

    /// Gives the socket back to the engine.
    pub(super) fn close(&mut self, conn: ConnId) {
        let Some(session) = self.registry.session_mut(conn).filter(|s| s.phase == Phase::Closing) else {
            return;
        };
        session.phase = Phase::Closed;
        self.backlogs.update(&mut self.registry.sessions, conn.0.index, 0);
        if let Some(session) = self.registry.sessions.get_mut(conn.0)
            && let Some(outbox) = session.outbox.take()
        {
            self.registry.outbox_bytes -= outbox.bytes();
            session.ledger.bytes_unsent = u32::try_from(outbox.bytes()).unwrap_or(u32::MAX);
            let kicked = session.reason == Some(Disconnect::Kicked);
            let outcome = if kicked { DeviceOutcome::Kicked } else { DeviceOutcome::Dropped };
            for verdict in outbox.tags().filter_map(|tag| tag.verdict) {
                self.verdicts.resolve(&mut self.tally, verdict, outcome);
            }
        }
        self.wheel.disarm(&mut self.registry.sessions, conn.0.index);
        self.trace.note(Note::Closed, &[conn.0.index.into()]);
        self.effects.push_back(Effect::Close(conn));
        self.tell_urgent();
    }

    pub(super) fn transport_lost(&mut self, now: Now, conn: ConnId) {
        self.end(now, conn, Disconnect::TransportLost);
        self.close(conn); // over already, but was flushing: there is nobody to flush to
    }

    pub(super) fn transport_closed(&mut self, now: Now, conn: ConnId) {
        self.transport_lost(now, conn);
        if let Some(session) = self.registry.session_mut(conn) {
            session.transport_closed = true;
            self.follow.note(now, conn, || What::Closed);
        }
        self.free_if_done(now, conn);
    }

    /// Takes an ended session out of the user's list and of the subscriptions.
    pub(super) fn unregister(&mut self, conn: ConnId) {
        self.leave_user(conn);
        if let Some(session) = self.registry.session_mut(conn) {
            assert!(session.phase >= Phase::Closing, "a live session is unregistered (spec 8.6 a)");
            self.subscriptions.remove_all(session, conn);
        }
    }

    /// From here on no push, kick or status call sees the connection.
    pub(super) fn leave_user(&mut self, conn: ConnId) {
        if let Some(user) = self.registry.unlink(conn) {
            self.say_gone(conn);
            if let Some(session) = self.registry.session(conn) {
                let mark = self.config.names_connections.then(|| presence::mark(session));
                self.presence.left(&user, session.platform.id(), mark);
            }
            if let Some(session) = self.registry.session_mut(conn) {
                session.credentials = Credentials::Departed(Box::new(Departed { user }));
            }
        }
    }

    /// Frees the slot once the socket is joined and no queue holds the session.
    pub(super) fn free_if_done(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.registry.session(conn) else {
            return;
        };
        if session.phase == Phase::Closed && session.transport_closed && !is_queued(session) {
            assert!(!session.is_registered(), "a freed session is still in its user's list");
            if let Some(session) = self.registry.sessions.remove(conn.0) {
                self.note_ended(now, conn, session);
            }
            self.trace.note(Note::Freed, &[conn.0.index.into()]);
            self.follow.ends(conn);
        }
    }

    /// Queues a frame for a live session. `false`: the connection is ended instead (slow consumer, shard budget).
    pub(super) fn queue(&mut self, now: Now, conn: ConnId, frame: Frame) -> bool {
        let Some(session) = self.registry.session(conn).filter(|s| s.phase <= Phase::Open) else {
            return false;
        };
        let (bytes, frames) =
            session.outbox.as_ref().map_or((0, 0), |outbox| (outbox.bytes(), outbox.frames()));
        let size = frame.bytes().len();
        if frames >= self.config.outbox_frames_max || bytes + size > self.config.outbox_bytes_max {
            self.end(now, conn, Disconnect::SlowConsumer);
            return false;
        }
        if !self.make_room(now, conn, size) {
            return false;
        }
        self.queue_last(conn, frame);
        true
    }

    /// Keeps the shard's budget: ends the connections with the largest outboxes until so many bytes fit, which is
    /// seldom more than one. `false`: `conn` was one of them, or there was none worth ending and it was `conn`'s turn.
    fn make_room(&mut self, now: Now, conn: ConnId, size: usize) -> bool {
        let fits = |hub: &Self| hub.registry.outbox_bytes + size <= hub.config.shard_outbox_bytes_max;
        for _ in 0..limits::BUDGET_VICTIMS_MAX {
            if fits(self) {
                return true;
            }
            let Some(victim) = self.backlogs.largest(&self.registry.sessions) else {
                break;
            };
            self.end(now, victim, Disconnect::ShardBudget);
            self.close(victim); // over already, but was flushing: what it would get is what must go
            if victim == conn {
                return false;
            }
        }
        if !fits(self) {
            self.end(now, conn, Disconnect::ShardBudget);
            return false;
        }
        true
    }

    /// Queues without asking for the limits: for the one frame that a session ends with.
    pub(super) fn queue_last(&mut self, conn: ConnId, frame: Frame) {
        let Some(session) = self.registry.sessions.get_mut(conn.0).filter(|s| s.phase < Phase::Closed) else {
            return;
        };
        self.registry.outbox_bytes += frame.bytes().len();
        self.trace.note(Note::Queued, &[conn.0.index.into(), frame.bytes().len() as u64]);
        let outbox = session.outbox.get_or_insert_default();
        outbox.push(frame);
        let bytes = outbox.bytes();
        if !session.flush_listed {
            session.flush_listed = true;
            self.flush.push_back(conn);
        }
        self.backlogs.update(&mut self.registry.sessions, conn.0.index, bytes);
    }

    pub(super) fn outbox_sent(&mut self, now: Now, conn: ConnId, n: usize) {
        let Some(session) = self.registry.sessions.get_mut(conn.0) else {
            return;
        };
        let Some(outbox) = &mut session.outbox else { return };
        let sent = outbox.sent(n);
        let left = outbox.bytes();
        let mut verdicts = false;
        while let Some(tag) = outbox.next_written() {
            if let Some(verdict) = tag.verdict {
                verdicts = true;
                self.verdicts.resolve(&mut self.tally, verdict, DeviceOutcome::Written);
            }
        }
        self.registry.outbox_bytes -= sent.bytes;
        session.ledger.bytes_out += sent.bytes as u64;
        self.tally.add(Metric::FramesOut, sent.frames);
        self.tally.add(Metric::BytesOut, sent.bytes as u64);
        self.backlogs.update(&mut self.registry.sessions, conn.0.index, left);
        if verdicts {
            self.tell_urgent();
        }
        if left > 0 {
            self.left_behind(now, conn, n);
        } else {
            self.emptied(conn);
        }
    }

    /// Nothing waits for a connection any more.
    fn emptied(&mut self, conn: ConnId) {
        if let Some(session) = self.registry.session_mut(conn) {
            session.outbox = None;
            if session.phase == Phase::Closing {
                self.close(conn);
            }
        }
    }

    /// Tags the frame that was queued last.
    pub(super) fn tag_last(&mut self, conn: ConnId, tag: Tag) {
        let Some(session) = self.registry.session_mut(conn) else {
            return;
        };
        if let Some(outbox) = &mut session.outbox {
            outbox.tag_last(tag);
        }
        if tag.expires.is_some_and(|expires| expires < session.timer.at) {
            self.rearm(conn);
        }
    }

    /// Takes out the frames that are worthless by now.
    fn expire_frames(&mut self, tick: Tick, conn: ConnId) {
        let mut any = false;
        loop {
            let session = self.registry.sessions.get_mut(conn.0);
            let Some(outbox) = session.and_then(|session| session.outbox.as_mut()) else {
                return;
            };
            let Some((tag, bytes)) = outbox.expire(tick) else {
                break;
            };
            any = true;
            let left = outbox.bytes();
            self.registry.outbox_bytes -= bytes;
            self.tally.count(Metric::FramesExpired);
            self.trace.note(Note::Expired, &[conn.0.index.into(), bytes as u64]);
            self.backlogs.update(&mut self.registry.sessions, conn.0.index, left);
            if let Some(verdict) = tag.verdict {
                self.verdicts.resolve(&mut self.tally, verdict, DeviceOutcome::Expired);
            }
        }
        if any {
            let empty = |session: &Session| session.outbox.as_ref().is_some_and(|outbox| outbox.is_empty());
            if self.registry.session(conn).is_some_and(empty) {
                self.emptied(conn);
            }
            self.tell_urgent();
        }
    }

    /// A send took `n` bytes and not all.
    fn left_behind(&mut self, now: Now, conn: ConnId, n: usize) {
        let Some(session) = self.registry.sessions.get_mut(conn.0) else {
            return;
        };
        let Some(outbox) = &mut session.outbox else { return };
        let was_stuck = outbox.stuck_since.is_some();
        if n > 0 || !was_stuck {
            outbox.stuck_since = Some(Tick::of(now.mono));
        }
        if n > 0 && !session.flush_listed {
            // A batch was cut at its limit: the rest goes in the next turn, unless the engine found the socket full and
            // comes back by itself; then the entry costs one look.
            session.flush_listed = true;
            self.flush.push_back(conn);
        }
        if !was_stuck || outbox.next_expiry().is_some() {
            // Its timer may stand behind the send deadline, which later moves only put off.
            self.rearm(conn);
        }
    }

    /// Puts the session's timer where its state wants it.
    pub(super) fn rearm(&mut self, conn: ConnId) {
        if let Some(at) = self.registry.session(conn).and_then(Session::next_timer) {
            self.wheel.arm(&mut self.registry.sessions, conn.0.index, at);
        }
    }

    pub(super) fn tick(&mut self, now: Now) {
        self.timers_due = Some(Tick::of(now.mono));
        self.serve_timers(now);
        self.expire_calls(now);
        self.expire_held(now.mono);
        self.settle_due(now);
        self.follow.expire(now.mono);
        self.drain_step(now);
    }

    /// Looks at the sessions whose time had come at the last tick, so many in a turn: a crowd that logged in together
    /// also falls silent together.
    pub(super) fn serve_timers(&mut self, now: Now) {
        let Some(tick) = self.timers_due else { return };
        for _ in 0..limits::TIMER_BATCH_MAX {
            let Some(conn) = self.wheel.pop_due(&mut self.registry.sessions, tick) else {
                self.timers_due = None;
                return;
            };
            self.timer(now, tick, conn);
            self.rearm(conn);
        }
    }

    fn timer(&mut self, now: Now, tick: Tick, conn: ConnId) {
        self.expire_frames(tick, conn);
        let Some(session) = self.registry.session_mut(conn) else {
            return;
        };
        match session.phase {
            Phase::LoggingIn | Phase::Registering | Phase::Claiming if session.deadline <= tick => {
                self.tally.count(Metric::HandshakeUpstream);
                self.refuse_busy(now, conn, Disconnect::LoginTimeout);
            }
            Phase::Spread if session.deadline <= tick => self.queue_register(now, conn),
            Phase::Closing if session.deadline <= tick => self.close(conn),
            Phase::Open if session.send_deadline().is_some_and(|deadline| deadline <= tick) => {
                self.end(now, conn, Disconnect::SendDeadline);
            }
            Phase::Open if tick.since_ms(session.heard) >= limits::READ_DEADLINE_MS => {
                self.end(now, conn, Disconnect::ReadDeadline);
            }
            Phase::Open
                if session.platform == Platform::WEB
                    && tick.since_ms(session.pinged) >= limits::WEB_PING_INTERVAL_MS =>
            {
                session.pinged = tick;
                let ping = self.encoder.frame(&mut self.recorder, Opcode::Ping, b"");
                self.queue(now, conn, ping);
            }
            _ => {}
        }
    }

    /// A transient refusal before register: 503 without JSON, since old SDKs stop for good on any JSON (spec trap 1).
    pub(super) fn refuse_busy(&mut self, now: Now, conn: ConnId, reason: Disconnect) {
        let frame = self.encoder.raw(&mut self.recorder, &upgrade::unavailable());
        self.queue_last(conn, frame);
        self.end(now, conn, reason);
    }
}
