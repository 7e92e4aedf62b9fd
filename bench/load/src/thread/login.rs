//! A connection's way in and out: connecting, the handshake, how it ends, and whether it comes back.

use std::cmp::Reverse;
use std::io;
use std::time::Duration;

use pinion::ids::ConnId;
use pinion::wire::frame::{Frame, Opcode};
use pinion_bench_kit::clock::now_ns;

use super::conn::{Awaited, State};
use super::load::Load;
use super::pace::{Act, Deed};
use crate::dial::dial;
use crate::openim;
use crate::script::Ending;
use crate::websocket::{self, Answer};

/// The connecting phase gives a connection up after so many attempts.
const ATTEMPTS_MAX: u8 = 3;
/// Pause before the second attempt; doubled for each further one, up to 32 times.
const AGAIN_NS: u64 = 100_000_000;
/// Close codes that mean "none came" and "the connection was lost" (RFC 6455 section 7.4.1).
const NO_CODE: u16 = 1005;
const ABNORMAL: u16 = 1006;
const NORMAL: u16 = 1000;

impl Load {
    /// Connects what waits, as far as the bounds allow.
    pub fn dial(&mut self) {
        while self.handshakes < self.part.settings.connecting.max(1)
            && !self.waiting.is_empty()
            && self.pace.may_dial(self.now_ns)
        {
            if let Some(index) = self.waiting.pop_front() {
                self.dial_one(index);
            }
        }
    }

    fn dial_one(&mut self, index: usize) {
        let number = self.number(index);
        let settings = &self.part.settings;
        let target = settings.targets[number % settings.targets.len()].clone();
        // Divided by the targets first: else an even number of both would leave half of the pairs out.
        let pick = number / settings.targets.len();
        let source = settings.sources.get(pick % settings.sources.len().max(1)).copied();
        let request = match self.login_path(index, &target.path) {
            Ok(path) => {
                let key = websocket::key(self.key_seed(index, self.conns[index].generation + 1));
                websocket::request(&target.host, &path, &key, &self.part.settings.headers)
            }
            Err(why) => return self.fail(why),
        };
        self.now_ns = now_ns();
        let conn = &mut self.conns[index];
        conn.generation += 1;
        conn.state = State::Handshake;
        conn.since_ns = self.now_ns;
        conn.kicked = false;
        self.handshakes += 1;
        let id = conn.id(index);
        match dial(target.address, source) {
            Ok(socket) => {
                self.todo.adopt.push((id, socket));
                self.queue(index, Frame::raw(&request));
            }
            Err(error) => self.not_dialed(id, &error),
        }
    }

    /// There is no socket for this connection.
    pub fn not_dialed(&mut self, conn: ConnId, error: &io::Error) {
        self.errors().connect += 1;
        self.handshakes -= 1;
        self.remember(|| format!("cannot connect: {error}"));
        self.failed(conn.index());
        self.closed_socket(conn.index());
    }

    fn login_path(&self, index: usize, path: &str) -> Result<String, String> {
        let (Some(variant), Some(purse)) = (self.variant, &self.purse) else {
            return Ok(path.to_owned());
        };
        let user = self.user(index);
        let platform = openim::platform(&self.part.settings.users, self.number(index));
        let token = purse.token(&user, platform)?;
        Ok(openim::login_path(path, &user, platform, &token, variant))
    }

    /// What the key of a connection's socket is made from, so that it need not be kept.
    fn key_seed(&self, index: usize, generation: u32) -> u64 {
        self.part.epoch_ns ^ (self.number(index) as u64) << 32 ^ u64::from(generation)
    }

    pub(super) fn handshake_bytes(&mut self, index: usize, bytes: &mut [u8]) {
        let mut head = self.conns[index].add_to_head(bytes);
        match self.read_answer(index, &head, false) {
            Answer::Partial => self.conns[index].keep_head(head),
            Answer::Open(head_bytes) => {
                let first_frame = self.variant.is_some() && self.wants_first_frame(index);
                self.conns[index].state = if first_frame { State::FirstFrame } else { State::Open };
                if !first_frame {
                    self.logged_in(index);
                }
                // A push, or the first frame, may stand right behind the 101.
                if head.len() > head_bytes {
                    self.frames(index, &mut head[head_bytes..]);
                }
            }
            Answer::Refused { status, code } => {
                self.refused(index, code.unwrap_or_else(|| status.to_string()))
            }
            Answer::Broken => {
                self.errors().protocol += 1;
                self.remember(|| "the answer to the handshake is no WebSocket's".to_owned());
                self.failed(index);
            }
        }
    }

    fn read_answer(&self, index: usize, head: &[u8], ended: bool) -> Answer {
        let key = websocket::key(self.key_seed(index, self.conns[index].generation));
        websocket::answer(head, &key, ended)
    }

    fn wants_first_frame(&self, index: usize) -> bool {
        let targets = &self.part.settings.targets;
        openim::wants_first_frame(&targets[self.number(index) % targets.len()].path)
    }

    /// The server answered, but not with 101; or with an error in its first frame.
    pub(super) fn refused(&mut self, index: usize, kind: String) {
        self.remember(|| format!("the handshake was answered with {kind}"));
        *self.errors().handshake.entry(kind).or_default() += 1;
        self.failed(index);
    }

    /// The login has ended well.
    pub(super) fn logged_in(&mut self, index: usize) {
        self.handshakes -= 1;
        self.open += 1;
        self.tally.logins += 1;
        let conn = &mut self.conns[index];
        conn.state = State::Open;
        conn.logins += 1;
        conn.failures = 0;
        conn.round += 1;
        if !self.hooks.request {
            conn.tidy();
        }
        let took_ns = self.now_ns.saturating_sub(conn.since_ns);
        self.tally.login_latency.record(took_ns);
        self.settle(index);
        if self.hooks.connected
            && let Some(operations) = self.ask(index, |script, conn| script.connected(conn))
        {
            self.begin_untimed(index, operations);
        }
        while let Some(pending) = self.conns[index].first(Awaited::Login) {
            self.count_answer(index, &pending, None);
        }
        self.start_round(index);
    }

    /// The connecting phase is done with this connection.
    fn settle(&mut self, index: usize) {
        if !std::mem::replace(&mut self.conns[index].settled, true) {
            self.unsettled -= 1;
        }
    }

    /// This attempt has failed; counted already. Decides whether there is another one.
    fn failed(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.failures = conn.failures.saturating_add(1);
        let pause_ns = AGAIN_NS << conn.failures.saturating_sub(1).min(5);
        if !conn.settled && conn.failures >= ATTEMPTS_MAX {
            self.settle(index);
            return self.end(index, None);
        }
        let pause_ns = pause_ns / 2 + self.random.draw() % pause_ns;
        self.end(index, Some(self.now_ns + pause_ns));
    }

    /// Ends the connection's socket, if it is not ending yet. `again_ns`: when to connect again.
    fn end(&mut self, index: usize, again_ns: Option<u64>) {
        let conn = &mut self.conns[index];
        match conn.state {
            State::Down | State::Closing => return,
            State::Handshake | State::FirstFrame => self.handshakes = self.handshakes.saturating_sub(1),
            State::Open => self.open -= 1,
        }
        conn.state = State::Closing;
        conn.since_ns = self.now_ns;
        conn.again_ns = again_ns;
        if !conn.has_output() || !conn.last_words {
            self.todo.close.push(conn.id(index));
        }
    }

    /// The script's, or ours: closes and logs in again.
    pub(super) fn reconnect(&mut self, index: usize, how: Ending) {
        if how == Ending::Close {
            self.say_goodbye(index, NORMAL);
        }
        self.end(index, Some(self.now_ns));
    }

    /// A close frame; the socket is closed behind it.
    fn say_goodbye(&mut self, index: usize, code: u16) {
        let queued = self.send(index, Opcode::Close, &code.to_be_bytes());
        self.conns[index].last_words = queued;
    }

    /// The engine says that the peer is gone.
    pub(super) fn lost_connection(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        let (state, offered, reached, kicked) = (conn.state, conn.offered, conn.reached, conn.kicked);
        match state {
            State::Down => {}
            State::Closing => self.todo.close.push(conn.id(index)),
            State::Handshake | State::FirstFrame => self.lost_early(index, reached),
            State::Open => {
                if !kicked {
                    let errors = self.errors();
                    *(if offered { &mut errors.write } else { &mut errors.read }) += 1;
                }
                self.gone(index, ABNORMAL, "");
            }
        }
    }

    fn lost_early(&mut self, index: usize, reached: bool) {
        let head = self.conns[index].add_to_head(&[]);
        if !head.is_empty()
            && let Answer::Refused { status, code } = self.read_answer(index, &head, true)
        {
            return self.refused(index, code.unwrap_or_else(|| status.to_string()));
        }
        if reached {
            self.errors().read += 1;
            self.remember(|| "the server hung up on the handshake".to_owned());
        } else {
            self.errors().connect += 1;
            self.remember(|| "nobody accepts connections there".to_owned());
        }
        self.failed(index);
    }

    /// The server's close frame.
    pub(super) fn closed_by_server(&mut self, index: usize, code: Option<u16>) {
        let code = code.unwrap_or(NO_CODE);
        *self.errors().closed.entry(code).or_default() += 1;
        if code != NO_CODE {
            self.say_goodbye(index, code);
        }
        self.gone(index, code, "");
    }

    /// An open connection ended by no wish of ours: the script, or the rule without one, says whether it comes back.
    /// One that OpenIM told to go does not: two devices of a user would chase each other for ever.
    pub(super) fn gone(&mut self, index: usize, code: u16, reason: &str) {
        let mut back = !self.conns[index].kicked;
        let mut pause = Duration::from_nanos(AGAIN_NS / 2 + self.random.draw() % AGAIN_NS);
        if self.hooks.closed {
            back = self.ask(index, |script, conn| script.closed(conn, code, reason)).unwrap_or(false);
            if back && self.hooks.delay {
                pause = self.ask(index, |script, conn| script.delay(conn)).unwrap_or(pause);
            }
        }
        let pause_ns = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        self.end(index, back.then(|| self.now_ns.saturating_add(pause_ns)));
    }

    /// The socket is closed: nothing of it is in flight.
    pub(super) fn closed_socket(&mut self, index: usize) {
        let conn = &mut self.conns[index];
        conn.forget_socket();
        conn.state = State::Down;
        let Some(again_ns) = conn.again_ns.take() else { return };
        if again_ns <= self.now_ns {
            self.waiting.push_back(index);
        } else {
            let check = conn.generation;
            self.acts.push(Reverse(Act { at_ns: again_ns, deed: Deed::Dial, index, check }));
        }
    }

    /// A handshake that takes too long.
    pub(super) fn give_up_handshake(&mut self, index: usize) {
        self.errors().timeout += 1;
        self.remember(|| "no answer to the handshake in time".to_owned());
        self.failed(index);
    }

    fn remember(&mut self, why: impl FnOnce() -> String) {
        self.why_not.get_or_insert_with(why);
    }
}
