//! What happens at the limits of the router (`limits::routing`), on one node that is fed by hand.

use super::super::frame::{Answer, Attempt, Body, Copy, Frame, Generation, Hello, PushId};
use super::super::io::{Count, Input, Mail, Output, Push, Reason};
use super::super::peer::Up;
use super::super::{Fence, Identity, Node, Views};
use crate::ids::{ShardId, Text};
use crate::limits::{
    BEATS_MAX, LAST_GONE_MS, LAST_MS, LEGS_MAX, LINK_KNOWS_MAX, ORDER_WAITING_MAX, PROMISES_MAX,
};
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View, Weight};
use crate::placement::{Algorithm, Fingerprint};
use crate::time::{Mono, Now, UnixMs};

pub const NOW: Now = Now { mono: Mono(1_000_000), unix: UnixMs(1_000_000) };
pub const LINK: Generation = Generation { dialler: Incarnation(1), count: 1, acceptor: Incarnation(1) };

pub fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub fn view(epoch: u64, names: &[&str], weight: u32) -> View {
    let member = |name: &&str| {
        let mut member = Member::new(id(name));
        if *name == "b" {
            member.weight = Weight::new(weight).unwrap();
        }
        member
    };
    View::new(Epoch(epoch), names.iter().map(member).collect())
}

pub fn strict(lease_until: Mono) -> Node {
    Node::new(Identity { fence: Fence::Strict, ..identity() }, lease_until)
}

pub fn identity() -> Identity {
    Identity {
        node_id: id("a"),
        incarnation: Incarnation(1),
        first_epoch: Epoch(1),
        shards: 1,
        algorithm: Algorithm::default(),
        fence: Fence::Report,
    }
}

/// Node `a` in the view of these, and by its placement.
pub fn node(names: &[&str]) -> Node {
    let mut node = Node::new(identity(), Mono(u64::MAX));
    show(&mut node, view(1, names, 100));
    node
}

pub fn show(node: &mut Node, view: View) -> Vec<Output> {
    let epoch = view.epoch();
    let mut out = node.handle(NOW, Input::View(view));
    let residents = Vec::new();
    out.extend(node.handle(NOW, Input::Switched { shard: ShardId(0), epoch, residents }));
    out
}

/// A link with `b` that is up.
pub fn link(node: &mut Node) {
    node.handle(NOW, Input::Opened(id("b")));
    let hello = Hello {
        node: id("b"),
        incarnation: Incarnation(1),
        first_epoch: Epoch(1),
        registered_epoch: Epoch(1),
        view_epoch: Epoch(1),
        fingerprint: Fingerprint(1),
        knows: Vec::new(),
    };
    from_b(node, Body::HelloAck(hello));
    assert_eq!(node.linked().count(), 1);
}

pub fn from_b(node: &mut Node, body: Body) -> Vec<Output> {
    node.handle(NOW, Input::Frame(id("b"), Frame { generation: LINK, seen: 0, body }))
}

pub fn push(node: &mut Node, ticket: u64, recipients: &[Text]) -> Vec<Output> {
    let payload = bytes::Bytes::new();
    node.handle(NOW, Input::Push(Push { ticket, recipients: recipients.to_vec(), payload }))
}

pub fn homed(node: &Node, at: &str) -> Vec<Text> {
    let names = (0..).map(|n| Text::from(format!("u{n}")));
    names.filter(|user| node.placement().home(user) == Some(&id(at))).take(2).collect()
}

#[test]
fn an_echo_of_a_beat_that_is_forgotten_is_stale() {
    let mut up = Up::new(LINK, NOW.mono, NOW.mono);
    for _ in 0..BEATS_MAX {
        up.beat(NOW.mono);
    }
    assert!(!up.take_echo(0, NOW.mono), "the Hello has made room for the newest beat");
    assert!(up.take_echo(1, NOW.mono) && up.take_echo(BEATS_MAX as u64, NOW.mono));
    assert!(!up.take_echo(BEATS_MAX as u64 + 1, NOW.mono), "and one that was never sent proves nothing");
}

#[test]
fn a_peer_that_acknowledges_no_promise_loses_its_link_at_the_last() {
    let mut node = node(&["a", "b"]);
    link(&mut node);
    for n in 2..=PROMISES_MAX as u64 {
        let out = show(&mut node, view(n, &["a", "b"], 100 + u32::try_from(n).unwrap()));
        assert!(!out.iter().any(|output| matches!(output, Output::Close(..))), "promise {n}");
    }
    let out = show(&mut node, view(100, &["a", "b"], 300));
    assert!(
        out.iter().any(|output| matches!(output, Output::Close(peer, LINK) if *peer == id("b"))),
        "{out:?}"
    );
    assert!(out.iter().any(|output| matches!(output, Output::Count(Count::LaggingLink))));
    assert_eq!(node.linked().count(), 0);
}

#[test]
fn one_push_more_than_may_be_in_flight_is_refused() {
    let mut node = node(&["a"]);
    for ticket in 0..LEGS_MAX as u64 {
        let out = push(&mut node, ticket, &["u".into()]);
        assert!(out.iter().any(|output| matches!(output, Output::Mail(Mail::Deliver { .. }))), "{ticket}");
    }
    let out = push(&mut node, 1 << 40, &["u".into()]);
    let [Output::Count(Count::LegsFull), Output::Refused(ticket)] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!(*ticket, 1 << 40);
}

#[test]
fn a_home_that_gathers_too_much_says_that_it_does_not_know() {
    let mut node = node(&["a", "b"]);
    link(&mut node);
    let user = homed(&node, "a").remove(0);
    let route = |leg| {
        let push = PushId { node: id("b"), incarnation: Incarnation(1), number: leg };
        let recipients = vec![user.clone()];
        Body::Route(Copy { leg, push, recipients, payload: bytes::Bytes::new() })
    };
    let replies = |out: &[Output]| {
        let of = |output: &Output| match output {
            Output::Send(_, Frame { body: Body::RouteReply { verdicts, .. }, .. }) => Some(verdicts.clone()),
            _ => None,
        };
        out.iter().filter_map(of).next()
    };
    let full = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Count(Count::LegsFull)));
    for leg in 0..LEGS_MAX as u64 {
        let out = from_b(&mut node, route(leg));
        assert!(replies(&out).is_none() && !full(&out), "{leg} waits for its answers");
    }
    let out = from_b(&mut node, route(1 << 40));
    assert!(full(&out), "{out:?}");
    let verdicts = replies(&out).expect("an answer at once");
    assert!(!verdicts[0].complete && verdicts[0].unaccounted == [id("a")], "{verdicts:?}");
}

#[test]
fn a_holder_with_too_many_copies_says_that_it_does_not_know() {
    let mut node = node(&["a", "b"]);
    link(&mut node);
    let deliver = |leg| {
        let push = PushId { node: id("b"), incarnation: Incarnation(1), number: leg };
        let copy = Copy { leg, push, recipients: vec!["u".into()], payload: bytes::Bytes::new() };
        Body::Deliver { copy, attempt: Attempt::First }
    };
    for leg in 0..LEGS_MAX as u64 {
        let out = from_b(&mut node, deliver(leg));
        assert!(matches!(out.as_slice(), [Output::Mail(Mail::Deliver { .. })]), "{leg}: {out:?}");
    }
    let out = from_b(&mut node, deliver(1 << 40));
    let [Output::Count(Count::LegsFull), Output::Send(_, Frame { body, .. })] = out.as_slice() else {
        panic!("{out:?}")
    };
    let answers = vec![("u".into(), Answer::Unknown)];
    assert_eq!(*body, Body::DeliverReply { leg: 1 << 40, answers });
}

#[test]
fn a_hello_that_cannot_name_all_is_counted() {
    let names: Vec<String> = (0..LINK_KNOWS_MAX).map(|n| format!("b{n:04}")).collect();
    let names: Vec<&str> = std::iter::once("a").chain(names.iter().map(String::as_str)).collect();
    for (members, cut) in [(LINK_KNOWS_MAX, 0), (LINK_KNOWS_MAX + 1, 1)] {
        let mut node = Node::new(identity(), Mono(u64::MAX)).with_views(Views::OwnLists);
        show(&mut node, view(1, &names[..members], 100));
        let out = node.handle(NOW, Input::Opened(id("b0000")));
        let counted = out.iter().filter(|output| matches!(output, Output::Count(Count::KnowsCut)));
        assert_eq!(counted.count(), cut, "{members}");
    }
}

#[test]
fn a_push_that_finds_no_room_to_wait_goes_out_of_order_and_is_counted() {
    let mut node = node(&["a", "b"]);
    // Their home is not linked: each push goes to all nodes, and the next one waits for it.
    let users = homed(&node, "b");
    push(&mut node, 0, &users);
    let late = |out: &[Output]| {
        out.iter().filter(|output| matches!(output, Output::Count(Count::OutOfOrder))).count()
    };
    for ticket in 1..=ORDER_WAITING_MAX as u64 / 2 {
        let out = push(&mut node, ticket, &users);
        assert!(out.is_empty(), "{ticket} waits: {out:?}");
    }
    let out = push(&mut node, 1 << 40, &users);
    assert_eq!(late(&out), 2);
    assert!(out.iter().any(|output| matches!(output, Output::Mail(Mail::Deliver { .. }))), "it goes");
}

pub fn at(ms: u64) -> Now {
    Now { mono: NOW.mono.plus_ms(ms), ..NOW }
}

#[test]
fn a_node_without_a_lease_for_very_long_fences_even_with_nobody_to_miss() {
    let mut node = strict(NOW.mono);
    assert!(node.handle(at(LAST_MS - 1), Input::Tick).is_empty());
    let out = node.handle(at(LAST_MS), Input::Tick);
    assert!(matches!(out.as_slice(), [Output::Fence(Reason::Isolated)]), "{out:?}");
}

#[test]
fn a_record_lost_for_longer_than_any_node_stays_is_forgotten_unseen() {
    let mut node = strict(Mono(u64::MAX));
    let mut lost = view(1, &["a", "b"], 100).members().to_vec();
    lost[1].state = MemberState::Lost;
    show(&mut node, View::new(Epoch(1), lost.clone()));
    assert!(node.fit(), "nobody waits for the lost");
    let forgets = |out: &[Output]| out.iter().any(|output| matches!(output, Output::Forget(..)));
    assert!(!forgets(&node.handle(at(LAST_GONE_MS - 1), Input::Tick)));
    assert!(forgets(&node.handle(at(LAST_GONE_MS), Input::Tick)));
    // Back and lost again: from the beginning.
    for (epoch, state) in [(2, MemberState::Active), (3, MemberState::Lost)] {
        lost[1].state = state;
        let now = at(LAST_GONE_MS);
        node.handle(now, Input::View(View::new(Epoch(epoch), lost.clone())));
        node.handle(now, Input::Switched { shard: ShardId(0), epoch: Epoch(epoch), residents: Vec::new() });
    }
    assert!(!forgets(&node.handle(at(2 * LAST_GONE_MS - 1), Input::Tick)));
    assert!(forgets(&node.handle(at(2 * LAST_GONE_MS), Input::Tick)));
}
