//! A stand-in for the API server of Kubernetes: `Endpoints` objects of one namespace, listed and watched over HTTPS as
//! the real one does it (versions, bookmarks, a history that is forgotten, tokens), and a service account for its
//! callers. No real one can be had here: it comes in images and release archives, and in no registry of packages.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::authority::{Authority, When, write};

/// Where all objects are.
pub const NAMESPACE: &str = "im";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/im/leases";

/// See the module's documentation.
pub struct ApiServer {
    /// Where it listens, for as long as it lives.
    pub address: SocketAddr,
    account: TempDir,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The version of the newest change.
    version: u64,
    /// By name, as JSON.
    objects: BTreeMap<String, Value>,
    /// Pods and leases, by path.
    resources: BTreeMap<String, Value>,
    /// Version, name and event of each change that is remembered.
    history: Vec<(u64, String, Value)>,
    /// Who watches from an older version is told that it is gone.
    oldest: u64,
    token: String,
    mood: Mood,
    /// The first lines of all requests that were read.
    requests: Vec<String>,
    open: Vec<TcpStream>,
}

/// How it treats its callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Well,
    /// It takes connections and requests and says nothing, not even that a watch is over.
    Silent,
    /// It closes what comes.
    Away,
    /// It ends each watch as soon as it began.
    Hasty,
    /// It answers with something else.
    Babbling,
    /// It answers so to those who ask for a list of pods.
    Odd(&'static str, &'static str),
}

type Stream = StreamOwned<ServerConnection, TcpStream>;

impl ApiServer {
    pub fn start() -> Self {
        let authority = Authority::new("cluster", When::Now);
        let account = TempDir::new().unwrap();
        write(account.path(), "ca.crt", authority.pem());
        write(account.path(), "namespace", NAMESPACE);
        let config = Arc::new(server_config(&authority));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Shared>::default();
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (Ok(socket), Some(shared)) = (socket, weak.upgrade()) else { break };
                if !shared.lock().takes(&socket) {
                    continue;
                }
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                std::thread::spawn(move || shared.serve(StreamOwned::new(session, socket)));
            }
        });
        let server = Self { address, account, shared };
        server.rotate("first-token");
        server
    }

    /// The folder of the service account.
    pub fn account(&self) -> &Path {
        self.account.path()
    }

    /// As the plan of a caller has it.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on another token is asked for, and the account has it.
    pub fn rotate(&self, token: &str) {
        self.require(token);
        write(self.account(), "token", &format!("{token}\n"));
    }

    /// From now on another token is asked for.
    pub fn require(&self, token: &str) {
        self.shared.lock().token = token.to_owned();
    }

    /// The instances of a service, each ready at its address, port `grpc`.
    pub fn set(&self, name: &str, instances: &[SocketAddr]) {
        let subset = |a: &SocketAddr| {
            json!({
                "addresses": [{"ip": a.ip().to_string(), "targetRef": {"kind": "Pod", "name": "p"}}],
                "notReadyAddresses": [{"ip": "10.255.255.255"}],
                "ports": [{"name": "prometheus", "port": 1, "protocol": "TCP"},
                          {"name": "grpc", "port": a.port(), "protocol": "TCP"}],
            })
        };
        self.set_subsets(name, instances.iter().map(subset).collect());
    }

    pub fn set_subsets(&self, name: &str, subsets: Value) {
        self.shared.change(name, |state, version| {
            let metadata =
                json!({"name": name, "namespace": NAMESPACE, "resourceVersion": version.to_string()});
            let object = json!({"kind": "Endpoints", "metadata": metadata, "subsets": subsets});
            let old = state.objects.insert(name.to_owned(), object.clone());
            json!({"type": if old.is_some() { "MODIFIED" } else { "ADDED" }, "object": object})
        });
    }

    pub fn delete(&self, name: &str) {
        self.shared.change(name, |state, version| {
            let mut object = state.objects.remove(name).unwrap();
            object["metadata"]["resourceVersion"] = json!(version.to_string());
            json!({"type": "DELETED", "object": object})
        });
    }

    /// Something elsewhere in the cluster changes, and a bookmark says so to those who watch this name.
    pub fn bookmark(&self, name: &str) {
        self.shared.change(name, |_, version| {
            let metadata = json!({"resourceVersion": version.to_string()});
            json!({"type": "BOOKMARK", "object": {"kind": "Endpoints", "metadata": metadata}})
        });
    }

    /// A pod of that name, that this selector finds.
    pub fn set_pod(&self, name: &str, uid: &str, selector: &str) {
        let state = &mut *self.shared.lock();
        let labels = json!({"found-by": selector});
        let pod = json!({"kind": "Pod", "metadata": {"name": name, "uid": uid, "labels": labels}});
        state.version += 1;
        state.resources.insert(format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}"), pod);
    }

    pub fn delete_pod(&self, name: &str) {
        let state = &mut *self.shared.lock();
        state.version += 1;
        state.resources.remove(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}"));
    }

    /// The lease of that name; taken away as an operator would, if asked to.
    pub fn lease(&self, name: &str) -> Option<Value> {
        self.shared.lock().resources.get(&format!("{LEASES}/{name}")).cloned()
    }

    pub fn delete_lease(&self, name: &str) {
        let state = &mut *self.shared.lock();
        state.version += 1;
        state.resources.remove(&format!("{LEASES}/{name}"));
    }

    /// All changes so far are forgotten.
    pub fn compact(&self) {
        let state = &mut *self.shared.lock();
        state.version += 1;
        state.oldest = state.version;
        state.history.clear();
    }

    /// Nothing was ever there.
    pub fn restore_from_nothing(&self) {
        self.shared.lock().objects.clear();
        self.compact();
    }

    pub fn be(&self, mood: Mood) {
        self.shared.lock().mood = mood;
        self.shared.changed.notify_all();
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for socket in self.shared.lock().open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Requests so far whose first line has this in it.
    pub fn requests(&self, with: &str) -> usize {
        self.shared.lock().requests.iter().filter(|line| line.contains(with)).count()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.be(Mood::Away);
        self.cut();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut State, u64) -> Value) {
        let state = &mut *self.lock();
        state.version += 1;
        let event = change(state, state.version);
        state.history.push((state.version, name.to_owned(), event));
        self.changed.notify_all();
    }

    /// Requests of one connection, until it is over. Its caller may go at any time.
    fn serve(&self, stream: Stream) {
        let mut stream = BufReader::new(stream);
        while let Some(head) = head(&mut stream) {
            let bearer = head.iter().find_map(|line| line.strip_prefix("authorization: Bearer "));
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            if stream.read_exact(&mut body).is_err() {
                return;
            }
            let mut state = self.lock();
            state.requests.push(head[0].clone());
            let known = bearer == Some(state.token.as_str());
            let (status, list) = match head[0].contains("/endpoints?") {
                true => ("200 OK", state.list(&head[0])),
                false => match state.mood {
                    Mood::Odd(status, body) if known && head[0].contains("/pods?") => {
                        (status, body.to_owned())
                    }
                    Mood::Well | Mood::Odd(..) if known => state.resource(&head[0], &body),
                    _ => ("503 Service Unavailable", "{}".to_owned()),
                },
            };
            while state.mood == Mood::Silent {
                state = self.changed.wait(state).unwrap();
            }
            let mood = state.mood;
            drop(state);
            let stream = stream.get_mut();
            let done = match (mood, known, parameter(&head[0], "watch")) {
                (Mood::Babbling, ..) => answer(stream, "200 OK", "It works!"),
                (_, false, _) => {
                    answer(stream, "401 Unauthorized", r#"{"code":401,"message":"Unauthorized"}"#)
                }
                (_, true, None) => answer(stream, status, &list),
                (_, true, Some(_)) => self.watch(stream, &head[0]),
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn watch(&self, stream: &mut Stream, line: &str) -> std::io::Result<()> {
        let number = |name| parameter(line, name).unwrap().parse::<u64>().unwrap();
        let (mut version, end) = (number("resourceVersion"), Duration::from_secs(number("timeoutSeconds")));
        let (name, end) = (selected(line), Instant::now() + end);
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            let mut state = self.lock();
            let events = state.since(version, &name);
            let over = events.is_empty() && (Instant::now() >= end || state.mood == Mood::Hasty);
            if events.is_empty() && (!over || state.mood == Mood::Silent) {
                let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
                drop(self.changed.wait_timeout(state, left).unwrap());
                continue;
            }
            version = version.max(state.version);
            state.requests.extend(over.then(|| format!("end of {name}")));
            drop(state);
            for event in events {
                // In two parts: the end of a chunk is no end of a line.
                let text = format!("{event}\n");
                for part in [&text[..text.len() / 2], &text[text.len() / 2..]] {
                    write!(stream, "{:x}\r\n{part}\r\n", part.len())?;
                }
                stream.flush()?;
            }
            if over {
                stream.write_all(b"0\r\n\r\n")?;
                return stream.flush();
            }
        }
    }
}

impl State {
    /// Whether who comes is served; then it can be cut off.
    fn takes(&mut self, socket: &TcpStream) -> bool {
        let takes = self.mood != Mood::Away;
        self.open.extend(takes.then(|| socket.try_clone().unwrap()));
        takes
    }

    fn list(&self, line: &str) -> String {
        let items: Vec<&Value> = self.objects.get(&selected(line)).into_iter().collect();
        let metadata = json!({"resourceVersion": self.version.to_string()});
        json!({"kind": "EndpointsList", "metadata": metadata, "items": items}).to_string()
    }

    /// Lists, reads and writes pods and leases.
    fn resource(&mut self, line: &str, body: &[u8]) -> (&'static str, String) {
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let path = target.split('?').next().unwrap().to_owned();
        let collection = path.ends_with("/leases") || path.ends_with("/pods");
        let given: Value = serde_json::from_slice(body).unwrap_or_default();
        let named = |value: &Value| format!("{path}/{}", value["metadata"]["name"].as_str().unwrap());
        let path = if method == "POST" { named(&given) } else { path };
        let version = |of: Option<&Value>| of.map(|value| value["metadata"]["resourceVersion"].clone());
        let (old, next) = (self.resources.get(&path), self.version + 1);
        let unchanged = |asked: &Value| asked.is_null() || version(old).as_ref() == Some(asked);
        match (method, old) {
            ("GET", _) if collection => {
                let selector = parameter(line, "labelSelector").unwrap().replace("%3D", "=");
                let found = |path_of: &str, object: &Value| {
                    let label = &object["metadata"]["labels"]["found-by"];
                    path_of.starts_with(&format!("{path}/")) && (label.is_null() || *label == *selector)
                };
                let items: Vec<&Value> =
                    self.resources.iter().filter(|(at, object)| found(at, object)).map(|(_, o)| o).collect();
                let metadata = json!({"resourceVersion": self.version.to_string()});
                let kind = if path.ends_with("/leases") { "LeaseList" } else { "PartialObjectMetadataList" };
                ("200 OK", json!({"kind": kind, "metadata": metadata, "items": items}).to_string())
            }
            ("GET", Some(object)) => ("200 OK", object.to_string()),
            ("POST", Some(_)) => ("409 Conflict", "{}".to_owned()),
            ("GET" | "PUT" | "DELETE", None) => ("404 Not Found", "{}".to_owned()),
            ("DELETE", Some(_)) if unchanged(&given["preconditions"]["resourceVersion"]) => {
                self.version = next;
                self.resources.remove(&path);
                ("200 OK", "{}".to_owned())
            }
            ("PUT", Some(_)) if !unchanged(&given["metadata"]["resourceVersion"]) => {
                ("409 Conflict", "{}".to_owned())
            }
            ("POST" | "PUT", _) => {
                self.version = next;
                let mut object = given;
                object["metadata"]["resourceVersion"] = json!(next.to_string());
                let text = object.to_string();
                self.resources.insert(path, object);
                (if method == "POST" { "201 Created" } else { "200 OK" }, text)
            }
            _ => ("409 Conflict", "{}".to_owned()),
        }
    }

    fn since(&self, version: u64, name: &str) -> Vec<Value> {
        if version < self.oldest {
            let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
            return vec![json!({"type": "ERROR", "object": gone})];
        }
        let after = self.history.iter().filter(|(at, of, _)| *at > version && of == name);
        after.map(|(_, _, event)| event.clone()).collect()
    }
}

fn parameter<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = line.split_whitespace().nth(1)?.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn selected(line: &str) -> String {
    let prefix = format!("GET /api/v1/namespaces/{NAMESPACE}/endpoints?");
    assert!(line.starts_with(&prefix), "{line}");
    parameter(line, "fieldSelector").unwrap().strip_prefix("metadata.name%3D").unwrap().to_owned()
}

fn answer(stream: &mut Stream, status: &str, body: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

/// The lines of a request; `None`: the connection is over.
fn head(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
        match line.trim_end() {
            "" => return Some(head),
            line => head.push(line.to_owned()),
        }
    }
}

fn server_config(authority: &Authority) -> ServerConfig {
    let (chain, key) = authority.issue(&["127.0.0.1"], When::Now);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).map(Result::unwrap).collect();
    let provider = rustls::crypto::ring::default_provider();
    ServerConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
        .unwrap()
}
