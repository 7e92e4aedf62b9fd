//! Property 1: what verdicts say about pushes is what clients read. A verdict names connections; each is followed to
//! the client.

use std::collections::{BTreeMap, BTreeSet};

use pinion::cluster::router::{Push, ResultPart, To};
use pinion::hub::mail::{DeviceOutcome, DeviceVerdict, PushPart, PushRules, Report, Totals, Who};
use pinion::ids::{RpcTicket, SourceId, Text};
use pinion::limits::PUSH_PART_MAX;

use crate::checker::{Checker, Property};
use crate::link::{Link, LinkId};

/// A push that was given to the router.
#[derive(Debug)]
pub struct PushFacts {
    pub source: SourceId,
    pub step: u64,
    /// How often each user was listed; `None`: everybody.
    pub users: Option<BTreeMap<Text, u32>>,
    pub rules: PushRules,
    /// The connections that may have it, of users whose verdict is in.
    told: BTreeMap<Text, BTreeSet<[u8; 16]>>,
    /// Connections that have it, and how many may: known with the totals.
    received: u32,
    received_max: Option<u32>,
    /// Users with a result.
    pub results: usize,
}

/// Something that must hold once a shard has ticked so often, if the connection is still there.
#[derive(Debug)]
struct Obligation {
    push: u64,
    link: LinkId,
    duty: Duty,
    due_tick: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    /// It must have come.
    Arrive,
    /// The connection must be gone: it was there before the push, and no verdict names it.
    BeGone,
}

/// What a shard has said about a push.
#[derive(Debug, Default)]
struct Ledger {
    slots: BTreeSet<u32>,
    users: BTreeSet<Text>,
    totals: Totals,
    over: bool,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Pushes {
    pub facts: BTreeMap<u64, PushFacts>,
    obligations: Vec<Obligation>,
    ledgers: BTreeMap<(usize, RpcTicket), Ledger>,
    /// How many verdicts were followed to the client: a world that checks nothing proves nothing.
    pub followed: u64,
}

/// From a verdict to the moment when its frames must have arrived: flush deadline and slow turns included.
const SETTLE_TICKS: u64 = 25;
/// Connections that one user may have.
const USER_DEVICES_MAX: usize = 64;

impl PushFacts {
    /// Of a push that is called at a step.
    pub fn new(push: &Push, step: u64) -> Self {
        let count = |users: &Vec<Text>| {
            let mut listed = BTreeMap::new();
            users.iter().for_each(|user| *listed.entry(user.clone()).or_default() += 1);
            listed
        };
        Self {
            source: push.source,
            step,
            users: if let To::Users(users) = &push.to { Some(count(users)) } else { None },
            rules: push.rules,
            told: BTreeMap::new(),
            received: 0,
            received_max: None,
            results: 0,
        }
    }

    fn listed(&self, user: &str) -> u32 {
        self.users.as_ref().map_or(1, |users| users.get(&Text::from(user)).copied().unwrap_or(0))
    }
}

/// Whether a connection with this outcome may have the push.
fn may_have(outcome: DeviceOutcome) -> bool {
    matches!(outcome, DeviceOutcome::Written | DeviceOutcome::Queued)
}

impl Checker {
    /// A shard gave a part of an answer.
    pub fn part_given(&mut self, key: (usize, RpcTicket), part: &PushPart) {
        let ledger = self.pushes.ledgers.entry(key).or_default();
        let mut wrong = ledger.over.then_some("a part after the last");
        ledger.over = part.last;
        let mut size = 0;
        for verdict in &part.verdicts {
            size += 1 + verdict.devices.len();
            let new = match &verdict.who {
                Who::Slot(slot) => ledger.slots.insert(*slot),
                Who::User(user) => ledger.users.insert(user.clone()),
            };
            if !new {
                wrong = Some("a second verdict for one recipient");
            }
            ledger.totals.users += 1;
            verdict.devices.iter().for_each(|device| ledger.totals.count(device.outcome));
            match (verdict.devices.is_empty(), verdict.expired) {
                (true, true) => ledger.totals.expired += 1,
                (true, false) => ledger.totals.not_here += 1,
                (false, true) => wrong = Some("expired with devices"),
                (false, false) => {}
            }
        }
        if !part.last && size > PUSH_PART_MAX + USER_DEVICES_MAX {
            wrong = Some("a part above its limit");
        }
        let told = ledger.totals.users > 0 && part.totals != Totals::default();
        if part.last && told && part.totals != ledger.totals {
            wrong = Some("totals that the verdicts do not add up to");
        }
        if let Some(wrong) = wrong {
            self.fail(Property::Push, format!("{key:?}: {wrong}: {part:?}"));
        }
    }

    /// A verdict reached the caller: what it says must be true from now on.
    pub fn push_answered(
        &mut self,
        push: u64,
        (user, devices): (&Text, &[DeviceVerdict]),
        (links, ticks): (&[Link], u64),
    ) {
        let facts = self.pushes.facts.get_mut(&push).expect("it was called");
        facts.results += 1;
        if facts.listed(user) != 1 {
            return; // listed twice: two verdicts, which cannot be told apart
        }
        let of = |id: &[u8; 16]| links.iter().position(|l| l.connection_id == *id);
        let may = |d: &&DeviceVerdict| may_have(d.outcome);
        let allowed: BTreeSet<[u8; 16]> = devices.iter().filter(may).map(|d| d.connection_id).collect();
        let has = |l: &&Link| *l.user == **user && l.received.contains_key(&push);
        if let Some(link) = links.iter().filter(has).find(|l| !allowed.contains(&l.connection_id)) {
            let text = format!("push {push} has reached {:?} of {user:?}: {devices:?}", link.conn);
            return self.fail(Property::Push, text);
        }
        // What is queued may still expire; what was said to be written may not.
        let sure = |d: &&DeviceVerdict| match d.outcome {
            DeviceOutcome::Written => true,
            outcome => outcome == DeviceOutcome::Queued && facts.rules.expires.is_none(),
        };
        let mut duties = Vec::new();
        for device in devices.iter().filter(sure) {
            match of(&device.connection_id) {
                Some(link) => duties.push((link, Duty::Arrive)),
                None => return self.fail(Property::Push, format!("push {push}: who is {device:?}?")),
            }
        }
        let there =
            |l: &Link| *l.user == **user && l.is_live() && l.logged_in.is_some_and(|step| step < facts.step);
        let named = |l: &Link| devices.iter().any(|d| d.connection_id == l.connection_id);
        let missed = (0..links.len()).filter(|l| there(&links[*l]) && !named(&links[*l]));
        duties.extend(missed.map(|link| (link, Duty::BeGone)));
        let due_tick = ticks + SETTLE_TICKS;
        let obligation = |(link, duty)| Obligation { push, link, duty, due_tick };
        self.pushes.obligations.extend(duties.into_iter().map(obligation));
        facts.told.insert(user.clone(), allowed);
    }

    /// The last part of a push reached the caller.
    pub fn push_over(&mut self, push: u64, last: &ResultPart, links: (&[Link], &[u64])) {
        let (totals, not_reached) = (last.totals, last.not_reached);
        let facts = self.pushes.facts.get_mut(&push).expect("it was called");
        let listed = facts.users.as_ref().map(|users| users.values().sum::<u32>());
        let mut wrong = listed.is_some_and(|listed| totals.users + not_reached != listed);
        wrong &= facts.rules.report == Report::Totals; // else a shard that is late has verdicts but no totals
        if facts.rules.report == Report::Each {
            wrong |= listed.is_some_and(|listed| facts.results != listed as usize);
        } else if not_reached == 0 {
            let may = totals.written + totals.queued;
            facts.received_max = Some(may);
            wrong |= facts.received > may;
        }
        if wrong {
            let text = format!("push {push} ended with {totals:?}, {not_reached} not reached: {facts:?}");
            return self.fail(Property::Push, text);
        }
        if facts.users.is_none() && facts.rules.report == Report::Each && not_reached == 0 {
            // Everybody who was there has a verdict.
            let step = facts.step;
            let missed = |l: &Link| {
                l.is_live()
                    && l.logged_in.is_some_and(|logged_in| logged_in < step)
                    && !facts.told.contains_key(&Text::from(&*l.user))
            };
            let (links, ticks) = links;
            for (link, there) in links.iter().enumerate().filter(|(_, l)| missed(l)) {
                let due_tick = ticks[there.shard] + SETTLE_TICKS;
                self.pushes.obligations.push(Obligation { push, link, duty: Duty::BeGone, due_tick });
            }
        }
    }

    /// Looks at the verdicts whose time has come.
    pub fn settle_pushes(&mut self, shard: usize, ticks: u64, links: &[Link]) {
        let due = |o: &Obligation| links[o.link].shard == shard && o.due_tick <= ticks;
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pushes.obligations).into_iter().partition(due);
        self.pushes.obligations = later;
        for mut obligation in now {
            let Obligation { push, link, duty, .. } = obligation;
            let link = &links[link];
            if !link.is_live() {
                continue;
            }
            let arrived = link.received.contains_key(&push);
            if duty == Duty::Arrive && arrived {
                self.pushes.followed += 1;
            } else if !link.is_quiet() {
                obligation.due_tick = ticks + SETTLE_TICKS;
                self.pushes.obligations.push(obligation);
            } else {
                let facts = &self.pushes.facts[&push];
                let text = format!("push {push} to {}: must {duty:?}: {facts:?}, {link:?}", link.user);
                self.fail(Property::Push, text);
            }
        }
    }

    /// A client read a push.
    pub fn push_received(&mut self, push: u64, link: &mut Link) {
        let Some(facts) = self.pushes.facts.get_mut(&push) else {
            return self.fail(Property::Stranger, format!("push {push} was never sent"));
        };
        facts.received += 1;
        let count = link.received.entry(push).or_default();
        *count += 1;
        let (count, listed) = (*count, facts.listed(&link.user));
        if count > listed {
            let text = format!("{} got push {push} {count} times, was listed {listed} times", link.user);
            return self.fail(Property::Push, text);
        }
        let told = facts.told.get(&Text::from(&*link.user));
        if told.is_some_and(|allowed| !allowed.contains(&link.connection_id)) {
            let text = format!("{} got push {push} on {:?} against its verdict", link.user, link.conn);
            return self.fail(Property::Push, text);
        }
        if facts.received_max.is_some_and(|max| facts.received > max) {
            let text = format!("push {push} reached more than its totals say: {facts:?}");
            return self.fail(Property::Push, text);
        }
        let last = link.last_of_source.insert(facts.source, push);
        if last.is_some_and(|last| last > push) {
            let text = format!("{} got push {push} after {last:?} of the same source", link.user);
            self.fail(Property::Push, text);
        }
    }
}
