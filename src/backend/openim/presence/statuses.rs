//! Where other users are online: answers for subscribers (2005), kept fresh by `online_change` (spec 3.5, 9.3).
//!
//! A bounded cache: the user asked for longest ago makes room. What is too old to be believed stays in it until then,
//! so that news reach it and a gap in the news can be mended. Concurrent questions for one user ask once.
//!
//! What always holds: each question is answered once, unless its deadline comes first: then it is dropped, since the
//! shard has answered for us. An `online_change` is newer than every answer that is still on its way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::config::StatusTimes;
use super::platforms::Platforms;
use super::table::{Links, List, Row, Table};
use crate::arena::Arena;
use crate::hub::upstream::{UpstreamError, UpstreamOutcome, UpstreamReply, UserPlatforms};
use crate::ids::{CallTicket, ShardId, SlotId};
use crate::time::Mono;

/// Positions of the cache that one resync step looks at.
const WALK_MAX: usize = 1_024;

/// Waiting questions that are gone are taken off a user's list when they are more than the others and so many.
const GONE_MAX: usize = 16;

/// A shard's question (`UpstreamRequest::UserStatus`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub shard: ShardId,
    /// The reply slot.
    pub ticket: CallTicket,
    /// The shard has given up by then.
    pub deadline: Mono,
    /// In the order of the answer; duplicates are kept.
    pub users: Vec<Box<str>>,
}

/// Totals since the start. One user of a question counts once, as a hit or as a miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StatusCounts {
    pub(super) hits: u64,
    pub(super) misses: u64,
    /// Misses that were in the cache, but too old.
    pub(super) expired: u64,
    pub(super) evictions: u64,
    pub(super) refused: u64,
    pub(super) failed: u64,
}

/// What is known of a user.
#[derive(Debug)]
pub(super) struct Entry {
    user: Box<str>,
    links: Links,
    /// Not believed from here on.
    until: Mono,
    /// Which subscription to `online_change` kept it fresh.
    epoch: u32,
    /// What was known last.
    platforms: Platforms,
    /// Asking failed: nothing is known until then.
    failed: bool,
}

impl Row for Entry {
    fn user(&self) -> &str {
        &self.user
    }

    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

/// A user who is being asked for, or will be.
#[derive(Debug, Default)]
struct Wanted {
    /// His place in the queue; in flight: the number of the request.
    number: u64,
    in_flight: bool,
    /// Asked for even if no question waits for him.
    resync: bool,
    /// The questions that wait for him, and which of their users he is. Some may be gone.
    waiting: Vec<(SlotId, usize)>,
    /// Those of them that are not gone.
    live: usize,
}

/// A question that waits.
#[derive(Debug)]
struct Waiting {
    question: Question,
    /// By user; `None`: he is waited for.
    found: Vec<Option<Platforms>>,
    missing: usize,
}

/// How a user of a question stands.
enum Look {
    Known(Platforms),
    Failed,
    Absent,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Statuses {
    times: StatusTimes,
    cache: Table<Entry>,
    /// Asked for longest ago first.
    used: List,
    epoch: u32,
    /// Where the resync goes on, while there is one, and when.
    resync: Option<(u32, Mono)>,
    wanted: BTreeMap<Box<str>, Wanted>,
    queue: BTreeMap<u64, Box<str>>,
    queued: u64,
    flights: BTreeMap<u64, (Mono, Vec<Box<str>>)>,
    questions: Arena<Waiting>,
    deadlines: BTreeSet<(Mono, SlotId)>,
    /// Users in questions that wait.
    waiting: usize,
    pub(super) replies: VecDeque<(ShardId, UpstreamReply)>,
    pub(super) news: VecDeque<UserPlatforms>,
    pub(super) counts: StatusCounts,
}

impl Statuses {
    pub(super) fn new(times: StatusTimes, key: [u64; 2]) -> Self {
        Self {
            times,
            cache: Table::new(key),
            used: List::EMPTY,
            epoch: 0,
            resync: None,
            wanted: BTreeMap::new(),
            queue: BTreeMap::new(),
            queued: 0,
            flights: BTreeMap::new(),
            questions: Arena::new(u32::MAX - 1),
            deadlines: BTreeSet::new(),
            waiting: 0,
            replies: VecDeque::new(),
            news: VecDeque::new(),
            counts: StatusCounts::default(),
        }
    }

    /// Answers at once, or when the user service has.
    pub(super) fn ask(&mut self, now: Mono, question: Question) {
        let looks: Vec<Look> = question.users.iter().map(|user| self.look(now, user)).collect();
        if looks.iter().any(|look| matches!(look, Look::Failed)) {
            return self.refuse(&question, UpstreamError::internal());
        }
        let known = |look: &Look| if let Look::Known(platforms) = look { Some(*platforms) } else { None };
        let found: Vec<Option<Platforms>> = looks.iter().map(known).collect();
        let missing = found.iter().filter(|found| found.is_none()).count();
        if missing == 0 {
            return self.answer(&question, &found);
        }
        let users = question.users.clone();
        if self.waiting + users.len() > self.times.waiting_max {
            self.counts.refused += 1;
            return self.refuse(&question, UpstreamError::internal());
        }
        let deadline = question.deadline;
        let waiting = Waiting { question, found, missing };
        let Ok(slot) = self.questions.insert(waiting) else { return }; // fewer questions than their users
        self.deadlines.insert((deadline, slot));
        self.waiting += users.len();
        for (place, (user, look)) in users.into_iter().zip(looks).enumerate() {
            if matches!(look, Look::Absent) {
                self.wait_for(user, slot, place);
            }
        }
    }

    /// The next users to ask for, under this number, and the deadline. Call until `None`.
    pub(super) fn begin(&mut self, now: Mono, number: u64) -> Option<(Vec<Box<str>>, Mono)> {
        self.time_out(now);
        if self.flights.len() >= self.times.calls_max {
            return None;
        }
        if self.queue.is_empty() {
            self.resync_step(now);
        }
        let mut users = Vec::new();
        while users.len() < self.times.batch_max.max(1)
            && let Some((_, user)) = self.queue.pop_first()
        {
            if let Some(wanted) = self.wanted.get_mut(&user) {
                (wanted.number, wanted.in_flight) = (number, true);
                users.push(user);
            }
        }
        if users.is_empty() {
            return None;
        }
        let deadline = now.plus_ms(self.times.deadline_ms);
        self.flights.insert(number, (deadline, users.clone()));
        Some((users, deadline))
    }

    /// An answer: who is not in it is offline.
    pub(super) fn end(
        &mut self,
        now: Mono,
        number: u64,
        answer: Result<BTreeMap<&str, Platforms>, UpstreamError>,
    ) {
        let Some((_, users)) = self.flights.remove(&number) else { return };
        for user in users {
            // An `online_change` that came meanwhile has answered for him, and he may be asked for anew.
            if !self.wanted.get(&user).is_some_and(|wanted| wanted.in_flight && wanted.number == number) {
                continue;
            }
            match &answer {
                Ok(online) => {
                    let platforms = online.get(&*user).copied().unwrap_or_default();
                    if self.known(&user).is_some_and(|known| known != platforms) {
                        self.tell(&user, platforms);
                    }
                    self.keep(now, &user, Some(platforms));
                    self.resolve(&user, &Ok(platforms));
                }
                Err(error) => {
                    self.counts.failed += 1;
                    self.keep(now, &user, None);
                    self.resolve(&user, &Err(error.clone()));
                }
            }
        }
        if let (Err(_), Some((_, at))) = (&answer, self.resync) {
            // From the start: the users of this request are passed already.
            self.resync = Some((0, at.max(now.plus_ms(self.times.failed_ms))));
        }
    }

    /// News: an entry is updated only if it is there (spec 9.3), questions are answered.
    pub(super) fn change(&mut self, now: Mono, user: &str, platforms: Platforms) {
        self.tell(user, platforms);
        if self.cache.find(user).is_some() || self.wanted.contains_key(user) {
            self.keep(now, user, Some(platforms));
            self.resolve(user, &Ok(platforms));
        }
    }

    /// News may have been missed until now: what is known is asked for anew, step by step, before it is believed.
    pub(super) fn resubscribed(&mut self, now: Mono) {
        self.epoch = self.epoch.wrapping_add(1);
        self.resync = Some((0, now));
    }

    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// Users in questions that wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    #[cfg(test)]
    pub(super) fn has(&self, user: &str) -> bool {
        self.cache.find(user).is_some()
    }

    /// Entries in the lists of wanted users.
    #[cfg(test)]
    pub(super) fn lists(&self) -> usize {
        self.wanted.values().map(|wanted| wanted.waiting.len()).sum()
    }

    fn look(&mut self, now: Mono, user: &str) -> Look {
        let Some(at) = self.cache.find(user) else {
            self.counts.misses += 1;
            return Look::Absent;
        };
        self.used.remove(&mut self.cache, at);
        self.used.push_back(&mut self.cache, at);
        let Some(entry) = self.cache.row(at).filter(|e| now < e.until && e.epoch == self.epoch) else {
            self.counts.misses += 1;
            self.counts.expired += 1;
            return Look::Absent;
        };
        self.counts.hits += 1;
        if entry.failed { Look::Failed } else { Look::Known(entry.platforms) }
    }

    /// What was known last, however old.
    fn known(&self, user: &str) -> Option<Platforms> {
        let entry = self.cache.row(self.cache.find(user)?)?;
        (!entry.failed).then_some(entry.platforms)
    }

    fn want(&mut self, user: Box<str>) -> &mut Wanted {
        let (queue, queued) = (&mut self.queue, &mut self.queued);
        self.wanted.entry(user).or_insert_with_key(|user| {
            *queued += 1;
            queue.insert(*queued, user.clone());
            Wanted { number: *queued, ..Wanted::default() }
        })
    }

    fn wait_for(&mut self, user: Box<str>, slot: SlotId, place: usize) {
        let wanted = self.want(user);
        wanted.waiting.push((slot, place));
        wanted.live += 1;
    }

    /// `None`: asking failed.
    fn keep(&mut self, now: Mono, user: &str, platforms: Option<Platforms>) {
        let lasts_ms = if platforms.is_some() { self.times.fresh_ms } else { self.times.failed_ms };
        let at = self.cache.find(user).or_else(|| self.make_entry(user));
        let Some(entry) = at.and_then(|at| self.cache.row_mut(at)) else { return };
        entry.until = now.plus_ms(lasts_ms);
        // A failure during a resync leaves him to it.
        if platforms.is_some() || self.resync.is_none() {
            entry.epoch = self.epoch;
        }
        match platforms {
            Some(platforms) => (entry.platforms, entry.failed) = (platforms, false),
            // What was known before the gap stays to be compared with.
            None => entry.failed = entry.epoch == self.epoch,
        }
    }

    fn make_entry(&mut self, user: &str) -> Option<u32> {
        if self.cache.len() >= self.times.entries_max.max(1) as usize
            && let Some(oldest) = self.used.first()
        {
            self.used.remove(&mut self.cache, oldest);
            self.cache.remove(oldest);
            self.counts.evictions += 1;
        }
        let at = self.cache.insert(Entry {
            user: user.into(),
            links: Links::UNLINKED,
            until: Mono(0),
            epoch: self.epoch,
            platforms: Platforms::NONE,
            failed: true,
        })?;
        self.used.push_back(&mut self.cache, at);
        Some(at)
    }

    /// Takes a user off the wanted ones and answers the questions that waited for him alone.
    fn resolve(&mut self, user: &str, status: &Result<Platforms, UpstreamError>) {
        let Some(wanted) = self.wanted.remove(user) else { return };
        if !wanted.in_flight {
            self.queue.remove(&wanted.number);
        }
        for (slot, place) in wanted.waiting {
            let Some(waiting) = self.questions.get_mut(slot) else { continue };
            waiting.missing -= 1;
            match status {
                Ok(platforms) => {
                    if let Some(found) = waiting.found.get_mut(place) {
                        *found = Some(*platforms);
                    }
                    if waiting.missing == 0
                        && let Some(done) = self.forget(slot)
                    {
                        self.answer(&done.question, &done.found);
                    }
                }
                Err(error) => {
                    if let Some(done) = self.forget(slot) {
                        self.refuse(&done.question, error.clone());
                    }
                }
            }
        }
    }

    /// Takes a question out; who is wanted for it alone and not asked for yet is wanted no more.
    fn forget(&mut self, slot: SlotId) -> Option<Waiting> {
        let waiting = self.questions.remove(slot)?;
        self.deadlines.remove(&(waiting.question.deadline, slot));
        self.waiting -= waiting.question.users.len();
        let missed = waiting.question.users.iter().zip(&waiting.found).filter(|(_, found)| found.is_none());
        for (user, _) in missed {
            let Some(wanted) = self.wanted.get_mut(user) else { continue };
            wanted.live -= 1;
            if wanted.live == 0 && !wanted.in_flight && !wanted.resync {
                self.queue.remove(&wanted.number);
                self.wanted.remove(user);
            } else if wanted.waiting.len() > 2 * wanted.live + GONE_MAX {
                // In pieces: each question would look through the lists of all its users otherwise.
                wanted.waiting.retain(|(waits, _)| self.questions.get(*waits).is_some());
            }
        }
        Some(waiting)
    }

    fn time_out(&mut self, now: Mono) {
        while let Some((deadline, slot)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.forget(slot);
        }
        let late = |(number, (deadline, _)): (&u64, &(Mono, _))| (*deadline <= now).then_some(*number);
        let late: Vec<u64> = self.flights.iter().filter_map(late).collect();
        for number in late {
            self.end(now, number, Err(UpstreamError::internal()));
        }
    }

    /// Wants a batch of those whose status may have changed unheard.
    fn resync_step(&mut self, now: Mono) {
        let Some((mut at, when)) = self.resync else { return };
        if now < when {
            return;
        }
        let end = self.cache.positions();
        let mut stale = Vec::new();
        for _ in 0..WALK_MAX {
            if at >= end || stale.len() >= self.times.batch_max.max(1) {
                break;
            }
            let entry = self.cache.row(at).filter(|entry| entry.epoch != self.epoch);
            stale.extend(entry.map(|entry| entry.user.clone()));
            at += 1;
        }
        stale.into_iter().for_each(|user| self.want(user).resync = true);
        let wanted_none = self.queue.is_empty() && self.flights.is_empty();
        self.resync = (at < end || !wanted_none).then(|| (at, now.plus_ms(self.times.resync_ms)));
    }

    fn tell(&mut self, user: &str, platforms: Platforms) {
        self.news.push_back(UserPlatforms { user: user.into(), platforms: platforms.to_vec() });
    }

    fn answer(&mut self, question: &Question, found: &[Option<Platforms>]) {
        let statuses = question.users.iter().zip(found).map(|(user, platforms)| UserPlatforms {
            user: user.clone(),
            platforms: platforms.unwrap_or_default().to_vec(),
        });
        let reply =
            UpstreamReply { ticket: question.ticket, outcome: UpstreamOutcome::Statuses(statuses.collect()) };
        self.replies.push_back((question.shard, reply));
    }

    fn refuse(&mut self, question: &Question, error: UpstreamError) {
        let reply = UpstreamReply { ticket: question.ticket, outcome: UpstreamOutcome::Failed(error) };
        self.replies.push_back((question.shard, reply));
    }
}
