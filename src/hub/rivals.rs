//! Logins of one user on several nodes: who ends for whom, and who tells the auth service, so that both are as if all
//! had come to one node (spec 8.3).
//!
//! The node of a login kicks what is there and tells of it at once (`login`). What is on other nodes its home finds:
//! the node of an older connection ends it ([`ClusterMail::Kick`](super::cluster::ClusterMail), `Judge`), and under
//! policy 4 tells of its token, which nobody else has; the node of the login tells that all tokens but its own end
//! (policies 1 and 5), when it hears that it met others (`Met`): once, however often and from whomever it hears.
//!
//! Between nodes go names of tokens ([`TokenName`]). Later than at one node is only the call: a token issued in between
//! ends as well, and of two logins on two nodes within that time the calls may come in either order, as with OpenIM's
//! own gateways. The handshake's operation id is not kept so long: such a call has the connection's id in its place.

use super::Hub;
use super::cluster::{Class, Key, TokenMarks, TokenName};
use super::login::metadata;
use super::login_policy::{LoginPolicy, class_of, hears_of};
use super::upstream::UpstreamRequest;
use crate::ids::{ConnId, Platform};
use crate::metrics::Metric;
use crate::session::Session;
use crate::time::Now;

/// A completed login, here or on another node.
pub(super) struct Rival {
    pub(super) class: Class,
    pub(super) key: Key,
    pub(super) token: Option<TokenName>,
}

impl Hub {
    /// What other nodes hear of a token; `None`: it spares nobody, and is not spared (spec 8.3, 3.5).
    pub(super) fn token_name(&self, token: &str) -> Option<TokenName> {
        (!self.kicks_same_token()).then(|| TokenName::of(token))
    }

    /// A login of this user has this key: of its class those with a smaller one end, unless it spares them; those with
    /// a greater one are named to the router again. A login that is newer than all of its class hears whether it met
    /// others.
    pub(super) fn judge(&mut self, now: Now, user: &str, login: Rival) {
        let (mut met, mut newest) = (false, true);
        for conn in self.open_connections(user) {
            let Some(class) = self.class_at(conn) else { continue };
            let Some(own) = self.key_of(conn) else { continue };
            met |= own < login.key && hears_of(login.class, class);
            if class != Some(login.class) {
                continue;
            }
            if own > login.key {
                newest = false;
                self.say_registered(conn);
            } else if own < login.key && !TokenName::spares(self.name_at(conn), login.token) {
                self.lose(now, conn);
            }
        }
        if met
            && newest
            && let Some(claims) = &mut self.claims
        {
            claims.say_met(login.key);
        }
    }

    fn class_at(&self, conn: ConnId) -> Option<Option<Class>> {
        let platform = self.registry.session(conn)?.platform;
        Some(class_of(self.config.login_policy, platform))
    }

    fn name_at(&self, conn: ConnId) -> Option<TokenName> {
        self.token_name(&self.token_of(conn)?.1)
    }

    fn token_of(&self, conn: ConnId) -> Option<(Platform, Box<str>)> {
        let session = self.registry.session(conn)?;
        let token = session.token(self.registry.user_of(session)?);
        Some((session.platform, token.into()))
    }

    /// A connection has to give way to a login on another node. The token ends with it if nobody else can say so.
    pub(super) fn lose(&mut self, now: Now, conn: ConnId) {
        let ends_token = self.config.login_policy == LoginPolicy::OnePerClass;
        let token = self.token_of(conn).filter(|_| ends_token);
        if let Some((_, token)) = token {
            self.tell_auth(now, conn, UpstreamRequest::KickTokens { tokens: vec![token] });
        }
        self.tally.count(Metric::ClusterEnded);
        self.evict(now, conn);
    }

    /// A login here met older connections of its user on other nodes.
    pub(super) fn met_others(&mut self, now: Now, conn: ConnId) {
        let policies = [LoginPolicy::OnePerPlatform, LoginPolicy::PcAndOther];
        let concerned =
            policies.contains(&self.config.login_policy) && self.class_at(conn).flatten().is_some();
        if !concerned || !self.claims.as_mut().is_some_and(|claims| claims.tells(conn)) {
            return;
        }
        let user = self.registry.session(conn).and_then(|session| self.registry.user_of(session));
        if let (Some((platform, preserved)), Some(user)) = (self.token_of(conn), user) {
            let request = UpstreamRequest::InvalidateToken { preserved, user: user.into(), platform };
            self.tally.count(Metric::ClusterTold);
            self.tell_auth(now, conn, request);
        }
    }

    /// The embedded backend of this shard has ended tokens; the other nodes' have marks of their own.
    pub fn say_marks(&mut self, marks: TokenMarks) {
        if let Some(claims) = &mut self.claims {
            claims.say_marks(marks);
        }
    }

    /// Another node's embedded backend has ended tokens.
    pub(super) fn take_marks(&mut self, now: Now, marks: TokenMarks) {
        if self.config.announces_logins {
            return; // OpenIM's services know themselves
        }
        self.tally.count(Metric::ClusterMarks);
        let metadata = metadata("", &marks.user, marks.platform, "".into());
        self.notify(now, metadata, UpstreamRequest::MarkTokens(marks));
    }

    /// As the connection's own call; nobody waits for the answer.
    fn tell_auth(&mut self, now: Now, conn: ConnId, request: UpstreamRequest) {
        let of = |session: &Session| {
            let id = session.connection_id_hex();
            let user = self.registry.user_of(session).unwrap_or_default();
            metadata(&id, user, session.platform, id.clone())
        };
        if let Some(metadata) = self.registry.session(conn).map(of) {
            self.notify(now, metadata, request);
        }
    }
}
