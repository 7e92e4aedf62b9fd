//! Large frames, built once by the rpc thread for all shards, in steps that let its mailbox be served in between.
//!
//! What always holds: only variants that a connection of this node has are built; what is missing is built by the
//! shard that needs it, so nothing here can fail a push.

use std::sync::Arc;

use bytes::Bytes;

use super::call::Service;
use crate::hub::mail::{PushBody, SharedFrames};
use crate::hub::push_frame::{is_shared, push_messages, registered_gauge, response};
use crate::metrics::Metric;
use crate::wire::envelope::{FrameSteps, Step, Variant};

/// Puts the frames of a large push into its body.
pub(super) async fn share(service: &Service, body: &mut PushBody) {
    // The message around the data, and an envelope around both; base64 makes it a third longer.
    let mut held = service.exchange.hold_nothing();
    if !is_shared(body) || held.grow(body.msg_data.len() / 3 * 7).is_err() {
        return;
    }
    let data = push_messages(body);
    let mut frames = SharedFrames::default();
    for (frame, variant) in frames.iter_mut().zip(Variant::all()).filter(|(_, v)| is_wanted(service, *v)) {
        service.turns.turn().await;
        *frame = build(service, FrameSteps::new(variant, &response(body, &data))).await;
    }
    body.frames = Some(Arc::new(frames));
}

fn is_wanted(service: &Service, variant: Variant) -> bool {
    let gauge = registered_gauge(variant);
    service.blocks.iter().any(|(_, block)| block.value(gauge) > 0)
}

async fn build(service: &Service, mut steps: FrameSteps) -> Option<Bytes> {
    service.exchange.count(Metric::SharedEncodes);
    loop {
        match steps.step() {
            Step::More => service.turns.turn().await,
            Step::Done(frame) => return Some(frame),
            Step::Failed => return None,
        }
    }
}
