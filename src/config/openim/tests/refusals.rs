//! What is refused, what is noted, and what is never shown.

use super::*;

/// Spec trap 36.
#[test]
fn dead_and_unknown_keys_are_noted_and_refuse_nothing() {
    let extra =
        ("openim-msggateway.yml", "listenIP: 0.0.0.0", "listenIP: 0.0.0.0\nfuture:\n  - {a: 1}\n  - b");
    let folder = edited(MAIN, &[extra]);
    let loaded = load_folder(folder.path(), &[]).unwrap();
    let notes = loaded.notes.join("\n");
    for part in [
        "openim-msggateway.yml: longConnSvr.websocketMaxMsgLen not used",
        "circuitBreaker.bucket, circuitBreaker.enable",
        "and 3 more not used: Pinion has its own limits",
        "openim-msggateway.yml: future not known",
        "share.yml: rpcMaxBodySize.requestMaxBodySize not used: a gRPC message may have 8388608 bytes",
        "share.yml: multiLogin.maxNumOneEnd not used: the auth service decides it",
        "discovery.yml: rpcService.conversation, rpcService.friend, rpcService.group, rpcService.third not used",
        "redis.yml: maxRetry, poolSize, sentinelMode.routeByLatency, sentinelMode.routeRandomly not used",
        "webhooks.yml: beforeSendSingleMsg.attentionIds, beforeSendSingleMsg.enable",
        "log.yml: isSimplify, isStdout, remainRotationCount, rotationTime, storageLocation not used: Pinion logs to",
        "health and metrics get any free port",
    ] {
        assert!(notes.contains(part), "no {part:?} in:\n{notes}");
    }
    assert!(!notes.contains("responseMaxBodySize"), "8 MiB is what holds:\n{notes}");
    assert!(!notes.contains("sesame") && !notes.contains("password-main"), "{notes}");
}

/// A layout, edits of its files, and what the faults must say.
type Case = (&'static str, &'static [(&'static str, &'static str, &'static str)], &'static [&'static str]);
const GATEWAY: &str = "openim-msggateway.yml";
const CASES: [Case; 20] = [
    (
        MAIN,
        &[("discovery.yml", "enable: etcd", "enable: kubernetes")],
        &[
            "rpc.autoSetPorts = \"true\"",
            "openim-msggateway.yml:4 rpc.autoSetPorts",
            "set it to false and give rpc.ports",
        ],
    ),
    (
        MAIN,
        &[(GATEWAY, "autoSetPorts: true", "autoSetPorts: maybe")],
        &["rpc.autoSetPorts = \"maybe\"", "expected true or false"],
    ),
    (
        MAIN,
        &[(GATEWAY, "autoSetPorts: true", "autoSetPorts: false")],
        &["rpc.ports = \"\"", "so 1 ports", "prometheus.ports = \"\""],
    ),
    (
        MAIN,
        &[(GATEWAY, "listenIP: 0.0.0.0", "listenIP: eth0")],
        &["listenIP = \"eth0\"", "openim-msggateway.yml:9 listenIP", "expected the IP address"],
    ),
    (
        PATCH16,
        &[(GATEWAY, "10201", "70000")],
        &["websocket.port = \"70000\"", "openim-msggateway.yml:11", "expected a port"],
    ),
    (
        PATCH16,
        &[(GATEWAY, "10.16.0.1", "gateway.local")],
        &[
            "discovery.register_ip = \"gateway.local\"",
            "openim-msggateway.yml:3 rpc.registerIP",
            "an IP address",
        ],
    ),
    (
        PATCH16,
        &[("share.yml", "policy: 4", "policy: 2")],
        &["login.policy = \"2\"", "share.yml:14 multiLogin.policy", "expected 0, 1, 4 or 5"],
    ),
    (PATCH16, &[("share.yml", "policy: 4", "policy: 3")], &["login.policy = \"3\""]),
    (
        PATCH16,
        &[("share.yml", "sesame-of-patch16", "''")],
        &["auth.secret = \"\"", "share.yml:1 secret", "not empty"],
    ),
    (
        PATCH16,
        &[("redis.yml", "cluster", "ring")],
        &["redis.mode = \"ring\"", "redis.yml:4 redisMode", "expected `standalone`"],
    ),
    (PATCH16, &[("redis.yml", "db: 0", "db: 2")], &["redis.db = \"2\"", "redis.yml:5 db", "database 0 only"]),
    (
        PATCH16,
        &[("discovery.yml", "[ \"etcd-0:2379\", \"http://etcd-1:2379\" ]", "[]")],
        &["discovery.etcd_addresses = \"\"", "discovery.yml:4 etcd.address", "at least one host:port"],
    ),
    (PATCH16, &[("discovery.yml", "http://", "https://")], &["either all of them behind https:// or none"]),
    (
        PATCH16,
        &[("discovery.yml", "enable: etcd", "enable: zookeeper")],
        &["discovery.kind = \"zookeeper\"", "discovery.yml:1 enable", "give static addresses"],
    ),
    (
        PATCH16,
        &[("webhooks.yml", "http://hooks-16:10006/callback", "''")],
        &["webhooks.url = \"\"", "webhooks.yml:1 url", "needed with webhooks.online"],
    ),
    (
        PATCH16,
        &[("webhooks.yml", "timeout: 3", "timeout: soon")],
        &["afterUserOnline.timeout = \"soon\"", "expected a number of seconds"],
    ),
    (
        PATCH16,
        &[("log.yml", "remainLogLevel: 3", "remainLogLevel: 9")],
        &["remainLogLevel = \"9\"", "log.yml:4", "from 0 (fatal) to 6"],
    ),
    (
        PATCH16,
        &[("redis.yml", "", ""), ("log.yml", "", "")],
        &["openim.config_dir", "redis.yml, log.yml not found", "flag --openim-config-dir"],
    ),
    (
        MAIN,
        &[
            ("redis.yml", "masterName: master-main", "masterName: ''"),
            ("redis.yml", "[ \"sentinel-0:26379\", \"sentinel-1:26379\" ]", "[]"),
        ],
        &[
            "redis.master_name = \"\"",
            "redis.yml:9",
            "redis.sentinel_addresses",
            "needed with redis.mode sentinel",
        ],
    ),
    (
        V35,
        &[("config.yaml", "discovery: k8s", "discovery: zookeeper")],
        &["discovery.kind = \"zookeeper\"", "config.yaml:3 envs.discovery", "give static addresses"],
    ),
];

#[test]
fn impossible_combinations_are_refused_with_place_value_and_what_to_do() {
    for (name, edits, parts) in CASES {
        let folder = edited(name, edits);
        let faults = load_folder(folder.path(), &[]).unwrap_err().to_string();
        for part in parts {
            assert!(faults.contains(part), "{edits:?}: no {part:?} in:\n{faults}");
        }
    }
}

#[test]
fn what_a_stronger_source_says_is_not_refused() {
    let edits = [
        ("discovery.yml", "enable: etcd", "enable: zookeeper"),
        ("share.yml", "policy: 4", "policy: 2"),
        ("log.yml", "remainLogLevel: 3", "remainLogLevel: 9"),
        ("openim-msggateway.yml", "autoSetPorts: false", "autoSetPorts: true"),
    ];
    let folder = edited(PATCH16, &edits);
    let flags = [("discovery.kind", "kubernetes"), ("login.policy", "1"), ("log.level", "info")];
    let faults = load_folder(folder.path(), &flags).unwrap_err();
    assert_eq!(faults.0.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), ["rpc.autoSetPorts"], "{faults}");
    let flags = [&flags[..], &[("rpc.listen", "127.0.0.1:1")]].concat();
    let loaded = load_folder(folder.path(), &flags).unwrap();
    check(
        &loaded,
        &[("rpc.listen", "127.0.0.1:1"), ("http.listen", "0.0.0.0:0"), ("discovery.metrics", "false")],
    );
}

#[test]
fn the_layout_says_which_openim_it_is_and_a_contradiction_is_refused() {
    for (name, stated, part) in [
        (PATCH16, "main", "rpcRegisterName.auth is of patch16; leave compat out"),
        (MAIN, "patch16", "rpcService.auth is of main; leave compat out"),
        (V35, "main", "is of v3.5"),
    ] {
        let faults = load_folder(&fixture(name), &[("compat", stated)]).unwrap_err().to_string();
        let head = format!("compat = {stated:?}  (flag --compat)");
        assert!(faults.contains(&head) && faults.contains(part), "{faults}");
    }
    load_folder(&fixture(PATCH16), &[("compat", "patch16")]).unwrap();

    let both = edited(MAIN, &[("share.yml", "secret: ", "rpcRegisterName: {auth: auth}\nsecret: ")]);
    let faults = load_folder(both.path(), &[]).unwrap_err().to_string();
    assert!(faults.contains("these are files of two versions"), "{faults}");

    let neither = edited(MAIN, &[("discovery.yml", "rpcService", "services")]);
    let faults = load_folder(neither.path(), &[]).unwrap_err().to_string();
    assert!(faults.contains("nobody knows whose files these are; set compat"), "{faults}");
    let loaded = load_folder(neither.path(), &[("compat", "main")]).unwrap();
    check(&loaded, &[("discovery.service_auth", "auth-rpc-service")]);

    let mixed = edited(MAIN, &[]);
    std::fs::write(mixed.path().join("config.yaml"), "secret: x\n").unwrap();
    let faults = load_folder(mixed.path(), &[]).unwrap_err().to_string();
    assert!(faults.contains("both openim-msggateway.yml and config.yaml"), "{faults}");
}

#[test]
fn folders_that_cannot_be_read_are_one_fault() {
    let empty = tempfile::tempdir().unwrap();
    for (folder, part) in [
        (Path::new("/nowhere/openim"), "cannot be read as a directory"),
        (empty.path(), "expected openim-msggateway.yml, share.yml, discovery.yml"),
    ] {
        let faults = load_folder(folder, &[]).unwrap_err();
        assert_eq!(faults.0.len(), 1, "{faults}");
        assert!(faults.to_string().contains(part), "{faults}");
    }
    let broken = edited(MAIN, &[("share.yml", "secret: ", "secret: [")]);
    let faults = load_folder(broken.path(), &[]).unwrap_err();
    assert!(faults.to_string().contains("share.yml:") && faults.to_string().contains("not YAML"), "{faults}");
}

#[test]
fn secrets_of_the_folder_are_never_shown() {
    for (name, env) in [(PATCH16, &[][..]), (MAIN, &[]), (V35, &POD)] {
        let loaded = load_from(&sources(&fixture(name), env, &[])).unwrap();
        let shown =
            [loaded.taken().join("\n"), loaded.print(), format!("{:?}", loaded.config.openim)].concat();
        assert!(shown.contains("redis.password = (set)  (OpenIM's "), "{shown}");
        for secret in ["sesame-of", "redis-password", "etcd-password"] {
            assert!(!shown.contains(secret), "{name}: {secret}");
        }
    }
    let taken = load_folder(&fixture(PATCH16), &[("login.policy", "1")]).unwrap().taken();
    assert!(taken.iter().any(|line| line.starts_with("websocket.port = 10201  (OpenIM's ")), "{taken:#?}");
    assert!(!taken.iter().any(|line| line.starts_with("login.policy")), "{taken:#?}");
    let bad = edited(PATCH16, &[("share.yml", "policy: 4", "policy: 2")]);
    let faults = load_folder(bad.path(), &[]).unwrap_err().to_string();
    assert!(!faults.contains("sesame") && !faults.contains("password-16"), "{faults}");
}
