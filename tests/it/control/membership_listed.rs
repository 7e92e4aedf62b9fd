//! The members of a cluster in a file.

use std::path::Path;

use pinion::control::membership::{MembershipNews, MembershipOrder, MembershipPlan, SourcePlan};
use pinion::control::plan::ControlFault;
use pinion::limits::MEMBERS_FILE_BYTES;
use pinion::metrics::Metric;
use pinion::placement::view::{Epoch, Incarnation, MemberState};
use pinion::time::Mono;
use tempfile::TempDir;

use super::membership::{id, plan};
use super::*;

fn listed(path: &Path, name: &str) -> MembershipPlan {
    let mut plan = plan(name, SourcePlan::Listed(path.to_owned()));
    plan.own.as_mut().unwrap().incarnation = Incarnation(77);
    plan
}

fn start(path: &Path, name: &str) -> Control {
    Control::start(|control| {
        control.discovery = Discovery::None;
        control.membership = Some(listed(path, name));
    })
}

#[test]
fn a_list_is_followed_and_the_own_state_is_the_ordered_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("members");
    std::fs::write(&path, "gw-0 rpc=10.0.0.7:10140\ngw-1 weight=50\n").unwrap();
    let control = start(&path, "gw-0");
    assert_eq!(control.joined(), (Incarnation(77), Epoch(1), Mono(u64::MAX)));
    let view = control.await_members(&["gw-0 joining", "gw-1 active"]);
    assert_eq!(view.epoch(), Epoch(1));
    assert_eq!(view.member(&id("gw-0")).unwrap().incarnation, Incarnation(77));
    assert_eq!(view.member(&id("gw-0")).unwrap().rpc_addr, "10.0.0.7:10140");
    control.order(MembershipOrder::Record(MemberState::Active));
    let view = control.await_members(&["gw-0 active", "gw-1 active"]);
    assert_eq!(view.epoch(), Epoch(2));
    std::fs::write(&path, "gw-0\ngw-1 state=draining\ngw-2 ws=wss://gw-2.example/\n").unwrap();
    let view = control.await_members(&["gw-0 active", "gw-1 draining", "gw-2 active"]);
    assert_eq!(view.member(&id("gw-2")).unwrap().ws_url, "wss://gw-2.example/");
    // No list, a bad one: the last good one stands.
    std::fs::write(&path, "gw-0\n10.0.0.7:88\n").unwrap();
    control.await_metric(Metric::ViewsIgnored, 1);
    std::fs::remove_file(&path).unwrap();
    control.await_metric(Metric::ViewsIgnored, 2);
    assert_eq!(control.view(), Some(view));
    std::fs::write(&path, "gw-0 state=draining\ngw-2\n").unwrap();
    let view = control.await_members(&["gw-0 draining", "gw-2 active"]);
    assert_eq!(view.epoch(), Epoch(4));
    control.order(MembershipOrder::Register(MemberState::Active));
    eventually("the answer", || {
        control.membership().contains(&MembershipNews::Recorded(Epoch(5))).then_some(())
    });
    // Taken off the list: the router is shown a view without its node, and ends.
    std::fs::write(&path, "gw-2\n").unwrap();
    control.await_members(&["gw-2 active"]);
}

#[test]
fn a_list_that_cannot_be_used_is_refused_with_what_to_do() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("members");
    let refusal = |name: &str| -> String {
        let control = pinion::control::plan::ControlPlan {
            discovery: Discovery::None,
            redis: None,
            webhooks: None,
            membership: Some(listed(&path, name)),
            news: Box::new(|_| Ok(())),
            now: clock::now,
            block: Arc::default(),
        };
        let fault: ControlFault = pinion::control::spawn(control).expect_err("refused");
        fault.to_string()
    };
    assert!(refusal("gw-0").contains("No such file"));
    std::fs::write(&path, "gw-1\ngw-2\n").unwrap();
    let fault = refusal("gw-0");
    assert!(fault.contains("this node is gw-0 (cluster.node_id), and the list has gw-1, gw-2"), "{fault}");
    std::fs::write(&path, "gw-0\n1.2.3.4:5\n").unwrap();
    assert!(refusal("gw-0").contains("line 2: "), "{}", refusal("gw-0"));
    let size = usize::try_from(MEMBERS_FILE_BYTES).unwrap();
    std::fs::write(&path, format!("gw-0{}", "\n".repeat(size))).unwrap();
    assert!(refusal("gw-0").contains("bytes, at most 1048576 are read"), "{}", refusal("gw-0"));
}
