//! Verdicts of pushes that become final one by one ([`Report::Each`], [`Report::Totals`]): who is asked about, what is
//! known, and the parts of the answer.
//!
//! A push stands here from its arrival until its last part. It leaves its source's queue when its recipients were
//! served, so a slow reader does not stop what comes after it; frames in outboxes point back by a [`VerdictRef`], which
//! finds nothing once the push is gone.
//!
//! What always holds: a user gets one verdict, when all his devices have their outcome; an outcome never changes; the
//! last part comes once, at the latest with the tick after the push's deadline, unless the push is cancelled. What is
//! open then is reported as queued.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::mail::{
    DeviceOutcome, DeviceVerdict, PushPart, RecipientVerdict, Report, RpcOutcome, Totals, Who,
};
use super::{Hub, Note};
use crate::arena::Arena;
use crate::ids::{RpcTicket, SlotId};
use crate::limits::{PUSH_PART_MAX, PUSHES_OPEN_MAX, PUSHES_TRACKED_MAX};
use crate::metrics::{Metric, Tally};
use crate::session::NONE;
use crate::session::outbox::VerdictRef;
use crate::time::{Mono, Now};

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Verdicts {
    pushes: Arena<Open>,
    /// Those whose recipients were all served.
    served: u32,
    /// Pushes with a full part or with their last.
    urgent: VecDeque<SlotId>,
    /// Served pushes with something to tell, which is told once a turn.
    news: VecDeque<SlotId>,
}

/// A push with open verdicts.
#[derive(Debug, Serialize, Deserialize)]
struct Open {
    ticket: RpcTicket,
    report: Report,
    deadline: Mono,
    served: bool,
    /// It stands in the list of news.
    listed: bool,
    /// Devices without outcome, and users who are being looked at or waited for.
    open: u32,
    /// Users who are waited for.
    held: u32,
    /// By [`VerdictRef::user`]; none for [`Report::Totals`].
    users: Arena<Asked>,
    ready: VecDeque<RecipientVerdict>,
    /// Users and devices in `ready`.
    ready_size: usize,
    totals: Totals,
}

/// A user without a verdict.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    verdict: RecipientVerdict,
    /// As [`Open::open`].
    open: u32,
}

/// What the look at a user ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looked {
    /// His devices say it.
    HasDevices,
    /// He has none.
    NotHere,
    /// As above, and the message was worthless before that changed.
    Expired,
}

impl Verdicts {
    pub(super) fn new() -> Self {
        Self {
            pushes: Arena::new(PUSHES_OPEN_MAX + PUSHES_TRACKED_MAX),
            served: 0,
            urgent: VecDeque::new(),
            news: VecDeque::new(),
        }
    }

    /// A push arrived. `None`: more than the shard may have taken from its lane.
    pub(super) fn open(&mut self, ticket: RpcTicket, report: Report, deadline: Mono) -> Option<SlotId> {
        let open = Open {
            ticket,
            report,
            deadline,
            served: false,
            listed: false,
            open: 0,
            held: 0,
            users: Arena::new(u32::MAX),
            ready: VecDeque::new(),
            ready_size: 0,
            totals: Totals::default(),
        };
        self.pushes.insert(open).ok()
    }

    /// A push to everybody ends before all were served.
    pub(super) fn cut_short(&mut self, push: SlotId) {
        if let Some(open) = self.pushes.get_mut(push) {
            open.totals.cut_short = 1;
        }
    }

    /// A user is looked at, until [`Verdicts::looked`].
    pub(super) fn look(&mut self, push: SlotId, who: impl FnOnce() -> Who) -> VerdictRef {
        let mut verdict = VerdictRef { push, user: NONE, device: NONE };
        if let Some(open) = self.pushes.get_mut(push) {
            open.open += 1;
            open.totals.users += 1;
            if open.report == Report::Each {
                let empty = RecipientVerdict { who: who(), devices: Vec::new(), expired: false };
                let asked = open.users.insert(Asked { verdict: empty, open: 1 });
                verdict.user = asked.map_or(NONE, |slot| slot.index);
            }
        }
        verdict
    }

    /// The user has a device. Its outcome is open until [`Verdicts::resolve`]; `device` says queued, which is what it
    /// is reported as if nothing is known in time.
    pub(super) fn device(&mut self, user: VerdictRef, device: DeviceVerdict) -> VerdictRef {
        let Some(open) = self.pushes.get_mut(user.push) else {
            return user;
        };
        open.open += 1;
        let Some(asked) = open.users.at_mut(user.user) else {
            return user;
        };
        asked.open += 1;
        asked.verdict.devices.push(device);
        let position = u32::try_from(asked.verdict.devices.len() - 1).unwrap_or(NONE);
        VerdictRef { device: position, ..user }
    }

    /// The outcome of a device is known.
    pub(super) fn resolve(&mut self, tally: &mut Tally, device: VerdictRef, outcome: DeviceOutcome) {
        let Some(open) = self.pushes.get_mut(device.push) else {
            return;
        };
        tally.count(metric(outcome));
        open.totals.count(outcome);
        let asked = open.users.at_mut(device.user);
        if let Some(known) = asked.and_then(|asked| asked.verdict.devices.get_mut(device.device as usize)) {
            known.outcome = outcome;
        }
        self.one_less(device);
    }

    /// The look at a user is over.
    pub(super) fn looked(&mut self, tally: &mut Tally, user: VerdictRef, looked: Looked) {
        let Some(open) = self.pushes.get_mut(user.push) else {
            return;
        };
        match looked {
            Looked::HasDevices => {}
            Looked::NotHere => {
                tally.count(Metric::PushNotHere);
                open.totals.not_here += 1;
            }
            Looked::Expired => {
                tally.count(Metric::PushExpired);
                open.totals.expired += 1;
                if let Some(asked) = open.users.at_mut(user.user) {
                    asked.verdict.expired = true;
                }
            }
        }
        self.one_less(user);
    }

    /// The look at a user goes on until he comes, or until it is too late.
    pub(super) fn hold(&mut self, user: VerdictRef) {
        if let Some(open) = self.pushes.get_mut(user.push) {
            open.held += 1;
        }
    }

    /// A user that was waited for is looked at again.
    pub(super) fn let_go(&mut self, user: VerdictRef) {
        if let Some(open) = self.pushes.get_mut(user.push) {
            open.held -= 1;
        }
    }

    /// One thing less to wait for.
    fn one_less(&mut self, verdict: VerdictRef) {
        let Some(open) = self.pushes.get_mut(verdict.push) else {
            return;
        };
        open.open -= 1;
        if let Some(asked) = open.users.at_mut(verdict.user) {
            asked.open -= 1;
            if asked.open == 0 {
                open.finish_user(verdict.user);
            }
        }
        self.list(verdict.push);
    }

    /// Puts a push where what it has to tell is told in time.
    fn list(&mut self, push: SlotId) {
        let Some(open) = self.pushes.get_mut(push) else {
            return;
        };
        if open.is_over() || open.ready_size >= PUSH_PART_MAX {
            self.urgent.push_back(push);
        } else if open.served && !open.ready.is_empty() && !open.listed {
            open.listed = true;
            self.news.push_back(push);
        }
    }

    /// All recipients of a push were served. [`Table::Full`]: what is open will not be waited for.
    pub(super) fn served(&mut self, push: SlotId) -> Table {
        let Some(open) = self.pushes.get_mut(push) else {
            return Table::HasRoom; // cancelled
        };
        open.served = true;
        self.served += 1;
        let full = self.served > PUSHES_TRACKED_MAX && !open.is_over();
        self.list(push);
        if full { Table::Full } else { Table::HasRoom }
    }

    /// Makes what is open of a push final as it is: queued, or not here. Returns how many users were waited for.
    fn settle(&mut self, tally: &mut Tally, push: SlotId) -> u32 {
        let Some(open) = self.pushes.get_mut(push) else {
            return 0;
        };
        let (held, queued) = (open.held, open.open - open.held);
        tally.add(Metric::PushNotHere, held.into());
        tally.add(Metric::PushQueued, queued.into());
        open.totals.not_here += held;
        open.totals.queued += queued;
        (open.open, open.held) = (0, 0);
        let users = std::mem::replace(&mut open.users, Arena::new(u32::MAX));
        users.into_values().for_each(|asked| open.tell(asked.verdict));
        self.list(push);
        held
    }

    /// The caller is gone. The push, and how many users were waited for.
    pub(super) fn forget(&mut self, ticket: RpcTicket) -> Option<(SlotId, u32)> {
        let (push, open) = self.pushes.iter().find(|(_, open)| open.ticket == ticket)?;
        let held = open.held;
        self.remove(push);
        Some((push, held))
    }

    fn remove(&mut self, push: SlotId) -> Option<Open> {
        let open = self.pushes.remove(push)?;
        self.served -= u32::from(open.served);
        Some(open)
    }

    /// A part that is full or the last.
    fn next_urgent(&mut self) -> Option<(RpcTicket, PushPart)> {
        while let Some(push) = self.urgent.front().copied() {
            let Some(open) = self.pushes.get_mut(push) else {
                self.urgent.pop_front();
                continue;
            };
            let ticket = open.ticket;
            if open.ready_size >= PUSH_PART_MAX {
                return Some((ticket, open.full_part()));
            }
            self.urgent.pop_front();
            if open.is_over() {
                let open = self.remove(push)?;
                let part = PushPart { verdicts: open.ready.into(), totals: open.totals, last: true };
                return Some((ticket, part));
            }
        }
        None
    }

    /// What else there is to tell.
    fn next_news(&mut self) -> Option<(RpcTicket, PushPart)> {
        loop {
            let Some(open) = self.pushes.get_mut(self.news.pop_front()?) else {
                continue;
            };
            open.listed = false;
            if !open.ready.is_empty() {
                open.ready_size = 0;
                let verdicts = std::mem::take(&mut open.ready).into();
                return Some((open.ticket, PushPart { verdicts, ..PushPart::default() }));
            }
        }
    }

    /// Something is to be told.
    pub(super) fn has_work(&self) -> bool {
        !self.urgent.is_empty() || !self.news.is_empty()
    }

    /// Pushes that were served and are open.
    pub(super) fn tracked(&self) -> u32 {
        self.served
    }

    /// Users that are waited for.
    pub(super) fn held(&self) -> usize {
        self.pushes.iter().map(|(_, open)| open.held as usize).sum()
    }

    /// Devices without outcome, while no user is being looked at.
    pub(super) fn devices(&self) -> usize {
        self.pushes.iter().map(|(_, open)| (open.open - open.held) as usize).sum()
    }

    /// Whether somebody waits for a verdict.
    pub(super) fn is_open(&self, verdict: VerdictRef) -> bool {
        self.pushes.get(verdict.push).is_some()
    }

    /// Looks for a disagreement; see [`super::audit`].
    pub(super) fn audit(&self) -> Result<(), String> {
        let served = self.pushes.iter().filter(|(_, open)| open.served).count();
        if served != self.served as usize {
            return Err(format!("{served} pushes are served, {} counted", self.served));
        }
        for (_, open) in self.pushes.iter() {
            let asked: u32 = open.users.iter().map(|(_, asked)| asked.open).sum();
            let size: usize = open.ready.iter().map(size).sum();
            if size != open.ready_size || (open.report == Report::Each && asked != open.open) {
                return Err(format!("{:?}: open {asked}, size {size}, but {open:?}", open.ticket));
            }
        }
        Ok(())
    }
}

/// Whether the table of tracked pushes has room for one that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    HasRoom,
    Full,
}

impl Open {
    fn is_over(&self) -> bool {
        self.served && self.open == 0
    }

    fn finish_user(&mut self, index: u32) {
        if let Some(slot) = self.users.id_at(index)
            && let Some(asked) = self.users.remove(slot)
        {
            self.tell(asked.verdict);
        }
    }

    fn tell(&mut self, verdict: RecipientVerdict) {
        self.ready_size += size(&verdict);
        self.ready.push_back(verdict);
    }

    /// The oldest verdicts, until the part is full.
    fn full_part(&mut self) -> PushPart {
        let (mut verdicts, mut taken) = (Vec::new(), 0);
        while taken < PUSH_PART_MAX
            && let Some(verdict) = self.ready.pop_front()
        {
            taken += size(&verdict);
            verdicts.push(verdict);
        }
        self.ready_size -= taken;
        PushPart { verdicts, ..PushPart::default() }
    }
}

/// What a verdict takes of a part.
fn size(verdict: &RecipientVerdict) -> usize {
    1 + verdict.devices.len()
}

/// What a device's outcome is counted as.
pub(super) fn metric(outcome: DeviceOutcome) -> Metric {
    match outcome {
        DeviceOutcome::Written => Metric::PushWritten,
        DeviceOutcome::Queued => Metric::PushQueued,
        DeviceOutcome::Dropped | DeviceOutcome::TooLarge => Metric::PushDropped,
        DeviceOutcome::Kicked => Metric::PushKicked,
        DeviceOutcome::Expired => Metric::PushExpired,
        DeviceOutcome::Background => Metric::PushBackground,
    }
}

impl Hub {
    /// Tells what cannot wait: full parts and last ones.
    pub(super) fn tell_urgent(&mut self) {
        while let Some((ticket, part)) = self.verdicts.next_urgent() {
            self.tell_part(ticket, part);
        }
    }

    /// Tells everything, once a turn.
    pub(super) fn tell_news(&mut self) {
        self.tell_urgent();
        while let Some((ticket, part)) = self.verdicts.next_news() {
            self.tell_part(ticket, part);
        }
    }

    pub(super) fn tell_part(&mut self, ticket: RpcTicket, part: PushPart) {
        let devices: usize = part.verdicts.iter().map(|verdict| verdict.devices.len()).sum();
        self.trace.note(Note::Verdict, &[part.verdicts.len() as u64, devices as u64]);
        self.answer_rpc(ticket, RpcOutcome::Push(part));
    }

    /// Ends the wait for what is open of a push.
    pub(super) fn settle_push(&mut self, push: SlotId) {
        if self.verdicts.settle(&mut self.tally, push) > 0 {
            self.held.drop_push(push);
        }
        self.tell_urgent();
    }

    /// Settles the pushes whose verdicts are due.
    pub(super) fn settle_due(&mut self, now: Now) {
        let due = |open: &Open| open.served && open.deadline <= now.mono;
        let due: Vec<SlotId> =
            self.verdicts.pushes.iter().filter(|(_, open)| due(open)).map(|(push, _)| push).collect();
        due.into_iter().for_each(|push| self.settle_push(push));
    }
}
