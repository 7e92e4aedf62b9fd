//! A hub in the hands of the fuzzer: operations in any order that the shard's contract allows (`pinion::hub`), with the
//! tables audited after each.
//!
//! Checked besides: one close per connection, one answer per ticket, what waits is bounded, in the end all is gone.

use std::collections::{HashMap, HashSet};

use arbitrary::Arbitrary;
use bytes::Bytes;
use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::mail::{
    Audience, Judge, KickMail, OnlineStatusMail, PushBody, PushMail, PushRules, Recipient, RemoteLoginMail,
    Report, RpcOutcome, ShardMail,
};
use pinion::hub::upstream::{
    UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply, UpstreamRequest, UserPlatforms,
};
use pinion::hub::{Accepted, Effect, Hub, HubConfig, Input, SendBatch, SpreadPlan};
use pinion::ids::{ConnId, Platform, RpcId, RpcTicket, ShardId, SlotId, SourceId, Text};
use pinion::limits;
use pinion::session::handshake::Login;
use pinion::time::{Mono, Now, UnixMs};
use pinion::wire::envelope::{Codec, Request, Variant};
use pinion::wire::frame::{Opcode, masked};
use pinion::wire::upgrade::{AcceptKey, UpgradeFault};

use crate::parts::Sent;

/// Few of each, so that they meet.
const USERS: u8 = 4;
const CONNECTIONS_MAX: u32 = 6;
const USER_CONNECTIONS_MAX: u32 = 4;
const OUTBOX_BYTES_MAX: usize = 8 * 1024;
const OUTBOX_FRAMES_MAX: usize = 8;
const SHARD_OUTBOX_BYTES_MAX: usize = 24 * 1024;
/// Connections in one input; a stale id stays a target for ever.
const ACCEPTED_MAX: usize = 64;
/// One kibibyte, repeated for large pushes.
const KIBIBYTE: &[u8] = &[0x62; 1024];
/// Longer than every deadline of a hub.
const LAST_TICKS: usize = 1_000;

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Arbitrary, Debug)]
pub enum Op {
    /// A connection with good arguments.
    Accept { user: u8, platform: u8, variant: u8, token: u8, wants_response: bool, upgrades: bool },
    /// A request of a connection; `foreign`: in the name of somebody else.
    Request { conn: u8, id: u8, data: Vec<u8>, foreign: bool },
    /// A frame with any first byte.
    Frame { conn: u8, first: u8, payload: Vec<u8> },
    /// Any bytes.
    Bytes { conn: u8, bytes: Vec<u8> },
    /// The peer is gone.
    Lost { conn: u8 },
    /// A socket that was to be closed is joined, or a stale completion arrives.
    Joined { conn: u8, stale: bool },
    /// Upstream answers a call; `again`: and may answer it once more.
    Answer { call: u8, answer: Answer, again: bool },
    /// `KickUserOffline`.
    Kick { users: Vec<u8>, platform: u8 },
    /// `MultiTerminalLoginCheck`.
    RemoteLogin { user: u8, platform: u8, token: u8 },
    /// `GetUsersOnlineStatus`.
    Status { users: Vec<u8> },
    /// A push.
    Push { source: u8, users: Vec<u8>, kibibytes: u8, notification: bool, waited_for: bool, deadline_ms: u16 },
    /// A push of our own API; `options`: bits for totals, everybody, only if online; `expires_ms` 0: never.
    Send { source: u8, users: Vec<u8>, kibibytes: u8, options: u8, deadline_ms: u16, expires_ms: u16 },
    /// The hub is written out and read back.
    Freeze,
    /// The caller of a push is gone.
    CancelPush { ticket: u8 },
    /// Where a user is online.
    News { user: u8, platforms: Vec<u8> },
    /// Time passes, with a tick at the end.
    Wait { ms: u16 },
    /// One turn.
    Turn,
    /// All that wants to send sends, `taken` of 255 parts of it.
    Flush { taken: u8 },
    /// Takes one presence record.
    Presence,
    /// The node stops.
    Drain { ms: u16 },
}

/// What upstream says.
#[derive(Arbitrary, Debug)]
pub enum Answer {
    /// What fits the question.
    Good,
    /// A token of somebody.
    Token { user: u8, platform: u8 },
    /// Bytes.
    Data(Vec<u8>),
    /// Where users are.
    Statuses { users: Vec<u8>, platforms: Vec<u8> },
    /// An error.
    Failed { code: u16 },
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Rig {
    hub: Hub,
    now: Now,
    codec: Codec,
    /// All that were ever accepted, with user and variant.
    conns: Vec<(ConnId, u8, Variant)>,
    closed: HashSet<ConnId>,
    /// To be joined.
    closing: Vec<ConnId>,
    calls: Vec<UpstreamCall>,
    /// Answers that somebody waits for.
    waited: HashSet<RpcTicket>,
    /// Of these, pushes whose verdicts come in parts.
    sent: HashMap<RpcTicket, Sent>,
    tickets: u32,
}

fn name(user: u8) -> String {
    format!("u{}", user % USERS)
}

fn platform(id: u8) -> Platform {
    Platform::new(i64::from(id % 11) + 1).expect("1 to 11")
}

fn recipients(users: &[u8]) -> Vec<Recipient> {
    (0..).zip(users).map(|(slot, user)| Recipient { slot, user: Text::from(name(*user)) }).collect()
}

/// Names its platform, so that the token check can answer with it.
fn token(number: u8, on: u8) -> String {
    format!("{}.{}", platform(on).id(), number % 3)
}

fn platforms_of(users: &[u8], platforms: &[u8]) -> Vec<UserPlatforms> {
    let platforms: Vec<i32> = platforms.iter().map(|id| i32::from(*id)).collect();
    users
        .iter()
        .map(|user| UserPlatforms { user: name(*user).into(), platforms: platforms.clone() })
        .collect()
}

impl Rig {
    /// An empty hub; `policy` also chooses the seed of its hashes.
    pub fn new(policy: u8) -> Self {
        let policies = [
            LoginPolicy::KickNobody,
            LoginPolicy::OnePerPlatform,
            LoginPolicy::OnePerClass,
            LoginPolicy::PcAndOther,
        ];
        let hub = Hub::new(HubConfig {
            login_policy: policies[usize::from(policy % 4)],
            outbox_bytes_max: OUTBOX_BYTES_MAX,
            outbox_frames_max: OUTBOX_FRAMES_MAX,
            shard_outbox_bytes_max: SHARD_OUTBOX_BYTES_MAX,
            user_connections_max: USER_CONNECTIONS_MAX,
            spread: SpreadPlan { above_per_second: 2, ms_max: 300, seed: u64::from(policy) },
            hash_seed: u64::from(policy),
            ..HubConfig::for_shard(ShardId(0), CONNECTIONS_MAX)
        });
        Self {
            hub,
            now: Now { mono: Mono(5_000), unix: UnixMs(1_700_000_000_000) },
            codec: Codec::default(),
            conns: Vec::new(),
            closed: HashSet::new(),
            closing: Vec::new(),
            calls: Vec::new(),
            waited: HashSet::new(),
            sent: HashMap::new(),
            tickets: 0,
        }
    }

    /// Does it, and looks at everything.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::Accept { user, platform, variant, token, wants_response, upgrades } => {
                let login = login((user, platform), variant, token, (wants_response, upgrades));
                self.accept(user, login);
            }
            Op::Request { conn, id, data, foreign } => self.request(conn, id, data, foreign),
            Op::Frame { conn, first, payload } => {
                let mut frame = masked(Opcode::Binary, &payload, [1, 2, 3, 4]);
                frame[0] = first;
                self.bytes(conn, frame);
            }
            Op::Bytes { conn, bytes } => self.bytes(conn, bytes),
            Op::Lost { conn } => {
                if let Some(conn) = self.conn(conn) {
                    self.hub.input(self.now, Input::TransportLost(conn));
                }
            }
            Op::Joined { conn, stale } => self.joined(conn, stale),
            Op::Answer { call, answer, again } => self.answer(call, answer, again),
            Op::Push { .. } | Op::Kick { .. } | Op::RemoteLogin { .. } | Op::Status { .. } => self.rpc(op),
            Op::Send { .. } => self.send(op),
            Op::Freeze => {
                let written = serde_json::to_vec(&self.hub).expect("a hub is plain data");
                self.hub = serde_json::from_slice(&written).expect("what was written can be read");
                self.hub.rebuild();
            }
            Op::CancelPush { ticket } => {
                let slot = SlotId { index: u32::from(ticket), generation: 0 };
                let ticket = RpcTicket { rpc: RpcId(0), slot };
                self.mail(ShardMail::CancelPush(ticket));
                if self.sent.remove(&ticket).is_some() {
                    self.waited.remove(&ticket); // a push in parts is forgotten
                }
            }
            Op::News { user, platforms } => {
                for news in platforms_of(&[user], &platforms) {
                    self.mail(ShardMail::PresenceNews(Box::new(news)));
                }
            }
            Op::Wait { ms } => self.wait(u64::from(ms)),
            Op::Turn => self.hub.turn(self.now),
            Op::Flush { taken } => self.flush(usize::from(taken)),
            Op::Presence => drop(self.hub.next_presence()),
            Op::Drain { ms } => {
                let deadline = self.now.mono.plus_ms(u64::from(ms));
                self.hub.input(self.now, Input::Drain(deadline));
            }
        }
        self.look();
    }

    /// Stops the node: everything must go, and everybody who waits must have heard.
    pub fn end(mut self) {
        self.apply(Op::Drain { ms: 1_000 });
        for _ in 0..LAST_TICKS {
            self.wait(limits::TICK_MS);
            self.hub.turn(self.now);
            self.look();
            self.flush(255);
            while self.hub.next_presence().is_some() {}
            for conn in std::mem::take(&mut self.closing) {
                self.hub.input(self.now, Input::TransportClosed(conn));
            }
            self.look();
            if self.hub.connections() == 0 && !self.hub.has_work() && self.waited.is_empty() {
                break;
            }
        }
        assert_eq!(self.hub.connections(), 0, "connections are left");
        assert!(!self.hub.has_work(), "work is left");
        assert_eq!(self.hub.queued_bytes(), 0, "bytes are left");
        assert!(self.waited.is_empty(), "nobody answers {:?}", self.waited);
        assert_eq!(self.closed.len(), self.conns.len(), "every connection is closed once");
    }

    fn conn(&self, number: u8) -> Option<ConnId> {
        let at = usize::from(number).checked_rem(self.conns.len())?;
        Some(self.conns[at].0)
    }

    fn accept(&mut self, user: u8, login: Login) {
        if self.conns.len() >= ACCEPTED_MAX {
            return;
        }
        let variant = login.variant;
        let accepted = Accepted { peer: ([10, 0, 0, 1], 1000).into(), client: None, login: Box::new(login) };
        if let Some(conn) = self.hub.accepted(self.now, accepted) {
            self.conns.push((conn, user, variant));
        }
    }

    fn request(&mut self, conn: u8, id: u8, data: Vec<u8>, foreign: bool) {
        let ids = [1001, 1002, 1003, 1004, 1005, 1006, 1007, 2001, 2002, 2003, 2004, 2005, 0];
        let Some(at) = usize::from(conn).checked_rem(self.conns.len()) else { return };
        let (_, user, variant) = self.conns[at];
        let request = Request {
            id: ids[usize::from(id) % ids.len()],
            send_id: name(user.wrapping_add(foreign.into())).into(),
            operation_id: "op".into(),
            msg_incr: "1".into(),
            data: data.into(),
        };
        let payload = self.codec.encode_request(variant, &request);
        self.bytes(conn, masked(Opcode::Binary, &payload, [5, 6, 7, 8]));
    }

    fn bytes(&mut self, conn: u8, mut bytes: Vec<u8>) {
        if let Some(conn) = self.conn(conn) {
            self.hub.bytes(self.now, conn, &mut bytes);
        }
    }

    fn joined(&mut self, number: u8, stale: bool) {
        if stale {
            // Only for a connection that was joined before: its id must find nothing.
            let gone = self.conn(number).filter(|c| self.closed.contains(c) && !self.closing.contains(c));
            if let Some(conn) = gone {
                self.hub.input(self.now, Input::TransportClosed(conn));
            }
        } else if let Some(at) = usize::from(number).checked_rem(self.closing.len()) {
            let conn = self.closing.swap_remove(at);
            self.hub.input(self.now, Input::TransportClosed(conn));
        }
    }

    fn answer(&mut self, call: u8, answer: Answer, again: bool) {
        let Some(at) = usize::from(call).checked_rem(self.calls.len()) else { return };
        let call = if again { self.calls[at].clone() } else { self.calls.swap_remove(at) };
        let outcome = match answer {
            Answer::Good => good(&call),
            Answer::Token { user, platform: id } => {
                UpstreamOutcome::Token { user: name(user).into(), platform: platform(id).id() }
            }
            Answer::Data(data) => UpstreamOutcome::Data(data.into()),
            Answer::Statuses { users, platforms } => {
                UpstreamOutcome::Statuses(platforms_of(&users, &platforms))
            }
            Answer::Failed { code } => {
                UpstreamOutcome::Failed(UpstreamError { code: code.into(), ..UpstreamError::internal() })
            }
        };
        let Some(ticket) = call.ticket else { return };
        self.hub.input(self.now, Input::UpstreamReply(UpstreamReply { ticket, outcome }));
    }

    /// A push whose verdicts come in parts.
    fn send(&mut self, op: Op) {
        let Op::Send { source, users, kibibytes, options, deadline_ms, expires_ms } = op else { return };
        if !self.hub.wants_push() {
            return;
        }
        let ticket = RpcTicket { rpc: RpcId(0), slot: SlotId { index: self.tickets, generation: 0 } };
        self.tickets += 1;
        let rules = PushRules {
            report: if options & 1 == 0 { Report::Each } else { Report::Totals },
            only_if_online: options & 4 != 0,
            expires: (expires_ms > 0).then(|| self.now.mono.plus_ms(expires_ms.into())),
        };
        let (audience, listed) = if options & 2 == 0 {
            (Audience::Listed(recipients(&users)), users.len())
        } else {
            (Audience::Everybody, usize::from(USERS))
        };
        self.waited.insert(ticket);
        self.sent.insert(ticket, Sent::new(rules.report, listed));
        self.mail(ShardMail::Push(Box::new(PushMail {
            ticket: Some(ticket),
            source: SourceId(u64::from(source % 3)),
            deadline: self.now.mono.plus_ms(deadline_ms.into()),
            body: PushBody {
                operation_id: "push".into(),
                conversation: "si_u0_u1".into(),
                msg_data: Bytes::from(KIBIBYTE.repeat(usize::from(kibibytes % 12))),
                frames: None,
            },
            audience,
            rules,
        })));
    }

    /// Calls of OpenIM's services, with an answer.
    fn rpc(&mut self, op: Op) {
        if matches!(op, Op::Push { .. }) && !self.hub.wants_push() {
            return;
        }
        let ticket = RpcTicket { rpc: RpcId(0), slot: SlotId { index: self.tickets, generation: 0 } };
        self.tickets += 1;
        let mut waits = true;
        let mail = match op {
            Op::Kick { users, platform: id } => ShardMail::Kick(Box::new(KickMail {
                ticket,
                platform: platform(id),
                users: users.into_iter().map(|user| Text::from(name(user))).collect(),
            })),
            Op::RemoteLogin { user, platform: id, token: number } => {
                ShardMail::RemoteLogin(Box::new(RemoteLoginMail {
                    ticket,
                    operation_id: "remote".into(),
                    user: name(user).into(),
                    platform: platform(id),
                    token: token(number, id).into(),
                    judge: Judge::Shard,
                }))
            }
            Op::Status { users } => {
                ShardMail::OnlineStatus(Box::new(OnlineStatusMail { ticket, users: recipients(&users) }))
            }
            Op::Push { source, users, kibibytes, notification, waited_for, deadline_ms } => {
                waits = waited_for;
                ShardMail::Push(Box::new(PushMail {
                    ticket: waited_for.then_some(ticket),
                    source: SourceId(u64::from(source % 3)),
                    deadline: self.now.mono.plus_ms(deadline_ms.into()),
                    body: PushBody {
                        operation_id: "push".into(),
                        conversation: if notification { "n_u0_u1" } else { "si_u0_u1" }.into(),
                        msg_data: Bytes::from(KIBIBYTE.repeat(usize::from(kibibytes % 12))),
                        frames: None,
                    },
                    audience: Audience::Listed(recipients(&users)),
                    rules: PushRules::default(),
                }))
            }
            _ => return,
        };
        if waits {
            self.waited.insert(ticket);
        }
        self.mail(mail);
    }

    fn mail(&mut self, mail: ShardMail) {
        self.hub.input(self.now, Input::Mail(mail));
    }

    fn wait(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.hub.input(self.now, Input::Tick);
    }

    /// Sends what waits, on sockets that take `taken` of 255 parts of each batch.
    fn flush(&mut self, taken: usize) {
        let mut batch = SendBatch::default();
        for at in 0..self.conns.len() {
            let conn = self.conns[at].0;
            let filled = self.hub.fill(conn, &mut batch);
            let bytes: usize = batch.frames.iter().map(|frame| frame.bytes().len()).sum();
            assert_eq!(filled, if filled == 0 { 0 } else { bytes - batch.skip });
            if filled > 0 {
                self.hub.sent(self.now, conn, filled * taken / 255);
            }
        }
        while self.hub.next_flush().is_some() {}
    }

    /// Takes the effects; checks what must hold always.
    fn look(&mut self) {
        while let Some(effect) = self.hub.next_effect() {
            match effect {
                Effect::Close(conn) => {
                    assert!(self.conns.iter().any(|(known, ..)| *known == conn), "{conn} was never accepted");
                    assert!(self.closed.insert(conn), "{conn} is closed twice");
                    self.closing.push(conn);
                }
                Effect::Call(call) if call.ticket.is_some() => self.calls.push(*call),
                Effect::Call(_) => {}
                Effect::Reply(ticket, outcome) => {
                    let last = match &*outcome {
                        RpcOutcome::Push(part) => {
                            self.sent.get_mut(&ticket).into_iter().for_each(|sent| sent.part(part));
                            part.last
                        }
                        _ => true,
                    };
                    assert!(self.waited.contains(&ticket), "{ticket:?} is answered and nobody waits");
                    if last {
                        self.sent.remove(&ticket);
                        self.waited.remove(&ticket);
                    }
                }
            }
        }
        self.hub.audit().expect("the tables agree");
        assert!(self.hub.queued_bytes() <= self.hub.queued_bytes_bound());
        assert!(self.hub.connections() <= CONNECTIONS_MAX as usize);
    }
}

/// The answer of an upstream that works.
fn good(call: &UpstreamCall) -> UpstreamOutcome {
    match &call.request {
        UpstreamRequest::ParseToken { token } => {
            let platform = token.split('.').next().and_then(|id| id.parse().ok()).unwrap_or_default();
            UpstreamOutcome::Token { user: call.metadata.user.clone(), platform }
        }
        UpstreamRequest::UserStatus { users } => {
            let status = |user: &Box<str>| UserPlatforms { user: user.clone(), platforms: vec![1, 2] };
            UpstreamOutcome::Statuses(users.iter().map(status).collect())
        }
        _ => UpstreamOutcome::Data(Bytes::from_static(b"\x08\x01")),
    }
}

fn login((user, on): (u8, u8), variant: u8, number: u8, (wants_response, upgrades): (bool, bool)) -> Login {
    Login {
        user: name(user).into(),
        token: token(number, on).into(),
        platform: platform(on),
        operation_id: "login".into(),
        variant: Variant::all().nth(usize::from(variant) % Variant::COUNT).expect("one of four"),
        wants_response,
        forwarded_for: None,
        upgrade: if upgrades { Ok(AcceptKey::answer_to(b"key")) } else { Err(UpgradeFault::BadKey) },
    }
}
