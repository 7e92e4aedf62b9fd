//! What each layout becomes, and which source wins.

use super::super::DiscoveryKind;
use super::*;

#[test]
fn patch16_becomes_our_settings() {
    let loaded = load_folder(&fixture(PATCH16), &[]).unwrap();
    check(
        &loaded,
        &[
            ("backend", "openim"),
            ("compat", "patch16"),
            ("websocket.port", "10201"),
            ("websocket.connections_max", "300"),
            ("rpc.listen", "0.0.0.0:10240"),
            ("rpc.legacy_service", "false"),
            ("http.listen", "0.0.0.0:12240"),
            ("auth.admin_users", "root16,ops16"),
            ("login.policy", "4"),
            ("log.level", "warn"),
            ("log.format", "json"),
            ("discovery.kind", "etcd"),
            ("discovery.etcd_addresses", "etcd-0:2379,etcd-1:2379"),
            ("discovery.etcd_root", "openim-16"),
            ("discovery.etcd_username", "gateway16"),
            ("discovery.register_ip", "10.16.0.1"),
            ("discovery.service_auth", "auth-16"),
            ("discovery.service_user", "user-16"),
            ("discovery.service_msg", "msg-16"),
            ("discovery.service_push", "push-16"),
            ("discovery.service_gateway", "gateway-16"),
            ("discovery.metrics", "false"),
            ("redis.mode", "cluster"),
            ("redis.addresses", "redis-0:6379,redis-1:6379"),
            ("redis.username", "redis16"),
            ("webhooks.url", "http://hooks-16:10006/callback"),
            ("webhooks.online", "true"),
            ("webhooks.online_timeout_ms", "3000"),
            ("webhooks.offline", "false"),
            ("webhooks.offline_timeout_ms", "4000"),
            ("webhooks.kick_off_timeout_ms", "6000"),
        ],
    );
    assert_eq!(loaded.config.auth.secret, "sesame-of-patch16");
    assert_eq!(loaded.config.openim.redis.password.secret(), "redis-password-16");
    assert_eq!(loaded.config.openim.discovery.etcd.password.secret(), "etcd-password-16");
    let place = fixture(PATCH16).join("share.yml");
    let origin = format!("OpenIM's {}:14 multiLogin.policy", place.display());
    assert_eq!(loaded.origin("login.policy").to_string(), origin);
}

#[test]
fn main_becomes_our_settings() {
    let loaded = load_folder(&fixture(MAIN), &[]).unwrap();
    check(
        &loaded,
        &[
            ("compat", "main"),
            ("websocket.port", "10301"),
            // OpenIM's default is nobody's choice.
            ("websocket.connections_max", "100000"),
            ("rpc.listen", "0.0.0.0:0"),
            ("http.listen", "0.0.0.0:0"),
            ("discovery.metrics", "true"),
            ("discovery.register_ip", "10.9.8.7"),
            ("discovery.etcd_root", "openim-main"),
            ("discovery.etcd_addresses", "etcd-main:2379"),
            ("discovery.namespace", "im-main"),
            ("discovery.service_auth", "auth-main"),
            ("discovery.service_user", "user-main"),
            ("discovery.service_msg", "msg-main"),
            ("discovery.service_push", "push-main"),
            ("discovery.service_gateway", "gateway-main"),
            ("auth.admin_users", "rootMain"),
            ("login.policy", "5"),
            ("redis.mode", "sentinel"),
            ("redis.db", "3"),
            ("redis.master_name", "master-main"),
            ("redis.sentinel_addresses", "sentinel-0:26379,sentinel-1:26379"),
            ("webhooks.url", "http://hooks-main:10006/callback"),
            ("webhooks.online_timeout_ms", "7000"),
            ("log.level", "debug"),
            ("log.format", "text"),
        ],
    );
    assert!(!loaded.origin("websocket.connections_max").is_given());
    assert!(!loaded.origin("discovery.register_ip").is_given(), "an empty registerIP is none");
}

#[test]
fn v35_on_kubernetes_becomes_our_settings_and_a_ring() {
    let loaded = load_from(&sources(&fixture(V35), &POD, &[])).unwrap();
    check(
        &loaded,
        &[
            ("compat", "v3.5"),
            ("discovery.kind", "kubernetes"),
            ("websocket.port", "10351"),
            ("rpc.listen", "0.0.0.0:10350"),
            ("rpc.legacy_service", "true"),
            ("http.listen", "127.0.0.1:12140"),
            ("auth.admin_users", "openIM123456,openIMAdmin"),
            ("login.policy", "1"),
            ("redis.addresses", "redis-35:6379"),
            ("discovery.service_auth", "release-openim-rpc-auth:80"),
            ("discovery.service_user", "release-openim-rpc-user:80"),
            ("discovery.service_msg", "release-openim-rpc-msg:80"),
            ("discovery.service_push", "release-openim-push:80"),
            ("discovery.service_gateway", "release-openim-msggateway:88"),
            ("webhooks.url", ""),
            ("log.level", "info"),
        ],
    );
    let member = |i| {
        format!("release-openim-msggateway-{i}.release-openim-msggateway-headless.im.svc.cluster.local:88")
    };
    assert_eq!(loaded.config.openim.discovery.members, [member(0), member(1)]);
    assert_eq!(loaded.config.auth.secret, "sesame-of-35");

    let faults = load_from(&sources(&fixture(V35), &POD[..2], &[])).unwrap_err();
    assert_eq!(faults.0.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), ["MY_MSGGATEWAY_REPLICACOUNT"]);
    let static_ones = [
        ("discovery.kind", "static"),
        ("discovery.static_auth", "a:1"),
        ("discovery.static_user", "u:1"),
        ("discovery.static_msg", "m:1"),
        ("discovery.static_push", "p:1"),
    ];
    let loaded = load_folder(&fixture(V35), &static_ones).unwrap();
    assert_eq!(loaded.config.openim.discovery.kind, DiscoveryKind::Static);
    assert!(loaded.config.openim.discovery.members.is_empty());
}

#[test]
fn flag_beats_env_beats_our_file_beats_imenv_beats_the_folder() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "login.policy: 0\n").unwrap();
    let imenv = ("IMENV_SHARE_MULTILOGIN_POLICY", "5");
    let own = ("PINION_LOGIN_POLICY", "1");
    let policy = |with_file: bool, env: &[(&str, &str)], flags: &[(&'static str, &str)]| {
        let mut sources = sources(&fixture(PATCH16), env, flags);
        sources.file = with_file.then(|| file.path().to_path_buf());
        let loaded = load_from(&sources).unwrap();
        (loaded.config.login_policy, loaded.origin("login.policy").to_string())
    };
    let (value, origin) = policy(false, &[], &[]);
    assert!(value == 4 && origin.contains("share.yml:14"), "{value} {origin}");
    assert_eq!(policy(false, &[imenv], &[]), (5, "env IMENV_SHARE_MULTILOGIN_POLICY".to_owned()));
    let (value, origin) = policy(true, &[imenv], &[]);
    assert!(value == 0 && origin.starts_with("file "), "{value} {origin}");
    assert_eq!(policy(true, &[imenv, own], &[]), (1, "env PINION_LOGIN_POLICY".to_owned()));
    let flag = [("login.policy", "4")];
    assert_eq!(policy(true, &[imenv, own], &flag), (4, "flag --login-policy".to_owned()));
}

#[test]
fn imenv_overrides_what_is_there_only() {
    let env = [("IMENV_REDIS_ADDRESS", "r:1"), ("IMENV_DISCOVERY_KUBERNETES_NAMESPACE", "elsewhere")];
    let loaded = load_from(&sources(&fixture(PATCH16), &env, &[])).unwrap();
    check(&loaded, &[("redis.addresses", "r:1"), ("discovery.namespace", "")]);
    let note = loaded.notes.iter().find(|note| note.contains("override nothing")).unwrap();
    assert!(note.contains("IMENV_DISCOVERY_KUBERNETES_NAMESPACE") && !note.contains("REDIS"), "{note}");
    let bad = [("IMENV_REDIS_REDISMODE", "ring")];
    let faults = load_from(&sources(&fixture(PATCH16), &bad, &[])).unwrap_err().to_string();
    assert!(faults.contains("redis.mode = \"ring\"  (env IMENV_REDIS_REDISMODE)"), "{faults}");
}

/// Spec trap 37.
#[test]
fn the_index_picks_ports() {
    let second = load_folder(&fixture(PATCH16), &[("openim.index", "1")]).unwrap();
    check(
        &second,
        &[("websocket.port", "10202"), ("rpc.listen", "0.0.0.0:10241"), ("http.listen", "0.0.0.0:12241")],
    );
    let faults = load_folder(&fixture(PATCH16), &[("openim.index", "2")]).unwrap_err();
    let keys: Vec<_> = faults.0.iter().map(|f| (f.key.as_str(), f.value.as_deref().unwrap())).collect();
    let want = [
        ("longConnSvr.ports", "10201,10202"),
        ("rpc.ports", "10240,10241"),
        ("prometheus.ports", "12240,12241"),
    ];
    assert_eq!(keys, want, "{faults}");
    let text = faults.to_string();
    assert!(text.contains("openim-msggateway.yml:5 rpc.ports") && text.contains("so 3 ports"), "{text}");
    // Who names the listeners needs no lists.
    let own = [
        ("openim.index", "2"),
        ("websocket.port", "1"),
        ("rpc.listen", "127.0.0.1:2"),
        ("http.listen", "127.0.0.1:3"),
    ];
    load_folder(&fixture(PATCH16), &own).unwrap();
    let far = load_folder(&fixture(PATCH16), &[("openim.index", "1024")]).unwrap_err();
    assert!(far.0.iter().any(|f| f.key == "openim.index"), "{far}");
}

#[test]
fn metrics_that_are_off_leave_a_port_for_health() {
    let off = edited(PATCH16, &[("openim-msggateway.yml", "enable: true", "enable: false")]);
    for (index, want) in [("0", "127.0.0.1:12140"), ("1", "127.0.0.1:12141")] {
        let loaded = load_folder(off.path(), &[("openim.index", index)]).unwrap();
        check(&loaded, &[("http.listen", want), ("discovery.metrics", "false")]);
    }
    // Main serves them whatever the switch says.
    let dead = edited(MAIN, &[("openim-msggateway.yml", "  enable: true", "  enable: false")]);
    let loaded = load_folder(dead.path(), &[]).unwrap();
    check(&loaded, &[("http.listen", "0.0.0.0:0"), ("discovery.metrics", "true")]);
    assert!(
        loaded.notes.iter().any(|note| note.contains("prometheus.enable is not used")),
        "{:?}",
        loaded.notes
    );
}

#[test]
fn kubernetes_has_two_names_and_main_looks_for_the_pod() {
    // Spec trap 34.
    for name in ["k8s", "kubernetes"] {
        let to = format!("enable: {name}");
        let folder = edited(PATCH16, &[("discovery.yml", "enable: etcd", &to)]);
        check(&load_folder(folder.path(), &[]).unwrap(), &[("discovery.kind", "kubernetes")]);
    }
    let ports =
        ("openim-msggateway.yml", "autoSetPorts: true\n  ports:", "autoSetPorts: false\n  ports: [1]");
    let metrics = ("openim-msggateway.yml", "enable: true\n  ports:", "enable: true\n  ports: [2]");
    let folder = edited(MAIN, &[ports, metrics]);
    let in_pod = |name: &Path, flags: &[(&'static str, &str)]| {
        let mut sources = sources(name, &[], flags);
        sources.in_pod = true;
        load_from(&sources).unwrap()
    };
    let loaded = in_pod(folder.path(), &[]);
    check(&loaded, &[("discovery.kind", "kubernetes")]);
    assert!(loaded.notes.iter().any(|note| note.contains("this is a pod")), "{:?}", loaded.notes);
    let loaded = in_pod(folder.path(), &[("discovery.kind", "etcd")]);
    check(&loaded, &[("discovery.kind", "etcd")]);
    assert!(!loaded.notes.iter().any(|note| note.contains("this is a pod")), "{:?}", loaded.notes);
    check(&in_pod(&fixture(PATCH16), &[]), &[("discovery.kind", "etcd")]);
}

#[test]
fn a_port_that_listens_as_listen_ip_says_is_warned_about() {
    let loaded = load_folder(&fixture(PATCH16), &[]).unwrap();
    assert!(
        loaded.warnings.iter().any(|w| w.starts_with("rpc.listen 0.0.0.0:10240")),
        "{:?}",
        loaded.warnings
    );
    let own = edited(PATCH16, &[("openim-msggateway.yml", "listenIP: 0.0.0.0", "listenIP: '::1'")]);
    let loaded = load_folder(own.path(), &[]).unwrap();
    check(&loaded, &[("rpc.listen", "[::1]:10240")]);
    assert!(loaded.warnings.iter().any(|w| w.contains("nobody will reach")), "{:?}", loaded.warnings);
}

#[test]
fn an_embedded_gateway_may_take_ports_and_secret_from_the_folder() {
    let edits = [("redis.yml", "db: 0", "db: 2")];
    let loaded = load_folder(edited(PATCH16, &edits).path(), &[("backend", "embedded")]).unwrap();
    check(&loaded, &[("backend", "embedded"), ("websocket.port", "10201"), ("redis.db", "2")]);
}
