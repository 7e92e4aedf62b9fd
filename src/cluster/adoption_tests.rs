use proptest::prelude::*;

use super::*;
use crate::placement::view::Epoch;

const NOW: Mono = Mono(1_000_000);

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 10001))
}

fn claim(name: &str, last: u8) -> Claim {
    Claim { node: id(name), address: address(last) }
}

/// Members by name, state and life.
fn view(members: &[(&str, MemberState, u64)]) -> View {
    let member = |&(name, state, life): &(&str, MemberState, u64)| Member {
        state,
        incarnation: Incarnation(life),
        ..Member::new(id(name))
    };
    View::new(Epoch(1), members.iter().map(member).collect())
}

/// What `me` holds after these views, told at once.
fn held(me: &str, views: &[View]) -> Vec<Claim> {
    let mut adoption = Adoption::new(Some(id(me)), vec![claim("a", 1), claim("b", 2), claim("c", 3)], false);
    views.iter().for_each(|view| adoption.see(NOW, view.clone()));
    adoption.held(NOW).into_iter().collect()
}

use MemberState::{Active, Draining, Joining, Lost};

#[test]
fn a_lost_member_is_taken_over_by_one_survivor_and_given_back_when_it_returns() {
    let alive = view(&[("a", Active, 1), ("b", Active, 1), ("c", Active, 1)]);
    let lost = view(&[("a", Active, 1), ("b", Lost, 1), ("c", Active, 1)]);
    let heir = heir(&lost, &id("b")).unwrap().as_str().to_owned();
    for me in ["a", "c"] {
        assert_eq!(held(me, std::slice::from_ref(&alive)), []);
        let now = held(me, &[alive.clone(), lost.clone()]);
        assert_eq!(now, if me == heir { vec![claim("b", 2)] } else { vec![] }, "{me}");
        for state in [Joining, Active, Draining] {
            let back = view(&[("a", Active, 1), ("b", state, 2), ("c", Active, 1)]);
            assert_eq!(held(me, &[lost.clone(), back]), [], "{me} {state:?}");
        }
    }
    assert_eq!(held("b", &[lost]), [], "its own address");
}

#[test]
fn a_node_that_is_not_active_itself_takes_nothing() {
    for state in [Joining, Draining, Lost] {
        assert_eq!(held("a", &[view(&[("a", state, 1), ("b", Lost, 1)])]), [], "{state:?}");
    }
    assert_eq!(held("a", &[view(&[("a", Active, 1), ("b", Lost, 1), ("c", Joining, 1)])]), [claim("b", 2)]);
    let nameless =
        Adoption { view: Some(view(&[("b", Lost, 1)])), ..Adoption::new(None, vec![claim("b", 2)], false) };
    assert!(nameless.held(NOW).is_empty());
}

#[test]
fn a_node_that_is_gone_is_taken_over_after_a_while_and_a_late_view_starts_no_new_while() {
    let mut adoption = Adoption::new(Some(id("a")), vec![claim("b", 2)], false);
    assert_eq!(
        (adoption.held(NOW), adoption.next(NOW)),
        (BTreeSet::new(), None),
        "nothing is known without a view"
    );
    adoption.see(NOW, view(&[("a", Active, 1)]));
    let ripe = NOW.plus_ms(ADOPT_ABSENT_MS);
    assert_eq!(adoption.next(NOW), Some(ripe));
    adoption.see(NOW.plus_ms(10_000), view(&[("a", Active, 1)]));
    assert!(adoption.held(Mono(ripe.0 - 1)).is_empty());
    assert_eq!(adoption.held(ripe), [claim("b", 2)].into());
    assert_eq!(adoption.next(ripe), None);
    // Back, and gone again: the time counts from then.
    adoption.see(ripe, view(&[("a", Active, 1), ("b", Joining, 1)]));
    assert!(adoption.held(ripe).is_empty());
    adoption.see(ripe, view(&[("a", Active, 1)]));
    assert!(adoption.held(ripe).is_empty());
    assert_eq!(adoption.held(ripe.plus_ms(ADOPT_ABSENT_MS)).len(), 1);
}

#[test]
fn members_own_addresses_are_learned_and_remembered_when_they_are_no_names() {
    let with_url = |state, url: &str| {
        let b = Member { state, ws_url: url.into(), ..Member::new(id("b")) };
        View::new(Epoch(1), vec![Member::new(id("a")), b])
    };
    let mut adoption = Adoption::new(Some(id("a")), Vec::new(), true);
    adoption.see(NOW, with_url(Active, "ws://10.0.0.2:10001/"));
    adoption.see(NOW, with_url(Lost, ""));
    assert_eq!(adoption.held(NOW), [claim("b", 2)].into());
    let mut named = Adoption::new(Some(id("a")), Vec::new(), true);
    named.see(NOW, with_url(Lost, "wss://b.example.com/"));
    assert!(named.held(NOW).is_empty());
    let mut listed_only = Adoption::new(Some(id("a")), Vec::new(), false);
    listed_only.see(NOW, with_url(Lost, "ws://10.0.0.2:10001/"));
    assert!(listed_only.held(NOW).is_empty());
}

#[test]
fn addresses_are_read_from_urls_and_names_are_not() {
    for (url, want) in [
        ("ws://10.0.0.2:10001/", Some("10.0.0.2:10001")),
        ("ws://10.0.0.2", Some("10.0.0.2:80")),
        ("wss://10.0.0.2/msg?a=b", Some("10.0.0.2:443")),
        ("ws://[fd00::2]:10001/", Some("[fd00::2]:10001")),
        ("wss://[fd00::2]", Some("[fd00::2]:443")),
        ("ws://gateway-0:10001", None),
        ("http://10.0.0.2:1/", None),
        ("", None),
    ] {
        assert_eq!(address_of(url), want.map(|want| want.parse().unwrap()), "{url}");
    }
}

#[test]
fn an_order_counts_until_the_node_comes_in_a_new_life() {
    let mut adoption = Adoption::new(Some(id("a")), vec![claim("b", 2)], false);
    // A static list says of nobody that he is lost. The order may come before the first view.
    adoption.take(&id("b")).unwrap();
    assert_eq!(adoption.held(NOW).len(), 1);
    let alive = |life| view(&[("a", Active, 1), ("b", Active, life)]);
    adoption.see(NOW, alive(1));
    adoption.see(NOW, alive(1));
    assert_eq!(adoption.held(NOW).len(), 1);
    adoption.see(NOW, alive(2));
    assert!(adoption.held(NOW).is_empty(), "it is back");
    // Given back by order although it is lost, and also this ends with its next life.
    adoption.see(NOW, view(&[("a", Active, 1), ("b", Lost, 2)]));
    assert_eq!(adoption.held(NOW).len(), 1);
    adoption.release(&id("b")).unwrap();
    assert!(adoption.held(NOW).is_empty());
    adoption.see(NOW, view(&[("a", Active, 1), ("b", Lost, 3)]));
    assert_eq!(adoption.held(NOW).len(), 1);
    // Taken while the view has no word of it, then back.
    let mut adoption = Adoption::new(Some(id("a")), vec![claim("b", 2)], false);
    adoption.see(NOW, view(&[("a", Active, 1)]));
    adoption.take(&id("b")).unwrap();
    adoption.see(NOW, alive(7));
    assert!(adoption.held(NOW).is_empty());
}

#[test]
fn orders_about_oneself_or_a_stranger_are_refused_with_what_is_known() {
    let mut adoption = Adoption::new(Some(id("a")), vec![claim("a", 1), claim("b", 2)], false);
    assert!(adoption.take(&id("a")).unwrap_err().contains("is this node"));
    let stranger = adoption.release(&id("x")).unwrap_err();
    assert!(stranger.contains("no address of x is known") && stranger.ends_with(": a, b"), "{stranger}");
    let mut bare = Adoption::new(None, Vec::new(), true);
    assert!(bare.take(&id("x")).unwrap_err().contains("set cluster.adopt"));
}

proptest! {
    /// Whoever is alive agrees on who takes over, whatever is lost, and nobody else does.
    #[test]
    fn each_dead_node_has_exactly_one_heir_while_somebody_is_active(
        states in proptest::collection::vec(0_usize..4, 1..8)
    ) {
        let names: Vec<String> = (0..states.len()).map(|n| format!("node-{n}")).collect();
        let members: Vec<(&str, MemberState, u64)> =
            names.iter().zip(&states).map(|(name, state)| (name.as_str(), MemberState::ALL[*state], 1)).collect();
        let listed: Vec<Claim> = names.iter().zip(1..).map(|(name, last)| claim(name, last)).collect();
        let view = view(&members);
        let mut holders: BTreeMap<Claim, usize> = BTreeMap::new();
        for name in &names {
            let mut adoption = Adoption::new(Some(id(name)), listed.clone(), false);
            adoption.see(NOW, view.clone());
            for claim in adoption.held(NOW) {
                *holders.entry(claim).or_default() += 1;
            }
        }
        let active = view.active().count();
        for (claim, member) in listed.iter().zip(view.members()) {
            let want = usize::from(member.state == Lost && active > 0);
            prop_assert_eq!(holders.get(claim).copied().unwrap_or(0), want, "{:?}", claim);
        }
    }

    /// A survivor's death moves what it held, and nothing else.
    #[test]
    fn an_heir_stays_while_it_lives(lost in 0_usize..6, dies in 0_usize..6) {
        let names: Vec<String> = (0..6).map(|n| format!("node-{n}")).collect();
        let state = |n: usize, dead: &[usize]| if dead.contains(&n) { Lost } else { Active };
        let of = |dead: &[usize]| {
            let members = names.iter().enumerate().map(|(n, name)| (name.as_str(), state(n, dead), 1));
            view(&members.collect::<Vec<_>>())
        };
        let (before, after) = (of(&[lost]), of(&[lost, dies]));
        let dead = id(&names[lost]);
        let heir_before = heir(&before, &dead).cloned();
        if dies != lost && heir_before.as_ref() != Some(&id(&names[dies])) {
            prop_assert_eq!(heir_before, heir(&after, &dead).cloned());
        }
    }
}
