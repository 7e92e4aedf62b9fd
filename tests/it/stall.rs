//! A shard that stops turning is seen, costs the other shards nothing, and ends the process in the end. (How soon it is
//! seen: `src/shard/stall_tests.rs`, with a chosen clock.)

use std::os::unix::process::ExitStatusExt;

use pinion::ids::{Ownership, ShardId};
use pinion::pb::openim::sdkws::GetMaxSeqReq;
use rustix::process::Signal;

use crate::harness::{Gateway, eventually};

const GET_NEWEST_SEQ: i32 = 1001;

/// The first user of a shard under the key that [`start`] gives.
fn user_of(shard: u16) -> String {
    let ownership = Ownership::new([1, 2], 2);
    let mut users = (0..).map(|n| format!("user{n}"));
    users.find(|user| ownership.owner(user) == ShardId(shard)).unwrap()
}

fn start(stall: &str, abort_ms: &str) -> Gateway {
    let flags = [
        "--shards-count",
        "2",
        "--shards-owner-key",
        "1:2",
        "--plant-stall",
        stall,
        "--stall-abort-ms",
        abort_ms,
    ];
    Gateway::start(&flags)
}

fn asking(user: &str) -> GetMaxSeqReq {
    GetMaxSeqReq { user_id: user.into() }
}

fn stalled(gateway: &Gateway, shard: &str) -> bool {
    let label = format!("shard=\"{shard}\"");
    gateway.metrics().sum("pinion_shard_stalled", &[&label]) > 0.0
}

#[test]
fn a_stall_is_seen_told_and_outlived_by_the_other_shard() {
    let gateway = start("0:600000", "900s");
    let user = user_of(1);
    let mut before = gateway.connect(&user, 1);
    gateway.signal(Signal::USR2);
    let (status, body) = eventually("/readyz to tell of the stall", || {
        gateway.get("/readyz").ok().filter(|(status, _)| *status != 200)
    });
    assert_eq!(status, 503, "{body}");
    eventually("the metric", || stalled(&gateway, "0").then_some(()));
    assert!(!stalled(&gateway, "1"));
    eventually("the report and the backtrace", || {
        let logs = gateway.logs();
        let told =
            logs.contains("shard 0 has not turned for") && logs.contains("last input: the planted stall");
        (told && logs.contains("shard 0 is in:")).then_some(())
    });
    // Every new connection goes to the shard that turns, and is served there.
    for n in 0..10 {
        let mut client = gateway.connect(&user, 2 + n % 8);
        assert_eq!(client.request(GET_NEWEST_SEQ, &asking(&user)).err_code, 0);
    }
    // And a client that was there before the stall notices nothing.
    for _ in 0..10 {
        assert_eq!(before.request(GET_NEWEST_SEQ, &asking(&user)).err_code, 0);
        gateway.push("system", &[&user], "during the stall");
        assert_eq!(before.pushed_text(), "during the stall");
    }
    assert!(stalled(&gateway, "0"), "all that was during the stall");
    gateway.signal(Signal::USR2); // ends it
    eventually("/readyz to be well again", || (gateway.get("/readyz").ok()?.0 == 200).then_some(()));
    eventually("the end of the stall in the log", || {
        gateway.logs().contains("shard 0 turns again").then_some(())
    });
    gateway.connect(&user_of(0), 1);
}

#[test]
fn a_shard_that_never_turns_again_ends_the_process_for_the_supervisor() {
    let mut gateway = start("0:600000", "15s");
    let user = user_of(1);
    let mut client = gateway.connect(&user, 1);
    gateway.signal(Signal::USR2);
    eventually("/readyz to tell of the stall", || {
        gateway.get("/readyz").ok().filter(|(status, _)| *status != 200)
    });
    for _ in 0..5 {
        assert_eq!(client.request(GET_NEWEST_SEQ, &asking(&user)).err_code, 0);
    }
    let status = gateway.wait();
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status:?}");
    let logs = gateway.logs();
    assert!(logs.contains("shard 0 has not turned for") && logs.contains("aborting"), "{logs}");
}
