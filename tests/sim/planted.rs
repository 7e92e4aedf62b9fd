//! Faults that the simulator must find, put between hub and world: production code knows nothing of them.

use std::collections::VecDeque;

use pinion::hub::SendBatch;
use pinion::hub::mail::{DeviceOutcome, DeviceVerdict, RpcOutcome};
use pinion::ids::ConnId;
use pinion::metrics::Metric;
use pinion::session::disconnect::Disconnect;
use pinion::wire::envelope::{Codec, Variant};

use crate::checker::Property;
use crate::frames::next_frame;
use crate::glue::Shard;
use crate::link::{Link, LinkId};
use crate::world::World;

/// Which fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The end of a connection is handled before its register, finds nothing, and is forgotten.
    UnregisterFirst,
    /// A push is reported as queued, but its frame is lost.
    FrameLost,
    /// A push that was not queued is reported as queued.
    VerdictFlipped,
    /// A push is reported as written as soon as it is queued.
    WrittenEarly,
    /// A stale id reaches whoever has the position now.
    GenerationIgnored,
    /// A socket is closed and joined, and the hub is not told.
    CloseForgotten,
    /// The structure of incident 1: a close goes through a short queue that the same loop drains, and a kick waits
    /// while it is full.
    Incident1,
}

/// Capacity of the planted unregister queue; upstream's is 1000.
const CIRCLE_MAX: usize = 3;

/// The planted unregister queue of a shard.
#[derive(Debug, Default)]
pub struct Circle {
    /// With the time at which each came.
    queue: VecDeque<(ConnId, u64)>,
    /// Connections that left by themselves: each waits in a task of its own, which harms nobody.
    beside: VecDeque<ConnId>,
    /// The loop waits for room.
    waits: bool,
}

impl Circle {
    /// Whether the loop waits: it will for ever.
    pub fn waits(&self) -> bool {
        self.waits
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

impl World {
    /// What the loop does first in a turn.
    pub fn drain_circle(&mut self, shard: usize) {
        let now = self.now.mono.0;
        let circle = &mut self.shards[shard].circle;
        let drained = std::mem::take(&mut circle.queue);
        let next = circle.beside.len().min(CIRCLE_MAX);
        circle.queue.extend(circle.beside.drain(..next).map(|conn| (conn, now)));
        for (conn, _) in drained {
            self.close(shard, conn);
        }
    }

    /// What a close does.
    pub fn unregister_in_circle(&mut self, shard: usize, conn: ConnId) {
        let now = self.now.mono.0;
        let Shard { circle, hub, .. } = &mut self.shards[shard];
        if circle.queue.len() < CIRCLE_MAX {
            circle.queue.push_back((conn, now));
        } else if hub.reason_of(conn) == Some(Disconnect::Kicked) {
            circle.waits = true;
        } else {
            circle.beside.push_back(conn);
        }
    }

    /// A shard that does not turn, with its queues by name, depth and age.
    pub fn check_turning(&mut self, shard: usize) {
        let Shard { unserved, hub, circle, replies, control, push, hand_over, .. } = &mut self.shards[shard];
        if *unserved <= FREEZE_TICKS {
            return;
        }
        let now = self.now.mono.0;
        let tally = hub.tally(self.now);
        let mut queues = [
            ("register", tally.value(Metric::RegisterDepth), tally.value(Metric::RegisterAge)),
            ("unregister", tally.value(Metric::UnregisterDepth), tally.value(Metric::UnregisterAge)),
            ("kick", tally.value(Metric::KickDepth), tally.value(Metric::KickAge)),
        ];
        if let Some((_, since)) = circle.queue.front() {
            (queues[1].1, queues[1].2) = (circle.queue.len() as u64, now - since);
        }
        let queues = queues.map(|(name, depth, age)| format!("{name} {depth} (oldest {age} ms)")).join(", ");
        let mine = |l: &&Link| l.shard == shard && l.conn.is_some() && !l.answered && !l.gone;
        let logins = self.links.iter().filter(mine).count() + hand_over.len();
        let text = format!(
            "shard {shard} has not turned for {unserved} ticks; queues: {queues}; lanes: replies {}, control {}, \
             push {}, hand-over {}; {logins} logins wait",
            replies.len(),
            control.len(),
            push.len(),
            hand_over.len()
        );
        self.checker.fail(Property::Freeze, text);
    }
}

/// The latest turn that slow turns explain is three ticks late.
const FREEZE_TICKS: u64 = 20;

/// Frames of a batch as they go to the socket; the first without the part that was sent before.
pub fn keep_frames(world: &mut World, (link, whole): (LinkId, bool), batch: &SendBatch) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = batch.frames.iter().map(|f| f.bytes().to_vec()).collect();
    if world.plant == Some(Plant::FrameLost) && whole && world.rng.u8(0..4) == 0 {
        let variant = world.clients[world.links[link].client].variant;
        let from = usize::from(batch.skip > 0); // a frame that began cannot be lost as a whole
        let push = frames.iter().skip(from).position(|frame| is_push(&mut world.codec, variant, frame));
        if let Some(position) = push {
            frames[from + position].clear();
        }
    }
    if let Some(first) = frames.first_mut() {
        first.drain(..batch.skip);
    }
    frames
}

fn is_push(codec: &mut Codec, variant: Variant, bytes: &[u8]) -> bool {
    next_frame(bytes)
        .filter(|frame| frame.opcode == 2)
        .and_then(|frame| codec.decode_response(variant, frame.payload).ok())
        .is_some_and(|response| response.id == 2001)
}

/// A verdict on its way to the caller.
pub fn verdict(
    plant: Option<Plant>,
    rng: &mut fastrand::Rng,
    mut outcome: Box<RpcOutcome>,
) -> Box<RpcOutcome> {
    let RpcOutcome::Push(part) = &mut *outcome else {
        return outcome;
    };
    let devices = part.verdicts.iter_mut().flat_map(|v| &mut v.devices);
    match plant {
        Some(Plant::VerdictFlipped) if rng.bool() => devices.for_each(|d| d.outcome = DeviceOutcome::Queued),
        Some(Plant::WrittenEarly) => {
            let taken_back = |d: &&mut DeviceVerdict| d.outcome == DeviceOutcome::Expired;
            devices.filter(taken_back).for_each(|d| d.outcome = DeviceOutcome::Written);
        }
        _ => {}
    }
    outcome
}
