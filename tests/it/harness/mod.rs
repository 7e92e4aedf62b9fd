//! Starts the real binary on free ports, talks to it as clients and callers do, and ends it by its id.
//!
//! The driver is chosen by `PINION_TEST_DRIVER` (`epoll`, `io_uring`; default: the gateway's own choice), so that the
//! same tests run on both. Nothing here sleeps to synchronise: [`eventually`] waits for a condition with a deadline.

mod api_server;
pub mod authority;
mod client;
mod elsewhere;
mod metrics;
mod process;
pub mod proxy;
mod push_stream;
mod seccomp;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use pinion::backend::token;
use pinion::ids::Platform;
use pinion::pb::openim::msggateway::{OnlineBatchPushOneMsgReq, OnlineBatchPushOneMsgResp};
use pinion::pb::openim::sdkws::MsgData;
use pinion::rpc::client::{CallError, call_once};
use pinion::shard::clock;
use prost::Message;

pub use api_server::{ApiServer, Mood, NAMESPACE};
pub use client::{Client, Frame, Options, text_message};
pub use elsewhere::{Elsewhere, own_address};
pub use metrics::{LEVELS, Metrics};
pub use process::{Process, get, metrics};
pub use push_stream::{PushStream, push_message};
pub use seccomp::spawn_without_io_uring;

/// Everything that a test waits for must be there by then.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// What a gRPC call may take; the gateway's own deadlines are shorter.
pub const CALL_DEADLINE_MS: u64 = 60_000;
/// Tokens made so far.
static TOKENS: AtomicI64 = AtomicI64::new(0);
/// The secret of a gateway that was given none.
const SECRET: &str = "openIM123";

/// Waits until `probe` has something, with a deadline.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The binary with a clean environment.
pub fn pinion(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pinion"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PINION_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command that ends by itself.
pub fn run(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ended = || child.try_wait().unwrap();
    let start = Instant::now();
    while ended().is_none() {
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("did not end: {command:?}\n{:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

/// What [`run`] gave, as exit code, stdout and stderr.
pub fn texts(output: &Output) -> (i32, String, String) {
    (
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A running gateway.
pub struct Gateway {
    process: Process,
    /// Where clients connect.
    pub websocket: SocketAddr,
    /// Where gRPC listens.
    pub grpc: SocketAddr,
    /// Where admin HTTP listens.
    pub http: SocketAddr,
}

impl Gateway {
    /// Starts it with these flags besides free ports on the loopback interface.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_by(|command| command.spawn(), flags)
    }

    /// As [`Gateway::start`]; `spawn` may do something to the process.
    pub fn start_by(spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>, flags: &[&str]) -> Self {
        let driver = std::env::var("PINION_TEST_DRIVER").unwrap_or_else(|_| "auto".into());
        let mut all: Vec<&str> = Vec::new();
        for (flag, value) in [
            ("--websocket-address", "127.0.0.1"),
            ("--websocket-port", "0"),
            ("--rpc-listen", "127.0.0.1:0"),
            ("--http-listen", "127.0.0.1:0"),
            ("--shards-driver", driver.as_str()),
        ] {
            if !flags.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        all.extend(flags);
        let process = Process::start_by(spawn, &all);
        let address = |word| process.banner_address(word);
        let (websocket, grpc, http) = (address("websocket"), address("grpc"), address("http"));
        Self { process, websocket, grpc, http }
    }

    /// A login token; each call gives another one (a login with the same token kicks nobody, spec 8.3).
    pub fn token(&self, user: &str, platform: i64) -> String {
        let platform = Platform::new(platform).unwrap();
        let ttl_s = 3600 + TOKENS.fetch_add(1, Ordering::Relaxed);
        token::issue(SECRET, user, platform, clock::now().unix, ttl_s).unwrap()
    }

    /// Logs a user in with plain gob, as `sdkType=go` without compression.
    pub fn connect(&self, user: &str, platform: i64) -> Client {
        self.connect_with(user, platform, &Options::default())
    }

    /// Logs a user in.
    pub fn connect_with(&self, user: &str, platform: i64, options: &Options) -> Client {
        Client::connect(self.websocket, user, platform, &self.token(user, platform), options)
            .unwrap_or_else(|e| panic!("{user} cannot log in: {e}\n{}", self.logs()))
    }

    /// A unary gRPC call.
    pub fn call<A: Message + Default>(
        &self,
        method: &str,
        metadata: &[(&str, &str)],
        request: &impl Message,
    ) -> Result<A, CallError> {
        let path = format!("/openim.msggateway.msgGateway/{method}");
        let message = request.encode_to_vec().into();
        let answer = call_once(self.grpc, &path, metadata, message, CALL_DEADLINE_MS)?;
        Ok(A::decode(answer).unwrap())
    }

    /// Pushes a text message of a one-to-one conversation.
    pub fn push(&self, from: &str, to: &[&str], text: &str) -> OnlineBatchPushOneMsgResp {
        let request = OnlineBatchPushOneMsgReq {
            msg_data: Some(MsgData {
                send_id: from.into(),
                recv_id: to.first().unwrap().to_string(),
                session_type: 1,
                content_type: 101,
                content: format!("{{\"content\":{text:?}}}").into(),
                ..MsgData::default()
            }),
            push_to_user_i_ds: to.iter().map(|user| user.to_string()).collect(),
        };
        let metadata = [("operationid", "it-push"), ("opuserid", from)];
        self.call("SuperGroupOnlineBatchPushOneMsg", &metadata, &request)
            .unwrap_or_else(|e| panic!("push: {e}\n{}", self.logs()))
    }

    /// A GET on the admin port: status and body. `Err`: nobody answers.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        get(self.http, path)
    }

    /// All counts.
    pub fn metrics(&self) -> Metrics {
        metrics(self.http)
    }
}

impl Deref for Gateway {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// The lines of a stream, as they come.
pub fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            // Read on if nobody listens: a full pipe would block the child.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// A child that is ended with the test.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
