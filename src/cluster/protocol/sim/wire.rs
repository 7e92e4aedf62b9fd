//! Transports between nodes: FIFO within a generation, nothing else is promised. What was sent before a break may
//! arrive after it, or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::frame::{Body, Frame, Generation};

/// From, to, generation as its dialler named it.
pub type Lane = (usize, usize, (u64, u64));

#[derive(Default)]
pub struct Wire {
    pub lanes: BTreeMap<Lane, VecDeque<Frame>>,
    /// Ends that are to be told: to, from, generation.
    pub notices: BTreeSet<(usize, usize, (u64, u64))>,
    /// Generations that have ended somewhere.
    pub ended: BTreeSet<Lane>,
    /// Frames about pushes, of a quiet count.
    pub push_frames: usize,
}

pub fn name(generation: Generation) -> (u64, u64) {
    (generation.dialler.0, generation.count)
}

impl Wire {
    pub fn send(&mut self, from: usize, to: usize, frame: Frame) {
        let about_push = matches!(
            frame.body,
            Body::Route(_)
                | Body::RouteReply { .. }
                | Body::NotHome { .. }
                | Body::Deliver { .. }
                | Body::DeliverReply { .. }
        );
        self.push_frames += usize::from(about_push);
        let lane = (from, to, name(frame.generation));
        if !self.ended.contains(&lane) {
            self.lanes.entry(lane).or_default().push_back(frame);
        }
    }

    /// One end is closed: the other will notice; what is in flight may still arrive up to `keep` frames a direction.
    pub fn close(&mut self, from: usize, to: usize, generation: (u64, u64), keep: usize) {
        self.notices.insert((to, from, generation));
        for lane in [(from, to, generation), (to, from, generation)] {
            self.ended.insert(lane);
            if let Some(frames) = self.lanes.get_mut(&lane) {
                frames.truncate(keep);
            }
        }
        self.lanes.retain(|_, frames| !frames.is_empty());
    }

    pub fn take(&mut self, lane: Lane) -> Option<Frame> {
        let frames = self.lanes.get_mut(&lane)?;
        let frame = frames.pop_front();
        if frames.is_empty() {
            self.lanes.remove(&lane);
        }
        frame
    }

    /// Generations with frames in flight between living ends.
    pub fn busy(&self) -> Vec<Lane> {
        self.lanes.keys().copied().collect()
    }
}
