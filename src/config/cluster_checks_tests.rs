//! Tests of what `cluster.*` amounts to.

use super::super::fault::Faults;
use super::super::load::{Loaded, load};
use super::super::openim::Interface;
use super::super::sources::Sources;
use super::*;
use crate::time::UnixMs;

fn loaded(env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, Faults> {
    let sources = Sources {
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect(),
        ..Sources::default()
    };
    let interface = Interface { address: [10, 0, 0, 7].into(), up: true, loopback: false };
    let machine = Machine { cpus: vec![0, 1], quota: None, files_max: 20_000, interfaces: vec![interface] };
    load(&sources, &machine, UnixMs(0), || [1, 2])
}

#[track_caller]
fn check_fault(env: &[(&str, &str)], flags: &[(&'static str, &str)], key: &str, why: &str) {
    let faults = loaded(env, flags).unwrap_err();
    let [fault] = &faults.0[..] else { panic!("{faults}") };
    assert!(fault.key == key && fault.expected.contains(why), "{faults}");
}

#[test]
fn a_node_is_named_as_its_pod_or_its_host() {
    const ETCD: (&str, &str) = ("cluster.source", "etcd");
    let name = |env: &[(&str, &str)], flags: &[(&'static str, &str)]| {
        loaded(env, flags).unwrap().config.cluster.node_id.map(|id| id.to_string())
    };
    assert_eq!(name(&[("MY_POD_NAME", "gw-1")], &[]), None, "alone it needs no name");
    assert_eq!(name(&[("MY_POD_NAME", "gw-1"), ("POD_NAME", "x")], &[ETCD]).as_deref(), Some("gw-1"));
    assert_eq!(name(&[("MY_POD_NAME", ""), ("POD_NAME", "gw-2 ")], &[ETCD]).as_deref(), Some("gw-2"));
    let given = [ETCD, ("cluster.node_id", "gw-3")];
    assert_eq!(name(&[("POD_NAME", "gw-2")], &given).as_deref(), Some("gw-3"));
    let host = std::fs::read_to_string(HOST_NAME).unwrap();
    assert_eq!(name(&[], &[ETCD]).as_deref(), Some(host.trim()));
    let loaded = loaded(&[("POD_NAME", "gw-2")], &[ETCD]).unwrap();
    assert_eq!(*loaded.origin("cluster.node_id"), Origin::Derived("POD_NAME".into()));
    let why = "POD_NAME is \"a:1\": a node id has letters, digits, '-', '_' and '.', not ':'";
    check_fault(&[("POD_NAME", "a:1")], &[ETCD], "cluster.node_id", why);
}

#[test]
fn a_list_must_be_there_be_good_have_this_node_and_place_as_it_does() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("members");
    let text = path.display().to_string();
    let flags = |more: &[(&'static str, &'static str)]| {
        let text: &'static str = text.clone().leak();
        let own = [("cluster.source", "static"), ("cluster.node_id", "gw-0"), ("cluster.members", text)];
        own.iter().chain(more).copied().collect::<Vec<_>>()
    };
    let key = "cluster.members";
    check_fault(&[], &flags(&[])[..2], key, "needs the list of all nodes");
    check_fault(&[], &flags(&[]), key, "No such file");
    for (list, why) in [
        ("", "no member"),
        ("gw-0\n10.0.0.7:88\n", "line 2: "),
        ("gw-1\ngw-2\n", "this node is gw-0 (cluster.node_id), and the list has gw-1, gw-2"),
        ("placement openim-ring\ngw-0:88\n", "`placement openim-ring`, and cluster.placement is rendezvous"),
    ] {
        std::fs::write(&path, list).unwrap();
        check_fault(&[], &flags(&[]), key, why);
    }
    std::fs::write(&path, "placement openim-ring\ngw-0:88\n").unwrap();
    assert!(loaded(&[], &flags(&[("cluster.placement", "ring {node_id}:88")])).is_ok());
    let other = flags(&[("cluster.placement", "ring {node_id}")]);
    check_fault(&[], &other, key, "hashes gw-0:88, and cluster.placement gw-0: write the same");
    std::fs::write(&path, "gw-0\ngw-1\n").unwrap();
    assert!(loaded(&[], &flags(&[])).is_ok());
    // What is not used is not read.
    let unused = [("cluster.members", "/no/where")];
    assert!(loaded(&[], &unused).is_ok());
}

#[test]
fn what_is_likely_not_meant_is_pointed_out() {
    let warnings = |flags: &[(&'static str, &str)]| loaded(&[], flags).unwrap().warnings;
    let plain = warnings(&[]).len();
    let route = warnings(&[("cluster.push_mode", "route")]);
    assert!(route.len() == plain + 1 && route[plain].starts_with("cluster.push_mode route: "), "{route:?}");
    let cluster =
        [("cluster.source", "etcd"), ("cluster.node_id", "gw-0"), ("assign.listen", "0.0.0.0:10003")];
    let assign = warnings(&cluster);
    assert!(assign.iter().any(|line| line.starts_with("cluster.ws_url is empty")), "{assign:?}");
    let with_url = warnings(&[&cluster[..], &[("cluster.ws_url", "ws://gw-0:10001/")]].concat());
    assert_eq!(with_url.len(), assign.len() - 1);
}

/// It runs when a node has died; whether it can is said before.
#[test]
fn a_hook_that_could_not_run_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let hook = folder.path().join("hook");
    let said = |more: &[(&'static str, &str)]| {
        let flags = [("cluster.source", "etcd"), ("cluster.adopt_hook", hook.to_str().unwrap())];
        let warnings = loaded(&[], &[&flags[..], more].concat()).unwrap().warnings;
        warnings.into_iter().find(|line| line.starts_with("cluster.adopt_hook")).unwrap_or_default()
    };
    const ADOPT: [(&str, &str); 1] = [("cluster.adopt", "gw-1=10.0.0.8:10001")];
    assert!(said(&[]).contains("never run"));
    assert!(said(&ADOPT).contains("No such file"));
    std::fs::write(&hook, "#!/bin/sh\n").unwrap();
    assert!(said(&ADOPT).contains("chmod +x"));
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(said(&ADOPT), "");
}
