//! Many clients in one process: they log in, count what they are sent, time what carries a time, and ping.
//!
//! A process of its own (`bench-push crowd`), so that its CPU time and its descriptors are its own. It is told what to
//! do by lines on its standard input and answers on its standard output; [`Crowd`] is the other end. It ends when its
//! input does, and with an error when a client loses its connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use hdrhistogram::Histogram;
use pinion::backend::token;
use pinion::ids::Platform;
use pinion::shard::clock as gateway_clock;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::net::{RecvFlags, SendFlags};
use rustix::time::Timespec;

use crate::child::Child;
use crate::frames::{BINARY, CLOSE, Frames, PING, TEXT};
use crate::message::{Tag, due, user};
use pinion_bench_kit::clock::now_ns;

/// Logins that wait for their answer at once.
const LOGINS_AT_ONCE: usize = 256;
/// One read.
const SCRATCH_BYTES: usize = 256 * 1024;
/// How often pings are spread.
const BEAT_MS: u64 = 50;
/// What a client pings with: FIN and opcode 9, masked, no payload.
const PING_FRAME: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];
/// Epoll's name for the standard input.
const INPUT: u64 = u64::MAX;
/// No login and no answer takes so long.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a crowd is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub target: SocketAddr,
    pub count: usize,
    /// The number of the first user.
    pub first: usize,
    /// `gob`, `gob-gzip`, `json`, `json-gzip`; `plain`: no login, the server sends frames at once.
    pub variant: String,
}

struct Client {
    socket: TcpStream,
    frames: Frames,
}

/// What was received.
struct Counts {
    frames: u64,
    bytes: u64,
    /// When the last frame was complete.
    last_ns: u64,
    load: Histogram<u64>,
    probe: Histogram<u64>,
}

/// Runs the process.
pub fn run(options: &Options) {
    let mut room = Room::open(options);
    println!("ready");
    while room.turn() {}
}

struct Room {
    epoll: OwnedFd,
    clients: Vec<Client>,
    counts: Counts,
    scratch: Vec<u8>,
    input: Vec<u8>,
    /// Say when so many frames are in.
    expected: Option<u64>,
    ping_every_ms: u64,
    next_beat_ns: u64,
    next_ping: usize,
}

impl Room {
    fn open(options: &Options) -> Self {
        let clients = log_in(options);
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an epoll");
        for (number, client) in clients.iter().enumerate() {
            epoll::add(&epoll, &client.socket, EventData::new_u64(number as u64), EventFlags::IN)
                .expect("a socket that can be waited for");
        }
        epoll::add(&epoll, std::io::stdin().as_fd(), EventData::new_u64(INPUT), EventFlags::IN)
            .expect("the standard input is a pipe");
        Self {
            epoll,
            clients,
            counts: Counts { frames: 0, bytes: 0, last_ns: 0, load: histogram(), probe: histogram() },
            scratch: vec![0; SCRATCH_BYTES],
            input: Vec::new(),
            expected: None,
            ping_every_ms: if options.variant == "plain" { 0 } else { 20_000 },
            next_beat_ns: now_ns(),
            next_ping: 0,
        }
    }

    /// `false`: the input has ended.
    fn turn(&mut self) -> bool {
        let mut events = Vec::with_capacity(1024);
        let wait = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => panic!("epoll: {e}"),
        }
        for event in events {
            match event.data.u64() {
                INPUT if !self.obey() => return false,
                INPUT => {}
                number => self.read(usize::try_from(number).expect("a number that came from usize")),
            }
        }
        if self.expected.is_some_and(|frames| self.counts.frames >= frames) {
            self.expected = None;
            println!("reached {}", self.counts.last_ns);
        }
        self.ping();
        true
    }

    fn read(&mut self, number: usize) {
        let Client { socket, frames } = &mut self.clients[number];
        let received = match rustix::net::recv(&*socket, &mut self.scratch[..], RecvFlags::DONTWAIT) {
            Ok((_, 0)) => panic!("client {number} lost its connection"),
            Ok((_, n)) => n,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            Err(e) => panic!("client {number}: {e}"),
        };
        let (counts, now) = (&mut self.counts, now_ns());
        counts.bytes += received as u64;
        frames.feed(&self.scratch[..received], |opcode, payload| match opcode {
            BINARY => counts.note(payload, now),
            CLOSE => panic!("the gateway closed client {number}: {payload:?}"),
            PING | TEXT => panic!("a frame of kind {opcode} was not expected"),
            _ => {}
        });
    }

    /// Reads and obeys lines. `false`: there will be no more.
    fn obey(&mut self) -> bool {
        let mut bytes = [0; 1024];
        let n = rustix::io::read(std::io::stdin(), &mut bytes).expect("the standard input");
        self.input.extend_from_slice(&bytes[..n]);
        while let Some(end) = self.input.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let line = String::from_utf8(line).expect("lines are ASCII");
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["expect", frames] => self.expected = frames.parse().ok(),
                ["pings", ms] => self.ping_every_ms = ms.parse().expect("milliseconds"),
                ["report"] => println!("{}", self.counts.report()),
                _ => panic!("what is {line:?}?"),
            }
        }
        n > 0
    }

    /// Spreads the pings of all clients evenly over the interval.
    fn ping(&mut self) {
        let now = now_ns();
        if now < self.next_beat_ns || self.ping_every_ms == 0 {
            return;
        }
        self.next_beat_ns = now + BEAT_MS * 1_000_000;
        let share = (self.clients.len() as u64 * BEAT_MS).div_ceil(self.ping_every_ms);
        for _ in 0..share {
            let client = &self.clients[self.next_ping];
            self.next_ping = (self.next_ping + 1) % self.clients.len();
            // A full socket is not silent: the gateway hears what is in it.
            match rustix::net::send(&client.socket, &PING_FRAME, SendFlags::DONTWAIT) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => panic!("a ping: {e}"),
            }
        }
    }
}

impl Counts {
    fn note(&mut self, payload: &[u8], now_ns: u64) {
        self.frames += 1;
        self.last_ns = now_ns;
        if let Some((tag, due_ns)) = due(payload)
            && due_ns > 0
        {
            let histogram = match tag {
                Tag::Load => &mut self.load,
                Tag::Probe => &mut self.probe,
            };
            histogram.saturating_record(now_ns.saturating_sub(due_ns) / 1000);
        }
    }

    /// One line; times are in microseconds. The histograms begin anew.
    fn report(&mut self) -> String {
        let text = format!("report {} {}{}{}", self.frames, self.bytes, line(&self.load), line(&self.probe));
        self.load.reset();
        self.probe.reset();
        text
    }
}

fn line(histogram: &Histogram<u64>) -> String {
    let at = |quantile| histogram.value_at_quantile(quantile);
    format!(" {} {} {} {}", histogram.len(), at(0.5), at(0.99), histogram.max())
}

/// Microseconds, up to a minute, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("bounds that are in order")
}

fn log_in(options: &Options) -> Vec<Client> {
    let mut clients = Vec::with_capacity(options.count);
    while clients.len() < options.count {
        let start = clients.len();
        for number in start..options.count.min(start + LOGINS_AT_ONCE) {
            let socket = TcpStream::connect(options.target)
                .unwrap_or_else(|e| panic!("client {number} cannot connect: {e}"));
            socket.set_nodelay(true).expect("a TCP option");
            socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
            if options.variant != "plain" {
                (&socket).write_all(request(options, number).as_bytes()).expect("a request of 500 bytes");
            }
            clients.push(Client { socket, frames: Frames::default() });
        }
        if options.variant != "plain" {
            clients[start..].iter_mut().for_each(await_101);
        }
    }
    clients
}

fn request(options: &Options, number: usize) -> String {
    let user = user(options.first + number);
    let token = token::issue("openIM123", &user, Platform::ANDROID, gateway_clock::now().unix, 86_400)
        .expect("a lifetime of a day");
    let sdk = if options.variant.starts_with("json") { "js" } else { "go" };
    let gzip = if options.variant.ends_with("gzip") { "&compression=gzip" } else { "" };
    format!(
        "GET /?sendID={user}&token={token}&platformID=2&operationID=bench&isBackground=false&sdkType={sdk}{gzip} \
         HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Reads to the end of the answer's head, byte by byte behind its first part, so that no frame is lost.
fn await_101(client: &mut Client) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        let n = client.socket.read(&mut byte).unwrap_or_else(|e| panic!("no answer to a login: {e}"));
        assert!(n > 0, "the gateway hung up on a login: {}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head);
    assert!(text.starts_with("HTTP/1.1 101"), "a login was refused: {text}");
}

/// What a crowd has seen. Counts are since its start, latencies since the last report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub frames: u64,
    pub bytes: u64,
    pub load: Latency,
    pub probe: Latency,
}

/// Microseconds from due to received.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

/// A crowd in another process.
pub struct Crowd {
    child: Child,
}

impl Crowd {
    /// Starts it on these CPUs and waits until all clients are in.
    pub fn start(options: &Options, cpus: &[usize]) -> Self {
        let arguments = [
            "crowd".to_owned(),
            format!("--target={}", options.target),
            format!("--count={}", options.count),
            format!("--first={}", options.first),
            format!("--variant={}", options.variant),
        ];
        let mut child = Child::start(&arguments, cpus);
        assert_eq!(child.line(), "ready");
        Self { child }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Waits until so many frames came in since its start; gives the time of the last one.
    pub fn until(&mut self, frames: u64) -> u64 {
        self.child.say(&format!("expect {frames}"));
        let line = self.child.line();
        line.strip_prefix("reached ").and_then(|ns| ns.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
    }

    /// Sets the time between two pings of a client; 0: none.
    pub fn pings(&mut self, every_ms: u64) {
        self.child.say(&format!("pings {every_ms}"));
    }

    /// Asks for its counts.
    pub fn report(&mut self) -> Report {
        self.child.say("report");
        let line = self.child.line();
        let numbers: Vec<u64> = line.split_whitespace().skip(1).filter_map(|n| n.parse().ok()).collect();
        let [frames, bytes, rest @ ..] = &numbers[..] else { panic!("{line:?}") };
        let latency =
            |n: &[u64]| Latency { count: n[0], p50: n[1] as f64, p99: n[2] as f64, max: n[3] as f64 };
        Report { frames: *frames, bytes: *bytes, load: latency(&rest[..4]), probe: latency(&rest[4..]) }
    }
}
