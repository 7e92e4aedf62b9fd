//! The properties of architecture.md section 9, judged from outside: what went into the hubs, what came out, and what
//! the clients saw. The first violation ends the world.

use std::collections::BTreeMap;
use std::fmt;

use pinion::hub::Hub;
use pinion::hub::mail::RpcOutcome;
use pinion::ids::{ConnId, Platform, SlotId};
use pinion::session::disconnect::Disconnect;
use pinion::time::Now;

use crate::invariants::Standings;
use crate::link::Link;
use crate::pushes::Pushes;
use crate::world::World;

/// A session, why it ends, and the bytes that wait for it.
pub type Backlog = (ConnId, Option<Disconnect>, usize);

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
    /// 5: who is closed for the shard's budget held the largest outbox, to within a quarter.
    Victim,
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
    pub pushes: Pushes,
    pub standings: Standings,
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

    /// Between two looks nothing was sent: outboxes only grew, so whoever was a victim must have held at least what
    /// each survivor held before, less a size class. Returns how many were victims.
    pub fn victims(&mut self, before: &[Backlog], after: &[Backlog]) -> u64 {
        let ended = |(_, reason, _): &&Backlog| *reason == Some(Disconnect::ShardBudget);
        let known = |(conn, ..): &Backlog| before.iter().any(|(c, r, _)| c == conn && r.is_some());
        let mut count = 0;
        for (victim, _, held) in after.iter().filter(ended).filter(|b| !known(b)) {
            count += 1;
            let survived = |conn: &ConnId| after.iter().any(|(c, r, _)| c == conn && r.is_none());
            let larger = before.iter().find(|(c, _, bytes)| survived(c) && *bytes > held + held / 4 + 1);
            if let Some((other, _, bytes)) = larger {
                let text = format!("{victim} with {held} bytes had to go, {other} with {bytes} stayed");
                self.fail(Property::Victim, text);
            }
        }
        count
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
        self.settle_pushes(shard, ticks, links);
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

impl World {
    /// One step of a hub in which nothing is sent, with a look at its outboxes before and after.
    pub fn watched(&mut self, shard: usize, step: impl FnOnce(&mut Hub, Now)) {
        let before = self.shards[shard].hub.backlogs();
        step(&mut self.shards[shard].hub, self.now);
        let after = self.shards[shard].hub.backlogs();
        for _ in 0..self.checker.victims(&before, &after) {
            self.saw("budget victims");
        }
        self.audit(shard);
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
