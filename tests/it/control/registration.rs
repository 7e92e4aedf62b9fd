//! This node in the registry of a real etcd.

use pinion::control::plan::{PrometheusPlan, RegistrationPlan};
use pinion::metrics::Metric;

use super::servers::{Etcd, Front};
use super::*;

const KEY: &str = "openim/messageGateway/10.0.0.7:10140";
const VALUE: &str = r#"{"Op":0,"Addr":"10.0.0.7:10140","Metadata":null}"#;
const PROMETHEUS_KEY: &str = "openim/prometheus_discovery/messageGateway/0";

/// Leases of this length, and both keys.
fn start(address: impl ToString, lease_s: u32) -> Control {
    Control::start(|plan| {
        let target = "10.0.0.7:12140".parse().unwrap();
        let registration = RegistrationPlan {
            service: "messageGateway".into(),
            address: "10.0.0.7:10140".parse().unwrap(),
            lease_s,
            prometheus: Some(PrometheusPlan { key: PROMETHEUS_KEY.into(), target, lease_s }),
        };
        let etcd = EtcdPlan { registration: Some(registration), ..etcd_plan(address) };
        plan.discovery = Discovery::Etcd(Box::new(etcd));
    })
}

fn register(etcd: &Etcd, control: &Control) -> String {
    control.thread().register();
    control.await_registration(RegistrationState::Present);
    etcd.get(KEY).expect("registered").1
}

/// Spec trap 35.
#[test]
fn a_node_registers_when_told_and_leaves_when_told() {
    let etcd = Etcd::start();
    let mut control = start(etcd.0.address, 60);
    control.await_discovery(DiscoveryState::Current);
    control.await_registration(RegistrationState::Absent);
    assert_eq!(etcd.get(KEY), None);
    control.thread().register();
    control.await_registration(RegistrationState::Present);
    // As others see it, and as the node itself sees it.
    let (value, lease) = etcd.get(KEY).unwrap();
    assert_eq!(value, VALUE);
    assert!(etcd.seconds_left(&lease).is_some_and(|left| left <= 60));
    control.await_endpoints(Service::Gateway, &[10140]);
    let (value, of_its_own) = etcd.get(PROMETHEUS_KEY).unwrap();
    assert_eq!(value, r#"{"target":"10.0.0.7:12140","labels":{"namespace":"default"}}"#);
    assert_ne!(lease, of_its_own);
    assert_eq!(control.block.value(Metric::RegistrationsLost), 0);

    control.thread().withdraw();
    control.await_registration(RegistrationState::Absent);
    assert_eq!((etcd.get(KEY), etcd.get(PROMETHEUS_KEY)), (None, None));
    assert_eq!(etcd.seconds_left(&lease), None);
    assert_ne!(register(&etcd, &control), lease);
    control.end(Leases::Revoke);
    assert_eq!((etcd.get(KEY), etcd.get(PROMETHEUS_KEY)), (None, None));
}

/// Spec trap 35: the end of the lease takes the key away.
#[test]
fn a_node_that_ends_without_a_word_goes_with_its_lease() {
    let etcd = Etcd::start();
    let mut control = start(etcd.0.address, 4);
    register(&etcd, &control);
    control.end(Leases::Leave);
    let lease = etcd.get(KEY).map(|(_, lease)| lease);
    eventually("the end of the lease", || etcd.get(KEY).is_none().then_some(()));
    assert!(lease.is_none_or(|lease| etcd.seconds_left(&lease).is_none()));
}

#[test]
fn a_lost_lease_or_key_is_made_anew_at_once() {
    let etcd = Etcd::start();
    // Its turn would come after a third of an hour: what is seen here is the watch.
    let control = start(etcd.0.address, 3600);
    let mut lease = register(&etcd, &control);
    control.await_endpoints(Service::Gateway, &[10140]);
    for lost in 1..=3 {
        etcd.revoke(&lease);
        let again = eventually("another registration", || etcd.get(KEY).filter(|(_, new)| *new != lease));
        assert_eq!(again.0, VALUE);
        lease = again.1;
        control.await_metric(Metric::RegistrationsLost, lost);
    }
    etcd.delete(KEY);
    let again = eventually("the key again", || etcd.get(KEY));
    assert_eq!(again, (VALUE.to_owned(), lease.clone()));
    control.await_registration(RegistrationState::Present);
}

#[test]
fn a_lost_key_that_nobody_watches_is_found_at_the_next_sign_of_life() {
    let etcd = Etcd::start();
    let control = start(etcd.0.address, 3);
    register(&etcd, &control);
    etcd.delete(PROMETHEUS_KEY);
    eventually("the key again", || etcd.get(PROMETHEUS_KEY));
}

#[test]
fn a_lease_is_kept_alive() {
    let etcd = Etcd::start();
    let control = start(etcd.0.address, 6);
    let mut seen = (register(&etcd, &control), i64::MAX);
    eventually("a lease with more time left than before", || {
        let lease = etcd.get(KEY)?.1;
        let left = etcd.seconds_left(&lease)?;
        let grew = lease == seen.0 && left > seen.1;
        seen = (lease, left);
        grew.then_some(())
    });
}

#[test]
fn a_registration_outlives_a_lost_connection() {
    let (etcd, front) = (Etcd::start(), Front::new());
    front.open(etcd.0.address);
    let control = start(front.address, 3600);
    control.await_discovery(DiscoveryState::Current);
    let lease = register(&etcd, &control);
    front.cut();
    // The watch breaks, so the registration is looked after; the next connection takes the same lease up again.
    etcd.delete(KEY);
    control.await_registration(RegistrationState::Uncertain);
    control.await_metric(Metric::RegistrationFailures, 1);
    front.open(etcd.0.address);
    control.await_registration(RegistrationState::Present);
    assert_eq!(etcd.get(KEY), Some((VALUE.to_owned(), lease)));
}

#[test]
fn registration_waits_for_an_etcd_that_is_away() {
    let front = Front::new();
    let mut control = start(front.address, 60);
    control.thread().register();
    control.await_registration(RegistrationState::Uncertain);
    let etcd = Etcd::start();
    front.open(etcd.0.address);
    control.await_registration(RegistrationState::Present);
    // The end does not wait for an etcd that is away, longer than it was told to.
    front.cut();
    control.thread.take().unwrap().end(Leases::Revoke, Duration::from_millis(100));
    assert!(etcd.get(KEY).is_some(), "nobody could revoke it");
}

#[test]
fn a_second_life_takes_the_key_over() {
    let etcd = Etcd::start();
    let mut first = start(etcd.0.address, 3600);
    let old = register(&etcd, &first);
    first.end(Leases::Leave);
    let second = start(etcd.0.address, 3600);
    let new = register(&etcd, &second);
    assert_ne!(old, new);
    // The old lease's end does not take the key with it.
    etcd.revoke(&old);
    assert_eq!(etcd.get(KEY), Some((VALUE.to_owned(), new)));
}
