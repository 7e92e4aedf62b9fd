//! The gateway under systemd, which these tests play with a datagram socket: readiness, watchdog, stop.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::{DEADLINE, Gateway, eventually};

/// What systemd would hear.
struct Heard {
    socket: UnixDatagram,
    _directory: tempfile::TempDir,
}

impl Heard {
    /// A gateway that tells us, with a watchdog of this many microseconds.
    fn gateway(watchdog_us: &str, flags: &[&str]) -> (Self, Gateway) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let spawn = |command: &mut Command| {
            command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", watchdog_us).spawn()
        };
        let gateway = Gateway::start_by(spawn, flags);
        (Self { socket, _directory: directory }, gateway)
    }

    /// The next message, waited for.
    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let length = self.socket.recv(&mut bytes).expect("the gateway says something in time");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Waits for a message with this in it.
    fn until(&self, part: &str) -> String {
        eventually(part, || Some(self.next()).filter(|text| text.contains(part)))
    }

    /// Drops what has arrived.
    fn drain(&self) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
    }
}

#[test]
fn systemd_hears_ready_the_watchdog_a_reload_and_the_stop() {
    let (heard, mut gateway) = Heard::gateway("200000", &["--shards-count", "1"]);
    let ready = heard.until("READY=1");
    assert!(ready.contains("STATUS=clients on 127.0.0.1:"), "{ready}");
    for _ in 0..3 {
        heard.until("WATCHDOG=1");
    }
    gateway.signal(Signal::HUP);
    let reloading = heard.until("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    heard.until("READY=1");
    gateway.signal(Signal::TERM);
    heard.until("STOPPING=1");
    assert!(gateway.wait().success());
}

#[test]
fn a_stalled_shard_starves_the_watchdog_until_it_turns_again() {
    let flags = ["--shards-count", "2", "--plant-stall", "0:8000", "--stall-abort-ms", "60s"];
    let (heard, gateway) = Heard::gateway("200000", &flags);
    heard.until("WATCHDOG=1");
    gateway.signal(Signal::USR2);
    eventually("the stall to be told", || gateway.get("/readyz").ok().filter(|(status, _)| *status == 503));
    eventually("the watcher's report", || gateway.logs().contains("has not turned for").then_some(()));
    // From here to the end of the stall nothing may come; what comes next must find the shard turning.
    heard.drain();
    let stalled = || gateway.metrics().sum("pinion_shard_stalled", &["shard=\"0\""]);
    assert!(stalled() > 0.0, "the stall ended before the test could look: make it longer");
    assert_eq!(heard.next(), "WATCHDOG=1\n");
    assert!(stalled() == 0.0, "the watchdog was fed during the stall");
}
