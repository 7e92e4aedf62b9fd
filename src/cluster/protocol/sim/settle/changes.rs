//! Clients, the changes that are measured, and the table.

use bytes::Bytes;

use super::super::super::frame::{Class, Conn, Device, Key, Verdict};
use super::super::super::io::{Input, Login, Push, Resident};
use super::super::super::placed::Placed;
use super::super::super::rules::Rules;
use super::super::number;
use super::{Client, Clients, Event, MS, Pushes, SECOND, Seen, Sim, TTL};
use crate::ids::Text;
use crate::placement::view::{Epoch, View};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Join,
    /// Out of the placement, with its clients; then empty, and goodbye.
    Leave,
    /// `kill -9`.
    Crash,
}

/// Who leaves or crashes.
const VICTIM: usize = 1;

impl Sim {
    pub(super) fn login(&mut self, user: Text) {
        let open: Vec<usize> = self.running().into_iter().filter(|&i| self.stations[i].open).collect();
        let view = self.source.newest().cloned().unwrap_or_default();
        let home = Placed::new(&view, &self.node(open[0]).me, Rules::default());
        let home = home.home(&user).and_then(|home| open.iter().find(|&&i| self.stations[i].id == *home));
        let lot = usize::try_from(self.below(open.len() as u64)).unwrap();
        let i = home.copied().filter(|_| self.clients == Clients::AtHome).unwrap_or(open[lot]);
        let number = self.stations[i].next_conn;
        self.stations[i].next_conn += 1;
        self.stations[i].conns.insert(number, user.clone());
        self.users.insert(user.clone(), Client { at: i, number, key: None });
        let in_force = &self.stations[i].in_force;
        let here = |(_, placed): &(Epoch, Placed)| placed.home(&user) == Some(&self.stations[i].id);
        if in_force.is_empty() || !in_force.iter().all(here) {
            let login = Login { number, user, class: Some(Class(1)), token: None };
            return self.feed(i, Input::Login(login));
        }
        let time = (self.now / MS).max(self.node(i).floor() + 1);
        let key = Key { time, node: self.stations[i].id.clone(), number };
        let resident = self.registered(i, number, user, key);
        self.feed(i, Input::Registered(resident));
    }

    pub(super) fn registered(&mut self, i: usize, number: u64, user: Text, key: Key) -> Resident {
        if let Some(client) =
            self.users.get_mut(&user).filter(|client| (client.at, client.number) == (i, number))
        {
            client.key = Some(key.clone());
        }
        Resident { number, user, class: Some(Class(1)), token: None, key }
    }

    /// A client is sent away, and comes again.
    fn evict(&mut self, i: usize, number: u64) {
        let Some(user) = self.stations[i].conns.remove(&number) else { return };
        self.users.remove(&user);
        self.feed(i, Input::Gone(number));
        let within = 500 * MS + self.below(SECOND);
        self.at(within, Event::Login(user));
    }

    pub(super) fn push(&mut self) {
        let open: Vec<usize> = self.running().into_iter().filter(|&i| self.stations[i].open).collect();
        let entry = open[usize::try_from(self.below(open.len() as u64)).unwrap()];
        let lot = usize::try_from(self.below(self.names.len() as u64)).unwrap();
        let user = self.names[lot].clone();
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let client = self.users.get(&user).filter(|client| client.key.is_some());
        self.pushes.insert(ticket, (self.now, client.map(|client| (client.at, client.number))));
        let push = Push { ticket, recipients: vec![user], payload: Bytes::from_static(&[1; 300]) };
        self.feed(entry, Input::Push(push));
    }

    pub(super) fn verdict(&mut self, ticket: u64, verdicts: &[Verdict]) {
        let Some((accepted, client)) = self.pushes.remove(&ticket) else { return };
        let verdict = &verdicts[0];
        self.seen.pushes += 1;
        if !verdict.complete {
            self.seen.not_complete += 1;
            self.seen.last_not_complete = self.seen.last_not_complete.max(accepted);
        }
        let Some((at, number)) = client else { return };
        let stays = self.stations[at].conns.contains_key(&number) && self.stations[at].node.is_some();
        let reached = |(conn, _): &(Conn, Device)| conn.node == self.stations[at].id && conn.number == number;
        if verdict.complete && stays {
            assert!(verdict.results.iter().any(reached), "a complete push missed {}", verdict.user.as_str());
        }
    }

    /// Everybody has promised everybody what belongs to him under one placement, and nothing waits.
    pub(super) fn is_quiet(&self) -> bool {
        let running = self.running();
        let epoch = self.source.newest().map(View::epoch);
        running.iter().all(|&i| {
            let node = self.node(i);
            let settled = |peer: &usize| {
                let peer = node.peers.get(&self.stations[*peer].id);
                peer.is_some_and(|peer| node.covers(peer) && peer.promises.len() == 1)
            };
            Some(node.view.epoch()) == epoch
                && node.fit()
                && node.unlinked().is_empty()
                && node.next.is_none()
                && !node.untrimmed
                && node.strays.waiting() == 0
                && running.iter().filter(|&&peer| peer != i).all(settled)
        })
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Join => self.start(self.stations.len() - 1),
            Change::Leave => self.feed(VICTIM, Input::Drain),
            Change::Crash => {
                self.stations[VICTIM].node = None;
                let id = self.stations[VICTIM].id.clone();
                let clients: Vec<Text> =
                    std::mem::take(&mut self.stations[VICTIM].conns).into_values().collect();
                for user in clients {
                    self.users.remove(&user);
                    let within = SECOND + self.below(4 * SECOND);
                    self.at(within, Event::Login(user));
                }
                for i in self.running() {
                    let up = self.node(i).peers.get(&id).and_then(|peer| peer.up()).map(|up| up.generation);
                    if let Some(generation) = up {
                        self.at(MS, Event::Input(i, Input::Closed(id.clone(), generation)));
                    }
                }
            }
        }
    }

    /// Time passes; how long after `began` it was quiet for good.
    fn settle(&mut self, time: u64, began: u64) -> u64 {
        self.run(time, Pushes::Go).expect("it settles") - began
    }

    /// What the change needs later: losses, evictions. Returns how long it took until everything was quiet, after each
    /// of its parts.
    fn follow(&mut self, change: Change) -> Vec<u64> {
        let began = self.now;
        let id = self.stations[VICTIM].id.clone();
        match change {
            Change::Join => vec![self.settle(20 * SECOND, began)],
            Change::Leave => {
                let moved = self.settle(5 * SECOND, began);
                self.stations[VICTIM].open = false;
                let numbers: Vec<u64> = self.stations[VICTIM].conns.keys().copied().collect();
                // Paced: a second's share at a time, in ten seconds.
                for part in numbers.chunks(numbers.len().div_ceil(1_000).max(1)) {
                    part.iter().for_each(|number| self.evict(VICTIM, *number));
                    self.run(10 * MS, Pushes::Go);
                }
                let emptied = self.now;
                self.feed(VICTIM, Input::Emptied);
                vec![moved, self.settle(20 * SECOND, emptied)]
            }
            Change::Crash => {
                self.run(TTL, Pushes::Go);
                self.source.lose(&id);
                self.tell();
                vec![self.settle(60 * SECOND, began)]
            }
        }
    }
}

/// One line of the table.
fn measure(nodes: usize, mut sim: Sim, change: Change) -> String {
    let clients = sim.clients;
    sim.run(2 * SECOND, Pushes::Go);
    sim.seen = Seen::default();
    sim.stations.iter_mut().for_each(|station| (station.cpu, station.longest) = (0, 0));
    let began = sim.now;
    sim.change(change);
    let quiet = sim.follow(change);
    let incomplete = sim.seen.last_not_complete.saturating_sub(began);
    let slowest = sim.stations.iter().map(|station| station.cpu).max().unwrap_or(0);
    let longest = sim.stations.iter().map(|station| station.longest).max().unwrap_or(0);
    let Seen { frames, bytes, pushes, not_complete, .. } = sim.seen;
    let seconds = |micros: u64| format!("{}.{:03} s", micros / SECOND, micros % SECOND / MS);
    let millis = |micros: u64| format!("{}.{} ms", micros / MS, micros % MS / 100);
    format!(
        "| {nodes} | {clients:?} | {change:?} | {} | {} | {frames} | {:.1} MB | {} | {} | {not_complete} of {pushes} |",
        seconds(incomplete),
        quiet.into_iter().map(seconds).collect::<Vec<_>>().join(", then "),
        bytes as f64 / 1e6,
        millis(slowest),
        millis(longest),
    )
}

fn head(users: usize) {
    println!("{users} users");
    println!(
        "| nodes | clients | change | last verdict not complete | quiet again | messages | bytes | processor, slowest \
         node | longest turn | pushes not complete |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
}

#[test]
#[ignore = "measures; for a release build on a quiet machine"]
fn time_to_settle() {
    let users = usize::try_from(number("PINION_SETTLE_USERS").unwrap_or(100_000)).unwrap();
    head(users);
    let only = number("PINION_SETTLE_NODES").map(|nodes| usize::try_from(nodes).unwrap());
    for nodes in only.map_or(vec![3, 5, 10], |nodes| vec![nodes]) {
        for clients in [Clients::AtHome, Clients::Anywhere] {
            for change in [Change::Join, Change::Leave, Change::Crash] {
                println!("{}", measure(nodes, Sim::new(nodes, users, clients, 2 * MS), change));
            }
        }
    }
}

#[test]
fn a_few_users_settle_and_no_complete_push_misses_anybody() {
    head(60);
    for change in [Change::Join, Change::Leave, Change::Crash] {
        println!("{}", measure(3, Sim::new(3, 60, Clients::Anywhere, 40 * MS), change));
    }
}
