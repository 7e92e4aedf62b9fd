//! Presence towards OpenIM's user service and its Redis channel: who is online here is told, who is online elsewhere
//! is asked for (spec 9; 3.5 for request 2005).
//!
//! Pure: takes `now`, records and answers; gives requests, replies, news and webhooks. Not here: the gRPC channel
//! (`rpc`), the subscription to `online_change` and the posting of webhooks (`control`), watchers (`hub`).
//!
//! Order of calls, on rpc thread 0: [`Presence::record`], [`Presence::online_change`], [`Presence::ask`] and
//! [`Presence::answered`] as things come; then, and at each tick, [`Presence::next_request`],
//! [`Presence::next_reply`], [`Presence::next_news`] and [`Presence::next_webhook`] until they give `None`.
//!
//! What always holds (`presence/model.rs` tries to break it): after quiet time the user service knows exactly what is
//! online here; a user who is connected here is not left offline for long, whatever is lost on the way.
//!
//! Memory of a user who is online: 64 bytes in the table, 5 to 12 in its index, and his id (an allocation of its own):
//! about 100 bytes, 10 MB for 100 000 users. Renewal needs no more than that. A cached status: the same, 48 + 12 + id.

mod change;
mod config;
mod lane;
mod moves;
mod online_change;
mod platforms;
mod renewal;
mod reports;
mod statuses;
mod table;
mod webhooks;

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;

use super::calls::{self, UserMethod};
use crate::hub::upstream::{ConnectionMark, PresenceRecord, UpstreamError, UpstreamReply, UserPlatforms};
use crate::ids::{Platform, ShardId};
use crate::metrics::{Metric, Tally};
use crate::pb::openim::user::{GetUserStatusReq, GetUserStatusResp};
use crate::time::{Mono, Now, UnixMs};
use crate::wire::compat::Compat;
use change::Change;
pub use config::{PresenceConfig, ReportTimes, StatusTimes, Webhooks};
use moves::Moves;
pub use platforms::Platforms;
pub use renewal::RenewalTimes;
use reports::{Manner, Reports, Told};
pub use statuses::Question;
use statuses::Statuses;
use webhooks::WebhookQueue;
pub use webhooks::{WebhookEvent, WebhookKind};

/// Names a request until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId {
    number: u64,
    asks: Asks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asks {
    /// Something is told.
    No,
    Yes,
}

/// A call to the user service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For [`Presence::answered`].
    pub id: RequestId,
    /// The method.
    pub method: UserMethod,
    /// `operationid`, the only metadata (spec 9.1): `p_<pid>_<counter>`, counted from 1.
    pub operation_id: Box<str>,
    /// The protobuf of the request.
    pub body: Bytes,
    /// From here on it counts as failed. The call should be cancelled then.
    pub deadline: Mono,
}

/// Why a request brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// The service answered with an error, or the request never left: nothing more will come of it. Who took a
    /// request of unknown fate for this one would leave users online who are not.
    Refused(UpstreamError),
    /// It left and there is no answer (deadline, cancelled, broken connection): it may have been carried out, or may
    /// still be.
    Unknown,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Presence {
    config: PresenceConfig,
    reports: Reports,
    statuses: Statuses,
    webhooks: WebhookQueue,
    moves: Moves,
    operations: u64,
    invalid: u64,
}

impl Presence {
    /// Nobody is online here yet.
    pub fn new(config: PresenceConfig) -> Self {
        let manner = if config.compat == Compat::V35 { Manner::OneByOne } else { Manner::Batches };
        let mut reports = Reports::new(manner, config.reports, config.key);
        reports.renewed = (config.webhooks == Webhooks::ChangesAndRenewals).then(Vec::new);
        let statuses = Statuses::new(config.statuses, config.key);
        let (webhooks, moves) = (WebhookQueue::default(), Moves::default());
        Self { config, reports, statuses, webhooks, moves, operations: 0, invalid: 0 }
    }

    /// Tells other changes by webhook from now on; those that wait are still told.
    pub fn set_webhooks(&mut self, webhooks: Webhooks) {
        self.config.webhooks = webhooks;
        match webhooks {
            Webhooks::ChangesAndRenewals => {
                self.reports.renewed.get_or_insert_default();
            }
            Webhooks::Off | Webhooks::Changes => self.reports.renewed = None,
        }
    }

    /// A user's connections here have changed, or he has logged in elsewhere. A record that names no connections has
    /// webhooks with an empty `connID`, and none of kicks.
    pub fn record(&mut self, now: Now, record: &PresenceRecord) {
        let (before, online) = self.reports.record(now.mono, &record.user, Change::of(record));
        if self.config.webhooks == Webhooks::Off {
            return;
        }
        let (here, gone, kicked): (&[_], &[_], &[_]) =
            record.connections.as_ref().map_or((&[], &[], &[]), |c| (&c.here, &c.left, &c.kicked));
        let user = &*record.user;
        for platform in kicked {
            self.hook(now.unix, WebhookKind::KickOff, (user, Platforms::of(&[*platform])), &[]);
        }
        self.hook(now.unix, WebhookKind::Offline, (user, before.without(online)), gone);
        self.hook(now.unix, WebhookKind::Online, (user, online.without(before)), here);
    }

    /// The other gateways were told of a login here: it may be the end of one there. With 3.5, which has no
    /// `online_change`, it is told once more after `PRESENCE_MOVED_MS` if the user is still here.
    pub fn told_elsewhere(&mut self, now: Mono, user: &str, platform: Platform) {
        if self.config.compat == Compat::V35 {
            self.moves.push(now, user, Platforms::of(&[platform.id()]));
        }
    }

    /// A message of Redis channel `online_change`, which all gateways hear (spec 9.4).
    pub fn online_change(&mut self, now: Mono, payload: &[u8]) {
        match online_change::parse(payload) {
            Some((user, platforms)) => {
                self.statuses.change(now, user, platforms);
                self.reports.repair(now, user, platforms);
            }
            None => self.invalid += 1,
        }
    }

    /// From here on `online_change` is not heard, until [`Presence::resubscribed`].
    pub fn subscription_lost(&mut self) {
        self.reports.take_back();
    }

    /// The subscription to `online_change` stands again: what was said meanwhile was not heard. What is cached is
    /// asked for anew, and who is online here is told anew, both spread over time.
    pub fn resubscribed(&mut self, now: Mono) {
        self.statuses.resubscribed(now);
        self.reports.heal(now);
    }

    /// A shard asks where users are online. Answered in [`Presence::next_reply`], not after its deadline.
    pub fn ask(&mut self, now: Mono, question: Question) {
        self.statuses.ask(now, question);
    }

    /// All sockets are closed: from here on everybody who was online here is told as offline, without delay, until
    /// `deadline` (spec trap 32). See [`Presence::untold`].
    pub fn final_offline(&mut self, now: Now, deadline: Mono) {
        let mut left = Vec::new();
        let wanted = self.config.webhooks != Webhooks::Off;
        self.reports.drain(now.mono, deadline, |user, platforms| {
            if wanted {
                left.push((Box::<str>::from(user), platforms));
            }
        });
        for (user, platforms) in left {
            self.hook(now.unix, WebhookKind::Offline, (&user, platforms), &[]);
        }
    }

    /// Users of whom the user service does not know all. After [`Presence::final_offline`]: done when 0.
    pub fn untold(&self) -> usize {
        self.reports.untold()
    }

    /// The next call to make. Call until `None`, after everything that came and at each tick.
    pub fn next_request(&mut self, now: Now) -> Option<Request> {
        while let Some((user, platforms)) = self.moves.pop(now.mono) {
            self.reports.repeat(now.mono, &user, platforms);
        }
        let number = self.operations + 1;
        let told = self.reports.begin(now.mono, number);
        self.hook_renewed(now.unix);
        if let Some((body, deadline)) = told {
            let old = self.config.compat == Compat::V35;
            let method = if old { UserMethod::SetUserStatus } else { UserMethod::SetUserOnlineStatus };
            return Some(self.request(RequestId { number, asks: Asks::No }, method, body, deadline));
        }
        let (users, deadline) = self.statuses.begin(now.mono, number)?;
        let user_i_ds = users.into_iter().map(String::from).collect();
        let body = GetUserStatusReq { user_id: String::new(), user_i_ds }.encode_to_vec().into();
        Some(self.request(RequestId { number, asks: Asks::Yes }, UserMethod::GetUserStatus, body, deadline))
    }

    /// A call is over. `Ok` is the protobuf of the answer.
    pub fn answered(&mut self, now: Mono, id: RequestId, answer: Result<Bytes, RequestFault>) {
        if id.asks == Asks::No {
            let told = match answer {
                Ok(_) => Told::Done,
                Err(RequestFault::Refused(_)) => Told::Refused,
                Err(RequestFault::Unknown) => Told::Unknown,
            };
            return self.reports.end(now, id.number, told);
        }
        let decoded = match answer {
            Ok(body) => GetUserStatusResp::decode(body).map_err(|_| UpstreamError::internal()),
            Err(RequestFault::Refused(error)) => Err(error),
            Err(RequestFault::Unknown) => Err(UpstreamError::internal()),
        };
        let online = decoded.as_ref().map_err(Clone::clone).map(|answer| {
            let status = answer.status_list.iter();
            status.map(|s| (&*s.user_id, Platforms::of(&s.platform_i_ds))).collect::<BTreeMap<_, _>>()
        });
        self.statuses.end(now, id.number, online);
    }

    /// The next answer to a question, and for which shard.
    pub fn next_reply(&mut self) -> Option<(ShardId, UpstreamReply)> {
        self.statuses.replies.pop_front()
    }

    /// The next news for all shards.
    pub fn next_news(&mut self) -> Option<UserPlatforms> {
        self.statuses.news.pop_front()
    }

    /// The next webhook to post. If nobody takes them, they wait and then are dropped.
    pub fn next_webhook(&mut self) -> Option<WebhookEvent> {
        self.webhooks.pop()
    }

    /// Writes what it holds and what it did into the thread's counts.
    pub fn publish(&self, tally: &mut Tally) {
        let (told, asked) = (&self.reports.counts, &self.statuses.counts);
        for (metric, value) in [
            (Metric::PresenceOnline, self.reports.online() as u64),
            (Metric::PresenceUntold, self.reports.untold() as u64),
            (Metric::PresenceDone, told.done),
            (Metric::PresenceRefused, told.refused),
            (Metric::PresenceUnknown, told.unknown),
            (Metric::PresenceLate, told.late),
            (Metric::PresenceRenewals, told.renewals),
            (Metric::PresenceRepairs, told.repairs),
            (Metric::PresenceEchoes, told.echoes),
            (Metric::PresenceHandedOver, told.handed_over),
            (Metric::PresenceDeparted, told.forgotten),
            (Metric::PresenceMovesForgotten, self.moves.forgotten),
            (Metric::OnlineChangeInvalid, self.invalid),
            (Metric::StatusEntries, self.statuses.len() as u64),
            (Metric::StatusWaiting, self.statuses.waiting() as u64),
            (Metric::StatusHits, asked.hits),
            (Metric::StatusMisses, asked.misses),
            (Metric::StatusExpired, asked.expired),
            (Metric::StatusEvictions, asked.evictions),
            (Metric::StatusRefused, asked.refused),
            (Metric::StatusFailed, asked.failed),
            (Metric::WebhooksForgotten, self.webhooks.dropped),
        ] {
            tally.set(metric, value);
        }
    }

    fn request(&mut self, id: RequestId, method: UserMethod, body: Bytes, deadline: Mono) -> Request {
        Request { id, method, operation_id: self.operation_id(), body, deadline }
    }

    fn operation_id(&mut self) -> Box<str> {
        self.operations += 1;
        calls::own_operation_id(self.config.pid, self.operations)
    }

    /// One webhook per platform, all under one operation id of their own.
    fn hook(
        &mut self,
        at: UnixMs,
        kind: WebhookKind,
        (user, platforms): (&str, Platforms),
        marks: &[ConnectionMark],
    ) {
        if platforms.is_empty() {
            return;
        }
        let operation_id = self.operation_id();
        for platform in platforms.ids() {
            let mark = marks.iter().rev().find(|mark| mark.platform == platform);
            self.webhooks.push(WebhookEvent {
                kind,
                operation_id: operation_id.clone(),
                user: user.into(),
                platform,
                at,
                connection_id: mark.map(|mark| mark.connection_id.clone()).unwrap_or_default(),
                background: mark.is_some_and(|mark| mark.background),
            });
        }
    }

    fn hook_renewed(&mut self, now: UnixMs) {
        let renewed = self.reports.renewed.as_mut().map(std::mem::take).unwrap_or_default();
        for (user, platforms) in renewed {
            self.hook(now, WebhookKind::Online, (&user, platforms), &[]);
        }
    }
}

#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod moves_tests;
#[cfg(test)]
mod status_tests;
#[cfg(test)]
mod tests;
