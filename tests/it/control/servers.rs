//! Real servers for the control thread, each on free loopback ports with a folder of its own: etcd, Redis, a sentinel.
//!
//! A server ends with the thread of its test (`setpriv --pdeathsig`), and by its id when it is dropped. A front is a
//! fixed address before a server that may go, come back elsewhere, or be cut off.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::DEADLINE;

/// A running server.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    folder: TempDir,
}

impl Server {
    /// Starts `program` and waits until `is_up`. A port that was free may be taken before the server has it: then it
    /// ends at once, and others are tried.
    fn start(
        program: &str,
        arguments: impl Fn(&Path, &[u16]) -> Vec<String>,
        is_up: impl Fn(SocketAddr) -> bool,
    ) -> Self {
        let folder = TempDir::new().unwrap();
        let began = Instant::now();
        'again: loop {
            assert!(began.elapsed() < DEADLINE, "{program} does not start:\n{}", log(folder.path()));
            let ports = free_ports();
            let log = std::fs::File::create(folder.path().join("log")).unwrap();
            let mut child = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", program])
                .args(arguments(folder.path(), &ports))
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap())
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap_or_else(|e| panic!("setpriv is needed ({e}): run scripts/servers.sh"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[0]));
            while !is_up(address) {
                if child.try_wait().unwrap().is_some() {
                    continue 'again;
                }
                assert!(began.elapsed() < DEADLINE, "{program} is not up:\n{}", self::log(folder.path()));
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            // Somebody else may be up there.
            if child.try_wait().unwrap().is_none() {
                return Self { child, address, folder };
            }
        }
    }

    /// Stops it, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it at once; its data goes too.
    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if std::thread::panicking() {
            eprintln!("--- log of the server at {}\n{}---", self.address, log(self.folder.path()));
        }
    }
}

/// The end of a server's log.
fn log(folder: &Path) -> String {
    let text = std::fs::read(folder.join("log")).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned()
}

fn free_ports() -> Vec<u16> {
    let listeners: Vec<_> = (0..2).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

/// Fails if a program is missing.
fn require(program: &str) {
    let paths = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&paths).any(|folder| folder.join(program).is_file());
    assert!(found, "{program} is not installed: run scripts/servers.sh");
}

/// An etcd of one member.
pub struct Etcd(pub Server);

impl Etcd {
    pub fn start() -> Self {
        Self::start_with("http", &[])
    }

    /// With TLS on the clients' port; these files.
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        let file = |path: &Path| path.display().to_string();
        Self::start_with("https", &["--cert-file", &file(certificate), "--key-file", &file(key)])
    }

    fn start_with(scheme: &str, more: &[&str]) -> Self {
        require("etcd");
        let arguments = |folder: &Path, ports: &[u16]| {
            let clients = format!("{scheme}://127.0.0.1:{}", ports[0]);
            let peers = format!("http://127.0.0.1:{}", ports[1]);
            let own = [
                ("--data-dir", folder.join(format!("data-{}", ports[0])).display().to_string()),
                ("--listen-client-urls", clients.clone()),
                ("--advertise-client-urls", clients),
                ("--listen-peer-urls", peers.clone()),
                ("--initial-advertise-peer-urls", peers.clone()),
                ("--initial-cluster", format!("default={peers}")),
                ("--log-level", "warn".to_owned()),
                ("--logger", "zap".to_owned()),
            ];
            let own = own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
            own.chain(more.iter().map(ToString::to_string)).collect()
        };
        let is_up = |address: SocketAddr| {
            if scheme == "https" {
                return TcpStream::connect(address).is_ok();
            }
            let ask = json!({ "key": STANDARD.encode("up") });
            post(address, "/v3/kv/range", &[], &ask).is_ok_and(|answer| answer.get("header").is_some())
        };
        Self(Server::start("etcd", arguments, is_up))
    }

    /// A call of the JSON gateway; it must work.
    pub fn call(&self, path: &str, question: &Value) -> Value {
        self.call_as(path, &[], question)
    }

    fn call_as(&self, path: &str, headers: &[(&str, &str)], question: &Value) -> Value {
        let answer = post(self.0.address, path, headers, question).unwrap();
        assert!(answer.get("error").is_none(), "{path} {question}: {answer}");
        answer
    }

    pub fn put(&self, key: &str, value: &str) {
        self.call("/v3/kv/put", &json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) }));
    }

    /// Puts an endpoint as OpenIM's services do.
    pub fn put_endpoint(&self, service: &str, address: &str) {
        let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#);
        self.put(&format!("openim/{service}/{address}"), &value);
    }

    pub fn delete(&self, key: &str) {
        self.call("/v3/kv/deleterange", &json!({ "key": STANDARD.encode(key) }));
    }

    /// Value and lease of a key.
    pub fn get(&self, key: &str) -> Option<(String, String)> {
        let answer = self.call("/v3/kv/range", &json!({ "key": STANDARD.encode(key) }));
        let entry = answer.get("kvs")?.get(0)?;
        let value = STANDARD.decode(entry["value"].as_str()?).unwrap();
        let lease = entry.get("lease").and_then(Value::as_str).unwrap_or("0").to_owned();
        Some((String::from_utf8(value).unwrap(), lease))
    }

    pub fn revoke(&self, lease: &str) {
        self.call("/v3/lease/revoke", &json!({ "ID": lease }));
    }

    /// Seconds that a lease has left; `None`: there is none.
    pub fn seconds_left(&self, lease: &str) -> Option<i64> {
        let answer = self.call("/v3/lease/timetolive", &json!({ "ID": lease }));
        answer.get("TTL")?.as_str()?.parse().ok().filter(|&seconds| seconds > 0)
    }

    /// Forgets all history up to now.
    pub fn compact(&self) {
        let answer = self.call("/v3/kv/range", &json!({ "key": STANDARD.encode("any") }));
        let revision = answer["header"]["revision"].clone();
        self.call("/v3/kv/compaction", &json!({ "revision": revision, "physical": true }));
    }

    /// From now on every call needs a login as `root`.
    pub fn require_login(&self, password: &str) {
        self.call("/v3/auth/user/add", &json!({ "name": "root", "password": password }));
        self.call("/v3/auth/role/add", &json!({ "name": "root" }));
        self.call("/v3/auth/user/grant", &json!({ "user": "root", "role": "root" }));
        self.call("/v3/auth/enable", &json!({}));
    }

    /// As [`Etcd::put_endpoint`], as `root`.
    pub fn put_endpoint_as_root(&self, password: &str, service: &str, address: &str) {
        let login = self.call("/v3/auth/authenticate", &json!({ "name": "root", "password": password }));
        let token = login["token"].as_str().unwrap();
        let value = format!(r#"{{"Op":0,"Addr":"{address}","Metadata":null}}"#);
        let key = STANDARD.encode(format!("openim/{service}/{address}"));
        let question = json!({ "key": key, "value": STANDARD.encode(value) });
        self.call_as("/v3/kv/put", &[("Authorization", token)], &question);
    }
}

/// A JSON POST; HTTP/1.0, so that the answer ends with the connection.
fn post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<Value, Box<dyn std::error::Error>> {
    let mut socket = TcpStream::connect_timeout(&address, DEADLINE)?;
    socket.set_read_timeout(Some(DEADLINE))?;
    let body = body.to_string();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(socket, "POST {path} HTTP/1.0\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())?;
    let mut text = String::new();
    socket.read_to_string(&mut text)?;
    let (_, answer) = text.split_once("\r\n\r\n").ok_or("not HTTP")?;
    Ok(serde_json::from_str(answer)?)
}

/// A Redis, or a sentinel.
pub struct Redis(pub Server);

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(more: &[&str]) -> Self {
        require("redis-server");
        let arguments = |folder: &Path, ports: &[u16]| {
            let own = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"];
            let own = own.into_iter().map(str::to_owned);
            let rest = [folder.display().to_string(), "--port".into(), ports[0].to_string()];
            own.chain(rest).chain(more.iter().map(ToString::to_string)).collect()
        };
        Self(Server::start("redis-server", arguments, |address| Resp::connect(address).is_ok()))
    }

    /// A sentinel that knows `master` by this name.
    pub fn start_sentinel(name: &str, master: SocketAddr) -> Self {
        require("redis-server");
        let arguments = |folder: &Path, ports: &[u16]| {
            let file = folder.join("sentinel.conf");
            let text =
                format!("port {}\nsentinel monitor {name} {} {} 1\n", ports[0], master.ip(), master.port());
            std::fs::write(&file, text).unwrap();
            vec![file.display().to_string(), "--sentinel".into()]
        };
        Self(Server::start("redis-server", arguments, |address| Resp::connect(address).is_ok()))
    }

    /// A client of the test's own.
    pub fn client(&self) -> Resp {
        Resp::connect(self.0.address).unwrap()
    }
}

/// A client of Redis in as few lines as it takes: each answer is one line, or an array of strings.
pub struct Resp(std::io::BufReader<TcpStream>);

impl Resp {
    /// Connects, and waits until Redis has loaded.
    fn connect(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        let mut resp = Self(std::io::BufReader::new(socket));
        let answer = resp.try_call(&["PING"])?;
        if answer == ["PONG"] || answer[0].starts_with("NOAUTH") {
            return Ok(resp);
        }
        Err(std::io::Error::other(answer.join(" ")))
    }

    /// Asks; an error is a failure of the test.
    pub fn call(&mut self, words: &[&str]) -> Vec<String> {
        let answer = self.try_call(words).unwrap();
        assert!(!answer.first().is_some_and(|first| first.starts_with("ERR")), "{words:?}: {answer:?}");
        answer
    }

    fn try_call(&mut self, words: &[&str]) -> std::io::Result<Vec<String>> {
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(text.as_bytes())?;
        let first = self.line()?;
        match first.split_at(1) {
            ("*", count) => {
                (0..count.parse().unwrap_or(0)).map(|_| self.line().and_then(|l| self.value(&l))).collect()
            }
            _ => Ok(vec![self.value(&first)?]),
        }
    }

    fn value(&mut self, line: &str) -> std::io::Result<String> {
        match line.split_at(1) {
            ("$", "-1") => Ok("(nil)".into()),
            ("$", _) => self.line(),
            (_, value) => Ok(value.to_owned()),
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut self.0, &mut line)?;
        if line.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Publishes; how many heard it.
    pub fn publish(&mut self, payload: &str) -> u64 {
        self.call(&["PUBLISH", "online_change", payload])[0].parse().unwrap()
    }
}

/// A fixed address before a server.
pub struct Front {
    pub address: SocketAddr,
    state: Arc<Mutex<Behind>>,
}

/// Where a front leads to, and what runs over it.
#[derive(Default)]
struct Behind {
    target: Option<SocketAddr>,
    open: Vec<TcpStream>,
}

impl Front {
    /// Leads nowhere: who comes is closed.
    pub fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<Mutex<Behind>>::default();
        let shared = Arc::downgrade(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Some(state)) = (client, shared.upgrade()) else { break };
                let mut behind = state.lock().unwrap();
                let Some(target) = behind.target else { continue };
                let Ok(server) = TcpStream::connect(target) else { continue };
                for (mut from, mut to) in [
                    (client.try_clone().unwrap(), server.try_clone().unwrap()),
                    (server.try_clone().unwrap(), client.try_clone().unwrap()),
                ] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                behind.open.extend([client, server]);
            }
        });
        Self { address, state }
    }

    /// From now on it leads there.
    pub fn open(&self, target: SocketAddr) {
        self.state.lock().unwrap().target = Some(target);
    }

    /// Cuts everything; who comes is closed.
    pub fn cut(&self) {
        let mut behind = self.state.lock().unwrap();
        behind.target = None;
        for socket in behind.open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.cut();
        // The listener's thread sees that nobody owns the state any more.
        self.state = Arc::default();
        let _ = TcpStream::connect(self.address);
    }
}
