//! Tests of what depends on several settings with `backend: openim`.

use super::super::super::authority::{Authority, When};
use super::super::super::{Faults, Loaded, Sources, load};
use super::super::Interface;
use super::*;
use crate::time::UnixMs;

fn machine(interfaces: &[[u8; 4]]) -> Machine {
    let interface = |address: &[u8; 4]| Interface { address: (*address).into(), up: true, loopback: false };
    let interfaces = interfaces.iter().map(interface).collect();
    Machine { cpus: vec![0, 1], quota: None, files_max: 20_000, interfaces }
}

fn load_on(machine: &Machine, flags: &[(&'static str, &str)]) -> Result<Loaded, Faults> {
    let mut flags: Vec<_> = flags.iter().map(|(k, v)| (*k, v.to_string())).collect();
    if !flags.iter().any(|(key, _)| *key == "backend") {
        flags.push(("backend", "openim".to_owned()));
    }
    load(&Sources { flags, ..Sources::default() }, machine, UnixMs(0), || [1, 2])
}

fn load_with(flags: &[(&'static str, &str)]) -> Result<Loaded, Faults> {
    load_on(&machine(&[[192, 0, 2, 1], [10, 0, 0, 1]]), flags)
}

fn keys(faults: &Faults) -> Vec<&str> {
    faults.0.iter().map(|f| f.key.as_str()).collect()
}

const STATIC: [(&str, &str); 5] = [
    ("discovery.kind", "static"),
    ("discovery.static_auth", "a:1"),
    ("discovery.static_user", "u:1"),
    ("discovery.static_msg", "m:1"),
    ("discovery.static_push", "p:1"),
];

#[test]
fn names_follow_compat_unless_given() {
    for (compat, auth, gateway) in [
        ("v3.5", "Auth", "MessageGateway"),
        ("patch16", "auth", "messageGateway"),
        ("main", "auth-rpc-service", "messagegateway-rpc-service"),
    ] {
        let flags = [&STATIC[..], &[("compat", compat), ("discovery.service_user", "people")]].concat();
        let loaded = load_with(&flags).unwrap();
        let names = &loaded.config.openim.discovery.names;
        assert_eq!(
            (names.auth.as_str(), names.user.as_str(), names.gateway.as_str()),
            (auth, "people", gateway)
        );
        assert_eq!(names.of(crate::backend::openim::Service::Gateway), gateway);
        assert!(!loaded.origin("discovery.service_auth").is_given());
        assert!(loaded.origin("discovery.service_user").is_given());
    }
}

#[test]
fn the_older_service_is_served_to_openim_35_unless_forbidden() {
    let v35 = [&STATIC[..], &[("compat", "v3.5")]].concat();
    assert!(load_with(&v35).unwrap().config.rpc.legacy_service);
    let forbidden = [&v35[..], &[("rpc.legacy_service", "false")]].concat();
    assert!(!load_with(&forbidden).unwrap().config.rpc.legacy_service);
    assert!(!load_with(&STATIC).unwrap().config.rpc.legacy_service);
}

#[test]
fn the_registered_address_is_given_or_listened_on_or_found() {
    for (flags, want, warned) in [
        (&[("rpc.listen", "0.0.0.0:1")][..], "10.0.0.1", false),
        (&[("rpc.listen", "192.0.2.9:1")], "192.0.2.9", false),
        (&[("rpc.listen", "0.0.0.0:1"), ("discovery.register_ip", "198.51.100.1")], "198.51.100.1", false),
        (&[("rpc.listen", "127.0.0.1:1")], "127.0.0.1", true),
        (&[("rpc.listen", "127.0.0.1:1"), ("discovery.register_ip", "198.51.100.1")], "198.51.100.1", true),
    ] {
        let loaded = load_with(flags).unwrap();
        assert_eq!(loaded.config.openim.discovery.register_ip.to_string(), want, "{flags:?}");
        let reach =
            loaded.warnings.iter().filter(|w| w.contains("not reach") || w.contains("nobody will reach"));
        assert_eq!(reach.count(), usize::from(warned), "{flags:?}: {:?}", loaded.warnings);
    }
    let alone = machine(&[]);
    let faults = load_on(&alone, &[("rpc.listen", "0.0.0.0:1")]).unwrap_err();
    assert_eq!(keys(&faults), ["discovery.register_ip"], "{faults}");
    load_on(&alone, &[("rpc.listen", "0.0.0.0:1"), ("discovery.register_ip", "10.0.0.5")]).unwrap();
    let kubernetes = [("rpc.listen", "0.0.0.0:1"), ("discovery.kind", "kubernetes")];
    load_on(&alone, &kubernetes).unwrap();
    assert!(load_with(&[("discovery.register_ip", "0.0.0.0")]).is_err(), "no address that others can dial");
}

#[test]
fn combinations_that_cannot_work_are_refused() {
    for (flags, want) in [
        (&[("compat", "v3.5")][..], &["discovery.kind"][..]),
        (
            &[("discovery.kind", "static"), ("discovery.static_msg", "m:1")],
            &["discovery.static_auth", "discovery.static_user", "discovery.static_push"],
        ),
        (&[("discovery.kind", "kubernetes"), ("discovery.metrics", "true")], &["discovery.metrics"]),
        (&[("redis.mode", "cluster"), ("redis.db", "1")], &["redis.db"]),
        (&[("redis.mode", "sentinel")], &["redis.master_name", "redis.sentinel_addresses"]),
        (&[("webhooks.offline", "true")], &["webhooks.url"]),
        (&[("webhooks.kick_off", "true")], &["webhooks.url"]),
        (&[("discovery.kind", "zookeeper"), ("webhooks.online", "true")], &["discovery.kind"]),
        (
            &[("compat", "v3.5"), ("discovery.kind", "kubernetes")],
            &[
                "discovery.service_auth",
                "discovery.service_user",
                "discovery.service_msg",
                "discovery.service_push",
                "MY_POD_NAME",
                "MY_POD_NAMESPACE",
                "MY_MSGGATEWAY_REPLICACOUNT",
            ],
        ),
    ] {
        let faults = load_with(flags).unwrap_err();
        assert_eq!(keys(&faults), want, "{flags:?}: {faults}");
        let embedded = [&[("backend", "embedded")], flags].concat();
        let bad_text = want == ["discovery.kind"] && flags.len() == 2;
        assert_eq!(
            load_with(&embedded).is_err(),
            bad_text,
            "they do not count with another backend: {flags:?}"
        );
    }
    load_with(&[("redis.mode", "cluster")]).unwrap();
    let warned = |compat| {
        let loaded = load_with(&[("compat", compat), ("discovery.kind", "kubernetes")]).unwrap();
        loaded.warnings.iter().filter(|w| w.contains("no Service of Kubernetes")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(warned("main"), Vec::<String>::new());
    assert_eq!(warned("patch16").len(), 1, "messageGateway: {:?}", warned("patch16"));
    load_with(&[("webhooks.online", "true"), ("webhooks.url", "http://hooks")]).unwrap();
    let password = load_with(&[("discovery.etcd_password", "p")]).unwrap();
    assert!(
        password.warnings.iter().any(|w| w.contains("etcd_username is empty")),
        "{:?}",
        password.warnings
    );
}

#[test]
fn tls_of_etcd_needs_files_that_are_good_and_complete() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new("etcd", When::Now);
    let (certificate, key) = authority.issue(&["pinion"], When::Now);
    let (ca_file, cert_file, key_file) = (path("ca"), path("cert"), path("key"));
    std::fs::write(&ca_file, authority.pem()).unwrap();
    std::fs::write(&cert_file, certificate).unwrap();
    std::fs::write(&key_file, key).unwrap();
    let (ca, cert, key) = ("discovery.etcd_ca", "discovery.etcd_cert", "discovery.etcd_key");
    load_with(&[(ca, &ca_file)]).unwrap();
    load_with(&[(ca, &ca_file), (cert, &cert_file), (key, &key_file)]).unwrap();
    let nowhere = path("nowhere");
    for (flags, want) in [
        (&[(ca, ca_file.as_str()), (cert, &cert_file)][..], &[key][..]),
        (&[(ca, &ca_file), (key, &key_file)], &[cert]),
        (&[(cert, &cert_file), (key, &key_file)], &[ca]),
        (&[(ca, &nowhere)], &[ca]),
        (&[(ca, &key_file)], &[ca]),
        (&[(ca, &ca_file), (cert, &key_file), (key, &cert_file)], &[cert, key]),
    ] {
        let faults = load_with(flags).unwrap_err();
        assert_eq!(keys(&faults), want, "{flags:?}: {faults}");
    }
    let https = ("discovery.etcd_addresses", "https://etcd:2379");
    let loaded = load_with(&[https, (cert, &cert_file), (key, &key_file)]).unwrap();
    assert!(loaded.config.openim.discovery.etcd.tls(), "the system's authorities");
    assert!(!load_with(&[]).unwrap().config.openim.discovery.etcd.tls());
    load_with(&[("webhooks.ca", &ca_file)]).unwrap();
    assert_eq!(keys(&load_with(&[("webhooks.ca", &nowhere)]).unwrap_err()), ["webhooks.ca"]);
    let elsewhere = [&STATIC[..], &[(ca, nowhere.as_str())]].concat();
    load_with(&elsewhere).unwrap();
}

#[test]
fn metrics_are_announced_where_openim_looks_for_them() {
    for (flags, want) in [
        (
            &[("compat", "patch16"), ("discovery.etcd_root", "im")][..],
            "openim/prometheus_discovery/messageGateway/3",
        ),
        (
            &[("compat", "main"), ("discovery.etcd_root", "im")],
            "im/prometheus_discovery/messagegateway-rpc-service/3",
        ),
        (&[("compat", "main"), ("discovery.service_gateway", "gate")], "openim/prometheus_discovery/gate/3"),
    ] {
        let loaded = load_with(&[flags, &[("openim.index", "3")]].concat()).unwrap();
        assert_eq!(loaded.config.openim.metrics_key(), want);
    }
}
