//! What clients do: log in, ask, ping, push the limits, stall, reset, leave, come back. What they read is in `reader`.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use pinion::hub::login_policy::LoginPolicy;
use pinion::ids::{Platform, PlatformClass};
use pinion::pb::openim::sdkws::{SetAppBackgroundStatusReq, SubUserOnlineStatus};
use pinion::session::handshake::Login;
use pinion::wire::envelope::{Encoding, Request, Variant};
use pinion::wire::upgrade::{AcceptKey, UpgradeFault};
use prost::Message as _;

use crate::checker::Property;
use crate::frames::masked_frame;
use crate::link::{Link, LinkId, Up};
use crate::plan::Plan;
use crate::upstream;
use crate::world::{Event, World};

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not connected.
    Away,
    /// Its head is sent.
    Connecting,
    /// It has its 101 and waits for the first text frame.
    Greeting,
    /// Logged in.
    Open,
    /// Told that it is over; only the end of the stream may follow.
    Over,
}

/// A request without its reply.
#[derive(Debug)]
pub struct Pending {
    pub request: Request,
    /// The reply must be there when the shard has ticked so often.
    pub due_tick: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Client {
    pub user: Box<str>,
    pub platform: Platform,
    pub variant: Variant,
    /// `isMsgResp`.
    pub wants_response: bool,
    pub stage: Stage,
    pub link: Option<LinkId>,
    /// Read and not understood yet.
    pub buffer: Vec<u8>,
    pub stalled: bool,
    pub pending: BTreeMap<String, Pending>,
    /// SendMsg without a reply, oldest first.
    pub sends: VecDeque<String>,
    /// Payloads of pings without a pong.
    pub pings: VecDeque<Vec<u8>>,
    pub text_pings: VecDeque<String>,
    pub subscribed: bool,
    /// Its last connection ended with a kick.
    pub kicked: bool,
    /// This login is meant to be refused.
    pub bad_login: bool,
    pub last_sent_ms: u64,
    pub accept: String,
    token: Box<str>,
    count: u64,
}

/// A client that has been silent for so long pings.
const PING_MS: u64 = 9_000;
/// Upstream deadline in ticks, and slack for slow turns and for the flush.
const REPLY_TICKS: u64 = 100 + 40;
/// What a request may have to wait once its client reads again.
pub const RESUME_TICKS: u64 = 40;

impl Client {
    /// A client of some user on some platform.
    pub fn draw(_number: usize, plan: &Plan, rng: &mut fastrand::Rng) -> Self {
        let platforms = [1, 2, 5, 7, 9];
        let platform = platforms[rng.usize(0..platforms.len())];
        let variant = Variant {
            encoding: if rng.bool() { Encoding::Gob } else { Encoding::Json },
            gzip: rng.u8(0..3) == 0,
        };
        Self {
            user: format!("user{}", rng.usize(0..plan.users)).into(),
            platform: Platform::new(platform).expect("1 to 11"),
            variant,
            wants_response: rng.bool(),
            stage: Stage::Away,
            link: None,
            buffer: Vec::new(),
            stalled: false,
            pending: BTreeMap::new(),
            sends: VecDeque::new(),
            pings: VecDeque::new(),
            text_pings: VecDeque::new(),
            subscribed: false,
            kicked: false,
            bad_login: false,
            last_sent_ms: 0,
            accept: String::new(),
            token: "".into(),
            count: 0,
        }
    }

    fn forget_connection(&mut self) {
        self.stage = Stage::Away;
        self.link = None;
        self.buffer.clear();
        self.stalled = false;
        self.pending.clear();
        self.sends.clear();
        self.pings.clear();
        self.text_pings.clear();
        self.subscribed = false;
    }
}

/// Whether a login on one platform makes one on the other leave.
pub fn conflicts(policy: LoginPolicy, a: Platform, b: Platform) -> bool {
    match policy {
        LoginPolicy::KickNobody => false,
        LoginPolicy::OnePerPlatform => a == b,
        LoginPolicy::OnePerClass => a.class() == b.class(),
        LoginPolicy::PcAndOther => a.class() != PlatformClass::Pc && b.class() != PlatformClass::Pc,
    }
}

impl World {
    /// One thought of a client.
    pub fn client_acts(&mut self, client: usize) {
        if !self.is_over() {
            let delay = self.rng.u64(self.plan.think_ms.clone());
            self.after(delay, Event::Client(client));
        }
        let (stage, half_open) = (self.clients[client].stage, self.plan.half_open);
        match stage {
            Stage::Connecting | Stage::Greeting | Stage::Open if self.chance(half_open) => {
                self.vanish(client)
            }
            Stage::Away if self.comes_back(client) => self.log_in(client),
            Stage::Connecting | Stage::Greeting if self.rng.u8(0..40) == 0 => self.reset(client),
            Stage::Connecting if self.rng.u8(0..30) == 0 => self.send_early(client),
            Stage::Open if !self.clients[client].stalled => self.act_open(client),
            _ => {}
        }
    }

    /// A client that was kicked stops, as the SDKs do; somebody may start it again.
    fn comes_back(&mut self, client: usize) -> bool {
        let odds = if self.clients[client].kicked && !self.plan.eager { 60 } else { 2 };
        self.rng.u8(0..odds) == 0
    }

    fn act_open(&mut self, client: usize) {
        let Some(link) = self.clients[client].link else {
            return;
        };
        if self.clients[client].last_sent_ms + PING_MS < self.now.mono.0 {
            self.ping(client, link);
        }
        let (stalls, resets) = (self.plan.stalls, self.plan.resets);
        if self.chance(stalls) {
            return self.stall(client, link);
        }
        if self.chance(resets) {
            return match self.rng.u8(0..10) {
                0..3 => self.reset(client),
                3 => self.send_close(client, link),
                4..7 => self.send_garbage(client, link),
                7 => self.request(client, link, 2003),
                8 => self.request(client, link, 9999),
                _ => self.request(client, link, 2001),
            };
        }
        match self.rng.u8(0..20) {
            0..7 => {
                let ids = [1001, 1002, 1003, 1003, 1003, 1006, 2004, 2005];
                for _ in 0..self.rng.usize(1..4) {
                    let id = ids[self.rng.usize(0..ids.len())];
                    self.request(client, link, id);
                }
            }
            7..10 => self.ping(client, link),
            10..12 => self.text_ping(client, link),
            _ => {}
        }
    }

    fn log_in(&mut self, client: usize) {
        if self.links.len() >= 4_000 {
            return;
        }
        let id = self.links.len();
        let bad = self.plan.bad_tokens;
        let bad = self.chance(bad).then(|| ["kicked", "other", "down"][self.rng.usize(0..3)]);
        let again = self.rng.u8(0..10) == 0;
        let upgrade_fault = bad.is_some() && self.rng.u8(0..3) == 0;
        let fate = bad.filter(|_| !upgrade_fault);
        let state = &mut self.clients[client];
        state.count += 1;
        state.kicked = false;
        if !again || state.token.is_empty() || bad.is_some() || state.bad_login {
            state.token = upstream::token(&state.user, state.platform, (fate, id));
        }
        state.bad_login = bad.is_some();
        let key = format!("key{id:021}==");
        let accept = AcceptKey::answer_to(key.as_bytes());
        state.accept = accept.text();
        state.stage = Stage::Connecting;
        state.link = Some(id);
        let login = Login {
            user: state.user.clone(),
            token: state.token.clone(),
            platform: state.platform,
            operation_id: format!("login-{id}").into(),
            variant: state.variant,
            wants_response: state.wants_response,
            forwarded_for: None,
            upgrade: if upgrade_fault { Err(UpgradeFault::BadVersion) } else { Ok(accept) },
        };
        let (user, platform) = (state.user.clone(), state.platform);
        let shard = usize::from(self.ownership.owner(&user).0);
        let number = u16::try_from(id).expect("fewer than 4000 links");
        let mut link = Link::new(client, shard, number, (&user, platform));
        link.room = if self.plan.tight { self.rng.usize(300..3_000) } else { self.rng.usize(2_000..65_000) };
        self.excuse_login(&mut link);
        self.links.push(link);
        let delay = self.rng.u64(0..50);
        self.after(delay, Event::Connect(id, Box::new(login)));
    }

    /// Notes what may end a connection besides itself.
    fn excuse_login(&mut self, link: &mut Link) {
        let policy = self.plan.policy;
        for other in &mut self.links {
            if other.user == link.user && !other.closed && conflicts(policy, other.platform, link.platform) {
                other.excuse("login policy");
                link.excuse("login policy");
            }
        }
        if self.plan.tight {
            link.excuse("tight limits");
        }
        if self.draining {
            link.excuse("drain");
        }
        if self.caller.kick_may_wait(&link.user, link.platform, policy) {
            link.excuse("kick");
        }
    }

    /// Sends bytes: cut anywhere, each piece late.
    pub fn send(&mut self, client: usize, link: LinkId, mut bytes: Vec<u8>) {
        self.clients[client].last_sent_ms = self.now.mono.0;
        while !bytes.is_empty() {
            let cut = if self.rng.u8(0..4) == 0 { self.rng.usize(1..=bytes.len()) } else { bytes.len() };
            let rest = bytes.split_off(cut);
            self.arrives(link, Up::Bytes(std::mem::replace(&mut bytes, rest)));
        }
    }

    fn arrives(&mut self, link: LinkId, up: Up) {
        let delay = self.rng.u64(0..15);
        let at = (self.now.mono.0 + delay).max(self.links[link].up_free_at);
        self.links[link].up_free_at = at;
        self.at(at, Event::Arrive(link, up));
    }

    fn key(&mut self) -> [u8; 4] {
        self.rng.u32(..).to_ne_bytes()
    }

    fn ping(&mut self, client: usize, link: LinkId) {
        let payload: Vec<u8> = (0..self.rng.usize(0..20)).map(|_| self.rng.u8(..)).collect();
        self.clients[client].pings.push_back(payload.clone());
        let key = self.key();
        self.send(client, link, masked_frame(0x89, &payload, key));
    }

    /// Does not wait for the 101. Served if it comes after register, closed if before.
    fn send_early(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link {
            self.links[link].excuse("too early");
            self.ping(client, link);
        }
    }

    fn text_ping(&mut self, client: usize, link: LinkId) {
        self.clients[client].count += 1;
        let body = format!("t{}-{}", client, self.clients[client].count);
        let key = self.key();
        let text = format!(r#"{{"type":"ping","body":"{body}"}}"#);
        self.clients[client].text_pings.push_back(body);
        self.send(client, link, masked_frame(0x81, text.as_bytes(), key));
    }

    fn send_close(&mut self, client: usize, link: LinkId) {
        self.links[link].excuse("the client closes");
        let key = self.key();
        self.send(client, link, masked_frame(0x88, &3001u16.to_be_bytes(), key));
    }

    fn send_garbage(&mut self, client: usize, link: LinkId) {
        self.links[link].excuse("garbage");
        let key = self.key();
        let bytes = match self.rng.u8(0..5) {
            0 => vec![0xff; 20],
            1 => masked_frame(0x82, b"no envelope", key),
            2 => masked_frame(0x81, b"no json", key),
            3 => masked_frame(0x80, b"continuation of nothing", key),
            _ => vec![0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4], // 65535 bytes: above the limit
        };
        self.send(client, link, bytes);
    }

    fn request(&mut self, client: usize, link: LinkId, id: i32) {
        let state = &mut self.clients[client];
        state.count += 1;
        let msg_incr = format!("{}_{client}_{}", state.user, state.count);
        let pad = self.rng.usize(0..200);
        let data: Bytes = match id {
            2004 => {
                SetAppBackgroundStatusReq { user_id: state.user.to_string(), is_background: self.rng.bool() }
                    .encode_to_vec()
                    .into()
            }
            2005 => {
                state.subscribed = true;
                SubUserOnlineStatus {
                    subscribe_user_id: vec![format!("user{}", self.rng.usize(0..self.plan.users))],
                    unsubscribe_user_id: vec!["user0".into()],
                }
                .encode_to_vec()
                .into()
            }
            _ => format!("{msg_incr}|{}", "x".repeat(pad)).into_bytes().into(),
        };
        let request = Request {
            id,
            send_id: state.user.clone(),
            operation_id: format!("op-{msg_incr}").into(),
            msg_incr: msg_incr.as_str().into(),
            data,
        };
        let payload = self.codec.encode_request(state.variant, &request);
        let ahead = state.pending.len() as u64 + 1;
        let due_tick = self.shards[self.links[link].shard].ticks + ahead * REPLY_TICKS;
        match id {
            9999 | 2001 => self.links[link].excuse("unknown request"),
            2003 => self.links[link].excuse("logout"),
            _ => {}
        }
        if id == 1003 {
            state.sends.push_back(msg_incr.clone());
        }
        state.pending.insert(msg_incr, Pending { request, due_tick });
        let bytes = self.fragments(&payload);
        self.send(client, link, bytes);
    }

    /// A binary message, now and then in fragments.
    fn fragments(&mut self, payload: &[u8]) -> Vec<u8> {
        if payload.len() < 3 || self.rng.u8(0..5) > 0 {
            let key = self.key();
            return masked_frame(0x82, payload, key);
        }
        let cut = self.rng.usize(1..payload.len());
        let (first, last) = (self.key(), self.key());
        let mut bytes = masked_frame(0x02, &payload[..cut], first);
        bytes.extend(masked_frame(0x80, &payload[cut..], last));
        bytes
    }

    fn stall(&mut self, client: usize, link: LinkId) {
        self.links[link].excuse("stalled");
        self.clients[client].stalled = true;
        let delay = self.rng.u64(200..9_000);
        self.after(delay, Event::Resume(client));
    }

    /// A stalled client reads again.
    pub fn client_resumes(&mut self, client: usize) {
        let state = &mut self.clients[client];
        let Some(link) = state.link.filter(|_| state.stalled) else {
            return;
        };
        state.stalled = false;
        let due = self.shards[self.links[link].shard].ticks + RESUME_TICKS;
        for pending in state.pending.values_mut() {
            pending.due_tick = pending.due_tick.max(due);
        }
        self.schedule_read(link);
    }

    /// Lets go without a word.
    pub fn reset(&mut self, client: usize) {
        if let Some(link) = self.clients[client].link {
            self.let_go(link);
        }
    }

    /// Half open from now on: nobody tells the gateway that the client is gone.
    fn vanish(&mut self, client: usize) {
        let Some(link) = self.clients[client].link else {
            return;
        };
        self.saw("half-open peers");
        let ticks = self.shards[self.links[link].shard].ticks;
        let state = &mut self.links[link];
        (state.gone, state.vanished_tick) = (true, Some(ticks));
        state.excuse("half open");
        self.clients[client].forget_connection();
    }

    /// The client's end of a link is closed.
    pub fn let_go(&mut self, link: LinkId) {
        let state = &mut self.links[link];
        if std::mem::replace(&mut state.gone, true) {
            return;
        }
        state.excuse("the client is gone");
        state.down.clear();
        let client = state.client;
        self.clients[client].forget_connection();
        self.arrives(link, Up::Gone);
    }

    /// Requests of a shard's clients whose reply is overdue.
    pub fn check_requests(&mut self, shard: usize, ticks: u64) {
        let late = self.clients.iter().find_map(|client| {
            let link = &self.links[client.link?];
            let waits = link.shard == shard && link.is_live() && link.is_quiet() && !client.stalled;
            let overdue =
                |(id, p): (&String, &Pending)| (p.due_tick < ticks).then(|| (id.clone(), p.request.id));
            client.pending.iter().find_map(overdue).filter(|_| waits)
        });
        if let Some((msg_incr, id)) = late {
            self.checker.fail(Property::OneReply, format!("no reply to {id} {msg_incr}"));
        }
    }
}
