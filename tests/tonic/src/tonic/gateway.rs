//! The real binary on free loopback ports, ended by its id, and users who are connected to it.
//!
//! A copy of what `tests/it` does, as small as it can be: that harness links the gateway, these tests must not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Everything that a test waits for must be there by then.
pub const DEADLINE: Duration = Duration::from_secs(60);
const SECRET: &str = "tests/tonic";

/// The gateway's binary: this package is not the one that builds it.
fn binary() -> Command {
    let path = std::env::var("GATEWAY_BIN")
        .expect("set GATEWAY_BIN to the gateway's binary, like target/debug/pinion");
    // Tests run in the folder of their package; whoever sets the variable stands in the root of the workspace.
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(path);
    assert!(path.is_file(), "GATEWAY_BIN names no file: {}", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("PINION_AUTH_SECRET", SECRET);
    command
}

/// A process that is ended with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // An error says that it has ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A running gateway.
pub struct Gateway {
    _process: Process,
    /// `host:port`.
    pub grpc: String,
    http: String,
    websocket: String,
}

impl Gateway {
    pub fn start() -> Self {
        let mut child = binary()
            .args(["--websocket-port", "0", "--rpc-listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"])
            .args(["--shards-count", "2", "--shards-pin", "false"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Process(child);
        let banner: Vec<String> = lines.by_ref().map_while(Result::ok).take_while(|l| l != "ready").collect();
        // It must be able to go on printing.
        std::thread::spawn(move || lines.for_each(drop));
        let word = |name: &str| {
            let line = banner
                .iter()
                .find(|l| l.starts_with(name))
                .unwrap_or_else(|| panic!("no {name}: {banner:?}"));
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let http = word("http ").trim_start_matches("http://").split('/').next().unwrap().to_owned();
        Self { _process: process, grpc: word("grpc "), http, websocket: word("websocket ") }
    }

    /// A user's connection (`pinion listen`, platform Linux). It may not be registered yet.
    pub fn listen(&self, user: &str) -> Listener {
        let token = binary().args(["token", "--user", user, "--platform", "7"]).output().unwrap().stdout;
        let token = String::from_utf8(token).unwrap();
        let mut child = binary()
            .args(["listen", "--token", token.trim(), "--url", &self.websocket])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, lines) =
            (BufReader::new(child.stdout.take().unwrap()), Arc::<Mutex<Vec<String>>>::default());
        let sink = Arc::clone(&lines);
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| sink.lock().unwrap().push(line));
        });
        Listener { _process: Process(child), lines }
    }

    /// The sum of the series of a family.
    pub fn metric(&self, family: &str) -> u64 {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let ours = page.lines().filter(|l| l.strip_prefix(family).is_some_and(|rest| rest.starts_with('{')));
        ours.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// Waits for such a sum.
    pub async fn settles(&self, family: &str, wanted: u64) {
        eventually(family, || (self.metric(family) == wanted).then_some(())).await;
    }
}

/// A connected user.
pub struct Listener {
    _process: Process,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    /// The texts of the pushes so far, in order.
    pub fn texts(&self) -> Vec<String> {
        let text = |line: &String| Some(line.split_once(": text \"")?.1.trim_end_matches('"').to_owned());
        self.lines.lock().unwrap().iter().filter_map(text).collect()
    }

    pub fn saw(&self, what: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(what))
    }
}

/// Waits until `probe` has something, with a deadline.
pub async fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
