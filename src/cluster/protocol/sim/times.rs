//! The times of the router (`limits::routing`), each a millisecond before its end and at it, on one node that is fed by
//! hand. Those of `Seen` are tested there, the longest of `fence = strict` in `edges`.

use super::super::frame::{Body, Frame};
use super::super::io::{Count, Input, Login, Mail, Output, Reason};
use super::super::peer::Up;
use super::super::{Node, Views};
use super::edges::{LINK, NOW, at, homed, id, identity, link, node, push, show, strict, view};
use crate::ids::{ShardId, Text};
use crate::limits::{
    BEAT_MS, COVER_MS, FENCE_MS, GONE_LOST_MS, GONE_MS, HOLD_MS, LIST_BARRIER_MS, ORDER_WAIT_MS,
    PUSH_COMPOSE_MS, ROUTE_MS, VOID_MS,
};
use crate::placement::view::{Epoch, MemberState, View};
use crate::time::Mono;

fn tick(node: &mut Node, ms: u64) -> Vec<Output> {
    node.handle(at(ms), Input::Tick)
}

fn is_counted(out: &[Output], what: Count) -> bool {
    out.iter().any(|output| matches!(output, Output::Count(count) if *count == what))
}

fn is_closed(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Close(peer, LINK) if *peer == id("b")))
}

/// The newest beat that is sent to `b`.
fn beat_of(out: &[Output]) -> Option<u64> {
    let beats = out.iter().filter_map(|output| match output {
        Output::Send(_, Frame { body: Body::Beat(number), .. }) => Some(*number),
        _ => None,
    });
    beats.max()
}

/// Ticks until `ms`, with a peer that echoes each beat at once. Returns what came out.
fn stay_linked(node: &mut Node, until_ms: u64) -> Vec<Output> {
    let mut all = Vec::new();
    for ms in (1..=until_ms / BEAT_MS).map(|n| n * BEAT_MS).chain([until_ms]) {
        let out = tick(node, ms);
        if let Some(seen) = beat_of(&out) {
            let frame = Frame { generation: LINK, seen, body: Body::Beat(seen) };
            all.extend(node.handle(at(ms), Input::Frame(id("b"), frame)));
        }
        all.extend(out);
    }
    all
}

fn linked() -> Node {
    let mut node = node(&["a", "b"]);
    link(&mut node);
    node
}

#[test]
fn a_beat_is_sent_so_often() {
    let mut node = linked();
    assert_eq!(beat_of(&tick(&mut node, BEAT_MS - 1)), None);
    assert!(beat_of(&tick(&mut node, BEAT_MS)).is_some());
}

#[test]
fn a_frame_is_acted_on_and_a_silent_link_stands_for_so_long() {
    let mut up = Up::new(LINK, NOW.mono, NOW.mono);
    assert!(up.take_echo(0, NOW.mono.plus_ms(COVER_MS)));
    assert!(!up.take_echo(0, NOW.mono.plus_ms(COVER_MS + 1)));
    let mut node = linked();
    assert!(!is_closed(&tick(&mut node, COVER_MS - 1)));
    let out = tick(&mut node, COVER_MS);
    assert!(is_closed(&out) && is_counted(&out, Count::StaleLink), "{out:?}");
}

#[test]
fn a_hello_is_answered_within_so_long() {
    for (ms, stale) in [(COVER_MS, false), (COVER_MS + 1, true)] {
        let mut node = node(&["a", "b"]);
        node.handle(NOW, Input::Opened(id("b")));
        let out = tick(&mut node, ms);
        assert_eq!(is_counted(&out, Count::StaleLink), stale, "{ms}: {out:?}");
    }
}

fn login(node: &mut Node, number: u64, user: Text) -> Vec<Output> {
    node.handle(NOW, Input::Login(Login { number, user, class: None, token: None }))
}

fn registers(out: &[Output]) -> bool {
    out.iter().any(|output| matches!(output, Output::Mail(Mail::Register(7, _))))
}

#[test]
fn a_login_waits_for_a_home_that_is_out_of_reach_until_its_promise_is_void() {
    let mut node = linked();
    let user = homed(&node, "b").remove(0);
    node.handle(NOW, Input::Closed(id("b"), LINK));
    assert!(!registers(&login(&mut node, 7, user)));
    assert!(!registers(&tick(&mut node, VOID_MS - 1)));
    let out = tick(&mut node, VOID_MS);
    assert!(registers(&out) && is_counted(&out, Count::Unclaimed), "{out:?}");
}

#[test]
fn a_link_whose_peer_leaves_a_claim_unanswered_is_ended_after_so_long() {
    let mut node = linked();
    let user = homed(&node, "b").remove(0);
    login(&mut node, 7, user);
    assert!(!is_closed(&stay_linked(&mut node, VOID_MS - 1)));
    let out = tick(&mut node, VOID_MS);
    assert!(is_closed(&out) && is_counted(&out, Count::LaggingLink), "{out:?}");
}

#[test]
fn a_home_is_given_up_after_so_long_and_all_are_asked_a_second_time() {
    let mut node = linked();
    let users = homed(&node, "b");
    push(&mut node, 1, &users[..1]);
    assert!(!is_counted(&stay_linked(&mut node, ROUTE_MS - 1), Count::PushSecond));
    assert!(is_counted(&tick(&mut node, ROUTE_MS), Count::PushSecond));
}

#[test]
fn no_copy_of_a_push_is_composed_later_than_that() {
    for (ms, composed) in [(PUSH_COMPOSE_MS, true), (PUSH_COMPOSE_MS + 1, false)] {
        let mut node = linked();
        let users = homed(&node, "b");
        push(&mut node, 1, &users[..1]);
        // It slept: the link is too old, and what became of the push is not known.
        let out = tick(&mut node, ms);
        let named = out.iter().any(|output| match output {
            Output::Verdict { ticket: 1, verdicts } => verdicts[0].unaccounted == [id("b")],
            _ => false,
        });
        assert_eq!((is_counted(&out, Count::PushSecond), named), (composed, !composed), "{ms}: {out:?}");
    }
}

#[test]
fn a_home_waits_for_answers_for_so_long() {
    let mut node = node(&["a"]);
    push(&mut node, 1, &["u".into()]);
    assert!(tick(&mut node, HOLD_MS - 1).is_empty());
    let out = tick(&mut node, HOLD_MS);
    let [Output::Count(Count::NoAnswer), Output::Verdict { ticket: 1, verdicts }] = out.as_slice() else {
        panic!("{out:?}")
    };
    assert!(!verdicts[0].complete && verdicts[0].unaccounted == [id("a")], "{verdicts:?}");
}

#[test]
fn a_push_waits_for_order_for_so_long() {
    let mut node = node(&["a", "b"]);
    let users = homed(&node, "b");
    // Their home is not linked: each goes to all nodes, one after the other.
    (0..3).for_each(|ticket| drop(push(&mut node, ticket, &users[..1])));
    assert!(is_counted(&tick(&mut node, HOLD_MS), Count::PushAll), "the first is given up, the second goes");
    assert!(tick(&mut node, ORDER_WAIT_MS - 1).is_empty());
    let out = tick(&mut node, ORDER_WAIT_MS);
    assert!(is_counted(&out, Count::OutOfOrder) && is_counted(&out, Count::PushAll), "{out:?}");
}

#[test]
fn under_lists_a_start_waits_for_listed_nodes_for_so_long() {
    let mut node = Node::new(identity(), Mono(u64::MAX)).with_views(Views::OwnLists);
    assert!(show(&mut node, view(2, &["a", "b"], 100)).iter().all(|output| !matches!(output, Output::Open)));
    let opens = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Open));
    assert!(!opens(&tick(&mut node, LIST_BARRIER_MS - 1)));
    assert!(opens(&tick(&mut node, LIST_BARRIER_MS)));
}

#[test]
fn a_node_without_a_lease_fences_when_a_peer_was_silent_for_so_long() {
    let mut node = strict(NOW.mono.plus_ms(1));
    show(&mut node, view(1, &["a", "b"], 100));
    link(&mut node);
    let fences = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Fence(Reason::Isolated)));
    assert!(!fences(&tick(&mut node, FENCE_MS - 1)));
    assert!(fences(&tick(&mut node, FENCE_MS)));
}

/// A node that was linked with `b`, which is lost since so long after the link ended.
fn lost_after(ms: u64) -> Node {
    let mut node = strict(Mono(u64::MAX));
    show(&mut node, view(1, &["a", "b"], 100));
    link(&mut node);
    let echo = Frame { generation: LINK, seen: 1, body: Body::Beat(1) };
    node.handle(NOW, Input::Frame(id("b"), echo));
    node.handle(NOW, Input::Closed(id("b"), LINK));
    let mut lost = view(1, &["a", "b"], 100).members().to_vec();
    lost[1].state = MemberState::Lost;
    node.handle(at(ms), Input::View(View::new(Epoch(2), lost)));
    let (shard, epoch, residents) = (ShardId(0), Epoch(2), Vec::new());
    node.handle(at(ms), Input::Switched { shard, epoch, residents });
    node
}

#[test]
fn a_lost_node_is_forgotten_so_long_after_its_link_and_its_lease_ended() {
    for (lost_ms, due_ms) in [(0, GONE_MS), (GONE_MS, GONE_MS + GONE_LOST_MS)] {
        let mut node = lost_after(lost_ms);
        let forgets = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Forget(..)));
        assert!(!forgets(&tick(&mut node, due_ms - 1)), "{lost_ms}");
        assert!(forgets(&tick(&mut node, due_ms)), "{lost_ms}");
    }
}
