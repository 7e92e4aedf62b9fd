//! The hub's part in a cluster (routing-protocol.md 5.3, C3, section 7): which logins it may complete by itself, those
//! that wait for the node's router, the keys of connections, and whom a login elsewhere ends. `cluster` is the words.
//!
//! What always holds: a login is completed without asking only while this node is its user's home under every
//! placement that was added and not taken back, and at least one was; so whoever was registered before a placement was
//! added is in the answer to it or has asked. Whoever was named to the router, by a question or by his registration,
//! is named once more when he ends, after everything else about him. News leave in order and none is lost.
//!
//! Not here: who ends for whom, and who tells the auth service (`rivals`).

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::cluster::{ClusterMail, ClusterNews, ConnNumber, Key, Login, Resident, TokenMarks};
use super::login::NewLogin;
use super::login_policy::class_of;
use super::rivals::Rival;
use super::{Hub, Note};
use crate::ids::{ConnId, Platform, ShardId, SlotId, Text};
use crate::limits;
use crate::metrics::Metric;
use crate::placement::Placement;
use crate::placement::view::{Epoch, NodeId};
use crate::session::disconnect::Disconnect;
use crate::session::{Credentials, Phase, Session};
use crate::time::Now;

/// In [`Claims::times`]: the router does not know the connection.
const UNKNOWN: u64 = 0;
/// In [`Claims::times`]: it has asked and is not registered.
const ASKING: u64 = u64::MAX;
/// [`Claims::times`] grows by so many.
const TIMES_STEP: usize = 4096;

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    me: NodeId,
    shard: ShardId,
    /// The placements added and not taken back, oldest first.
    in_force: Vec<(Epoch, Placement)>,
    /// More were added than are kept: nobody is at home.
    blind: bool,
    /// Answers to placements that are being put together, oldest first.
    walks: VecDeque<Walk>,
    /// The greatest time that a login got or was heard of (K1).
    floor: u64,
    /// By slot: the time of the connection's key, [`UNKNOWN`] or [`ASKING`]. Eight bytes, and none for a node alone.
    times: Vec<u64>,
    /// Slots of connections of whose login the auth service was told ([`Claims::tells`]).
    told: BTreeSet<u32>,
    asking: usize,
    news: VecDeque<ClusterNews>,
}

/// A walk over the table of users.
#[derive(Debug, Serialize, Deserialize)]
struct Walk {
    epoch: Epoch,
    next: u32,
    residents: Vec<Resident>,
    /// Connections that ended meanwhile: the router hears of it after the answer, in which they may be.
    gone: Vec<u64>,
}

/// What becomes of a login whose turn has come.
enum Way {
    /// Alone, or at home.
    Register,
    Ask(ClusterNews),
    Refuse,
}

/// The login to which another one has to give way.
pub(super) struct Winner {
    pub(super) conn: ConnId,
    pub(super) platform: Platform,
    pub(super) token: Box<str>,
}

impl Claims {
    pub(super) fn new(me: NodeId, shard: ShardId) -> Self {
        Self {
            me,
            shard,
            in_force: Vec::new(),
            blind: false,
            walks: VecDeque::new(),
            floor: 0,
            times: Vec::new(),
            told: BTreeSet::new(),
            asking: 0,
            news: VecDeque::new(),
        }
    }

    /// Logins that wait for the router.
    pub(super) fn asking(&self) -> usize {
        self.asking
    }

    /// News that wait.
    pub(super) fn waiting(&self) -> usize {
        self.news.len()
    }

    /// An answer is being put together.
    pub(super) fn has_work(&self) -> bool {
        !self.walks.is_empty()
    }

    fn is_home(&self, user: &str) -> bool {
        let here = |(_, placement): &(Epoch, Placement)| placement.home(user) == Some(&self.me);
        !self.blind && !self.in_force.is_empty() && self.in_force.iter().all(here)
    }

    fn number(&self, conn: ConnId) -> u64 {
        ConnNumber::of(self.shard, conn)
    }

    fn time(&self, conn: ConnId) -> u64 {
        self.times.get(conn.index()).copied().unwrap_or(UNKNOWN)
    }

    fn set_time(&mut self, conn: ConnId, time: u64) {
        if conn.index() >= self.times.len() {
            let len = (conn.index() + 1).next_multiple_of(TIMES_STEP);
            self.times.reserve_exact(len - self.times.len());
            self.times.resize(len, UNKNOWN);
        }
        if let Some(entry) = self.times.get_mut(conn.index()) {
            self.asking -= usize::from(*entry == ASKING);
            self.asking += usize::from(time == ASKING);
            *entry = time;
        }
    }

    /// The key of a registered connection.
    pub(super) fn key(&self, conn: ConnId) -> Option<Key> {
        let time = self.time(conn);
        let key = || Key { time, node: self.me.clone(), number: self.number(conn) };
        (!matches!(time, UNKNOWN | ASKING)).then(key)
    }

    /// Whether the auth service is to be told of this login now: once.
    pub(super) fn tells(&mut self, conn: ConnId) -> bool {
        self.told.insert(conn.0.index)
    }

    pub(super) fn raise_floor(&mut self, time: u64) {
        self.floor = self.floor.max(time);
    }

    /// The time of a login that registers by itself (K1).
    fn next_time(&mut self, now: Now) -> u64 {
        let clock = u64::try_from(now.unix.0).unwrap_or_default();
        self.floor = clock.max(self.floor.saturating_add(1)).min(ASKING - 1);
        self.floor
    }

    /// Returns whether one was forgotten for it.
    fn add(&mut self, epoch: Epoch, placement: Placement) -> bool {
        let full = self.in_force.len() >= limits::PLACEMENTS_MAX;
        if full {
            self.blind = true;
            let (oldest, _) = self.in_force.remove(0);
            self.give_up_walks(|epoch| epoch != oldest);
        }
        self.in_force.push((epoch, placement));
        let (residents, gone) = (Vec::new(), Vec::new());
        self.walks.push_back(Walk { epoch, next: 0, residents, gone });
        full
    }

    fn only(&mut self, epoch: Epoch) {
        self.in_force.retain(|(of, _)| *of == epoch);
        self.blind = false;
        self.give_up_walks(|of| of == epoch);
    }

    /// Puts no more answers together than these: nobody waits for the others. The ends that were to follow them are
    /// told all the same.
    fn give_up_walks(&mut self, kept: impl Fn(Epoch) -> bool) {
        let (kept, dropped): (VecDeque<_>, VecDeque<_>) =
            self.walks.drain(..).partition(|walk| kept(walk.epoch));
        self.walks = kept;
        dropped.into_iter().for_each(|walk| self.tell_gone(walk.gone));
    }

    /// Says that a login met others here.
    pub(super) fn say_met(&mut self, key: Key) {
        self.news.push_back(ClusterNews::Met(key));
    }

    /// Says that tokens have ended.
    pub(super) fn say_marks(&mut self, marks: TokenMarks) {
        self.news.push_back(ClusterNews::Marks(marks));
    }

    /// Says that connections have ended: after the answers in which they may be.
    fn tell_gone(&mut self, numbers: Vec<u64>) {
        match self.walks.back_mut() {
            Some(last) => last.gone.extend(numbers),
            None => self.news.extend(numbers.into_iter().map(ClusterNews::Gone)),
        }
    }

    /// Looks for disagreements; see [`super::audit`].
    pub(super) fn audit(&self, sessions: &[(ConnId, &Session)]) -> Result<(), String> {
        let claiming = sessions.iter().filter(|(_, session)| session.phase == Phase::Claiming).count();
        if claiming != self.asking {
            return Err(format!("{claiming} logins wait for the router, {} are counted", self.asking));
        }
        for (conn, session) in sessions {
            let fits = match self.time(*conn) {
                UNKNOWN => !session.is_registered(),
                ASKING => session.phase == Phase::Claiming,
                _ => session.is_registered(),
            };
            if !fits {
                return Err(format!("connection {conn}: its key does not match its phase"));
            }
        }
        let open = |index: &u32| self.times.get(*index as usize).is_some_and(|time| *time != UNKNOWN);
        if !self.told.iter().all(open) {
            return Err("the auth service was told of a login that is nobody's".to_owned());
        }
        let known = self.times.iter().filter(|time| **time != UNKNOWN).count();
        let named =
            |(_, session): &&(ConnId, &Session)| session.is_registered() || session.phase == Phase::Claiming;
        if known != sessions.iter().filter(named).count() {
            return Err(format!("{known} slots have keys, other than their sessions"));
        }
        Ok(())
    }
}

impl Hub {
    /// Takes a connection from the register queue: registers it, or asks the node's router first.
    pub(super) fn take_login(&mut self, now: Now, conn: ConnId) {
        if self.user_is_full(conn) {
            self.tally.count(Metric::HandshakeUserFull);
            return self.refuse_busy(now, conn, Disconnect::LoginRefused);
        }
        match self.way_of(conn) {
            Way::Register => self.register(now, conn, None),
            Way::Ask(news) => {
                if let (Some(session), Some(claims)) = (self.registry.session_mut(conn), &mut self.claims) {
                    session.phase = Phase::Claiming;
                    claims.set_time(conn, ASKING);
                    claims.news.push_back(news);
                    self.trace.note(Note::Asked, &[conn.0.index.into()]);
                }
            }
            Way::Refuse => {
                self.tally.count(Metric::HandshakeBusy);
                self.refuse_busy(now, conn, Disconnect::LoginRefused);
            }
        }
    }

    fn way_of(&self, conn: ConnId) -> Way {
        let session = self.registry.session(conn).filter(|s| s.phase == Phase::Registering);
        let (Some(claims), Some(session)) = (&self.claims, session) else { return Way::Register };
        let Credentials::Login(login) = &session.credentials else { return Way::Register };
        if claims.news.len() >= limits::CLUSTER_NEWS_MAX {
            return Way::Refuse; // the router does not keep up
        }
        let Some(ConnNumber(number)) = ConnNumber::new(claims.shard, conn) else { return Way::Refuse };
        if claims.is_home(&login.user) {
            return Way::Register;
        }
        let class = class_of(self.config.login_policy, session.platform);
        let token = class.and_then(|_| self.token_name(&login.token));
        Way::Ask(ClusterNews::Login(Login { number, user: Text::from(&*login.user), class, token }))
    }

    /// Gives a login that registers now its key: the time that its home gave, or one of its own. Returns the newer
    /// login of the user to which it must give way, if one was faster.
    pub(super) fn give_key(
        &mut self,
        now: Now,
        conn: ConnId,
        (new, time): (&NewLogin<'_>, Option<u64>),
    ) -> Option<Winner> {
        let claims = self.claims.as_mut()?;
        let time = time.unwrap_or_else(|| claims.next_time(now)).clamp(1, ASKING - 1);
        claims.raise_floor(time);
        claims.set_time(conn, time);
        self.trace.note(Note::Keyed, &[conn.0.index.into(), time]);
        let (policy, own) = (self.config.login_policy, self.key_of(conn)?);
        let class = class_of(policy, new.platform)?;
        let newer = |other: ConnId| self.key_of(other).is_some_and(|key| key > own);
        let mut rivals = self.registry.connections(new.user).filter(|(other, session)| {
            session.phase == Phase::Open
                && class_of(policy, session.platform) == Some(class)
                && newer(*other)
                && !self.spares(&session.token(new.user), new)
        });
        let (conn, winner) = rivals.next()?;
        Some(Winner { conn, platform: winner.platform, token: winner.token(new.user).into() })
    }

    pub(super) fn key_of(&self, conn: ConnId) -> Option<Key> {
        self.claims.as_ref()?.key(conn)
    }

    fn resident(&self, conn: ConnId) -> Option<Resident> {
        let (key, session) = (self.key_of(conn)?, self.registry.session(conn)?);
        let user = self.registry.user_of(session)?;
        let class = class_of(self.config.login_policy, session.platform);
        let token = class.and_then(|_| self.token_name(&session.token(user)));
        Some(Resident { number: key.number, user: Text::from(user), class, token, key })
    }

    /// Tells the router of a connection that is registered.
    pub(super) fn say_registered(&mut self, conn: ConnId) {
        if let Some(resident) = self.resident(conn)
            && let Some(claims) = &mut self.claims
        {
            claims.news.push_back(ClusterNews::Registered(resident));
        }
    }

    /// Tells the router that a connection which it knows has ended.
    pub(super) fn say_gone(&mut self, conn: ConnId) {
        if let Some(claims) = &mut self.claims
            && claims.time(conn) != UNKNOWN
        {
            claims.set_time(conn, UNKNOWN);
            claims.told.remove(&conn.0.index);
            let number = claims.number(conn);
            claims.tell_gone(vec![number]);
        }
    }

    /// The next news for the node's router, in order.
    pub fn next_news(&mut self) -> Option<ClusterNews> {
        let news = self.claims.as_mut()?.news.pop_front()?;
        if let Some(recorder) = &mut self.recorder {
            recorder.news();
        }
        Some(news)
    }

    /// Whether no news wait for the node's router.
    pub fn is_silent(&self) -> bool {
        self.claims.as_ref().is_none_or(|claims| claims.news.is_empty())
    }

    /// From the node's router. A node that is alone has none.
    pub(super) fn cluster_mail(&mut self, now: Now, mail: ClusterMail) {
        let Some(claims) = &mut self.claims else { return };
        match mail {
            ClusterMail::Add { epoch, placement } => {
                if claims.add(epoch, placement) {
                    self.tally.count(Metric::ClusterPlacementsFull);
                }
            }
            ClusterMail::Only(epoch) => claims.only(epoch),
            ClusterMail::Floor(time) => claims.raise_floor(time),
            ClusterMail::Register { number, key } => {
                if let Some(conn) = self.asker(number) {
                    self.go(now, conn, key.time);
                }
            }
            ClusterMail::Refuse(number) => {
                if let Some(conn) = self.asker(number) {
                    self.tally.count(Metric::HandshakeBusy);
                    self.refuse_busy(now, conn, Disconnect::LoginRefused);
                }
            }
            ClusterMail::Kick { number, winner } => {
                claims.raise_floor(winner.time);
                if let Some(conn) = self.named(number)
                    && self.is_open(conn)
                    && self.key_of(conn).is_some_and(|key| key < winner)
                {
                    self.lose(now, conn);
                }
            }
            ClusterMail::Marks(marks) => self.take_marks(now, marks),
            ClusterMail::Judge { user, class, key, token } => {
                claims.raise_floor(key.time);
                self.judge(now, &user, Rival { class, key, token });
            }
            ClusterMail::Met(key) => {
                if let Some(conn) = self.named(key.number)
                    && self.is_open(conn)
                    && self.key_of(conn) == Some(key)
                {
                    self.met_others(now, conn);
                }
            }
        }
    }

    /// The router lets a login go: it registers now, unless its user has too many connections meanwhile.
    fn go(&mut self, now: Now, conn: ConnId, time: u64) {
        if let Some(session) = self.registry.session_mut(conn) {
            session.phase = Phase::Registering;
        }
        if self.user_is_full(conn) {
            self.say_gone(conn);
            self.tally.count(Metric::HandshakeUserFull);
            return self.refuse_busy(now, conn, Disconnect::LoginRefused);
        }
        self.register(now, conn, Some(time));
    }

    /// The connection that a number names, unless it has ended.
    fn named(&self, number: u64) -> Option<ConnId> {
        let number = ConnNumber(number);
        let slot: SlotId = self.registry.sessions.id_at(number.index())?;
        number.names(self.config.shard, ConnId(slot)).then_some(ConnId(slot))
    }

    /// The login that a number names, while it waits for the router.
    fn asker(&self, number: u64) -> Option<ConnId> {
        let conn = self.named(number)?;
        self.registry.session(conn).filter(|s| s.phase == Phase::Claiming).map(|_| conn)
    }

    fn is_open(&self, conn: ConnId) -> bool {
        self.registry.session(conn).is_some_and(|s| s.phase == Phase::Open && s.is_registered())
    }

    /// Goes on with the answer to a placement, so many users in a turn. Who registers meanwhile is at home under it
    /// or has asked, since it is in force from the first slice on.
    pub(super) fn switch_slice(&mut self) {
        let Some(claims) = &mut self.claims else { return };
        let Some(mut walk) = claims.walks.pop_front() else { return };
        let end = self.registry.user_positions().min(walk.next.saturating_add(limits::SWITCH_SLICE_MAX));
        for position in walk.next..end {
            self.look_for_strays(position, &mut walk);
        }
        walk.next = end;
        let done = end >= self.registry.user_positions();
        let shard = self.config.shard;
        let Some(claims) = &mut self.claims else { return };
        if !done {
            return claims.walks.push_front(walk);
        }
        let Walk { epoch, residents, gone, .. } = walk;
        self.trace.note(Note::Switched, &[epoch.0, residents.len() as u64]);
        claims.news.push_back(ClusterNews::Switched { shard, epoch, residents });
        claims.tell_gone(gone);
    }

    /// Adds the connections of a user whose home under the walk's placement is another node.
    fn look_for_strays(&self, position: u32, walk: &mut Walk) {
        let (Some(claims), Some(user)) = (&self.claims, self.registry.user_at(position)) else { return };
        let placement = claims.in_force.iter().find(|(epoch, _)| *epoch == walk.epoch);
        if placement.is_none_or(|(_, placement)| placement.home(&user.id) == Some(&claims.me)) {
            return;
        }
        let open = self.registry.connections(&user.id).filter(|(_, s)| s.phase == Phase::Open);
        walk.residents.extend(open.filter_map(|(conn, _)| self.resident(conn)));
    }
}
