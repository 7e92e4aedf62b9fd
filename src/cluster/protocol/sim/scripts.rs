//! The shortest traces of routing-protocol.md section 10.1, step by step: property P breaks without the rule, and
//! holds with it.

use super::super::Views;
use super::super::io::Count;
use super::super::rules::{Rule, Rules};
use super::FLIPS;
use super::world::{Peers, Profile, World};
use crate::ids::Text;
use crate::placement::view::{Epoch, MemberState, View};

/// Two nodes at rest, and the third not started.
pub fn pair(rules: Rules) -> World {
    let profile = Profile { nodes: 3, ..FLIPS };
    let grown = |seed: &u64| World::new(*seed, profile, rules).slots.len() == 3;
    let seed = (0..).find(grown).expect("half of the seeds have three nodes");
    let mut world = World::new(seed, profile, rules);
    for i in 0..2 {
        if world.slots[i].host.is_none() {
            world.start(i);
        }
    }
    if world.slots[2].host.is_some() {
        world.stop(2, Peers::Notice);
        let id = world.slots[2].id.clone();
        world.source.delete(&id);
    }
    world.rest(40);
    assert!(world.node(0).fit() && world.node(1).fit() && world.running() == [0, 1]);
    world
}

impl World {
    /// A user whose home is `slots[home]` in the view of `slots[at]`.
    pub fn user_of(&self, at: usize, home: usize) -> Text {
        let names = (0..).map(|n| Text::from(format!("u{n}")));
        let mut homed =
            names.filter(|user| self.node(at).placement().home(user) == Some(&self.slots[home].id));
        homed.next().expect("every node has users")
    }

    /// Everything within one node, nothing between nodes.
    pub fn within(&mut self, i: usize) {
        for shard in [0, 1, 0, 1, 0, 1, 0, 1] {
            self.shard_step(i, shard);
            self.router_step(i, shard);
        }
    }

    pub fn see_newest(&mut self, i: usize) {
        let view = self.source.newest().expect("something was written").clone();
        self.show(i, view);
        self.within(i);
    }

    /// Time passes, with ticks and everything delivered, views and leases apart.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms / 250 {
            self.advance(250, 0);
            self.drain_all();
        }
    }

    /// The end of a push to `user` at `i`, and the first thing that is wrong.
    pub fn push_and_judge(&mut self, i: usize, user: Text) -> Option<String> {
        self.push(i, vec![user]);
        self.within(i);
        self.drain_all();
        self.truth.violation.take()
    }
}

fn needs(rule: Rule, script: impl Fn(Rules) -> Option<String>) {
    let broken = script(Rules::without(rule));
    assert!(broken.as_deref().is_some_and(|what| what.contains("missed")), "without {rule:?}: {broken:?}");
    assert_eq!(script(Rules::default()), None, "with {rule:?}");
}

/// O1.
#[test]
fn a_claim_sent_late_loses_a_push() {
    needs(Rule::AckBeforeGo, |rules| {
        let mut world = pair(rules);
        let user = world.user_of(0, 1);
        world.login(0, user.clone());
        world.within(0);
        world.push_and_judge(1, user)
    });
}

/// O6.
#[test]
fn a_login_that_does_not_wait_for_the_void_loses_a_push() {
    needs(Rule::VoidWait, |rules| {
        let mut world = pair(rules);
        let user = world.user_of(0, 1);
        world.login(0, user.clone());
        world.router_step(0, 0);
        world.router_step(0, 1);
        let lane = *world.wire.busy().first().expect("the claim is on its way");
        world.wire.close(1, 0, lane.2, 0);
        world.wire.notices.clear();
        world.notice((0, 1, lane.2));
        world.wire.notices.clear();
        world.within(0);
        world.push(1, vec![user]);
        world.within(1);
        world.truth.violation.take()
    });
}

/// O4.
#[test]
fn a_newcomer_that_greets_nobody_loses_a_push() {
    needs(Rule::JoinBarrier, |rules| {
        let mut world = pair(rules);
        world.start(2);
        world.see_newest(2);
        world.see_newest(2);
        if !world.host(2).open {
            return None;
        }
        let user = world.user_of(2, 2);
        world.login(2, user.clone());
        world.within(2);
        world.push_and_judge(1, user)
    });
}

/// D3: lists {A}, {A, B} and {A, C}; B and C both greet A, and not each other.
#[test]
fn under_lists_those_that_share_a_node_greet_each_other() {
    needs(Rule::GreetingsClosed, |rules| {
        let profile = Profile { nodes: 3, ..FLIPS };
        let empty = |seed: &u64| {
            let world = World::new(*seed, profile, rules);
            world.slots.len() == 3 && world.running().len() == 1
        };
        let mut world =
            World::new((0..).find(empty).expect("some seeds begin with one node"), profile, rules);
        world.stop(0, Peers::Unaware);
        for i in 0..3 {
            world.start(i);
        }
        for (i, list) in [(0, vec![0]), (1, vec![0, 1]), (2, vec![0, 2])] {
            let member = |at: usize| {
                let mut member = world.source.records[&world.slots[at].id].clone();
                member.state = MemberState::Active;
                member
            };
            let view = View::new(Epoch(1_000), list.into_iter().map(member).collect());
            world.host_mut(i).node.views = Views::OwnLists;
            world.show(i, view);
            world.within(i);
        }
        for high in [1, 2] {
            world.dial(0, high);
            world.run(250);
        }
        assert!(world.host(0).open && world.host(1).open, "they have greeted all that they know of");
        if !world.host(2).open {
            let stranger = world.node(2).strangers().map(|known| known.node.clone()).next();
            assert_eq!(stranger.as_ref(), Some(&world.slots[1].id));
            world.dial(2, 1);
            world.run(250);
        }
        assert!(world.host(2).open, "and now the third as well");
        // At home there, and at the second in the eyes of the second.
        let at_home =
            |i: usize, user: &Text| world.node(i).placement().home(user) == Some(&world.slots[i].id);
        let mut names = (0..).map(|n| Text::from(format!("u{n}")));
        let user = names.find(|user| at_home(1, user) && at_home(2, user)).expect("a quarter of all");
        world.login(2, user.clone());
        world.within(2);
        world.drain_all();
        world.push_and_judge(1, user)
    });
}

/// O13.
#[test]
fn a_home_that_prunes_loses_a_push() {
    needs(Rule::NoPruning, |rules| {
        let mut world = pair(rules);
        let user = world.user_of(0, 1);
        world.login(0, user.clone());
        world.drain_all();
        for _ in 0..2 {
            let id = world.slots[1].id.clone();
            world.source.flip(&id, 1);
            world.see_newest(1);
        }
        world.push_and_judge(1, user)
    });
}

/// O7.
#[test]
fn a_lost_node_that_is_taken_for_dead_loses_a_push() {
    needs(Rule::LostAccounted, |rules| {
        let mut world = pair(rules);
        let user = world.user_of(0, 0);
        world.login(0, user.clone());
        world.drain_all();
        world.slots[0].host.as_mut().expect("it runs").cut_off = true;
        world.run(12_000);
        let id = world.slots[0].id.clone();
        world.source.lose(&id);
        world.see_newest(1);
        world.push_and_judge(1, user)
    });
}

/// O12: who is lost and does not know it must not vouch for those who came after.
#[test]
fn a_node_without_a_lease_that_vouches_loses_a_push() {
    needs(Rule::CompleteWhileLeased, |rules| {
        let mut world = pair(rules);
        world.stop(1, Peers::Notice);
        world.drain_all();
        world.slots[0].host.as_mut().expect("it runs").cut_off = true;
        world.run(12_000);
        let (lost, back) = (world.slots[0].id.clone(), world.slots[1].id.clone());
        world.source.delete(&back);
        world.see_newest(0);
        world.source.lose(&lost);
        world.start(1);
        for _ in 0..2 {
            world.see_newest(1);
        }
        assert!(world.host(1).open, "a lost node need not be greeted");
        let user = world.user_of(0, 0);
        world.login(1, user.clone());
        world.within(1);
        world.push_and_judge(0, user)
    });
}

/// D2: the link with a former life says nothing about the present one.
#[test]
fn a_greeting_of_a_former_life_loses_a_push() {
    needs(Rule::GreetingPerIncarnation, |rules| {
        let mut world = pair(rules);
        world.slots[0].host.as_mut().expect("it runs").cut_off = true;
        world.run(12_000);
        let lost = world.slots[0].id.clone();
        world.source.lose(&lost);
        world.stop(1, Peers::Unaware);
        world.wire.notices.clear();
        world.start(1);
        for _ in 0..2 {
            world.see_newest(1);
        }
        assert!(world.host(1).open, "a lost node need not be greeted");
        world.slots[0].host.as_mut().expect("it runs").cut_off = false;
        world.advance(250, 100);
        world.see_newest(0);
        let user = world.user_of(0, 0);
        world.login(1, user.clone());
        world.within(1);
        world.push_and_judge(0, user)
    });
}

/// D5: a promise of the ended generation comes after the new one is up.
#[test]
fn a_frame_of_an_ended_generation_loses_a_push() {
    needs(Rule::GenerationChecked, |rules| {
        let mut world = pair(rules);
        let user = world.user_of(0, 1);
        world.login(0, user.clone());
        world.drain_all();
        // Less weight at the first: who was at home at the second still is.
        let id = world.slots[0].id.clone();
        world.source.flip(&id, 0);
        world.see_newest(1);
        world.drain_all();
        world.see_newest(0);
        let lane = *world.wire.busy().iter().find(|lane| (lane.0, lane.1) == (0, 1)).expect("a promise");
        let promise = world.wire.lanes.remove(&lane).expect("it is on its way");
        world.dial(0, 1);
        let hello = *world.wire.busy().iter().find(|lane| (lane.0, lane.1) == (0, 1)).expect("a hello");
        world.deliver_from(hello);
        world.wire.lanes.insert(lane, promise);
        while world.wire.lanes.contains_key(&lane) {
            world.deliver_from(lane);
        }
        world.push_and_judge(1, user)
    });
}

/// D6: a lost node has not greeted a newcomer, and holds connections all the same.
#[test]
fn a_lost_node_that_never_greeted_is_accounted_for() {
    needs(Rule::ExactNewcomer, |rules| {
        let mut world = pair(rules);
        world.host_mut(0).cut_off = true;
        world.run(12_000);
        let lost = world.slots[0].id.clone();
        world.source.lose(&lost);
        world.see_newest(1);
        world.start(2);
        world.see_newest(2);
        world.dial(1, 2);
        world.run(1_500);
        for _ in 0..2 {
            world.see_newest(2);
        }
        assert!(world.host(2).open, "a lost node need not be greeted");
        let at_home =
            |i: usize, user: &Text| world.node(i).placement().home(user) == Some(&world.slots[i].id);
        let mut names = (0..).map(|n| Text::from(format!("u{n}")));
        let user = names.find(|user| at_home(0, user) && at_home(2, user)).expect("some are");
        world.login(0, user.clone());
        world.drain_all();
        world.push_and_judge(2, user)
    });
}

/// Section 14: later pushes to a user wait while an earlier one goes to all nodes.
#[test]
fn a_later_push_waits_for_one_that_goes_to_all() {
    let mut world = pair(Rules::default());
    let user = world.user_of(0, 1);
    world.stop(1, Peers::Notice);
    world.drain_all();
    world.push(0, vec![user.clone()]);
    world.push(0, vec![user.clone()]);
    assert_eq!(world.counts.get(&Count::PushAll), Some(&1), "the second waits");
    world.within(0);
    assert_eq!(world.counts.get(&Count::PushAll), Some(&2), "the first has ended");
    world.within(0);
    assert!(world.truth.pushes.is_empty() && world.truth.violation.is_none());
    assert_eq!(world.counts.get(&Count::OutOfOrder), None);
}
