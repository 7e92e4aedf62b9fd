//! What an operator may ask a shard about one user, and the answers: `pinion who` and `pinion trace`.
//!
//! Read-only but for the followed users (`follow.rs`); nothing here enters the trace hash or changes what clients see.
//! No tokens and no bodies are in the answers.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Hub;
use super::follow::{Page, TooMany};
use super::mail::{Look, LookMail, RpcOutcome};
use crate::ids::{ConnId, Platform, ShardId};
use crate::limits::WHO_CONNECTIONS_MAX;
use crate::session::{Credentials, Phase, Session, Tick};
use crate::time::Now;

/// What a shard answers to a [`LookMail`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sight {
    /// To [`Look::Who`].
    Who(UserFacts),
    /// To [`Look::Follow`] and [`Look::Page`].
    Page(Page),
    /// To [`Look::Follow`]: too many users are followed already.
    TooMany,
    /// To [`Look::Page`]: the user is not followed (any more).
    NotFollowed,
}

/// What is known of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserFacts {
    /// The user asked for.
    pub user: Box<str>,
    /// The shard that owns it.
    pub shard: ShardId,
    /// Registered connections in registration order, then those that log in; empty if there are none.
    pub connections: Vec<ConnectionFacts>,
    /// Connections beyond `WHO_CONNECTIONS_MAX` that are not in the list.
    pub left_out: usize,
}

/// What is known of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFacts {
    /// As [`ConnId`] writes itself in logs; unique within the shard.
    pub id: Box<str>,
    /// OpenIM's `connID`.
    pub connection_id: Box<str>,
    /// From its login.
    pub platform: Platform,
    /// Address of the client: the peer's, or what a believed proxy says (port 0: not known).
    pub peer: SocketAddr,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since it was accepted, in steps of a tick.
    pub age_ms: u64,
    /// Since its last frame, in steps of a tick.
    pub silent_ms: u64,
    /// Bytes that wait for its socket.
    pub queued_bytes: usize,
    /// Frames that wait for its socket.
    pub queued_frames: usize,
    /// Requests that wait for their answer.
    pub requests_in_flight: u8,
    /// Requests that wait behind those.
    pub requests_waiting: usize,
    /// Users whose presence it watches.
    pub subscriptions: usize,
    /// Set by request 2004.
    pub background: bool,
    /// In a cluster, once registered: the time of its login's key, by which the login policy decides between nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_time: Option<u64>,
}

impl Hub {
    /// Answers an operator.
    pub(super) fn look(&mut self, now: Now, mail: &LookMail) {
        let user = mail.user.as_str();
        let sight = match mail.look {
            Look::Who => Sight::Who(self.who(now, user)),
            Look::Follow { for_ms } => {
                let until = now.mono.plus_ms(for_ms);
                let connections = self.registry.connections(user).map(|(conn, _)| conn);
                match self.follow.start(now.mono, user, until, connections) {
                    Ok(cursor) => self.page(now, user, cursor),
                    Err(TooMany) => Sight::TooMany,
                }
            }
            Look::Page { cursor } => self.page(now, user, cursor),
        };
        self.answer_rpc(mail.ticket, RpcOutcome::Sight(sight));
    }

    fn page(&self, now: Now, user: &str, cursor: u64) -> Sight {
        self.follow.page(now.mono, user, cursor).map_or(Sight::NotFollowed, Sight::Page)
    }

    /// Logins are found by a walk over the slab: operators ask rarely, and who waits for a login is what they look for.
    fn who(&self, now: Now, user: &str) -> UserFacts {
        let tick = Tick::of(now.mono);
        let logs_in = |session: &Session| match &session.credentials {
            Credentials::Login(login) => *login.user == *user,
            Credentials::Identity(_) | Credentials::Departed(_) => false,
        };
        let walked = self.registry.sessions.iter().filter(|(_, session)| logs_in(session));
        let logging_in = walked.map(|(id, session)| (ConnId(id), session));
        let mut found = self.registry.connections(user).chain(logging_in);
        let connections =
            found.by_ref().take(WHO_CONNECTIONS_MAX).map(|(conn, s)| self.facts(conn, s, tick)).collect();
        UserFacts { user: user.into(), shard: self.config.shard, connections, left_out: found.count() }
    }

    fn facts(&self, conn: ConnId, session: &Session, now: Tick) -> ConnectionFacts {
        let key = self.claims.as_ref().and_then(|claims| claims.key(conn));
        ConnectionFacts { login_time: key.map(|key| key.time), ..facts(conn, session, now) }
    }
}

fn facts(conn: ConnId, session: &Session, now: Tick) -> ConnectionFacts {
    let outbox = session.outbox.as_ref();
    let requests = session.requests.as_ref();
    ConnectionFacts {
        id: conn.to_string().into(),
        connection_id: session.connection_id_hex(),
        platform: session.platform,
        peer: session.ledger.peer(),
        phase: session.phase,
        age_ms: now.since_ms(session.ledger.since),
        silent_ms: now.since_ms(session.heard),
        queued_bytes: session.outbox_bytes(),
        queued_frames: outbox.map_or(0, |outbox| outbox.frames()),
        requests_in_flight: requests.map_or(0, |requests| requests.in_flight()),
        requests_waiting: requests.map_or(0, |requests| requests.waiting()),
        subscriptions: session.watches.as_ref().map_or(0, |watches| watches.len()),
        background: session.background,
        login_time: None,
    }
}
