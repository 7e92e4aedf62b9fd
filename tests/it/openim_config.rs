//! `--openim-config`: OpenIM's own folder judged and shown by the commands. (What each key becomes:
//! `src/config/openim/folder_tests.rs`, over the same folders.)

use std::path::{Path, PathBuf};

use crate::harness::{pinion, run, texts};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/openim-config").join(name)
}

/// `pinion` with a command, that folder, and more arguments.
fn with_folder(command: &str, name: &str, more: &[&str]) -> std::process::Command {
    let folder = folder(name);
    let mut arguments = vec![command, "--openim-config", folder.to_str().unwrap()];
    arguments.extend(more);
    pinion(&arguments)
}

const POD: [(&str, &str); 3] = [
    ("MY_POD_NAME", "release-openim-msggateway-0"),
    ("MY_POD_NAMESPACE", "im"),
    ("MY_MSGGATEWAY_REPLICACOUNT", "1"),
];

#[test]
fn check_says_what_was_taken_from_where_and_what_does_not_count() {
    let (code, out, err) = texts(&run(with_folder("check", "patch16", &["-i", "1"])));
    assert_eq!(code, 0, "{err}");
    let place = folder("patch16").display().to_string();
    for line in [
        &format!("openim: backend = openim  (OpenIM's {place})\n"),
        &format!(
            "openim: websocket.port = 10202  (OpenIM's {place}/openim-msggateway.yml:11 longConnSvr.ports)\n"
        ),
        &format!("openim: auth.secret = (set)  (OpenIM's {place}/share.yml:1 secret)\n"),
        &format!("openim: redis.password = (set)  (OpenIM's {place}/redis.yml:3 password)\n"),
        "note: openim-msggateway.yml: longConnSvr.websocketMaxMsgLen not used: it has no effect in OpenIM either",
        "warning: rpc.listen 0.0.0.0:10241: anybody who reaches this port",
        "configuration is good\n",
    ] {
        assert!(out.contains(line), "no {line:?} in:\n{out}");
    }
    assert!(!out.contains("sesame") && !out.contains("password-16"), "{out}");
}

#[test]
fn each_layout_is_recognised() {
    for (name, compat, kind) in
        [("patch16", "patch16", "etcd"), ("main", "main", "etcd"), ("v3.5", "v3.5", "kubernetes")]
    {
        // Nothing of this machine: it may have no address but the loopback, and it may be a pod.
        let machine = ["--print-config", "--discovery-register-ip", "10.0.0.1", "--discovery-kind", kind];
        let mut command = with_folder("check", name, &machine);
        command.envs(POD);
        let (code, out, err) = texts(&run(command));
        assert_eq!(code, 0, "{name}: {err}");
        assert!(out.contains(&format!("compat: {compat}  # OpenIM's ")), "{name}: {out}");
        assert!(out.contains("backend: openim  # OpenIM's "), "{name}: {out}");
    }
}

#[test]
fn variables_override_and_flags_win() {
    let mut command = with_folder("check", "patch16", &["--print-config", "--login-policy", "0"]);
    command.env("IMENV_SHARE_MULTILOGIN_POLICY", "5").env("IMENV_REDIS_ADDRESS", "redis-env:1");
    command.env("IMENV_LOG_REMAINLOGLEVEL", "2").env("PINION_LOG_LEVEL", "trace");
    let (code, out, err) = texts(&run(command));
    assert_eq!(code, 0, "{err}");
    for line in [
        "login.policy: 0  # flag --login-policy\n",
        "redis.addresses: \"redis-env:1\"  # env IMENV_REDIS_ADDRESS\n",
        "log.level: trace  # env PINION_LOG_LEVEL\n",
    ] {
        assert!(out.contains(line), "no {line:?} in:\n{out}");
    }
}

#[test]
fn the_folder_can_be_named_by_the_environment_and_by_our_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!("openim:\n  config_dir: {}\n  index: 1\n", folder("patch16").display());
    std::fs::write(file.path(), text).unwrap();
    let (code, out, err) =
        texts(&run(pinion(&["check", "--print-config", "--config", file.path().to_str().unwrap()])));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("websocket.port: 10202  # OpenIM's "), "{out}");
    let mut command = pinion(&["check", "--print-config"]);
    command.env("PINION_OPENIM_CONFIG_DIR", folder("patch16"));
    let (code, out, err) = texts(&run(command));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("websocket.port: 10201  # OpenIM's "), "{out}");
}

#[test]
fn faults_of_the_folder_end_with_2_and_say_file_line_value_and_what_to_do() {
    let (code, out, err) = texts(&run(with_folder("check", "patch16", &["-i", "7", "--compat", "patch16"])));
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    for part in [
        "3 faults in the configuration",
        "rpc.ports = \"10240,10241\"",
        "openim-msggateway.yml:5 rpc.ports",
        "openim.index is 7, so 8 ports at least are needed here",
    ] {
        assert!(err.contains(part), "no {part:?} in:\n{err}");
    }
    let (code, _, err) = texts(&run(pinion(&["gateway", "--openim-config", "/nowhere/openim"])));
    assert_eq!(code, 2, "{err}");
    let part = "openim.config_dir = \"/nowhere/openim\"  (flag --openim-config-dir)\n      cannot be read";
    assert!(err.contains(part), "{err}");
}

#[test]
fn openim_35_on_kubernetes_is_refused_without_its_variables() {
    let mut command = with_folder("check", "v3.5", &[]);
    for (name, _) in POD {
        command.env_remove(name);
    }
    command.env("MY_POD_NAME", "gateway").env("MY_MSGGATEWAY_REPLICACOUNT", "0");
    let (code, _, err) = texts(&run(command));
    assert_eq!(code, 2, "{err}");
    for part in [
        "3 faults",
        "MY_POD_NAME = \"gateway\"  (env MY_POD_NAME)",
        "RELEASE-openim-msggateway-NUMBER",
        "MY_POD_NAMESPACE  (default)\n      not set;",
        "MY_MSGGATEWAY_REPLICACOUNT = \"0\"",
        "from 1 to 1024",
    ] {
        assert!(err.contains(part), "no {part:?} in:\n{err}");
    }
}

#[test]
fn a_token_is_made_with_the_secret_of_the_folder() {
    let (code, out, err) =
        texts(&run(with_folder("token", "patch16", &["--user", "u", "--platform", "web"])));
    assert_eq!(code, 0, "{err}");
    let now = pinion::shard::clock::now().unix;
    pinion::backend::token::verify("sesame-of-patch16", out.trim(), now).unwrap();
}

#[test]
fn what_is_not_built_yet_is_refused_by_name() {
    let flags = ["gateway", "--backend", "openim", "--discovery-kind", "kubernetes"];
    let ports = ["--websocket-port=0", "--rpc-listen=127.0.0.1:0", "--http-listen=127.0.0.1:0"];
    let (code, _, err) = texts(&run(pinion(&[&flags[..], &ports[..]].concat())));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("discovery.kind kubernetes is not built yet"), "{err}");
}
