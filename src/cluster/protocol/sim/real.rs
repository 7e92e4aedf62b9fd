//! The shards of production in place of the models: real hubs behind the real routers, with clients whose sockets take
//! everything at once. The checks are the same.

use std::collections::BTreeMap;

use super::super::io::{Input, Mail};
use super::host::{Client, Deed, Host, SHARDS, ShardMail};
use super::world::World;
use crate::cluster::protocol::frame::{Device, Key};
use crate::hub::cluster::{ClusterMail, ClusterNews, ConnNumber, Login as Asked};
use crate::hub::login_policy::LoginPolicy;
use crate::hub::mail::{
    Audience, DeviceOutcome, PushBody, PushMail, PushRules, Recipient, RpcOutcome, ShardMail as HubMail, Who,
};
use crate::hub::upstream::{UpstreamOutcome, UpstreamReply, UpstreamRequest};
use crate::hub::{Accepted, Effect, Hub, HubConfig, Input as HubInput, SendBatch};
use crate::ids::{ConnId, Platform, RpcId, RpcTicket, ShardId, SlotId, SourceId, Text};
use crate::metrics::Metric;
use crate::placement::view::NodeId;
use crate::session::disconnect::Disconnect;
use crate::session::handshake::Login;
use crate::time::{Mono, Now};
use crate::wire::envelope::{Encoding, Variant};
use crate::wire::upgrade::AcceptKey;

/// A hub and what stands around it.
pub struct RealShard {
    hub: Hub,
    /// Connections whose socket is open.
    sockets: BTreeMap<u64, ConnId>,
    /// Pushes that the hub has not answered: ticket of the router's push, recipients.
    asked: BTreeMap<u32, (u64, Vec<Text>)>,
    peers: u16,
    fault: Fault,
    /// What the auth service was told.
    pub told: Vec<UpstreamRequest>,
}

/// What a test may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Logins of strays are completed without asking.
    RegistersWithoutAsking,
    /// Nobody hears that a connection has ended.
    ForgetsGone,
    /// Logins of other nodes end nobody.
    IgnoresKicks,
    /// Nobody tells the auth service of a login that met others elsewhere.
    IgnoresMeetings,
    /// Logins do not name their tokens to other nodes.
    NamesNoTokens,
}

impl RealShard {
    fn new(config: HubConfig) -> Self {
        let hub = Hub::new(config);
        let (sockets, asked, told) = Default::default();
        Self { hub, sockets, asked, peers: 0, fault: Fault::None, told }
    }

    pub fn is_busy(&self) -> bool {
        self.hub.has_work() || !self.hub.is_silent()
    }

    /// Reads what a socket gets; gives the tickets of the pushes in it.
    fn read(&mut self, now: Now, conn: ConnId) -> Vec<u64> {
        let (mut batch, mut stream) = (SendBatch::default(), Vec::new());
        loop {
            let filled = self.hub.fill(conn, &mut batch);
            if filled == 0 {
                break;
            }
            let bytes: Vec<u8> =
                batch.frames.iter().flat_map(|f| f.bytes().to_vec()).skip(batch.skip).collect();
            stream.extend(bytes);
            self.hub.sent(now, conn, filled);
        }
        let text = String::from_utf8_lossy(&stream).into_owned();
        let named = text.split("\"push-").skip(1);
        named.map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect()
    }
}

/// By which rules hubs judge logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRules {
    pub policy: LoginPolicy,
    /// As OpenIM 3.5.
    pub kicks_same_token: bool,
}

impl Host {
    /// Real hubs from now on; of `cluster`, or on their own.
    pub fn take_hubs(&mut self, rules: LoginRules, cluster: Option<NodeId>) {
        let hub = |shard| {
            let LoginRules { policy: login_policy, kicks_same_token } = rules;
            let config = HubConfig::for_shard(ShardId(shard), 64);
            RealShard::new(HubConfig { login_policy, kicks_same_token, cluster: cluster.clone(), ..config })
        };
        self.hubs = (0..SHARDS).map(hub).collect();
    }

    /// A login on iOS with a token of its own.
    pub fn hub_login(&mut self, user: &Text, world: u64) {
        let index = Self::shard_of(user);
        let token = format!("token-{}-{}-{index}-{}", self.id, self.incarnation.0, self.hubs[index].peers);
        self.hub_arrive(user, (Platform::IOS, &token), world);
    }

    /// Returns the number of the connection.
    pub fn hub_arrive(&mut self, user: &Text, (platform, token): (Platform, &str), world: u64) -> u64 {
        let (now, index) = (self.now(world), Self::shard_of(user));
        let shard = &mut self.hubs[index];
        shard.peers += 1;
        let login = Login {
            user: user.as_str().into(),
            token: token.into(),
            platform,
            operation_id: "login".into(),
            variant: Variant { encoding: Encoding::Json, gzip: false },
            wants_response: false,
            forwarded_for: None,
            upgrade: Ok(AcceptKey::answer_to(b"key")),
        };
        let peer = ([10, 0, 0, 1], shard.peers).into();
        let conn = shard.hub.accepted(now, Accepted { peer, client: None, login: Box::new(login) }).unwrap();
        let number = ConnNumber::of(ShardId(u16::try_from(index).unwrap()), conn);
        shard.sockets.insert(number, conn);
        self.conns.insert(number, Client { user: user.clone(), class: None, token: None, key: None });
        self.hub_effects(index, now);
        number
    }

    /// The client's socket ends. A process that does not run hears of it when it goes on.
    pub fn hub_close(&mut self, number: u64, world: u64) -> Vec<Deed> {
        if self.asleep_until.is_some() || self.closing_until.is_some() {
            self.left.push(number);
            return self.conns.remove(&number).map(|_| Deed::Closed(number)).into_iter().collect();
        }
        let (now, index) = (self.now(world), usize::from(ConnNumber(number).shard().0));
        if let Some(conn) = self.hubs[index].sockets.get(&number) {
            let conn = *conn;
            self.hubs[index].hub.input(now, HubInput::TransportLost(conn));
        }
        self.hub_after(index, now, None)
    }

    /// The clocks of the hubs; their clients are alive.
    pub fn hub_tick(&mut self, world: u64) -> Vec<Deed> {
        let (now, mut deeds) = (self.now(world), Vec::new());
        for number in std::mem::take(&mut self.left) {
            deeds.extend(self.hub_close(number, world));
        }
        for index in 0..self.hubs.len() {
            let RealShard { hub, sockets, .. } = &mut self.hubs[index];
            for conn in
                sockets.values().filter(|conn| hub.user_of(**conn).is_some()).copied().collect::<Vec<_>>()
            {
                hub.bytes(now, conn, &mut [0x89, 0x80, 1, 2, 3, 4]);
            }
            hub.input(now, HubInput::Tick);
            deeds.extend(self.hub_after(index, now, None));
        }
        deeds
    }

    /// One mail, and one turn.
    pub fn hub_step(&mut self, index: usize, world: u64) -> Vec<Deed> {
        let now = self.now(world);
        let mut judge = None;
        if let Some(mail) = self.shards[index].inbox.pop_front() {
            let ignores = self.hubs[index].fault == Fault::IgnoresKicks;
            match self.hub_mail(index, now, mail) {
                HubMail::Cluster(mail) if ignores && is_kick(&mail) => {}
                HubMail::Cluster(mail)
                    if self.hubs[index].fault == Fault::IgnoresMeetings
                        && matches!(*mail, ClusterMail::Met(_)) => {}
                mail => {
                    judge = key_of(&mail);
                    self.hubs[index].hub.input(now, HubInput::Mail(mail));
                }
            }
        }
        self.hubs[index].hub.turn(now);
        self.hub_after(index, now, judge.as_ref())
    }

    fn hub_mail(&mut self, index: usize, now: Now, mail: ShardMail) -> HubMail {
        let cluster = |mail| HubMail::Cluster(Box::new(mail));
        match mail {
            ShardMail::Router(Mail::Add(epoch, placed)) => {
                cluster(ClusterMail::Add { epoch, placement: placed.placement().clone() })
            }
            ShardMail::Router(Mail::Only(epoch)) => cluster(ClusterMail::Only(epoch)),
            ShardMail::Router(Mail::Register(number, key)) => cluster(ClusterMail::Register { number, key }),
            ShardMail::Router(Mail::Refuse(number)) => cluster(ClusterMail::Refuse(number)),
            ShardMail::Router(Mail::Kick { number, winner }) => cluster(ClusterMail::Kick { number, winner }),
            ShardMail::Router(Mail::Judge { user, class, key, token }) => {
                cluster(ClusterMail::Judge { user, class, key, token })
            }
            ShardMail::Router(Mail::Met(key)) => cluster(ClusterMail::Met(key)),
            ShardMail::Router(Mail::Marks(marks)) => cluster(ClusterMail::Marks(marks)),
            ShardMail::Router(Mail::Deliver { .. }) => unreachable!("split in post"),
            ShardMail::Floor(time) => cluster(ClusterMail::Floor(time)),
            ShardMail::Deliver { leg, ticket, users } => {
                let index_of_leg = u32::try_from(leg).unwrap();
                self.hubs[index].asked.insert(index_of_leg, (ticket, users.clone()));
                let recipients = (0..).zip(users).map(|(slot, user)| Recipient { slot, user });
                let slot = SlotId { index: index_of_leg, generation: 0 };
                HubMail::Push(Box::new(PushMail {
                    ticket: Some(RpcTicket { rpc: RpcId(0), slot }),
                    source: SourceId(leg),
                    deadline: now.mono.plus_ms(10_000),
                    body: PushBody {
                        operation_id: Text::from(format!("push-{ticket}")),
                        conversation: "si_a_b".into(),
                        msg_data: bytes::Bytes::from_static(b"\x0a\x02hi"),
                        frames: None,
                    },
                    audience: Audience::Listed(recipients.collect()),
                    rules: PushRules::default(),
                }))
            }
        }
    }

    /// Everything that follows from what the hub did.
    fn hub_after(&mut self, index: usize, now: Now, winner: Option<&Key>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        self.hub_effects(index, now);
        self.hub_news(index, now, &mut deeds);
        while let Some(conn) = self.hubs[index].hub.next_flush() {
            let number = ConnNumber::of(ShardId(u16::try_from(index).unwrap()), conn);
            let tickets = self.hubs[index].read(now, conn);
            deeds.extend(tickets.into_iter().map(|ticket| Deed::Delivered { ticket, number }));
        }
        self.hub_effects(index, now);
        self.hubs[index].hub.audit().unwrap();
        self.hub_ends(index, winner, &mut deeds);
        deeds
    }

    fn hub_effects(&mut self, index: usize, now: Now) {
        while let Some(effect) = self.hubs[index].hub.next_effect() {
            match effect {
                Effect::Close(conn) => {
                    let number = ConnNumber::of(ShardId(u16::try_from(index).unwrap()), conn);
                    self.hubs[index].sockets.remove(&number);
                    self.hubs[index].hub.input(now, HubInput::TransportClosed(conn));
                }
                Effect::Call(call) => {
                    let UpstreamRequest::ParseToken { .. } = call.request else {
                        self.hubs[index].told.push(call.request);
                        continue;
                    };
                    let outcome = UpstreamOutcome::Token {
                        user: call.metadata.user.clone(),
                        platform: call.metadata.platform.id(),
                    };
                    let ticket = call.ticket.unwrap();
                    self.hubs[index]
                        .hub
                        .input(now, HubInput::UpstreamReply(UpstreamReply { ticket, outcome }));
                }
                Effect::Reply(ticket, outcome) => self.hub_answer(index, ticket.slot.index, *outcome),
            }
        }
        while self.hubs[index].hub.next_presence().is_some() {}
    }

    fn hub_answer(&mut self, index: usize, leg: u32, outcome: RpcOutcome) {
        let RpcOutcome::Push(part) = outcome else { panic!("{outcome:?}") };
        let Some((_, users)) = self.hubs[index].asked.remove(&leg) else {
            panic!("leg {leg} is answered twice")
        };
        let mut results: Vec<(Text, Vec<(u64, Device)>)> =
            users.into_iter().map(|user| (user, Vec::new())).collect();
        for verdict in part.verdicts {
            let Who::Slot(slot) = verdict.who else { panic!("{verdict:?}") };
            let reached =
                verdict.devices.into_iter().filter(|device| device.outcome == DeviceOutcome::Queued);
            results[slot as usize].1.extend(reached.map(|device| (device.number, device.into())));
        }
        let leg = u64::from(leg);
        let Some((left, so_far)) = self.deliveries.get_mut(&leg) else { return };
        so_far.extend(results);
        *left -= 1;
        if *left == 0 {
            let (_, results) = self.deliveries.remove(&leg).unwrap();
            self.shards[index].outbox.push_back(Input::Delivered { leg, results });
        }
    }

    fn hub_news(&mut self, index: usize, now: Now, deeds: &mut Vec<Deed>) {
        while let Some(news) = self.hubs[index].hub.next_news() {
            let input = match news {
                ClusterNews::Login(login) if self.hubs[index].fault == Fault::RegistersWithoutAsking => {
                    self.register_unasked(index, now, &login);
                    continue;
                }
                ClusterNews::Gone(_) if self.hubs[index].fault == Fault::ForgetsGone => continue,
                ClusterNews::Switched { shard, epoch, residents } => {
                    Input::Switched { shard, epoch, residents }
                }
                ClusterNews::Login(mut login) => {
                    login.token = login.token.filter(|_| self.hubs[index].fault != Fault::NamesNoTokens);
                    Input::Login(login)
                }
                ClusterNews::Registered(resident) => {
                    if let Some(client) = self.conns.get_mut(&resident.number).filter(|c| c.key.is_none()) {
                        client.key = Some(resident.key.clone());
                        (client.class, client.token) = (resident.class, resident.token);
                        deeds.push(Deed::Opened(resident.clone()));
                    }
                    Input::Registered(resident)
                }
                ClusterNews::Gone(number) => Input::Gone(number),
                ClusterNews::Met(key) => Input::Met(key),
                ClusterNews::Marks(marks) => Input::Marks(marks),
            };
            self.shards[index].outbox.push_back(input);
        }
    }

    fn register_unasked(&mut self, index: usize, now: Now, login: &Asked) {
        let time = u64::try_from(now.unix.0).unwrap();
        let key = Key { time, node: self.id.clone(), number: login.number };
        let mail = ClusterMail::Register { number: login.number, key };
        self.hubs[index].hub.input(now, HubInput::Mail(HubMail::Cluster(Box::new(mail))));
    }

    /// Connections that pushes reach no more. `winner`: for whom they may have been kicked.
    fn hub_ends(&mut self, index: usize, winner: Option<&Key>, deeds: &mut Vec<Deed>) {
        let shard = &mut self.hubs[index];
        while let Some(ended) = shard.hub.next_ended() {
            let known = [
                Disconnect::Kicked,
                Disconnect::TransportLost,
                Disconnect::LoginRefused,
                Disconnect::LoginTimeout,
                Disconnect::ReadDeadline,
                Disconnect::Drain,
            ];
            assert!(known.contains(&ended.reason), "{ended:?}");
        }
        let name = u16::try_from(index).unwrap();
        let conn = |number: u64| ConnNumber(number).shard() == ShardId(name);
        let ended: Vec<u64> = self.conns.keys().copied().filter(|number| conn(*number)).collect();
        for number in ended {
            let slot = self.hubs[index].sockets.get(&number).copied();
            let hub = &self.hubs[index].hub;
            let over = slot.is_none_or(|conn| hub.reason_of(conn).is_some());
            let out = slot.is_some_and(|conn| hub.user_of(conn).is_none());
            let kicked = out && self.conns[&number].key.is_some();
            if !over && !kicked {
                continue;
            }
            let client = self.conns.remove(&number).unwrap();
            deeds.push(Deed::Closed(number));
            if !over && let Some(key) = client.key {
                // Out of its user's list and not over: it is being kicked.
                let rivals = self.conns.values().filter(|other| other.user == client.user);
                let newest = rivals.filter_map(|other| other.key.as_ref()).max();
                let winner = winner.max(newest).cloned().unwrap_or(Key { time: 0, ..key.clone() });
                deeds.push(Deed::Kicked { number, key, winner });
            }
        }
    }
}

fn is_kick(mail: &ClusterMail) -> bool {
    matches!(mail, ClusterMail::Kick { .. } | ClusterMail::Judge { .. })
}

fn key_of(mail: &HubMail) -> Option<Key> {
    match mail {
        HubMail::Cluster(mail) => match &**mail {
            ClusterMail::Kick { winner: key, .. } | ClusterMail::Judge { key, .. } => Some(key.clone()),
            _ => None,
        },
        _ => None,
    }
}

impl World {
    /// Time has passed for the hubs of a host. One that has just woken may read its mail first.
    pub fn tick_hubs(&mut self, i: usize) {
        if self.host(i).hubs.is_empty() || (self.host(i).woke_at == Some(self.now) && self.below(2) == 0) {
            return;
        }
        let (now, host) = (self.now, self.host_mut(i));
        let floor = ShardMail::Floor(host.node.floor());
        if host.node.floor() > host.told_floor {
            host.told_floor = host.node.floor();
            host.shards.iter_mut().for_each(|shard| shard.inbox.push_back(floor.clone()));
        }
        let deeds = self.slots[i].host.as_mut().unwrap().hub_tick(now);
        self.note(i, deeds);
    }

    /// The end of every hub: at rest nothing waits, and a drain leaves nothing behind.
    pub fn end_hubs(&mut self) {
        for i in self.running() {
            let world = self.now;
            for index in 0..self.host(i).hubs.len() {
                let host = self.slots[i].host.as_mut().unwrap();
                let now = host.now(world);
                let shard = &mut host.hubs[index];
                let (claiming, news) = (Metric::LoginsClaiming, Metric::ClusterNewsWaiting);
                let waiting = [claiming, news].map(|metric| shard.hub.tally(now).value(metric));
                let unread = shard.asked.len();
                shard.hub.input(now, HubInput::Drain(Mono(0)));
                let mut deeds = host.hub_after(index, now, None);
                for _ in 0..3 {
                    deeds.extend(host.hub_step(index, world));
                }
                let left = (host.hubs[index].hub.connections(), host.conns.len() * index);
                if (waiting, unread, left) != ([0, 0], 0, (0, 0)) {
                    let what = format!(
                        "{waiting:?} logins and news, {unread} pushes wait, {left:?} connections stay"
                    );
                    self.truth.violated(what);
                }
                self.note(i, deeds);
            }
        }
    }

    pub fn plant(&mut self, fault: Fault) {
        for host in self.slots.iter_mut().filter_map(|slot| slot.host.as_mut()) {
            host.hubs.iter_mut().for_each(|shard| shard.fault = fault);
        }
    }
}
