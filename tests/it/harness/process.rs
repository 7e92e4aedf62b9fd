//! A command of `pinion` that runs until it is told to end: its banner, its log, its life.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, Metrics, eventually, lines_of, pinion};

/// A running command, which ends with the test.
pub struct Process {
    child: Child,
    /// What it printed up to `ready`.
    pub banner: Vec<String>,
    logs: Arc<Mutex<String>>,
}

impl Process {
    /// Starts `pinion` with these arguments and waits for its `ready`; `spawn` may do something to the process.
    pub fn start_by(spawn: impl FnOnce(&mut Command) -> std::io::Result<Child>, arguments: &[&str]) -> Self {
        let mut command = pinion(arguments);
        let mut child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())).unwrap();
        let logs: Arc<Mutex<String>> = Arc::default();
        // None if `spawn` sent it elsewhere.
        if let Some(stderr) = child.stderr.take() {
            let sink = Arc::clone(&logs);
            std::thread::spawn(move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    *sink.lock().unwrap() += &(line + "\n");
                }
            });
        }
        let lines = lines_of(child.stdout.take().unwrap());
        let mut process = Self { child, banner: Vec::new(), logs };
        loop {
            match lines.recv_timeout(DEADLINE) {
                Ok(line) if line == "ready" => return process,
                Ok(line) => process.banner.push(line),
                Err(e) => panic!("no `ready`: {e}\n{:?}\n{}", process.banner, process.logs()),
            }
        }
    }

    /// The banner's line that begins with a word.
    pub fn banner_line(&self, word: &str) -> &str {
        let line = self.banner.iter().find(|line| line.split_whitespace().next() == Some(word));
        line.unwrap_or_else(|| panic!("no line {word:?} in {:#?}", self.banner))
    }

    /// The address in that line, with or without a scheme and a path.
    pub fn banner_address(&self, word: &str) -> SocketAddr {
        let url = self.banner_line(word).split_whitespace().nth(1).unwrap();
        let address = url.split_once("://").map_or(url, |(_, rest)| rest);
        address.split('/').next().unwrap().parse().unwrap()
    }

    /// What it logged so far.
    pub fn logs(&self) -> String {
        self.logs.lock().unwrap().clone()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Descriptors that the process holds.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the end of the process", || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        if std::thread::panicking() {
            eprintln!("--- banner\n{}\n--- log\n{}---", self.banner.join("\n"), self.logs());
        }
    }
}

/// A GET for operators: status and body. `Err`: nobody answers.
pub fn get(http: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut socket = TcpStream::connect_timeout(&http, DEADLINE)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    write!(socket, "GET {path} HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok());
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    status
        .map(|status| (status, body.to_owned()))
        .ok_or_else(|| std::io::Error::other(format!("not HTTP: {text:?}")))
}

/// All counts.
pub fn metrics(http: SocketAddr) -> Metrics {
    let (status, body) = get(http, "/metrics").unwrap();
    assert_eq!(status, 200, "{body}");
    Metrics::parse(&body)
}
