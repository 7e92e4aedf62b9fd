//! What was counted and timed: per thread while it runs, merged over threads and processes at the end.
//!
//! All times in ns. Latencies are from the time at which an operation was *due*: in an open loop that is its place in
//! the schedule, in a closed loop the moment it was sent, and there what a stall kept from being sent is filled in
//! (hdrhistogram's correction with the expected interval), so that neither hides coordinated omission. `raw` is what
//! was seen from the moment of sending.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as Reader, Serializer as _, V2Serializer as Writer};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Counts of errors by kind; wrk's `Socket errors`, and ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors {
    pub connect: u64,
    pub read: u64,
    pub write: u64,
    pub timeout: u64,
    /// Handshakes that were answered, but not with 101, by status; OpenIM's `errCode` where the body has one.
    pub handshake: BTreeMap<String, u64>,
    /// Close frames by code.
    pub closed: BTreeMap<u16, u64>,
    /// Answers with an error: OpenIM's `errCode`, gRPC's or HTTP's status.
    pub answer: BTreeMap<String, u64>,
    /// What breaks RFC 6455 or the envelope.
    pub protocol: u64,
}

/// A histogram in hdrhistogram's V2 serialisation when it travels.
#[derive(Clone, Debug)]
pub struct Latencies(pub Histogram<u64>);

/// What is longer counts as so much.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

impl Default for Latencies {
    /// Empty: 1 ns to an hour, three digits.
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("bounds that are in order"))
    }
}

impl Latencies {
    pub fn record(&mut self, ns: u64) {
        self.0.saturating_record(ns.max(1));
    }

    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// With what a stall kept from being sent, when one every `interval_ns` was to be expected. Unchanged for 0.
    pub fn corrected(&self, interval_ns: u64) -> Self {
        Self(self.0.clone_correct(interval_ns))
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::new();
        Writer::new().serialize(&self.0, &mut bytes).map_err(S::Error::custom)?;
        bytes.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        Reader::new().deserialize(&mut &bytes[..]).map(Self).map_err(D::Error::custom)
    }
}

/// All that one thread knows. `logins`, their latency, `kicked` and `errors` are of the whole run; everything else is of
/// the measured time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Handshakes that ended well, and their time from `connect` to the 101.
    pub logins: u64,
    pub login_latency: Latencies,
    /// Operations begun, and answered well.
    pub begun: u64,
    pub answered: u64,
    /// Corrected, and as seen.
    pub latency: Latencies,
    pub raw: Latencies,
    /// Messages that carried a send time, and their way from there to here.
    pub deliveries: u64,
    pub delivery: Latencies,
    /// WebSocket messages and bytes on the wire.
    pub messages_in: u64,
    pub messages_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub kicked: u64,
    pub errors: Errors,
    /// By how much operations of an open loop were late to be sent: the generator's own fault.
    pub lateness: Latencies,
}

impl Tally {
    /// Adds what another thread counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.login_latency, &other.login_latency),
            (&mut self.latency, &other.latency),
            (&mut self.raw, &other.raw),
            (&mut self.delivery, &other.delivery),
            (&mut self.lateness, &other.lateness),
        ] {
            mine.add(theirs);
        }
        for (mine, theirs) in [
            (&mut self.logins, other.logins),
            (&mut self.begun, other.begun),
            (&mut self.answered, other.answered),
            (&mut self.deliveries, other.deliveries),
            (&mut self.messages_in, other.messages_in),
            (&mut self.messages_out, other.messages_out),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.kicked, other.kicked),
        ] {
            *mine += theirs;
        }
        self.errors.merge(&other.errors);
    }

    /// Forgets what is not of the whole run: the measured time begins.
    pub fn begin_measuring(&mut self) {
        *self = Self {
            logins: self.logins,
            login_latency: std::mem::take(&mut self.login_latency),
            kicked: self.kicked,
            errors: std::mem::take(&mut self.errors),
            ..Self::default()
        };
    }
}

impl Errors {
    fn merge(&mut self, other: &Self) {
        self.connect += other.connect;
        self.read += other.read;
        self.write += other.write;
        self.timeout += other.timeout;
        self.protocol += other.protocol;
        for (kind, count) in &other.handshake {
            *self.handshake.entry(kind.clone()).or_default() += count;
        }
        for (code, count) in &other.closed {
            *self.closed.entry(*code).or_default() += count;
        }
        for (code, count) in &other.answer {
            *self.answer.entry(code.clone()).or_default() += count;
        }
    }
}

/// What `--server-pid` saw, over the measured time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServerUse {
    pub cpu_seconds: f64,
    pub user_seconds: f64,
    pub system_seconds: f64,
    /// Private memory before the first connection, and at the end of the measured time.
    pub memory_before_bytes: u64,
    pub memory_bytes: u64,
    /// Kernel memory of sockets (`/proc/net/sockstat`: pages of TCP), before and at the end; the machine's.
    pub socket_memory_before_bytes: u64,
    pub socket_memory_bytes: u64,
    /// Kernel memory in slabs, before and at the end; the machine's.
    pub slab_before_bytes: u64,
    pub slab_bytes: u64,
}

/// The whole run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub tally: Tally,
    /// Connecting, then the measured time, in seconds: `--duration`, and longer if what was sent in it was still being
    /// answered or delivered after it, since that is counted too.
    pub connect_seconds: f64,
    pub seconds: f64,
    /// Connections open at the end of the measured time.
    pub open: usize,
    pub server: Option<ServerUse>,
    /// While connecting only: CPU of the server for the handshakes.
    pub server_connecting: Option<ServerUse>,
    /// CPU of the generator in the measured time, and while connecting.
    pub own_cpu_seconds: f64,
    pub own_connect_cpu_seconds: f64,
    pub processes: usize,
    /// Rate, deliveries and open connections of each second.
    pub timeline: Vec<Second>,
}

/// One second of a run: for live progress and plots. Counts are of this second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    pub at_seconds: f64,
    pub open: usize,
    pub answered: u64,
    pub deliveries: u64,
    pub errors: u64,
    pub bytes_in: u64,
    pub latency_p50_ns: u64,
    pub latency_p99_ns: u64,
}
