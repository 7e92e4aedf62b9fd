//! Simulation of several gateways with one user service and its Redis (spec 9.2), in virtual time, from a seed.
//!
//! Calls are slow, lost, answered in vain, carried out too late, refused half way; the subscription to `online_change`
//! breaks; a gateway crashes. In quiet time after that the sorted sets must say what is true.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::pb::openim::user::{SetUserOnlineStatusReq, SetUserStatusReq};

/// Milliseconds after which Redis forgets a member: a tenth of the real one, as the renewal below.
const EXPIRY_MS: u64 = 180_000;
const RENEWAL: RenewalTimes = RenewalTimes { after_ms: 60_000, latest_ms: 90_000, heal_ms: 6_000 };
const TICK_MS: u64 = 50;
const WATCH_MS: u64 = 500;
const GATEWAYS: usize = 3;
/// The longest that a connection may be missing in Redis, whatever the faults below do.
const MISSING_MS: u64 = 60_000;
const PLATFORMS: [i32; 3] = [1, 2, 5];
/// Connections of a gateway: few enough that most platforms of most users are offline.
const OPEN_MAX: usize = 8;

/// User and platform.
type Spot = (u32, i32);

/// `ONLINE:<user>`: member to score.
#[derive(Default)]
struct Redis(BTreeMap<String, BTreeMap<i32, u64>>);

impl Redis {
    /// The script of spec 9.2. `Some`: what it publishes.
    fn script(&mut self, now: u64, user: &str, online: &[i32], offline: &[i32]) -> Option<String> {
        let set = self.0.entry(user.to_owned()).or_default();
        let first = set.len();
        set.retain(|platform, score| *score > now && !offline.contains(platform));
        let second = set.len();
        set.extend(online.iter().map(|platform| (*platform, now + EXPIRY_MS)));
        if first == second && second == set.len() {
            return None;
        }
        let mut members: Vec<_> =
            set.iter().map(|(platform, score)| (*score, platform.to_string())).collect();
        members.sort();
        let parts = members.into_iter().map(|(_, member)| member).chain([user.to_owned()]);
        Some(parts.collect::<Vec<_>>().join(":"))
    }

    fn online(&self, now: u64, user: &str) -> Vec<i32> {
        let set = self.0.get(user).into_iter().flatten();
        set.filter(|(_, score)| **score >= now).map(|(platform, _)| *platform).collect()
    }
}

enum Event {
    /// The user service carries out so many users of a request.
    Apply(Bytes, usize),
    Answer(usize, RequestId, Result<(), RequestFault>),
    Publish(usize, String),
}

struct Gateway {
    presence: Presence,
    /// Open connections.
    open: Vec<Spot>,
    is_up: bool,
    /// Hears nothing until then.
    deaf_until: Option<u64>,
    /// Messages arrive in order.
    heard: u64,
}

struct World {
    now: u64,
    random: fastrand::Rng,
    faults: bool,
    /// Requests may be carried out after their deadline.
    late: bool,
    gateways: Vec<Gateway>,
    redis: Redis,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    missing: BTreeMap<Spot, u64>,
    /// What the crashed gateway held.
    orphans: BTreeSet<Spot>,
    longest_missing: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let gateway = |n: usize| {
            let mut config = PresenceConfig::new(Compat::Patch16, 1, [seed, n as u64]);
            config.reports.renewal = RENEWAL;
            let presence = Presence::new(config);
            Gateway { presence, open: Vec::new(), is_up: true, deaf_until: None, heard: 0 }
        };
        Self {
            now: 0,
            random: fastrand::Rng::with_seed(seed),
            faults: true,
            late: true,
            gateways: (0..GATEWAYS).map(gateway).collect(),
            redis: Redis::default(),
            events: BTreeMap::new(),
            scheduled: 0,
            missing: BTreeMap::new(),
            orphans: BTreeSet::new(),
            longest_missing: 0,
        }
    }

    fn at(&self) -> Now {
        Now { mono: Mono(self.now), unix: UnixMs(0) }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((at, self.scheduled), event);
    }

    fn run(&mut self, ms: u64, act: fn(&mut Self)) {
        let end = self.now + ms;
        while self.now < end {
            self.now += TICK_MS;
            act(self);
            while let Some(((at, _), _)) = self.events.first_key_value()
                && *at <= self.now
            {
                let (_, event) = self.events.pop_first().unwrap();
                self.happen(event);
            }
            (0..GATEWAYS).for_each(|n| self.tick(n));
            if self.now.is_multiple_of(WATCH_MS) {
                self.watch();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Apply(body, count) => {
                let request = SetUserOnlineStatusReq::decode(body).unwrap();
                for status in request.status.iter().take(count) {
                    let (user, online) = (&status.user_id, &status.online);
                    let Some(message) = self.redis.script(self.now, user, online, &status.offline) else {
                        continue;
                    };
                    for n in 0..GATEWAYS {
                        let at = self.gateways[n].heard.max(self.now + self.random.u64(..100));
                        self.gateways[n].heard = at;
                        self.schedule(at, Event::Publish(n, message.clone()));
                    }
                }
            }
            Event::Answer(n, id, answer) => {
                let now = Mono(self.now);
                self.gateways[n].presence.answered(now, id, answer.map(|()| Bytes::new()));
            }
            Event::Publish(n, message) => {
                let gateway = &mut self.gateways[n];
                if gateway.is_up && gateway.deaf_until.is_none() {
                    gateway.presence.online_change(Mono(self.now), message.as_bytes());
                }
            }
        }
    }

    fn tick(&mut self, n: usize) {
        let now = self.at();
        let gateway = &mut self.gateways[n];
        if !gateway.is_up {
            return;
        }
        if gateway.deaf_until.is_some_and(|until| until <= now.mono.0) {
            gateway.deaf_until = None;
            gateway.presence.resubscribed(now.mono);
        }
        while let Some(request) = self.gateways[n].presence.next_request(now) {
            self.send(n, request);
        }
        while self.gateways[n].presence.next_news().is_some() {}
    }

    /// What becomes of a request.
    fn send(&mut self, n: usize, request: Request) {
        let Request { id, body, .. } = request;
        let all = usize::MAX;
        let soon = self.now + self.random.u64(1..200);
        let then = soon + self.random.u64(1..200);
        let unknown = Event::Answer(n, id, Err(RequestFault::Unknown));
        match if self.faults { self.random.u8(..100) } else { 99 } {
            0..8 => {
                let slow = self.now + self.random.u64(1..if self.late { 8_000 } else { 4_900 });
                self.schedule(slow, Event::Apply(body, all));
                self.schedule(slow + 10, Event::Answer(n, id, Ok(())));
            }
            8..12 => {} // lost; the deadline ends it
            12..16 => self.schedule(soon, unknown),
            16..22 => self.schedule(soon, Event::Apply(body, all)), // the answer is lost
            22..28 if self.late => {
                // Carried out after its deadline, but before what followed it is told once more.
                let late = self.now + 5_000 + self.random.u64(..9_000);
                self.schedule(late, Event::Apply(body, all));
            }
            28..36 => {
                let part = self.random.usize(..3);
                self.schedule(soon, Event::Apply(body, part));
                let refused = Err(RequestFault::Refused(UpstreamError::internal()));
                self.schedule(then, Event::Answer(n, id, refused));
            }
            _ => {
                self.schedule(soon, Event::Apply(body, all));
                self.schedule(then, Event::Answer(n, id, Ok(())));
            }
        }
    }

    fn connect(&mut self, n: usize, spot: Spot) {
        self.gateways[n].open.push(spot);
        self.tell(n, spot.0, vec![]);
    }

    fn disconnect(&mut self, n: usize, which: usize) -> Spot {
        let (user, platform) = self.gateways[n].open.swap_remove(which);
        self.tell(n, user, vec![platform]);
        (user, platform)
    }

    fn tell(&mut self, n: usize, user: u32, offline: Vec<i32>) {
        let now = self.at();
        let gateway = &mut self.gateways[n];
        let online = gateway.open.iter().filter(|(u, _)| *u == user).map(|(_, platform)| *platform).collect();
        gateway
            .presence
            .record(now, &PresenceRecord { user: name(user), online, offline, ..Default::default() });
    }

    /// One thing that happens to clients, subscriptions or gateways.
    fn disturb(&mut self) {
        let n = self.random.usize(..GATEWAYS);
        let open = self.gateways[n].open.len();
        match self.random.u32(..4_000) {
            0..300 if self.gateways[n].is_up && open < OPEN_MAX => {
                let platform = PLATFORMS[self.random.usize(..PLATFORMS.len())];
                let user = self.random.u32(..12);
                self.connect(n, (user, platform));
            }
            0..500 if open > 0 => {
                let which = self.random.usize(..open);
                self.disconnect(n, which);
            }
            500..600 if open > 0 => {
                let which = self.random.usize(..open);
                let spot = self.disconnect(n, which);
                let to = (0..GATEWAYS).find(|to| *to != n && self.gateways[*to].is_up).unwrap();
                self.connect(to, spot);
            }
            600..604 => self.gateways[n].deaf_until = Some(self.now + self.random.u64(..15_000)),
            604 if n == 0 && self.now > 60_000 && self.gateways[0].is_up => {
                self.crash();
            }
            _ => {}
        }
    }

    /// The first gateway ends. What it did not take back stays, until it lapses.
    fn crash(&mut self) {
        self.gateways[0].is_up = false;
        self.gateways[0].open.clear();
        let users = &self.gateways[0].presence.reports.users;
        for user in (0..users.positions()).filter_map(|at| users.row(at)) {
            let number = user.user.trim_start_matches("user").parse().unwrap();
            let in_flight =
                if user.place == lane::Place::Out { Platforms::of(&PLATFORMS) } else { user.online };
            let all = in_flight.or(user.offline).or(user.echo);
            self.orphans.extend(all.ids().map(|platform| (number, platform)));
        }
    }

    fn truth(&self) -> BTreeSet<Spot> {
        self.gateways.iter().filter(|g| g.is_up).flat_map(|gateway| gateway.open.clone()).collect()
    }

    fn told(&self) -> BTreeSet<Spot> {
        let online = |user| self.redis.online(self.now, &name(user)).into_iter().map(move |p| (user, p));
        (0..12).flat_map(online).collect()
    }

    fn watch(&mut self) {
        let told = self.told();
        let missing: BTreeSet<Spot> = self.truth().difference(&told).copied().collect();
        self.missing.retain(|spot, _| missing.contains(spot));
        for spot in missing {
            let since = *self.missing.entry(spot).or_insert(self.now);
            self.longest_missing = self.longest_missing.max(self.now - since);
        }
    }
}

fn name(user: u32) -> Box<str> {
    format!("user{user}").into()
}

/// Spec trap 28: users with connections at several gateways, whose records say only what is at their own.
#[test]
fn after_quiet_time_redis_says_what_is_true_whatever_was_lost() {
    let mut repairs = 0;
    let mut crashes = 0;
    let mut longest = 0;
    for seed in 0..16 {
        let mut world = World::new(seed);
        world.run(240_000, World::disturb);
        world.faults = false;
        let before = world.truth();
        world.run(60_000, |_| {});
        let told = world.told();
        assert!(told.is_superset(&before), "seed {seed}: {:?} missing", before.difference(&told));
        let extra: BTreeSet<Spot> = told.difference(&before).copied().collect();
        assert!(extra.is_subset(&world.orphans), "seed {seed}: {extra:?} are nobody's");
        // Here the orphans lapse, and only renewals keep the others.
        world.run(2 * EXPIRY_MS, |_| {});
        assert_eq!(world.told(), before, "seed {seed}");
        assert!(world.longest_missing <= MISSING_MS, "seed {seed}: {} ms", world.longest_missing);
        for gateway in world.gateways.iter().filter(|g| g.is_up) {
            let users: BTreeSet<u32> = gateway.open.iter().map(|(user, _)| *user).collect();
            assert_eq!(gateway.presence.reports.users.len(), users.len(), "seed {seed}: a row is left over");
        }
        repairs += world.gateways.iter().map(|g| g.presence.reports.counts.repairs).sum::<u64>();
        crashes += usize::from(!world.orphans.is_empty());
        longest = longest.max(world.longest_missing);
    }
    assert!(
        repairs > 100 && crashes > 2 && longest > 5_000,
        "{repairs} {crashes} {longest}: nothing was tried"
    );
}

/// Spec trap 32.
#[test]
fn a_drain_leaves_nobody_online_whatever_is_lost() {
    for seed in 100..116 {
        let mut world = World::new(seed);
        // What is carried out after its deadline may come after the end, when nobody is there to say it again.
        world.late = false;
        world.run(60_000, World::disturb);
        let now = world.at();
        for gateway in world.gateways.iter_mut().filter(|gateway| gateway.is_up) {
            gateway.open.clear();
            gateway.presence.final_offline(now, now.mono.plus_ms(100_000));
        }
        world.run(60_000, |_| {});
        let told: BTreeSet<Spot> = world.told().difference(&world.orphans).copied().collect();
        let untold: usize = world.gateways.iter().filter(|g| g.is_up).map(|g| g.presence.untold()).sum();
        assert_eq!(untold, 0, "seed {seed}");
        assert_eq!(told, BTreeSet::new(), "seed {seed}");
    }
}

/// OpenIM 3.5 (spec 9.6): one change after another, and no channel by which gateways could correct each other.
#[test]
fn with_openim_3_5_the_last_word_is_true_whatever_was_lost() {
    for seed in 200..216 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut presence = Presence::new(PresenceConfig::new(Compat::V35, 1, [seed, 0]));
        let mut open: Vec<Spot> = Vec::new();
        let mut told: BTreeSet<Spot> = BTreeSet::new();
        let mut events: BTreeMap<(u64, u64), (Bytes, Option<RequestId>)> = BTreeMap::new();
        for at in (0..300_000).step_by(50) {
            let now = Now { mono: Mono(at), unix: UnixMs(0) };
            let busy = at < 200_000;
            if busy && random.u8(..10) == 0 {
                let spot = (random.u32(..8), PLATFORMS[random.usize(..3)]);
                let offline = match open.iter().position(|other| *other == spot) {
                    Some(which) => vec![open.swap_remove(which).1],
                    None => {
                        open.push(spot);
                        vec![]
                    }
                };
                let online = open.iter().filter(|(u, _)| *u == spot.0).map(|(_, p)| *p).collect();
                presence.record(
                    now,
                    &PresenceRecord { user: name(spot.0), online, offline, ..Default::default() },
                );
            }
            while let Some(((due, _), _)) = events.first_key_value()
                && *due <= at
            {
                let (_, (body, id)) = events.pop_first().unwrap();
                let change = SetUserStatusReq::decode(body).unwrap();
                let spot = (change.user_id.trim_start_matches("user").parse().unwrap(), change.platform_id);
                if change.status == 1 {
                    told.insert(spot)
                } else {
                    told.remove(&spot)
                };
                if let Some(id) = id {
                    presence.answered(now.mono, id, Ok(Bytes::new()));
                }
            }
            let mut users = BTreeSet::new();
            while let Some(request) = presence.next_request(now) {
                assert_eq!(request.method, UserMethod::SetUserStatus);
                let change = SetUserStatusReq::decode(request.body.clone()).unwrap();
                assert!(users.insert(change.user_id), "one change of a user at a time");
                let key = (at + random.u64(1..400), request.id.number);
                match if busy { random.u8(..10) } else { 9 } {
                    0 => {} // lost
                    1 => drop(events.insert((at + random.u64(5_000..14_000), key.1), (request.body, None))),
                    2 => drop(events.insert(key, (request.body, None))),
                    _ => drop(events.insert(key, (request.body, Some(request.id)))),
                }
            }
        }
        assert_eq!(told, open.into_iter().collect(), "seed {seed}");
        assert_eq!(presence.untold(), 0, "seed {seed}");
    }
}
