//! From accepted to registered: token check, refusals in OpenIM's order, login policy, and the 101.
//!
//! Register, 101 and first frame happen in one call ([`Hub::register`]): a client that has seen its 101 can be found
//! by the next push (this closes upstream's race, spec 1.8 step 2). Every refusal is decided before.

use super::calls::Pending;
use super::claims::Winner;
use super::follow::{What, cut};
use super::login_policy::{self, Existing, Invalidation, LoginPolicy};
use super::upstream::{CallMetadata, LoginPlace, UpstreamCall, UpstreamOutcome, UpstreamRequest};
use super::{Accepted, Effect, Hub, Kind, Note};
use crate::ids::{ConnId, Platform};
use crate::limits;
use crate::metrics::Metric;
use crate::session::disconnect::Disconnect;
use crate::session::handshake::{Login, Refusal, SUCCESS_JSON};
use crate::session::token::PackedToken;
use crate::session::{Credentials, Identity, Phase, Session, Tick};
use crate::time::Now;
use crate::wire::frame::Opcode;
use crate::wire::upgrade;

/// Below this an error of the token check is not OpenIM's word but trouble on the way: transient (spec 7.5).
const OPENIM_CODE_MIN: i32 = 1001;

/// The login that others may have to leave for.
pub(super) struct NewLogin<'a> {
    pub(super) user: &'a str,
    pub(super) platform: Platform,
    pub(super) token: &'a str,
    pub(super) place: LoginPlace,
}

/// What the auth service was told when a login's turn came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// That all tokens of its user and platform end but its own.
    All,
    /// Not that.
    Nothing,
}

impl Hub {
    pub(super) fn begin_login(&mut self, now: Now, accepted: Accepted) -> Option<ConnId> {
        if self.drain.is_some() {
            return None;
        }
        let mut session = Session::new(now, accepted.peer, accepted.login);
        if let Some(client) = accepted.client {
            session.ledger.came_from(client);
        }
        let conn = ConnId(self.registry.sessions.insert(session).ok()?);
        self.trace.note(Note::Accepted, &[conn.0.index.into(), conn.0.generation.into()]);
        self.rearm(conn);
        self.follow_login(now, conn);
        let asked = self.registry.session(conn).and_then(|session| match &session.credentials {
            Credentials::Login(login) => Some((
                metadata(&login.operation_id, &login.user, login.platform, session.connection_id_hex()),
                login.token.clone(),
            )),
            Credentials::Identity(_) | Credentials::Departed(_) => None,
        });
        let (metadata, token) = asked?;
        if !self.call(now, conn, Pending::Token, (metadata, UpstreamRequest::ParseToken { token })) {
            self.tally.count(Metric::HandshakeBusy);
            self.refuse_busy(now, conn, Disconnect::LoginRefused);
        }
        Some(conn)
    }

    fn follow_login(&mut self, now: Now, conn: ConnId) {
        if let Some(session) = self.registry.session(conn)
            && let Credentials::Login(login) = &session.credentials
        {
            self.follow.begins(&login.user, conn);
            let (peer, platform) = (session.ledger.peer(), session.platform);
            self.follow.note(now, conn, || What::Login { peer, platform });
        }
    }

    /// Asks upstream. `false`: no reply slot is free.
    pub(super) fn call(
        &mut self,
        now: Now,
        conn: ConnId,
        pending: Pending,
        (metadata, request): (CallMetadata, UpstreamRequest),
    ) -> bool {
        let deadline = now.mono.plus_ms(limits::UPSTREAM_DEADLINE_MS);
        let Some(ticket) = self.calls.open(conn, pending, deadline) else {
            return false;
        };
        self.trace.note(Note::Called, &[conn.0.index.into(), ticket.0.index.into()]);
        let call =
            UpstreamCall { shard: self.config.shard, ticket: Some(ticket), deadline, metadata, request };
        self.effects.push_back(Effect::Call(Box::new(call)));
        true
    }

    /// Steps 4 to 6 of spec 1.3: what the token check said.
    pub(super) fn token_checked(&mut self, now: Now, conn: ConnId, outcome: UpstreamOutcome) {
        let Some(session) = self.registry.session_mut(conn).filter(|s| s.phase == Phase::LoggingIn) else {
            return;
        };
        let Credentials::Login(login) = &session.credentials else {
            return;
        };
        let refusal = match outcome {
            UpstreamOutcome::Token { user, platform } => mismatch(login, &user, platform),
            UpstreamOutcome::Failed(error) if error.code >= OPENIM_CODE_MIN => {
                Some(Refusal { code: error.code, message: error.message, detail: error.detail })
            }
            _ => {
                self.tally.count(Metric::HandshakeUpstream);
                return self.refuse_busy(now, conn, Disconnect::LoginTimeout);
            }
        };
        if let Some(refusal) = refusal {
            self.tally.count(Metric::HandshakeToken);
            return self.refuse(now, conn, &refusal);
        }
        if let Err(fault) = login.upgrade {
            self.tally.count(Metric::HandshakeUpgrade);
            let answer = self.encoder.raw(&mut self.recorder, &upgrade::refused_upgrade(fault));
            self.queue_last(conn, answer);
            return self.end(now, conn, Disconnect::LoginRefused);
        }
        self.let_register(now, conn);
    }

    /// By HTTP, or by first text frame if the client asked for it (spec 1.4).
    fn refuse(&mut self, now: Now, conn: ConnId, refusal: &Refusal) {
        let Some(session) = self.registry.session(conn) else {
            return;
        };
        let Credentials::Login(login) = &session.credentials else {
            return;
        };
        self.follow.note(now, conn, || What::Refused { code: refusal.code, message: cut(&refusal.message) });
        let json = refusal.json();
        let bytes = match (login.wants_response, login.upgrade) {
            (false, _) => upgrade::refused(&json),
            (true, Err(fault)) => upgrade::refused_upgrade(fault),
            (true, Ok(accept)) => upgrade::switching(accept),
        };
        let in_band = login.wants_response && login.upgrade.is_ok();
        let answer = self.encoder.raw(&mut self.recorder, &bytes);
        self.queue_last(conn, answer);
        if in_band {
            let frame = self.encoder.frame(&mut self.recorder, Opcode::Text, json.as_bytes());
            self.queue_last(conn, frame);
        }
        self.end(now, conn, Disconnect::LoginRefused);
    }

    /// Registers a connection: policy, user map, 101 and first frame, all at once. `time`: of its key, if a home gave
    /// one.
    pub(super) fn register(&mut self, now: Now, conn: ConnId, time: Option<u64>) {
        let Some(session) = self.registry.session_mut(conn).filter(|s| s.phase == Phase::Registering) else {
            return;
        };
        let Credentials::Login(login) = &mut session.credentials else {
            return;
        };
        let Ok(accept) = login.upgrade else { return };
        let token = std::mem::take(&mut login.token);
        let (user, operation_id) = (std::mem::take(&mut login.user), std::mem::take(&mut login.operation_id));
        let wants_response = login.wants_response;
        let platform = session.platform;
        let packed = PackedToken::pack(&token, &user, platform);
        session.credentials = Credentials::Identity(Box::new(Identity { token: packed }));
        session.phase = Phase::Open;
        (session.heard, session.pinged) = (Tick::of(now.mono), Tick::of(now.mono));
        let new = NewLogin { user: &user, platform, token: &token, place: LoginPlace::Here };
        let called = |hub: &Self| {
            let connection_id = hub.registry.session(conn).map(Session::connection_id_hex);
            metadata(&operation_id, &user, platform, connection_id.unwrap_or_default())
        };
        let winner = self.give_key(now, conn, (&new, time));
        if winner.is_none() && self.apply_policy(now, new, called) == Told::All {
            self.say_told(conn);
        }
        if self.config.announces_logins {
            let metadata = called(self);
            self.notify(now, metadata, UpstreamRequest::LoginElsewhere { token });
        }
        self.registry.link(conn, &user);
        self.presence.came(&user, platform.id());
        self.tally.count(Metric::HandshakeOk);
        self.trace.note(Note::Registered, &[conn.0.index.into()]);
        self.follow.begins(&user, conn);
        self.follow.note(now, conn, || What::Online);
        self.rearm(conn);
        let answer = self.encoder.raw(&mut self.recorder, &upgrade::switching(accept));
        self.queue(now, conn, answer);
        if wants_response {
            let frame = self.encoder.frame(&mut self.recorder, Opcode::Text, SUCCESS_JSON.as_bytes());
            self.queue(now, conn, frame);
        }
        self.say_registered(conn);
        self.deliver_held(now, conn);
        if let Some(Winner { conn, platform, token }) = winner {
            // As if the newer one had come after it; it spares itself.
            let newer = NewLogin { user: &user, platform, token: &token, place: LoginPlace::Elsewhere };
            if self.apply_policy(now, newer, called) == Told::All {
                self.say_told(conn);
            }
        }
    }

    /// Decides who must leave for a login here or on another gateway. They leave the user's list at once; the kick
    /// frame and the close follow from the kick queue. Most logins end nobody, so `metadata` is made only for a call.
    pub(super) fn apply_policy(
        &mut self,
        now: Now,
        new: NewLogin<'_>,
        metadata: impl FnOnce(&Self) -> CallMetadata,
    ) -> Told {
        let there: Vec<(ConnId, Existing, Box<str>)> = self
            .registry
            .connections(new.user)
            .filter(|(_, s)| s.phase == Phase::Open)
            .map(|(conn, s)| {
                let token = s.token(new.user);
                let existing = Existing { platform: s.platform, spared: self.spares(&token, &new) };
                (conn, existing, token.into())
            })
            .collect();
        if there.is_empty() {
            return Told::Nothing;
        }
        let existing: Vec<Existing> = there.iter().map(|(_, existing, _)| *existing).collect();
        let verdict = login_policy::decide(self.config.login_policy, new.platform, &existing);
        let mut tokens = Vec::new();
        for (conn, _, token) in verdict.kicked.iter().filter_map(|i| there.get(*i)) {
            tokens.push(token.clone());
            self.evict(now, *conn);
        }
        let request = match verdict.invalidation {
            Invalidation::None => return Told::Nothing,
            Invalidation::OfKicked => UpstreamRequest::KickTokens { tokens },
            Invalidation::AllButNew => UpstreamRequest::InvalidateToken {
                preserved: new.token.into(),
                user: new.user.into(),
                platform: new.platform,
            },
        };
        let told = match verdict.invalidation {
            Invalidation::AllButNew => Told::All,
            Invalidation::None | Invalidation::OfKicked => Told::Nothing,
        };
        let metadata = metadata(self);
        self.notify(now, metadata, request);
        told
    }

    /// Whether a connection with this token stays, whatever the policy says of its platform. A login elsewhere spares
    /// its own token with every version: a gateway that is told of its own login, because it is known under another
    /// address, must not end it.
    pub(super) fn spares(&self, token: &str, new: &NewLogin<'_>) -> bool {
        token == new.token && !(self.kicks_same_token() && new.place == LoginPlace::Here)
    }

    /// Whether a login ends connections with its own token as well.
    pub(super) fn kicks_same_token(&self) -> bool {
        // Policy 4 is newer than 3.5, and so is all of it.
        self.config.kicks_same_token && self.config.login_policy != LoginPolicy::OnePerClass
    }

    /// The auth service was told of this login: nobody needs to tell it again.
    fn say_told(&mut self, conn: ConnId) {
        if let Some(claims) = &mut self.claims {
            claims.tells(conn);
        }
    }

    /// Asks upstream for something whose answer nobody waits for.
    pub(super) fn notify(&mut self, now: Now, metadata: CallMetadata, request: UpstreamRequest) {
        let deadline = now.mono.plus_ms(limits::UPSTREAM_DEADLINE_MS);
        let call = UpstreamCall { shard: self.config.shard, ticket: None, deadline, metadata, request };
        self.effects.push_back(Effect::Call(Box::new(call)));
    }

    /// Takes a connection out of its user's list and puts it in the kick queue.
    pub(super) fn evict(&mut self, now: Now, conn: ConnId) {
        self.follow.note(now, conn, || What::Kicked);
        if self.config.names_connections
            && let Some(session) = self.registry.session(conn)
            && let Some(user) = self.registry.user_of(session)
        {
            self.presence.kicked(user, session.platform.id());
        }
        self.leave_user(conn);
        self.queues.push(&mut self.registry.sessions, Kind::Kick, conn, Tick::of(now.mono));
    }
}

/// gRPC metadata of a call (spec 6.1).
pub(super) fn metadata(
    operation_id: &str,
    user: &str,
    platform: Platform,
    connection_id: Box<str>,
) -> CallMetadata {
    CallMetadata { operation_id: operation_id.into(), user: user.into(), platform, connection_id }
}

/// Step 5 of spec 1.3: the token must name this user and platform.
fn mismatch(login: &Login, user: &str, platform: i32) -> Option<Refusal> {
    let detail = if *user != *login.user {
        format!("token uid {user} != userID {}", login.user)
    } else if platform != login.platform.id() {
        format!("token platform {platform} != platformID {}", login.platform.id())
    } else {
        return None;
    };
    Some(Refusal { code: 1502, message: "TokenInvalidError".into(), detail: detail.into() })
}
