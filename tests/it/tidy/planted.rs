//! Tests of the rules: each is fed a planted violation and must report it, and the same thing done right, which it must
//! leave alone.

use super::exceptions::Exception;
use super::rules::{self, Finding};
use super::source::{self, Source};
use super::{findings, layers, unexcused};

/// Rules that fire on one file, each once per name, sorted.
fn fired(path: &str, text: &str) -> Vec<&'static str> {
    let documented = format!("//! Documented.\n{text}");
    let mut names: Vec<_> = findings(&[Source::new(path, &documented)]).iter().map(|f| f.rule).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[test]
fn each_rule_reports_a_planted_violation() {
    let long_function = format!("fn long() {{\n{}}}\n", "    work();\n".repeat(71));
    let long_file = "const A: u8 = 1;\n".repeat(500);
    let wide_line = format!("// {}\n", "x".repeat(118));
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str)] = &[
        ("file-lines", "src/hub/push.rs", &long_file),
        ("function-lines", "src/hub/push.rs", &long_function),
        ("line-width", "src/hub/push.rs", &wide_line),
        ("word", "src/hub/push.rs", "// FIXME: later\n"),
        ("word", "src/hub/push.rs", "struct SessionManager;\n"),
        ("word", "src/hub/push.rs", "mod utils;\n"),
        ("word", "src/hub/push.rs", "fn push_helper() {}\n"),
        ("discarded-result", "src/hub/push.rs", "fn f() { send()\n    .ok(); }\n"),
        ("discarded-result", "src/hub/push.rs", "fn f() { let x = 1; if x { y = 2; } send(|| { g() }).ok(); }\n"),
        ("unsafe", "src/hub/push.rs", "fn f() { unsafe { g() } }\n"),
        ("atomic", "src/hub/push.rs", "use std::sync::atomic::fence;\n"),
        ("atomic", "src/hub/push.rs", "static A: AtomicU64 = zero();\n"),
        ("arc", "src/hub/push.rs", "struct A(std::sync::Arc<u8>);\n"),
        ("monoio", "src/hub/push.rs", "use monoio::net::TcpStream;\n"),
        ("monoio", "src/config/mod.rs", "use monoio_http::common::Body;\n"),
        ("tokio", "src/rpc/http2.rs", "use tokio::io::AsyncRead;\n"),
        ("blocking", "src/shard/mailbox.rs", "struct A(std::sync::Mutex<u8>);\n"),
        ("blocking", "src/shard/mailbox.rs", "use std::sync::{RwLock, Condvar};\n"),
        ("blocking", "src/shard/mailbox.rs", "fn f() { channel.recv(); }\n"),
        ("blocking", "src/shard/mailbox.rs", "fn f() { channel.recv_timeout(d); }\n"),
        ("blocking", "src/shard/mailbox.rs", "use crossbeam_channel::Sender;\nfn f() { sender.send(1); }\n"),
        ("blocking", "src/shard/mailbox.rs", "fn f() { std::thread::sleep(d); }\n"),
        ("limit-name", "src/limits.rs", "pub const TIMEOUT: u64 = 1;\n"),
        ("limit-name", "src/limits/channel.rs", "pub const TIMEOUT: u64 = 1;\n"),
        ("layer", "src/wire/frame.rs", "use crate::session::handshake::Login;\n"),
        ("layer", "src/session/mod.rs", "fn f() -> crate::hub::Hub { new() }\n"),
        ("layer", "src/hub/mod.rs", "use crate::{ids::ConnId, rpc::{Status, Code}};\n"),
        ("layer", "src/cluster/mod.rs", "use crate::backend::embedded::Embedded;\n"),
        ("layer", "src/wire/frame.rs", "use super::super::hub::Hub;\n"),
        ("layer", "src/wire/mod.rs", "use super::shard::mailbox;\n"),
        ("layer", "src/sundries.rs", "fn f() {}\n"),
    ];
    for (rule, path, text) in cases {
        assert_eq!(fired(path, text), [*rule], "{path}:\n{text}");
    }
}

#[test]
fn what_is_allowed_is_left_alone() {
    let table = format!("const T: &[u8] = &[\n{}];\n", "    1,\n".repeat(600));
    let rows = format!("metrics! {{\n{}}}\n", format!("    A \"{}\";\n", "x".repeat(120)).repeat(600));
    let test_function =
        format!("#[cfg(test)]\nmod tests {{\nfn long() {{\n{}}}\n}}\n", "    work();\n".repeat(100));
    #[rustfmt::skip]
    let cases: &[(&str, &str)] = &[
        ("src/hub/push.rs", &table),
        ("src/hub/push.rs", &test_function),
        ("src/hub/push.rs", "// unsafe, Mutex, Arc, monoio, tokio: named in a comment only\n"),
        ("src/hub/push.rs", "const S: &str = r#\"unsafe \"Mutex\" Arc\"#;\nconst C: char = '\"';\n"),
        ("src/hub/push.rs", "fn f() { let x: Option<u8> = g(|y| { y; }).ok(); x = h().ok(); return i().ok(); }\n"),
        ("src/metrics.rs", &rows),
        ("src/hub/push.rs", "fn f<'a>(x: &'a str) -> Option<u8> { parse(x).ok() }\n"),
        ("src/hub/push.rs", "#[cfg(test)]\nmod tests { use std::sync::Arc; fn f() { x().ok(); } }\n"),
        ("src/hub/push.rs", "use crate::ids::ConnId;\nuse super::registry::Registry;\n"),
        ("src/hub/mod.rs", "#![deny(unsafe_code)]\nuse crate::{ids::{ConnId}, wire::frame::Frame};\n"),
        ("src/shard/stall_trace.rs", "fn f() { unsafe { g() } }\nstatic A: AtomicU64 = zero();\n"),
        ("src/shard/mod.rs", "use std::sync::Arc;\nuse crate::config::Config;\n"),
        ("src/rpc/server.rs", "fn f() { stream.send_data(d); sink.send(d); }\n"),
        ("src/shard/mailbox.rs", "use crossbeam_channel::Sender;\nfn f() { post.doorbell.send(&lane, mail); }\n"),
        ("src/control/etcd.rs", "use tokio::sync::Mutex;\n"),
        ("src/limits.rs", "pub const A_BYTES: u64 = 1;\npub const B_MS: u64 = 1;\nconst _: () = assert!(true);\n"),
        ("src/main.rs", "use pinion::cli;\n"),
        ("src/metrics.rs", "use crate::ids::ShardId;\n"),
        ("tests/it/push.rs", "use std::sync::Mutex; fn push_helper() { x().ok(); }\n"),
    ];
    for (path, text) in cases {
        assert_eq!(fired(path, text), [""; 0], "{path}:\n{text}");
    }
}

#[test]
fn a_file_without_documentation_is_reported() {
    let found = rules::check(&[Source::new("src/hub/push.rs", "// a comment\nfn f() {}\n")]);
    assert_eq!(found.iter().map(|f| f.rule).collect::<Vec<_>>(), ["module-doc"]);
    let found = rules::check(&[Source::new("tests/it/main.rs", "#![allow(a)]\n//! Documented.\n")]);
    assert_eq!(found, []);
}

#[test]
fn a_circle_within_one_layer_is_reported() {
    let ids = Source::new("src/ids.rs", "use crate::time::Mono;\n");
    let time = Source::new("src/time.rs", "use crate::ids::ConnId;\n");
    let found = layers::check(&[ids, time]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].what, "circle: ids -> time -> ids");
}

#[test]
fn a_file_declared_as_a_test_module_is_test_code() {
    let parent = Source::new("src/hub/mod.rs", "#[cfg(test)]\npub(crate) mod fixtures;\n");
    let child = Source::new("src/hub/fixtures.rs", "//! Documented.\nuse std::sync::Arc;\n");
    let mut sources = [parent, child];
    source::mark_test_files(&mut sources);
    assert!(!sources[0].is_test);
    assert!(sources[1].is_test);
    assert_eq!(rules::check(&sources[1..]), []);
}

#[test]
fn an_exception_covers_exactly_its_count() {
    let finding = || Finding { rule: "arc", path: "src/x.rs".to_owned(), line: 3, what: "`Arc`".to_owned() };
    let exception = |count| Exception { rule: "arc", path: "src/x.rs", count, reason: "a test" };
    assert_eq!(unexcused(vec![finding()], &[exception(1)]), Vec::<String>::new());
    assert_eq!(unexcused(vec![finding(), finding()], &[exception(1)]).len(), 3, "one more than excused");
    assert_eq!(unexcused(vec![], &[exception(1)]).len(), 1, "an exception that nothing needs");
    assert_eq!(unexcused(vec![finding()], &[]), ["src/x.rs:3: [arc] `Arc`"]);
}
