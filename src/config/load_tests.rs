//! Tests of `load`: precedence, what is worked out, and that all faults come at once.

use std::io::Write;
use std::path::PathBuf;

use super::*;

fn machine() -> Machine {
    Machine { cpus: vec![0, 1], quota: None, files_max: 20_000, interfaces: Vec::new() }
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn sources(file: Option<PathBuf>, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Sources {
    Sources {
        file,
        env: env.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        flags: flags.iter().map(|(k, v)| (*k, v.to_string())).collect(),
        in_pod: false,
    }
}

fn load_from(sources: &Sources) -> Result<Loaded, Faults> {
    load(sources, &machine(), UnixMs(0), || [1, 2])
}

#[test]
fn nothing_given_is_a_good_configuration_with_openims_ports() {
    let loaded = load_from(&Sources::default()).unwrap();
    let config = &loaded.config;
    assert_eq!(config.websocket.port, 10_001);
    assert_eq!(config.rpc.listen, "127.0.0.1:10140".parse().unwrap());
    assert_eq!(config.http_listen, "127.0.0.1:12140".parse().unwrap());
    assert_eq!(config.websocket.connections_max, 18_500);
    assert_eq!((config.shards.count, config.shards.rpc_count, config.shards.pin), (2, 1, true));
    assert_eq!(config.shards.owner_key, [1, 2]);
    assert_eq!(config.auth.secret, "openIM123");
    assert_eq!(config.login_policy, 1);
}

#[test]
fn flags_beat_environment_beats_file_beats_default() {
    let file = file("websocket:\n  port: 1\nlogin.policy: 4\nlog.level: warn\nhttp.listen: 127.0.0.1:1\n");
    let path = file.path().to_path_buf();
    let env = [("PINION_WEBSOCKET_PORT", "2"), ("PINION_LOG_LEVEL", "debug")];
    let loaded = load_from(&sources(Some(path.clone()), &env, &[("websocket.port", "3")])).unwrap();
    assert_eq!(loaded.config.websocket.port, 3);
    assert_eq!(*loaded.origin("websocket.port"), Origin::Flag("--websocket-port".into()));
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(*loaded.origin("log.level"), Origin::Env("PINION_LOG_LEVEL".into()));
    assert_eq!(loaded.config.login_policy, 4);
    assert_eq!(*loaded.origin("login.policy"), Origin::file(&path, 3));
    assert_eq!(*loaded.origin("rpc.listen"), Origin::Default);
    assert!(!loaded.origin("shards.count").is_given());
}

#[test]
fn all_faults_come_at_once_with_key_value_origin_and_example() {
    let file = file("websocket:\n  port: 99999\n  prot: 1\nlogin.policy: 2\nlogin.policy: 1\nauth: x\n");
    let env = [("PINION_LOG_LEVL", "info"), ("PINION_HTTP_LISTEN", "12140")];
    let flags = [("shards.driver", "kqueue"), ("websocket.connections_max", "1000000")];
    let faults = load_from(&sources(Some(file.path().into()), &env, &flags)).unwrap_err();
    let text = faults.to_string();
    let place = |line: usize| Origin::file(file.path(), line).to_string();
    for want in [
        &format!("websocket.port = \"99999\"  ({})", place(2)),
        "expected a port from 0 to 65535",
        "for example: 10001",
        &format!("websocket.prot  ({})\n      unknown setting; did you mean websocket.port?", place(3)),
        &format!("login.policy = \"2\"  ({})", place(4)),
        &format!("login.policy  ({})\n      set twice, first in line 4", place(5)),
        &format!("auth = \"x\"  ({})", place(6)),
        "this is a section",
        "PINION_LOG_LEVL  (env PINION_LOG_LEVL)\n      unknown setting; did you mean PINION_LOG_LEVEL?",
        "http.listen = \"12140\"  (env PINION_HTTP_LISTEN)",
        "shards.driver = \"kqueue\"  (flag --shards-driver)",
        "websocket.connections_max = \"1000000\"  (flag --websocket-connections-max)",
        "raise the hard limit to 1001500",
    ] {
        assert!(text.contains(want), "missing {want:?} in:\n{text}");
    }
    assert_eq!(faults.0.len(), 9, "{text}");
}

#[test]
fn secrets_are_never_shown() {
    let env = [
        ("PINION_AUTH_SECRET", "hunter2"),
        ("PINION_RPC_TOKEN", "rpc-hunter2-hunter2"),
        ("PINION_HTTP_TOKEN", "http-hunter2-hunter2"),
    ];
    let loaded = load_from(&sources(None, &env, &[])).unwrap();
    assert!(!format!("{:?}", loaded.config.rpc).contains("hunter2"));
    assert_eq!(loaded.config.auth.secret, "hunter2");
    let text = loaded.print();
    assert!(text.contains("auth.secret: (set)  # env PINION_AUTH_SECRET\n"), "{text}");
    assert!(text.contains("rpc.token: (set)  # env PINION_RPC_TOKEN\n"), "{text}");
    assert!(!text.contains("hunter2"));
    let bad = [("PINION_RPC_TOKEN", "hunter2"), ("PINION_HTTP_TOKEN", "hunter2")];
    let faults = load_from(&sources(None, &bad, &[])).unwrap_err().to_string();
    assert!(faults.contains("rpc.token = \"(hidden)\"") && !faults.contains("hunter2"), "{faults}");
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let flags = [("auth.admin_users", "a,b"), ("websocket.address", "::1"), ("shards.pin", "false")];
    let first = load_from(&sources(None, &[], &flags)).unwrap();
    let text: String =
        first.print().lines().filter(|l| !l.contains("(set)")).map(|l| format!("{l}\n")).collect();
    let file = file(&text);
    let second = load_from(&sources(Some(file.path().into()), &[], &[])).unwrap();
    let values = |loaded: &Loaded| SETTINGS.iter().map(|s| s.shown(&loaded.config)).collect::<Vec<_>>();
    assert_eq!(values(&first), values(&second));
}

#[test]
fn values_are_checked_against_each_other_and_the_machine() {
    type Case = (u64, &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 7] = [
        (1_000, &[], "websocket.connections_max"),
        (20_000, &[("record.mode", "shape"), ("record.dir", "/nowhere")], "record.dir"),
        (20_000, &[("websocket.connections_max", "18501")], "websocket.connections_max"),
        (20_000, &[("rpc.listen", "127.0.0.1:10001")], "rpc.listen"),
        (20_000, &[("http.listen", "127.0.0.1:10140")], "http.listen"),
        (
            20_000,
            &[("outbox.bytes_max", "8MiB"), ("outbox.shard_bytes_max", "4MiB")],
            "outbox.shard_bytes_max",
        ),
        (20_000, &[("rpc.listen", "0.0.0.0:12140")], "http.listen"),
    ];
    for (files_max, flags, key) in cases {
        let machine = Machine { files_max, ..machine() };
        let faults = load(&sources(None, &[], flags), &machine, UnixMs(0), || [1, 2]).unwrap_err();
        assert_eq!(faults.0.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), [key], "{faults}");
    }
    let good = [
        ("rpc.listen", "127.0.0.1:0"),
        ("http.listen", "127.0.0.1:0"),
        ("websocket.connections_max", "18500"),
    ];
    load_from(&sources(None, &[], &good)).unwrap();
}

#[test]
fn a_file_that_cannot_be_read_is_one_fault_beside_the_others() {
    let missing = sources(Some("/nowhere/pinion.yaml".into()), &[("PINION_LOG_LEVEL", "loud")], &[]);
    let faults = load_from(&missing).unwrap_err();
    assert_eq!(faults.0.len(), 2, "{faults}");
    assert!(faults.to_string().contains("/nowhere/pinion.yaml"), "{faults}");
    let broken = file("a: [1\n");
    let faults = load_from(&sources(Some(broken.path().into()), &[], &[])).unwrap_err();
    assert!(faults.to_string().contains("not YAML"), "{faults}");
}

#[test]
fn a_grpc_port_that_asks_for_nothing_is_warned_about() {
    let token = ("rpc.token", "0123456789abcdef");
    for (flags, exposed) in [
        (&[][..], false),
        (&[("rpc.listen", "[::1]:1")], false),
        (&[("rpc.listen", "127.0.0.2:1")], false),
        (&[("rpc.listen", "[::ffff:127.0.0.1]:1")], false),
        (&[("rpc.listen", "0.0.0.0:1")], true),
        (&[("rpc.listen", "[::]:1")], true),
        (&[("rpc.listen", "192.0.2.1:1")], true),
        (&[("rpc.listen", "192.0.2.1:1"), token], false),
        (&[("rpc.listen", "192.0.2.1:1"), ("rpc.allow", "192.0.2.0/24")], false),
        (&[("rpc.listen", "192.0.2.1:1"), ("rpc.allow", "any")], true),
    ] {
        let loaded = load_from(&sources(None, &[], flags)).unwrap();
        assert_eq!(loaded.warnings.len(), usize::from(exposed), "{flags:?}: {:?}", loaded.warnings);
        for part in ["push to every user", "kick", "tokens", "rpc.allow", "rpc.tls_client_ca", "rpc.token"] {
            assert!(loaded.warnings.iter().all(|w| w.contains(part)), "no {part} in {:?}", loaded.warnings);
        }
    }
}

#[test]
fn tls_without_a_client_ca_asks_callers_for_nothing() {
    let mut rpc = super::super::RpcConfig::at("192.0.2.1:1".parse().unwrap());
    rpc.tls_cert = Some("cert.pem".into());
    assert!(rpc.is_exposed());
    rpc.tls_client_ca = Some("ca.pem".into());
    assert!(!rpc.is_exposed());
}

#[test]
fn faults_of_tls_files_come_with_the_others() {
    let flags =
        [("rpc.tls_cert", "/nowhere/cert.pem"), ("rpc.tls_key", "/nowhere/key.pem"), ("log.level", "loud")];
    let faults = load_from(&sources(None, &[], &flags)).unwrap_err();
    let keys: Vec<_> = faults.0.iter().map(|f| f.key.as_str()).collect();
    assert_eq!(keys, ["log.level", "rpc.tls_cert", "rpc.tls_key"], "{faults}");
    assert!(
        faults.to_string().contains("rpc.tls_cert = \"/nowhere/cert.pem\"  (flag --rpc-tls-cert)"),
        "{faults}"
    );
}

#[test]
fn the_text_of_one_setting_follows_the_same_order() {
    let file = file("rpc:\n  token: from-the-file\n");
    let path = Some(file.path().to_path_buf());
    let env = [("PINION_RPC_TOKEN", "from-the-environment")];
    let flags = [("rpc.token", "from-the-flag")];
    for (sources, want) in [
        (sources(None, &[], &[]), None),
        (sources(path.clone(), &[], &[]), Some("from-the-file")),
        (sources(path.clone(), &env, &[]), Some("from-the-environment")),
        (sources(path, &env, &flags), Some("from-the-flag")),
    ] {
        assert_eq!(text_of("rpc.token", &sources).unwrap().as_deref(), want);
    }
    assert!(text_of("rpc.token", &sources(Some("/nowhere/p.yaml".into()), &[], &[])).is_err());
}
