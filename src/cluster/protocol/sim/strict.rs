//! `fence = strict`, step by step: an isolated node closes its connections, and only then do others forget it (M9,
//! M10).

use super::super::Fence;
use super::super::rules::{Rule, Rules};
use super::scripts::pair;
use super::wire::name;
use super::world::World;

/// A user at home at the first of two nodes, connected there. Nothing goes between the two any more.
fn apart(rules: Rules) -> World {
    let mut world = pair(rules);
    for i in 0..2 {
        world.host_mut(i).node.me.fence = Fence::Strict;
    }
    let user = world.user_of(0, 0);
    world.login(0, user);
    world.drain_all();
    world.wire.blocked = [(0, 1), (1, 0)].into();
    world
}

/// The watchers see it as soon as the source may say so.
fn lose_in_time(world: &mut World) {
    let id = world.slots[0].id.clone();
    if world.slots[0].host.as_ref().is_none_or(|host| host.leased_until <= world.now) {
        world.source.lose(&id);
        world.see_newest(1);
    }
}

/// Time passes until the first node is forgotten. Returns what is wrong meanwhile.
fn until_forgotten(world: &mut World, step: impl Fn(&mut World)) -> Option<String> {
    let id = world.slots[0].id.clone();
    for _ in 0..2_000 {
        world.advance(100, 0);
        world.drain_all();
        lose_in_time(world);
        step(world);
        world.check();
        if let Some(violation) = world.truth.violation.take() {
            return Some(violation);
        }
        if !world.source.records.contains_key(&id) {
            assert!(world.slots[0].host.is_none(), "it has fenced, closed its connections and ended");
            return None;
        }
    }
    Some("nobody forgets it".to_owned())
}

#[test]
fn an_isolated_node_fences_before_it_is_forgotten() {
    let mut world = apart(Rules::default());
    world.host_mut(0).cut_off = true;
    assert_eq!(until_forgotten(&mut world, |_| ()), None);
    assert_eq!(world.deeds.get("fence"), Some(&1));
}

/// The link was down for long before the lease ended: the node fences when that ends, and needs the time to do it.
#[test]
fn a_node_that_loses_its_lease_long_after_its_link_closes_first() {
    let late = |rules| {
        let mut world = apart(rules);
        world.run(60_000);
        assert!(world.node(0).fit(), "it has its lease");
        world.host_mut(0).cut_off = true;
        until_forgotten(&mut world, |world| {
            let until = world.now + 1_900;
            let closing = world.slots[0].host.as_mut().and_then(|host| host.closing_until.as_mut());
            // As late as it may: the first time that this is seen.
            if let Some(at) = closing.filter(|_| world.deeds.insert("slow close", 1).is_none()) {
                *at = until;
            }
        })
    };
    assert_eq!(late(Rules::default()), None);
    let broken = late(Rules::without(Rule::ForgetAfterClose));
    assert!(broken.as_deref().is_some_and(|what| what.contains("account for n0")), "{broken:?}");
}

/// The peer's words arrive, and what is answered does not: that is no contact.
#[test]
fn a_node_that_only_hears_hellos_fences() {
    let mut world = apart(Rules::default());
    world.wire.blocked = [(1, 0)].into();
    // The first has the lower id and dials: to be isolated, the other one must be it.
    let generation = name(world.node(1).peers[&world.slots[0].id].up().expect("linked").generation);
    world.wire.close(0, 1, generation, 0);
    world.host_mut(1).cut_off = true;
    let user = world.user_of(1, 1);
    world.login(1, user);
    let id = world.slots[1].id.clone();
    for _ in 0..2_000 {
        for (low, high) in world.undialled() {
            world.dial(low, high);
        }
        world.advance(100, 0);
        world.drain_all();
        if world.slots[1].host.as_ref().is_none_or(|host| host.leased_until <= world.now) {
            world.source.lose(&id);
            world.see_newest(0);
        }
        world.check();
        assert_eq!(world.truth.violation, None);
        if !world.source.records.contains_key(&id) {
            return assert!(world.slots[1].host.is_none(), "it has fenced");
        }
    }
    panic!("nobody forgets it");
}

/// A process that sleeps until it is forgotten closes its connections first thing when it wakes.
#[test]
fn a_node_that_slept_until_it_was_forgotten_fences_when_it_wakes() {
    let mut world = apart(Rules::default());
    world.wire.blocked.clear();
    let until = world.now + 70_000;
    world.host_mut(0).asleep_until = Some(until);
    let id = world.slots[0].id.clone();
    for _ in 0..800 {
        world.advance(100, 0);
        world.drain_all();
        lose_in_time(&mut world);
        world.check();
        assert_eq!(world.truth.violation, None);
    }
    assert!(world.now > until && !world.source.records.contains_key(&id));
    assert!(world.slots[0].host.is_none(), "it has fenced");
    assert!(world.truth.open.is_empty());
}
