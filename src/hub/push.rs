//! Pushes: FIFO within a source, round robin between sources, one slice of connections per turn, one encoding per
//! variant (architecture.md section 7).
//!
//! What always holds: a push with a ticket is answered to its end, with one verdict for each recipient that was looked
//! at, unless it is cancelled; a user is served in one turn, all his connections or none.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::Hub;
use super::follow::{What, cut};
use super::held::{Message, Wanted};
use super::mail::{
    Audience, DeviceOutcome, DeviceVerdict, PushBody, PushMail, PushPart, PushRules, Recipient,
    RecipientVerdict, Report, Totals, Who,
};
use super::push_frame::{push_messages, response};
use super::registry::User;
use super::verdicts::{Looked, Table, metric};
use crate::ids::{ConnId, Platform, RpcTicket, SlotId, SourceId, Text};
use crate::limits;
use crate::metrics::Metric;
use crate::session::Tick;
use crate::session::outbox::{Tag, VerdictRef};
use crate::time::Now;
use crate::wire::envelope::Variant;
use crate::wire::frame::Frame;

/// A push that is being served.
#[derive(Debug, Serialize, Deserialize)]
struct Job {
    mail: PushMail,
    /// The first recipient that was not served yet; for a push to everybody the position in the table of users.
    next: u32,
    /// For a push to everybody: users that came later are not served. See [`User::number`].
    came_before: u64,
    answer: Answer,
    /// Built on first use.
    frames: Frames,
    /// The copy that waits for absent users. Made on first use.
    held: Option<Rc<Message>>,
    cancelled: bool,
}

type Frames = [Option<Frame>; Variant::COUNT];

/// Who hears of it.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Nobody,
    /// In one part when all are served ([`Report::Queued`]).
    Whole(RpcTicket, Vec<RecipientVerdict>),
    /// As verdicts become known: its place in [`super::verdicts`].
    Parts(SlotId),
}

/// A push as it is offered to one connection.
pub(super) struct Offer<'a> {
    pub(super) body: &'a PushBody,
    pub(super) rules: PushRules,
    pub(super) frames: &'a mut Frames,
}

/// Pushes by source, and whose turn it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pushes {
    sources: BTreeMap<SourceId, VecDeque<Job>>,
    turns: VecDeque<SourceId>,
    open: usize,
}

/// What became of a job in a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// Every recipient was served, or will not be.
    All,
    /// The slice ended.
    Some,
    /// The next user needs more than is left of the slice: he is the first of the next one.
    NoRoom,
}

impl Pushes {
    pub(super) fn new() -> Self {
        Self { sources: BTreeMap::new(), turns: VecDeque::new(), open: 0 }
    }

    /// Queues a push behind the others of its source.
    fn accept(&mut self, job: Job) {
        let source = job.mail.source;
        let jobs = self.sources.entry(source).or_default();
        if jobs.is_empty() {
            self.turns.push_back(source);
        }
        jobs.push_back(job);
        self.open += 1;
    }

    /// The caller is gone. (A scan: cancels are rare, open pushes bounded.)
    fn cancel(&mut self, ticket: RpcTicket) {
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

    /// Puts an unfinished job back at the head of its source, or drops a finished one. The source's next turn comes
    /// after all others, or, if its job found no room, first.
    fn give_back(&mut self, source: SourceId, unfinished: Option<Job>, served: Served) {
        self.open -= usize::from(unfinished.is_none());
        let Some(jobs) = self.sources.get_mut(&source) else {
            return;
        };
        if let Some(job) = unfinished {
            jobs.push_front(job);
        }
        if jobs.is_empty() {
            self.sources.remove(&source);
        } else if served == Served::NoRoom {
            self.turns.push_front(source);
        } else {
            self.turns.push_back(source);
        }
    }
}

impl Hub {
    /// A push came.
    pub(super) fn push_came(&mut self, mail: PushMail) {
        let answer = match (mail.ticket, mail.rules.report) {
            (None, _) => Answer::Nobody,
            (Some(ticket), Report::Queued) => {
                Answer::Whole(ticket, Vec::with_capacity(mail.audience.listed().len()))
            }
            (Some(ticket), report) => match self.verdicts.open(ticket, report, mail.deadline) {
                Some(push) => Answer::Parts(push),
                None => {
                    let cut_short = u32::from(mail.audience == Audience::Everybody);
                    let totals = Totals { cut_short, ..Totals::default() };
                    return self.tell_part(ticket, PushPart { totals, ..PushPart::whole(Vec::new()) });
                }
            },
        };
        self.pushes.accept(Job {
            mail,
            next: 0,
            came_before: self.registry.came(),
            answer,
            frames: Default::default(),
            held: None,
            cancelled: false,
        });
    }

    /// The caller is gone: recipients not served yet are not served, nobody is waited for, nothing more is told but the
    /// one part of [`Report::Queued`].
    pub(super) fn cancel_push(&mut self, ticket: RpcTicket) {
        self.pushes.cancel(ticket);
        if let Some((push, 1..)) = self.verdicts.forget(ticket) {
            self.held.drop_push(push);
        }
    }

    /// Serves one slice of connections, over as many sources as that reaches.
    pub(super) fn push_slice(&mut self, now: Now) {
        let mut left = self.config.push_slice.max(1);
        while left > 0 {
            let Some(mut job) = self.pushes.take() else { break };
            let (source, before) = (job.mail.source, left);
            let served = if job.cancelled || job.mail.deadline <= now.mono {
                self.give_up(&job);
                Served::All
            } else {
                self.serve(now, &mut job, &mut left)
            };
            if served == Served::All {
                self.finish_push(job);
                self.pushes.give_back(source, None, served);
            } else {
                self.pushes.give_back(source, Some(job), served);
            }
            if served == Served::NoRoom {
                break;
            }
            if left == before {
                left -= 1; // so that the loop ends
            }
        }
        self.tell_news();
    }

    /// Leaves the recipients that were not served without a verdict. An empty verdict would say that they have no
    /// connection here, which nobody has looked at.
    fn give_up(&mut self, job: &Job) {
        let left = job.mail.audience.listed().len().saturating_sub(job.next as usize);
        if job.mail.ticket.is_none() {
            // Otherwise whoever gathers the verdicts counts what is missing.
            self.tally.add(Metric::PushNotReached, left as u64);
        }
        if let (Answer::Parts(push), Audience::Everybody) = (&job.answer, &job.mail.audience) {
            self.verdicts.cut_short(*push);
        }
    }

    fn finish_push(&mut self, job: Job) {
        match job.answer {
            Answer::Nobody => {}
            Answer::Whole(ticket, verdicts) => self.tell_part(ticket, PushPart::whole(verdicts)),
            Answer::Parts(push) => {
                if self.verdicts.served(push) == Table::Full {
                    self.tally.count(Metric::PushesUntracked);
                    self.settle_push(push);
                }
                self.tell_urgent();
            }
        }
    }

    /// Serves recipients until `left`, which counts connections, is used up.
    fn serve(&mut self, now: Now, job: &mut Job, left: &mut usize) -> Served {
        // Taken out, so that a recipient can be looked at while the job changes.
        let audience = std::mem::replace(&mut job.mail.audience, Audience::Everybody);
        let served = match &audience {
            Audience::Listed(recipients) => self.serve_listed(now, job, recipients, left),
            Audience::Everybody => self.serve_everybody(now, job, left),
        };
        job.mail.audience = audience;
        served
    }

    fn serve_listed(&mut self, now: Now, job: &mut Job, users: &[Recipient], left: &mut usize) -> Served {
        while let Some(recipient) = users.get(job.next as usize) {
            if *left == 0 {
                return Served::Some;
            }
            let user = self.registry.user(&recipient.user);
            let Some(after) = self.room_for(user, *left) else {
                return Served::NoRoom;
            };
            let first = user.and_then(|user| self.registry.next_open(user.first));
            *left = after;
            job.next += 1;
            match first {
                Some(first) => self.serve_user(now, job, || Who::Slot(recipient.slot), first),
                None => self.serve_absent(now, job, recipient),
            }
        }
        Served::All
    }

    /// Walks the table of users.
    fn serve_everybody(&mut self, now: Now, job: &mut Job, left: &mut usize) -> Served {
        // Unsliced, for a comparison, it walks the whole table.
        let mut steps = limits::PUSH_WALK_MAX.max(self.config.push_slice);
        while job.next < self.registry.user_positions() {
            if *left == 0 || steps == 0 {
                return Served::Some;
            }
            steps -= 1;
            let user = self.registry.user_at(job.next).filter(|user| user.number < job.came_before);
            let first = user.and_then(|user| self.registry.next_open(user.first));
            if let (Some(user), Some(first)) = (user, first) {
                let Some(after) = self.room_for(Some(user), *left) else {
                    return Served::NoRoom;
                };
                *left = after;
                let named = !matches!(job.answer, Answer::Nobody) && job.mail.rules.report != Report::Totals;
                let who = if named { Text::from(&*user.id) } else { Text::default() };
                self.serve_user(now, job, || Who::User(who.clone()), first);
            }
            job.next += 1;
        }
        Served::All
    }

    /// What is left of a slice after a user; `None`: he must wait for the next one.
    fn room_for(&self, user: Option<&User>, left: usize) -> Option<usize> {
        let connections = user.map_or(1, |user| user.connections.max(1) as usize);
        // One with more connections than a slice has gets a slice of his own.
        (connections <= left || left >= self.config.push_slice).then(|| left.saturating_sub(connections))
    }

    /// Offers a push to the connections of a user, from the first that is alive on.
    fn serve_user(&mut self, now: Now, job: &mut Job, who: impl Fn() -> Who, first: ConnId) {
        let Job { mail, frames, answer, .. } = job;
        let mut offer = Offer { body: &mail.body, rules: mail.rules, frames };
        let verdict =
            if let Answer::Parts(push) = answer { Some(self.verdicts.look(*push, &who)) } else { None };
        let mut devices = Vec::new();
        // A push takes nobody out of the list: whoever ends here leaves it in the next turn.
        let mut at = Some(first);
        while let Some(conn) = at {
            let device = self.offer(now, conn, verdict, &mut offer);
            if let (Answer::Whole(..), Some(device)) = (&*answer, device) {
                devices.push(device);
            }
            let next = self.registry.session(conn).map(|session| session.user_next);
            at = next.and_then(|next| self.registry.next_open(next));
        }
        match answer {
            Answer::Nobody => {}
            Answer::Whole(_, verdicts) => {
                verdicts.push(RecipientVerdict { who: who(), devices, expired: false })
            }
            Answer::Parts(_) => {
                if let Some(verdict) = verdict {
                    self.verdicts.looked(&mut self.tally, verdict, Looked::HasDevices);
                }
                self.tell_urgent();
            }
        }
    }

    /// A listed user has no connection here.
    fn serve_absent(&mut self, now: Now, job: &mut Job, recipient: &Recipient) {
        let operation_id = job.mail.body.operation_id.as_str();
        self.follow.note_user(now, &recipient.user, || What::PushNotHere { operation_id: cut(operation_id) });
        let push = match &mut job.answer {
            Answer::Parts(push) => *push,
            Answer::Whole(_, verdicts) => {
                verdicts.push(RecipientVerdict::of_slot(recipient.slot, Vec::new()));
                return self.tally.count(Metric::PushNotHere);
            }
            Answer::Nobody => return self.tally.count(Metric::PushNotHere),
        };
        let verdict = self.verdicts.look(push, || Who::Slot(recipient.slot));
        let Job { mail, held, .. } = job;
        let (body, rules) = (&mail.body, mail.rules);
        let looked = match rules.expires.filter(|_| !rules.only_if_online) {
            None => Looked::NotHere,
            Some(expires) if expires <= now.mono => Looked::Expired,
            Some(expires) => {
                let message = || Rc::clone(held.get_or_insert_with(|| Message::copy(body, rules, expires)));
                if self.hold(&recipient.user, message, Wanted { body, verdict }) {
                    return;
                }
                Looked::NotHere
            }
        };
        self.verdicts.looked(&mut self.tally, verdict, looked);
        self.tell_urgent();
    }

    /// Offers a push to a connection. `user`: whose verdicts the outcome belongs to; it may come later, and the verdict
    /// says queued until then.
    pub(super) fn offer(
        &mut self,
        now: Now,
        conn: ConnId,
        user: Option<VerdictRef>,
        offer: &mut Offer<'_>,
    ) -> Option<DeviceVerdict> {
        let session = self.registry.session(conn)?;
        let (platform, connection_id) = (session.platform, session.connection_id);
        let device = DeviceVerdict { platform, connection_id, outcome: DeviceOutcome::Queued };
        let verdict = user.map(|user| self.verdicts.device(user, device));
        let outcome = self.try_to_queue(now, conn, verdict, offer);
        match verdict {
            None => self.tally.count(metric(outcome)),
            Some(_) if outcome == DeviceOutcome::Queued => {}
            Some(verdict) => self.verdicts.resolve(&mut self.tally, verdict, outcome),
        }
        let body = offer.body;
        self.follow.note(now, conn, || What::Push {
            operation_id: cut(&body.operation_id),
            outcome,
            bytes: body.msg_data.len(),
        });
        Some(DeviceVerdict { outcome, ..device })
    }

    fn try_to_queue(
        &mut self,
        now: Now,
        conn: ConnId,
        verdict: Option<VerdictRef>,
        offer: &mut Offer<'_>,
    ) -> DeviceOutcome {
        let Some(session) = self.registry.session(conn) else {
            return DeviceOutcome::Dropped;
        };
        let PushRules { only_if_online, expires, .. } = offer.rules;
        if session.background && session.platform == Platform::IOS {
            return DeviceOutcome::Background;
        }
        if expires.is_some_and(|at| at <= now.mono) {
            return DeviceOutcome::Expired;
        }
        // "Its outbox is not empty" means that a send has left something behind, and not that something waits: what
        // was queued in this turn leaves at its end, and says nothing about the reader.
        let lags = || session.outbox.as_ref().is_some_and(|outbox| outbox.stuck_since.is_some());
        if only_if_online && lags() {
            return DeviceOutcome::Dropped;
        }
        let variant = session.variant;
        let Some(frame) = self.push_frame(offer, variant) else {
            return DeviceOutcome::Dropped;
        };
        if frame.bytes().len() > limits::FRAME_SENT_BYTES_MAX {
            self.tally.count(Metric::FramesTooLarge);
            return DeviceOutcome::TooLarge;
        }
        if !self.queue(now, conn, frame) {
            return DeviceOutcome::Dropped;
        }
        if verdict.is_some() || expires.is_some() {
            // The first tick at which that time has passed.
            let expires = expires.map(|at| Tick::of(at.plus_ms(limits::TICK_MS - 1)));
            self.tag_last(conn, Tag { verdict, expires });
        }
        DeviceOutcome::Queued
    }

    /// The frame of a variant: built by the rpc thread, or here, once per push and shard.
    fn push_frame(&mut self, offer: &mut Offer<'_>, variant: Variant) -> Option<Frame> {
        let cached = offer.frames.get_mut(variant.index())?;
        if let Some(frame) = cached {
            return Some(frame.clone());
        }
        let body = offer.body;
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
