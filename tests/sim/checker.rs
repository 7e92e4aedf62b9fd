//! The properties of architecture.md section 9, judged from outside: what went into the hubs, what came out, and what
//! the clients saw. The first violation ends the world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use pinion::hub::mail::{DeviceOutcome, DeviceVerdict, RpcOutcome};
use pinion::ids::{ConnId, Platform, SlotId, SourceId, Text};

use crate::invariants::Standings;
use crate::link::{Link, LinkId};

/// What must hold. The numbers are those of architecture.md section 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Property {
    /// 1: each open connection gets an accepted push at most once and in order, or its verdict says so.
    Push,
    /// 2: nothing follows a close frame (or the kick frame).
    AfterClose,
    /// 2: after a kick's reply no matching connection is registered.
    Kick,
    /// 3: one reply per request within its bound, SendMsg in order.
    OneReply,
    /// 4: the tables agree with each other, and are empty after the drain.
    Tables,
    /// 5: queued bytes stay within what the limits allow.
    QueuedBytes,
    /// A connection whose client is gone is given up: register and unregister are ordered.
    Zombie,
    /// A connection ends for a reason of its own, and sees answers to its own questions only.
    Stranger,
    /// No login waits longer than its deadline.
    LoginDeadline,
    /// A shard turns: nothing in its turn waits for the shard itself (incident 1).
    Freeze,
    /// Each accepted connection ends with one `Effect::Close`.
    CloseOnce,
    /// The bytes that a client reads are what the protocol says.
    Protocol,
    /// Spec 8.6 (a): registered once, unregistered once.
    Standing,
    /// Spec 8.6 (b) and (c): connections are sockets, and gauges count what is there.
    Counts,
    /// Spec 8.6 (d): the login path waits for nobody.
    Waits,
}

/// The first thing that was wrong in a world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub property: Property,
    pub text: String,
    pub at_ms: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {} ms: {}", self.property, self.at_ms, self.text)
    }
}

/// A push that was given to the router.
#[derive(Debug)]
pub struct PushFacts {
    pub source: SourceId,
    pub step: u64,
    /// How often each user was listed.
    pub users: BTreeMap<Text, u32>,
}

/// Something that must hold once a shard has ticked so often.
#[derive(Debug)]
struct Obligation {
    push: u64,
    user: Text,
    platform: Platform,
    /// Connections that were logged in when the push was accepted and open when it was answered.
    links: Vec<LinkId>,
    devices: Vec<DeviceOutcome>,
    shard: usize,
    due_tick: u64,
}

/// From a verdict to the moment when its frames must have arrived: flush deadline and slow turns included.
const SETTLE_TICKS: u64 = 25;
/// Login deadline in ticks, and slack for slow turns.
const LOGIN_TICKS: u64 = 100 + 25;
/// From a lost transport to its close: the session ends at once, whatever the flush deadline.
const LOST_TICKS: u64 = 25;

/// From the last sign of a half-open peer to its close: read deadline, flush deadline, slack.
const VANISHED_TICKS: u64 = 300 + 10 + 25;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Checker {
    pub violation: Option<Violation>,
    pub now_ms: u64,
    /// All connections that hubs accepted, by shard; `true` once closed.
    conns: BTreeMap<(usize, ConnId), bool>,
    pub pushes: BTreeMap<u64, PushFacts>,
    obligations: Vec<Obligation>,
    pub standings: Standings,
    /// How many verdicts were followed to the client: a world that checks nothing proves nothing.
    pub followed: u64,
}

impl Checker {
    /// Notes a violation; the first one stays.
    pub fn fail(&mut self, property: Property, text: String) {
        let at_ms = self.now_ms;
        self.violation.get_or_insert(Violation { property, text, at_ms });
    }

    /// A hub gave out an id.
    pub fn accepted(&mut self, shard: usize, conn: ConnId) {
        if self.conns.insert((shard, conn), false).is_some() {
            self.fail(Property::CloseOnce, format!("the id {conn} was given out twice"));
        }
    }

    /// A hub closed a connection.
    pub fn closed(&mut self, shard: usize, conn: ConnId, link: &Link) {
        match self.conns.insert((shard, conn), true) {
            Some(false) => {}
            other => {
                self.fail(Property::CloseOnce, format!("{conn} closed again or never accepted: {other:?}"))
            }
        }
        if link.logged_in.is_some() && link.excuse.is_none() && !link.gone {
            let text = format!("{conn} of {} was closed without a cause", link.user);
            self.fail(Property::Stranger, text);
        }
    }

    /// The answer to a status question that followed a kick within the same shard.
    pub fn after_kick(&mut self, platform: Platform, outcome: &RpcOutcome) {
        let RpcOutcome::OnlineStatus(users) = outcome else {
            return self.fail(Property::Kick, format!("a status question got {outcome:?}"));
        };
        if users.iter().flat_map(|u| &u.devices).any(|d| d.platform == platform) {
            self.fail(Property::Kick, format!("still there: {users:?}"));
        }
    }

    /// What each tick of a shard looks at.
    pub fn tick(&mut self, shard: usize, ticks: u64, links: &[Link]) {
        for (id, link) in links.iter().enumerate().filter(|(_, l)| l.shard == shard && !l.closed) {
            if link.conn.is_some() && !link.answered && ticks > link.accepted_tick + LOGIN_TICKS {
                self.fail(Property::LoginDeadline, format!("link {id} waits for its login"));
            }
            if link.lost_tick.is_some_and(|lost| ticks > lost + LOST_TICKS) {
                let text = format!("link {id} of {} is gone but its session lives", link.user);
                self.fail(Property::Zombie, text);
            }
        }
        for (id, link) in links.iter().enumerate().filter(|(_, l)| l.shard == shard && !l.closed) {
            let last_sign =
                link.vanished_tick.filter(|_| link.conn.is_some()).map(|t| t.max(link.accepted_tick));
            if last_sign.is_some_and(|tick| ticks > tick + VANISHED_TICKS) {
                let text = format!("link {id} of {} is half open and its session lives", link.user);
                self.fail(Property::Zombie, text);
            }
        }
        let due = |o: &Obligation| o.shard == shard && o.due_tick <= ticks;
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.obligations).into_iter().partition(due);
        self.obligations = later;
        for mut obligation in now {
            if obligation.links.iter().any(|l| links[*l].is_live() && !links[*l].is_quiet()) {
                obligation.due_tick = ticks + SETTLE_TICKS;
                self.obligations.push(obligation);
            } else {
                self.settle(&obligation, links);
            }
        }
    }

    /// A push was answered: what it says must be true for the connections that were there.
    pub fn push_answered(
        &mut self,
        push: u64,
        user: &Text,
        devices: &[DeviceVerdict],
        world: (&[Link], u64),
    ) {
        let (links, ticks) = world;
        let facts = &self.pushes[&push];
        if facts.users.get(user).copied() != Some(1) {
            return; // listed twice: two verdicts, which cannot be told apart
        }
        let there =
            |l: &Link| *l.user == **user && l.is_live() && l.logged_in.is_some_and(|step| step < facts.step);
        let mut platforms: BTreeSet<Platform> = devices.iter().map(|d| d.platform).collect();
        platforms.extend(links.iter().filter(|l| there(l)).map(|l| l.platform));
        for platform in platforms {
            let links: Vec<LinkId> =
                (0..links.len()).filter(|l| links[*l].platform == platform && there(&links[*l])).collect();
            let of_platform = devices.iter().filter(|d| d.platform == platform);
            let Some(shard) = links.first().map(|l| world.0[*l].shard) else {
                continue;
            };
            self.obligations.push(Obligation {
                push,
                user: user.clone(),
                platform,
                links,
                devices: of_platform.map(|d| d.outcome).collect(),
                shard,
                due_tick: ticks + SETTLE_TICKS,
            });
        }
    }

    fn settle(&mut self, obligation: &Obligation, links: &[Link]) {
        let Obligation { push, user, platform, devices, .. } = obligation;
        let open: Vec<&Link> = obligation.links.iter().map(|l| &links[*l]).filter(|l| l.is_live()).collect();
        if devices.len() < open.len() {
            let text = format!("push {push} missed a login of {user:?} on {platform:?}: {devices:?}");
            return self.fail(Property::Push, text);
        }
        let got = |l: &&Link| l.received.contains_key(push);
        let queued = devices.iter().filter(|o| **o == DeviceOutcome::Queued).count();
        let others = devices.len() - queued;
        let reached = open.iter().filter(|l| got(l)).count();
        self.followed += reached as u64;
        if reached + others < open.len() {
            let text = format!("push {push} to {user:?} on {platform:?} never came, verdict {devices:?}");
            return self.fail(Property::Push, text);
        }
        let mine = |l: &&Link| *l.user == **user && l.platform == *platform;
        let total = links.iter().filter(mine).filter(got).count();
        if total > queued {
            let text = format!("push {push} reached {total} of {user:?}, the verdict says {devices:?}");
            self.fail(Property::Push, text);
        }
    }

    /// A client read a push.
    pub fn push_received(&mut self, push: u64, link: &mut Link) {
        let Some(facts) = self.pushes.get(&push) else {
            return self.fail(Property::Stranger, format!("push {push} was never sent"));
        };
        let count = link.received.entry(push).or_default();
        *count += 1;
        let listed = facts.users.get(&Text::from(&*link.user)).copied().unwrap_or(0);
        if *count > listed {
            let text = format!("{} got push {push} {count} times, was listed {listed} times", link.user);
            return self.fail(Property::Push, text);
        }
        let last = link.last_of_source.insert(facts.source, push);
        if last.is_some_and(|last| last > push) {
            let text = format!("{} got push {push} after {last:?} of the same source", link.user);
            self.fail(Property::Push, text);
        }
    }

    /// The world is drained: every accepted connection was closed.
    pub fn drained(&mut self) {
        let left: Vec<SlotId> =
            self.conns.iter().filter(|(_, closed)| !**closed).map(|((_, c), _)| c.0).collect();
        if !left.is_empty() {
            self.fail(Property::CloseOnce, format!("never closed: {left:?}"));
        }
    }
}

/// A running hash of what clients saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed(pub u64);

impl Observed {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds bytes.
    pub fn fold(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
