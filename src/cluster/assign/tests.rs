//! Tests of the assign decision: rules before load, home first, never who leaves, canaries that stay the same.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::standing::{Takes, Told};
use super::*;
use crate::cluster::members::MemberList;
use crate::limits::{ASSIGN_MISSES_MAX, ASSIGN_RULES_MAX, ASSIGN_UNEVEN_PERMILLE_MAX, ASSIGN_USERS_MAX};

/// Five nodes in all states and two regions; `x` has no address.
const FLEET: &str = "\
a ws=ws://a label.region=eu
b ws=ws://b label.region=eu
c ws=ws://c label.region=us label.track=canary
d ws=ws://d label.region=us
e ws=ws://e label.region=eu state=draining
f ws=ws://f label.region=eu state=lost
g ws=ws://g label.region=eu state=joining
x label.region=eu
";

struct World {
    view: View,
    placement: Placement,
    standings: Standings,
    policy: Policy,
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

impl World {
    fn new(fleet: &str, rules: &str) -> Self {
        let view = MemberList::parse(fleet).unwrap().view();
        let placement = view.placement(&Algorithm::Rendezvous);
        let policy = Policy { rules: rules::parse(rules).unwrap(), ..Policy::default() };
        Self { view, placement, standings: Standings::default(), policy }
    }

    fn cluster(&self) -> Cluster<'_> {
        Cluster { view: &self.view, placement: &self.placement, standings: &self.standings }
    }

    fn ask<'a>(&'a self, user: &str, platform: i64, labels: &[(&str, &str)]) -> Assignment<'a> {
        let labels: Vec<_> = labels.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let request = Request { user, platform: Platform::new(platform), labels: &labels };
        self.policy.decide(&request, Some(self.cluster())).unwrap()
    }

    /// Names of the nodes in an answer.
    fn nodes(&self, user: &str) -> Vec<String> {
        self.ask(user, 1, &[]).urls().iter().map(|url| url.replace("ws://", "")).collect()
    }
}

/// Nodes filled to so many thousandths.
fn filled(loads: impl IntoIterator<Item = (NodeId, u16)>) -> Standings {
    let mut standings = Standings::default();
    for (node_id, permille) in loads {
        standings.heard(&node_id, told(permille, Takes::Clients));
    }
    standings
}

fn told(permille: u16, takes: Takes) -> Told {
    Told { connections: permille.into(), connections_max: 1_000, takes }
}

fn users(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("user{n}"))
}

#[test]
fn the_home_comes_first_and_two_alternatives_follow() {
    let world = World::new(FLEET, "");
    for user in users(300) {
        let want = world.placement.ranked(&user, 9).into_iter().map(ToString::to_string);
        let want: Vec<_> = want.filter(|node| node != "x").take(3).collect();
        let found = world.ask(&user, 1, &[]);
        assert_eq!(world.nodes(&user), want);
        let home_is_open = world.placement.home(&user) != Some(&id("x"));
        assert_eq!(found.home, if home_is_open { Home::First } else { Home::Elsewhere });
        assert_eq!(
            (found.decided, found.ttl_ms, found.backoff.first_ms),
            (Decided::Placement, 30_000, 1_000)
        );
    }
    assert_eq!(World::new("a ws=ws://a\nb ws=ws://b\n", "").nodes("u").len(), 2);
    assert_eq!(World::new("a ws=ws://same\nb ws=ws://same\n", "").nodes("u").len(), 1, "each once");
}

#[test]
fn who_is_full_goes_behind_who_is_not() {
    let mut world = World::new("a ws=ws://a\nb ws=ws://b\nc ws=ws://c\n", "");
    let order = world.nodes("u");
    let mut full = |nodes: &[usize], permille| {
        world.standings = filled(nodes.iter().map(|&n| (id(&order[n]), permille)));
        let found = world.ask("u", 1, &[]);
        (
            world.nodes("u").iter().map(|n| order.iter().position(|o| o == n).unwrap()).collect::<Vec<_>>(),
            found.home,
        )
    };
    assert_eq!(full(&[0], 899), (vec![0, 1, 2], Home::First));
    assert_eq!(full(&[0], 900), (vec![1, 2, 0], Home::Full));
    assert_eq!(full(&[1], 1000), (vec![0, 2, 1], Home::First));
    assert_eq!(full(&[0, 1], 1000), (vec![2, 0, 1], Home::Full));
    assert_eq!(full(&[0, 1, 2], 1000), (vec![0, 1, 2], Home::First), "nobody is refused");
}

#[test]
fn who_is_far_above_the_mean_goes_behind_however_empty_all_are() {
    let mut world = World::new("a ws=ws://a\nb ws=ws://b\nc ws=ws://c\nd ws=ws://d\n", "");
    let order = world.nodes("u");
    let far = |load: u16| [(id(&order[0]), load), (id(&order[1]), 0), (id(&order[2]), 0), (id("none"), 1000)];
    // The fourth node and one that is not there do not count: the mean is a third.
    let edge = (ASSIGN_UNEVEN_PERMILLE_MAX * 3).div_ceil(2);
    world.standings = filled(far(edge - 3));
    assert_eq!(world.ask("u", 1, &[]).home, Home::First);
    world.standings = filled(far(edge + 3));
    assert_eq!((world.ask("u", 1, &[]).home, &world.nodes("u")[..2]), (Home::Full, &order[1..3]));
}

#[test]
fn who_does_not_answer_or_takes_nobody_is_not_handed_out() {
    let mut world = World::new("a ws=ws://a\nb ws=ws://b\nc ws=ws://c\n", "");
    world.policy.fallback = vec!["ws://static".to_owned()];
    let order = world.nodes("u");
    for _ in 0..ASSIGN_MISSES_MAX {
        assert_eq!(world.nodes("u"), order);
        world.standings.missed(&id(&order[0]));
    }
    assert_eq!(world.nodes("u"), order[1..]);
    world.standings.heard(&id(&order[1]), told(0, Takes::Nobody));
    assert_eq!(world.nodes("u"), order[2..]);
    world.standings.heard(&id(&order[2]), told(0, Takes::Nobody));
    let found = world.ask("u", 1, &[]);
    assert_eq!(
        (found.decided, found.urls(), found.choices[0].node_id),
        (Decided::Fallback, vec!["ws://static"], None)
    );
    world.standings.heard(&id(&order[0]), told(999, Takes::Clients));
    assert_eq!(world.ask("u", 1, &[]).choices[0].node_id, Some(&id(&order[0])), "full is better than nobody");
}

/// User, platform, labels; the rule that decides, and the nodes that it leaves.
type Case<'a> = (&'a str, i64, &'a [(&'a str, &'a str)], Option<&'a str>, &'a [&'a str]);

#[test]
fn the_first_rule_that_fits_and_has_nodes_decides() {
    let rules = "\
gone   users=lost-*                     -> nodes=e,f,g
staff  users=boss,qa-*                  -> nodes=d
phones platform=IOS,2 label.region=us   -> label.region=us label.track=canary
eu     label.region=eu                  -> label.region=eu
";
    let mut world = World::new(FLEET, rules);
    world.standings = filled([(id("d"), 1000)]); // rules before load
    let us = [("region", "us")];
    let eu = [("region", "eu"), ("tenant", "acme")];
    #[rustfmt::skip]
    let cases: &[Case] = &[
        ("boss",   1, &[], Some("staff"), &["d"]),
        ("bosses", 1, &[], None, &["a", "b", "c", "d"]),
        ("qa-7",   1, &eu, Some("staff"), &["d"]),
        ("u",      1, &us, Some("phones"), &["c"]),
        ("u",      2, &us, Some("phones"), &["c"]),
        ("u",      5, &us, None, &["a", "b", "c", "d"]),
        ("u",      0, &us, None, &["a", "b", "c", "d"]),
        ("u",      5, &eu, Some("eu"), &["a", "b"]),
        ("lost-1", 5, &eu, Some("eu"), &["a", "b"]),
    ];
    for (user, platform, labels, rule, nodes) in cases {
        let found = world.ask(user, *platform, labels);
        let decided = rule.map_or(Decided::Placement, Decided::Rule);
        assert_eq!(found.decided, decided, "{user} {platform} {labels:?}");
        assert!(
            found.urls().iter().all(|url| nodes.contains(&url.trim_start_matches("ws://"))),
            "{user} {found:?}"
        );
        assert_eq!(found.choices.len(), nodes.len().min(3), "{user}");
        assert_eq!(found.passed_over, if user.starts_with("lost") { vec!["gone"] } else { vec![] });
    }
}

#[test]
fn a_rule_keeps_the_order_of_the_placement_and_may_weigh_anew() {
    let world = World::new(FLEET, "eu label.region=eu -> label.region=eu\n");
    for user in users(200) {
        let all = world.placement.ranked(&user, 9);
        let want: Vec<_> =
            all.iter().filter(|n| ["a", "b"].contains(&n.as_str())).map(|n| format!("ws://{n}")).collect();
        assert_eq!(world.ask(&user, 1, &[("region", "eu")]).urls(), want);
    }
    let world = World::new(FLEET, "split users=user* -> nodes=a:300,b:100\n");
    let first = users(4_000).filter(|user| world.nodes(user)[0] == "a").count();
    assert!((2_900..3_100).contains(&first), "three of four: {first}");
}

#[test]
fn a_canary_takes_its_share_and_the_same_users_when_it_grows() {
    let taken = |share: &str| -> BTreeSet<String> {
        let world = World::new(FLEET, &format!("canary share={share} -> label.track=canary\n"));
        users(20_000).filter(|user| world.ask(user, 1, &[]).decided == Decided::Rule("canary")).collect()
    };
    let (small, large) = (taken("2.5%"), taken("10%"));
    assert!((430..570).contains(&small.len()), "{}", small.len());
    assert!((1_850..2_150).contains(&large.len()), "{}", large.len());
    assert!(small.is_subset(&large));
    assert_eq!(taken("100%").len(), 20_000);
    // Another rule's share is of other users.
    let world = World::new(FLEET, "beta share=10% -> nodes=d\n");
    let beta = users(20_000).filter(|user| world.ask(user, 1, &[]).decided == Decided::Rule("beta"));
    let both = beta.filter(|user| large.contains(user)).count();
    assert!((140..270).contains(&both), "a tenth of a tenth: {both}");
}

#[test]
fn without_members_the_static_list_answers() {
    let mut world = World::new("e ws=ws://e state=draining\nx\n", "");
    let request = Request { user: "u", platform: None, labels: &[] };
    assert_eq!(world.policy.decide(&request, None), None);
    assert_eq!(world.policy.decide(&request, Some(world.cluster())), None);
    world.policy.fallback = ["wss://1", "wss://2", "wss://3", "wss://4"].map(str::to_owned).to_vec();
    let unknown = world.policy.decide(&request, None).unwrap();
    assert_eq!((unknown.decided, unknown.choices.len(), unknown.ttl_ms), (Decided::Fallback, 3, 5_000));
    assert_eq!(world.policy.decide(&request, Some(world.cluster())), Some(unknown), "nobody is open");
    let first = |user: &str| world.policy.decide(&Request { user, ..request }, None).unwrap().urls()[0];
    let counts = ["wss://1", "wss://2", "wss://3", "wss://4"]
        .map(|url| users(4_000).filter(|user| first(user) == url).count());
    assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
}

#[test]
fn bad_rules_are_all_named_with_what_to_write() {
    let text = "\
a users=u
users=u -> nodes=a
b -> 
c usr=u -> nodes=a
d users=u, -> nodes=a
e platform=tv -> nodes=a
f share=0% -> nodes=a
g share=2.55% -> nodes=a
h label.=eu -> nodes=a
i -> node=a
j -> nodes=a:0
k -> nodes=ws://a
l -> nodes=a
l -> nodes=b
m users=* -> nodes=a
n share=101% -> nodes=a
";
    let said: Vec<_> = rules::parse(text).unwrap_err().iter().map(ToString::to_string).collect();
    for (said, want) in said.iter().zip([
        "line 1: write NAME CONDITION.. -> nodes=ID,ID or label.NAME=VALUE",
        "line 2: write a name before the conditions",
        "line 3: no nodes behind the arrow; write nodes=ID,ID or label.NAME=VALUE",
        "line 4: \"usr=u\": conditions are users=, platform=, share= and label.NAME=",
        "line 5: users=u,: write ids or prefixes like qa-*; without users= all are meant",
        "line 6: platform=tv: write a number from 1 to 11 or a name like Web or IOS",
        "line 7: share=0%: write 0.1% to 100%",
        "line 8: share=2.55%: write 0.1% to 100%",
        "line 9: \"label.=eu\": conditions are users=, platform=, share= and label.NAME=",
        "line 10: \"node=a\": behind the arrow stands nodes= or label.NAME=",
        "line 11: a:0: a weight is from 1 to 10000",
        "line 12: ws://a: a weight is from 1 to 10000",
        "line 14: another rule is called l; answers name the rule, so choose another name",
        "line 15: users=*: write ids or prefixes like qa-*; without users= all are meant",
        "line 16: share=101%: write 0.1% to 100%",
    ]) {
        assert_eq!(said, want);
    }
    assert_eq!(said.len(), 15);
}

#[test]
fn rules_and_their_users_have_limits() {
    let lines = |count: usize| (0..count).map(|n| format!("r{n} -> nodes=a\n")).collect::<String>();
    assert_eq!(rules::parse(&lines(ASSIGN_RULES_MAX)).unwrap().len(), ASSIGN_RULES_MAX);
    let said = rules::parse(&lines(ASSIGN_RULES_MAX + 2)).unwrap_err();
    assert_eq!((said.len(), said[0].line), (1, ASSIGN_RULES_MAX + 1));
    let listed = |count: usize| rules::parse(&format!("r users={} -> nodes=a", vec!["u"; count].join(",")));
    assert!(listed(ASSIGN_USERS_MAX).is_ok() && listed(ASSIGN_USERS_MAX + 1).is_err());
}

proptest! {
    /// Whatever the states, standings and rules, only active members with an address that answer are handed out, each once.
    #[test]
    fn only_active_members_are_handed_out(
        states in proptest::collection::vec((0_usize..4, any::<bool>(), 0_u16..1200, 0_u32..8), 1..8),
        pinned in 0_usize..8,
        user in "[a-z]{0,6}",
    ) {
        let mut members = Vec::new();
        let mut standings = Standings::default();
        for (n, (state, address, load, misses)) in states.iter().enumerate() {
            let mut member = Member::new(id(&format!("n{n}")));
            member.state = crate::placement::view::MemberState::ALL[*state];
            member.ws_url = if *address { format!("ws://n{n}") } else { String::new() };
            let takes = if *misses == 7 { Takes::Nobody } else { Takes::Clients };
            standings.heard(&member.node_id, told(*load, takes));
            (0..*misses % 7).for_each(|_| drop(standings.missed(&member.node_id)));
            members.push(member);
        }
        let view = View::new(crate::placement::view::Epoch(1), members);
        let fine = |member: &&Member| {
            let n: usize = member.node_id.as_str()[1..].parse().unwrap();
            states[n].3 < ASSIGN_MISSES_MAX
        };
        let open: BTreeSet<&str> = view.active().filter(|member| !member.ws_url.is_empty()).filter(fine).map(|member| member.ws_url.as_str()).collect();
        let placement = view.placement(&Algorithm::Rendezvous);
        let policy = Policy { rules: rules::parse(&format!("pin -> nodes=n{pinned}")).unwrap(), ..Policy::default() };
        let request = Request { user: &user, platform: None, labels: &[] };
        let cluster = Cluster { view: &view, placement: &placement, standings: &standings };
        let found = policy.decide(&request, Some(cluster));
        prop_assert_eq!(found.is_some(), !open.is_empty());
        let Some(found) = found else { return Ok(()) };
        let named: BTreeSet<&str> = found.urls().into_iter().collect();
        prop_assert!(named.is_subset(&open) && named.len() == found.choices.len() && !named.is_empty());
        let pin = format!("ws://n{pinned}");
        let is_pinned = open.contains(pin.as_str());
        prop_assert_eq!(found.decided, if is_pinned { Decided::Rule("pin") } else { Decided::Placement });
        prop_assert_eq!(found.choices.len(), if is_pinned { 1 } else { open.len().min(3) });
        prop_assert_eq!(policy.decide(&request, Some(cluster)), Some(found));
    }
}
