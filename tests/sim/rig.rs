//! One hub with hands on it, for tests that read like a conversation: log in, send, push, wait, look.

use bytes::Bytes;
use pinion::hub::mail::{
    Audience, OnlineStatusMail, PushBody, PushMail, PushRules, Recipient, RecipientVerdict, RpcOutcome,
    ShardMail, UserStatus,
};
use pinion::hub::upstream::{UpstreamCall, UpstreamOutcome, UpstreamReply};
use pinion::hub::{Accepted, Effect, Hub, HubConfig, Input, SendBatch};
use pinion::ids::{ConnId, Platform, RpcId, RpcTicket, ShardId, SlotId, SourceId, Text};
use pinion::limits;
use pinion::metrics::Metric;
use pinion::session::handshake::Login;
use pinion::time::{Mono, Now, UnixMs};
use pinion::wire::envelope::{Codec, Encoding, OwnedResponse, Request, Variant};
use pinion::wire::upgrade::AcceptKey;

use crate::frames::{masked_frame, next_frame};

/// The variant of every login here.
pub const PLAIN_JSON: Variant = Variant { encoding: Encoding::Json, gzip: false };

/// What one read gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// An HTTP answer, up to and including its body.
    Http(String),
    Text(String),
    Reply(OwnedResponse),
    Ping,
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// See the module's documentation.
pub struct Rig {
    pub hub: Hub,
    pub now: Now,
    pub effects: Vec<Effect>,
    codec: Codec,
    logins: u16,
}

/// The limits of production, for a few connections.
pub fn config() -> HubConfig {
    HubConfig::for_shard(ShardId(0), 100)
}

/// Where an answer to mail goes.
pub fn ticket(n: u32) -> RpcTicket {
    RpcTicket { rpc: RpcId(0), slot: SlotId { index: n, generation: 0 } }
}

pub fn platform(id: i64) -> Platform {
    Platform::new(id).unwrap()
}

impl Rig {
    pub fn new(config: HubConfig) -> Self {
        let now = Now { mono: Mono(5_000), unix: UnixMs(1_700_000_000_000) };
        Self { hub: Hub::new(config), now, effects: Vec::new(), codec: Codec::default(), logins: 0 }
    }

    /// The arguments of a login that will succeed.
    pub fn arguments(&mut self, user: &str, platform: Platform) -> Login {
        self.logins += 1;
        Login {
            user: user.into(),
            token: format!("token-{}", self.logins).into(),
            platform,
            operation_id: "login".into(),
            variant: PLAIN_JSON,
            wants_response: false,
            forwarded_for: None,
            upgrade: Ok(AcceptKey::answer_to(b"key")),
        }
    }

    pub fn accept(&mut self, login: Login) -> Option<ConnId> {
        let peer = ([10, 0, 0, 1], self.logins).into();
        let login = Box::new(login);
        let conn = self.hub.accepted(self.now, Accepted { peer, client: None, login });
        self.take_effects();
        conn
    }

    /// A login from accept to 101, which is read.
    pub fn log_in(&mut self, user: &str, on: Platform) -> ConnId {
        let login = self.arguments(user, on);
        let conn = self.accept(login).expect("there is room");
        self.answer_token(user, on.id());
        self.turn();
        let seen = self.read(conn);
        assert!(matches!(&seen[..], [Seen::Http(head)] if head.starts_with("HTTP/1.1 101 ")), "{seen:?}");
        conn
    }

    /// Answers the question asked last: the token is good and names these.
    pub fn answer_token(&mut self, user: &str, platform: i32) {
        let call = self.calls().pop().expect("the token check");
        let outcome = UpstreamOutcome::Token { user: user.into(), platform };
        self.answer(&call, outcome);
    }

    pub fn answer(&mut self, call: &UpstreamCall, outcome: UpstreamOutcome) {
        let ticket = call.ticket.expect("somebody waits");
        self.input(Input::UpstreamReply(UpstreamReply { ticket, outcome }));
    }

    pub fn input(&mut self, input: Input) {
        self.hub.input(self.now, input);
        self.hub.audit().unwrap();
        self.take_effects();
    }

    pub fn turn(&mut self) {
        self.turn_listing();
    }

    /// One turn, and who is listed for sending. The list is taken, as the shard does; tests read when they like.
    pub fn turn_listing(&mut self) -> Vec<ConnId> {
        self.hub.turn(self.now);
        let listed = std::iter::from_fn(|| self.hub.next_flush()).collect();
        self.hub.audit().unwrap();
        self.take_effects();
        listed
    }

    /// Time passes, tick by tick.
    pub fn wait(&mut self, ms: u64) {
        let end = self.now.mono.plus_ms(ms);
        while self.now.mono < end {
            let step = (end.0 - self.now.mono.0).min(limits::TICK_MS);
            self.now.mono = self.now.mono.plus_ms(step);
            self.input(Input::Tick);
            self.turn();
        }
    }

    /// As [`Rig::wait`], with as few ticks as the hub asks for; returns how many.
    pub fn doze(&mut self, ms: u64) -> u64 {
        let (end, mut ticks) = (self.now.mono.plus_ms(ms), 0);
        while self.now.mono < end {
            while self.hub.next_presence().is_some() {}
            let until = self.hub.rest_until(self.now.mono);
            assert!(until > self.now.mono && until <= self.now.mono.plus_ms(limits::REST_MS), "{until:?}");
            self.now.mono = until.min(end);
            self.input(Input::Tick);
            self.turn();
            ticks += 1;
        }
        ticks
    }

    fn take_effects(&mut self) {
        self.effects.extend(std::iter::from_fn(|| self.hub.next_effect()));
    }

    /// Questions asked since the last look.
    pub fn calls(&mut self) -> Vec<UpstreamCall> {
        self.effects
            .extract_if(.., |e| matches!(e, Effect::Call(_)))
            .filter_map(|e| if let Effect::Call(call) = e { Some(*call) } else { None })
            .collect()
    }

    /// Answers to mail since the last look.
    pub fn outcomes(&mut self) -> Vec<(RpcTicket, RpcOutcome)> {
        self.effects
            .extract_if(.., |e| matches!(e, Effect::Reply(..)))
            .filter_map(|e| if let Effect::Reply(t, outcome) = e { Some((t, *outcome)) } else { None })
            .collect()
    }

    /// What a counter or gauge shows.
    pub fn value(&mut self, metric: Metric) -> u64 {
        self.hub.tally(self.now).value(metric)
    }

    pub fn is_closed(&self, conn: ConnId) -> bool {
        self.effects.contains(&Effect::Close(conn))
    }

    /// The socket takes everything that waits.
    pub fn read_bytes(&mut self, conn: ConnId) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut batch = SendBatch::default();
        loop {
            let filled = self.hub.fill(conn, &mut batch);
            if filled == 0 {
                self.take_effects();
                return stream;
            }
            let bytes: Vec<u8> =
                batch.frames.iter().flat_map(|f| f.bytes().to_vec()).skip(batch.skip).collect();
            assert_eq!(bytes.len(), filled);
            stream.extend(bytes);
            self.hub.sent(self.now, conn, filled);
            self.hub.audit().unwrap();
        }
    }

    /// The operation ids of the pushes among what is read.
    pub fn pushes(&mut self, conn: ConnId) -> Vec<String> {
        let reply = |seen| if let Seen::Reply(reply) = seen { Some(reply.operation_id) } else { None };
        self.read(conn).into_iter().filter_map(reply).collect()
    }

    /// As [`Rig::read_bytes`], understood.
    pub fn read(&mut self, conn: ConnId) -> Vec<Seen> {
        let stream = self.read_bytes(conn);
        let (mut rest, mut seen) = (&stream[..], Vec::new());
        if rest.starts_with(b"HTTP/") {
            let body = if rest.starts_with(b"HTTP/1.1 101 ") {
                rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4
            } else {
                rest.len()
            };
            seen.push(Seen::Http(String::from_utf8(rest[..body].to_vec()).unwrap()));
            rest = &rest[body..];
        }
        while let Some(frame) = next_frame(rest) {
            seen.push(match frame.opcode {
                1 => Seen::Text(String::from_utf8(frame.payload.to_vec()).unwrap()),
                2 => Seen::Reply(self.codec.decode_response(PLAIN_JSON, frame.payload).unwrap()),
                8 => Seen::Close(frame.payload.first_chunk().map(|code| u16::from_be_bytes(*code))),
                9 => Seen::Ping,
                _ => Seen::Pong(frame.payload.to_vec()),
            });
            rest = &rest[frame.len..];
        }
        assert!(rest.is_empty(), "a cut frame: {rest:02x?}");
        seen
    }

    pub fn bytes(&mut self, conn: ConnId, mut bytes: Vec<u8>) {
        self.hub.bytes(self.now, conn, &mut bytes);
        self.hub.audit().unwrap();
        self.take_effects();
    }

    pub fn ping(&mut self, conn: ConnId, payload: &[u8]) {
        self.bytes(conn, masked_frame(0x89, payload, [1, 2, 3, 4]));
    }

    /// A request of a user; `name` is its `msgIncr`.
    pub fn request(&mut self, conn: ConnId, user: &str, (id, name): (i32, &str), data: &[u8]) {
        let request = Request {
            id,
            send_id: user.into(),
            operation_id: "op".into(),
            msg_incr: name.into(),
            data: Bytes::copy_from_slice(data),
        };
        let payload = self.codec.encode_request(PLAIN_JSON, &request);
        self.bytes(conn, masked_frame(0x82, &payload, [5, 6, 7, 8]));
    }

    /// A push from a source to users; its number is its ticket and operation id.
    pub fn push(&mut self, number: u32, source: u64, users: &[&str]) {
        self.push_bytes((number, source), users, Bytes::from_static(b"\x0a\x02hi"));
    }

    pub fn push_bytes(&mut self, (number, source): (u32, u64), users: &[&str], msg_data: Bytes) {
        let mut mail = self.push_mail(number, users, PushRules::default());
        mail.source = SourceId(source);
        mail.body.msg_data = msg_data;
        self.input(Input::Mail(ShardMail::Push(Box::new(mail))));
    }

    /// A small push of source 1, to be changed and given to the hub.
    pub fn push_mail(&self, number: u32, users: &[&str], rules: PushRules) -> PushMail {
        let recipients = (0..).zip(users).map(|(slot, user)| Recipient { slot, user: Text::from(*user) });
        PushMail {
            ticket: Some(ticket(number)),
            source: SourceId(1),
            deadline: self.now.mono.plus_ms(10_000),
            body: PushBody {
                operation_id: Text::from(format!("push-{number}")),
                conversation: "si_a_b".into(),
                msg_data: Bytes::from_static(b"\x0a\x02hi"),
                frames: None,
            },
            audience: Audience::Listed(recipients.collect()),
            rules,
        }
    }

    /// The verdicts of the pushes answered since the last look.
    pub fn verdicts(&mut self) -> Vec<(u32, Vec<RecipientVerdict>)> {
        let push = |(ticket, outcome): (RpcTicket, RpcOutcome)| match outcome {
            RpcOutcome::Push(part) => Some((ticket.slot.index, part.verdicts)),
            _ => None,
        };
        self.outcomes().into_iter().filter_map(push).collect()
    }

    /// Where a user is, as `GetUsersOnlineStatus` says.
    pub fn status(&mut self, user: &str) -> Vec<UserStatus> {
        let users = vec![Recipient { slot: 0, user: Text::from(user) }];
        let mail = OnlineStatusMail { ticket: ticket(999), users };
        self.input(Input::Mail(ShardMail::OnlineStatus(Box::new(mail))));
        let answer = self.effects.pop();
        match answer {
            Some(Effect::Reply(_, outcome)) => match *outcome {
                RpcOutcome::OnlineStatus(users) => users,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    pub fn is_registered(&mut self, user: &str) -> bool {
        !self.status(user).is_empty()
    }
}

/// The one reply in what was seen.
pub fn reply(seen: &[Seen]) -> &OwnedResponse {
    match seen {
        [Seen::Reply(reply)] => reply,
        other => panic!("not one reply: {other:?}"),
    }
}
