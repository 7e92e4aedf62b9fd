//! Logins on several nodes, one after the other, against the same logins at one hub that is alone: who is left, and
//! what the auth service is told, login by login, must be the same under every policy and both rules about tokens.

use super::super::Fence;
use super::super::rules::Rules;
use super::host::{Host, SHARDS};
use super::real::{Fault, LoginRules};
use super::world::{Profile, Shards, World};
use super::{FLIPS, seeds};
use crate::hub::login_policy::LoginPolicy;
use crate::hub::upstream::UpstreamRequest;
use crate::ids::{Platform, Text};
use crate::placement::view::{Epoch, MemberState, NodeId};
use crate::random::draw;

/// Walks of each policy unless `PINION_SIM_SEEDS` says otherwise.
const WALKS: u64 = 3;
/// Within which a fault is found.
const WALKS_WITH_FAULT: u64 = 12;
const DEEDS: u64 = 24;
/// Of every class.
const PLATFORMS: [i64; 7] = [1, 2, 3, 4, 5, 8, 10];

impl World {
    /// By which hubs judge, if there are hubs.
    pub fn login_rules(&self) -> Option<LoginRules> {
        let policy = if self.conflicts { LoginPolicy::OnePerPlatform } else { LoginPolicy::KickNobody };
        match self.profile.shards {
            Shards::Model => None,
            Shards::Hubs => Some(LoginRules { policy, kicks_same_token: false }),
            Shards::HubsBy(rules) => Some(rules),
        }
    }
}

/// What clients do.
#[derive(Clone, Debug)]
enum Deed {
    Login {
        user: Text,
        platform: Platform,
        token: String,
    },
    /// The connection of that login ends, if it has not.
    Leave(usize),
}

/// What follows from a deed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct After {
    /// Logins whose connection is open.
    open: Vec<usize>,
    /// What the auth service was told: one line per call, and per token that it names.
    told: Vec<String>,
}

fn deeds(seed: u64) -> Vec<Deed> {
    let mut state = seed ^ 0x006c_6f67_696e;
    let mut below = |n: u64| draw(&mut state) % n;
    let mut logins = 0;
    let mut deed = |_| {
        if logins > 0 && below(5) == 0 {
            return Deed::Leave(usize::try_from(below(logins)).unwrap());
        }
        logins += 1;
        let user = format!("u{}", below(2));
        let platform = PLATFORMS[usize::try_from(below(7)).unwrap()];
        let token = format!("{user}-{platform}-{}", below(2));
        Deed::Login { user: user.into(), platform: Platform::new(platform).unwrap(), token }
    };
    (0..DEEDS).map(&mut deed).collect()
}

fn said(host: &mut Host) -> Vec<String> {
    let calls = host.hubs.iter_mut().flat_map(|shard| std::mem::take(&mut shard.told));
    let lines = |call: UpstreamRequest| match call {
        UpstreamRequest::InvalidateToken { preserved, user, platform } => {
            vec![format!("all of {user} on {platform:?} but {preserved}")]
        }
        UpstreamRequest::KickTokens { tokens } => {
            tokens.iter().map(|token| format!("kicked {token}")).collect()
        }
        other => panic!("{other:?}"),
    };
    calls.flat_map(lines).collect()
}

/// The hubs of one node that knows of no other.
fn alone(rules: LoginRules, deeds: &[Deed]) -> Vec<After> {
    let id = NodeId::new("alone").unwrap();
    let mut host = Host::new(id, Epoch(1), Rules::default(), || (0, 10_000, Fence::default()), 0);
    host.take_hubs(rules, None);
    let (mut now, mut numbers, mut after) = (100_000, Vec::new(), Vec::new());
    for deed in deeds {
        now += 250;
        match deed {
            Deed::Login { user, platform, token } => {
                numbers.push(host.hub_arrive(user, (*platform, token), now));
            }
            Deed::Leave(login) => drop(host.hub_close(numbers[*login], now)),
        }
        for turn in 0..8 {
            host.hub_step(turn % usize::from(SHARDS), now);
        }
        host.hub_tick(now);
        let open = (0..numbers.len()).filter(|login| host.conns.contains_key(&numbers[*login])).collect();
        let mut told = said(&mut host);
        told.sort();
        after.push(After { open, told });
    }
    after
}

/// Nodes of a cluster, each login at one of them. Between the deeds links break, nodes come, placements
/// change, and all comes to rest.
fn together(seed: u64, rules: LoginRules, (deeds, fault): (&[Deed], Fault)) -> Vec<After> {
    let profile = Profile { name: "logins", nodes: 4, shards: Shards::HubsBy(rules), ..FLIPS };
    let mut world = World::new(seed, profile, Rules::default());
    world.rest(40);
    let (mut conns, mut after) = (Vec::new(), Vec::new());
    for deed in deeds {
        world.plant(fault);
        let now = world.now;
        match deed {
            Deed::Login { user, platform, token } => {
                let running = world.running();
                let i = running[usize::try_from(world.below(running.len() as u64)).unwrap()];
                let host = world.slots[i].host.as_mut().unwrap();
                assert!(host.open, "seed {seed}: a node at rest serves");
                conns.push((i, host.hub_arrive(user, (*platform, token), now)));
            }
            Deed::Leave(login) => {
                let (i, number) = conns[*login];
                let deeds = world.slots[i].host.as_mut().unwrap().hub_close(number, now);
                world.note(i, deeds);
            }
        }
        world.rest(1);
        match world.below(9) {
            0 => {
                world.break_some();
                world.rest(24);
            }
            2 => {
                // Another placement: residents become strays, and strays residents. Somebody is home.
                world.flip_some();
                while !world.source.records.values().any(|member| member.state == MemberState::Active) {
                    world.flip_some();
                }
                world.rest(60);
            }
            1 => {
                if let Some(i) = (0..world.slots.len()).find(|i| world.slots[*i].host.is_none()) {
                    world.start(i);
                    world.rest(40);
                }
            }
            _ => {}
        }
        assert_eq!(world.truth.violation, None, "seed {seed}");
        let is_open = |(i, number): &(usize, u64)| world.host(*i).conns.contains_key(number);
        let open = (0..conns.len()).filter(|login| is_open(&conns[*login])).collect();
        let mut told: Vec<String> =
            world.slots.iter_mut().filter_map(|slot| slot.host.as_mut()).flat_map(said).collect();
        told.sort();
        after.push(After { open, told });
    }
    after
}

/// The first deed after which one node and several differ.
fn difference(seed: u64, rules: LoginRules, fault: Fault) -> Option<String> {
    let deeds = deeds(seed);
    let (one, several) = (alone(rules, &deeds), together(seed, rules, (&deeds, fault)));
    let at = one.iter().zip(&several).position(|(one, several)| one != several)?;
    let (deed, one, several) = (&deeds[at], &one[at], &several[at]);
    Some(format!("{rules:?}, PINION_SIM_SEED={seed}, {at}: {deed:?}\none node {one:?}\nseveral  {several:?}"))
}

fn as_one_node(policy: LoginPolicy) {
    for kicks_same_token in [false, true] {
        for seed in seeds(WALKS) {
            let difference = difference(seed, LoginRules { policy, kicks_same_token }, Fault::None);
            assert!(difference.is_none(), "{}", difference.unwrap_or_default());
        }
    }
}

#[test]
fn several_nodes_are_as_one_when_nobody_is_kicked() {
    as_one_node(LoginPolicy::KickNobody);
}

#[test]
fn several_nodes_are_as_one_with_one_login_per_platform() {
    as_one_node(LoginPolicy::OnePerPlatform);
}

#[test]
fn several_nodes_are_as_one_with_one_login_per_class() {
    as_one_node(LoginPolicy::OnePerClass);
}

#[test]
fn several_nodes_are_as_one_with_pcs_and_one_other() {
    as_one_node(LoginPolicy::PcAndOther);
}

/// The comparison sees what it is for.
#[test]
fn a_node_that_differs_from_one_is_found() {
    use LoginPolicy::{OnePerClass, OnePerPlatform, PcAndOther};
    for (policy, fault) in [
        (OnePerPlatform, Fault::IgnoresKicks),
        (OnePerPlatform, Fault::IgnoresMeetings),
        (PcAndOther, Fault::IgnoresMeetings),
        (OnePerPlatform, Fault::NamesNoTokens),
        (OnePerClass, Fault::NamesNoTokens),
        (OnePerClass, Fault::IgnoresKicks),
    ] {
        let rules = LoginRules { policy, kicks_same_token: false };
        let found = (0..WALKS_WITH_FAULT).find_map(|seed| difference(seed, rules, fault));
        assert!(found.is_some(), "{policy:?}, {fault:?}");
    }
}
