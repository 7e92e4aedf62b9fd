//! Lists that are taken, refused and changed under a watcher.

use super::*;

fn source(dir: &tempfile::TempDir, text: &str, scheme: Option<Scheme>) -> Source {
    let path = dir.path().join("members");
    std::fs::write(&path, text).unwrap();
    Source { path, scheme }
}

fn addresses(routes: &Routes) -> Vec<String> {
    let all = routes.ranked("u");
    let mut said: Vec<String> = all.iter().map(|(id, all)| format!("{id} {all:?}")).collect();
    said.sort_unstable();
    said
}

#[test]
fn a_change_counts_and_a_fault_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let source = source(&dir, "a ws=ws://127.0.0.1:1\n", None);
    let path = source.path.clone();
    let (mut watcher, routes) = Watcher::start(source, Mono(0)).unwrap();
    assert_eq!(addresses(&routes), ["a [127.0.0.1:1]"]);
    assert!(watcher.look(Mono(1)).is_none(), "nothing has changed");
    std::fs::write(&path, "a ws=ws://127.0.0.1:1\nb label.proxy=127.0.0.1:2\n").unwrap();
    let routes = watcher.look(Mono(2)).unwrap();
    assert_eq!(addresses(&routes), ["a [127.0.0.1:1]", "b [127.0.0.1:2]"]);
    let bad = |watcher: &Watcher| watcher.block.value(ProxyMetric::MembersBad);
    for (n, text) in
        ["", "a b c", "a ws=wss://x", "a ws=ws://127.0.0.1:1 state=draining"].into_iter().enumerate()
    {
        std::fs::write(&path, text).unwrap();
        assert!(watcher.look(Mono(3)).is_none(), "{text}");
        assert!(watcher.look(Mono(3)).is_none(), "{text}: said once");
        assert_eq!(bad(&watcher), n as u64 + 1, "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(watcher.look(Mono(4)).is_none());
    assert!(watcher.look(Mono(4)).is_none());
    assert_eq!((bad(&watcher), watcher.list().members.len()), (5, 2));
    std::fs::write(&path, "c ws=ws://127.0.0.1:3\n").unwrap();
    assert_eq!(addresses(&watcher.look(Mono(5)).unwrap()), ["c [127.0.0.1:3]"]);
}

#[test]
fn a_name_that_is_lost_keeps_its_address_and_one_that_never_was_keeps_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let text = "a ws=ws://localhost:1\nb ws=ws://no-such-host.invalid:2\n";
    let (mut watcher, routes) = Watcher::start(source(&dir, text, None), Mono(0)).unwrap();
    assert_eq!(routes.size(), (2, 1), "{routes:?}");
    assert!(watcher.look(Mono(PROXY_RESOLVE_MS - 1)).is_none(), "too early");
    let unresolved = |watcher: &Watcher| watcher.block.value(ProxyMetric::NamesUnresolved);
    assert_eq!(unresolved(&watcher), 1);
    assert!(watcher.look(Mono(PROXY_RESOLVE_MS)).is_none(), "the addresses are the same");
    assert_eq!(unresolved(&watcher), 2, "it was asked again");
}

#[test]
fn faults_name_their_line_and_the_placement_has_one_source() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        |text: &str, scheme| Watcher::start(source(&dir, text, scheme), Mono(0)).map(|(watcher, _)| watcher);
    let why = start("a ws=ws://x:1\nb weight=0\n", Some(Scheme::Rendezvous)).unwrap_err();
    assert!(why.contains("line 2: ") && why.contains("weight=0"), "{why}");
    let why = start("placement rendezvous\na ws=ws://127.0.0.1:1\n", Some(Scheme::OpenImRing)).unwrap_err();
    assert!(why.contains("--placement says openim-ring"), "{why}");
    let why = start("a\n", None).unwrap_err();
    assert!(why.contains("where is it dialled?"), "{why}");
    assert!(Watcher::start(Source { path: dir.path().join("none"), scheme: None }, Mono(0)).is_err());
    // As OpenIM's own proxy: pods at port 80 of their names, hashed without a port.
    let ring = start("pods im namespace=ns replicas=2 port=none\n", Some(Scheme::OpenImRing)).unwrap();
    let dials: Vec<_> = ring.list().active().map(|listed| dialled(&listed.member).unwrap()).collect();
    assert_eq!(
        dials.first().unwrap(),
        &("im-openim-msggateway-0.im-openim-msggateway-headless.ns.svc.cluster.local".to_owned(), 80)
    );
}
