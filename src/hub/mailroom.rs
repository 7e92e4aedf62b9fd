//! Mail from the rpc threads: kicks, logins elsewhere, status, presence news, the router's (`claims`). Each is
//! answered in the same call.

use super::dispatch::{SUBSCRIBE, tips};
use super::login::{NewLogin, metadata};
use super::mail::{
    DeviceStatus, Judge, KickMail, OnlineStatusMail, RemoteLoginMail, RpcOutcome, ShardMail, UserStatus,
};
use super::upstream::{LoginPlace, UserPlatforms};
use super::{Effect, Hub};
use crate::ids::{ConnId, RpcTicket};
use crate::metrics::Metric;
use crate::session::Phase;
use crate::session::disconnect::Disconnect;
use crate::time::Now;
use crate::wire::envelope::{Response, Variant};
use crate::wire::frame::Frame;

/// The request identifier of a kick frame (spec 3.3).
const KICK: i32 = 2002;

impl Hub {
    pub(super) fn mail(&mut self, now: Now, mail: ShardMail) {
        match mail {
            ShardMail::Push(push) => self.push_came(*push),
            ShardMail::PresenceNews(news) => self.presence_news(now, &news),
            ShardMail::CancelPush(ticket) => self.cancel_push(ticket),
            ShardMail::Kick(kick) => self.kick_users(now, &kick),
            ShardMail::RemoteLogin(login) => self.remote_login(now, &login),
            ShardMail::OnlineStatus(status) => self.online_status(&status),
            ShardMail::Look(look) => self.look(now, &look),
            ShardMail::Policy(policy) => self.adopt(&policy),
            ShardMail::Cluster(mail) => self.cluster_mail(now, *mail),
        }
    }

    /// Spec 4.5. When the answer leaves, no matching connection is registered any more; the kick frames follow.
    fn kick_users(&mut self, now: Now, kick: &KickMail) {
        let mut connections = 0;
        for user in &kick.users {
            for conn in self.open_connections(user) {
                if self.registry.session(conn).is_some_and(|s| s.platform == kick.platform) {
                    self.evict(now, conn);
                    connections += 1;
                }
            }
        }
        self.answer_rpc(kick.ticket, RpcOutcome::Kicked { connections });
    }

    /// Takes a connection from the kick queue: kick frame, flush, close (spec 1.7: bounded, and never lost to a race).
    pub(super) fn kick(&mut self, now: Now, conn: ConnId) {
        let Some(session) = self.registry.session(conn).filter(|s| s.phase == Phase::Open) else {
            return;
        };
        let response = Response { id: KICK, ..Response::default() };
        let frame = self.encoder.envelope(&mut self.recorder, session.variant, &response);
        self.tally.count(Metric::Kicks);
        self.queue_last(conn, frame);
        self.end(now, conn, Disconnect::Kicked);
    }

    /// Spec 4.6: the policy of a login on another gateway, applied to the connections here.
    fn remote_login(&mut self, now: Now, login: &RemoteLoginMail) {
        let (user, token) = (login.user.as_str(), login.token.as_str());
        if self.config.announces_logins {
            self.presence.elsewhere(user, login.platform.id());
        }
        let place = LoginPlace::Elsewhere;
        if login.judge == Judge::Shard {
            self.apply_policy(now, NewLogin { user, platform: login.platform, token, place }, |_| {
                // Connection id and op user are empty for remote jobs (spec 6.1).
                metadata(&login.operation_id, "", login.platform, "".into())
            });
        }
        self.answer_rpc(login.ticket, RpcOutcome::RemoteLogin);
    }

    /// Spec 4.4.
    fn online_status(&mut self, status: &OnlineStatusMail) {
        let mut users = Vec::new();
        for recipient in &status.users {
            let devices: Vec<DeviceStatus> = self
                .open_connections(&recipient.user)
                .into_iter()
                .filter_map(|conn| Some((conn, self.registry.session(conn)?)))
                .map(|(conn, session)| DeviceStatus {
                    platform: session.platform,
                    connection_id: session.connection_id_hex(),
                    background: session.background,
                    token: session.token(&recipient.user).into_owned().into(),
                    time: self.key_of(conn).map_or(0, |key| key.time),
                })
                .collect();
            if !devices.is_empty() {
                users.push(UserStatus { slot: recipient.slot, devices });
            }
        }
        self.answer_rpc(status.ticket, RpcOutcome::OnlineStatus(users));
    }

    /// Tells the watchers of a user where he is online now.
    fn presence_news(&mut self, now: Now, news: &UserPlatforms) {
        let watchers = self.subscriptions.watchers(&news.user);
        if watchers.is_empty() {
            return;
        }
        let data = tips(std::slice::from_ref(news));
        let response = Response { id: SUBSCRIBE, data: Some(&data), ..Response::default() };
        let mut frames: [Option<Frame>; Variant::COUNT] = Default::default();
        for conn in watchers {
            let Some(session) = self.registry.session(conn).filter(|s| s.phase == Phase::Open) else {
                continue;
            };
            let variant = session.variant;
            let Some(cached) = frames.get_mut(variant.index()) else {
                continue;
            };
            let frame = match cached {
                Some(frame) => frame.clone(),
                None => cached.insert(self.encoder.envelope(&mut self.recorder, variant, &response)).clone(),
            };
            self.tally.count(Metric::PresenceTips);
            self.queue(now, conn, frame);
        }
    }

    /// Connections of a user that are alive, in registration order.
    pub(super) fn open_connections(&self, user: &str) -> Vec<ConnId> {
        self.registry
            .connections(user)
            .filter(|(_, s)| s.phase == Phase::Open)
            .map(|(conn, _)| conn)
            .collect()
    }

    pub(super) fn answer_rpc(&mut self, ticket: RpcTicket, outcome: RpcOutcome) {
        self.effects.push_back(Effect::Reply(ticket, Box::new(outcome)));
    }
}
