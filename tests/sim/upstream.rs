//! OpenIM's services as seen from the gateway: one reply per ticket, sometimes an error, sometimes very late.

use std::collections::{BTreeMap, BTreeSet};

use pinion::hub::upstream::{
    Method, PresenceRecord, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply, UpstreamRequest,
    UserPlatforms,
};
use pinion::ids::{CallTicket, Platform, ShardId};
use pinion::limits;
use pinion::time::Mono;

use crate::checker::Property;
use crate::link::LinkId;
use crate::world::{Event, World};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Upstream {
    online: BTreeMap<Box<str>, BTreeSet<i32>>,
    /// The SendMsg of each connection that was asked last, until its reply leaves.
    sending: BTreeMap<Box<str>, (ShardId, CallTicket, Mono)>,
}

/// A token that says itself what becomes of it.
pub fn token(user: &str, platform: Platform, (fate, n): (Option<&'static str>, LinkId)) -> Box<str> {
    let fate = fate.unwrap_or("good");
    format!("secret-token|{user}|{}|{fate}|{n}", platform.id()).into()
}

fn parse_token(token: &str) -> UpstreamOutcome {
    let parts: Vec<&str> = token.split('|').collect();
    let failed = |code, message: &str| {
        UpstreamOutcome::Failed(UpstreamError { code, message: message.into(), detail: "as asked".into() })
    };
    match parts[3] {
        "kicked" => failed(1506, "TokenKickedError"),
        "down" => failed(14, "connection refused"),
        "other" => UpstreamOutcome::Token { user: "somebody else".into(), platform: 1 },
        _ => UpstreamOutcome::Token { user: parts[1].into(), platform: parts[2].parse().expect("a number") },
    }
}

impl Upstream {
    /// Takes a presence record in.
    pub fn presence(&mut self, record: &PresenceRecord) -> UserPlatforms {
        let platforms: BTreeSet<i32> = record.online.iter().copied().collect();
        self.online.insert(record.user.clone(), platforms.clone());
        UserPlatforms { user: record.user.clone(), platforms: platforms.into_iter().collect() }
    }

    /// A reply is out.
    pub fn replied(&mut self, shard: usize, ticket: CallTicket) {
        let is = |of: &(ShardId, CallTicket, Mono)| usize::from(of.0.0) == shard && of.1 == ticket;
        self.sending.retain(|_, of| !is(of));
    }

    fn answer(&self, request: &UpstreamRequest) -> UpstreamOutcome {
        match request {
            UpstreamRequest::ParseToken { token } => parse_token(token),
            UpstreamRequest::Forward { data, .. } => UpstreamOutcome::Data(data.clone()),
            UpstreamRequest::UserStatus { users } => {
                let status = |user: &str| UserPlatforms {
                    user: user.into(),
                    platforms: self.online.get(user).into_iter().flatten().copied().collect(),
                };
                UpstreamOutcome::Statuses(users.iter().map(|user| status(user)).collect())
            }
            UpstreamRequest::InvalidateToken { .. }
            | UpstreamRequest::KickTokens { .. }
            | UpstreamRequest::MarkTokens(_)
            | UpstreamRequest::LoginElsewhere { .. } => UpstreamOutcome::Data(Default::default()),
        }
    }
}

impl World {
    /// A question arrives.
    pub fn upstream_asked(&mut self, call: UpstreamCall) {
        let Some(ticket) = call.ticket else { return };
        let (errors, hangs) = (self.plan.errors, self.plan.hangs);
        let mut outcome = self.upstream.answer(&call.request);
        let is_login = matches!(call.request, UpstreamRequest::ParseToken { .. });
        if !is_login && self.chance(errors) {
            outcome = UpstreamOutcome::Failed(UpstreamError::args("as drawn"));
        }
        let age_ms = self.checker.now_ms;
        let delay = if self.plan.outage.is_some_and(|(from, to)| (from..to).contains(&age_ms)) {
            self.saw("calls lost");
            outcome = UpstreamOutcome::Failed(UpstreamError::internal());
            limits::UPSTREAM_DEADLINE_MS + self.rng.u64(0..2_000)
        } else if self.chance(hangs) {
            self.rng.u64(5_000..40_000)
        } else {
            self.rng.u64(0..300)
        };
        if let UpstreamRequest::Forward { method: Method::SendMsg, .. } = call.request {
            self.one_send_at_a_time(&call, ticket);
        }
        let shard = usize::from(call.shard.0);
        self.after(delay, Event::Answer(shard, UpstreamReply { ticket, outcome }));
    }

    fn one_send_at_a_time(&mut self, call: &UpstreamCall, ticket: CallTicket) {
        let key = call.metadata.connection_id.clone();
        let before = self.upstream.sending.insert(key, (call.shard, ticket, call.deadline));
        if before.is_some_and(|(_, _, deadline)| deadline > self.now.mono) {
            self.checker.fail(Property::OneReply, "two SendMsg of one connection at once".into());
        }
    }
}
