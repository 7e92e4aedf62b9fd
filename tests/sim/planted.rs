//! Faults that the simulator must find, put between hub and world: production code knows nothing of them.

use pinion::hub::SendBatch;
use pinion::hub::mail::{DeviceOutcome, RpcOutcome};
use pinion::wire::envelope::{Codec, Variant};

use crate::frames::next_frame;
use crate::link::LinkId;
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
    /// A stale id reaches whoever has the position now.
    GenerationIgnored,
    /// A socket is closed and joined, and the hub is not told.
    CloseForgotten,
}

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
    if plant == Some(Plant::VerdictFlipped)
        && let RpcOutcome::Push(verdicts) = &mut *outcome
        && rng.bool()
    {
        for device in verdicts.iter_mut().flat_map(|v| &mut v.devices) {
            device.outcome = DeviceOutcome::Queued;
        }
    }
    outcome
}
