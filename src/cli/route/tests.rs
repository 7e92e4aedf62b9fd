//! Tests of `pinion route`: what is printed for given files, and what is said of bad ones.

use super::*;

/// Runs a command line over files with these texts, named by their number.
fn asked(files: &[&str], arguments: &str) -> Done {
    let folder = tempfile::tempdir().unwrap();
    let place = |n: usize| folder.path().join(n.to_string());
    for (n, text) in files.iter().enumerate() {
        std::fs::write(place(n), text).unwrap();
    }
    let name = |word: &str| match word.strip_prefix('@') {
        Some(n) => place(n.parse().unwrap()).display().to_string(),
        None => word.replace('_', " "),
    };
    let words = ["route".to_owned()].into_iter().chain(arguments.split(' ').map(name));
    let matches = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
    let done = match matches.subcommand().unwrap() {
        ("where", matches) => where_is(matches),
        ("diff", matches) => diff(matches),
        (_, matches) => rehearse(matches),
    };
    let short = |text: String| text.replace(&format!("{}/", folder.path().display()), "");
    done.map(|(text, code)| (short(text), code)).map_err(short)
}

const PUSH: &str = "placement openim-ring\npods openimserver namespace=openim-lin replicas=5\n";
const PROXY: &str = "placement openim-ring\npods openimserver namespace=openim-lin replicas=5 port=none\n";
const FLEET: &str = "gw-0 ws=ws://g0 label.track=canary\ngw-1 ws=ws://g1\ngw-2 ws=ws://g2 rpc=h2:88\n";

#[test]
fn diff_shows_incident_2_on_a_fleet_and_what_to_do() {
    let (text, code) = asked(&[PUSH, PROXY], "diff @0 @1").unwrap();
    let host = "openimserver-openim-msggateway-0.openimserver-openim-msggateway-headless.openim-lin.svc.cluster.local";
    assert_eq!(code, EXIT_FAILED);
    assert!(text.contains("78.6 % of user0 to user99999 differ"), "{text}");
    assert!(
        text.contains(&format!("5 nodes are hashed with a port on one side only: A {host}:88, B {host}\n")),
        "{text}"
    );
    assert!(text.contains("let push ask every gateway"), "{text}");
    // The same pods as Pinion places them.
    let by_id = |text: &str| text.replace("openim-ring", "rendezvous");
    let (text, code) = asked(&[&by_id(PUSH), &by_id(PROXY)], "diff @0 @1").unwrap();
    assert_eq!(code, 0);
    assert!(text.ends_with("0.0 % of user0 to user99999 differ: 0 of 100000\n"), "{text}");
    let prints: Vec<_> = text.split("fingerprint ").skip(1).map(|rest| &rest[..16]).collect();
    assert!(prints.len() == 2 && prints[0] == prints[1], "{text}");
}

#[test]
fn where_names_home_alternatives_and_the_rule() {
    let (text, code) = asked(&[FLEET], "where user1 --members @0").unwrap();
    assert_eq!(code, 0);
    for part in [
        "user       user1\n",
        "home       gw-",
        "then       gw-",
        "rendezvous, 3 of 3 members active, fingerprint",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let rules =
        "staff users=boss -> nodes=gw-9\nvip users=boss platform=Web label.tenant=acme -> nodes=gw-0\n";
    let ask = |arguments: &str| {
        asked(&[FLEET, rules], &format!("where {arguments} --members @0 --rules @1")).unwrap().0
    };
    assert!(ask("user1").contains("no rule fits: by placement"));
    let text = ask("boss --platform Web --label tenant=acme");
    assert!(text.contains("assign     ws://g0, by rule vip"), "{text}");
    assert!(text.contains("rule staff fits and has no active node"), "{text}");
    let (text, _) = asked(&["gw-0 state=lost\n"], "where u --members @0 --rules @0").unwrap_or_default();
    assert_eq!(text, "", "a member list is no list of rules");
}

#[test]
fn rehearse_counts_who_moves_and_shows_each_node() {
    let (text, code) = asked(&[FLEET], "rehearse --members @0 --add gw-3_weight=50 --users 20000").unwrap();
    assert_eq!(code, 0);
    let share: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!((13.0..15.5).contains(&share), "50 of 350: {text}");
    assert!(text.contains("busiest afterwards: gw-") && text.lines().count() == 7, "{text}");
    let (text, _) =
        asked(&[FLEET, "a\nb\n\nc\n"], "rehearse --members @0 --remove gw-1 --users-file @1").unwrap();
    assert!(text.contains("users of 1 move: ") && text.contains(" of 3\n"), "{text}");
    // Another weight of a member: 100 of 300 before, 50 of 250 after.
    let weight = "rehearse --members @0 --remove gw-1 --add gw-1_weight=50 --users 20000";
    let (text, _) = asked(&[FLEET], weight).unwrap();
    let share: f64 = text.split(' ').next().unwrap().parse().unwrap();
    assert!((12.0..14.7).contains(&share), "1/3 less 1/5: {text}");
    let (text, _) = asked(&["a\n"], "rehearse --members @0 --remove a").unwrap();
    assert!(text.contains("no member is active"), "{text}");
}

#[test]
fn what_is_wrong_is_said_with_file_and_line() {
    for (files, arguments, said) in [
        (&["10.0.0.7:88\n"][..], "where u --members @0", "0: line 1: \"10.0.0.7:88\""),
        (&["", FLEET], "diff @0 @1", "0: no member; write one node id per line"),
        (&[FLEET], "diff @0 127.0.0.1:12140", "a running node is http://HOST:PORT"),
        (&[FLEET], "diff @0", "<B>"),
        (&[FLEET], "rehearse --members @0", "nothing to rehearse"),
        (&[FLEET], "rehearse --members @0 --remove gw-9", "no such member; there are [gw-0, gw-1, gw-2]"),
        (&[FLEET], "rehearse --members @0 --add gw-1", "--add \"gw-1\": gw-1 is listed already"),
        (&[FLEET], "rehearse --members @0 --add gw-3 --users 0", "0 is not in"),
        (&[FLEET, "\n"], "rehearse --members @0 --add gw-3 --users-file @1", "1: no user"),
        (&[FLEET, "x -> y\n"], "where u --members @0 --rules @1", "1: line 1: \"y\": behind the arrow"),
        (&[PUSH, "x -> nodes=y\n"], "where u --members @0 --rules @1", "take out `placement openim-ring`"),
        (&[FLEET], "where u --members @0 --label region", "expected NAME=VALUE"),
    ] {
        let why = asked(files, arguments).unwrap_err();
        assert!(why.contains(said), "{arguments}: {why}");
    }
}
