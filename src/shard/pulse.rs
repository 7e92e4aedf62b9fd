//! The heartbeat of a thread, and what it was doing: plain relaxed atomics, written by the thread, read by the watcher.
//!
//! Not here: the judgement whether a thread is stalled (`stall.rs`). What always holds: one thread writes; a stale or
//! torn view (the activity of one input, the connection of the next) is possible while the thread runs and impossible
//! once it is stuck, which is when it is read. These atomics are an addition to the list of architecture.md section 5:
//! the watcher must see what the thread cannot say any more.
//!
//! Call order: [`Pulse::begin`] on the thread itself, then each turn [`Pulse::turn`], [`Pulse::enter`] before each
//! piece of work, [`Pulse::park`] before the loop waits; [`Pulse::end`] when the loop is left.

use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

use crate::ids::{ConnId, SlotId};
use crate::time::Mono;

/// Stamped by a thread each turn, read by the watcher. Alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
pub struct Pulse {
    /// `Mono` of the last turn.
    stamp_ms: AtomicU64,
    turns: AtomicU64,
    /// Index and generation, or [`NO_CONNECTION`].
    connection: AtomicU64,
    /// Kernel thread id, for the signal that asks for a backtrace; 0 before `begin`.
    thread: AtomicI32,
    activity: AtomicU8,
    phase: AtomicU8,
}

/// An index of `u32::MAX` is never reached: slabs are bounded by the connection limit.
const NO_CONNECTION: u64 = u64::MAX;

macro_rules! activities {
    ($($name:ident $text:literal $doc:literal;)*) => {
        /// What a thread is working on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Activity { $(#[doc = $doc] $name,)* }

        /// By number.
        const ACTIVITIES: &[(Activity, &str)] = &[$((Activity::$name, $text),)*];
    };
}

activities! {
    Start "starting" "Before its first turn.";
    Turn "between inputs" "In its loop, between two pieces of work.";
    Reply "an upstream reply" "Replies lane.";
    Control "a control mail" "Control lane.";
    Push "a push mail" "Push lane.";
    HandOver "a handed-over connection" "Hand-over lane.";
    Accept "an accept" "A new connection from the listener.";
    Head "a request head" "Reading or judging a handshake.";
    Bytes "bytes of a client" "Received bytes, from frame to dispatch.";
    Lost "a lost or closed transport" "The end of a socket.";
    Tick "the ticker" "Deadlines.";
    HubTurn "the hub's turn" "Register, unregister and kick queues, push slices.";
    Effects "effects of the hub" "Calls, verdicts, closes.";
    Send "a send to a client" "Filling and sending a batch.";
    Presence "presence records" "Taking presence out of the hub.";
    Publish "publishing counts" "Metrics.";
    Stall "the planted stall" "The test switch.";
}

impl Activity {
    /// In words, for the report of a stall.
    pub fn text(self) -> &'static str {
        ACTIVITIES.get(usize::from(self as u8)).map_or("unknown", |entry| entry.1)
    }

    fn from_number(number: u8) -> Self {
        ACTIVITIES.get(usize::from(number)).map_or(Self::Start, |entry| entry.0)
    }
}

/// Where a thread is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not in its loop yet: nothing is expected of it.
    Unborn,
    /// In its loop.
    Turning,
    /// Its loop waits for events. Tasks of connections may still run, and the wait ends within `limits::REST_MS`.
    Parked,
    /// Left its loop: nothing is expected of it.
    Ended,
}

/// What the watcher sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// Start of the last turn.
    pub stamp: Mono,
    /// Turns so far.
    pub turns: u64,
    /// The last piece of work that was entered.
    pub activity: Activity,
    /// The connection that it concerned.
    pub connection: Option<ConnId>,
    /// Where it is in its life.
    pub phase: Phase,
    /// Kernel thread id.
    pub thread: i32,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            stamp_ms: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            connection: AtomicU64::new(NO_CONNECTION),
            thread: AtomicI32::new(0),
            activity: AtomicU8::new(Activity::Start as u8),
            phase: AtomicU8::new(Phase::Unborn as u8),
        }
    }
}

impl Pulse {
    /// The calling thread enters its loop and is watched from now on.
    pub fn begin(&self, now: Mono) {
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        self.stamp_ms.store(now.0, Ordering::Relaxed);
        // Release: who sees the phase sees the stamp, or a thread would be born stalled.
        self.phase.store(Phase::Turning as u8, Ordering::Release);
    }

    /// A new turn. At least once every `limits::REST_MS`.
    pub fn turn(&self, now: Mono) {
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns.wrapping_add(1), Ordering::Relaxed); // one writer: no need for an addition in memory
        self.stamp_ms.store(now.0, Ordering::Relaxed);
        self.phase.store(Phase::Turning as u8, Ordering::Relaxed);
        self.enter(Activity::Turn, None);
    }

    /// A piece of work begins. Two plain stores.
    pub fn enter(&self, activity: Activity, connection: Option<ConnId>) {
        let packed = connection
            .map_or(NO_CONNECTION, |ConnId(id)| u64::from(id.index) << 32 | u64::from(id.generation));
        self.activity.store(activity as u8, Ordering::Relaxed);
        self.connection.store(packed, Ordering::Relaxed);
    }

    /// The loop is about to wait for events. The last activity stays visible.
    pub fn park(&self) {
        self.phase.store(Phase::Parked as u8, Ordering::Relaxed);
    }

    /// The thread leaves its loop and is no longer watched.
    pub fn end(&self) {
        self.phase.store(Phase::Ended as u8, Ordering::Release);
    }

    /// Reads everything.
    pub fn glimpse(&self) -> Glimpse {
        let phase = match self.phase.load(Ordering::Acquire) {
            0 => Phase::Unborn,
            1 => Phase::Turning,
            2 => Phase::Parked,
            _ => Phase::Ended,
        };
        let packed = self.connection.load(Ordering::Relaxed);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        Glimpse {
            stamp: Mono(self.stamp_ms.load(Ordering::Relaxed)),
            turns: self.turns.load(Ordering::Relaxed),
            activity: Activity::from_number(self.activity.load(Ordering::Relaxed)),
            connection: (packed != NO_CONNECTION)
                .then(|| ConnId(SlotId { index: half(packed >> 32), generation: half(packed) })),
            phase,
            thread: self.thread.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glimpse_shows_the_last_turn_and_the_last_input() {
        let pulse = Pulse::default();
        assert_eq!((pulse.glimpse().phase, pulse.glimpse().connection), (Phase::Unborn, None));
        pulse.begin(Mono(5));
        pulse.turn(Mono(7));
        let connection = ConnId(SlotId { index: 3, generation: u32::MAX });
        pulse.enter(Activity::Bytes, Some(connection));
        pulse.park();
        let seen = pulse.glimpse();
        assert_eq!((seen.stamp, seen.turns, seen.phase), (Mono(7), 1, Phase::Parked));
        assert_eq!((seen.activity, seen.connection), (Activity::Bytes, Some(connection)));
        assert_eq!(seen.thread, rustix::thread::gettid().as_raw_nonzero().get());
        pulse.turn(Mono(8));
        assert_eq!((pulse.glimpse().phase, pulse.glimpse().connection), (Phase::Turning, None));
    }

    #[test]
    fn activities_stand_at_their_numbers() {
        for (number, (activity, text)) in ACTIVITIES.iter().enumerate() {
            assert_eq!(usize::from(*activity as u8), number);
            assert_eq!(activity.text(), *text);
            assert_eq!(Activity::from_number(*activity as u8), *activity);
        }
        assert_eq!(Activity::from_number(u8::MAX), Activity::Start);
    }
}
