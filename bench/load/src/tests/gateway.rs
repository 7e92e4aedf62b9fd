//! A gateway in a process of its own: this test program once more, running the gateway's command.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Set for the process that is a gateway.
const VARIABLE: &str = "BENCH_TEST_GATEWAY";
const DEADLINE: Duration = Duration::from_secs(30);

/// Ended when dropped.
pub struct Gateway {
    child: Child,
    pub websocket: SocketAddr,
    pub grpc: SocketAddr,
    http: SocketAddr,
}

/// Not a test of its own: the process that [`Gateway::start`] starts.
#[test]
fn a_gateway() {
    if std::env::var_os(VARIABLE).is_none() {
        return;
    }
    // It ends with the test, however that ends.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let flags = [
        "pinion",
        "--websocket-address=127.0.0.1",
        "--websocket-port=0",
        "--rpc-listen=127.0.0.1:0",
        "--http-listen=127.0.0.1:0",
        "--log-level=error",
        "--websocket-accepts-per-second-max=0",
        "--login-spread-ms=0",
    ];
    pinion::cli::run(flags.map(OsString::from));
    std::process::exit(1);
}

impl Gateway {
    pub fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PINION_") {
                command.env_remove(name);
            }
        }
        command.args(["tests::gateway::a_gateway", "--exact", "--nocapture"]).env(VARIABLE, "1");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let banner: Vec<String> = lines.by_ref().take_while(|line| line != "ready").collect();
        let address = |name: &str, prefix: &str| -> SocketAddr {
            let line = banner
                .iter()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_else(|| panic!("{banner:#?}"));
            let word = line.split_whitespace().next().unwrap().trim_start_matches(prefix);
            word.split('/').next().unwrap().parse().unwrap()
        };
        let (websocket, grpc, http) =
            (address("websocket ", "ws://"), address("grpc ", ""), address("http ", "http://"));
        Self { child, websocket, grpc, http }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The sum of all series of a family whose labels have this.
    pub fn metric(&self, family: &str, label: &str) -> u64 {
        let mut socket = TcpStream::connect(self.http).unwrap();
        write!(socket, "GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        let value = |line: &str| -> Option<f64> {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            (name == family && labels.contains(label)).then(|| value.parse().unwrap())
        };
        text.lines().filter_map(value).sum::<f64>() as u64
    }

    /// Waits until a metric has this value: they are published a moment after the work was done.
    pub fn shows(&self, family: &str, label: &str, expected: u64) {
        let start = Instant::now();
        while self.metric(family, label) != expected {
            let seen = self.metric(family, label);
            assert!(start.elapsed() < DEADLINE, "{family} {label}: {seen}, not {expected}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).unwrap();
    }
}
