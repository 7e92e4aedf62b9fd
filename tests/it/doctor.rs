//! `pinion doctor`: its grades on prepared hosts, on this one, and what a gateway prints of it.
//!
//! A prepared host is a tree below `tests/host/hosts`: `base` is one with nothing to complain about, every other tree
//! holds only the files in which it differs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::harness::{Gateway, pinion, run, spawn_without_io_uring, texts};

/// Grades by point, with the commands that mend them.
type Findings = BTreeMap<String, (String, Option<String>)>;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The tree of `base` with that of `host` over it.
fn prepared(host: &str) -> tempfile::TempDir {
    let hosts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/hosts");
    let root = tempfile::tempdir().unwrap();
    copy(&hosts.join("base"), root.path());
    copy(&hosts.join(host), root.path());
    root
}

fn parse(text: &str) -> Findings {
    let object: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let word = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let finding =
        |f: &serde_json::Value| (word(&f["point"]).unwrap(), (word(&f["grade"]).unwrap(), word(&f["fix"])));
    object["findings"].as_array().unwrap().iter().map(finding).collect()
}

/// Exit code and findings of a prepared host.
fn judged(host: &str, profile: &str) -> (i32, Findings) {
    let root = prepared(host);
    let root = root.path().to_str().unwrap();
    let (code, out, err) = texts(&run(pinion(&["doctor", "--json", "--profile", profile, "--root", root])));
    assert!(err.is_empty(), "{err}");
    (code, parse(&out))
}

/// Every point that is not `ok`, with its grade.
fn complaints(findings: &Findings) -> Vec<(&str, &str)> {
    let bad = findings.iter().filter(|(_, (grade, _))| grade != "ok");
    bad.map(|(point, (grade, _))| (point.as_str(), grade.as_str())).collect()
}

#[test]
fn a_good_host_has_nothing_to_complain_about() {
    let (code, findings) = judged("base", "10k");
    assert_eq!((code, complaints(&findings)), (0, vec![]));
    assert!(findings.len() > 20 && findings.values().all(|(_, fix)| fix.is_none()), "{findings:#?}");
}

#[test]
fn a_larger_plan_is_judged_by_its_own_numbers() {
    let (code, findings) = judged("base", "10m");
    let found = complaints(&findings);
    for (point, grade) in
        [("gateway limit", "warn"), ("tcp memory", "fail"), ("memory", "warn"), ("orphans", "hint")]
    {
        assert!(found.contains(&(point, grade)), "{point}: {found:?}");
    }
    assert_eq!(code, 4);
}

#[test]
fn lowered_limits_are_seen_one_by_one() {
    let (code, findings) = judged("limits-lowered", "10k");
    let want = vec![
        ("ephemeral ports", "warn"),
        ("files of the host", "fail"),
        ("listen backlog", "warn"),
        ("listen overflows", "hint"),
        ("open files", "fail"),
        ("orphans", "hint"),
        ("packet backlog", "hint"),
        ("socket buffers", "warn"),
        ("syn backlog", "warn"),
        ("tcp memory", "fail"),
    ];
    assert_eq!((code, complaints(&findings)), (4, want));
    let fix = |point: &str| findings[point].1.clone().unwrap();
    assert!(fix("open files").contains("LimitNOFILE=11500"), "{findings:#?}");
    assert!(fix("listen backlog").contains("sysctl -w net.core.somaxconn=4096"), "{findings:#?}");
    assert!(fix("tcp memory").contains("\"15000 20000 30000\""), "{findings:#?}");
    assert!(fix("ephemeral ports").ends_with("ip_local_reserved_ports=10001,10140,12140"), "{findings:#?}");
}

#[test]
fn a_host_that_denies_io_uring_is_told_how_to_allow_it() {
    let (code, findings) = judged("io-uring-denied", "10k");
    assert_eq!((code, complaints(&findings)), (3, vec![("container", "hint"), ("io_uring", "warn")]));
    assert_eq!(findings["io_uring"].1.as_deref(), Some("sysctl -w kernel.io_uring_disabled=0"));
}

#[test]
fn a_cgroup_with_little_memory_counts_not_the_hosts() {
    let (code, findings) = judged("small-cgroup", "10k");
    let want = vec![("cgroup cpu", "warn"), ("cgroup memory", "fail"), ("container", "hint")];
    assert_eq!((code, complaints(&findings)), (4, want));
    assert!(
        findings["cgroup memory"].1.as_deref().unwrap().contains("limits.memory: 648Mi"),
        "{findings:#?}"
    );
}

#[test]
fn conntrack_cards_and_nodes_are_seen() {
    let (code, findings) = judged("conntrack-on", "10k");
    let want = vec![("conntrack", "fail"), ("network cards", "warn"), ("numa", "hint")];
    assert_eq!((code, complaints(&findings)), (4, want));
    assert!(findings["conntrack"].1.as_deref().unwrap().contains("nf_conntrack_max=12500"), "{findings:#?}");
}

#[test]
fn an_old_kernel_with_cgroups_of_version_1_is_seen() {
    let (code, findings) = judged("old-kernel", "10k");
    let want = vec![
        ("cgroup cpu", "hint"),
        ("cgroup memory", "warn"),
        ("clock", "warn"),
        ("engine", "warn"),
        ("listen backlog", "warn"),
        ("locked memory", "warn"),
    ];
    assert_eq!((code, complaints(&findings)), (3, want));
}

#[test]
fn this_host_is_judged_alike_in_text_and_json() {
    let (code, out, err) = texts(&run(pinion(&["doctor"])));
    assert!([0, 3, 4].contains(&code) && err.is_empty(), "{code}: {err}");
    let (json_code, json, _) = texts(&run(pinion(&["doctor", "--json"])));
    assert_eq!(code, json_code);
    let findings = parse(&json);
    for (point, (grade, fix)) in &findings {
        // Counters of the running kernel, which other tests may move between the two runs.
        if ["listen overflows", "packet backlog"].contains(&point.as_str()) {
            continue;
        }
        let line =
            out.lines().find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(point.as_str())));
        let line = line.unwrap_or_else(|| panic!("no line for {point} in\n{out}"));
        assert!(line.starts_with(grade.as_str()), "{grade}: {line}");
        assert_eq!(fix.is_some(), line.contains("  ->  "), "{line}");
    }
}

#[test]
fn a_refused_ring_is_a_warning_with_its_remedy() {
    let mut command = pinion(&["doctor", "--json"]);
    let child = spawn_without_io_uring(command.stdout(std::process::Stdio::piped())).unwrap();
    let output = child.wait_with_output().unwrap();
    let findings = parse(&String::from_utf8(output.stdout).unwrap());
    let (grade, fix) = &findings["io_uring"];
    assert_eq!(grade, "warn");
    assert!(fix.as_deref().unwrap().contains("seccomp"), "{fix:?}");
}

#[test]
fn an_unknown_profile_is_wrong_usage() {
    let (code, _, err) = texts(&run(pinion(&["doctor", "--profile", "5k"])));
    assert_eq!(code, 2);
    assert!(err.contains("10k, 100k, 1m, 10m"), "{err}");
}

/// A start says what `pinion doctor` calls a failure, and nothing milder.
#[test]
fn a_gateway_starts_with_the_failures_of_its_host() {
    let gateway = Gateway::start(&["--shards-count", "1", "--websocket-connections-max", "100"]);
    let told: Vec<_> = gateway.banner.iter().filter(|line| line.contains("this host:")).collect();
    assert!(
        told.iter().all(|line| line.starts_with("warning ") && line.ends_with("(pinion doctor)")),
        "{told:?}"
    );
    assert!(
        !told.iter().any(|line| line.contains("open files")),
        "100 connections need no more files: {told:?}"
    );
}
