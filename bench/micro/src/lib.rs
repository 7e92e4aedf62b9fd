//! What the micro benchmarks in `benches/` share: made-up but typical input, and a hub without sockets.
//!
//! `cargo bench -p pinion-bench-micro` measures, `cargo test -p pinion-bench-micro --benches` runs each once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a bench fails by panicking"
)]

use bytes::Bytes;
use pinion::hub::login_policy::LoginPolicy;
use pinion::hub::mail::{Audience, PushBody, PushMail, PushRules, Recipient, ShardMail};
use pinion::hub::upstream::{UpstreamCall, UpstreamOutcome, UpstreamReply};
use pinion::hub::{Accepted, Effect, Hub, HubConfig, Input, SendBatch, SpreadPlan};
use pinion::ids::{ConnId, Platform, ShardId, SourceId, Text};
use pinion::limits;
use pinion::pb::openim::msggateway::OnlineBatchPushOneMsgReq;
use pinion::pb::openim::sdkws::MsgData;
use pinion::session::handshake::Login;
use pinion::time::{Mono, Now, UnixMs};
use pinion::wire::envelope::Variant;
use pinion::wire::upgrade::AcceptKey;
use prost::Message as _;

/// A moment.
pub const NOW: Now = Now { mono: Mono(5_000), unix: UnixMs(1_700_000_000_000) };
/// The upgrade request of OpenIM's native SDK, with a token as long as real ones.
pub const HEAD: &[u8] = b"GET /?sendID=u000001&token=eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
eyJVc2VySUQiOiJhbGljZSIsIlBsYXRmb3JtSUQiOjcsImV4cCI6MTc5NTMzMzM3OCwiaWF0IjoxNzk1MjQ2OTczfQ.\
Xm-bUvlNNxb35HaNIKLXGDSzFeug9sMw44lsko4IK6E&platformID=7&operationID=1700000000000000&isBackground=false HTTP/1.1\r\n\
Host: 127.0.0.1:10001\r\nUser-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n";

/// The name of a user.
pub fn user(number: usize) -> Text {
    Text::from(format!("u{number:06}"))
}

/// A text message of so many bytes to a user.
pub fn message(bytes: usize) -> Bytes {
    let data = MsgData {
        send_id: "sender".into(),
        recv_id: "u000001".into(),
        client_msg_id: "0123456789abcdef0123456789abcdef".into(),
        server_msg_id: "fedcba9876543210fedcba9876543210".into(),
        session_type: 1,
        msg_from: 100,
        content_type: 101,
        content: vec![b'x'; bytes].into(),
        seq: 7,
        send_time: 1_700_000_000_000,
        create_time: 1_700_000_000_000,
        ..MsgData::default()
    };
    data.encode_to_vec().into()
}

/// The push that OpenIM's push service sends, to so many users.
pub fn push_request(users: usize, bytes: usize) -> Bytes {
    let request = OnlineBatchPushOneMsgReq {
        msg_data: Some(MsgData::decode(message(bytes)).expect("what we encoded")),
        push_to_user_i_ds: (0..users).map(|number| user(number).to_string()).collect(),
    };
    request.encode_to_vec().into()
}

/// A hub with logged-in users, one connection each, in the plain gob variant.
#[derive(Debug)]
pub struct Rig {
    /// The hub.
    pub hub: Hub,
    conns: Vec<ConnId>,
    batch: SendBatch,
}

impl Rig {
    /// Without anybody.
    pub fn new(connections_max: usize) -> Self {
        let hub = Hub::new(HubConfig {
            shard: ShardId(0),
            connections_max: connections_max as u32,
            login_policy: LoginPolicy::OnePerPlatform,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            outbox_frames_max: limits::OUTBOX_FRAMES_MAX,
            shard_outbox_bytes_max: limits::SHARD_OUTBOX_BYTES_MAX,
            user_connections_max: limits::USER_CONNECTIONS_MAX,
            spread: SpreadPlan { above_per_second: u32::MAX, ms_max: 0, seed: 1 },
            rates: pinion::session::meter::Rates::default(),
            push_slice: limits::PUSH_SLICE_MAX,
            hash_seed: 7,
        });
        Self { hub, conns: Vec::new(), batch: SendBatch::default() }
    }

    /// With so many users.
    pub fn with_users(count: usize) -> Self {
        let mut rig = Self::new(count);
        for number in 0..count {
            rig.log_in(number);
        }
        rig
    }

    /// Accepted, token checked, registered, 101 sent.
    ///
    /// # Panics
    /// The hub is full.
    pub fn log_in(&mut self, number: usize) {
        let name = user(number).to_string();
        let login = Login {
            user: name.clone().into(),
            token: format!("token-of-{name}").into(),
            platform: Platform::new(1).expect("1 to 11"),
            operation_id: "login".into(),
            variant: Variant::all().next().expect("there are four"),
            wants_response: false,
            forwarded_for: None,
            upgrade: Ok(AcceptKey::answer_to(b"dGhlIHNhbXBsZSBub25jZQ==")),
        };
        let accepted =
            Accepted { peer: "127.0.0.1:4000".parse().expect("an address"), login: Box::new(login) };
        let conn = self.hub.accepted(NOW, accepted).expect("there is room");
        self.answer_calls();
        self.hub.turn(NOW);
        self.conns.push(conn);
        self.flush();
    }

    fn answer_calls(&mut self) {
        while let Some(effect) = self.hub.next_effect() {
            if let Effect::Call(call) = effect {
                let UpstreamCall { ticket, metadata, .. } = *call;
                let outcome = UpstreamOutcome::Token { user: metadata.user, platform: 1 };
                if let Some(ticket) = ticket {
                    self.hub.input(NOW, Input::UpstreamReply(UpstreamReply { ticket, outcome }));
                }
            }
        }
    }

    /// One message to all users, until everybody has sent it. Frames that left.
    pub fn fan_out(&mut self, msg_data: Bytes) -> usize {
        let recipients = (0..self.conns.len())
            .map(|number| Recipient { slot: number as u32, user: user(number) })
            .collect();
        let mail = PushMail {
            ticket: None,
            source: SourceId(1),
            deadline: NOW.mono.plus_ms(1_000),
            body: PushBody {
                operation_id: Text::from("operation".to_owned()),
                conversation: "si_sender_u000001".into(),
                msg_data,
                frames: None,
            },
            audience: Audience::Listed(recipients),
            rules: PushRules::default(),
        };
        self.hub.input(NOW, Input::Mail(ShardMail::Push(Box::new(mail))));
        let mut frames = 0;
        loop {
            self.hub.turn(NOW);
            frames += self.flush();
            if !self.hub.has_work() {
                return frames;
            }
        }
    }

    /// All that wants to send sends, on sockets that take everything. Frames that left.
    fn flush(&mut self) -> usize {
        let mut frames = 0;
        while let Some(conn) = self.hub.next_flush() {
            let bytes = self.hub.fill(conn, &mut self.batch);
            frames += self.batch.frames.len();
            self.batch.frames.clear();
            self.hub.sent(NOW, conn, bytes);
        }
        frames
    }
}
