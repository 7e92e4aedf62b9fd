//! The members of a cluster, only looked at: nothing is written, and who is silent is lost.

use pinion::cluster::endpoints::Confirmation;
use pinion::control::membership::{
    EtcdMembers, KubernetesMembers, MembershipOrder, MembershipPlan, SourcePlan,
};
use pinion::control::plan::EtcdServers;
use pinion::metrics::Metric;
use pinion::placement::view::{Member, MemberState};
use serde_json::json;

use super::membership::{id, plan};
use super::servers::{Etcd, Front};
use super::*;
use crate::harness::{ApiServer, Mood, NAMESPACE};

const CONFIRMED: Confirmation = Confirmation { observations: 2, over_ms: 100 };

fn onlooker(source: SourcePlan) -> Control {
    Control::start(|control| {
        control.discovery = Discovery::None;
        control.membership = Some(MembershipPlan { own: None, source, confirmation: CONFIRMED });
    })
}

fn in_etcd(address: impl ToString) -> SourcePlan {
    SourcePlan::Etcd(Box::new(EtcdMembers {
        servers: EtcdServers { addresses: vec![address.to_string()], credentials: None, tls: None },
        root: "pinion".into(),
        lease_s: 3,
    }))
}

/// Revision of the store: grows with each write.
fn revision(etcd: &Etcd) -> String {
    let answer = etcd.call("/v3/kv/range", &json!({ "key": "YQ==" }));
    answer["header"]["revision"].as_str().unwrap().to_owned()
}

fn record(etcd: &Etcd, name: &str, state: MemberState) {
    let member = Member { state, ..Member::new(id(name)) };
    etcd.put(&format!("pinion/nodes/{name}"), &serde_json::to_string(&member).unwrap());
    etcd.put(&format!("pinion/live/{name}/1"), "alive");
}

#[test]
fn records_in_etcd_are_looked_at_and_left_alone() {
    let etcd = Etcd::start();
    let front = Front::new();
    let looks = onlooker(in_etcd(front.address));
    looks.await_discovery(DiscoveryState::Stale);
    assert_eq!(looks.view(), None, "nothing was ever heard");
    for (name, state) in
        [("one", MemberState::Active), ("two", MemberState::Draining), ("three", MemberState::Active)]
    {
        record(&etcd, name, state);
    }
    let before = revision(&etcd);
    front.open(etcd.0.address);
    looks.await_discovery(DiscoveryState::Current);
    looks.await_members(&["one active", "three active", "two draining"]);
    record(&etcd, "two", MemberState::Active);
    looks.await_members(&["one active", "three active", "two active"]);
    // Its sign of life goes: lost here, and the record is not this process's to change.
    etcd.delete("pinion/live/one/1");
    looks.await_members(&["one lost", "three active", "two active"]);
    assert!(etcd.get("pinion/nodes/one").unwrap().0.contains("active"));
    etcd.put("pinion/live/one/1", "alive");
    let view = looks.await_members(&["one active", "three active", "two active"]);
    // The source is away: the last view stands.
    front.cut();
    looks.await_discovery(DiscoveryState::Stale);
    assert_eq!(looks.view(), Some(view));
    assert_eq!(looks.block.value(Metric::LeaseRenewals), 0);
    let writes = revision(&etcd).parse::<u64>().unwrap() - before.parse::<u64>().unwrap();
    assert_eq!(writes, 4, "those of this test");
    let refused = looks.address.membership(MembershipOrder::Leave);
    assert!(refused.is_ok(), "an order is taken and does nothing");
}

#[test]
fn nodes_that_die_all_at_once_are_lost_when_that_is_confirmed() {
    let etcd = Etcd::start();
    for name in ["one", "two"] {
        record(&etcd, name, MemberState::Active);
    }
    let looks = onlooker(in_etcd(etcd.0.address));
    looks.await_members(&["one active", "two active"]);
    // Nobody is left who would write it down.
    etcd.delete("pinion/live/one/1");
    etcd.delete("pinion/live/two/1");
    looks.await_metric(Metric::ViewsHeld, 1);
    looks.await_members(&["one lost", "two lost"]);
}

/// There is nothing that this process has written there, so it need not be restarted.
#[test]
fn an_etcd_that_was_replaced_is_believed_once_it_is_confirmed() {
    let (first, second) = (Etcd::start(), Etcd::start());
    record(&first, "one", MemberState::Active);
    record(&second, "two", MemberState::Active);
    let front = Front::new();
    front.open(first.0.address);
    let looks = onlooker(in_etcd(front.address));
    looks.await_members(&["one active"]);
    front.cut();
    front.open(second.0.address);
    looks.await_metric(Metric::ViewsHeld, 2); // another source, and a view that is not confirmed
    looks.await_members(&["two active"]);
}

#[test]
fn leases_of_pods_are_looked_at_and_left_alone() {
    let server = ApiServer::start();
    let members = || KubernetesMembers {
        server: server.url(),
        account: server.account().to_owned(),
        namespace: NAMESPACE.into(),
        selector: "app=pinion".into(),
        lease_s: 3,
    };
    let looks = onlooker(SourcePlan::Kubernetes(Box::new(members())));
    looks.await_discovery(DiscoveryState::Current);
    server.set_pod("gw-0", "u-0", "app=pinion");
    server.set_pod("gw-1", "u-1", "app=pinion");
    let mut nodes = ["gw-0", "gw-1"].map(|name| {
        Control::start(|control| {
            control.discovery = Discovery::None;
            control.membership = Some(plan(name, SourcePlan::Kubernetes(Box::new(members()))));
        })
    });
    for node in &nodes {
        node.joined();
        node.order(MembershipOrder::Record(MemberState::Active));
    }
    looks.await_members(&["gw-0 active", "gw-1 active"]);
    nodes[0].order(MembershipOrder::Record(MemberState::Draining));
    let view = looks.await_members(&["gw-0 draining", "gw-1 active"]);
    server.be(Mood::Away);
    server.cut();
    looks.await_discovery(DiscoveryState::Stale);
    assert_eq!(looks.view(), Some(view));
    server.be(Mood::Well);
    looks.await_discovery(DiscoveryState::Current);
    // All of them die: no renewal brings a later version, and they are lost none the less.
    nodes.iter_mut().for_each(Control::kill);
    looks.await_members(&["gw-0 lost", "gw-1 lost"]);
    assert_eq!(looks.block.value(Metric::LeaseRenewals), 0);
    assert!(server.lease("pinion-gw-0").is_some() && server.lease("pinion-gw-1").is_some());
}
