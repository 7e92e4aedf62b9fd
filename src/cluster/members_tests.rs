//! Tests of member lists: what is read, and what is said of what cannot be.

use super::*;

fn faults(text: &str) -> Vec<String> {
    MemberList::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_line_is_a_node_with_its_attributes() {
    let text = "\
# the fleet
gw-0 weight=200 rpc=10.0.0.7:10140 ws=wss://g0.im.example label.region=eu label.a=b # the large one

gw-1 state=draining
gw-2
";
    let list = MemberList::parse(text).unwrap();
    let names: Vec<_> = list.members.iter().map(|listed| listed.hashed.as_str()).collect();
    assert_eq!((list.scheme, names), (Scheme::Rendezvous, vec!["gw-0", "gw-1", "gw-2"]));
    let first = &list.members[0].member;
    assert_eq!((first.weight.value(), first.rpc_addr.as_str()), (200, "10.0.0.7:10140"));
    assert_eq!((first.ws_url.as_str(), first.has_label("region", "eu")), ("wss://g0.im.example", true));
    assert_eq!(list.view().active().count(), 2);
    let users: Vec<_> = (0..50).map(|n| format!("user{n}")).collect();
    assert!(users.iter().all(|user| list.homes().home(user).unwrap().as_str() != "gw-1"));
    assert!(users.iter().all(|user| list.homes().ranked(user, 9).len() == 2));
}

#[test]
fn a_ring_hashes_the_string_and_knows_the_node_behind_it() {
    let text = "placement openim-ring\nhost-a:88\nhost-b:88 node=b rpc=10.0.0.8:88\n[::1]:88 node=c\n";
    let list = MemberList::parse(text).unwrap();
    let seen: Vec<_> = list.members.iter().map(|l| (l.hashed.as_str(), l.member.node_id.as_str())).collect();
    assert_eq!(seen, [("host-a:88", "host-a"), ("host-b:88", "b"), ("[::1]:88", "c")]);
    let ring = Ring::new(["host-a:88", "host-b:88", "[::1]:88"]);
    let Homes::OpenImRing(made, _) = list.homes() else { panic!() };
    assert_eq!(made, ring);
}

#[test]
fn pods_are_named_as_openim_names_them() {
    let list =
        MemberList::parse("placement openim-ring\npods openimserver namespace=default replicas=3\n").unwrap();
    let set = "openimserver-openim-msggateway";
    let host = format!("{set}-2.{set}-headless.default.svc.cluster.local");
    assert_eq!(list.members[2].hashed, format!("{host}:88"));
    assert_eq!(list.members[2].member.node_id.as_str(), host);
    let proxy = MemberList::parse(
        "placement openim-ring\npods openimserver namespace=default replicas=3 port=none\n",
    );
    assert_eq!(proxy.unwrap().members[2].hashed, host);
    // Spec A.6.
    assert_eq!(list.homes().home("user2").map(|id| id == &list.members[1].member.node_id), Some(true));
}

#[test]
fn bad_lines_are_all_named_with_what_to_write() {
    let text = "gw-0\n\n10.0.0.7:88\ngw-1 weight=0\ngw-2 state=idle\ngw-3 rpc=host\ngw-4 ws=http://x\ngw-5 wieght=2\n\
                gw-6 weight\ngw-0\nplacement openim-ring\n-x\ngw-7 node=gw-8\npods x\ngw-9 rpc=host:0\n";
    let said = faults(text);
    for (said, want) in said.iter().zip([
        "line 3: \"10.0.0.7:88\": a node id has letters, digits, '-', '_' and '.', not ':'; an address is no identity; \
         name the node and give the address as rpc=HOST:PORT",
        "line 4: weight=0: write a number from 1 to 10000",
        "line 5: state=idle: write joining, active, draining or lost",
        "line 6: rpc=host: write HOST:PORT, for an IPv6 address [ADDRESS]:PORT",
        "line 7: ws=http://x: write what clients dial, ws://HOST:PORT or wss://HOST",
        "line 8: wieght= is not known; the names are weight, state, rpc, ws, node, label.NAME",
        "line 9: \"weight\": write name=value behind the node; the names are weight, state, rpc, ws, node, label.NAME",
        "line 10: gw-0 is listed already; keep one of the lines",
        "line 11: `placement` comes before the members; move it up",
        "line 12: \"-x\": a node id starts with a letter or digit, not with '-'",
        "line 13: node= is for `placement openim-ring`; here the first word is the node",
        "line 14: write pods RELEASE namespace=NAME replicas=COUNT, and port=none for what OpenIM's proxy hashes",
        "line 15: rpc=host:0: write HOST:PORT, for an IPv6 address [ADDRESS]:PORT",
    ]) {
        assert_eq!(said, want);
    }
    assert_eq!(said.len(), 13);
    for (rpc, good) in [
        ("[::1]:10140", true),
        ("host.it:10140", true),
        ("::1:10140", false),
        ("[::1:10140", false),
        ("[host]:10140", false),
        (":10140", false),
        ("10.0.0.7:99999", false),
    ] {
        assert_eq!(MemberList::parse(&format!("a rpc={rpc}")).is_ok(), good, "{rpc}");
    }
    assert_eq!(faults("# nobody\n"), ["no member; write one node id per line"]);
    let twice = faults("placement openim-ring\nh:1\nh:2\nplacement ring\n");
    assert_eq!(twice[0], "line 3: h is listed already; tell them apart with node=NAME");
    assert_eq!(faults("placement ring\n").len(), 1);
}

#[test]
fn a_list_has_at_most_members_max_members() {
    let lines = |count: usize| (0..count).map(|n| format!("gw-{n}\n")).collect::<String>();
    assert_eq!(MemberList::parse(&lines(MEMBERS_MAX)).unwrap().members.len(), MEMBERS_MAX);
    let said = faults(&lines(MEMBERS_MAX + 1));
    assert!(said[0].starts_with("line 1025: more than 1024 members"), "{said:?}");
}
