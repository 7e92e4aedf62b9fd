//! What stands above the engine: the state of a thread, and the steps that all its parts share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::TcpStream;

use pinion::hub::SendBatch;
use pinion::ids::ConnId;
use pinion::limits::FRAME_SENT_BYTES_MAX;
use pinion::shard::engine::Upper;
use pinion::wire::envelope::{Codec, Variant};
use pinion::wire::frame::{Frame, Opcode, write_masked};
use pinion::wire::message::ReadLimits;
use pinion_bench_kit::clock::now_ns;

use super::conn::{Conn, State};
use super::pace::{Act, Pace};
use crate::calls::Calls;
use crate::marks::Marks;
use crate::news::{News, Part};
use crate::openim;
use crate::script::{self, Hooks, Script};
use crate::tally::{Latencies, Second, Tally};
use crate::tokens::Purse;
use crate::websocket::Random;

/// The largest message that is read: sixteen times what the gateway sends, since others may send more.
const MESSAGE_BYTES_MAX: usize = 16 * FRAME_SENT_BYTES_MAX;

/// What is left to be done with sockets, by those who may not touch the engine.
#[derive(Default)]
pub struct Todo {
    pub adopt: Vec<(ConnId, TcpStream)>,
    pub flush: Vec<ConnId>,
    pub close: Vec<ConnId>,
    pub pause: Vec<ConnId>,
    pub resume: Vec<ConnId>,
}

impl Todo {
    pub fn is_empty(&self) -> bool {
        self.adopt.is_empty()
            && self.flush.is_empty()
            && self.close.is_empty()
            && self.pause.is_empty()
            && self.resume.is_empty()
    }
}

/// See the module's documentation.
pub struct Load {
    pub(super) part: Part,
    pub(super) script: Box<dyn Script>,
    pub(super) hooks: Hooks,
    pub(super) purse: Option<Purse>,
    pub(super) calls: Calls,
    /// `None`: not OpenIM.
    pub(super) variant: Option<Variant>,
    pub(super) limits: ReadLimits,
    pub(super) codec: Codec,
    pub(super) marks: Marks,
    pub(super) random: Random,
    pub(super) conns: Vec<Conn>,
    /// To be connected, in their order.
    pub(super) waiting: VecDeque<usize>,
    /// Connecting, or waiting for the 101.
    pub(super) handshakes: usize,
    /// Connections that the connecting phase still waits for.
    pub(super) unsettled: usize,
    pub(super) open: usize,
    pub(super) acts: BinaryHeap<Reverse<Act>>,
    pub(super) pace: Pace,
    pub(super) next_id: u32,
    pub(super) tally: Tally,
    /// Of the second that is on.
    pub(super) second: Second,
    pub(super) second_answers: Latencies,
    pub(super) second_deliveries: Latencies,
    /// When something was last answered or delivered.
    pub(super) last_ns: u64,
    /// Why the first attempt that failed did.
    pub(super) why_not: Option<String>,
    pub now_ns: u64,
    pub(super) todo: Todo,
    pub(super) news: Vec<News>,
    fault: Option<String>,
    /// A frame while it is masked.
    scratch: Vec<u8>,
}

impl Load {
    pub fn new(part: Part, script: Box<dyn Script>, purse: Option<Purse>, calls: Calls) -> Self {
        let now_ns = now_ns();
        let count = part.connections;
        Self {
            hooks: script.hooks(),
            script,
            purse,
            calls,
            variant: openim::variant(part.settings.protocol),
            limits: ReadLimits { fragments_max: u32::MAX, ..ReadLimits::client(MESSAGE_BYTES_MAX) },
            codec: Codec::default(),
            marks: Marks::default(),
            random: Random::new(now_ns ^ part.first_connection as u64),
            conns: std::iter::repeat_with(Conn::default).take(count).collect(),
            waiting: (0..count).collect(),
            handshakes: 0,
            unsettled: count,
            open: 0,
            acts: BinaryHeap::new(),
            pace: Pace::new(&part, now_ns),
            next_id: 0,
            tally: Tally::default(),
            second: Second::default(),
            second_answers: Latencies::default(),
            second_deliveries: Latencies::default(),
            last_ns: now_ns,
            why_not: None,
            now_ns,
            todo: Todo::default(),
            news: Vec::new(),
            fault: None,
            scratch: Vec::new(),
            part,
        }
    }

    pub fn take_todo(&mut self) -> Todo {
        std::mem::take(&mut self.todo)
    }

    pub fn has_nothing_to_do(&self) -> bool {
        self.todo.is_empty()
    }

    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// The run cannot go on. The first reason is told.
    pub fn fail(&mut self, why: String) {
        self.fault.get_or_insert(why);
    }

    /// Calls the script about a connection; its error ends the run.
    pub(super) fn ask<T>(
        &mut self,
        index: usize,
        hook: impl FnOnce(&mut dyn Script, &script::Conn<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let user = self.user(index);
        let number = self.number(index);
        let about = script::Conn { number, user: &user, login: u64::from(self.conns[index].logins) };
        match hook(&mut *self.script, &about) {
            Ok(answer) => Some(answer),
            Err(why) => {
                self.fail(why);
                None
            }
        }
    }

    /// Over all threads and processes.
    pub(super) fn number(&self, index: usize) -> usize {
        self.part.first_connection + index
    }

    /// Empty without OpenIM.
    pub(super) fn user(&self, index: usize) -> String {
        match self.variant {
            Some(_) => openim::user(&self.part.settings.users, self.number(index)),
            None => String::new(),
        }
    }

    /// Queues a frame of ours. `false`: too much waits already.
    pub(super) fn send(&mut self, index: usize, opcode: Opcode, payload: &[u8]) -> bool {
        self.scratch.clear();
        write_masked(&mut self.scratch, opcode, payload, self.random.mask());
        let frame = Frame::raw(&self.scratch);
        self.queue(index, frame)
    }

    /// Queues bytes as they are.
    pub(super) fn queue(&mut self, index: usize, frame: Frame) -> bool {
        let conn = &mut self.conns[index];
        let first = !conn.has_output();
        let queued = conn.queue(frame);
        if first && queued {
            self.todo.flush.push(conn.id(index));
        }
        queued
    }

    /// Counts an error of the second that is on, too.
    pub(super) fn errors(&mut self) -> &mut crate::tally::Errors {
        self.second.errors += 1;
        &mut self.tally.errors
    }
}

impl Upper for Load {
    fn bytes(&mut self, conn: ConnId, bytes: &mut [u8]) {
        self.now_ns = now_ns();
        self.tally.bytes_in += bytes.len() as u64;
        self.second.bytes_in += bytes.len() as u64;
        match self.conns[conn.index()].state {
            State::Handshake => self.handshake_bytes(conn.index(), bytes),
            State::FirstFrame | State::Open => self.frames(conn.index(), bytes),
            State::Down | State::Closing => {}
        }
    }

    fn lost(&mut self, conn: ConnId) {
        self.now_ns = now_ns();
        self.lost_connection(conn.index());
    }

    fn closed(&mut self, conn: ConnId) {
        self.closed_socket(conn.index());
    }

    fn fill(&mut self, conn: ConnId, batch: &mut SendBatch) -> usize {
        let conn = &mut self.conns[conn.index()];
        let bytes = conn.fill(batch);
        conn.offered = bytes > 0;
        bytes
    }

    fn sent(&mut self, conn: ConnId, bytes: usize) {
        self.tally.bytes_out += bytes as u64;
        let entry = &mut self.conns[conn.index()];
        entry.sent(bytes);
        if bytes == 0 {
            // Full, or not connected yet: the engine waits, and nothing has gone wrong so far.
            entry.offered = false;
            return;
        }
        (entry.offered, entry.reached) = (false, true);
        if entry.has_output() {
            self.todo.flush.push(conn);
        } else if entry.last_words {
            self.todo.close.push(conn);
        } else if !self.hooks.request {
            entry.tidy();
        }
    }
}
