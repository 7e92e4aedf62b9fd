//! Transports between nodes: FIFO within a generation, nothing else is promised. What was sent before a break may
//! arrive after it, or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::super::frame::{Attempt, Body, Copy, Frame, Generation};
use crate::ids::Text;

/// From, to, generation as its dialler named it.
pub type Lane = (usize, usize, (u64, u64));

/// To, from, generation: an end that will be told that the other has ended.
pub type Notice = (usize, usize, (u64, u64));

/// What one push has cost for one recipient: questions; each has one answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    routes: usize,
    first: usize,
    second: usize,
}

impl Cost {
    /// At most: two homes, of which one asks the holders, or all nodes are asked; and all once more.
    pub fn is_due(&self, nodes: usize) -> bool {
        self.routes <= 2 && self.first < nodes && self.second < nodes
    }
}

#[derive(Default)]
pub struct Wire {
    pub lanes: BTreeMap<Lane, VecDeque<Frame>>,
    /// Ends that are to be told.
    pub notices: BTreeSet<Notice>,
    /// From, to: what is sent stands.
    pub blocked: BTreeSet<(usize, usize)>,
    costs: BTreeMap<(u64, Text), Cost>,
    /// Goodbyes that a break swallowed.
    pub goodbyes_lost: u64,
    /// Of the push of the newest frame.
    pub dearest: Option<Cost>,
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
        match &frame.body {
            Body::Route(copy) => self.charge(copy, |cost| cost.routes += 1),
            Body::Deliver { copy, attempt: Attempt::First } => self.charge(copy, |cost| cost.first += 1),
            Body::Deliver { copy, attempt: Attempt::Second } => self.charge(copy, |cost| cost.second += 1),
            _ => {}
        }
        let lane = (from, to, name(frame.generation));
        if !self.ended.contains(&lane) {
            self.lanes.entry(lane).or_default().push_back(frame);
        }
    }

    fn charge(&mut self, copy: &Copy, add: impl Fn(&mut Cost)) {
        let ticket = u64::from_le_bytes(copy.payload.as_ref().try_into().unwrap());
        for user in &copy.recipients {
            let cost = self.costs.entry((ticket, user.clone())).or_default();
            add(cost);
            let worst = |a: &Cost, b: &Cost| a.routes + a.first + a.second < b.routes + b.first + b.second;
            let dearest = self.dearest.get_or_insert(*cost);
            if worst(dearest, cost) {
                *dearest = *cost;
            }
        }
    }

    /// One end is closed: the other will notice; what is in flight may still arrive up to `keep` frames a direction.
    pub fn close(&mut self, from: usize, to: usize, generation: (u64, u64), keep: usize) {
        self.notices.insert((to, from, generation));
        for lane in [(from, to, generation), (to, from, generation)] {
            self.ended.insert(lane);
            if let Some(frames) = self.lanes.get_mut(&lane) {
                let lost = frames.iter().skip(keep).filter(|frame| frame.body == Body::Goodbye);
                self.goodbyes_lost += lost.count() as u64;
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
