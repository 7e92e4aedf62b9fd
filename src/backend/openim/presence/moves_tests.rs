//! A user moves between two gateways (spec 9.1 to 9.5): every order of the few events in which that can happen.
//!
//! One user, one platform, the sorted set of Redis, two gateways of which one may be OpenIM's. What is tried: logins,
//! their news on the way to the other gateway, kicks, requests, their answers, `online_change`. An order is a list of
//! choices; each is run from the start, and where there are too many, some of them. Faults of the way (lost calls,
//! deafness) are in `model.rs`.

use super::*;
use crate::hub::upstream::LoginPlace;
use crate::limits;
use crate::pb::openim::user::{SetUserOnlineStatusReq, UserOnlineStatus};

const USER: &str = "u";
const LINUX: i32 = 7;
/// The first gateway and the second.
const A: usize = 0;
const B: usize = 1;
/// News of a login and a request are on the way so long at most (`UPSTREAM_DEADLINE_MS`, `PRESENCE_DEADLINE_MS`).
const ON_THE_WAY_MS: u64 = 4_000;
/// Until all echoes are told.
const QUIET_MS: u64 = 15_000;
/// Orders of one scene that are run: all, if there are not more (there are up to 200 000).
const ORDERS_MAX: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pinion,
    /// Says each change, keeps no account of what it said; serves nothing while the other is told of a login.
    Openim,
}

/// What the user does, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Login(usize),
    /// His connection ends, if there is one.
    Leave(usize),
    /// The gateway is killed.
    Crash(usize),
}

use Step::{Crash, Leave, Login};

/// What a login does to the connection before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Kicks,
    /// The same token (spec trap 26).
    Spares,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Step,
    /// The gateway hears of a login at the other one.
    News(usize),
    Send(usize),
    /// The request is carried out.
    Apply(usize),
    Answer(usize),
    /// The gateway hears of a change in Redis.
    Hear(usize),
}

/// What a gateway says of him.
#[derive(Clone, Copy, Debug)]
struct Said {
    online: bool,
    offline: bool,
}

/// A request on its way.
struct Flight {
    said: Vec<Said>,
    id: Option<RequestId>,
    is_carried_out: bool,
    left: u64,
}

struct Gateway {
    kind: Kind,
    presence: Presence,
    is_up: bool,
    open: usize,
    /// OpenIM's: records that wait.
    records: Vec<Said>,
    flight: Option<Flight>,
    /// When the login was of which it has not heard yet.
    news: Vec<u64>,
    heard: Vec<bool>,
}

struct Scene {
    now: u64,
    policy: Policy,
    steps: Vec<Step>,
    gateways: [Gateway; 2],
    /// Whether the sorted set has the platform.
    is_stored: bool,
    /// Whether it lacked him while he had a connection.
    had_gap: bool,
}

impl Scene {
    fn new(kinds: [Kind; 2], policy: Policy, steps: &[Step]) -> Self {
        let gateway = |kind| Gateway {
            kind,
            presence: Presence::new(PresenceConfig::new(Compat::Patch16, 1, [1, 2])),
            is_up: true,
            open: 0,
            records: Vec::new(),
            flight: None,
            news: Vec::new(),
            heard: Vec::new(),
        };
        let steps = steps.iter().rev().copied().collect();
        Self { now: 0, policy, steps, gateways: kinds.map(gateway), is_stored: false, had_gap: false }
    }

    /// He has been at the first gateway for long.
    fn settled(mut self) -> Self {
        let steps = std::mem::replace(&mut self.steps, vec![Login(A)]);
        self.quiet();
        assert!(self.is_stored);
        self.steps = steps;
        self.had_gap = false;
        self
    }

    fn login(&mut self, n: usize) {
        let other = 1 - n;
        if self.gateways[other].is_up {
            self.gateways[other].news.push(self.now);
        }
        let gateway = &mut self.gateways[n];
        let kicked = self.policy == Policy::Kicks && gateway.open > 0;
        gateway.open = if kicked { 1 } else { gateway.open + 1 };
        self.tell(n, usize::from(kicked), Some(LoginPlace::Here));
    }

    fn leave(&mut self, n: usize) {
        if self.gateways[n].open > 0 {
            self.gateways[n].open -= 1;
            self.tell(n, 1, None);
        }
    }

    /// So many connections have left.
    fn tell(&mut self, n: usize, left: usize, login: Option<LoginPlace>) {
        let now = Now { mono: Mono(self.now), unix: UnixMs(0) };
        let gateway = &mut self.gateways[n];
        if gateway.kind == Kind::Openim {
            return gateway.records.push(Said { online: gateway.open > 0, offline: left > 0 });
        }
        let record = PresenceRecord {
            user: USER.into(),
            online: vec![LINUX; gateway.open],
            offline: vec![LINUX; left],
            logins: login.map(|place| (LINUX, place)).into_iter().collect(),
            connections: None,
        };
        gateway.presence.record(now, &record);
    }

    /// What may happen next. What has been on the way for long enough comes first.
    fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for (n, gateway) in self.gateways.iter().enumerate().filter(|(_, gateway)| gateway.is_up) {
            let late = |since: u64| self.now - since >= ON_THE_WAY_MS;
            if let Some(flight) = &gateway.flight {
                let event = if flight.is_carried_out { Event::Answer(n) } else { Event::Apply(n) };
                if late(flight.left) {
                    return vec![event];
                }
                events.push(event);
            } else if !gateway.records.is_empty() || gateway.presence.reports.dirty() > 0 {
                events.push(Event::Send(n));
            }
            if let Some(since) = gateway.news.first() {
                if late(*since) {
                    return vec![Event::News(n)];
                }
                events.push(Event::News(n));
            }
            if !gateway.heard.is_empty() {
                let knows_him = gateway.kind == Kind::Openim || gateway.presence.reports.users.len() > 0;
                if !knows_him {
                    return vec![Event::Hear(n)]; // it changes nothing
                }
                events.push(Event::Hear(n));
            }
        }
        // OpenIM's loop waits for the other gateway before it sees the next thing.
        let waits = |n: usize| self.gateways[n].kind == Kind::Openim && !self.gateways[1 - n].news.is_empty();
        match self.steps.last() {
            Some(Login(n) | Leave(n)) if waits(*n) => {}
            Some(_) => events.push(Event::Step),
            None => {}
        }
        events
    }

    fn happen(&mut self, event: Event) {
        self.now += 1;
        match event {
            Event::Step => match self.steps.pop().unwrap() {
                Login(n) if self.gateways[n].is_up => self.login(n),
                Leave(n) => self.leave(n),
                Crash(n) => {
                    let gateway = &mut self.gateways[n];
                    (gateway.is_up, gateway.open) = (false, 0);
                    gateway.flight = None;
                }
                Login(_) => {}
            },
            Event::News(n) => {
                self.gateways[n].news.remove(0);
                let kicked = self.policy == Policy::Kicks && self.gateways[n].open > 0;
                if kicked {
                    self.gateways[n].open = 0;
                }
                if kicked || self.gateways[n].kind == Kind::Pinion {
                    self.tell(n, usize::from(kicked), Some(LoginPlace::Elsewhere));
                }
            }
            Event::Send(n) => self.send(n),
            Event::Apply(n) => self.apply(n),
            Event::Answer(n) => {
                if let Some(id) = self.gateways[n].flight.take().and_then(|flight| flight.id) {
                    self.gateways[n].presence.answered(Mono(self.now), id, Ok(Bytes::new()));
                }
            }
            Event::Hear(n) => {
                let is_stored = self.gateways[n].heard.remove(0);
                let gateway = &mut self.gateways[n];
                if gateway.kind == Kind::Pinion {
                    let payload = if is_stored { format!("{LINUX}:{USER}") } else { USER.to_owned() };
                    gateway.presence.online_change(Mono(self.now), payload.as_bytes());
                    while gateway.presence.next_news().is_some() {}
                } else if !is_stored && gateway.open > 0 {
                    gateway.records.push(Said { online: true, offline: false });
                }
            }
        }
        let has_connection = self.gateways.iter().any(|gateway| gateway.open > 0);
        self.had_gap |= has_connection && !self.is_stored;
    }

    fn send(&mut self, n: usize) {
        let mut next =
            |now: u64| self.gateways[n].presence.next_request(Now { mono: Mono(now), unix: UnixMs(0) });
        let request = next(self.now).or_else(|| {
            self.now += limits::PRESENCE_FLUSH_MS;
            next(self.now)
        });
        let gateway = &mut self.gateways[n];
        let (said, id) = match request {
            Some(request) => {
                let body = SetUserOnlineStatusReq::decode(request.body).unwrap();
                let said = |s: &UserOnlineStatus| Said {
                    online: !s.online.is_empty(),
                    offline: !s.offline.is_empty(),
                };
                (body.status.iter().map(said).collect(), Some(request.id))
            }
            None => (std::mem::take(&mut gateway.records), None),
        };
        if !said.is_empty() {
            gateway.flight = Some(Flight { said, id, is_carried_out: false, left: self.now });
        }
    }

    /// The script of spec 9.2.
    fn apply(&mut self, n: usize) {
        let Some(flight) = &mut self.gateways[n].flight else { return };
        flight.is_carried_out = true;
        for Said { online, offline } in flight.said.clone() {
            let before = self.is_stored;
            self.is_stored = online || before && !offline;
            if before != self.is_stored || before && offline {
                let up = self.gateways.iter_mut().filter(|gateway| gateway.is_up);
                up.for_each(|gateway| gateway.heard.push(self.is_stored));
            }
        }
    }

    /// Lets all happen that is under way, in some order, and what is told once more after it.
    fn quiet(&mut self) {
        let end = self.now + QUIET_MS;
        while self.now < end {
            match self.events().first() {
                Some(event) => self.happen(*event),
                // A flush: who is to be told once more is, and nothing else is due.
                None => (0..2).for_each(|n| {
                    if self.gateways[n].is_up && self.gateways[n].flight.is_none() {
                        self.send(n);
                    }
                }),
            }
        }
    }

    /// What must be in Redis at last; `None`: either, since nobody is left to say that he is gone.
    fn truth(&self) -> Option<bool> {
        let has_connection = self.gateways.iter().any(|gateway| gateway.open > 0);
        let is_whole = self.gateways.iter().all(|gateway| gateway.is_up);
        (has_connection || is_whole).then_some(has_connection)
    }
}

/// What happened, and whether Redis says what is true at last.
fn run(mut scene: Scene, mut pick: impl FnMut(usize, usize) -> usize) -> bool {
    let mut order = Vec::new();
    for depth in 0.. {
        let events = scene.events();
        if events.is_empty() {
            break;
        }
        let event = events[pick(depth, events.len())];
        order.push(event);
        scene.happen(event);
    }
    scene.quiet();
    let truth = scene.truth();
    assert!(truth.is_none_or(|truth| truth == scene.is_stored), "{truth:?} is wrong after {order:?}");
    scene.had_gap
}

/// Runs every order of what `scene` begins, or so many of them at random; gives in how many there was a gap.
fn explore(scene: impl Fn() -> Scene) -> usize {
    let mut choices: Vec<(usize, usize)> = Vec::new();
    let mut gaps = 0;
    for _ in 0..ORDERS_MAX {
        gaps += usize::from(run(scene(), |depth, of| {
            if depth == choices.len() {
                choices.push((0, of));
            }
            choices[depth].0
        }));
        while choices.last().is_some_and(|(picked, of)| picked + 1 == *of) {
            choices.pop();
        }
        match choices.last_mut() {
            Some((picked, _)) => *picked += 1,
            None => return gaps,
        }
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..ORDERS_MAX {
        gaps += usize::from(run(scene(), |_, of| random.usize(..of)));
    }
    gaps
}

const FLEETS: [[Kind; 2]; 3] =
    [[Kind::Pinion, Kind::Pinion], [Kind::Pinion, Kind::Openim], [Kind::Openim, Kind::Pinion]];

#[test]
fn whatever_the_order_redis_says_at_last_where_he_is() {
    for policy in [Policy::Kicks, Policy::Spares] {
        for kinds in FLEETS {
            for steps in [
                &[Login(B)][..],
                &[Login(B), Leave(B)],
                &[Login(B), Leave(A)],
                &[Login(B), Leave(B), Leave(A)],
                &[Login(B), Leave(A), Leave(B)],
                &[Leave(A), Login(B)],
                &[Login(B), Login(A)],
                &[Login(B), Login(A), Leave(A)],
                &[Login(B), Crash(B)],
                &[Login(B), Crash(B), Login(A)],
            ] {
                explore(|| Scene::new(kinds, policy, steps).settled());
            }
            // He has not been there for long: both may hear of the other's login after their own.
            for steps in
                [&[Login(A), Login(B)][..], &[Login(A), Login(B), Leave(B)], &[Login(A), Login(B), Login(A)]]
            {
                explore(|| Scene::new(kinds, policy, steps));
            }
        }
    }
}

#[test]
fn who_has_been_here_for_long_is_never_offline_while_he_moves() {
    for theirs in [Kind::Pinion, Kind::Openim] {
        let moved = || Scene::new([Kind::Pinion, theirs], Policy::Kicks, &[Login(B)]).settled();
        assert_eq!(explore(moved), 0, "to {theirs:?}");
    }
    // The other way round OpenIM's gateway says that he left, which only the repair mends.
    let moved = || Scene::new([Kind::Openim, Kind::Pinion], Policy::Kicks, &[Login(B)]).settled();
    assert!(explore(moved) > 0, "nothing was tried");
}
