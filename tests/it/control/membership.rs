//! The members of a cluster in a real etcd: nodes join, are lost, come back, are forgotten and leave.

use pinion::cluster::endpoints::Confirmation;
use pinion::cluster::protocol::io::OwnRecord;
use pinion::control::membership::{EtcdMembers, MembershipNews, MembershipOrder, MembershipPlan, SourcePlan};
use pinion::control::plan::EtcdServers;
use pinion::metrics::Metric;
use pinion::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use pinion::time::Mono;
use rustix::process::Signal;

use super::servers::{Etcd, Front};
use super::*;

/// etcd itself gives no lease of less than two seconds.
const LEASE_S: u32 = 3;

pub(super) fn id(name: &str) -> NodeId {
    NodeId::new(name).unwrap()
}

pub(super) fn plan(name: &str, source: SourcePlan) -> MembershipPlan {
    MembershipPlan { own: Some(Member::new(id(name))), source, confirmation: CONFIRMATION }
}

fn node_at(address: impl ToString, root: &str, name: &str) -> Control {
    node_reached_at(address, root, (name, ""))
}

/// A node of that name with that `cluster.rpc_address`.
fn node_reached_at(address: impl ToString, root: &str, (name, rpc): (&str, &str)) -> Control {
    let members = EtcdMembers {
        servers: EtcdServers { addresses: vec![address.to_string()], credentials: None, tls: None },
        root: root.into(),
        lease_s: LEASE_S,
    };
    Control::start(|control| {
        control.discovery = Discovery::None;
        let confirmation = Confirmation { observations: 2, over_ms: 100 };
        let mut plan = plan(name, SourcePlan::Etcd(Box::new(members)));
        plan.own.as_mut().unwrap().rpc_addr = rpc.to_owned();
        control.membership = Some(MembershipPlan { confirmation, ..plan });
    })
}

fn node(etcd: &Etcd, name: &str) -> Control {
    node_at(etcd.0.address, "pinion", name)
}

impl Control {
    /// But for troubles.
    pub(super) fn membership(&self) -> Vec<MembershipNews> {
        let told = self.told().into_iter();
        let news = |news| if let News::Membership(news) = news { Some(*news) } else { None };
        told.filter_map(news).filter(|news| !matches!(news, MembershipNews::Trouble(_))).collect()
    }

    /// Waits until this is part of what keeps the node from its source, as it was told last.
    pub(super) fn await_trouble(&self, part: &str) -> String {
        eventually(&format!("trouble: {part}"), || self.trouble().filter(|trouble| trouble.contains(part)))
    }

    pub(super) fn await_no_trouble(&self) {
        eventually("the end of the trouble", || self.trouble().is_none().then_some(()));
    }

    fn trouble(&self) -> Option<String> {
        let last = self.told().into_iter().rev().find_map(|news| match news {
            News::Membership(news) => match *news {
                MembershipNews::Trouble(trouble) => Some(trouble),
                _ => None,
            },
            _ => None,
        });
        last.flatten()
    }

    pub(super) fn order(&self, order: MembershipOrder) {
        self.address.membership(order).unwrap();
    }

    /// Incarnation, first epoch, lease.
    pub(super) fn joined(&self) -> (Incarnation, Epoch, Mono) {
        eventually("a node that has joined", || {
            self.membership().into_iter().find_map(|news| match news {
                MembershipNews::Joined { incarnation, first_epoch, lease_until } => {
                    Some((incarnation, first_epoch, lease_until))
                }
                _ => None,
            })
        })
    }

    pub(super) fn view(&self) -> Option<View> {
        self.membership().into_iter().rev().find_map(|news| match news {
            MembershipNews::View(view) => Some(view),
            _ => None,
        })
    }

    /// Waits for a view with exactly these members, `name state` each.
    pub(super) fn await_members(&self, wanted: &[&str]) -> View {
        eventually(&format!("members {wanted:?}"), || {
            let view = self.view()?;
            let seen = view.members().iter().map(|m| format!("{} {}", m.node_id, m.state.name()));
            seen.eq(wanted.iter().map(ToString::to_string)).then_some(view)
        })
    }

    /// Waits until this was told of the own record, the `n`th time or later, with a lease that held then.
    pub(super) fn await_own(&self, wanted: OwnRecord) {
        eventually(&format!("{wanted:?}"), || {
            let mut told = self.membership().into_iter();
            told.any(|n| matches!(n, MembershipNews::Regained { own, .. } if own == wanted)).then_some(())
        });
    }

    pub(super) fn await_recorded(&self) -> Epoch {
        eventually("a new registration", || {
            self.membership().into_iter().find_map(|news| match news {
                MembershipNews::Recorded(epoch) => Some(epoch),
                _ => None,
            })
        })
    }

    /// Until when the lease holds, as told last.
    fn leased_until(&self) -> Mono {
        let told = self.membership().into_iter().rev().find_map(|news| match news {
            MembershipNews::Regained { until, .. } | MembershipNews::Lease(until) => Some(until),
            _ => None,
        });
        told.unwrap_or_else(|| self.joined().2)
    }

    pub(super) fn await_end_of_lease(&self) {
        eventually("the end of the lease", || (self.leased_until() < clock::now().mono).then_some(()));
    }

    /// Ends it as kill -9 does: nothing is revoked or deleted.
    pub(super) fn kill(&mut self) {
        self.thread.take().unwrap().end(Leases::Leave, Duration::ZERO);
    }
}

pub(super) fn incarnation(view: &View, name: &str) -> Incarnation {
    view.member(&id(name)).unwrap().incarnation
}

#[test]
fn nodes_join_as_joining_and_see_each_other() {
    let etcd = Etcd::start();
    let one = node(&etcd, "one");
    let (incarnation, first_epoch, lease_until) = one.joined();
    assert_eq!(incarnation.0, first_epoch.0, "the revision of the write");
    assert!(lease_until.0 <= clock::now().mono.0 + u64::from(LEASE_S) * 990, "less than etcd's own count");
    one.await_members(&["one joining"]);
    let two = node(&etcd, "two");
    two.joined();
    let view = two.await_members(&["one joining", "two joining"]);
    assert!(view.epoch() >= two.joined().1);
    one.order(MembershipOrder::Record(MemberState::Active));
    two.order(MembershipOrder::Record(MemberState::Draining));
    for node in [&one, &two] {
        let view = node.await_members(&["one active", "two draining"]);
        let one_there = view.member(&id("one")).unwrap();
        assert_eq!((one_there.incarnation, one_there.first_epoch), (incarnation, first_epoch));
        assert_eq!(one_there.registered_epoch, first_epoch, "the same registration");
    }
    let (_, lease) = etcd.get("pinion/nodes/one").unwrap();
    assert_eq!(lease, "0", "the record outlives the lease");
    let (_, lease) = etcd.get(&format!("pinion/live/one/{incarnation}")).unwrap();
    assert!(etcd.seconds_left(&lease).is_some());
    let epochs: Vec<Epoch> = one
        .membership()
        .into_iter()
        .filter_map(|news| if let MembershipNews::View(view) = news { Some(view.epoch()) } else { None })
        .collect();
    assert!(epochs.is_sorted() && epochs.iter().all(|epoch| *epoch >= first_epoch), "{epochs:?}");
    one.await_metric(Metric::MembersDraining, 1);
    one.await_metric(Metric::LeaseLeft, 1);
}

#[test]
fn a_dead_node_is_lost_and_comes_back_as_a_later_life() {
    let etcd = Etcd::start();
    let (one, mut two) = (node(&etcd, "one"), node(&etcd, "two"));
    one.joined();
    two.order(MembershipOrder::Record(MemberState::Active));
    one.order(MembershipOrder::Record(MemberState::Active));
    let before = one.await_members(&["one active", "two active"]);
    two.kill();
    let lost = one.await_members(&["one active", "two lost"]);
    assert_eq!(incarnation(&lost, "two"), incarnation(&before, "two"), "still accounted for");
    one.await_metric(Metric::RecordsLost, 1);
    let two = node(&etcd, "two");
    let back = one.await_members(&["one active", "two joining"]);
    assert!(incarnation(&back, "two") > incarnation(&before, "two"));
    assert_eq!(incarnation(&back, "two"), two.joined().0);
    assert_eq!(one.block.value(Metric::RecordsLost), 1);
}

#[test]
fn only_a_lost_record_of_that_life_and_registration_is_forgotten() {
    let etcd = Etcd::start();
    let (one, mut two) = (node(&etcd, "one"), node(&etcd, "two"));
    let before = one.await_members(&["one joining", "two joining"]);
    let life = incarnation(&before, "two");
    one.order(MembershipOrder::Forget(id("two"), life, None)); // alive: pointless
    two.kill();
    let lost = one.await_members(&["one joining", "two lost"]);
    let registered =
        lost.members().iter().find(|member| member.node_id == id("two")).unwrap().registered_epoch;
    one.order(MembershipOrder::Forget(id("two"), Incarnation(life.0 - 1), None)); // of another life: pointless
    one.order(MembershipOrder::Record(MemberState::Active));
    one.await_members(&["one active", "two lost"]);
    // Has registered since then: pointless.
    one.order(MembershipOrder::Forget(id("two"), life, Some(Epoch(registered.0 - 1))));
    one.order(MembershipOrder::Record(MemberState::Draining));
    one.await_members(&["one draining", "two lost"]);
    one.order(MembershipOrder::Forget(id("two"), life, Some(registered)));
    one.await_members(&["one draining"]);
    one.await_metric(Metric::RecordsForgotten, 1);
    assert_eq!(etcd.get("pinion/nodes/two"), None);
}

#[test]
fn who_leaves_takes_record_and_lease_away() {
    let etcd = Etcd::start();
    let (one, mut two) = (node(&etcd, "one"), node(&etcd, "two"));
    let view = one.await_members(&["one joining", "two joining"]);
    let life = format!("pinion/live/two/{}", incarnation(&view, "two"));
    assert!(etcd.get(&life).is_some());
    two.order(MembershipOrder::Record(MemberState::Draining));
    two.order(MembershipOrder::Leave);
    two.end(Leases::Leave); // what was ordered is done first
    assert_eq!((etcd.get("pinion/nodes/two"), etcd.get(&life)), (None, None));
    one.await_members(&["one joining"]);
    assert_eq!(one.block.value(Metric::RecordsLost), 0);
}

/// M8: the record is written back, which is a new registration of the same life.
#[test]
fn a_node_that_was_cut_off_learns_that_it_is_lost_and_registers_anew() {
    let etcd = Etcd::start();
    let front = Front::new();
    front.open(etcd.0.address);
    let (one, two) = (node(&etcd, "one"), node_at(front.address, "pinion", "two"));
    for node in [&one, &two] {
        node.joined();
        node.order(MembershipOrder::Record(MemberState::Active));
    }
    one.await_members(&["one active", "two active"]);
    let before = two.await_members(&["one active", "two active"]);
    front.cut();
    one.await_members(&["one active", "two lost"]);
    assert!(two.leased_until() < clock::now().mono, "it knew before the others did (A4)");
    assert_eq!(two.view().unwrap(), before, "the last known members stand");
    front.open(etcd.0.address);
    two.await_own(OwnRecord::Lost);
    two.await_metric(Metric::LeasesRegained, 1);
    two.order(MembershipOrder::Register(MemberState::Active));
    let epoch = two.await_recorded();
    for node in [&one, &two] {
        // Before, `two` still has the view that it had when it was cut off, in which it is active as well.
        eventually("a view with the registration", || node.view().filter(|view| view.epoch() >= epoch));
        let view = node.await_members(&["one active", "two active"]);
        let member = view.member(&id("two")).unwrap();
        assert_eq!((member.incarnation, member.registered_epoch), (incarnation(&before, "two"), epoch));
        assert!(member.first_epoch < epoch && view.epoch() >= epoch);
    }
}

/// A record that somebody deleted, or that a later life of the name wrote, ends this life (M9).
#[test]
fn a_node_whose_record_is_gone_is_told_so() {
    let etcd = Etcd::start();
    let one = node(&etcd, "one");
    one.joined();
    let later = node(&etcd, "one");
    assert!(later.joined().0 > one.joined().0);
    one.await_own(OwnRecord::Gone);
    one.await_metric(Metric::NameTaken, 1);
    one.await_trouble(&format!("a later process of one has registered, incarnation {}", later.joined().0));
    etcd.delete("pinion/nodes/one");
    later.await_own(OwnRecord::Gone);
    later.order(MembershipOrder::Register(MemberState::Active));
    later.await_members(&[]);
    assert_eq!(etcd.get("pinion/nodes/one"), None, "nobody writes a deleted record back");
}

/// A copied configuration: the first one stays, and both are named. When it dies, the other takes its place.
#[test]
fn a_second_process_of_a_name_waits_as_long_as_the_first_one_lives() {
    let etcd = Etcd::start();
    let at = |rpc| node_reached_at(etcd.0.address, "pinion", ("one", rpc));
    let mut first = at("10.0.0.1:10140");
    let life = first.joined().0;
    first.order(MembershipOrder::Record(MemberState::Active));
    first.await_members(&["one active"]);
    let second = at("10.0.0.2:10140");
    let said = second.await_trouble("cluster.node_id is taken: another process of one lives");
    let both = [format!("incarnation {life} at 10.0.0.1:10140"), "this one, at 10.0.0.2:10140,".to_owned()];
    assert!(both.iter().all(|part| said.contains(part)), "{said}");
    let renewals = first.block.value(Metric::LeaseRenewals);
    second.await_metric(Metric::NameTaken, 1);
    // Longer than a lease would hold without its renewals.
    first.await_metric(Metric::LeaseRenewals, renewals + 4);
    assert_eq!((second.membership(), second.block.value(Metric::NameClashes)), (vec![], 1));
    let gone = |news: &MembershipNews| matches!(news, MembershipNews::Regained { own: OwnRecord::Gone, .. });
    assert!(!first.membership().iter().any(gone), "{:?}", first.membership());
    first.kill();
    assert!(second.joined().0 > life);
    second.await_no_trouble();
    eventually("the name is its own", || (second.block.value(Metric::NameTaken) == 0).then_some(()));
}

/// Where the last process of the name listened, this one does: it is dead, whatever its lease says.
#[test]
fn a_process_that_starts_again_at_its_address_does_not_wait_for_its_former_lease() {
    let etcd = Etcd::start();
    let at = || node_reached_at(etcd.0.address, "pinion", ("one", "10.0.0.1:10140"));
    let mut first = at();
    let life = first.joined().0;
    first.kill();
    let second = at();
    assert!(second.joined().0 > life);
    assert_eq!(second.block.value(Metric::NameClashes), 0);
}

#[test]
fn an_outage_longer_than_the_lease_changes_no_view_and_ends_the_lease() {
    let etcd = Etcd::start();
    let nodes = [node(&etcd, "one"), node(&etcd, "two")];
    for node in &nodes {
        node.joined();
        node.order(MembershipOrder::Record(MemberState::Active));
    }
    let views = nodes.each_ref().map(|node| node.await_members(&["one active", "two active"]));
    etcd.0.signal(Signal::STOP);
    for (node, view) in nodes.iter().zip(&views) {
        node.await_metric(Metric::LeaseRenewalsFailed, 3);
        node.await_end_of_lease();
        assert_eq!(node.view().as_ref(), Some(view));
    }
    etcd.0.signal(Signal::CONT);
    for node in &nodes {
        node.await_metric(Metric::LeasesRegained, 1);
    }
    // The router's part: whoever is told that he is lost registers.
    eventually("both active under new leases", || {
        for node in &nodes {
            let last = node.membership().into_iter().rev().find_map(|news| match news {
                MembershipNews::Regained { own, .. } => Some(own),
                _ => None,
            });
            if last == Some(OwnRecord::Lost) {
                node.order(MembershipOrder::Register(MemberState::Active));
            }
        }
        let all = |node: &Control| {
            let view = node.view()?;
            (view.active().count() == 2 && node.block.value(Metric::LeaseLeft) > 0).then_some(())
        };
        nodes.iter().try_for_each(all)
    });
}

#[test]
fn the_records_of_another_root_are_another_cluster() {
    let etcd = Etcd::start();
    let (one, two) = (node(&etcd, "one"), node_at(etcd.0.address, "pinion2", "two"));
    let junk = node_at(etcd.0.address, "pinion", "junk");
    junk.joined();
    etcd.put("pinion/nodes/odd", "{");
    etcd.put("pinion/nodesx/one", "{}");
    two.await_members(&["two joining"]);
    one.await_members(&["junk joining", "one joining"]);
    one.await_metric(Metric::ViewsIgnored, 1);
}

#[test]
fn an_etcd_that_is_another_cluster_is_not_believed() {
    let (etcd, other) = (Etcd::start(), Etcd::start());
    let front = Front::new();
    front.open(etcd.0.address);
    let one = node_at(front.address, "pinion", "one");
    one.order(MembershipOrder::Record(MemberState::Active));
    let view = one.await_members(&["one active"]);
    front.cut();
    front.open(other.0.address);
    one.await_metric(Metric::ViewsHeld, 2);
    one.await_metric(Metric::SourceForeign, 1);
    one.await_end_of_lease();
    let said = one.await_trouble("etcd is another cluster than the one this node registered in");
    assert!(said.contains("restart the nodes one after the other"), "{said}");
    assert_eq!((one.view().unwrap(), other.get("pinion/nodes/one")), (view, None));
    front.cut();
    front.open(etcd.0.address);
    one.await_metric(Metric::LeasesRegained, 1);
    one.await_no_trouble();
    eventually("the right one", || (one.block.value(Metric::SourceForeign) == 0).then_some(()));
}

#[test]
fn a_server_that_is_away_at_start_is_waited_for_and_orders_wait() {
    let etcd = Etcd::start();
    let front = Front::new();
    let one = node_at(front.address, "pinion", "one");
    one.order(MembershipOrder::Record(MemberState::Active));
    one.await_metric(Metric::MembershipFailures, 2);
    assert_eq!(one.membership(), []);
    front.open(etcd.0.address);
    one.joined();
    one.await_members(&["one active"]);
    let alone = Control::start(|plan| plan.discovery = Discovery::None);
    eventually("orders without a source come back", || {
        alone.address.membership(MembershipOrder::Leave).is_err().then_some(())
    });
}
