//! Which instance gets the next call: round robin over those that are ready, have room and are not cut out by their
//! breaker. Pure.
//!
//! What always holds: a call is told to wait only if something is under way that ends the wait (an attempt to connect
//! that did not fail before, or calls that are open); otherwise it fails at once, as in grpc-go without wait-for-ready
//! (spec 6.5). A grant counts on its connection from the moment it is given.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;

use super::breaker::{Breaker, Outcome, Role, Rule};
use super::link::Link;
use crate::shard::nudge::Nudge;
use crate::time::Mono;

/// Names an instance for as long as it is in the snapshot; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InstanceKey(pub(super) u64);

/// A place for one call on a connection. Whoever has it says in the end what became of it.
#[derive(Debug)]
pub(super) struct Grant {
    pub(super) key: InstanceKey,
    pub(super) link: Rc<Link>,
    pub(super) role: Role,
}

/// Where a call goes.
#[derive(Debug)]
pub(super) enum Pick {
    Go(Grant),
    /// A place may become free, or an instance ready.
    Wait,
    /// Nothing is under way.
    Out,
}

/// A new instance, for its keeper.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) key: InstanceKey,
    pub(super) address: SocketAddr,
    /// Rung when it is gone from the snapshot.
    pub(super) stop: Nudge,
}

#[derive(Debug)]
struct Instance {
    key: InstanceKey,
    address: SocketAddr,
    phase: Phase,
    breaker: Breaker,
    stop: Nudge,
}

#[derive(Debug)]
enum Phase {
    /// The first attempt, or the first after a good connection: calls wait for it.
    Connecting,
    Ready(Rc<Link>),
    /// The last attempt failed; calls do not wait for the next one.
    Down,
}

/// How an instance stands towards the next call.
enum Standing {
    Free,
    Busy,
    Out,
}

impl Instance {
    fn standing(&self, now: Mono) -> Standing {
        match &self.phase {
            Phase::Down => Standing::Out,
            _ if !self.breaker.admits(now) => Standing::Out,
            Phase::Ready(link) if link.has_room() => Standing::Free,
            Phase::Ready(_) | Phase::Connecting => Standing::Busy,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Rotation {
    instances: Vec<Instance>,
    /// Where the search for the next one begins.
    next: usize,
    last_key: u64,
    rule: Rule,
    /// Why an instance was last lost to calls.
    cause: Box<str>,
}

impl Rotation {
    pub(super) fn new(rule: Rule) -> Self {
        Self { instances: Vec::new(), next: 0, last_key: 0, rule, cause: "none was connected to yet".into() }
    }

    /// Takes a new snapshot. Gives the instances that are new, and the bells of those that are gone.
    pub(super) fn replace(&mut self, addresses: &[SocketAddr]) -> (Vec<Joined>, Vec<Nudge>) {
        let mut old = std::mem::take(&mut self.instances);
        let mut joined = Vec::new();
        for &address in addresses {
            if self.instances.iter().any(|known| known.address == address) {
                continue;
            }
            let kept = old.iter().position(|known| known.address == address);
            let instance = kept.map(|at| old.swap_remove(at)).unwrap_or_else(|| {
                self.last_key += 1;
                let (key, stop) = (InstanceKey(self.last_key), Nudge::default());
                joined.push(Joined { key, address, stop: stop.clone() });
                Instance { key, address, phase: Phase::Connecting, breaker: Breaker::default(), stop }
            });
            self.instances.push(instance);
        }
        (joined, old.into_iter().map(|gone| gone.stop).collect())
    }

    /// The next instance for a call, rather not `avoid`.
    pub(super) fn pick(&mut self, now: Mono, avoid: Option<InstanceKey>) -> Pick {
        let count = self.instances.len();
        let (mut chosen, mut busy) = (None, false);
        for at in (0..count).map(|step| (self.next + step) % count) {
            let instance = &self.instances[at];
            match instance.standing(now) {
                Standing::Free if Some(instance.key) == avoid => chosen = Some(at),
                Standing::Free => {
                    chosen = Some(at);
                    break;
                }
                Standing::Busy => busy = true,
                Standing::Out => {}
            }
        }
        match chosen.and_then(|at| self.grant(at)) {
            Some(grant) => Pick::Go(grant),
            None if busy => Pick::Wait,
            None => Pick::Out,
        }
    }

    fn grant(&mut self, at: usize) -> Option<Grant> {
        let instance = self.instances.get_mut(at)?;
        let Phase::Ready(link) = &instance.phase else {
            return None;
        };
        self.next = at + 1;
        link.enter();
        Some(Grant { key: instance.key, link: Rc::clone(link), role: instance.breaker.pass() })
    }

    /// Takes a grant back. Whether its instance is taken out of rotation for it.
    pub(super) fn done(&mut self, now: Mono, grant: &Grant, outcome: Outcome) -> bool {
        grant.link.leave();
        let rule = self.rule;
        let Some(instance) = self.instance(grant.key) else {
            return false;
        };
        let opens = instance.breaker.note(now, grant.role, outcome, rule);
        if opens {
            let text = format!("{}: its last {} calls failed", instance.address, rule.failures_max);
            self.cause = text.into();
        }
        opens
    }

    /// An instance has a connection.
    pub(super) fn ready(&mut self, key: InstanceKey, link: &Rc<Link>) {
        if let Some(instance) = self.instance(key) {
            instance.phase = Phase::Ready(Rc::clone(link));
        }
    }

    /// An instance has none any more, or none yet again. Calls wait for the next attempt if `hope` says so. Whether
    /// it is down since now.
    pub(super) fn lost(&mut self, key: InstanceKey, hope: Hope, cause: impl fmt::Display) -> bool {
        let Some(instance) = self.instance(key) else {
            return false;
        };
        let was_down = matches!(instance.phase, Phase::Down);
        instance.phase = match hope {
            Hope::Soon => Phase::Connecting,
            Hope::None => Phase::Down,
        };
        let text = format!("{}: {cause}", instance.address);
        self.cause = text.into();
        hope == Hope::None && !was_down
    }

    fn instance(&mut self, key: InstanceKey) -> Option<&mut Instance> {
        self.instances.iter_mut().find(|instance| instance.key == key)
    }

    /// Why a call fails at once.
    pub(super) fn outage(&self) -> String {
        if self.instances.is_empty() {
            return "no instance is known".to_owned();
        }
        format!("no instance can be asked; {}", self.cause)
    }

    /// Instances of the snapshot.
    pub(super) fn len(&self) -> usize {
        self.instances.len()
    }

    /// Those of them that a call can go to, or could if they had room.
    pub(super) fn ready_len(&self, now: Mono) -> usize {
        let is_ready = |i: &&Instance| matches!(i.phase, Phase::Ready(_)) && i.breaker.admits(now);
        self.instances.iter().filter(is_ready).count()
    }
}

/// What calls may expect of an instance that lost its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hope {
    /// The next one is being made.
    Soon,
    /// The next one is tried later.
    None,
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;

    use super::*;

    const NOW: Mono = Mono(5_000);
    const RULE: Rule = Rule { failures_max: 2, cool_down_ms: 100 };

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn link(room_max: usize) -> Rc<Link> {
        Rc::new(Link::new(Authority::from_static("a"), None, room_max))
    }

    /// Instances 1.., each ready with a connection of so much room.
    fn rotation(rooms: &[usize]) -> Rotation {
        let mut rotation = Rotation::new(RULE);
        let ports: Vec<_> = (1..).map(address).take(rooms.len()).collect();
        let (joined, gone) = rotation.replace(&ports);
        assert_eq!((joined.len(), gone.len()), (rooms.len(), 0));
        for (instance, room) in joined.iter().zip(rooms) {
            rotation.ready(instance.key, &link(*room));
        }
        rotation
    }

    fn go(rotation: &mut Rotation, avoid: Option<u64>) -> Grant {
        match rotation.pick(NOW, avoid.map(InstanceKey)) {
            Pick::Go(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn it_goes_round_past_those_without_room_and_waits_when_none_has_any() {
        let mut rotation = rotation(&[1, 3, 1]);
        let keys: Vec<_> = (0..5).map(|_| go(&mut rotation, None).key.0).collect();
        assert_eq!(keys, [1, 2, 3, 2, 2]);
        assert!(matches!(rotation.pick(NOW, None), Pick::Wait));
    }

    #[test]
    fn the_one_to_avoid_is_taken_only_if_no_other_is_free() {
        let mut rotation = rotation(&[9, 2]);
        let keys = [Some(1), Some(1), Some(1), Some(2), None].map(|avoid| go(&mut rotation, avoid).key.0);
        assert_eq!(keys, [2, 2, 1, 1, 1]);
    }

    #[test]
    fn calls_wait_for_a_first_attempt_and_not_for_one_after_a_failure() {
        let mut rotation = Rotation::new(RULE);
        assert!(matches!(rotation.pick(NOW, None), Pick::Out));
        assert_eq!(rotation.outage(), "no instance is known");
        let (joined, _) = rotation.replace(&[address(1), address(2)]);
        assert!(matches!(rotation.pick(NOW, None), Pick::Wait));
        assert!(rotation.lost(joined[0].key, Hope::None, "refused"));
        assert!(!rotation.lost(joined[0].key, Hope::None, "refused again"), "it was down");
        assert!(matches!(rotation.pick(NOW, None), Pick::Wait), "there is another");
        assert!(rotation.lost(joined[1].key, Hope::None, "not there"));
        assert!(matches!(rotation.pick(NOW, None), Pick::Out));
        assert_eq!(rotation.outage(), "no instance can be asked; 127.0.0.1:2: not there");
        assert!(!rotation.lost(joined[1].key, Hope::Soon, "closed"));
        assert!(matches!(rotation.pick(NOW, None), Pick::Wait));
    }

    #[test]
    fn a_snapshot_keeps_who_stays_and_tells_who_is_gone() {
        let mut rotation = rotation(&[9, 9]);
        let grant = go(&mut rotation, None);
        let (joined, gone) = rotation.replace(&[address(3), address(2), address(3)]);
        assert_eq!((joined.len(), joined[0].key, gone.len()), (1, InstanceKey(3), 1));
        assert_eq!((rotation.len(), rotation.ready_len(NOW)), (2, 1));
        assert_eq!([(); 3].map(|()| go(&mut rotation, None).key.0), [2, 2, 2], "3 is not ready yet");
        assert!(!rotation.done(NOW, &grant, Outcome::Failed), "nobody is there to be left alone");
        let (joined, gone) = rotation.replace(&[address(1)]);
        assert_eq!((joined[0].key, gone.len()), (InstanceKey(4), 2), "one that comes back is another one");
    }

    #[test]
    fn whoever_fails_too_often_is_out_and_comes_back_by_a_probe() {
        let mut rotation = rotation(&[9, 9]);
        let [first, second] = [(); 2].map(|()| go(&mut rotation, Some(2)));
        assert!(!rotation.done(NOW, &first, Outcome::Failed));
        assert!(rotation.done(NOW, &second, Outcome::Failed));
        assert_eq!([(); 3].map(|()| go(&mut rotation, None).key.0), [2, 2, 2]);
        let (_, gone) = rotation.replace(&[address(1)]);
        assert_eq!(gone.len(), 1);
        assert!(matches!(rotation.pick(NOW, None), Pick::Out));
        assert_eq!(rotation.outage(), "no instance can be asked; 127.0.0.1:1: its last 2 calls failed");
        let then = NOW.plus_ms(100);
        let Pick::Go(probe) = rotation.pick(then, None) else { panic!() };
        assert_eq!(probe.role, Role::Probe);
        assert!(matches!(rotation.pick(then, None), Pick::Out), "one at a time");
        assert!(!rotation.done(then, &probe, Outcome::Answered));
        assert_eq!(go(&mut rotation, None).role, Role::Plain);
    }
}
