//! One connection as the network sees it: two pipes, the one to the client of bounded size. Bytes keep their order and
//! arrive late, cut anywhere; nothing is lost but by a reset.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use pinion::ids::{ConnId, Platform, SourceId};

/// Position in the world's list of links: one for each connection ever opened.
pub type LinkId = usize;

/// What reaches the gateway.
#[derive(Clone, Debug)]
pub enum Up {
    /// Some bytes of the stream.
    Bytes(Vec<u8>),
    /// End of stream or reset.
    Gone,
}

/// See the module's documentation. The fields under "truth" are known to the checker only.
#[derive(Debug)]
pub struct Link {
    pub client: usize,
    pub shard: usize,
    pub peer: SocketAddr,
    pub user: Box<str>,
    pub platform: Platform,
    /// Once the hub has accepted it.
    pub conn: Option<ConnId>,

    /// On the way to the client; full at `room`.
    pub down: VecDeque<u8>,
    pub room: usize,
    /// The gateway sends nothing after what is in `down`.
    pub fin: bool,
    pub read_due: bool,
    /// Nothing sent from now on arrives at the gateway before this.
    pub up_free_at: u64,
    /// Arrived at the gateway's socket, not read yet.
    pub inbox: VecDeque<Up>,
    /// The gateway waits until the socket takes bytes again.
    pub blocked: bool,
    /// The client let go of its end.
    pub gone: bool,

    // ---- truth ----
    /// `Effect::Close` was given.
    pub closed: bool,
    /// The shard's ticks when the hub accepted it.
    pub accepted_tick: u64,
    /// The gateway had something to say to it.
    pub answered: bool,
    /// The shard's ticks when its socket reported that the client is gone.
    pub lost_tick: Option<u64>,
    /// The shard's ticks when its client vanished: no end of stream, nothing read, nothing sent.
    pub vanished_tick: Option<u64>,
    /// The step at which the client knew that it is logged in.
    pub logged_in: Option<u64>,
    /// Why the gateway may end it.
    pub excuse: Option<&'static str>,
    /// As its verdicts name it (spec 1.2).
    pub connection_id: [u8; 16],
    /// Pushes that arrived, with how often.
    pub received: BTreeMap<u64, u32>,
    /// The last push of each source that arrived.
    pub last_of_source: BTreeMap<SourceId, u64>,
}

impl Link {
    /// A link whose connect is on its way.
    pub fn new(client: usize, shard: usize, number: u16, who: (&str, Platform)) -> Self {
        Self {
            client,
            shard,
            peer: SocketAddr::from(([10, 0, (number >> 8) as u8, 1], 1024 + number)),
            user: who.0.into(),
            platform: who.1,
            conn: None,
            down: VecDeque::new(),
            room: 0,
            fin: false,
            read_due: false,
            up_free_at: 0,
            inbox: VecDeque::new(),
            blocked: false,
            gone: false,
            closed: false,
            accepted_tick: 0,
            answered: false,
            lost_tick: None,
            vanished_tick: None,
            logged_in: None,
            excuse: None,
            connection_id: [0; 16],
            received: BTreeMap::new(),
            last_of_source: BTreeMap::new(),
        }
    }

    /// Notes why the gateway may end it; the first reason stays.
    pub fn excuse(&mut self, why: &'static str) {
        self.excuse.get_or_insert(why);
    }

    /// Logged in, and neither end has let go.
    pub fn is_live(&self) -> bool {
        self.logged_in.is_some() && !self.closed && !self.gone
    }

    /// Everything that the gateway has given to the socket was read by the client.
    pub fn is_quiet(&self) -> bool {
        self.down.is_empty() && !self.blocked
    }
}
