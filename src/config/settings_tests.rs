//! Tests of the table of settings.

use super::*;
use crate::limits;

#[test]
fn every_default_and_example_is_accepted() {
    let mut draft = Draft::blank();
    for setting in SETTINGS {
        for text in [setting.example, setting.default] {
            assert!((setting.apply)(&mut draft, text).is_some(), "{} = {text}", setting.key);
        }
    }
    let config = draft.config;
    assert_eq!(config.admission, AdmissionConfig::default());
    assert_eq!(config.backend, Backend::Embedded);
    assert_eq!(config.openim, OpenimConfig::default());
    assert_eq!(config.websocket.handshakes_max, limits::HANDSHAKES_MAX);
    assert_eq!(config.outbox_bytes_max, limits::OUTBOX_BYTES_MAX);
    assert_eq!(config.outbox_frames_max, limits::OUTBOX_FRAMES_MAX);
    assert_eq!(config.shard_outbox_bytes_max, limits::SHARD_OUTBOX_BYTES_MAX);
    assert_eq!(config.rates, Rates::default());
    assert_eq!(config.drain_deadline_ms, limits::DRAIN_DEADLINE_MS);
    assert_eq!(config.stall_abort_ms, limits::STALL_ABORT_MS);
    assert_eq!(config.record.bytes_max, limits::RECORDING_BYTES_MAX);
}

#[test]
fn what_is_shown_is_accepted_again() {
    let mut draft = Draft::blank();
    for setting in SETTINGS {
        (setting.apply)(&mut draft, setting.example).unwrap();
    }
    draft.config.websocket.connections_max = 7;
    draft.config.shards.count = 2;
    draft.config.shards.rpc_count = 1;
    for setting in SETTINGS {
        let shown = (setting.show)(&draft.config);
        assert!((setting.apply)(&mut Draft::blank(), &shown).is_some(), "{} = {shown}", setting.key);
    }
}

#[test]
fn names_are_unique_in_all_three_spellings() {
    let mut seen = std::collections::BTreeSet::new();
    for setting in SETTINGS {
        assert!(seen.insert(setting.key.to_owned()));
        assert!(seen.insert(setting.env_name()));
        assert!(seen.insert(format!("--{}", setting.flag_name())));
    }
}

#[test]
fn values_out_of_range_are_refused() {
    for (key, text) in [
        ("websocket.port", "65536"),
        ("websocket.port", "ten"),
        ("websocket.address", "localhost"),
        ("websocket.connections_max", "0"),
        ("rpc.listen", "10140"),
        ("shards.count", "0"),
        ("shards.driver", "kqueue"),
        ("auth.secret", ""),
        ("websocket.proxies", "10.0.0.0/8,"),
        ("websocket.proxies", "10.0.0.1/8"),
        ("websocket.proxy_protocol", "on"),
        ("login.connections_per_user_max", "0"),
        ("login.spread_ms", "6s"),
        ("http.token", "0123456789abcde"),
        ("rpc.allow", ""),
        ("rpc.allow", "none"),
        ("rpc.allow", "any,10.0.0.0/8"),
        ("rpc.allow", "10.0.0.1/8"),
        ("rpc.allow", "gateway.internal"),
        ("rpc.token", "short"),
        ("http.token", "0123456789 abcdef"),
        ("login.policy", "2"),
        ("outbox.bytes_max", "1MiB"),
        ("stall.abort_ms", "1s"),
        ("log.level", "loud"),
        ("backend", "redis"),
        ("compat", "patch.16"),
        ("openim.index", "1024"),
        ("openim.index", "-1"),
        ("discovery.kind", "zookeeper"),
        ("discovery.etcd_addresses", ""),
        ("discovery.etcd_addresses", "etcd"),
        ("discovery.etcd_addresses", "https://etcd-0:2379,etcd-1:2379"),
        ("discovery.etcd_addresses", "http://etcd-0:2379,https://etcd-1:2379"),
        ("discovery.etcd_root", "/"),
        ("discovery.etcd_root", "open im"),
        ("discovery.namespace", "Open_IM"),
        ("discovery.static_auth", "a:1,"),
        ("discovery.service_auth", ""),
        ("discovery.service_auth", "a/b"),
        ("discovery.register_ip", "::"),
        ("discovery.register_ip", "gateway"),
        ("discovery.lease_s", "4"),
        ("discovery.lease_s", "3601"),
        ("redis.mode", ""),
        ("redis.addresses", ""),
        ("redis.db", "65536"),
        ("webhooks.url", "hooks:10006"),
        ("webhooks.online_timeout_ms", "0"),
        ("webhooks.online_timeout_ms", "15001"),
        ("presence.renewal_ms", "841s"),
        ("presence.renewal_ms", "9s"),
        ("presence.batch_wait_ms", "9"),
        ("upstream.deadline_ms", "61s"),
        ("upstream.in_flight_max", "0"),
    ] {
        let setting = setting(key).unwrap();
        assert!((setting.apply)(&mut Draft::blank(), text).is_none(), "{key} = {text}");
    }
}

#[test]
fn rpc_allow_takes_networks_of_both_families_up_to_its_limit() {
    let apply = |text: &str| {
        let mut draft = Draft::blank();
        (setting("rpc.allow").unwrap().apply)(&mut draft, text).map(|()| draft.config.rpc.allow)
    };
    let many =
        |n: usize| (0..n).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect::<Vec<_>>().join(",");
    assert_eq!(apply("any").map(|networks| networks.len()), Some(0));
    assert_eq!(apply("10.0.0.0/8, ::1,::ffff:192.0.2.1").map(|networks| networks.len()), Some(3));
    assert_eq!(apply(&many(limits::RPC_NETWORKS_MAX)).map(|networks| networks.len()), Some(256));
    assert_eq!(apply(&many(limits::RPC_NETWORKS_MAX + 1)), None);
}

#[test]
fn settings_of_openim_are_read_as_they_are_written_elsewhere() {
    for (key, text, shown) in [
        ("discovery.etcd_addresses", "http://etcd-0:2379, etcd-1:2379", "etcd-0:2379,etcd-1:2379"),
        (
            "discovery.etcd_addresses",
            "https://etcd:2379,https://[::1]:1",
            "https://etcd:2379,https://[::1]:1",
        ),
        ("discovery.etcd_root", "/openim/", "openim"),
        ("webhooks.url", "http://hooks/a/", "http://hooks/a"),
        ("openim.index", "1023", "1023"),
        ("discovery.lease_s", "5", "5"),
        ("discovery.lease_s", "3600", "3600"),
        ("redis.db", "65535", "65535"),
        ("webhooks.kick_off_timeout_ms", "15s", "15000"),
        ("presence.renewal_ms", "840s", "840000"),
        ("presence.batch_wait_ms", "10", "10"),
        ("upstream.deadline_ms", "60s", "60000"),
        ("upstream.in_flight_max", "65536", "65536"),
    ] {
        let (mut draft, setting) = (Draft::blank(), setting(key).unwrap());
        assert!((setting.apply)(&mut draft, text).is_some(), "{key} = {text}");
        assert_eq!((setting.show)(&draft.config), shown, "{key} = {text}");
    }
}
