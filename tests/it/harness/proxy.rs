//! A running `pinion proxy`, and a member that does as it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, Metrics, eventually, lines_of, pinion};

/// The head of a login without anything that a gateway would look at but the user.
pub fn head(user: &str) -> String {
    format!(
        "GET /?sendID={user} HTTP/1.1\r\nHost: it\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// A running proxy.
pub struct Proxy {
    child: Child,
    /// What it printed up to `ready`.
    pub banner: Vec<String>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where operators look.
    pub http: SocketAddr,
    members: PathBuf,
    logs: Arc<Mutex<String>>,
    _dir: tempfile::TempDir,
}

impl Proxy {
    /// Starts it on free ports with this member list and these flags.
    pub fn start(members: &str, flags: &[&str]) -> Self {
        Self::start_by(Command::spawn, members, flags)
    }

    /// Starts it on free ports with these flags, which say where the members are.
    pub fn start_watching(flags: &[&str]) -> Self {
        Self::start_watching_by(Command::spawn, flags)
    }

    /// As [`Proxy::start_watching`]; `spawn` may do something to the process.
    pub fn start_watching_by(
        spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>,
        flags: &[&str],
    ) -> Self {
        Self::spawned(spawn, tempfile::tempdir().unwrap(), flags)
    }

    /// As [`Proxy::start`]; `spawn` may do something to the process.
    pub fn start_by(
        spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>,
        members: &str,
        flags: &[&str],
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("members");
        std::fs::write(&path, members).unwrap();
        let list = ["--members", path.to_str().unwrap()];
        Self::spawned(spawn, dir, &[&list[..], flags].concat())
    }

    fn spawned(
        spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>,
        dir: tempfile::TempDir,
        flags: &[&str],
    ) -> Self {
        let mut all = vec!["proxy", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        all.extend(flags);
        let mut command = pinion(&all);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
        let logs: Arc<Mutex<String>> = Arc::default();
        let (stderr, sink) = (child.stderr.take().unwrap(), Arc::clone(&logs));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *sink.lock().unwrap() += &(line + "\n");
            }
        });
        let lines = lines_of(child.stdout.take().unwrap());
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut proxy = Self {
            child,
            banner: Vec::new(),
            listen: nowhere,
            http: nowhere,
            members: dir.path().join("members"),
            logs,
            _dir: dir,
        };
        loop {
            match lines.recv_timeout(DEADLINE) {
                Ok(line) if line == "ready" => break,
                Ok(line) => proxy.banner.push(line),
                Err(e) => panic!("no `ready`: {e}\n{:?}\n{}", proxy.banner, proxy.logs()),
            }
        }
        let address = |name: &str, prefix: &str| -> SocketAddr {
            let word = proxy.line(name).split_whitespace().nth(1).unwrap();
            word.strip_prefix(prefix).unwrap().split('/').next().unwrap().parse().unwrap()
        };
        (proxy.listen, proxy.http) = (address("listen", "ws://"), address("http", "http://"));
        proxy
    }

    /// The banner's line that begins with a word.
    pub fn line(&self, word: &str) -> &str {
        let line = self.banner.iter().find(|line| line.split_whitespace().next() == Some(word));
        line.unwrap_or_else(|| panic!("no line {word:?} in {:#?}", self.banner))
    }

    /// What it logged so far.
    pub fn logs(&self) -> String {
        self.logs.lock().unwrap().clone()
    }

    /// Another member list.
    pub fn set_members(&self, members: &str) {
        std::fs::write(&self.members, members).unwrap();
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// A socket to it that has sent nothing.
    pub fn dial(&self) -> TcpStream {
        let socket = TcpStream::connect_timeout(&self.listen, DEADLINE).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    /// A socket that has sent the head of a login.
    pub fn knock(&self, user: &str) -> TcpStream {
        let mut socket = self.dial();
        socket.write_all(head(user).as_bytes()).unwrap();
        socket
    }

    /// Sends bytes; what comes back until the end.
    pub fn exchange(&self, bytes: &[u8]) -> String {
        ask(self.listen, bytes)
    }

    /// A GET on its admin port: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let text = ask(self.http, format!("GET {path} HTTP/1.1\r\nHost: it\r\n\r\n").as_bytes());
        let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// All counts.
    pub fn metrics(&self) -> Metrics {
        Metrics::parse(&self.get("/metrics").1)
    }

    /// Waits until a count is there.
    pub fn until(&self, family: &str, label: &str, at_least: f64) {
        eventually(&format!("{family} {label} {at_least}"), || {
            (self.metrics().sum(&format!("pinion_proxy_{family}"), &[label]) >= at_least).then_some(())
        });
    }

    /// Waits until a level is there.
    pub fn until_level(&self, family: &str, level: f64) {
        eventually(&format!("{family} = {level}"), || {
            (self.metrics().sum(&format!("pinion_proxy_{family}"), &[]) == level).then_some(())
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the proxy's end", || self.child.try_wait().unwrap())
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors that the process holds.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("--- proxy\n{}\n--- log\n{}---", self.banner.join("\n"), self.logs());
        }
    }
}

/// Sends bytes; what comes back until the end.
pub fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).unwrap()
}

/// A member whose every move is the test's.
pub struct Puppet(TcpListener);

/// What it answers to a login.
pub const SWITCH: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

impl Puppet {
    /// Listens.
    pub fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Its line of a member list.
    pub fn line(&self, node: &str) -> String {
        format!("{node} ws=ws://{}\n", self.0.local_addr().unwrap())
    }

    /// Waits until one of them has a connection to take; which.
    pub fn first_called(puppets: &[&Self]) -> usize {
        let mut all: Vec<PollFd> = puppets.iter().map(|one| PollFd::new(&one.0, PollFlags::IN)).collect();
        let within = Timespec { tv_sec: DEADLINE.as_secs().try_into().unwrap(), tv_nsec: 0 };
        assert!(poll(&mut all, Some(&within)).unwrap() > 0, "nobody is called");
        all.iter().position(|one| !one.revents().is_empty()).unwrap()
    }

    /// Takes the next connection and reads its head; gives what came.
    pub fn take(&self) -> (TcpStream, Vec<u8>) {
        let (mut socket, _) = self.0.accept().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut head = Vec::new();
        let mut byte = [0; 1];
        while !head.ends_with(b"\r\n\r\n") || head.len() < 20 {
            socket.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        (socket, head)
    }

    /// Both ends of a pair that is open.
    pub fn pair(&self, proxy: &Proxy) -> (TcpStream, TcpStream) {
        let mut client = proxy.knock("u");
        let (mut member, _) = self.take();
        member.write_all(SWITCH).unwrap();
        let mut answer = vec![0; SWITCH.len()];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, SWITCH);
        (client, member)
    }
}
