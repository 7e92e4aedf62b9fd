//! The instances of OpenIM's services, from a stand-in for the API server of Kubernetes.

use std::net::SocketAddr;

use pinion::cluster::endpoints::Confirmation;
use pinion::control::news::News;
use pinion::control::plan::{ControlFault, KubernetesPlan, NamesPlan, WATCH_S};
use pinion::metrics::Metric;
use serde_json::json;

use super::*;
use crate::harness::{ApiServer, Mood, NAMESPACE};

fn plan(server: &ApiServer) -> KubernetesPlan {
    let names = [(Service::Auth, "auth-rpc-service"), (Service::Gateway, "messagegateway-rpc-service")];
    KubernetesPlan {
        server: server.url(),
        account: server.account().to_owned(),
        namespace: NAMESPACE.into(),
        services: names.map(|(service, name)| (service, name.to_owned())).into(),
        port_name: "grpc".into(),
        confirmation: CONFIRMATION,
        watch_s: WATCH_S,
    }
}

fn follow(plan: KubernetesPlan) -> Control {
    Control::start(|control| control.discovery = Discovery::Kubernetes(Box::new(plan)))
}

fn auth(server: &ApiServer, ports: &[u16]) {
    let at = |&port| SocketAddr::from(([10, 0, 0, 7], port));
    server.set("auth-rpc-service", &ports.iter().map(at).collect::<Vec<_>>());
}

/// Lists and watches of the auth service so far.
fn asked(server: &ApiServer) -> (usize, usize) {
    let all = server.requests("metadata.name%3Dauth-rpc-service");
    let watches = server.requests("metadata.name%3Dauth-rpc-service&watch");
    (all - watches, watches)
}

#[test]
fn instances_are_found_and_followed() {
    let server = ApiServer::start();
    auth(&server, &[1]);
    server.set("other", &["10.0.0.9:9".parse().unwrap()]);
    let control = follow(plan(&server));
    control.await_endpoints(Service::Auth, &[1]);
    control.await_endpoints(Service::Gateway, &[]);
    control.await_discovery(DiscoveryState::Current);
    auth(&server, &[1, 2]);
    control.await_endpoints(Service::Auth, &[1, 2]);
    server.set("messagegateway-rpc-service", &["10.0.0.8:88".parse().unwrap()]);
    control.await_endpoints(Service::Gateway, &[88]);
    server.bookmark("auth-rpc-service");
    auth(&server, &[3]);
    control.await_endpoints(Service::Auth, &[3]);
    control.await_metric(Metric::DiscoveryCurrent, 1);
    control.await_metric(Metric::EndpointsAuth, 1);
    assert_eq!(asked(&server), (1, 1), "changes come by the watch");
    assert_eq!(server.requests("name%3Dother"), 0, "no other object is asked for");
}

#[test]
fn a_watch_that_is_over_goes_on_where_it_was() {
    let server = ApiServer::start();
    auth(&server, &[1]);
    let control = follow(KubernetesPlan { watch_s: 2, ..plan(&server) });
    control.await_endpoints(Service::Auth, &[1]);
    server.bookmark("auth-rpc-service");
    eventually("the next watch", || (asked(&server).1 > 1).then_some(()));
    auth(&server, &[2]);
    control.await_endpoints(Service::Auth, &[2]);
    assert_eq!(asked(&server).0, 1, "nothing was read anew");
    let from_bookmark =
        "auth-rpc-service&watch=true&allowWatchBookmarks=true&timeoutSeconds=2&resourceVersion=2";
    assert!(server.requests(from_bookmark) >= 1, "from the bookmark on");
    assert_eq!(control.block.value(Metric::KubernetesFailures), 0);
    let stale = News::Discovery(DiscoveryState::Stale);
    assert!(!control.told().contains(&stale), "{:?}", control.told());
}

#[test]
fn a_history_that_is_gone_is_read_anew_and_is_no_failure() {
    let server = ApiServer::start();
    auth(&server, &[1]);
    let control = follow(KubernetesPlan { watch_s: 2, ..plan(&server) });
    control.await_discovery(DiscoveryState::Current);
    server.compact();
    eventually("another list", || (asked(&server).0 > 1).then_some(()));
    auth(&server, &[2]);
    control.await_endpoints(Service::Auth, &[2]);
    assert_eq!(control.block.value(Metric::KubernetesFailures), 0);
    assert!(!control.told().contains(&News::Discovery(DiscoveryState::Stale)));
}

#[test]
fn what_changed_while_the_server_was_away_is_seen() {
    let server = ApiServer::start();
    auth(&server, &[1, 2]);
    server.be(Mood::Away);
    let control = follow(plan(&server));
    control.await_metric(Metric::KubernetesFailures, 3);
    control.await_discovery(DiscoveryState::Loading);
    assert_eq!(control.endpoints(Service::Auth), None);
    server.be(Mood::Well);
    control.await_endpoints(Service::Auth, &[1, 2]);
    control.await_discovery(DiscoveryState::Current);
    server.be(Mood::Away);
    server.cut();
    control.await_discovery(DiscoveryState::Stale);
    auth(&server, &[2, 3]);
    assert_eq!(control.endpoints(Service::Auth).unwrap().addresses.len(), 2, "the last known ones stand");
    server.be(Mood::Well);
    control.await_endpoints(Service::Auth, &[2, 3]);
    control.await_discovery(DiscoveryState::Current);
}

#[test]
fn a_server_that_says_nothing_is_noticed() {
    let server = ApiServer::start();
    auth(&server, &[1]);
    let control = follow(KubernetesPlan { watch_s: 1, ..plan(&server) });
    control.await_discovery(DiscoveryState::Current);
    server.be(Mood::Silent);
    control.await_discovery(DiscoveryState::Stale);
    server.be(Mood::Well);
    auth(&server, &[2]);
    control.await_endpoints(Service::Auth, &[2]);
    control.await_discovery(DiscoveryState::Current);
}

#[test]
fn a_token_is_read_again_when_it_was_changed() {
    let server = ApiServer::start();
    auth(&server, &[1]);
    let control = follow(plan(&server));
    control.await_discovery(DiscoveryState::Current);
    server.require("second-token");
    server.cut();
    control.await_discovery(DiscoveryState::Stale);
    control.await_metric(Metric::KubernetesFailures, 3);
    server.rotate("second-token");
    auth(&server, &[2]);
    control.await_endpoints(Service::Auth, &[2]);
    control.await_discovery(DiscoveryState::Current);
}

#[test]
fn a_cluster_restored_from_nothing_is_not_believed_at_once() {
    for (over_ms, lasting) in [(86_400_000, true), (200, false)] {
        let server = ApiServer::start();
        auth(&server, &[1]);
        let confirmation = Confirmation { observations: 3, over_ms };
        let control = follow(KubernetesPlan { confirmation, ..plan(&server) });
        control.await_discovery(DiscoveryState::Current);
        server.restore_from_nothing();
        server.cut();
        control.await_metric(Metric::EndpointsHeld, 1);
        if lasting {
            auth(&server, &[2]);
            control.await_endpoints(Service::Auth, &[2]);
            let auth = |news: &&News| matches!(news, News::Endpoints { service: Service::Auth, .. });
            assert_eq!(control.told().iter().filter(auth).count(), 2, "never empty in between");
        } else {
            control.await_endpoints(Service::Auth, &[]);
        }
    }
}

#[test]
fn a_service_that_is_deleted_is_held_and_then_gone() {
    let server = ApiServer::start();
    auth(&server, &[1]);
    let confirmation = Confirmation { observations: 2, over_ms: 100 };
    let control = follow(KubernetesPlan { confirmation, ..plan(&server) });
    control.await_discovery(DiscoveryState::Current);
    server.delete("auth-rpc-service");
    control.await_endpoints(Service::Auth, &[]);
    control.await_metric(Metric::EndpointsHeld, 1);
    auth(&server, &[2]);
    control.await_endpoints(Service::Auth, &[2]);
}

#[test]
fn addresses_without_the_port_are_ignored_and_counted() {
    let server = ApiServer::start();
    let port =
        |name: &str| json!([{"addresses": [{"ip": "10.0.0.7"}], "ports": [{"name": name, "port": 7}]}]);
    server.set_subsets("auth-rpc-service", port("http"));
    let control = follow(plan(&server));
    control.await_endpoints(Service::Auth, &[]);
    control.await_metric(Metric::EndpointsIgnored, 1);
    server.set_subsets("auth-rpc-service", port("grpc-10200"));
    control.await_endpoints(Service::Auth, &[7]);
}

#[test]
fn answers_that_make_no_sense_and_hasty_ends_are_waited_out() {
    for mood in [Mood::Babbling, Mood::Hasty] {
        let server = ApiServer::start();
        server.be(mood);
        let control = follow(plan(&server));
        control.await_metric(Metric::KubernetesFailures, 3);
        server.be(Mood::Well);
        server.cut();
        auth(&server, &[1]);
        control.await_endpoints(Service::Auth, &[1]);
        control.await_discovery(DiscoveryState::Current);
    }
}

#[test]
fn a_plan_that_cannot_work_is_refused_with_what_to_do() {
    let server = ApiServer::start();
    let refusal = |plan: KubernetesPlan| -> ControlFault {
        let control = ControlPlan {
            discovery: Discovery::Kubernetes(Box::new(plan)),
            redis: None,
            webhooks: None,
            membership: None,
            news: Box::new(|_| Ok(())),
            now: clock::now,
            block: Arc::default(),
        };
        pinion::control::spawn(control).expect_err("refused")
    };
    let at = |url: &str| refusal(KubernetesPlan { server: url.into(), ..plan(&server) });
    for url in ["http://127.0.0.1:1", "127.0.0.1:1", "https://", "https://h:1/x", ""] {
        let fault = at(url).to_string();
        assert!(fault.starts_with(&format!("Kubernetes: `{url}` cannot be used: ")), "{fault}");
    }
    let fault = refusal(KubernetesPlan { account: "/nowhere".into(), ..plan(&server) }).to_string();
    assert!(fault.contains("/nowhere/ca.crt: No such file"), "{fault}");
    let other = ApiServer::start();
    let stranger = follow(KubernetesPlan { account: other.account().to_owned(), ..plan(&server) });
    stranger.await_metric(Metric::KubernetesFailures, 2);
    assert_eq!(server.requests(""), 0, "no token is shown to whom the authority does not know");
}

#[test]
fn names_are_looked_up_and_the_own_one_is_left_out() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let plan = NamesPlan {
        services: vec![
            (Service::Auth, names(&["127.0.0.1:80"])),
            (Service::Gateway, names(&["127.0.0.1:88", "127.0.0.2:88", "gateway-2.invalid:88"])),
        ],
        own: Some("127.0.0.1:88".into()),
        round_ms: 50,
    };
    let control = Control::start(|control| control.discovery = Discovery::Names(Box::new(plan)));
    control.await_endpoints(Service::Auth, &[80]);
    control.await_endpoints(Service::Gateway, &[88]);
    assert_eq!(control.endpoints(Service::Gateway).unwrap().addresses, ["127.0.0.2:88".parse().unwrap()]);
    control.await_discovery(DiscoveryState::Current);
    control.await_metric(Metric::NameFailures, 2);

    let unknown =
        NamesPlan { services: vec![(Service::Auth, names(&["auth.invalid:80"]))], own: None, round_ms: 50 };
    let control = Control::start(|control| control.discovery = Discovery::Names(Box::new(unknown)));
    control.await_metric(Metric::NameFailures, 2);
    control.await_discovery(DiscoveryState::Loading);
}
