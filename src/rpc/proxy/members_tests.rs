//! Lists that are taken, refused and changed under a watcher.

use super::*;
use crate::placement::view::Epoch;

fn source(dir: &tempfile::TempDir, text: &str, scheme: Option<Scheme>) -> Source {
    let path = dir.path().join("members");
    std::fs::write(&path, text).unwrap();
    Source { list: Some((path, scheme)), watched: None }
}

fn view(epoch: u64, list: &str) -> News {
    let members = MemberList::parse(list).unwrap().view().members().to_vec();
    News::Membership(Box::new(MembershipNews::View(View::new(Epoch(epoch), members))))
}

fn current(watcher: &Watcher) -> u64 {
    watcher.block.value(ProxyMetric::MembersCurrent)
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
    let path = dir.path().join("members");
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
        assert_eq!((bad(&watcher), current(&watcher)), (n as u64 + 1, 0), "{text}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(watcher.look(Mono(4)).is_none());
    assert!(watcher.look(Mono(4)).is_none());
    assert_eq!((bad(&watcher), watcher.members.active.len()), (5, 2));
    std::fs::write(&path, "c ws=ws://127.0.0.1:3\n").unwrap();
    assert_eq!(addresses(&watcher.look(Mono(5)).unwrap()), ["c [127.0.0.1:3]"]);
    assert_eq!(current(&watcher), 1);
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
    let nothing = Source { list: Some((dir.path().join("none"), None)), watched: None };
    assert!(Watcher::start(nothing, Mono(0)).is_err());
    // As OpenIM's own proxy: pods at port 80 of their names, hashed without a port.
    let ring = start("pods im namespace=ns replicas=2 port=none\n", Some(Scheme::OpenImRing)).unwrap();
    let dials: Vec<_> = ring.members.active.iter().map(|member| dialled(member).unwrap()).collect();
    assert_eq!(
        dials.first().unwrap(),
        &("im-openim-msggateway-0.im-openim-msggateway-headless.ns.svc.cluster.local".to_owned(), 80)
    );
}

#[test]
fn a_list_counts_until_the_source_has_told_and_the_last_view_stands() {
    let dir = tempfile::tempdir().unwrap();
    let mut source = source(&dir, "a ws=ws://127.0.0.1:1\n", None);
    source.watched = Some(Algorithm::Rendezvous);
    let (mut watcher, routes) = Watcher::start(source, Mono(0)).unwrap();
    assert_eq!((addresses(&routes), current(&watcher)), (vec!["a [127.0.0.1:1]".to_owned()], 0));
    std::fs::write(dir.path().join("members"), "b ws=ws://127.0.0.1:2\n").unwrap();
    assert_eq!(addresses(&watcher.look(Mono(1)).unwrap()), ["b [127.0.0.1:2]"]);
    assert!(watcher.hear(News::Discovery(DiscoveryState::Current), Mono(1)).is_none());
    assert_eq!(current(&watcher), 1);
    let told = view(
        7,
        "c ws=ws://127.0.0.1:3\nd ws=ws://127.0.0.1:4 state=draining\ne state=lost\nf ws=wss://f\n\
         g ws=ws://127.0.0.1:5",
    );
    let routes = watcher.hear(told, Mono(2)).unwrap();
    assert_eq!(addresses(&routes), ["c [127.0.0.1:3]", "f []", "g [127.0.0.1:5]"], "no draining or lost one");
    std::fs::write(dir.path().join("members"), "h ws=ws://127.0.0.1:9\n").unwrap();
    assert!(watcher.look(Mono(3)).is_none(), "the list does not count any more");
    assert!(watcher.hear(News::Discovery(DiscoveryState::Stale), Mono(4)).is_none(), "the last view stands");
    assert_eq!((current(&watcher), watcher.members.active.len()), (0, 3));
    assert!(watcher.look(Mono(5)).is_none());
    let routes = watcher.hear(view(8, "c ws=ws://127.0.0.1:3"), Mono(6)).unwrap();
    assert_eq!(addresses(&routes), ["c [127.0.0.1:3]"]);
}

#[test]
fn homes_of_a_view_are_those_of_the_cluster() {
    let list = "a ws=ws://127.0.0.1:1\nb ws=ws://127.0.0.1:2 weight=300\nc ws=ws://127.0.0.1:3";
    let placed = MemberList::parse(list).unwrap().view().placement(&Algorithm::Rendezvous);
    let source = Source { list: None, watched: Some(Algorithm::Rendezvous) };
    let (mut watcher, routes) = Watcher::start(source, Mono(0)).unwrap();
    assert_eq!(routes.size(), (0, 0), "nothing was heard");
    let routes = watcher.hear(view(1, list), Mono(1)).unwrap();
    for user in (0..50).map(|n| format!("u{n}")) {
        assert_eq!(routes.ranked(&user).first().map(|(id, _)| *id), placed.home(&user));
    }
}
