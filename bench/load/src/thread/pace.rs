//! Everything of a thread that happens at a time: the schedule of an open loop, the rounds of a closed one, pauses,
//! pings, deadlines, and the stages of the run.
//!
//! What always holds: an open loop's operation is due at its place in the schedule, whatever happened to those before.

use std::cmp::Reverse;

use pinion::wire::frame::Opcode;

use super::conn::{Awaited, Pending, State};
use super::load::Load;
use crate::news::{News, Part};
use crate::tally::{Latencies, Second};

/// How often orders are looked for, connections are pinged, and the ramp goes on.
const TICK_NS: u64 = 10_000_000;
/// How often deadlines are looked at.
const DEADLINES_NS: u64 = 100_000_000;
const SECOND_NS: u64 = 1_000_000_000;
/// Operations that are begun in one turn, so that a schedule that cannot be kept does not stop the reading.
const BEGUN_PER_TURN_MAX: usize = 1024;
/// The measured time is over when nothing was answered or delivered for so long, ...
const QUIET_NS: u64 = 500_000_000;
/// ... of which the time between two looks counts for so much at most: while the machine did not let this thread run,
/// nothing could be seen to come.
const QUIET_STEP_NS: u64 = 2 * TICK_NS;
/// Pause before a closed loop goes on after a call that was lost.
const LOST_NS: u64 = 100_000_000;

/// What is to be done at a time. Ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Act {
    pub at_ns: u64,
    pub deed: Deed,
    pub index: usize,
    /// The connection's round or generation when this was planned: out of date, it is not done.
    pub check: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deed {
    /// The next operation of a closed loop.
    Begin,
    /// Connect again.
    Dial,
    /// Read again.
    Resume,
}

/// Where the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    /// All are connected; the others are waited for.
    Connected,
    /// The measured time begins then.
    Armed {
        at_ns: u64,
    },
    Measuring {
        end_ns: u64,
    },
    /// Nothing new is begun; what was begun is answered or given up by then.
    Draining {
        until_ns: u64,
        /// How long nothing has come, as of the last look.
        quiet_ns: u64,
        looked_ns: u64,
    },
    Done,
}

/// The clocks of a thread.
pub struct Pace {
    stage: Stage,
    /// Of an open loop: ns from one operation to the next. `None`: a closed loop.
    step_ns: Option<f64>,
    /// When the first operation of an open loop is due; how many were begun; whose turn it is.
    first_ns: u64,
    begun: u64,
    cursor: usize,
    /// New connections per ns while connecting.
    ramp: Option<f64>,
    started_ns: u64,
    dialed: u64,
    next_tick_ns: u64,
    next_deadlines_ns: u64,
    /// The number of the second that is on.
    second: u64,
    /// Pings that are owed, and who is next.
    pings_owed: f64,
    ping_cursor: usize,
}

impl Pace {
    pub fn new(part: &Part, now_ns: u64) -> Self {
        let rate = part.settings.rate.map(|rate| part.share_of(rate));
        Self {
            stage: Stage::Connecting,
            step_ns: rate.map(|rate| SECOND_NS as f64 / rate.max(1e-9)),
            first_ns: 0,
            begun: 0,
            cursor: 0,
            ramp: part.settings.ramp.map(|ramp| part.share_of(ramp) / SECOND_NS as f64),
            started_ns: now_ns,
            dialed: 0,
            next_tick_ns: now_ns,
            next_deadlines_ns: now_ns,
            second: now_ns.saturating_sub(part.epoch_ns) / SECOND_NS,
            pings_owed: 0.0,
            ping_cursor: 0,
        }
    }

    /// Whether one more may be connected now. To be asked for each.
    pub fn may_dial(&mut self, now_ns: u64) -> bool {
        let Some(ramp) = self.ramp.filter(|_| self.stage == Stage::Connecting) else { return true };
        let allowed = now_ns.saturating_sub(self.started_ns) as f64 * ramp + 1.0;
        let may = (self.dialed as f64) < allowed;
        self.dialed += u64::from(may);
        may
    }

    pub fn is_closed_loop(&self) -> bool {
        self.step_ns.is_none()
    }

    fn is_measuring(&self) -> bool {
        matches!(self.stage, Stage::Measuring { .. })
    }

    /// When the next operation of an open loop is due.
    fn scheduled_ns(&self) -> Option<u64> {
        let Stage::Measuring { end_ns } = self.stage else { return None };
        let due_ns = self.first_ns + (self.begun as f64 * self.step_ns?) as u64;
        (due_ns < end_ns).then_some(due_ns)
    }
}

impl Load {
    pub fn go_at(&mut self, at_ns: u64) {
        self.pace.stage = Stage::Armed { at_ns };
    }

    /// When there is something to do next, if nothing comes.
    pub fn next_due_ns(&self) -> u64 {
        let act = self.acts.peek().map(|Reverse(act)| act.at_ns);
        let armed = match self.pace.stage {
            Stage::Armed { at_ns } => Some(at_ns),
            Stage::Measuring { end_ns } => Some(end_ns),
            _ => None,
        };
        // Without an open connection the schedule waits for one.
        let scheduled = self.pace.scheduled_ns().filter(|_| self.hooks.request && self.open > 0);
        [act, armed, scheduled].into_iter().flatten().fold(self.pace.next_tick_ns, u64::min)
    }

    /// Does what is due. `true`: more is due already.
    pub fn keep_time(&mut self) -> bool {
        while let Some(Reverse(act)) = self.acts.peek().copied()
            && act.at_ns <= self.now_ns
        {
            self.acts.pop();
            self.act(act);
        }
        self.change_stage();
        let more = self.follow_schedule();
        if self.now_ns >= self.pace.next_tick_ns {
            self.tick();
        }
        more
    }

    fn act(&mut self, act: Act) {
        let conn = &mut self.conns[act.index];
        match act.deed {
            Deed::Begin => {
                if conn.round == act.check && conn.state == State::Open && self.pace.is_measuring() {
                    self.begin(act.index, self.now_ns);
                }
            }
            Deed::Dial => {
                if conn.generation == act.check && conn.state == State::Down {
                    self.waiting.push_back(act.index);
                }
            }
            Deed::Resume => {
                if conn.generation == act.check && conn.state == State::Open {
                    self.todo.resume.push(conn.id(act.index));
                    if let Some(pending) = conn.first(Awaited::Pause) {
                        self.count_answer(act.index, &pending, None);
                        self.go_on(act.index, &pending);
                    }
                }
            }
        }
    }

    fn change_stage(&mut self) {
        let now_ns = self.now_ns;
        match self.pace.stage {
            Stage::Connecting if self.unsettled == 0 => {
                self.pace.stage = Stage::Connected;
                let why_not = self.why_not.take();
                self.news.push(News::Connected { open: self.open, at_ns: now_ns, why_not });
            }
            Stage::Armed { at_ns } if now_ns >= at_ns => self.start_measuring(at_ns),
            Stage::Measuring { end_ns } if now_ns >= end_ns && self.pace.scheduled_ns().is_none() => {
                let until_ns = now_ns + self.timeout_ns();
                self.pace.stage = Stage::Draining { until_ns, quiet_ns: 0, looked_ns: now_ns };
            }
            Stage::Draining { until_ns, quiet_ns, looked_ns } => {
                let step_ns = now_ns.saturating_sub(looked_ns).min(QUIET_STEP_NS);
                let quiet_ns = if self.last_ns > looked_ns { 0 } else { quiet_ns + step_ns };
                self.pace.stage = Stage::Draining { until_ns, quiet_ns, looked_ns: now_ns };
                let is_quiet = quiet_ns > QUIET_NS && !self.conns.iter().any(super::conn::Conn::is_waiting);
                if is_quiet || now_ns >= until_ns {
                    self.end_run();
                }
            }
            _ => {}
        }
    }

    fn start_measuring(&mut self, at_ns: u64) {
        let duration_ns = u64::try_from(self.part.settings.duration.as_nanos()).unwrap_or(u64::MAX);
        self.pace.stage = Stage::Measuring { end_ns: at_ns.saturating_add(duration_ns) };
        self.tally.begin_measuring();
        self.last_ns = at_ns;
        // Threads take turns, so that their operations do not come all at once.
        let phase = self.part.first_thread as f64 / self.part.settings.threads.max(1) as f64;
        self.pace.first_ns = at_ns + (phase * self.pace.step_ns.unwrap_or_default()) as u64;
        for index in 0..self.conns.len() {
            self.start_round(index);
        }
    }

    fn end_run(&mut self) {
        self.pace.stage = Stage::Done;
        let tally = Box::new(std::mem::take(&mut self.tally));
        self.news.push(News::Done { tally, open: self.open, last_ns: self.last_ns });
    }

    /// Begins what an open loop has to begin by now. `true`: there is more.
    fn follow_schedule(&mut self) -> bool {
        if !self.hooks.request || self.pace.step_ns.is_none() {
            return false;
        }
        for _ in 0..BEGUN_PER_TURN_MAX {
            let Some(due_ns) = self.pace.scheduled_ns().filter(|due_ns| *due_ns <= self.now_ns) else {
                return false;
            };
            let Some(index) = self.next_open() else {
                return false; // late by no fault of ours: the operation waits for a connection
            };
            self.pace.begun += 1;
            self.tally.lateness.record(self.now_ns - due_ns);
            self.begin(index, due_ns);
        }
        true
    }

    /// The connection whose turn it is, of those that are open.
    fn next_open(&mut self) -> Option<usize> {
        let count = self.conns.len();
        (0..count).find_map(|_| {
            let index = self.pace.cursor;
            self.pace.cursor = (index + 1) % count;
            (self.conns[index].state == State::Open).then_some(index)
        })
    }

    /// A closed loop's connection is free: its next operation, after the script's delay.
    pub(super) fn start_round(&mut self, index: usize) {
        if !self.hooks.request
            || !self.pace.is_closed_loop()
            || !self.pace.is_measuring()
            || self.conns[index].state != State::Open
        {
            return;
        }
        let mut at_ns = self.now_ns;
        if self.hooks.delay {
            let Some(delay) = self.ask(index, |script, conn| script.delay(conn)) else { return };
            at_ns = at_ns.saturating_add(u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX));
        }
        self.next_round_at(index, at_ns);
    }

    /// By way of the list even if it is due now: an answer that comes at once must not begin the next from within.
    pub(super) fn next_round_at(&mut self, index: usize, at_ns: u64) {
        let check = self.conns[index].round;
        self.acts.push(Reverse(Act { at_ns, deed: Deed::Begin, index, check }));
    }

    /// As [`Load::go_on`], after a pause: nobody was there to answer.
    pub(super) fn go_on_later(&mut self, index: usize, pending: &Pending) {
        if self.pace.is_closed_loop() && pending.round == self.conns[index].round && !pending.expired {
            self.next_round_at(index, self.now_ns + LOST_NS);
        }
    }

    fn tick(&mut self) {
        self.ping();
        if self.now_ns >= self.pace.next_deadlines_ns {
            self.pace.next_deadlines_ns = self.now_ns + DEADLINES_NS;
            self.look_at_deadlines();
        }
        let second = self.now_ns.saturating_sub(self.part.epoch_ns) / SECOND_NS;
        if second > self.pace.second {
            self.report_second();
            self.pace.second = second;
        }
        self.pace.next_tick_ns = self.now_ns + TICK_NS;
    }

    /// Spreads the pings of all connections evenly over the interval.
    fn ping(&mut self) {
        let Some(every) = self.part.settings.ping.filter(|every| !every.is_zero()) else { return };
        let since_ns = self.now_ns.saturating_sub(self.pace.next_tick_ns) + TICK_NS;
        let count = self.conns.len();
        self.pace.pings_owed += count as f64 * since_ns as f64 / every.as_nanos() as f64;
        let owed = (self.pace.pings_owed as usize).min(count);
        self.pace.pings_owed -= owed as f64;
        for _ in 0..owed {
            let index = self.pace.ping_cursor;
            self.pace.ping_cursor = (index + 1) % count;
            if self.conns[index].state == State::Open {
                self.send(index, Opcode::Ping, b"");
            }
        }
    }

    fn timeout_ns(&self) -> u64 {
        u64::try_from(self.part.settings.timeout.as_nanos()).unwrap_or(u64::MAX)
    }

    fn look_at_deadlines(&mut self) {
        let before_ns = self.now_ns.saturating_sub(self.timeout_ns());
        for index in 0..self.conns.len() {
            let conn = &mut self.conns[index];
            match conn.state {
                State::Handshake | State::FirstFrame if conn.since_ns < before_ns => {
                    self.give_up_handshake(index);
                }
                // Its last words do not leave.
                State::Closing if conn.since_ns < before_ns => self.todo.close.push(conn.id(index)),
                _ => {}
            }
            for pending in self.conns[index].expire(before_ns) {
                self.errors().timeout += 1;
                // It is marked now; the round must not wait for it any longer.
                self.go_on(index, &Pending { expired: false, ..pending });
            }
        }
    }

    fn report_second(&mut self) {
        let answers = std::mem::take(&mut self.second_answers);
        let deliveries = std::mem::take(&mut self.second_deliveries);
        let second = Second { open: self.open, ..std::mem::take(&mut self.second) };
        let latency: Latencies = if second.deliveries > 0 { deliveries } else { answers };
        self.news.push(News::Second { number: self.pace.second, second, latency });
    }
}
