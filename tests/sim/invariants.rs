//! The invariants (a) to (d) of spec 8.6, looked at from outside after each turn of a shard.
//!
//! (a) every registered connection is unregistered exactly once; (b) when nothing is left to do, the hub's connections
//! are the sockets that the world holds; (c) the gauges count what is there; (d) what a turn takes out of the queues
//! depends on nothing but their length, and nobody waits for what is told to the auth service.

use std::collections::BTreeSet;

use pinion::hub::upstream::{UpstreamCall, UpstreamRequest};
use pinion::ids::ConnId;
use pinion::limits::QUEUE_BATCH_MAX;
use pinion::metrics::Metric;

use crate::checker::{Checker, Property};
use crate::world::World;

/// Every connection that was ever seen registered, by shard.
#[derive(Debug, Default)]
pub struct Standings {
    registered: BTreeSet<(usize, ConnId)>,
    left: BTreeSet<(usize, ConnId)>,
}

/// Depths of the unregister, kick and register queue before a turn.
#[derive(Clone, Copy, Debug)]
pub struct Depths([u64; 3]);

impl World {
    /// What waits in the queues of a shard.
    pub fn depths(&mut self, shard: usize) -> Depths {
        let tally = self.shards[shard].hub.tally(self.now);
        Depths(
            [Metric::UnregisterDepth, Metric::KickDepth, Metric::RegisterDepth]
                .map(|metric| tally.value(metric)),
        )
    }

    /// After a turn and all that followed from it.
    pub fn check_invariants(&mut self, shard: usize, before: Depths) {
        self.check_queues(shard, before);
        let roster = self.shards[shard].hub.roster();
        let here: BTreeSet<ConnId> = roster.iter().map(|(conn, _)| *conn).collect();
        self.checker.check_standings(shard, &here);
        let users: BTreeSet<&str> = roster.iter().map(|(_, user)| &**user).collect();
        let tally = self.shards[shard].hub.tally(self.now);
        let gauges = (tally.value(Metric::Registered), tally.value(Metric::Users));
        if gauges != (here.len() as u64, users.len() as u64) {
            let text = format!("gauges {gauges:?}, but {} connections of {} users", here.len(), users.len());
            self.checker.fail(Property::Counts, text);
        }
        let state = &self.shards[shard];
        if state.hub.has_work() {
            return; // whoever has ended may still wait in the unregister queue
        }
        for (conn, user) in &roster {
            let link = state.sockets.get(conn).map(|link| &self.links[*link]);
            if link.is_none_or(|link| link.closed || link.user != *user) {
                let text = format!("{conn} is registered for {user}, its socket is {link:?}");
                self.checker.fail(Property::Counts, text);
            }
        }
        if state.hub.connections() != state.sockets.len() {
            let text = format!("{} connections, {} sockets", state.hub.connections(), state.sockets.len());
            self.checker.fail(Property::Counts, text);
        }
    }

    /// (d): a turn serves whole batches, whatever sockets, upstream or other users do.
    fn check_queues(&mut self, shard: usize, Depths(before): Depths) {
        let Depths(after) = self.depths(shard);
        let left = |n: u64| n.saturating_sub(QUEUE_BATCH_MAX as u64);
        let tally = self.shards[shard].hub.tally(self.now);
        let ages =
            [Metric::UnregisterAge, Metric::KickAge, Metric::RegisterAge].map(|metric| tally.value(metric));
        // Nothing enters the register queue during a turn; what enters the others has no age yet.
        let waits = (0..3).any(|n| left(before[n]) == 0 && ages[n] > 0) || after[2] > left(before[2]);
        if waits {
            let text = format!("queues {before:?} before, {after:?} after a turn, ages {ages:?}");
            self.checker.fail(Property::Waits, text);
        }
    }

    /// (d): only questions that somebody needs an answer to have a ticket.
    pub fn check_call(&mut self, call: &UpstreamCall) {
        let notice = matches!(
            call.request,
            UpstreamRequest::InvalidateToken { .. } | UpstreamRequest::KickTokens { .. }
        );
        if notice == call.ticket.is_some() {
            self.checker.fail(Property::Waits, format!("{:?} with ticket {:?}", call.request, call.ticket));
        }
    }
}

impl Checker {
    /// (a): a connection only moves from nowhere to registered to left.
    fn check_standings(&mut self, shard: usize, here: &BTreeSet<ConnId>) {
        let Standings { registered, left } = &mut self.standings;
        left.extend(registered.extract_if(.., |(of, conn)| *of == shard && !here.contains(conn)));
        registered.extend(here.iter().map(|conn| (shard, *conn)));
        let back = registered.intersection(left).next().copied();
        if let Some((_, conn)) = back {
            self.fail(Property::Standing, format!("{conn} was unregistered and is registered again"));
        }
    }

    /// (a), at the end: nobody is left. Returns how many were registered.
    pub fn all_left(&mut self) -> u64 {
        let Standings { registered, left } = &self.standings;
        let (there, count) = (format!("{registered:?}"), left.len() as u64);
        if !registered.is_empty() {
            self.fail(Property::Standing, format!("never unregistered: {there}"));
        }
        count
    }
}
