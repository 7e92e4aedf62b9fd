//! The changes that are measured, and the table.

use super::super::super::io::Input;
use super::super::number;
use super::{Clients, Event, MS, SECOND, Seen, Sim, TTL};
use crate::ids::Text;
use crate::placement::view::View;

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
        self.run(time, true).expect("it settles") - began
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
                    self.run(10 * MS, true);
                }
                let emptied = self.now;
                self.feed(VICTIM, Input::Emptied);
                vec![moved, self.settle(20 * SECOND, emptied)]
            }
            Change::Crash => {
                self.run(TTL, true);
                self.source.lose(&id);
                self.tell();
                vec![self.settle(60 * SECOND, began)]
            }
        }
    }
}

/// One line of the table.
fn measure(nodes: usize, users: usize, clients: Clients, change: Change) -> String {
    let mut sim = Sim::new(nodes, users, clients);
    sim.run(2 * SECOND, true);
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

fn table(nodes: &[usize], users: usize) {
    println!("{users} users");
    println!(
        "| nodes | clients | change | last verdict not complete | quiet again | messages | bytes | processor, slowest \
         node | longest turn | pushes not complete |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for &nodes in nodes {
        for clients in [Clients::AtHome, Clients::Anywhere] {
            for change in [Change::Join, Change::Leave, Change::Crash] {
                println!("{}", measure(nodes, users, clients, change));
            }
        }
    }
}

#[test]
#[ignore = "measures; for a release build on a quiet machine"]
fn time_to_settle() {
    let users = number("PINION_SETTLE_USERS").unwrap_or(100_000);
    table(&[3, 5, 10], usize::try_from(users).unwrap());
}

#[test]
fn a_few_users_settle_and_no_complete_push_misses_anybody() {
    table(&[3], 60);
}
