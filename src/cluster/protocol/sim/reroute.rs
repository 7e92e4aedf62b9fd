//! Pushes that come to another node than the home, step by step: the one further question, and what it costs.

use super::super::io::Count;
use super::super::rules::Rules;
use super::MIXED;
use super::world::{Peers, Profile, World};
use crate::ids::Text;

/// So many nodes and no more, at rest.
fn grown(nodes: usize) -> World {
    let rules = Rules::default();
    let profile = Profile { nodes: 10, ..MIXED };
    let seed = (0..).find(|seed| World::new(*seed, profile, rules).slots.len() == nodes.max(2));
    let mut world = World::new(seed.expect("a ninth of the seeds"), profile, rules);
    for i in 0..world.slots.len() {
        if i >= nodes && world.slots[i].host.is_some() {
            world.stop(i, Peers::Notice);
            let id = world.slots[i].id.clone();
            world.source.delete(&id);
        } else if i < nodes && world.slots[i].host.is_none() {
            world.start(i);
        }
    }
    world.rest(60);
    assert!((0..nodes).all(|i| world.node(i).fit()) && world.running().len() == nodes);
    world
}

fn five() -> World {
    grown(5)
}

/// Node 1 leaves the placement; who adopts that is `who`. A user who moved from node 1 to node 2, with a connection at
/// node 3.
fn moved(world: &mut World, who: &[usize]) -> Text {
    let was = |world: &World, user: &Text| world.node(0).placement().home(user) == Some(&world.slots[1].id);
    let candidates: Vec<Text> = (0..4_000).map(|n| Text::from(format!("u{n}"))).collect();
    let candidates: Vec<Text> = candidates.into_iter().filter(|user| was(world, user)).collect();
    let id = world.slots[1].id.clone();
    world.source.flip(&id, 1);
    let newest = world.source.newest().expect("written").clone();
    let algorithm = world.node(0).identity().algorithm.clone();
    let placement = crate::placement::Placement::new(&newest, &algorithm);
    let user = candidates.into_iter().find(|user| placement.home(user) == Some(&world.slots[2].id));
    let user = user.expect("a quarter of them");
    world.login(3, user.clone());
    world.drain_all();
    for &i in who {
        world.see_newest(i);
    }
    world.drain_all();
    world.wire.push_frames = 0;
    user
}

fn count(world: &World, count: Count) -> u64 {
    world.counts.get(&count).copied().unwrap_or(0)
}

fn push(world: &mut World, user: &Text) -> usize {
    let complete = world.truth.complete;
    world.wire.push_frames = 0;
    world.push(0, vec![user.clone()]);
    world.drain_all();
    assert_eq!(world.truth.violation, None);
    assert_eq!(world.truth.complete, complete + 1, "it is complete");
    world.wire.push_frames
}

#[test]
fn a_node_with_a_newer_view_names_the_home_and_it_is_asked_once() {
    let mut world = five();
    let user = moved(&mut world, &[1, 2, 3, 4]);
    let all = count(&world, Count::PushAll);
    // To the former home and back, to the home and back, to the holder and back; the entry node has promised the home
    // nothing under its view and is asked as well.
    assert_eq!(push(&mut world, &user), 8);
    assert_eq!((count(&world, Count::PushAgain), count(&world, Count::PushAll)), (1, all));
    // In quiet state again.
    world.see_newest(0);
    world.drain_all();
    assert_eq!(push(&mut world, &user), 4);
    assert_eq!(count(&world, Count::PushAgain), 1);
}

#[test]
fn a_second_node_that_is_not_the_home_is_the_last_and_all_are_asked() {
    let mut world = five();
    let user = moved(&mut world, &[1]);
    let all = count(&world, Count::PushAll);
    assert_eq!(push(&mut world, &user), 2 + 2 + 2 * 4);
    assert_eq!((count(&world, Count::PushAgain), count(&world, Count::PushAll)), (1, all + 1));
}

#[test]
fn a_node_with_an_older_view_is_not_worth_a_second_question() {
    let mut world = five();
    let user = moved(&mut world, &[0]);
    assert_eq!(push(&mut world, &user), 2 + 2 * 4);
    assert_eq!(count(&world, Count::PushAgain), 0);
}

#[test]
fn later_pushes_wait_for_one_that_goes_to_a_second_home() {
    let mut world = five();
    let user = moved(&mut world, &[1, 2, 3, 4]);
    world.push(0, vec![user.clone()]);
    while count(&world, Count::PushAgain) == 0 {
        let lane = world.wire.busy().into_iter().find(|lane| lane.0 <= 1 && lane.1 <= 1);
        world.deliver_from(lane.expect("the question, or its answer"));
    }
    world.see_newest(0);
    world.push(0, vec![user.clone()]);
    assert_eq!(count(&world, Count::PushHome), 1, "the second one does not overtake it");
    world.drain_all();
    assert_eq!((count(&world, Count::PushHome), count(&world, Count::OutOfOrder)), (2, 0));
    assert_eq!((world.truth.pushes.len(), world.truth.violation.take()), (0, None));
}

/// The table of issue "Several nodes", show 5: flat on the way over the home, linear if all are asked.
#[test]
fn a_push_costs_the_same_on_any_number_of_nodes() {
    for nodes in [1, 3, 5, 10] {
        let mut world = grown(nodes);
        let last = nodes - 1;
        let at_home = world.user_of(0, last);
        world.login(last, at_home.clone());
        world.drain_all();
        let home = push(&mut world, &at_home);
        assert_eq!(home, if nodes == 1 { 0 } else { 2 }, "{nodes} nodes, at home");
        let stray = (nodes > 1).then(|| {
            world.login(1 % last, at_home.clone());
            world.drain_all();
            push(&mut world, &at_home)
        });
        let all = (nodes > 1).then(|| {
            world.stop(last, Peers::Notice);
            world.drain_all();
            world.wire.push_frames = 0;
            world.push(0, vec![at_home.clone()]);
            world.drain_all();
            world.wire.push_frames
        });
        println!("{nodes} nodes: {home} messages to the home, {stray:?} with one stray, {all:?} to all");
        assert_eq!(stray, (nodes > 1).then_some(4), "{nodes} nodes, one stray");
        assert_eq!(all, (nodes > 1).then(|| 2 * (nodes - 2)), "{nodes} nodes, the home is dead");
    }
}
