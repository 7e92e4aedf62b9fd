//! A process of the simulator: the router of production, shards that are a model, connections that are the truth.

use std::collections::{BTreeMap, VecDeque};

use super::super::frame::{Class, Conn, Device, Key, TokenMarks, TokenName};
use super::super::io::{Input, Login, Mail, Resident};
use super::super::placed::Placed;
use super::super::{Fence, Identity, Node};
use super::lists::Listed;
use super::real::RealShard;
use crate::cluster::protocol::rules::Rules;
use crate::hub::cluster::ConnNumber;
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::{Platform, ShardId, Text};
use crate::placement::Algorithm;
use crate::placement::view::{Epoch, Incarnation, NodeId};
use crate::time::{Mono, Now, UnixMs};

pub const SHARDS: u16 = 2;
/// Of a renewed lease, on the source's clock.
pub const TTL_MS: u64 = 10_000;

/// Of each recipient, what its connections got.
type Results = Vec<(Text, Vec<(u64, Device)>)>;

/// A client's connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub user: Text,
    pub class: Option<Class>,
    pub token: Option<TokenName>,
    /// Since the 101.
    pub key: Option<Key>,
}

/// One life of a node.
pub struct Host {
    pub id: NodeId,
    pub incarnation: Incarnation,
    pub node: Node,
    pub conns: BTreeMap<u64, Client>,
    pub next_conn: u64,
    pub open: bool,
    pub shards: [Shard; SHARDS as usize],
    /// Parts of a delivery that shards have not answered, and the results so far.
    pub deliveries: BTreeMap<u64, (usize, Results)>,
    /// Newest view that was handed in.
    pub viewed: Epoch,
    /// The source's opinion of the lease.
    pub leased_until: u64,
    /// Renewals do not get through.
    pub cut_off: bool,
    /// Stopped, as by SIGSTOP: its clock goes on, its mail stands.
    pub asleep_until: Option<u64>,
    pub woke_at: Option<u64>,
    /// It has fenced; its connections are closed by then, and it ends.
    pub closing_until: Option<u64>,
    pub slip: Slip,
    /// What the shards were told.
    pub told_floor: u64,
    offset: u64,
    /// Clock ticks per 10 000 ms.
    rate: u64,
    /// Of the shards' key giver.
    floor: u64,
    /// Its list, where each node has one.
    pub listed: Listed,
    /// In place of the models in `shards`, if there are any.
    pub hubs: Vec<RealShard>,
    /// Clients of hubs who left while the process did not run.
    pub left: Vec<u64>,
}

#[derive(Default)]
pub struct Shard {
    pub inbox: VecDeque<ShardMail>,
    pub outbox: VecDeque<Input>,
    in_force: Vec<(Epoch, Placed)>,
    walks: VecDeque<Walk>,
}

/// An answer to a placement that is put together slice by slice.
struct Walk {
    epoch: Epoch,
    todo: VecDeque<u64>,
    residents: Vec<Resident>,
    /// Ended meanwhile: told after the answer, in which they may be.
    gone: Vec<u64>,
}

/// What a test may break in the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    None,
    /// The answer to a placement is its first slice.
    AnswersEarly,
    /// The end of a connection is told before the answer that has it.
    TellsEndsFirst,
}

/// A push on its way to one shard.
#[derive(Clone, Debug)]
pub enum ShardMail {
    Router(Mail),
    Deliver {
        leg: u64,
        ticket: u64,
        users: Vec<Text>,
    },
    /// The driver tells the shards how far the times of logins are.
    Floor(u64),
}

/// What a shard did that the checker must know.
pub enum Deed {
    Opened(Resident),
    Closed(u64),
    Kicked { number: u64, key: Key, winner: Key },
    Delivered { ticket: u64, number: u64 },
}

impl Shard {
    /// Nobody waits for other answers than this one.
    fn give_up_walks(&mut self, epoch: Epoch) {
        let (kept, dropped): (VecDeque<_>, VecDeque<_>) =
            self.walks.drain(..).partition(|walk| walk.epoch == epoch);
        self.walks = kept;
        dropped.into_iter().for_each(|walk| self.tell_gone(walk.gone));
    }

    fn tell_gone(&mut self, numbers: Vec<u64>) {
        match self.walks.back_mut() {
            Some(last) => last.gone.extend(numbers),
            None => self.outbox.extend(numbers.into_iter().map(Input::Gone)),
        }
    }
}

impl Host {
    pub fn new(
        id: NodeId,
        epoch: Epoch,
        rules: Rules,
        draw: impl FnOnce() -> (u64, u64, Fence),
        world_now: u64,
    ) -> Self {
        let (offset, rate, fence) = draw();
        let identity = Identity {
            node_id: id.clone(),
            incarnation: Incarnation(epoch.0),
            first_epoch: epoch,
            shards: SHARDS,
            algorithm: Algorithm::default(),
            fence,
        };
        let mut host = Self {
            node: Node::with_rules(identity, Mono(0), rules),
            id,
            incarnation: Incarnation(epoch.0),
            conns: BTreeMap::new(),
            next_conn: 1,
            open: false,
            shards: Default::default(),
            deliveries: BTreeMap::new(),
            viewed: Epoch(0),
            leased_until: world_now + TTL_MS,
            cut_off: false,
            asleep_until: None,
            woke_at: None,
            closing_until: None,
            slip: Slip::None,
            told_floor: 0,
            offset,
            rate,
            floor: 0,
            listed: Listed::default(),
            hubs: Vec::new(),
            left: Vec::new(),
        };
        host.node.lease.until = host.lease_end(world_now);
        host
    }

    /// What its clocks show.
    pub fn now(&self, world: u64) -> Now {
        let ms = self.offset + world * self.rate / 10_000;
        Now { mono: Mono(ms), unix: UnixMs(i64::try_from(ms).unwrap()) }
    }

    /// Until when a renewal sent now is valid, on its own clock (A4).
    pub fn lease_end(&self, world: u64) -> Mono {
        self.now(world).mono.plus_ms(TTL_MS * 99 / 100 - 5)
    }

    pub fn conn(&self, number: u64) -> Conn {
        Conn { node: self.id.clone(), incarnation: self.incarnation, number }
    }

    pub fn resident(&self, number: u64) -> Option<Resident> {
        let client = self.conns.get(&number)?;
        let key = client.key.clone()?;
        Some(Resident { number, user: client.user.clone(), class: client.class, token: client.token, key })
    }

    /// Registered connections.
    pub fn registered(&self) -> impl Iterator<Item = (u64, &Client)> {
        self.conns.iter().filter(|(_, client)| client.key.is_some()).map(|(number, client)| (*number, client))
    }

    pub fn shard_of(user: &Text) -> usize {
        usize::from(user.as_str().bytes().last().unwrap() % 2)
    }

    /// A client comes: its shard registers it, or asks the router.
    pub fn login(&mut self, user: Text, class: Option<Class>, world: u64) -> Vec<Deed> {
        if !self.hubs.is_empty() {
            self.hub_login(&user, world);
            return Vec::new();
        }
        let number = self.next_conn;
        self.next_conn += 1;
        self.conns.insert(number, Client { user: user.clone(), class, token: None, key: None });
        let shard = Self::shard_of(&user);
        let here = |(_, placed): &(Epoch, Placed)| placed.home(&user) == Some(&self.id);
        let in_force = &self.shards[shard].in_force;
        if in_force.is_empty() || !in_force.iter().all(here) {
            self.shards[shard].outbox.push_back(Input::Login(Login { number, user, class, token: None }));
            return Vec::new();
        }
        let clock = u64::try_from(self.now(world).unix.0).unwrap();
        self.floor = clock.max(self.floor + 1).max(self.node.floor() + 1);
        let key = Key { time: self.floor, node: self.id.clone(), number };
        self.register(shard, number, key)
    }

    fn register(&mut self, shard: usize, number: u64, key: Key) -> Vec<Deed> {
        let Some(client) = self.conns.get_mut(&number) else { return Vec::new() };
        client.key = Some(key);
        let resident = self.resident(number).unwrap();
        self.shards[shard].outbox.push_back(Input::Registered(resident.clone()));
        let mut deeds = vec![Deed::Opened(resident.clone())];
        let Some(class) = resident.class else { return deeds };
        // The policy within the node: the greatest key stays.
        let rivals = self.registered().filter(|(_, c)| c.user == resident.user && c.class == Some(class));
        let winner = rivals.filter_map(|(_, c)| c.key.clone()).max().unwrap();
        deeds.extend(self.judge(shard, &resident.user, class, &winner));
        deeds
    }

    /// The client goes, or is thrown out.
    pub fn close(&mut self, number: u64, world: u64) -> Vec<Deed> {
        if !self.hubs.is_empty() {
            return self.hub_close(number, world);
        }
        let Some(client) = self.conns.remove(&number) else { return Vec::new() };
        let first = self.slip == Slip::TellsEndsFirst;
        let shard = &mut self.shards[Self::shard_of(&client.user)];
        match shard.walks.back_mut().filter(|_| !first) {
            Some(walk) => walk.gone.push(number),
            None => shard.outbox.push_back(Input::Gone(number)),
        }
        vec![Deed::Closed(number)]
    }

    /// Mail from the router, to the shards that it concerns.
    pub fn post(&mut self, mail: Mail) {
        match mail {
            Mail::Add(..) | Mail::Only(_) => {
                for shard in &mut self.shards {
                    shard.inbox.push_back(ShardMail::Router(mail.clone()));
                }
            }
            Mail::Deliver { leg, recipients, payload, .. } => {
                let ticket = u64::from_le_bytes(payload.as_ref().try_into().unwrap());
                let mut parts: BTreeMap<usize, Vec<Text>> = BTreeMap::new();
                for user in recipients {
                    parts.entry(Self::shard_of(&user)).or_default().push(user);
                }
                self.deliveries.insert(leg, (parts.len(), Vec::new()));
                for (shard, users) in parts {
                    self.shards[shard].inbox.push_back(ShardMail::Deliver { leg, ticket, users });
                }
            }
            Mail::Judge { ref user, .. } | Mail::Marks(TokenMarks { ref user, .. }) => {
                self.shards[Self::shard_of(user)].inbox.push_back(ShardMail::Router(mail));
            }
            Mail::Register(number, _)
            | Mail::Refuse(number)
            | Mail::Kick { number, .. }
            | Mail::Met(Key { number, .. }) => {
                if !self.hubs.is_empty() {
                    let shard = usize::from(ConnNumber(number).shard().0);
                    return self.shards[shard].inbox.push_back(ShardMail::Router(mail));
                }
                if let Some(client) = self.conns.get(&number) {
                    self.shards[Self::shard_of(&client.user)].inbox.push_back(ShardMail::Router(mail));
                }
            }
        }
    }

    /// Whether a shard has something to do.
    pub fn shard_busy(&self, shard: usize) -> bool {
        let own = &self.shards[shard];
        let busy = !own.inbox.is_empty() || !own.walks.is_empty();
        busy || self.hubs.get(shard).is_some_and(RealShard::is_busy)
    }

    /// A shard takes its next mail, or goes on with an answer.
    pub fn shard_step(&mut self, shard: usize, world: u64, coin: u64) -> Vec<Deed> {
        if !self.hubs.is_empty() {
            return self.hub_step(shard, world);
        }
        if !self.shards[shard].walks.is_empty() && (coin == 0 || self.shards[shard].inbox.is_empty()) {
            self.switch_slice(shard);
            return Vec::new();
        }
        let Some(mail) = self.shards[shard].inbox.pop_front() else { return Vec::new() };
        match mail {
            ShardMail::Deliver { leg, ticket, users } => self.deliver(shard, leg, ticket, users),
            ShardMail::Router(Mail::Add(epoch, placed)) => {
                let todo = self.conns.iter().filter(|(_, c)| Self::shard_of(&c.user) == shard);
                let todo = todo.map(|(number, _)| *number).collect();
                self.shards[shard].in_force.push((epoch, placed));
                let (residents, gone) = (Vec::new(), Vec::new());
                self.shards[shard].walks.push_back(Walk { epoch, todo, residents, gone });
                self.switch_slice(shard);
                Vec::new()
            }
            ShardMail::Router(Mail::Only(epoch)) => {
                self.shards[shard].in_force.retain(|(of, _)| *of == epoch);
                assert!(
                    self.shards[shard].in_force.len() <= 1,
                    "one placement is left, none if none was added"
                );
                self.shards[shard].give_up_walks(epoch);
                Vec::new()
            }
            ShardMail::Floor(_) => Vec::new(),
            ShardMail::Router(Mail::Register(number, key)) => self.register(shard, number, key),
            ShardMail::Router(Mail::Refuse(number)) => self.close(number, 0),
            ShardMail::Router(Mail::Kick { number, winner }) => self.kick(number, &winner),
            ShardMail::Router(Mail::Judge { user, class, key, .. }) => self.judge(shard, &user, class, &key),
            ShardMail::Router(Mail::Met(_) | Mail::Marks(_)) => Vec::new(), // nobody is told here
            ShardMail::Router(Mail::Deliver { .. }) => unreachable!("split in post"),
        }
    }

    /// One connection more of the oldest answer; the last slice sends it.
    fn switch_slice(&mut self, shard: usize) {
        let Some(mut walk) = self.shards[shard].walks.pop_front() else { return };
        let resident = walk.todo.pop_front().and_then(|number| self.resident(number));
        let own = &mut self.shards[shard];
        let placed = own.in_force.iter().find(|(epoch, _)| *epoch == walk.epoch).map(|(_, placed)| placed);
        let elsewhere =
            |one: &Resident| placed.is_some_and(|placed| placed.home(&one.user) != Some(&self.id));
        walk.residents.extend(resident.filter(elsewhere));
        if !walk.todo.is_empty() && self.slip != Slip::AnswersEarly {
            return own.walks.push_front(walk);
        }
        let Walk { epoch, residents, gone, .. } = walk;
        let name = ShardId(u16::try_from(shard).unwrap());
        own.outbox.push_back(Input::Switched { shard: name, epoch, residents });
        own.tell_gone(gone);
    }

    fn deliver(&mut self, shard: usize, leg: u64, ticket: u64, users: Vec<Text>) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let mut results = Vec::new();
        for user in users {
            let verdict = DeviceVerdict {
                number: 0,
                platform: Platform::IOS,
                connection_id: [0; 16],
                outcome: DeviceOutcome::Queued,
            };
            let reached: Vec<u64> = self
                .registered()
                .filter(|(_, client)| client.user == user)
                .map(|(number, _)| number)
                .collect();
            deeds.extend(reached.iter().map(|&number| Deed::Delivered { ticket, number }));
            results.push((user, reached.into_iter().map(|number| (number, verdict.into())).collect()));
        }
        let Some((left, so_far)) = self.deliveries.get_mut(&leg) else { return deeds };
        so_far.extend(results);
        *left -= 1;
        if *left == 0 {
            let (_, results) = self.deliveries.remove(&leg).unwrap();
            self.shards[shard].outbox.push_back(Input::Delivered { leg, results });
        }
        deeds
    }

    fn kick(&mut self, number: u64, winner: &Key) -> Vec<Deed> {
        let key = self.conns.get(&number).and_then(|client| client.key.clone());
        let Some(key) = key.filter(|key| key < winner) else { return Vec::new() };
        let mut deeds = self.close(number, 0);
        deeds.push(Deed::Kicked { number, key, winner: winner.clone() });
        deeds
    }

    fn judge(&mut self, shard: usize, user: &Text, class: Class, key: &Key) -> Vec<Deed> {
        let rivals: Vec<u64> = self
            .registered()
            .filter(|(_, client)| client.user == *user && client.class == Some(class))
            .map(|(number, _)| number)
            .collect();
        let mut deeds = Vec::new();
        for number in rivals {
            let resident = self.resident(number).unwrap();
            if resident.key > *key {
                self.shards[shard].outbox.push_back(Input::Registered(resident));
            } else {
                deeds.extend(self.kick(number, key));
            }
        }
        deeds
    }
}
