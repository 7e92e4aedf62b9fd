//! The members of a cluster as pods with leases, from a stand-in for the API server of Kubernetes.

use pinion::cluster::protocol::io::OwnRecord;
use pinion::control::membership::{KubernetesMembers, MembershipNews, MembershipOrder, SourcePlan};
use pinion::metrics::Metric;
use pinion::placement::view::MemberState;

use super::membership::{id, incarnation, plan};
use super::*;
use crate::harness::{ApiServer, Mood, NAMESPACE};

const SELECTOR: &str = "app=pinion";

fn node_of(server: &ApiServer, name: &str, selector: &str) -> Control {
    let members = KubernetesMembers {
        server: server.url(),
        account: server.account().to_owned(),
        namespace: NAMESPACE.into(),
        selector: selector.into(),
        lease_s: 3,
    };
    Control::start(|control| {
        control.discovery = Discovery::None;
        control.membership = Some(plan(name, SourcePlan::Kubernetes(Box::new(members))));
    })
}

fn node(server: &ApiServer, name: &str) -> Control {
    node_of(server, name, SELECTOR)
}

fn two_active() -> (ApiServer, [Control; 2]) {
    let server = ApiServer::start();
    server.set_pod("gw-0", "u-0", SELECTOR);
    server.set_pod("gw-1", "u-1", SELECTOR);
    let nodes = ["gw-0", "gw-1"].map(|name| node(&server, name));
    for node in &nodes {
        node.joined();
        node.order(MembershipOrder::Record(MemberState::Active));
    }
    for node in &nodes {
        node.await_members(&["gw-0 active", "gw-1 active"]);
    }
    (server, nodes)
}

#[test]
fn pods_with_a_lease_are_members_and_dead_ones_are_not() {
    let (server, [one, mut two]) = two_active();
    let (life, first_epoch, _) = one.joined();
    assert!(life.0 < first_epoch.0, "what was before the write, and the write");
    let view = one.view().unwrap();
    assert_eq!(incarnation(&view, "gw-0"), life);
    assert!(view.epoch() >= first_epoch && view.epoch() >= two.joined().1);
    // A pod without a lease has never registered; one of another selector is of another cluster.
    server.set_pod("gw-2", "u-2", SELECTOR);
    server.set_pod("other", "u-3", "app=other");
    let other = node_of(&server, "other", "app=other");
    other.await_members(&["other joining"]);
    // Killed: lost, by this node's own clock. Its pod is deleted: gone.
    two.kill();
    let lost = one.await_members(&["gw-0 active", "gw-1 lost"]);
    assert!(lost.epoch() > view.epoch(), "the router takes it for news");
    server.delete_pod("gw-1");
    one.await_members(&["gw-0 active"]);
    // The next pod of that name is another life.
    server.set_pod("gw-1", "u-4", SELECTOR);
    let two = node(&server, "gw-1");
    let view = one.await_members(&["gw-0 active", "gw-1 joining"]);
    assert!(incarnation(&view, "gw-1") > incarnation(&lost, "gw-1"));
    assert_eq!(two.joined().0, incarnation(&view, "gw-1"));
}

#[test]
fn a_node_whose_lease_had_ended_registers_anew() {
    let (server, nodes) = two_active();
    let views = nodes.each_ref().map(|node| node.view());
    server.be(Mood::Away);
    server.cut();
    for (node, view) in nodes.iter().zip(&views) {
        node.await_metric(Metric::LeaseRenewalsFailed, 1);
        node.await_end_of_lease();
        assert_eq!(node.view(), *view, "the last known members stand");
    }
    server.be(Mood::Well);
    for node in &nodes {
        node.await_own(OwnRecord::Lost);
        node.order(MembershipOrder::Register(MemberState::Active));
    }
    for node in &nodes {
        let epoch = node.await_recorded();
        eventually("a view that has it", || {
            let view = node.view()?;
            (view.active().count() == 2 && view.epoch() >= epoch).then_some(())
        });
    }
}

/// Who is missing in the list of pods counts as dead, so only a whole list counts.
#[test]
fn an_answer_that_is_no_whole_list_of_pods_proves_nobody_dead() {
    let (server, nodes) = two_active();
    let one = &nodes[0];
    const PART: &str =
        r#"{"kind":"PodList","metadata":{"resourceVersion":"9","continue":"more"},"items":[]}"#;
    const STATUS: &str = r#"{"kind":"Status","metadata":{},"status":"Failure","message":"odd"}"#;
    for (status, body, said) in [
        ("404 Not Found", STATUS, "404"),
        ("409 Conflict", STATUS, "409"),
        ("410 Gone", STATUS, "410"),
        ("429 Too Many Requests", STATUS, "429"),
        ("500 Internal Server Error", STATUS, "500"),
        ("200 OK", PART, "not a whole list"),
        ("200 OK", STATUS, "not a whole list"),
        ("200 OK", "{}", "not a whole list"),
    ] {
        server.be(Mood::Odd(status, body));
        let failures = one.block.value(Metric::MembershipFailures);
        // The second one was asked for after the mood changed.
        one.await_metric(Metric::MembershipFailures, failures + 2);
        one.await_trouble(said);
        let members: Vec<_> = one.view().unwrap().active().map(|m| m.node_id.to_string()).collect();
        assert_eq!(members, ["gw-0", "gw-1"], "{status} {body}");
    }
    server.be(Mood::Well);
    one.await_no_trouble();
    server.delete_pod("gw-1");
    one.await_members(&["gw-0 active"]);
}

#[test]
fn leases_are_deleted_by_who_leaves_and_by_who_forgets_and_else_written_again() {
    let (server, [one, mut two]) = two_active();
    server.delete_lease("pinion-gw-0");
    one.await_own(OwnRecord::Lost);
    one.order(MembershipOrder::Register(MemberState::Active));
    one.await_recorded();
    let life = incarnation(&two.await_members(&["gw-0 active", "gw-1 active"]), "gw-1");
    one.order(MembershipOrder::Forget(id("gw-1"), life, None)); // alive: pointless
    two.kill();
    one.await_members(&["gw-0 active", "gw-1 lost"]);
    assert!(server.lease("pinion-gw-1").is_some());
    one.order(MembershipOrder::Forget(id("gw-1"), life, None));
    one.await_members(&["gw-0 active"]);
    one.await_metric(Metric::RecordsForgotten, 1);
    assert_eq!(server.lease("pinion-gw-1"), None);
    let mut one = one;
    one.order(MembershipOrder::Leave);
    one.end(Leases::Leave);
    assert_eq!(server.lease("pinion-gw-0"), None);
}

#[test]
fn a_node_that_is_no_pod_waits_and_a_later_life_ends_it() {
    let server = ApiServer::start();
    let one = node(&server, "gw-0");
    one.await_metric(Metric::MembershipFailures, 2);
    assert_eq!(one.membership(), []);
    server.set_pod("gw-0", "u-0", SELECTOR);
    one.joined();
    let later = node(&server, "gw-0");
    assert!(later.joined().0 > one.joined().0);
    one.await_own(OwnRecord::Gone);
    let gone = |news: &MembershipNews| matches!(news, MembershipNews::Regained { own: OwnRecord::Gone, .. });
    assert!(!later.membership().iter().any(gone));
}
