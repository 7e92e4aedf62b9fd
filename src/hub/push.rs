//! Pushes: FIFO within a source, round robin between sources, one slice of recipients per turn, one encoding per
//! variant (architecture.md section 7).
//!
//! What always holds: a push with a ticket is answered once, with one verdict for each recipient that was looked at.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::follow::{What, cut};
use super::mail::{DeviceOutcome, DeviceVerdict, PushMail, PushPart, RecipientVerdict, RpcOutcome};
use super::push_frame::{push_messages, response};
use super::{Hub, Note};
use crate::ids::{ConnId, Platform, RpcTicket, SourceId};
use crate::limits;
use crate::metrics::Metric;
use crate::time::Now;
use crate::wire::envelope::Variant;
use crate::wire::frame::Frame;

/// A push that is being served.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    mail: PushMail,
    /// The first recipient that was not served yet.
    next: usize,
    verdicts: Vec<RecipientVerdict>,
    /// Built on first use.
    frames: [Option<Frame>; Variant::COUNT],
    cancelled: bool,
}

/// Pushes by source, and whose turn it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pushes {
    sources: BTreeMap<SourceId, VecDeque<Job>>,
    turns: VecDeque<SourceId>,
    open: usize,
}

impl Pushes {
    pub(super) fn new() -> Self {
        Self { sources: BTreeMap::new(), turns: VecDeque::new(), open: 0 }
    }

    /// Queues a push behind the others of its source.
    pub(super) fn accept(&mut self, mail: PushMail) {
        let source = mail.source;
        let verdicts = Vec::with_capacity(mail.audience.listed().len());
        let job = Job { mail, next: 0, verdicts, frames: Default::default(), cancelled: false };
        let jobs = self.sources.entry(source).or_default();
        if jobs.is_empty() {
            self.turns.push_back(source);
        }
        jobs.push_back(job);
        self.open += 1;
    }

    /// The caller is gone: recipients not served yet are not served. (A scan: cancels are rare, open pushes bounded.)
    pub(super) fn cancel(&mut self, ticket: RpcTicket) {
        let jobs = self.sources.values_mut().flatten();
        for job in jobs.filter(|job| job.mail.ticket == Some(ticket)) {
            job.cancelled = true;
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.open < limits::PUSHES_OPEN_MAX as usize
    }

    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// Takes the first job of the source whose turn it is.
    fn take(&mut self) -> Option<Job> {
        let source = self.turns.pop_front()?;
        self.sources.get_mut(&source)?.pop_front()
    }

    /// Puts an unfinished job back at the head of its source, or drops a finished one; the source's next turn comes
    /// after all others.
    fn give_back(&mut self, source: SourceId, unfinished: Option<Job>) {
        self.open -= usize::from(unfinished.is_none());
        let Some(jobs) = self.sources.get_mut(&source) else {
            return;
        };
        if let Some(job) = unfinished {
            jobs.push_front(job);
        }
        if jobs.is_empty() {
            self.sources.remove(&source);
        } else {
            self.turns.push_back(source);
        }
    }
}

impl Hub {
    /// Serves up to one slice of recipients, over as many sources as that reaches.
    pub(super) fn push_slice(&mut self, now: Now) {
        let mut budget = limits::PUSH_SLICE_MAX;
        while budget > 0 {
            let Some(mut job) = self.pushes.take() else { return };
            let source = job.mail.source;
            let from = job.next;
            let to = job.mail.audience.listed().len().min(from + budget);
            if job.cancelled || job.mail.deadline <= now.mono {
                self.give_up(&mut job);
            } else {
                for position in from..to {
                    self.push_recipient(now, &mut job, position);
                }
                job.next = to;
            }
            // A job without recipients costs a step too, so that the loop ends.
            budget = budget.saturating_sub((job.next - from).max(1));
            if job.next < job.mail.audience.listed().len() {
                self.pushes.give_back(source, Some(job));
            } else {
                self.finish_push(job);
                self.pushes.give_back(source, None);
            }
        }
    }

    /// Leaves the recipients that were not served without a verdict. An empty verdict would say that they have no
    /// connection here, which nobody has looked at.
    fn give_up(&mut self, job: &mut Job) {
        let left = job.mail.audience.listed().len() - job.next;
        if job.mail.ticket.is_none() {
            // Otherwise whoever gathers the verdicts counts what is missing.
            self.tally.add(Metric::PushNotReached, left as u64);
        }
        job.next = job.mail.audience.listed().len();
    }

    fn finish_push(&mut self, job: Job) {
        let devices: usize = job.verdicts.iter().map(|verdict| verdict.devices.len()).sum();
        self.trace.note(Note::Verdict, &[job.verdicts.len() as u64, devices as u64]);
        if let Some(ticket) = job.mail.ticket {
            self.answer_rpc(ticket, RpcOutcome::Push(PushPart::whole(job.verdicts)));
        }
    }

    fn push_recipient(&mut self, now: Now, job: &mut Job, position: usize) {
        let Some(recipient) = job.mail.audience.listed().get(position) else {
            return;
        };
        let slot = recipient.slot;
        let connections = self.open_connections(&recipient.user);
        if connections.is_empty() {
            self.tally.count(Metric::PushNotHere);
            let operation_id = job.mail.body.operation_id.as_str();
            self.follow
                .note_user(now, &recipient.user, || What::PushNotHere { operation_id: cut(operation_id) });
        }
        let devices =
            connections.into_iter().filter_map(|conn| self.push_connection(now, job, conn)).collect();
        job.verdicts.push(RecipientVerdict::of_slot(slot, devices));
    }

    fn push_connection(&mut self, now: Now, job: &mut Job, conn: ConnId) -> Option<DeviceVerdict> {
        let session = self.registry.session(conn)?;
        let (platform, variant, connection_id) = (session.platform, session.variant, session.connection_id);
        let outcome = if session.background && platform == Platform::IOS {
            DeviceOutcome::Background
        } else {
            let frame = self.push_frame(job, variant)?;
            if frame.bytes().len() > limits::FRAME_SENT_BYTES_MAX {
                self.tally.count(Metric::FramesTooLarge);
                DeviceOutcome::TooLarge
            } else if self.queue(now, conn, frame) {
                DeviceOutcome::Queued
            } else {
                DeviceOutcome::Dropped
            }
        };
        self.tally.count(match outcome {
            DeviceOutcome::Queued | DeviceOutcome::Written => Metric::PushQueued,
            DeviceOutcome::Dropped
            | DeviceOutcome::Kicked
            | DeviceOutcome::Expired
            | DeviceOutcome::TooLarge => Metric::PushDropped,
            DeviceOutcome::Background => Metric::PushBackground,
        });
        let body = &job.mail.body;
        self.follow.note(now, conn, || What::Push {
            operation_id: cut(&body.operation_id),
            outcome,
            bytes: body.msg_data.len(),
        });
        Some(DeviceVerdict { platform, connection_id, outcome })
    }

    /// The frame of a variant: built by the rpc thread, or here, once per push and shard.
    fn push_frame(&mut self, job: &mut Job, variant: Variant) -> Option<Frame> {
        let cached = job.frames.get_mut(variant.index())?;
        if let Some(frame) = cached {
            return Some(frame.clone());
        }
        let body = &job.mail.body;
        let shared = body.frames.as_ref().and_then(|frames| frames.get(variant.index())?.clone());
        let frame = if let Some(bytes) = shared {
            self.encoder.shared(&mut self.recorder, bytes)
        } else {
            self.tally.count(Metric::Encodes);
            let data = push_messages(body);
            self.encoder.envelope(&mut self.recorder, variant, &response(body, &data))
        };
        Some(cached.insert(frame).clone())
    }
}
