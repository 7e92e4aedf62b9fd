//! What the user service is told: a dirty set in lanes, one request in flight per lane (spec 9.1, 9.4, 9.5).
//!
//! What always holds: a user is in exactly one place ([`Place`]); he is in at most one request, so that what is told
//! of him arrives in order; what was told in vain is merged under what came meanwhile and told again.
//!
//! A user who has logged in elsewhere on the same platform is handed over: that he leaves here is not told, which would
//! take away what the other gateway has said of him (spec 9.2), and its word is the last one. That is so if nothing
//! was said of him here since before that login: his last record is older than the news of a login can be
//! (`steady_ms`). It is true until `online_change` says that he is gone there.
//!
//! A request that timed out may be carried out after its successor. What followed it is therefore told once more,
//! `settle_ms` later. A refused request says nothing of the users behind the one it stopped at (spec 5.2): it is
//! halved until the one that is refused stands alone, who then goes to the end of the queue.

mod handover;

use bytes::Bytes;
use prost::Message;

use super::change::Change;
use super::config::ReportTimes;
use super::lane::{Flight, Lane, Place, Sent, User};
use super::platforms::Platforms;
use super::renewal::Renewal;
use super::table::Table;
use crate::pb::openim::user::{SetUserOnlineStatusReq, SetUserStatusReq, UserOnlineStatus};
use crate::random::draw;
use crate::time::Mono;

/// Whether a request says all of many users, or one change of one (OpenIM 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    Batches,
    OneByOne,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Done,
    /// It was carried out in part or not at all, and will not be.
    Refused,
    /// It may have been carried out, and may still be.
    Unknown,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportCounts {
    pub(super) done: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
    pub(super) late: u64,
    pub(super) renewals: u64,
    pub(super) repairs: u64,
    pub(super) echoes: u64,
    /// Leavings that were not told.
    pub(super) handed_over: u64,
    pub(super) forgotten: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Reports {
    manner: Manner,
    times: ReportTimes,
    pub(super) users: Table<User>,
    lanes: Vec<Lane>,
    /// Users in the table who are not online here.
    departed: usize,
    random: u64,
    /// The end of the drain, once it has begun.
    drain: Option<Mono>,
    /// Who was renewed since this was emptied, and where he is online; `None`: nobody wants to know.
    pub(super) renewed: Option<Vec<(Box<str>, Platforms)>>,
    pub(super) counts: ReportCounts,
}

impl Reports {
    pub(super) fn new(manner: Manner, times: ReportTimes, key: [u64; 2]) -> Self {
        let batch_max = if manner == Manner::OneByOne { 1 } else { times.batch_max.max(1) };
        let times = ReportTimes { batch_max, lanes: times.lanes.max(1), ..times };
        let lane = |_| Lane::new(batch_max, Renewal::new(times.renewal));
        Self {
            manner,
            times,
            users: Table::new(key),
            lanes: (0..times.lanes).map(lane).collect(),
            departed: 0,
            random: key[0] ^ key[1].rotate_left(32),
            drain: None,
            renewed: None,
            counts: ReportCounts::default(),
        }
    }

    /// A user has changed. Gives where he was and where he is.
    pub(super) fn record(&mut self, now: Mono, user: &str, mut change: Change) -> (Platforms, Platforms) {
        if self.drain.is_some() {
            // All sockets are closed: a record that says otherwise was overtaken by the end.
            change.gone = change.gone.or(change.online);
            change.online = Platforms::NONE;
        }
        let Change { online, gone, .. } = change;
        let found = self.users.find(user);
        if found.is_none() && online.or(gone).is_empty() {
            return (Platforms::NONE, online);
        }
        let Some(at) = found.or_else(|| self.insert(now, user)) else {
            return (Platforms::NONE, online);
        };
        let handed_over = self.hand_over(now, at, &change);
        let before = self.set_online(at, online, gone);
        if let Some(user) = self.users.row_mut(at) {
            self.counts.handed_over += u64::from(!user.offline.and(handed_over).is_empty());
            user.offline = user.offline.without(handed_over);
            user.told = user.told.without(handed_over);
        }
        // News of a login elsewhere alone are nothing to tell.
        if before != online || !gone.is_empty() || change.elsewhere.is_empty() {
            self.mark(now, at);
        }
        let out = self.users.row(at).is_none_or(|user| user.place == Place::Out);
        if online.is_empty() && self.departed > self.times.departed_max && !out {
            self.counts.forgotten += 1;
            self.remove(now, at);
        }
        (before, online)
    }

    /// Somebody said that a user is online at `seen` only. Told otherwise if he is here too (spec 9.4): without waiting
    /// for others, since until then nobody pushes to him, at most once per `settle_ms`, and once more after that time.
    pub(super) fn repair(&mut self, now: Mono, user: &str, seen: Platforms) {
        let Some(at) = self.users.find(user) else { return };
        let Some(user) = self.users.row_mut(at) else { return };
        let missing = user.online.without(seen);
        if missing.is_empty() || self.manner == Manner::OneByOne {
            return;
        }
        user.elsewhere = user.elsewhere.without(missing);
        let is_dirty = user.place == Place::Dirty;
        self.counts.repairs += u64::from(!is_dirty);
        if now >= user.repair_after {
            user.repair_after = now.plus_ms(self.times.settle_ms);
            if let Some(lane) = self.lanes.get_mut(usize::from(user.lane)) {
                lane.is_urgent = true;
            }
            return self.mark(now, at);
        }
        if is_dirty {
            return;
        }
        user.echo = user.echo.or(missing);
        if user.place == Place::Idle {
            self.shift(now, at, Place::Settling);
        }
    }

    /// Others may have said since that a user left these platforms: those where he is still online are told again.
    pub(super) fn repeat(&mut self, now: Mono, user: &str, platforms: Platforms) {
        let Some(at) = self.users.find(user) else { return };
        let Some(user) = self.users.row_mut(at) else { return };
        let here = user.online.without(user.online.without(platforms));
        if !here.is_empty() {
            user.told = user.told.without(here);
            self.mark(now, at);
        }
    }

    /// Others may have said what we did not hear: everybody here is told again.
    pub(super) fn heal(&mut self, now: Mono) {
        self.take_back();
        self.lanes.iter_mut().for_each(|lane| lane.renewal.heal(now));
    }

    /// Who is here is this gateway's again, wherever else he has logged in: whether he leaves there is not heard.
    pub(super) fn take_back(&mut self) {
        for at in 0..self.users.positions() {
            if let Some(user) = self.users.row_mut(at) {
                user.elsewhere = Platforms::NONE;
            }
        }
    }

    /// From here on nobody is online here. `left` hears who was, and where.
    pub(super) fn drain(&mut self, now: Mono, deadline: Mono, mut left: impl FnMut(&str, Platforms)) {
        self.drain = Some(deadline);
        for at in 0..self.users.positions() {
            let before = self.set_online(at, Platforms::NONE, Platforms::NONE);
            let Some(user) = self.users.row_mut(at) else { continue };
            let echo = std::mem::take(&mut user.echo);
            user.tell_again(echo);
            if !before.is_empty() {
                left(&user.user, before);
            }
            self.mark(now, at);
        }
        self.lanes.iter_mut().for_each(|lane| lane.not_before = now);
    }

    /// The next request that may leave, and its deadline. Call until `None`.
    pub(super) fn begin(&mut self, now: Mono, number: u64) -> Option<(Bytes, Mono)> {
        for lane in 0..self.lanes.len() {
            self.time_out(now, lane);
            if self.drain.is_some_and(|deadline| now >= deadline) {
                continue;
            }
            self.wake(now, lane);
            if !self.is_ready(now, lane) {
                continue;
            }
            let sent = self.load(now, lane);
            if sent.is_empty() {
                continue;
            }
            let body = self.encode(&sent);
            let deadline = now.plus_ms(self.times.deadline_ms);
            self.lanes.get_mut(lane)?.flight = Some(Flight { number, deadline, sent });
            return Some((body, deadline));
        }
        None
    }

    /// A request came back. One that is not in flight any more is counted.
    pub(super) fn end(&mut self, now: Mono, number: u64, told: Told) {
        let his = |lane: &Lane| lane.flight.as_ref().is_some_and(|flight| flight.number == number);
        match self.lanes.iter().position(his) {
            Some(lane) => self.land(now, lane, told),
            None => self.counts.late += 1,
        }
    }

    /// Users of whom not all is told.
    pub(super) fn untold(&self) -> usize {
        self.users.len() - self.lanes.iter().map(|lane| lane.idle.len()).sum::<usize>()
    }

    /// Users of whom something is to be told, and is not on its way.
    #[cfg(test)]
    pub(super) fn dirty(&self) -> usize {
        self.lanes.iter().map(|lane| lane.dirty.len()).sum()
    }

    /// Users who are online here.
    pub(super) fn online(&self) -> usize {
        self.users.len() - self.departed
    }

    fn insert(&mut self, now: Mono, user: &str) -> Option<u32> {
        let lane = (self.users.hash(user) >> 32) % u64::from(self.times.lanes);
        let at = self.users.insert(User::new(user, u8::try_from(lane).unwrap_or(0)))?;
        self.departed += 1;
        self.shift(now, at, Place::Dirty);
        Some(at)
    }

    /// Gives where he was online.
    fn set_online(&mut self, at: u32, online: Platforms, gone: Platforms) -> Platforms {
        let Some(user) = self.users.row_mut(at) else {
            return Platforms::NONE;
        };
        let before = std::mem::replace(&mut user.online, online);
        user.offline = user.offline.or(gone).or(before).without(online);
        self.departed += usize::from(online.is_empty());
        self.departed -= usize::from(before.is_empty());
        before
    }

    /// There is something to tell of him.
    fn mark(&mut self, now: Mono, at: u32) {
        let Some(user) = self.users.row_mut(at) else { return };
        match user.place {
            Place::Out => user.again = true,
            Place::Dirty => {}
            Place::Settling | Place::Idle => self.shift(now, at, Place::Dirty),
        }
    }

    /// Takes him from his place to the end of another.
    fn shift(&mut self, now: Mono, at: u32, to: Place) {
        let Some(user) = self.users.row_mut(at) else { return };
        let from = std::mem::replace(&mut user.place, to);
        user.was_steady = from == Place::Idle && now.since_ms(user.since) >= self.times.steady_ms;
        if to != Place::Out {
            user.since = now;
        }
        let Some(lane) = self.lanes.get_mut(usize::from(user.lane)) else { return };
        if let Some(list) = lane.list(from) {
            list.remove(&mut self.users, at);
        }
        if let Some(list) = lane.list(to) {
            list.push_back(&mut self.users, at);
        }
    }

    fn remove(&mut self, now: Mono, at: u32) {
        self.shift(now, at, Place::Out);
        if self.users.remove(at).is_some_and(|user| user.online.is_empty()) {
            self.departed -= 1;
        }
    }

    /// Makes those dirty whose time has come.
    fn wake(&mut self, now: Mono, lane: usize) {
        for _ in 0..self.times.batch_max {
            let Some(at) = self.lanes.get(lane).and_then(|lane| lane.settling.first()) else { break };
            let settle_ms = self.times.settle_ms;
            let Some(user) = self.users.row_mut(at).filter(|user| now.since_ms(user.since) >= settle_ms)
            else {
                break;
            };
            let echo = std::mem::take(&mut user.echo);
            user.tell_again(echo);
            self.counts.echoes += 1;
            self.shift(now, at, Place::Dirty);
        }
        if self.manner == Manner::Batches {
            self.renew(now, lane);
        }
    }

    fn renew(&mut self, now: Mono, number: usize) {
        let Some(users) = self.lanes.get(number).map(|lane| lane.idle.len()) else { return };
        let Some((_, oldest)) = self.oldest_idle(number) else { return };
        if !self.lanes.get(number).is_some_and(|lane| lane.renewal.may_begin(now, oldest)) {
            return;
        }
        for _ in 0..self.times.batch_max {
            let Some((at, told)) = self.oldest_idle(number) else { break };
            if !self.lanes.get(number).is_some_and(|lane| lane.renewal.is_due(now, told)) {
                break;
            }
            self.counts.renewals += 1;
            if let (Some(renewed), Some(user)) = (&mut self.renewed, self.users.row(at)) {
                renewed.push((user.user.clone(), user.online));
            }
            self.shift(now, at, Place::Dirty);
        }
        let oldest = self.oldest_idle(number).map(|(_, told)| told);
        if let Some(lane) = self.lanes.get_mut(number) {
            lane.renewal.began(now, (users, self.times.batch_max), oldest);
        }
    }

    fn oldest_idle(&self, lane: usize) -> Option<(u32, Mono)> {
        let at = self.lanes.get(lane)?.idle.first()?;
        Some((at, self.users.row(at)?.since))
    }

    fn is_ready(&self, now: Mono, lane: usize) -> bool {
        let Some(lane) = self.lanes.get(lane).filter(|l| l.flight.is_none() && now >= l.not_before) else {
            return false;
        };
        let first = lane.dirty.first().and_then(|at| self.users.row(at));
        first.is_some_and(|first| {
            let waited = now.since_ms(first.since) >= self.times.flush_ms;
            waited || lane.is_urgent || lane.dirty.len() >= lane.size || self.drain.is_some()
        })
    }

    /// Takes the users of the next request out of the dirty ones.
    fn load(&mut self, now: Mono, lane: usize) -> Vec<Sent> {
        let size = self.lanes.get_mut(lane).map_or(0, |lane| {
            lane.is_urgent = false;
            lane.size
        });
        let mut sent = Vec::with_capacity(size);
        while sent.len() < size {
            let Some(at) = self.lanes.get(lane).and_then(|lane| lane.dirty.first()) else { break };
            self.shift(now, at, Place::Out);
            let Some(user) = self.users.row_mut(at) else { break };
            let (online, offline) = match self.manner {
                Manner::Batches => (user.online, user.offline),
                Manner::OneByOne => user.next_change(),
            };
            user.offline = user.offline.without(offline);
            if online.or(offline).is_empty() {
                self.rest(now, at);
            } else {
                sent.push(Sent { at, online, offline });
            }
        }
        sent
    }

    fn encode(&self, sent: &[Sent]) -> Bytes {
        let user = |sent: &Sent| self.users.row(sent.at).map_or("", |user| &user.user).to_owned();
        if self.manner == Manner::OneByOne {
            let change = sent.first().map(|sent| SetUserStatusReq {
                user_id: user(sent),
                status: i32::from(sent.offline.is_empty()),
                platform_id: sent.online.or(sent.offline).ids().next().unwrap_or_default(),
            });
            return change.unwrap_or_default().encode_to_vec().into();
        }
        let status = |sent: &Sent| UserOnlineStatus {
            user_id: user(sent),
            conn_id: String::new(),
            online: sent.online.to_vec(),
            offline: sent.offline.to_vec(),
        };
        SetUserOnlineStatusReq { status: sent.iter().map(status).collect() }.encode_to_vec().into()
    }

    fn time_out(&mut self, now: Mono, lane: usize) {
        let flight = self.lanes.get(lane).and_then(|lane| lane.flight.as_ref());
        if flight.is_some_and(|flight| now >= flight.deadline) {
            self.land(now, lane, Told::Unknown);
        }
    }

    fn land(&mut self, now: Mono, lane: usize, told: Told) {
        let Some(flight) = self.lanes.get_mut(lane).and_then(|lane| lane.flight.take()) else {
            return;
        };
        match told {
            Told::Done => self.succeeded(now, lane, &flight.sent),
            Told::Refused | Told::Unknown => self.failed(now, lane, &flight.sent, told),
        }
    }

    fn succeeded(&mut self, now: Mono, lane: usize, sent: &[Sent]) {
        self.counts.done += 1;
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.failures = 0;
            lane.size = lane.size.saturating_mul(2).min(self.times.batch_max);
        }
        for sent in sent {
            if let Some(user) = self.users.row_mut(sent.at) {
                user.told = user.told.or(sent.online).without(sent.offline);
            }
            self.rest(now, sent.at);
        }
    }

    fn failed(&mut self, now: Mono, number: usize, sent: &[Sent], told: Told) {
        let wait_ms = self.backoff_ms(number);
        let Some(lane) = self.lanes.get_mut(number) else { return };
        lane.failures = lane.failures.saturating_add(1);
        lane.not_before = now.plus_ms(wait_ms);
        if told == Told::Refused {
            self.counts.refused += 1;
            lane.size = (sent.len() / 2).max(1);
        } else {
            self.counts.unknown += 1;
        }
        // Who is refused alone does not keep the others waiting.
        let last = sent.len() == 1 && (told == Told::Refused || self.manner == Manner::OneByOne);
        for sent in sent.iter().rev() {
            let Some(user) = self.users.row_mut(sent.at) else { continue };
            user.again = false;
            user.tell_again(sent.offline);
            if told == Told::Unknown {
                user.echo = user.echo.or(sent.online).or(sent.offline);
            }
            if last {
                self.shift(now, sent.at, Place::Dirty);
            } else {
                user.place = Place::Dirty;
                if let Some(lane) = self.lanes.get_mut(number) {
                    lane.dirty.push_front(&mut self.users, sent.at);
                }
            }
        }
    }

    /// All is told of him, for now.
    fn rest(&mut self, now: Mono, at: u32) {
        let Some(user) = self.users.row_mut(at) else { return };
        if self.drain.is_some() {
            user.echo = Platforms::NONE; // there is no time to tell it once more
        }
        let (online, offline) = user.next_change();
        let more = self.manner == Manner::OneByOne && !online.or(offline).is_empty();
        let to = match std::mem::take(&mut user.again) || more {
            true => Place::Dirty,
            false if !user.echo.is_empty() => Place::Settling,
            false if !user.online.is_empty() => Place::Idle,
            false => return self.remove(now, at),
        };
        self.shift(now, at, to);
    }

    /// Doubles with each failure in a row; the half of it is random, so that gateways do not come back together.
    fn backoff_ms(&mut self, lane: usize) -> u64 {
        let failures = self.lanes.get(lane).map_or(0, |lane| lane.failures);
        let doubled = self.times.backoff_first_ms.saturating_mul(1 << failures.min(20));
        let most = if self.drain.is_some() { self.times.backoff_first_ms } else { self.times.backoff_ms };
        let half = doubled.min(most) / 2;
        half + draw(&mut self.random) % (half + 1)
    }
}
