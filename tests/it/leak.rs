//! Many logins, one after the other: what the gateway held for them is gone, tables and memory alike.
//!
//! `PINION_TEST_LOGINS=20000 cargo test --release --test it leak` is the long form; it prints its figures
//! with `-- --nocapture`. (Kicks, policies and dead upstreams under load: `churn`.)

use std::process::Command;

use pinion::pb::openim::sdkws::GetMaxSeqReq;

use crate::harness::{Client, Gateway, LEVELS, eventually};

/// Logins in CI.
const LOGINS: usize = 600;
const CLIENTS: usize = 4;
/// Each user logs in again and again, so that what is kept per user (the embedded backend's presence and the last
/// tokens) is there after the first round.
const USERS: usize = 20;
/// What the second round may leave: allocator noise, and no 64 bytes per login of 20 000.
const GROWTH_KIB: usize = 1024;
#[test]
fn logins_leave_nothing_behind() {
    let logins = std::env::var("PINION_TEST_LOGINS").map_or(LOGINS, |n| n.parse().unwrap());
    let mut process = 0;
    let spawn = |command: &mut Command| command.spawn().inspect(|child| process = child.id());
    let gateway = Gateway::start_by(spawn, &["--shards-count", "2"]);
    // The first half grows what is grown once: slabs, buffers, the allocator's pages.
    round(&gateway, logins / 2, logins / 2);
    let (before, held) = (resident_kib(process), descriptors(process));
    round(&gateway, logins - logins / 2, logins);
    let after = resident_kib(process);
    println!("leak: {logins} logins, resident {before} KiB after one half, {after} KiB after the other");
    assert!(after <= before + GROWTH_KIB, "{before} KiB grew to {after} KiB");
    eventually("closed descriptors", || (descriptors(process) <= held).then_some(()));
}

/// Logs in so many times, in every way to end, and waits until nothing is left. `served` is what the gateway must
/// have counted by then: shards publish their figures a moment later, and an older zero would prove nothing.
fn round(gateway: &Gateway, logins: usize, served: usize) {
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                for n in (client..logins).step_by(CLIENTS) {
                    let user = format!("leak{}", n % USERS);
                    visit(gateway.connect(&user, 1 + (n % 9) as i64), n, &user);
                }
            });
        }
    });
    eventually("empty tables", || {
        let metrics = gateway.metrics();
        let counted = metrics.sum("pinion_handshakes_total", &["outcome=\"ok\""]);
        assert!(counted <= served as f64, "{counted} logins counted, {served} made");
        (counted == served as f64).then_some(())?;
        LEVELS.iter().all(|table| metrics.sum(table, &[]) == 0.0).then_some(())
    });
}

/// One stay; the ways to end take turns.
fn visit(mut client: Client, n: usize, user: &str) {
    match n % 4 {
        0 => drop(client), // before anything was asked
        1 => {
            client.send(1001, &GetMaxSeqReq { user_id: user.into() }); // and nobody reads the answer
        }
        2 => client.send_raw(tungstenite::Message::Close(None)),
        _ => {
            // With another login of the same user and platform it is kicked instead of answered.
            client.send(1001, &GetMaxSeqReq { user_id: user.into() });
            client.next();
        }
    }
}

fn resident_kib(process: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count()
}
