//! Tests of the comparison: incident 2 with its pod names, and what a change does.

use super::*;

fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user{n}")).collect()
}

fn list(text: &str) -> MemberList {
    MemberList::parse(text).unwrap()
}

fn difference(first: &str, second: &str, count: usize) -> Difference {
    Difference::of(&list(first), &list(second), users(count).iter())
}

/// The gateways of incident 2 as one side sees them.
fn pods(scheme: &str, replicas: usize, port: &str) -> String {
    format!("placement {scheme}\npods openimserver namespace=openim-lin replicas={replicas} port={port}\n")
}

/// The table of spec 10.4: user0 to user99999, push with `:88`, proxy without.
#[test]
fn incident_2_two_rings_that_hash_different_strings() {
    for (replicas, permille) in [(1, 0), (2, 376), (3, 668), (5, 786), (10, 902)] {
        let found =
            difference(&pods("openim-ring", replicas, "88"), &pods("openim-ring", replicas, "none"), 100_000);
        assert_eq!(found.users, 100_000);
        assert_eq!((found.elsewhere + 50) / 100, permille, "{replicas}: {}", found.elsewhere);
        let [Reason::Port { nodes, first, second }] = &found.reasons[..] else {
            panic!("{:?}", found.reasons)
        };
        let set = "openimserver-openim-msggateway";
        let host = &*format!("{set}-0.{set}-headless.openim-lin.svc.cluster.local");
        assert_eq!((*nodes, first.as_str(), second.as_str()), (replicas, &*format!("{host}:88"), host));
    }
}

/// The same fleets placed by Pinion: the port is where a node is dialled and moves nobody.
#[test]
fn incident_2_cannot_be_told_to_pinion() {
    for replicas in [1, 2, 3, 5, 10] {
        let sides = [pods("rendezvous", replicas, "88"), pods("rendezvous", replicas, "none")];
        let found = difference(&sides[0], &sides[1], 10_000);
        assert_eq!((found.elsewhere, found.reasons), (0, vec![]));
        let [a, b] = sides.map(|side| list(&side));
        assert!(a.members[0].member.rpc_addr.ends_with(":88") && b.members[0].member.rpc_addr.is_empty());
    }
}

/// The second cause of incident 2: equal strings, other replica counts.
#[test]
fn a_replica_count_that_differs_is_named() {
    let ring = difference(&pods("openim-ring", 3, "88"), &pods("openim-ring", 5, "88"), 20_000);
    assert!(ring.share() > 0.1, "{}", ring.share());
    assert_eq!(ring.reasons[0], Reason::Count(3, 5));
    assert!(matches!(&ring.reasons[1..], [Reason::OnlySecond(a), Reason::OnlySecond(b)]
        if a.as_str().contains("gateway-3.") && b.as_str().contains("gateway-4.")));
    // With rendezvous hashing the users of the two new nodes differ and no others: 2 of 5.
    let own = difference(&pods("rendezvous", 3, "88"), &pods("rendezvous", 5, "88"), 20_000);
    assert!((0.38..0.42).contains(&own.share()), "{}", own.share());
    assert_eq!(own.reasons, ring.reasons);
}

#[test]
fn what_moves_users_is_named_and_what_does_not_is_not() {
    let base = "a\nb\nc\n";
    let node = |name: &str| NodeId::new(name).unwrap();
    let reasons = |other: &str| difference(base, other, 100).reasons;
    assert_eq!(reasons("c rpc=x:1\na ws=ws://a label.x=y\nb\nd state=joining\n"), []);
    assert_eq!(reasons("a weight=200\nb\nc\n"), [Reason::Weight(node("a"), 100, 200)]);
    let draining = Reason::State(node("b"), MemberState::Active, MemberState::Draining);
    assert_eq!(reasons("a\nb state=draining\nc\n"), [Reason::Count(3, 2), draining]);
    assert_eq!(reasons("a\nb\nd\n"), [Reason::OnlyFirst(node("c")), Reason::OnlySecond(node("d"))]);
    assert_eq!(
        reasons("placement openim-ring\na\nb\nc\n"),
        [Reason::Scheme(Scheme::Rendezvous, Scheme::OpenImRing)]
    );
    let renamed = difference(
        "placement openim-ring\nhost-a:88 node=a\n",
        "placement openim-ring\n10.0.0.1:88 node=a\n",
        10,
    );
    let want = Reason::String { nodes: 1, first: "host-a:88".into(), second: "10.0.0.1:88".into() };
    assert_eq!((renamed.elsewhere, renamed.reasons), (0, vec![want]));
}

#[test]
fn a_rehearsal_counts_who_moves_and_where_to() {
    let names = users(20_000);
    let rehearse = |before: &str, after: &str| Rehearsal::of(&list(before), &list(after), names.iter());
    let joined = rehearse("a\nb\nc\n", "a\nb\nc\nd\n");
    let of = |rehearsal: &Rehearsal, name: &str| rehearsal.loads[&NodeId::new(name).unwrap()];
    let new = of(&joined, "d");
    assert_eq!((new.before, new.arriving, new.after), (0, joined.moved, joined.moved));
    assert!((4_800..5_200).contains(&joined.moved), "a quarter: {}", joined.moved);
    let (_, times) = joined.peak().unwrap();
    assert!((1.0..1.05).contains(&times), "{times}");

    let left = rehearse("a\nb\nc\nd\n", "a\nb\nc\nd state=draining\n");
    assert_eq!(left.moved, joined.moved, "the same users, the other way");
    assert_eq!((of(&left, "d").before, of(&left, "d").after), (left.moved, 0));
    assert_eq!(["a", "b", "c"].map(|name| of(&left, name).arriving).iter().sum::<usize>(), left.moved);
    assert_eq!(left.loads.values().map(|load| load.after).sum::<usize>(), 20_000);

    let nobody = rehearse("a\n", "a state=draining\n");
    assert_eq!((nobody.moved, nobody.peak()), (20_000, None));
}

/// The ring spreads badly: the busiest of five has 2.4 times the mean (field-notes.md 2.2).
#[test]
fn the_peak_of_openims_ring_is_seen() {
    let names = users(100_000);
    let ring = list("placement openim-ring\npods openimserver namespace=default replicas=5\n");
    let rehearsal = Rehearsal::of(&ring, &ring, names.iter());
    let (node, times) = rehearsal.peak().unwrap();
    assert!(node.as_str().contains("gateway-4.") && (2.36..2.38).contains(&times), "{node} {times}");
    assert_eq!(rehearsal.moved, 0);
}
