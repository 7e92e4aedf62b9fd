//! The gateway under test: the real binary on free loopback ports, ended by its process id.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use pinion_bench_kit::clock::{now_ns, seconds};
use pinion_bench_kit::cpu::on_cpus;

/// Its figures are published a moment after the work was done.
const FIGURES_WITHIN_S: f64 = 5.0;

/// Where it listens, and limits that protect a gateway from a crowd that logs in at once and reads late: lifted, since
/// they are not what is measured.
const DEFAULTS: [(&str, &str); 10] = [
    ("--websocket-address", "127.0.0.1"),
    ("--websocket-port", "0"),
    ("--rpc-listen", "127.0.0.1:0"),
    ("--http-listen", "127.0.0.1:0"),
    ("--log-level", "warn"),
    ("--websocket-accepts-per-second-max", "0"),
    ("--login-spread-ms", "0"),
    ("--outbox-frames-max", "65536"),
    ("--outbox-bytes-max", "64MiB"),
    ("--outbox-shard-bytes-max", "4GiB"),
];

/// Gateways that run. A panic aborts without dropping them.
static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Ends all gateways when the bench fails.
pub fn end_with_the_bench() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        for pid in RUNNING.lock().iter().flat_map(|running| running.iter()) {
            let _ = kill_process(*pid, Signal::KILL);
        }
    }));
}

/// A running gateway.
pub struct Gateway {
    child: Child,
    /// Which driver its threads run on, as its banner says.
    pub engine: String,
    pub websocket: SocketAddr,
    pub grpc: SocketAddr,
    http: SocketAddr,
}

impl Gateway {
    /// Starts it on these CPUs with these flags (`--name=value`) before [`DEFAULTS`], and waits until it is ready.
    pub fn start(binary: &Path, cpus: &[usize], flags: &[String]) -> Self {
        let mut command = Command::new(binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PINION_") {
                command.env_remove(name);
            }
        }
        for (name, value) in DEFAULTS {
            if !flags.iter().any(|flag| flag.starts_with(&format!("{name}="))) {
                command.args([name, value]);
            }
        }
        command.args(flags).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = on_cpus(cpus, || command.spawn()).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        RUNNING.lock().expect("no panic holds it").push(Pid::from_child(&child));
        let mut lines =
            BufReader::new(child.stdout.take().expect("it was piped")).lines().map_while(Result::ok);
        let banner: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
        let line = |name: &str| {
            let found = banner.iter().find_map(|line| line.strip_prefix(name)).map(str::trim_start);
            found.unwrap_or_else(|| panic!("no {name:?} in {banner:#?}"))
        };
        let address = |name: &str, prefix: &str| -> SocketAddr {
            let word = line(name).split_whitespace().next().unwrap_or_default();
            let rest = word.strip_prefix(prefix).unwrap_or_default();
            rest.split('/').next().unwrap_or_default().parse().unwrap_or_else(|e| panic!("{word:?}: {e}"))
        };
        Self {
            engine: line("engine").to_owned(),
            websocket: address("websocket", "ws://"),
            grpc: address("grpc", ""),
            http: address("http", "http://"),
            child,
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its figures now.
    pub fn figures(&self) -> Figures {
        let mut socket = TcpStream::connect(self.http).expect("the admin port");
        write!(socket, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            .expect("a request");
        let mut text = String::new();
        socket.read_to_string(&mut text).expect("figures");
        Figures::parse(&text)
    }

    /// Its figures, once they show that so many pushes were queued since `before`.
    pub fn figures_after(&self, before: &Figures, queued: u64) -> Figures {
        let start = now_ns();
        loop {
            let figures = self.figures();
            let seen = figures.since(before, QUEUED);
            if seen >= queued || seconds(start, now_ns()) > FIGURES_WITHIN_S {
                return figures;
            }
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        RUNNING.lock().expect("no panic holds it").retain(|running| *running != pid);
        if let Err(e) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the gateway has not ended: {e}");
        }
    }
}

/// A family, and what its labels contain.
pub type Series = (&'static str, &'static str);
/// Pushes that went into an outbox.
pub const QUEUED: &[Series] =
    &[("pinion_pushes_total", "outcome=\"queued\""), ("pinion_pushes_total", "outcome=\"written\"")];
/// Calls of sendmsg on client sockets.
pub const SENDS: &[Series] = &[("pinion_sends_total", "")];
/// Push frames encoded.
pub const ENCODES: &[Series] = &[("pinion_encodes_total", "")];
/// Rounds of the shards' loops.
pub const TURNS: &[Series] = &[("pinion_turns_total", "")];

/// Values by series.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, f64>);

impl Figures {
    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// What these series grew by since `before`, over all shards.
    pub fn since(&self, before: &Self, wanted: &[Series]) -> u64 {
        let grown = |(series, now): (&String, &f64)| now - before.0.get(series).copied().unwrap_or_default();
        let is_wanted = |series: &String| {
            let (family, labels) = series.split_once('{').unwrap_or((series, ""));
            wanted.iter().any(|(name, label)| *name == family && labels.contains(label))
        };
        let sum: f64 = self.0.iter().filter(|(series, _)| is_wanted(series)).map(grown).sum();
        sum.round() as u64
    }
}
