//! What the server under test uses (`--server-pid`): CPU and private memory of its processes, and what the kernel holds
//! for sockets, which is the whole machine's.

use std::fs;

use pinion_bench_kit::cpu::{Clocks, Seconds};

use crate::machine::field;
use crate::tally::ServerUse;

/// A page of `/proc/net/sockstat`.
const PAGE_BYTES: u64 = 4096;

/// The processes that are watched.
#[derive(Clone, Debug)]
pub struct Server {
    pids: Vec<u32>,
}

/// What they had used at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    clocks: Vec<Clocks>,
    memory_bytes: u64,
    socket_memory_bytes: u64,
    slab_bytes: u64,
}

impl Server {
    /// `None`: nothing is to be watched.
    ///
    /// # Errors
    /// A process that is not there, or whose memory we may not see.
    pub fn watch(pids: &[u32]) -> Result<Option<Self>, String> {
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            fs::read_to_string(&path).map_err(|error| format!("--server-pid {pid}: {path}: {error}"))?;
        }
        Ok((!pids.is_empty()).then(|| Self { pids: pids.to_vec() }))
    }

    pub fn snapshot(&self) -> Snapshot {
        let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Snapshot {
            clocks: self.pids.iter().map(|&pid| Clocks::of(pid)).collect(),
            memory_bytes: self.pids.iter().map(|&pid| private_bytes(pid)).sum(),
            socket_memory_bytes: socket_pages(&sockets) * PAGE_BYTES,
            slab_bytes: field(&memory, "Slab:").unwrap_or_default() as u64 * 1024,
        }
    }
}

impl Snapshot {
    /// What was used from `from` on until now; memory is compared with `base`.
    pub fn since(&self, from: &Self, base: &Self) -> ServerUse {
        let used = cpu_since(&self.clocks, &from.clocks);
        ServerUse {
            cpu_seconds: used.total(),
            user_seconds: used.user,
            system_seconds: used.system,
            memory_before_bytes: base.memory_bytes,
            memory_bytes: self.memory_bytes,
            socket_memory_before_bytes: base.socket_memory_bytes,
            socket_memory_bytes: self.socket_memory_bytes,
            slab_before_bytes: base.slab_bytes,
            slab_bytes: self.slab_bytes,
        }
    }
}

/// CPU time of processes between two readings, in the same order.
pub fn cpu_since(now: &[Clocks], then: &[Clocks]) -> Seconds {
    let mut sum = Seconds::default();
    for (now, then) in now.iter().zip(then) {
        let split = now.since(then);
        for part in [split.rpc, split.shards, split.rest] {
            sum.user += part.user;
            sum.system += part.system;
        }
    }
    sum
}

/// Memory that only this process has.
fn private_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |name| field(&text, name).unwrap_or_default() as u64;
    (kib("Private_Clean:") + kib("Private_Dirty:")) * 1024
}

/// Pages of the line `TCP: inuse 5 orphan 0 tw 2 alloc 7 mem 3`.
fn socket_pages(sockstat: &str) -> u64 {
    let words = sockstat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    words
        .split_whitespace()
        .skip_while(|word| *word != "mem")
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};

    use super::*;

    /// Another process: this one's memory is that of all the tests that run beside this one.
    #[test]
    fn a_process_is_seen_and_one_that_is_not_there_is_refused() {
        let script = "read go; held=$(head -c 33554432 /dev/zero | tr '\\0' x); echo ready; read end";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut orders, said) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
        let server = Server::watch(&[shell.id()]).unwrap().unwrap();
        let before = server.snapshot();
        writeln!(orders, "go").unwrap();
        assert_eq!(BufReader::new(said).lines().next().unwrap().unwrap(), "ready");
        let used = server.snapshot().since(&before, &before);
        assert!(used.cpu_seconds > 0.0, "{used:?}");
        assert!(used.memory_bytes > used.memory_before_bytes + (16 << 20), "{used:?}");
        drop(orders);
        shell.wait().unwrap();
        assert!(Server::watch(&[u32::MAX]).unwrap_err().contains("--server-pid 4294967295"));
        assert!(Server::watch(&[]).unwrap().is_none());
    }

    #[test]
    fn the_kernels_line_is_read() {
        assert_eq!(
            socket_pages("sockets: used 9\nTCP: inuse 5 orphan 0 tw 2 alloc 7 mem 31\nUDP: inuse 1 mem 2"),
            31
        );
        assert_eq!(socket_pages(""), 0);
    }
}
