//! The instances of OpenIM's services, from a real etcd.

use std::sync::atomic::{AtomicBool, Ordering};

use pinion::cluster::endpoints::Confirmation;
use pinion::control::news::News;
use pinion::control::plan::{ClientTls, ControlFault, Credentials, WebhookPlan};
use pinion::metrics::Metric;
use rustix::process::Signal;

use super::servers::{Etcd, Front};
use super::*;
use crate::harness::authority::{Authority, When};

fn follow(plan: EtcdPlan) -> Control {
    Control::start(|control| control.discovery = Discovery::Etcd(Box::new(plan)))
}

#[test]
fn instances_are_found_and_followed() {
    let etcd = Etcd::start();
    etcd.put_endpoint("auth", "10.0.0.7:10160");
    etcd.put_endpoint("msg", "10.0.0.7:10130");
    let control = follow(etcd_plan(etcd.0.address));
    control.await_endpoints(Service::Auth, &[10160]);
    control.await_endpoints(Service::Msg, &[10130]);
    control.await_endpoints(Service::User, &[]);
    control.await_discovery(DiscoveryState::Current);
    etcd.put_endpoint("auth", "10.0.0.7:10161");
    control.await_endpoints(Service::Auth, &[10160, 10161]);
    etcd.put_endpoint("user", "10.0.0.7:10110");
    control.await_endpoints(Service::User, &[10110]);
    etcd.delete("openim/auth/10.0.0.7:10160");
    control.await_endpoints(Service::Auth, &[10161]);
    control.await_metric(Metric::EndpointsAuth, 1);
    assert_eq!(control.block.value(Metric::DiscoveryCurrent), 1);
    let versions: Vec<u64> = control
        .told()
        .iter()
        .filter_map(|news| match news {
            News::Endpoints { service: Service::Auth, endpoints } => Some(endpoints.version),
            _ => None,
        })
        .collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
}

#[test]
fn what_is_no_endpoint_or_of_another_service_is_ignored() {
    let etcd = Etcd::start();
    etcd.put("openim/auth/junk", "junk");
    etcd.put("openim/auth/10.0.0.7:1", r#"{"Op":1,"Addr":"10.0.0.7:1","Metadata":null}"#);
    etcd.put("openim/auth-rpc-service/10.0.0.7:2", r#"{"Op":0,"Addr":"10.0.0.7:2","Metadata":null}"#);
    etcd.put("open/auth/10.0.0.7:3", r#"{"Op":0,"Addr":"10.0.0.7:3","Metadata":null}"#);
    etcd.put_endpoint("auth", "10.0.0.7:4");
    let control = follow(etcd_plan(etcd.0.address));
    control.await_endpoints(Service::Auth, &[4]);
    control.await_metric(Metric::EndpointsIgnored, 2);
    // A value that turns bad is as one that is gone.
    etcd.put_endpoint("auth", "10.0.0.7:5");
    control.await_endpoints(Service::Auth, &[4, 5]);
    etcd.put("openim/auth/10.0.0.7:4", "{}");
    control.await_endpoints(Service::Auth, &[5]);
    control.await_metric(Metric::EndpointsIgnored, 3);
}

#[test]
fn an_etcd_that_is_away_at_start_is_awaited() {
    let front = Front::new();
    let control = follow(etcd_plan(front.address));
    control.await_discovery(DiscoveryState::Loading);
    control.await_metric(Metric::DiscoveryFailures, 2);
    assert_eq!(control.endpoints(Service::Auth), None);
    let etcd = Etcd::start();
    etcd.put_endpoint("auth", "10.0.0.7:10160");
    front.open(etcd.0.address);
    control.await_endpoints(Service::Auth, &[10160]);
    control.await_discovery(DiscoveryState::Current);
}

#[test]
fn after_a_lost_connection_and_a_compaction_the_state_is_read_anew() {
    let (etcd, front) = (Etcd::start(), Front::new());
    front.open(etcd.0.address);
    etcd.put_endpoint("auth", "10.0.0.7:1");
    etcd.put_endpoint("auth", "10.0.0.7:2");
    let control = follow(etcd_plan(front.address));
    control.await_endpoints(Service::Auth, &[1, 2]);
    control.await_discovery(DiscoveryState::Current);
    front.cut();
    control.await_discovery(DiscoveryState::Stale);
    etcd.delete("openim/auth/10.0.0.7:1");
    etcd.put_endpoint("auth", "10.0.0.7:3");
    etcd.compact();
    // The last known ones stand meanwhile.
    let known = control.endpoints(Service::Auth).unwrap();
    assert_eq!(known.addresses.len(), 2);
    front.open(etcd.0.address);
    control.await_endpoints(Service::Auth, &[2, 3]);
    control.await_discovery(DiscoveryState::Current);
    etcd.put_endpoint("auth", "10.0.0.7:4");
    control.await_endpoints(Service::Auth, &[2, 3, 4]);
}

/// Two etcds: the second, empty one takes the place of the first.
fn restored_from_nothing(confirmation: Confirmation) -> (Control, Etcd, Front) {
    let (first, front) = (Etcd::start(), Front::new());
    front.open(first.0.address);
    first.put_endpoint("auth", "10.0.0.7:1");
    let control = follow(EtcdPlan { confirmation, ..etcd_plan(front.address) });
    control.await_endpoints(Service::Auth, &[1]);
    control.await_discovery(DiscoveryState::Current);
    front.cut();
    control.await_discovery(DiscoveryState::Stale);
    let second = Etcd::start();
    front.open(second.0.address);
    first.0.stop();
    (control, second, front)
}

#[test]
fn a_registry_restored_from_nothing_is_not_believed_at_once() {
    let day = Confirmation { observations: 3, over_ms: 86_400_000 };
    let (control, etcd, _front) = restored_from_nothing(day);
    control.await_metric(Metric::EndpointsHeld, 1);
    control.await_discovery(DiscoveryState::Current);
    assert_eq!(control.endpoints(Service::Auth).unwrap().addresses.len(), 1);
    etcd.put_endpoint("auth", "10.0.0.7:2");
    control.await_endpoints(Service::Auth, &[2]);
    let auth = |news: &News| matches!(news, News::Endpoints { service: Service::Auth, .. });
    assert_eq!(control.told().iter().filter(|news| auth(news)).count(), 2, "never empty in between");
}

#[test]
fn a_service_that_stays_away_is_believed_to_be_away() {
    let soon = Confirmation { observations: 3, over_ms: 200 };
    let (control, _etcd, _front) = restored_from_nothing(soon);
    control.await_endpoints(Service::Auth, &[]);
    control.await_metric(Metric::EndpointsHeld, 2);
}

#[test]
fn etcds_that_do_not_answer_are_passed_over() {
    let etcd = Etcd::start();
    etcd.put_endpoint("auth", "10.0.0.7:1");
    let (closed, silent) = (Front::new(), std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [closed.address, silent.local_addr().unwrap(), etcd.0.address];
    let addresses = addresses.map(|address| address.to_string()).into();
    let control = follow(EtcdPlan { addresses, ..etcd_plan("") });
    control.await_endpoints(Service::Auth, &[1]);
    control.await_metric(Metric::DiscoveryFailures, 2);
}

#[test]
fn a_login_is_made_where_etcd_asks_for_one() {
    let etcd = Etcd::start();
    etcd.require_login("secret");
    etcd.put_endpoint_as_root("secret", "auth", "10.0.0.7:1");
    let login = |password: &str| {
        let credentials = Credentials { username: "root".into(), password: password.into() };
        follow(EtcdPlan { credentials: Some(credentials), ..etcd_plan(etcd.0.address) })
    };
    let right = login("secret");
    right.await_endpoints(Service::Auth, &[1]);
    right.await_metric(Metric::EndpointsVersionAuth, 1);
    for stranger in [login("wrong"), follow(etcd_plan(etcd.0.address))] {
        stranger.await_metric(Metric::DiscoveryFailures, 2);
        assert_eq!(stranger.endpoints(Service::Auth), None);
        assert_eq!(stranger.block.value(Metric::DiscoveryCurrent), 0);
        stranger.await_metric(Metric::DiscoveryAge, 1);
    }
}

#[test]
fn tls_is_spoken_with_the_authority_that_was_given_only() {
    let folder = tempfile::TempDir::new().unwrap();
    let (ours, other) = (Authority::new("ours", When::Now), Authority::new("other", When::Now));
    let (certificate, key) = ours.write_pair(folder.path(), "etcd", &["127.0.0.1", "etcd.test"], When::Now);
    let etcd = Etcd::start_tls(&certificate, &key);
    let connect = |authority: &Authority, server_name: Option<&str>| {
        let authorities = Some(authority.pem().as_bytes().to_vec());
        let tls = ClientTls { authorities, identity: None, server_name: server_name.map(str::to_owned) };
        follow(EtcdPlan { tls: Some(tls), ..etcd_plan(etcd.0.address) })
    };
    connect(&ours, None).await_discovery(DiscoveryState::Current);
    connect(&ours, Some("etcd.test")).await_discovery(DiscoveryState::Current);
    for refused in [connect(&other, None), connect(&ours, Some("else.test"))] {
        refused.await_metric(Metric::DiscoveryFailures, 2);
        assert_eq!(refused.block.value(Metric::DiscoveryCurrent), 0);
    }
}

#[test]
fn a_receiver_without_room_gets_the_newest_state_in_the_end() {
    let etcd = Etcd::start();
    let open = Arc::new(AtomicBool::new(false));
    let control = Control::start(|plan| {
        plan.discovery = Discovery::Etcd(Box::new(etcd_plan(etcd.0.address)));
        let (gate, sink) = (Arc::clone(&open), std::mem::replace(&mut plan.news, Box::new(Err)));
        plan.news = Box::new(move |news| if gate.load(Ordering::Relaxed) { sink(news) } else { Err(news) });
    });
    control.await_metric(Metric::DiscoveryCurrent, 1);
    for n in 1..=5 {
        etcd.put_endpoint("auth", &format!("10.0.0.7:{n}"));
    }
    control.await_metric(Metric::EndpointsAuth, 5);
    control.await_metric(Metric::NewsDeferred, 1);
    assert_eq!(control.told(), []);
    open.store(true, Ordering::Relaxed);
    control.await_endpoints(Service::Auth, &[1, 2, 3, 4, 5]);
    let auth = |news: &&News| matches!(news, News::Endpoints { service: Service::Auth, .. });
    assert_eq!(control.told().iter().filter(auth).count(), 1, "{:?}", control.told());
}

#[test]
fn a_fixed_list_is_told_once() {
    let address = |port| std::net::SocketAddr::from(([10, 0, 0, 7], port));
    let mut control = Control::start(|plan| {
        plan.discovery = Discovery::Static(vec![
            (Service::Auth, vec![address(2), address(1), address(2)]),
            (Service::Msg, vec![address(3)]),
        ]);
    });
    control.await_endpoints(Service::Auth, &[1, 2]);
    control.await_endpoints(Service::Msg, &[3]);
    control.await_discovery(DiscoveryState::Current);
    assert!(!control.thread().has_ended(), "it stays for what comes from others");
    control.end(Leases::Revoke);
    assert_eq!(control.told().len(), 3);
    assert_eq!(control.block.value(Metric::EndpointsAuth), 2);
}

#[test]
fn a_plan_that_cannot_work_is_refused_with_what_to_do() {
    let refusal = |change: &dyn Fn(&mut ControlPlan)| -> ControlFault {
        let mut plan = ControlPlan {
            discovery: Discovery::Static(Vec::new()),
            redis: None,
            webhooks: None,
            membership: None,
            news: Box::new(|_| Ok(())),
            now: clock::now,
            block: Arc::default(),
        };
        change(&mut plan);
        pinion::control::spawn(plan).expect_err("refused")
    };
    let etcd = |address: &'static str| {
        refusal(&|plan| plan.discovery = Discovery::Etcd(Box::new(etcd_plan(address))))
    };
    let redis = |address: &'static str| refusal(&|plan| plan.redis = Some(redis_plan(address)));
    let root = |root: &'static str| {
        let plan = || EtcdPlan { root: root.into(), ..etcd_plan("host:1") };
        refusal(&|control| control.discovery = Discovery::Etcd(Box::new(plan())))
    };
    let no_etcd = EtcdPlan { addresses: Vec::new(), ..etcd_plan("") };
    let no_etcd = std::cell::Cell::new(Some(no_etcd));
    let broken = Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec());
    for (fault, wanted) in [
        (etcd("http://"), "etcd: `http://` cannot be used: "),
        (etcd("ftp://host:1"), "etcd: `ftp://host:1` cannot be used: write host:port"),
        (etcd("host name:1"), "etcd: `host name:1` cannot be used: "),
        (root(""), "etcd's root: `` cannot be used: write the first part"),
        (root("/openim"), "etcd's root: `/openim` cannot be used: "),
        (root("openim/"), "etcd's root: `openim/` cannot be used: "),
        (redis("localhost"), "Redis: `localhost` cannot be used: write host:port"),
        (
            refusal(&|plan| plan.discovery = Discovery::Etcd(no_etcd.take().unwrap().into())),
            "etcd has no address",
        ),
        (
            refusal(&|plan| {
                plan.webhooks =
                    Some(WebhookPlan { url: "https://host/x".into(), authorities: broken.clone() });
            }),
            "webhooks: certificates or key cannot be used: ",
        ),
        (
            refusal(&|plan| {
                let tls = ClientTls { authorities: broken.clone(), ..ClientTls::default() };
                plan.discovery =
                    Discovery::Etcd(Box::new(EtcdPlan { tls: Some(tls), ..etcd_plan("host:1") }));
            }),
            "etcd: certificates or key cannot be used: ",
        ),
    ] {
        assert!(fault.to_string().starts_with(wanted), "{fault}");
    }
}

#[test]
fn an_etcd_that_hangs_is_noticed() {
    let etcd = Etcd::start();
    let control = follow(etcd_plan(etcd.0.address));
    control.await_discovery(DiscoveryState::Current);
    etcd.0.signal(Signal::STOP);
    // Nothing breaks; only the pings say it.
    control.await_discovery(DiscoveryState::Stale);
    etcd.0.signal(Signal::CONT);
    control.await_discovery(DiscoveryState::Current);
    etcd.put_endpoint("auth", "10.0.0.7:1");
    control.await_endpoints(Service::Auth, &[1]);
}
