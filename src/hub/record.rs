//! Recording a hub's inputs and replaying them through a hub to the same trace hash.
//!
//! *shape* keeps what decoding and the token check yielded: no message bodies, and tokens only as a hash that still
//! tells equal from different. *full* keeps the raw bytes. Both are JSON lines, bounded in bytes; the writer of the
//! file sets its mode to 0600.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::cluster::{ClusterMail, TokenName};
use super::dispatch::Decoded;
use super::encoder::Encoder;
use super::mail::ShardMail;
use super::upstream::{UpstreamOutcome, UpstreamReply};
use super::{Accepted, Hub, HubConfig, Input};
use crate::ids::{ConnId, Text};
use crate::time::Now;

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// No bodies, no tokens.
    Shape,
    /// Raw bytes, tokens included.
    Full,
}

#[derive(Debug, Serialize, Deserialize)]
enum Entry {
    Start {
        mode: Mode,
        config: HubConfig,
    },
    Accepted(Now, Accepted),
    Input(Now, Input),
    Bytes(Now, ConnId, Vec<u8>),
    /// With the length of the body that was left out: it counts against the limits of the connection.
    Decoded(Now, ConnId, Decoded, usize),
    Turn(Now),
    Sent(Now, ConnId, usize),
    Presence,
    /// News for the router were taken.
    News,
    /// Length of the next frame that was built (shape only: it cannot be built again without the body).
    Encoded(usize),
    /// The trace hash at this point, for the replay to compare.
    Hash(u64),
    /// The byte limit was reached; nothing follows.
    Truncated,
}

/// Collects entries as JSON lines.
#[derive(Debug)]
pub struct Recorder {
    mode: Mode,
    lines: Vec<u8>,
    bytes_left: u64,
    tokens: ahash::RandomState,
    /// Names of tokens, and those of their hashes: a node of a cluster hears of tokens by name.
    names: Option<BTreeMap<TokenName, TokenName>>,
}

impl Recorder {
    /// Starts a recording of a hub that has not been used yet.
    pub fn new(mode: Mode, config: &HubConfig, bytes_max: u64) -> Self {
        let tokens = ahash::RandomState::with_seeds(config.hash_seed, 0x746f_6b65, 0x6e73, 1);
        let names = config.cluster.as_ref().map(|_| BTreeMap::new());
        let mut recorder = Self { mode, lines: Vec::new(), bytes_left: bytes_max, tokens, names };
        // The hashing seed is no secret of the recording: which bucket a user falls into is not observable.
        let config = HubConfig { hash_seed: 0, ..config.clone() };
        recorder.write(&Entry::Start { mode, config });
        recorder
    }

    pub(super) fn accepted(&mut self, now: Now, accepted: &Accepted) {
        let mut accepted = accepted.clone();
        if self.mode == Mode::Shape {
            let hash = self.scrub(&accepted.login.token);
            if let Some(names) = self.names.as_mut().filter(|_| self.bytes_left > 0) {
                names.insert(TokenName::of(&accepted.login.token), TokenName::of(&hash));
            }
            accepted.login.token = hash;
        }
        self.write(&Entry::Accepted(now, accepted));
    }

    pub(super) fn input(&mut self, now: Now, input: &Input) {
        let mut input = input.clone();
        if let Input::Mail(ShardMail::Push(push)) = &mut input {
            push.body.frames = None; // the replay builds the same
        }
        if self.mode == Mode::Shape {
            self.scrub_input(&mut input);
        }
        self.write(&Entry::Input(now, input));
    }

    pub(super) fn bytes(&mut self, now: Now, conn: ConnId, bytes: &[u8]) {
        if self.mode == Mode::Full {
            self.write(&Entry::Bytes(now, conn, bytes.to_vec()));
        }
    }

    pub(super) fn decoded(&mut self, now: Now, conn: ConnId, decoded: &Decoded) {
        if self.mode == Mode::Full {
            return;
        }
        let (mut decoded, mut left_out) = (decoded.clone(), 0);
        match &mut decoded {
            // 2004 and 2005 carry a flag and user ids, which the hub acts on; anything else is a body.
            Decoded::Request(request) if !matches!(request.id, 2004 | 2005) => {
                left_out = std::mem::take(&mut request.data).len();
            }
            Decoded::TextPing(json) => *json = "".into(),
            Decoded::Ping(payload) => *payload = Box::default(),
            _ => {}
        }
        self.write(&Entry::Decoded(now, conn, decoded, left_out));
    }

    pub(super) fn turn(&mut self, now: Now) {
        self.write(&Entry::Turn(now));
    }

    pub(super) fn sent(&mut self, now: Now, conn: ConnId, n: usize) {
        self.write(&Entry::Sent(now, conn, n));
    }

    pub(super) fn presence(&mut self) {
        self.write(&Entry::Presence);
    }

    pub(super) fn news(&mut self) {
        self.write(&Entry::News);
    }

    pub(super) fn encoded(&mut self, len: usize) {
        if self.mode == Mode::Shape {
            self.write(&Entry::Encoded(len));
        }
    }

    /// The lines since the last call, closed by the trace hash.
    pub(super) fn take(&mut self, trace: u64) -> Vec<u8> {
        if !self.lines.is_empty() {
            self.write(&Entry::Hash(trace));
        }
        std::mem::take(&mut self.lines)
    }

    fn write(&mut self, entry: &Entry) {
        if self.bytes_left == 0 {
            return;
        }
        let from = self.lines.len();
        if serde_json::to_writer(&mut self.lines, entry).is_err() {
            self.lines.truncate(from); // a Vec accepts any write; the entries have no map with odd keys
            return;
        }
        self.lines.push(b'\n');
        let written = (self.lines.len() - from) as u64;
        if written > self.bytes_left {
            self.lines.truncate(from);
            self.bytes_left = u64::MAX; // room for the mark itself
            self.write(&Entry::Truncated);
            self.bytes_left = 0;
        } else {
            self.bytes_left -= written;
        }
    }

    fn scrub(&self, token: &str) -> Box<str> {
        format!("{:016x}", self.tokens.hash_one(token)).into()
    }

    fn scrub_input(&self, input: &mut Input) {
        match input {
            Input::Mail(ShardMail::Push(push)) => push.body.msg_data = Bytes::new(),
            Input::Mail(ShardMail::RemoteLogin(login)) => {
                login.token = Text::from(&*self.scrub(&login.token));
            }
            Input::Mail(ShardMail::Cluster(mail)) => {
                if let (ClusterMail::Judge { token: Some(name), .. }, Some(names)) =
                    (&mut **mail, &self.names)
                {
                    *name = names.get(name).copied().unwrap_or(*name);
                }
            }
            Input::UpstreamReply(UpstreamReply { outcome: UpstreamOutcome::Data(data), .. }) => {
                *data = Bytes::new()
            }
            Input::UpstreamReply(UpstreamReply { outcome: UpstreamOutcome::Failed(error), .. }) => {
                error.detail = "".into();
            }
            _ => {}
        }
    }
}

/// Why a recording cannot be replayed to its end.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplayError {
    /// The line is no entry of this version.
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What the parser said.
        cause: String,
    },
    /// The first line must be the start entry.
    NoStart,
    /// The replayed hub differs from the recorded one: the code decides differently now.
    Diverged {
        /// The last line of the stretch in which it happened.
        line: usize,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { line, cause } => write!(f, "line {line} is no recorded entry: {cause}"),
            Self::NoStart => write!(f, "the first line is not the start of a recording"),
            Self::Diverged { line } => {
                write!(f, "the replay differs from the recording at or before line {line}")
            }
        }
    }
}

/// What a replay found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Hash at the end; equal to the recorded one wherever that was noted.
    pub trace_hash: u64,
    /// How many recorded hashes were compared.
    pub compared: usize,
    /// The recording stopped at its byte limit.
    pub truncated: bool,
}

/// Feeds a recording to a fresh hub and compares the trace hashes.
pub fn replay(text: &str) -> Result<Replayed, ReplayError> {
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let malformed =
            |e: serde_json::Error| ReplayError::Malformed { line: number + 1, cause: e.to_string() };
        entries.push(serde_json::from_str::<Entry>(line).map_err(malformed)?);
    }
    let lengths: VecDeque<usize> =
        entries.iter().filter_map(|e| if let Entry::Encoded(n) = e { Some(*n) } else { None }).collect();
    let mut entries = entries.into_iter().enumerate();
    let Some((_, Entry::Start { mode, config })) = entries.next() else {
        return Err(ReplayError::NoStart);
    };
    let mut hub = Hub::new(config);
    if mode == Mode::Shape {
        hub.encoder = Encoder::replay(lengths);
    }
    let mut replayed = Replayed { trace_hash: hub.trace_hash(), compared: 0, truncated: false };
    for (number, entry) in entries {
        match entry {
            Entry::Hash(hash) if hash != hub.trace_hash() => {
                return Err(ReplayError::Diverged { line: number + 1 });
            }
            Entry::Hash(_) => replayed.compared += 1,
            Entry::Truncated => replayed.truncated = true,
            entry => step(&mut hub, entry),
        }
    }
    replayed.trace_hash = hub.trace_hash();
    Ok(replayed)
}

fn step(hub: &mut Hub, entry: Entry) {
    match entry {
        Entry::Accepted(now, accepted) => {
            hub.accepted(now, accepted);
        }
        Entry::Input(now, input) => hub.input(now, input),
        Entry::Bytes(now, conn, mut bytes) => hub.bytes(now, conn, &mut bytes),
        Entry::Decoded(now, conn, mut decoded, left_out) => {
            if let (Decoded::Request(request), 1..) = (&mut decoded, left_out) {
                request.data = vec![0; left_out].into();
            }
            hub.decoded(now, conn, decoded);
        }
        Entry::Turn(now) => {
            hub.turn(now);
            // As the loop does after each turn.
            while hub.next_effect().is_some() {}
            while hub.next_flush().is_some() {}
        }
        Entry::Sent(now, conn, n) => hub.sent(now, conn, n),
        Entry::Presence => {
            hub.next_presence();
        }
        Entry::News => {
            hub.next_news();
        }
        Entry::Start { .. } | Entry::Encoded(_) | Entry::Hash(_) | Entry::Truncated => {}
    }
}
