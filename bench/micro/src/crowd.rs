//! A hub with many registered sessions and no sockets: whatever it wants to send is taken at once.
//!
//! What always holds: time stands still, so that no heartbeat or deadline is in a figure.

use pinion::hub::mail::{
    Audience, OnlineStatusMail, PushBody, PushMail, PushRules, Recipient, RpcOutcome, ShardMail,
};
use pinion::hub::upstream::{UpstreamOutcome, UpstreamReply};
use pinion::hub::{Accepted, Effect, Hub, HubConfig, Input, SendBatch, SpreadPlan};
use pinion::ids::{ConnId, Platform, RpcId, RpcTicket, ShardId, SlotId, SourceId, Text};
use pinion::limits;
use pinion::session::handshake::Login;
use pinion::time::{Mono, Now};
use pinion::wire::envelope::Variant;
use pinion::wire::upgrade::AcceptKey;

use crate::{CONTENT_BYTES, NOW, msg_data, user};

/// See the module's documentation.
#[derive(Debug)]
pub struct Crowd {
    hub: Hub,
    now: Now,
    batch: SendBatch,
    users: Vec<Text>,
}

/// What a shard's sockets would have taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Frames, or HTTP heads.
    pub frames: usize,
    /// All their bytes.
    pub bytes: usize,
}

/// Where an answer goes: to nobody, who looks at it here.
const TICKET: RpcTicket = RpcTicket { rpc: RpcId(0), slot: SlotId { index: 0, generation: 0 } };

/// The limits of production, without the spreading of a storm of logins.
fn config(connections_max: u32) -> HubConfig {
    HubConfig {
        spread: SpreadPlan { above_per_second: u32::MAX, ms_max: limits::SPREAD_MS, seed: 2 },
        ..HubConfig::for_shard(ShardId(0), connections_max)
    }
}

impl Crowd {
    /// A hub with so many users, each with one registered connection of `variant`.
    ///
    /// # Panics
    /// One of them cannot log in.
    pub fn new(users: u32, variant: Variant) -> Self {
        let mut crowd = Self {
            hub: Hub::new(config(users + 1)),
            now: Now { mono: Mono(5_000), unix: NOW },
            batch: SendBatch::default(),
            users: (0..users as usize).map(|number| Text::from(user(number))).collect(),
        };
        for number in 0..users as usize {
            crowd.log_in(&user(number), variant);
        }
        crowd
    }

    /// A login from accept to its 101, which is sent.
    ///
    /// # Panics
    /// The hub is full, or does not ask for the token.
    pub fn log_in(&mut self, user: &str, variant: Variant) -> ConnId {
        let platform = Platform::new(5).expect("5 is the web");
        let login = Box::new(Login {
            user: user.into(),
            token: "token".into(),
            platform,
            operation_id: "login".into(),
            variant,
            wants_response: false,
            forwarded_for: None,
            upgrade: Ok(AcceptKey::answer_to(b"key")),
        });
        let peer = ([127, 0, 0, 1], 4000).into();
        let conn =
            self.hub.accepted(self.now, Accepted { peer, client: None, login }).expect("there is room");
        let calls = std::iter::from_fn(|| self.hub.next_effect());
        let ticket =
            calls.filter_map(|effect| if let Effect::Call(call) = effect { call.ticket } else { None });
        let ticket = ticket.last().expect("the token check");
        let outcome = UpstreamOutcome::Token { user: user.into(), platform: platform.id() };
        self.hub.input(self.now, Input::UpstreamReply(UpstreamReply { ticket, outcome }));
        self.settle();
        conn
    }

    /// The client goes, and its slot is free again.
    pub fn leave(&mut self, conn: ConnId) {
        self.hub.input(self.now, Input::TransportLost(conn));
        self.settle();
        self.hub.input(self.now, Input::TransportClosed(conn));
        self.settle();
    }

    /// Sessions that have a slot.
    pub fn connections(&self) -> usize {
        self.hub.connections()
    }

    /// Received bytes, as a socket gives them: unmasked in place. What is answered is sent.
    pub fn bytes(&mut self, conn: ConnId, bytes: &mut [u8]) -> Sent {
        self.hub.bytes(self.now, conn, bytes);
        self.settle()
    }

    /// A push to all of them by name.
    pub fn push_mail(&self) -> ShardMail {
        let recipients = (0..).zip(&self.users).map(|(slot, user)| Recipient { slot, user: user.clone() });
        ShardMail::Push(Box::new(PushMail {
            ticket: Some(TICKET),
            source: SourceId(1),
            deadline: self.now.mono.plus_ms(10_000),
            body: PushBody {
                operation_id: Text::from("1700000000000123456"),
                conversation: "si_0000000001_0000000002".into(),
                msg_data: msg_data(CONTENT_BYTES),
                frames: None,
            },
            audience: Audience::Listed(recipients.collect()),
            rules: PushRules::default(),
        }))
    }

    /// Serves a mail to its end, and says what was sent.
    pub fn serve(&mut self, mail: ShardMail) -> Sent {
        self.hub.input(self.now, Input::Mail(mail));
        self.settle()
    }

    /// Whether the user of that number is online: one look into the table of users.
    pub fn is_online(&mut self, number: usize) -> bool {
        let Some(user) = self.users.get(number).cloned() else { return false };
        let users = vec![Recipient { slot: 0, user }];
        let mail = ShardMail::OnlineStatus(Box::new(OnlineStatusMail { ticket: TICKET, users }));
        self.hub.input(self.now, Input::Mail(mail));
        match self.hub.next_effect() {
            Some(Effect::Reply(_, outcome)) => {
                matches!(*outcome, RpcOutcome::OnlineStatus(users) if !users.is_empty())
            }
            _ => false,
        }
    }

    /// Turns until nothing is left to do; every socket takes what waits for it.
    fn settle(&mut self) -> Sent {
        let mut sent = Sent::default();
        loop {
            self.hub.turn(self.now);
            while let Some(conn) = self.hub.next_flush() {
                loop {
                    let bytes = self.hub.fill(conn, &mut self.batch);
                    if bytes == 0 {
                        break;
                    }
                    sent.frames += self.batch.frames.len();
                    sent.bytes += bytes;
                    self.hub.sent(self.now, conn, bytes);
                }
            }
            while self.hub.next_effect().is_some() {}
            while self.hub.next_presence().is_some() {}
            if !self.hub.has_work() {
                return sent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_session_gets_its_push_and_a_slot_comes_back() {
        for variant in Variant::all() {
            let mut crowd = Crowd::new(100, variant);
            let sent = crowd.serve(crowd.push_mail());
            assert_eq!(sent.frames, 100, "{variant:?}");
            assert!(sent.bytes > 100 * CONTENT_BYTES / 2, "{sent:?}");
            assert!(crowd.is_online(99) && !crowd.is_online(100));
            for _ in 0..3 {
                let conn = crowd.log_in("another", variant);
                assert_eq!(crowd.connections(), 101);
                crowd.leave(conn);
                assert_eq!(crowd.connections(), 100);
            }
        }
    }
}
