//! Tests of placement: vectors that another language reproduces, movement, weights, the order of alternatives.

use proptest::prelude::*;
use serde_json::Value;

use super::view::{Epoch, Incarnation, Member, MemberState};
use super::*;

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn nodes(weights: &[u32]) -> Vec<(NodeId, Weight)> {
    let node = |(n, &weight): (usize, &u32)| (id(&format!("node-{n}")), Weight::new(weight).unwrap());
    weights.iter().enumerate().map(node).collect()
}

fn rendezvous(weights: &[u32]) -> Placement {
    Placement::of(nodes(weights), &Algorithm::Rendezvous)
}

fn users(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("user{n}"))
}

fn home<'a>(placement: &'a Placement, user: &str) -> &'a str {
    placement.home(user).unwrap().as_str()
}

/// A section of the vectors: its placements, with what is wanted of each.
fn check_section(vectors: &Value, section: &str) {
    let cases = vectors[section].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let node = |pair: &Value| {
            let weight = u32::try_from(pair[1].as_u64().unwrap()).unwrap();
            (id(pair[0].as_str().unwrap()), Weight::new(weight).unwrap())
        };
        let nodes = case["nodes"].as_array().unwrap().iter().map(node).collect();
        let algorithm = match case["key"].as_str() {
            None => Algorithm::Rendezvous,
            Some(rule) => Algorithm::OpenImRing(RingKeys::parse(rule).unwrap()),
        };
        let placement = Placement::of(nodes, &algorithm);
        assert_eq!(placement.fingerprint().to_string(), case["fingerprint"], "{case}");
        for (user, want) in case["ranked"].as_object().unwrap() {
            let want: Vec<_> = want.as_array().unwrap().iter().map(|n| id(n.as_str().unwrap())).collect();
            let ranked: Vec<_> = placement.ranked(user, usize::MAX).into_iter().cloned().collect();
            assert_eq!(ranked, want, "{user}");
            assert_eq!(placement.home(user), want.first(), "{user}");
        }
        let homes: String = users(1000).map(|user| format!("{}\n", home(&placement, &user))).collect();
        let digest: String = Sha256::digest(homes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, case["homes_sha256"]);
    }
}

/// `tests/vectors/placement.py` wrote them and computes them again in `tests/it`.
#[test]
fn the_vectors_that_python_computed() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/placement.json")).unwrap();
    check_section(&vectors, "rendezvous");
    check_section(&vectors, "openim_ring");
    for (text, want) in vectors["keys"].as_object().unwrap() {
        assert_eq!(format!("{:016x}", Key::new(text).value()), *want, "{text}");
    }
    for (hash, want) in vectors["costs"].as_object().unwrap() {
        assert_eq!(rendezvous::cost(u64::from_str_radix(hash, 16).unwrap()), *want, "{hash}");
    }
}

#[test]
fn nobody_is_active_and_nobody_is_home() {
    let placement = rendezvous(&[]);
    assert_eq!(
        (placement.home("u"), placement.ranked("u", 3), placement.alternatives("u", 3)),
        (None, vec![], vec![])
    );
    let keys = RingKeys::parse("{node_id}:88").unwrap();
    assert_eq!(Placement::of(Vec::new(), &Algorithm::OpenImRing(keys)).home("u"), None);
}

/// Chi-square of the users per node; the users are fixed, so this passes always or never.
#[test]
fn users_are_spread_as_the_weights_say() {
    // Weights, and the value that chi-square exceeds with probability 0.001 at nodes - 1 degrees of freedom.
    for (weights, bound) in [
        (&[100; 2][..], 10.83),
        (&[100; 5], 18.47),
        (&[100; 16], 37.70),
        (&[1, 2, 3, 4], 16.27),
        (&[100, 50, 1000, 10, 100, 333], 20.52),
        (&[10_000, 9_999, 1_234], 13.82),
    ] {
        let placement = rendezvous(weights);
        const USERS: usize = 40_000;
        let mut held = vec![0.0; weights.len()];
        for user in users(USERS) {
            let at: usize = home(&placement, &user).strip_prefix("node-").unwrap().parse().unwrap();
            held[at] += 1.0;
        }
        let sum: u32 = weights.iter().sum();
        let part = |(weight, held): (&u32, &f64)| {
            let want = USERS as f64 * f64::from(*weight) / f64::from(sum);
            (held - want).powi(2) / want
        };
        let chi_square: f64 = weights.iter().zip(&held).map(part).sum();
        assert!(chi_square < bound, "{weights:?}: {held:?}, chi-square {chi_square:.2}");
    }
}

#[test]
fn ids_that_differ_by_one_character_are_spread_evenly_too() {
    // Short ids over neighbouring node names: where a weak hash shows first.
    let placement = rendezvous(&[100; 8]);
    let mut held = std::collections::BTreeMap::new();
    for user in (0..32_000_u32)
        .map(|n| char::from_u32(0x4e00 + n % 20_000).unwrap().to_string() + &(n / 20_000).to_string())
    {
        *held.entry(home(&placement, &user).to_owned()).or_insert(0_u32) += 1;
    }
    assert!(held.len() == 8 && held.values().all(|&count| (3_800..4_200).contains(&count)), "{held:?}");
}

fn some_weights() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(prop_oneof![Just(100), 1_u32..=10_000], 2..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn who_joins_takes_users_and_nobody_else_moves(weights in some_weights()) {
        let (joined, before) = (format!("node-{}", weights.len() - 1), &weights[..weights.len() - 1]);
        let (before, after) = (rendezvous(before), rendezvous(&weights));
        for user in users(300) {
            let (was, is) = (home(&before, &user), home(&after, &user));
            prop_assert!(was == is || is == joined, "{user}: {was} -> {is}");
        }
    }

    #[test]
    fn who_leaves_leaves_his_users_to_their_first_alternative(weights in some_weights(), pick: usize) {
        let all = nodes(&weights);
        let gone = all[pick % all.len()].0.clone();
        let whole = Placement::of(all.clone(), &Algorithm::Rendezvous);
        let rest = all.into_iter().filter(|(node_id, _)| *node_id != gone).collect();
        let rest = Placement::of(rest, &Algorithm::Rendezvous);
        for user in users(200) {
            let ranked = whole.ranked(&user, usize::MAX);
            let want: Vec<_> = ranked.iter().copied().filter(|node_id| **node_id != gone).collect();
            prop_assert_eq!(rest.ranked(&user, usize::MAX), want);
            prop_assert_eq!(whole.alternatives(&user, 2), ranked[1..].iter().copied().take(2).collect::<Vec<_>>());
            prop_assert_eq!(whole.home(&user), ranked.first().copied());
        }
    }

    #[test]
    fn more_weight_only_attracts(weights in some_weights(), pick: usize) {
        let at = pick % weights.len();
        let mut more = weights.clone();
        more[at] = (weights[at] + 50).min(10_000);
        let (before, after) = (rendezvous(&weights), rendezvous(&more));
        let heavier = format!("node-{at}");
        for user in users(200) {
            let (was, is) = (home(&before, &user), home(&after, &user));
            prop_assert!(was == is || is == heavier, "{user}: {was} -> {is}");
        }
    }

    #[test]
    fn the_order_in_which_nodes_are_named_does_not_matter(weights in some_weights(), shift in 0_usize..8) {
        let keys = Algorithm::OpenImRing(RingKeys::parse("{node_id}.svc:88").unwrap());
        for algorithm in [Algorithm::Rendezvous, keys] {
            let mut turned = nodes(&weights);
            turned.rotate_left(shift % weights.len());
            prop_assert_eq!(Placement::of(turned, &algorithm), Placement::of(nodes(&weights), &algorithm));
        }
    }
}

/// What may change without a new fingerprint, and what may not.
#[test]
fn the_fingerprint_covers_the_algorithm_and_the_active_nodes_with_their_weights() {
    let member = |name: &str| Member::new(id(name));
    let view = |members: &[Member]| View::new(Epoch(1), members.to_vec());
    let base = [member("a"), member("b")];
    let print = |members: &[Member]| view(members).placement(&Algorithm::Rendezvous).fingerprint();
    let with = |change: &dyn Fn(&mut Member)| {
        let mut members = base.clone();
        change(&mut members[0]);
        print(&members)
    };
    let same = print(&base);
    assert_eq!(same, print(&[member("b"), member("a")]));
    assert_eq!(same, with(&|m| m.incarnation = Incarnation(9)));
    assert_eq!(same, with(&|m| m.registered_epoch = Epoch(9)));
    assert_eq!(same, with(&|m| (m.ws_url, m.rpc_addr) = ("ws://x".into(), "x:1".into())));
    assert_eq!(same, with(&|m| m.labels = vec![("region".into(), "eu".into())]));
    for state in [MemberState::Joining, MemberState::Draining, MemberState::Lost] {
        assert_eq!(same, print(&[member("a"), member("b"), Member { state, ..member("c") }]));
        assert_eq!(print(&base[1..]), with(&|m| m.state = state));
    }
    let ring = |rule: &str| Algorithm::OpenImRing(RingKeys::parse(rule).unwrap());
    let of_ring = |rule: &str| view(&base).placement(&ring(rule)).fingerprint();
    let others = [
        print(&base[1..]),
        print(&[member("a"), member("c")]),
        with(&|m| m.weight = Weight::new(101).unwrap()),
        of_ring("{node_id}"),
        of_ring("{node_id}:88"),
        same,
    ];
    assert_eq!(others.iter().collect::<std::collections::BTreeSet<_>>().len(), others.len(), "{others:?}");
}

#[test]
fn ring_keys_name_the_node_once() {
    let keys = RingKeys::parse("{node_id}.svc:88").unwrap();
    assert_eq!(
        (keys.string(&id("gw-0")), keys.to_string()),
        ("gw-0.svc:88".into(), "{node_id}.svc:88".into())
    );
    for bad in ["", "host:88", "{node_id}{node_id}", "{node_id}\n"] {
        assert_eq!(RingKeys::parse(bad), None, "{bad}");
    }
}
