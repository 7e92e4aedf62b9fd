//! The gather of a call: split by owner shard, one mail per shard, one slot for the answers, a deadline.
//!
//! Call order: [`Router::push`] (or `kick`, `online_status`, `remote_login`) takes the slot and gives the mail; the
//! caller posts it and says [`Router::not_posted`] for what a lane refused, then [`Router::posted`] once. After that
//! [`Router::outcome`] and [`Router::expire`] finish the call, or [`Router::cancel`] forgets it.
//!
//! What always holds: a slot is finished exactly once, by whoever removes it; an answer that finds no slot is dropped
//! and counted. A finished push has one result per requested user, in the order of the request, duplicates kept.

use std::collections::{BTreeMap, BTreeSet};

use super::parts::Parts;
use crate::arena::Arena;
use crate::hub::mail::{
    Audience, DeviceStatus, DeviceVerdict, Judge, KickMail, Look, LookMail, OnlineStatusMail, PushBody,
    PushMail, PushRules, Recipient, RemoteLoginMail, Report, RpcOutcome, ShardMail, Totals, Who,
};
use crate::hub::sight::Sight;
use crate::ids::{Platform, RpcId, RpcTicket, ShardId, SlotId, SourceId, Text};
use crate::limits::VERDICT_MARGIN_MS;
use crate::metrics::{Metric, Tally};
use crate::placement::view::{Local, NodeId, Place};
use crate::time::Mono;

/// The mail of one call: at most one per shard.
pub type Mails = Vec<(ShardId, ShardMail)>;

/// A push to be routed.
#[derive(Clone, Debug)]
pub struct Push {
    /// Its unit of order.
    pub source: SourceId,
    /// What is pushed.
    pub body: PushBody,
    /// To whom.
    pub to: To,
    /// Its options.
    pub rules: PushRules,
    /// When the verdicts of the shards are due.
    pub deadline: Mono,
}

/// Who gets a push.
#[derive(Clone, Debug)]
pub enum To {
    /// One result each, in this order, duplicates kept.
    Users(Vec<Text>),
    /// Every user with a connection on this node.
    AllLocal,
}

/// A login on another gateway (spec 4.6).
#[derive(Clone, Debug)]
pub struct RemoteLogin {
    /// Metadata of the RPC.
    pub operation_id: Text,
    /// Who.
    pub user: Text,
    /// Where.
    pub platform: Platform,
    /// With which token.
    pub token: Text,
    /// Who judges it.
    pub judge: Judge,
}

/// All slots are taken: UNAVAILABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// News of a call. All but a part of a push end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub ticket: RpcTicket,
    /// How.
    pub outcome: Outcome,
}

/// How a call ended, or went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// [`Report::Queued`]: one result per requested user, in order.
    Push(Vec<PushResult>),
    /// The other reports: what became known.
    Part(ResultPart),
    /// The users, as requested, and their connections; users without one have none.
    OnlineStatus(Vec<(Text, Vec<DeviceStatus>)>),
    /// How many connections a kick ended.
    Kicked(u32),
    /// The policy has been applied.
    RemoteLogin,
    /// What the owner shard answered to an operator.
    Sight(Sight),
    /// A lane was full: UNAVAILABLE. Shards that did get their mail act on it all the same.
    Refused,
    /// Not a push, and the deadline passed: DEADLINE_EXCEEDED.
    Expired,
}

/// What became of one requested user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushResult {
    /// Who.
    pub user: Text,
    /// One per connection; `None` = the owner shard was not reached in time.
    pub devices: Option<Vec<DeviceVerdict>>,
    /// Waited for until [`PushRules::expires`], in vain.
    pub expired: bool,
}

/// Final results of some users of a push.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResultPart {
    /// Empty for [`Report::Totals`].
    pub results: Vec<PushResult>,
    /// With the last part.
    pub totals: Totals,
    /// With the last part: users that no shard has answered for; of [`To::AllLocal`], shards instead.
    pub not_reached: u32,
    /// Of a push that was routed between nodes: for each of `results`, whether anybody can be missing. Empty: this node
    /// alone was asked.
    pub covers: Vec<Cover>,
    /// With the last part: users whose verdict is not complete.
    pub not_complete: u32,
    /// The call is over.
    pub last: bool,
}

/// How sure a result is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// No connection of the user that was open when the push came, and still is, can be missing.
    pub complete: bool,
    /// If it is not: the nodes that did not answer; none, if the node that decided was not fit.
    pub unaccounted: Vec<NodeId>,
}

#[derive(Debug)]
struct Gather {
    deadline: Mono,
    /// Shards that were asked and have not answered.
    awaited: BTreeSet<ShardId>,
    /// Shards whose lane was full.
    unposted: BTreeSet<ShardId>,
    refused: bool,
    so_far: SoFar,
}

#[derive(Debug)]
enum SoFar {
    Push(Vec<PushResult>),
    Parts(Parts),
    OnlineStatus(Vec<(Text, Vec<DeviceStatus>)>),
    Kicked(u32),
    RemoteLogin,
    /// One shard is asked, so the first answer is the last.
    Sight(Option<Sight>),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Router {
    rpc: RpcId,
    view: Local,
    gathers: Arena<Gather>,
    /// Open calls by deadline.
    due: BTreeSet<(Mono, SlotId)>,
    tally: Tally,
}

impl Router {
    /// A router for one rpc thread with at most `calls_max` calls at once.
    pub fn new(rpc: RpcId, view: Local, calls_max: u32) -> Self {
        Self { rpc, view, gathers: Arena::new(calls_max), due: BTreeSet::new(), tally: Tally::default() }
    }

    /// The counts of the thread that the router belongs to.
    pub fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// The shard of this node that owns a user.
    pub fn owner(&self, user: &str) -> ShardId {
        let Place::Here(shard) = self.view.place(user);
        shard
    }

    /// Calls that wait.
    pub fn open(&self) -> usize {
        self.gathers.len()
    }

    /// Starts a push that somebody waits for.
    pub fn push(&mut self, push: Push) -> Result<(RpcTicket, Mails), Busy> {
        let audiences = self.audiences(&push.to);
        let Push { source, body, to, rules, deadline } = push;
        // The shards report at the deadline; their answers must still find the slot.
        let (due, so_far) = match (rules.report, to) {
            (Report::Queued, To::Users(users)) => {
                let result = |user| PushResult { user, devices: None, expired: false };
                (deadline, SoFar::Push(users.into_iter().map(result).collect()))
            }
            (_, to) => (deadline.plus_ms(VERDICT_MARGIN_MS), SoFar::Parts(Parts::new(rules.report, to))),
        };
        let ticket = self.reserve(due, audiences.keys(), so_far)?;
        let mail = |(shard, audience)| {
            let mail =
                PushMail { ticket: Some(ticket), source, deadline, body: body.clone(), audience, rules };
            (shard, ShardMail::Push(Box::new(mail)))
        };
        Ok((ticket, audiences.into_iter().map(mail).collect()))
    }

    /// Starts a push that nobody waits for.
    pub fn push_unwaited(&self, push: &Push) -> Mails {
        let mail = |(shard, audience)| {
            let Push { source, deadline, rules, .. } = *push;
            let mail = PushMail { ticket: None, source, deadline, body: push.body.clone(), audience, rules };
            (shard, ShardMail::Push(Box::new(mail)))
        };
        self.audiences(&push.to).into_iter().map(mail).collect()
    }

    /// Who gets a push, by shard. Shards without recipients are absent.
    fn audiences(&self, to: &To) -> BTreeMap<ShardId, Audience> {
        match to {
            To::Users(users) => {
                let listed = |(shard, recipients)| (shard, Audience::Listed(recipients));
                self.split(users).into_iter().map(listed).collect()
            }
            To::AllLocal => self.view.shards().map(|shard| (shard, Audience::Everybody)).collect(),
        }
    }

    /// Starts a kick.
    pub fn kick(
        &mut self,
        deadline: Mono,
        platform: Platform,
        users: &[Text],
    ) -> Result<(RpcTicket, Mails), Busy> {
        let split = self.split(users);
        let ticket = self.reserve(deadline, split.keys(), SoFar::Kicked(0))?;
        let mail = |(shard, recipients): (ShardId, Vec<Recipient>)| {
            let mail = KickMail { ticket, platform, users: recipients.into_iter().map(|r| r.user).collect() };
            (shard, ShardMail::Kick(Box::new(mail)))
        };
        Ok((ticket, split.into_iter().map(mail).collect()))
    }

    /// Starts a status request.
    pub fn online_status(&mut self, deadline: Mono, users: &[Text]) -> Result<(RpcTicket, Mails), Busy> {
        let split = self.split(users);
        let found = users.iter().map(|user| (user.clone(), Vec::new())).collect();
        let ticket = self.reserve(deadline, split.keys(), SoFar::OnlineStatus(found))?;
        let mail =
            |(shard, users)| (shard, ShardMail::OnlineStatus(Box::new(OnlineStatusMail { ticket, users })));
        Ok((ticket, split.into_iter().map(mail).collect()))
    }

    /// Starts a remote login.
    pub fn remote_login(&mut self, deadline: Mono, login: RemoteLogin) -> Result<(RpcTicket, Mails), Busy> {
        let shard = self.owner(&login.user);
        let ticket = self.reserve(deadline, std::iter::once(&shard), SoFar::RemoteLogin)?;
        let RemoteLogin { operation_id, user, platform, token, judge } = login;
        let mail = RemoteLoginMail { ticket, operation_id, user, platform, token, judge };
        Ok((ticket, vec![(shard, ShardMail::RemoteLogin(Box::new(mail)))]))
    }

    /// Starts an operator's question about a user.
    pub fn look(&mut self, deadline: Mono, user: Text, look: Look) -> Result<(RpcTicket, Mails), Busy> {
        let shard = self.owner(&user);
        let ticket = self.reserve(deadline, std::iter::once(&shard), SoFar::Sight(None))?;
        Ok((ticket, vec![(shard, ShardMail::Look(Box::new(LookMail { ticket, user, look })))]))
    }

    /// A lane was full. Recipients of a push are not reached; any other call is refused as a whole.
    pub fn not_posted(&mut self, shard: ShardId, mail: &ShardMail) {
        if let ShardMail::Push(push) = mail
            && let (None, Audience::Listed(recipients)) = (push.ticket, &push.audience)
        {
            self.count_not_reached(recipients.len());
        }
        let Some(gather) = mail.ticket().and_then(|t| self.gathers.get_mut(t.slot)) else {
            return;
        };
        gather.awaited.remove(&shard);
        gather.unposted.insert(shard);
        gather.refused = !matches!(mail, ShardMail::Push(_));
    }

    /// All mail of a call was posted or refused: finishes it if nothing is awaited.
    pub fn posted(&mut self, ticket: RpcTicket) -> Option<Progress> {
        let gather = self.gathers.get(ticket.slot)?;
        if gather.refused {
            self.remove(ticket.slot)?;
            return Some(Progress { ticket, outcome: Outcome::Refused });
        }
        self.finish_if_complete(ticket)
    }

    /// A shard answered. An answer without an open question is dropped and counted.
    pub fn outcome(
        &mut self,
        shard: ShardId,
        ticket: RpcTicket,
        mut outcome: RpcOutcome,
    ) -> Option<Progress> {
        let gather = self.gathers.get_mut(ticket.slot).filter(|_| ticket.rpc == self.rpc);
        let Some(gather) = gather.filter(|g| g.awaited.contains(&shard) && g.so_far.accepts(&outcome)) else {
            self.tally.count(Metric::RpcLate);
            return None;
        };
        if let (SoFar::Parts(parts), RpcOutcome::Push(part)) = (&mut gather.so_far, &mut outcome) {
            let part = std::mem::take(part);
            if part.last {
                gather.awaited.remove(&shard);
            }
            let results = parts.take(part);
            if gather.awaited.is_empty() {
                return self.finish(ticket.slot, results);
            }
            let part = ResultPart { results, ..ResultPart::default() };
            return (!part.results.is_empty()).then_some(Progress { ticket, outcome: Outcome::Part(part) });
        }
        gather.awaited.remove(&shard);
        gather.so_far.take(outcome);
        self.finish_if_complete(ticket)
    }

    /// Ends the calls whose deadline has come. A push is answered with what is there.
    pub fn expire(&mut self, now: Mono) -> Vec<Progress> {
        let mut finished = Vec::new();
        while let Some(&(deadline, slot)) = self.due.first() {
            if deadline > now {
                break;
            }
            let Some(gather) = self.remove(slot) else { break };
            let outcome = self.as_it_stands(gather);
            finished.push(Progress { ticket: self.ticket(slot), outcome });
        }
        finished
    }

    /// Ends a call now with what is there. Mail as of [`Router::cancel`].
    pub fn give_up(&mut self, ticket: RpcTicket) -> Option<(Progress, Mails)> {
        let gather = self.remove(ticket.slot)?;
        let mails = Self::cancels(&gather, ticket);
        let outcome = self.as_it_stands(gather);
        Some((Progress { ticket, outcome }, mails))
    }

    fn as_it_stands(&mut self, gather: Gather) -> Outcome {
        match gather.so_far {
            SoFar::Push(results) => self.push_outcome(results),
            SoFar::Parts(parts) => {
                let silent = gather.awaited.union(&gather.unposted).copied();
                self.part_outcome(parts.finish(Vec::new(), silent))
            }
            _ => Outcome::Expired,
        }
    }

    /// The caller is gone. Mail for the shards that still work on the call, if it is a push.
    pub fn cancel(&mut self, ticket: RpcTicket) -> Mails {
        self.remove(ticket.slot).map(|gather| Self::cancels(&gather, ticket)).unwrap_or_default()
    }

    fn cancels(gather: &Gather, ticket: RpcTicket) -> Mails {
        match gather.so_far {
            SoFar::Push(_) | SoFar::Parts(_) => {
                gather.awaited.iter().map(|shard| (*shard, ShardMail::CancelPush(ticket))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Recipients by owner shard, with their position in the request. Shards without recipients are absent.
    fn split(&self, users: &[Text]) -> BTreeMap<ShardId, Vec<Recipient>> {
        let mut split: BTreeMap<ShardId, Vec<Recipient>> = BTreeMap::new();
        for (slot, user) in (0u32..).zip(users) {
            let (shard, user) = (self.owner(user), user.clone());
            split.entry(shard).or_default().push(Recipient { slot, user });
        }
        split
    }

    fn reserve<'a>(
        &mut self,
        deadline: Mono,
        shards: impl Iterator<Item = &'a ShardId>,
        so_far: SoFar,
    ) -> Result<RpcTicket, Busy> {
        let gather = Gather {
            deadline,
            awaited: shards.copied().collect(),
            unposted: BTreeSet::new(),
            refused: false,
            so_far,
        };
        let slot = self.gathers.insert(gather).map_err(|_| Busy)?;
        self.due.insert((deadline, slot));
        Ok(self.ticket(slot))
    }

    fn ticket(&self, slot: SlotId) -> RpcTicket {
        RpcTicket { rpc: self.rpc, slot }
    }

    /// The only way out of the table.
    fn remove(&mut self, slot: SlotId) -> Option<Gather> {
        let gather = self.gathers.remove(slot)?;
        let was_due = self.due.remove(&(gather.deadline, slot));
        assert!(was_due, "every open call has its deadline noted");
        Some(gather)
    }

    fn finish_if_complete(&mut self, ticket: RpcTicket) -> Option<Progress> {
        if !self.gathers.get(ticket.slot)?.awaited.is_empty() {
            return None;
        }
        self.finish(ticket.slot, Vec::new())
    }

    /// Ends a call that nothing is awaited for. `results` go into the last part of a push.
    fn finish(&mut self, slot: SlotId, results: Vec<PushResult>) -> Option<Progress> {
        let gather = self.remove(slot)?;
        let outcome = match gather.so_far {
            SoFar::Push(results) => self.push_outcome(results),
            SoFar::Parts(parts) => self.part_outcome(parts.finish(results, gather.unposted.into_iter())),
            SoFar::OnlineStatus(found) => Outcome::OnlineStatus(found),
            SoFar::Kicked(connections) => Outcome::Kicked(connections),
            SoFar::RemoteLogin => Outcome::RemoteLogin,
            // Complete without an answer: the shard was not asked, so it was refused above.
            SoFar::Sight(sight) => sight.map_or(Outcome::Refused, Outcome::Sight),
        };
        Some(Progress { ticket: self.ticket(slot), outcome })
    }

    fn part_outcome(&mut self, part: ResultPart) -> Outcome {
        self.count_not_reached(part.not_reached as usize);
        Outcome::Part(part)
    }

    fn push_outcome(&mut self, results: Vec<PushResult>) -> Outcome {
        let missing = results.iter().filter(|r| r.devices.is_none()).count();
        self.count_not_reached(missing);
        Outcome::Push(results)
    }

    fn count_not_reached(&mut self, users: usize) {
        self.tally.add(Metric::PushNotReached, users as u64);
    }
}

impl SoFar {
    fn accepts(&self, outcome: &RpcOutcome) -> bool {
        matches!(
            (self, outcome),
            (Self::Push(_) | Self::Parts(_), RpcOutcome::Push(_))
                | (Self::OnlineStatus(_), RpcOutcome::OnlineStatus(_))
                | (Self::Kicked(_), RpcOutcome::Kicked { .. })
                | (Self::RemoteLogin, RpcOutcome::RemoteLogin)
                | (Self::Sight(_), RpcOutcome::Sight(_))
        )
    }

    fn take(&mut self, outcome: RpcOutcome) {
        match (self, outcome) {
            (Self::Push(results), RpcOutcome::Push(part)) => {
                for verdict in part.verdicts {
                    if let Who::Slot(slot) = verdict.who
                        && let Some(result) = results.get_mut(slot as usize)
                    {
                        result.devices = Some(verdict.devices);
                    }
                }
            }
            (Self::OnlineStatus(found), RpcOutcome::OnlineStatus(statuses)) => {
                for status in statuses {
                    if let Some((_, devices)) = found.get_mut(status.slot as usize) {
                        *devices = status.devices;
                    }
                }
            }
            (Self::Kicked(sum), RpcOutcome::Kicked { connections }) => *sum = sum.saturating_add(connections),
            (Self::Sight(found), RpcOutcome::Sight(sight)) => *found = Some(sight),
            _ => {} // `accepts` was asked
        }
    }
}

#[cfg(test)]
#[path = "router_tests.rs"]
mod tests;
