//! Whether the node should get new clients and calls: what `/readyz` and the gRPC health service answer from.

use std::sync::Arc;

use crate::admission::{Admission, NodeState};
use crate::limits::STALL_REPORT_MS;
use crate::shard::pulse::{Phase, Pulse};
use crate::time::Mono;

/// The state of the node and the heartbeats of its shards.
#[derive(Clone)]
pub(super) struct Readiness {
    pub(super) admission: Arc<Admission>,
    /// By shard.
    pub(super) pulses: Vec<Arc<Pulse>>,
}

impl Readiness {
    /// Why the node should get no new clients; `None`: it is ready.
    pub(super) fn not_ready(&self, now: Mono) -> Option<String> {
        match self.admission.state() {
            NodeState::Starting => return Some("starting\n".to_owned()),
            NodeState::Draining => return Some("draining\n".to_owned()),
            NodeState::Ready => {}
        }
        let stalled = self.pulses.iter().enumerate().filter(|(_, pulse)| is_stalled(pulse, now));
        let lines: String = stalled
            .map(|(shard, pulse)| {
                let seen = pulse.glimpse();
                let age = now.since_ms(seen.stamp);
                format!("shard {shard} stalled for {age} ms in {}\n", seen.activity.text())
            })
            .collect();
        (!lines.is_empty()).then_some(lines)
    }
}

/// As the watcher judges; it logs and acts, this only reports.
fn is_stalled(pulse: &Pulse, now: Mono) -> bool {
    let seen = pulse.glimpse();
    let watched = matches!(seen.phase, Phase::Turning | Phase::Parked);
    watched && now.since_ms(seen.stamp) > STALL_REPORT_MS
}
