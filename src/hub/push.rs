//! Serving pushes: FIFO within a source, round robin between sources, one slice of sends per turn, one encoding per
//! variant (architecture.md section 7). The queues and what a turn may spend are in `push_queue`.
//!
//! What always holds: a push with a ticket is answered to its end, with one verdict for each recipient that was looked
//! at, unless it is cancelled; a user is served in one turn, all his connections or none.

use std::rc::Rc;

use super::Hub;
use super::cluster::ConnNumber;
use super::follow::{What, cut};
use super::held::{Message, Wanted};
use super::mail::{
    Audience, DeviceOutcome, DeviceVerdict, PushMail, PushPart, PushRules, Recipient, RecipientVerdict,
    Report, Totals, Who,
};
use super::push_frame::{push_messages, response};
use super::push_queue::{Answer, Budget, Job, Offer, Rank, Served, Trail, Walk};
use super::registry::User;
use super::verdicts::{Looked, Table, metric};
use crate::ids::{ConnId, Platform, RpcTicket, SourceId, Text};
use crate::limits;
use crate::metrics::Metric;
use crate::session::outbox::{Tag, VerdictRef};
use crate::session::{Session, Tick};
use crate::time::Now;
use crate::wire::envelope::Variant;
use crate::wire::frame::Frame;

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
            walk: None,
            slice_from: 0,
            came_before: self.registry.came(),
            answer,
            frames: Default::default(),
            held: None,
            cancelled: false,
            over: false,
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

    /// Serves one slice of sends, over as many sources as that reaches, and then what rides along.
    pub(super) fn push_slice(&mut self, now: Now) {
        let mut budget = Budget::of_a_turn(self.config.push_slice);
        let mut led = 0;
        while budget.sends > 0
            && let Some(source) = self.pushes.next_source()
        {
            let before = budget;
            let (served, left) = self.serve_source(now, source, &mut budget);
            if left {
                self.pushes.wait(source, served);
                led += usize::from(served != Served::NoRoom);
            }
            if served == Served::NoRoom {
                break;
            }
            if budget.sends == before.sends {
                budget.sends -= 1; // so that the loop ends
            }
        }
        self.ride_along(now, budget, led);
        self.tell_news();
    }

    /// Serves the sources whose next recipients send in this turn anyway. They keep their places; the last `led`
    /// sources had their turn.
    fn ride_along(&mut self, now: Now, budget: Budget, led: usize) {
        let mut budget = budget.for_rides();
        let mut sources = self.pushes.waiting().saturating_sub(led).min(limits::PUSHES_TOGETHER_MAX);
        let mut place = 0;
        while place < sources
            && let Some(source) = self.pushes.source_at(place)
        {
            let (_, left) = self.serve_source(now, source, &mut budget);
            if left {
                place += 1;
            } else {
                self.pushes.forget(place);
                sources -= 1;
            }
        }
    }

    /// Serves the first push of a source, and behind it those that walk the same list. Returns what became of the
    /// first, and whether something is left.
    fn serve_source(&mut self, now: Now, source: SourceId, budget: &mut Budget) -> (Served, bool) {
        let (mut served, mut led) = (None, None);
        let mut in_hand = self.pushes.empty_hand();
        while in_hand.len() < limits::PUSHES_TOGETHER_MAX
            && let Some(mut job) = self.pushes.pop(source)
        {
            if job.cancelled || job.mail.deadline <= now.mono {
                self.give_up(&job);
                job.over = true;
                in_hand.push(job);
                continue;
            }
            let trail = led.and_then(|(place, from, steps)| {
                let audience = &in_hand.get::<usize>(place)?.mail.audience;
                Some(Trail { audience, len: self.length(audience), from, steps })
            });
            if trail.is_some_and(|trail| !trail.takes(&job)) {
                self.pushes.put_back(source, job);
                break;
            }
            let (step, from, steps) = self.serve(now, &mut job, trail, budget);
            served = served.or(Some(step));
            led = Some((in_hand.len(), from, steps));
            in_hand.push(job);
        }
        let mut over = 0;
        for job in in_hand.extract_if(.., |job| job.over) {
            over += 1;
            self.finish_push(job);
        }
        let left = self.pushes.end(source, in_hand, over);
        (served.unwrap_or(Served::All), left)
    }

    /// Entries of what a push walks over.
    fn length(&self, audience: &Audience) -> u32 {
        match audience {
            Audience::Listed(recipients) => u32::try_from(recipients.len()).unwrap_or(u32::MAX),
            Audience::Everybody => self.registry.user_positions(),
        }
    }

    /// Leaves the recipients that were not served without a verdict. An empty verdict would say that they have no
    /// connection here, which nobody has looked at.
    fn give_up(&mut self, job: &Job) {
        let len = self.length(&job.mail.audience);
        let left = job.walk.map_or(len, |walk| walk.left(len));
        if job.mail.ticket.is_none() && job.mail.audience != Audience::Everybody {
            // Otherwise whoever gathers the verdicts counts what is missing.
            self.tally.add(Metric::PushNotReached, left.into());
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

    /// Serves recipients of a push as far as the budget, or the trail of the one before it, goes. Returns also with
    /// which entry it began, and how many it looked at.
    fn serve(
        &mut self,
        now: Now,
        job: &mut Job,
        trail: Option<Trail<'_>>,
        budget: &mut Budget,
    ) -> (Served, u32, u32) {
        // Taken out, so that a recipient can be looked at while the job changes.
        let audience = std::mem::replace(&mut job.mail.audience, Audience::Everybody);
        let len = self.length(&audience);
        let meet = || self.pushes.meeting_point(&audience, len, budget.rank);
        let begin = || trail.map_or_else(meet, |trail| trail.from);
        let mut walk = job.walk.unwrap_or_else(|| Walk::begin_at(begin()));
        let (from, left) = (walk.next(len).unwrap_or(len), walk.left(len));
        // The walk over the table of users also passes empty places.
        let steps = trail.map_or(u32::MAX, |trail| trail.steps).min(self.steps_at_once(&audience));
        let rank = budget.rank;
        if trail.is_some() {
            budget.rank = Rank::Rides;
        }
        let served = loop {
            let Some(place) = walk.next(len) else {
                break Served::All;
            };
            if left - walk.left(len) >= steps {
                break Served::Some;
            }
            if trail.is_some_and(|trail| trail.audience.user_at(place) != audience.user_at(place)) {
                break Served::Some;
            }
            let room = match &audience {
                Audience::Listed(recipients) => {
                    self.serve_listed(now, job, recipients.get(place as usize), budget)
                }
                Audience::Everybody => self.serve_position(now, job, place, budget),
            };
            if !room {
                break if budget.sends == 0 { Served::Some } else { Served::NoRoom };
            }
            walk.step(place);
        };
        budget.rank = rank;
        job.over = served == Served::All;
        let steps = left - walk.left(len);
        if steps > 0 {
            (job.walk, job.slice_from) = (Some(walk), from);
        }
        job.mail.audience = audience;
        (served, from, steps)
    }

    fn steps_at_once(&self, audience: &Audience) -> u32 {
        match audience {
            Audience::Listed(_) => u32::MAX,
            // Unsliced, for a comparison, it walks the whole table.
            Audience::Everybody => {
                u32::try_from(limits::PUSH_WALK_MAX.max(self.config.push_slice)).unwrap_or(u32::MAX)
            }
        }
    }

    /// Serves a user of the list. `false`: the budget has no room for him.
    fn serve_listed(
        &mut self,
        now: Now,
        job: &mut Job,
        recipient: Option<&Recipient>,
        budget: &mut Budget,
    ) -> bool {
        let Some(recipient) = recipient else { return true };
        let user = self.registry.user(&recipient.user);
        if !self.take_room(user, budget) {
            return false;
        }
        match user.and_then(|user| self.registry.next_open(user.first)) {
            Some(first) => self.serve_user(now, job, || Who::Slot(recipient.slot), first),
            None => self.serve_absent(now, job, recipient),
        }
        true
    }

    /// Serves whoever is in a place of the table of users. `false`: the budget has no room for him.
    fn serve_position(&mut self, now: Now, job: &mut Job, place: u32, budget: &mut Budget) -> bool {
        let user = self.registry.user_at(place).filter(|user| user.number < job.came_before);
        let first = user.and_then(|user| self.registry.next_open(user.first));
        let (Some(user), Some(first)) = (user, first) else {
            return true;
        };
        if !self.take_room(Some(user), budget) {
            return false;
        }
        let named = !matches!(job.answer, Answer::Nobody) && job.mail.rules.report != Report::Totals;
        let who = if named { Text::from(&*user.id) } else { Text::default() };
        self.serve_user(now, job, || Who::User(who.clone()), first);
        true
    }

    /// Spends what a recipient costs, or says `false`.
    fn take_room(&self, user: Option<&User>, budget: &mut Budget) -> bool {
        let Some(user) = user else {
            return budget.take_absent();
        };
        let (mut sends, mut all, mut next) = (0, 0, self.registry.next_open(user.first));
        while let Some(session) = next.and_then(|conn| self.registry.session(conn)) {
            sends += usize::from(!sends_anyway(session));
            all += 1;
            next = self.registry.next_open(session.user_next);
        }
        budget.take(sends, all.max(1))
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
        let number = ConnNumber::of(self.config.shard, conn);
        let device = DeviceVerdict { number, platform, connection_id, outcome: DeviceOutcome::Queued };
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
        if is_in_background(session) {
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

/// Whether a frame for a connection costs no send of its own: one is due, or the frame will not be queued.
fn sends_anyway(session: &Session) -> bool {
    session.flush_listed || is_in_background(session)
}

/// OpenIM's rule: an iPhone in the background gets nothing (spec 4.3).
fn is_in_background(session: &Session) -> bool {
    session.background && session.platform == Platform::IOS
}
