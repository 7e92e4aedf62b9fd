//! Follows the records and signs of life in etcd, and writes `lost` into the record of a node whose sign vanished. Who
//! only looks on writes nothing: there such a node is lost in what is told.
//!
//! What always holds: a view is the records as of its epoch, a revision; `lost` is written only over the record that
//! was seen, and only while the sign of life is not there. A session reads all, then is told of every change after it.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::etcd_txn::{absent, entries, put, range, unchanged};
use super::record::{Keys, value};
use super::telling::Telling;
use crate::control::backoff::Backoff;
use crate::control::etcd::link::{Dial, Fault, Link};
use crate::control::etcd::value::prefix_end;
use crate::control::news::DiscoveryState;
use crate::limits::MEMBERS_MAX;
use crate::metrics::Metric;
use crate::pb::etcd;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId, View};
use crate::time::Mono;

/// Signs of life that are read, as a multiple of the records: those of earlier lives go with their leases.
const LIVES_PER_NODE: usize = 8;

/// Where the records are, and by whom they are read.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) keys: &'a Keys,
    pub(super) dial: &'a Dial,
    pub(super) telling: &'a Telling<'a>,
    /// Seconds that a lease holds.
    pub(super) lease_s: u32,
    /// The reader's own node; `None`: he only looks on.
    pub(super) own: Option<&'a NodeId>,
    pub(super) source: &'a ClusterIds,
}

/// Clusters of etcd, by their ids.
#[derive(Default)]
pub(super) struct ClusterIds {
    /// The one that this process registered in, or looks at; 0: not known yet.
    pub(super) registered: Cell<u64>,
    /// The other one that it met last; 0: none since then.
    foreign: Cell<u64>,
}

impl Sight<'_> {
    /// A store that was restored from a backup says what was; its epochs begin anew. Nothing of it is believed.
    pub(super) async fn check_source(&self, link: &mut Link) -> Result<(), Fault> {
        let (header, _) = link.entry(self.keys.nodes.as_bytes()).await?;
        self.of_the_source(&header)
    }

    /// Asked of each answer that something is concluded from: a connection comes back by itself, and may then lead to
    /// another store. Who looks on has nothing there: to him its members must be confirmed.
    pub(super) fn of_the_source(&self, header: &etcd::ResponseHeader) -> Result<(), Fault> {
        let ClusterIds { registered, foreign } = self.source;
        let before = registered.get();
        let is_another = header.cluster_id != before;
        if self.own.is_none() {
            registered.set(header.cluster_id);
            if is_another && before != 0 {
                tracing::warn!("cluster: etcd is another cluster than before: its members must be confirmed");
                self.telling.source_changed();
            }
            return Ok(());
        }
        self.telling.counts.set(Metric::SourceForeign, u64::from(is_another));
        if !is_another {
            foreign.set(0);
            return Ok(());
        }
        self.telling.counts.count(Metric::ViewsHeld);
        let text = format!(
            "etcd is another cluster than the one this node registered in ({:x}, not {before:x}): it was restored or \
             replaced, or discovery.etcd_* leads elsewhere. Nothing of it is believed: the last known members stand, \
             and this node has no lease. If etcd is the right one now, restart the nodes one after the other, as \
             tuning/cluster.md says",
            header.cluster_id,
        );
        if foreign.replace(header.cluster_id) != header.cluster_id {
            tracing::error!("cluster: {text}");
        }
        Err(Fault::Ended(text))
    }

    /// Who only looks on is told how fresh the members are.
    fn show(&self, state: DiscoveryState) {
        if self.own.is_none() {
            self.telling.watched(state);
        }
    }
}

/// See the module's documentation.
pub(super) struct Watcher<'a> {
    sight: Sight<'a>,
    /// The revision that was read; older changes are in it.
    read: i64,
    /// The revision of the newest change to a record that is in `records`.
    revision: i64,
    /// By key, with the revision of each; at most [`MEMBERS_MAX`].
    records: BTreeMap<Vec<u8>, (Member, i64)>,
    lives: BTreeSet<(NodeId, Incarnation)>,
    /// Lives without a sign, and when that is long enough to call them lost. One by record at most.
    silent: BTreeMap<NodeId, (Incarnation, Mono)>,
    /// Of who only looks on: lives that were silent for too long.
    lost: BTreeSet<(NodeId, Incarnation)>,
}

impl<'a> Watcher<'a> {
    pub(super) fn new(sight: Sight<'a>) -> Self {
        Self {
            sight,
            read: 0,
            revision: 0,
            records: BTreeMap::new(),
            lives: BTreeSet::new(),
            silent: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Session after session. `look` is rung when the own record and lease should be looked after.
    pub(super) async fn watch_always(&mut self, look: &Notify) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let fault = match self.session(look).await {
                Err(fault) => fault,
                Ok(never) => match never {},
            };
            let wait = backoff.next(began.elapsed());
            // The keeper's connection is idle most of the time: it may be as dead as this one.
            look.notify_one();
            self.sight.show(DiscoveryState::Stale);
            self.sight.telling.counts.count(Metric::MembershipFailures);
            if backoff.is_first() {
                tracing::warn!(%fault, "cluster: the members are not watched, the last known stand; trying again");
            } else {
                tracing::debug!(%fault, ?wait, "cluster: still not watched");
            }
            sleep(wait).await;
        }
    }

    async fn session(&mut self, look: &Notify) -> Result<Infallible, Fault> {
        let telling = self.sight.telling;
        let mut link = self.sight.dial.connect().await?;
        self.sight.check_source(&mut link).await?;
        self.load(&mut link).await?;
        let keys = self.sight.keys;
        let wanted = [&keys.nodes, &keys.live].map(|prefix| etcd::WatchCreateRequest {
            key: prefix.clone().into_bytes().into(),
            range_end: prefix_end(prefix.as_bytes()).into(),
            start_revision: self.read.saturating_add(1),
        });
        let mut changes = link.watch(wanted.into()).await?;
        tracing::info!("cluster: the members are watched");
        self.sight.show(DiscoveryState::Current);
        let mut read_again = Instant::now() + telling.recheck();
        loop {
            let next = self.mark_the_lost(&mut link).await?;
            tokio::select! {
                change = changes.message() => match change? {
                    Some(change) => self.apply(change, look)?,
                    None => return Err(Fault::Ended("the watch ended".into())),
                },
                () = sleep(next) => {}
                () = sleep_until(read_again), if telling.is_in_doubt() => {
                    self.load(&mut link).await?;
                    read_again = Instant::now() + telling.recheck();
                }
            }
        }
    }

    /// Reads all records and signs of life at one revision.
    async fn load(&mut self, link: &mut Link) -> Result<(), Fault> {
        let keys = self.sight.keys;
        let all = |prefix: &str, most: usize| {
            range(etcd::RangeRequest {
                key: prefix.as_bytes().to_vec().into(),
                range_end: prefix_end(prefix.as_bytes()).into(),
                limit: i64::try_from(most).unwrap_or(i64::MAX),
            })
        };
        let request = etcd::TxnRequest {
            success: vec![all(&keys.nodes, MEMBERS_MAX), all(&keys.live, MEMBERS_MAX * LIVES_PER_NODE)],
            ..etcd::TxnRequest::default()
        };
        let answer = link.transact(request).await?;
        self.sight.of_the_source(answer.header.as_ref().unwrap_or(&etcd::ResponseHeader::default()))?;
        let mut parts = answer.responses.into_iter().map(|part| entries(part).unwrap_or_default());
        let (nodes, lives) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if nodes.more || lives.more {
            // A view without some members is worse than the last one with all.
            self.sight.telling.counts.count(Metric::ViewsIgnored);
            return Err(Fault::Ended(format!(
                "more than {MEMBERS_MAX} records below {}: delete those of nodes that are no more",
                keys.nodes
            )));
        }
        self.read = answer.header.unwrap_or_default().revision;
        self.revision = self.read;
        self.records.clear();
        self.lives = lives.kvs.iter().filter_map(|entry| keys.read_life(&entry.key)).collect();
        self.lost.retain(|life| !self.lives.contains(life));
        for entry in nodes.kvs {
            self.set(&entry);
        }
        self.tell();
        Ok(())
    }

    /// Applies what one message of the watch tells.
    fn apply(&mut self, change: etcd::WatchResponse, look: &Notify) -> Result<(), Fault> {
        if change.compact_revision > 0 {
            let from = change.compact_revision;
            return Err(Fault::Ended(format!("history before revision {from} is gone: reading anew")));
        }
        if change.canceled {
            return Err(Fault::Ended(format!("etcd refuses the watch: {}", change.cancel_reason)));
        }
        let mut members_changed = false;
        for event in change.events {
            let deleted = event.r#type() == etcd::event::EventType::Delete;
            let Some(entry) = event.kv.filter(|entry| entry.mod_revision > self.read) else { continue };
            if entry.key.starts_with(self.sight.keys.nodes.as_bytes()) {
                members_changed = true;
                self.revision = self.revision.max(entry.mod_revision);
                if deleted {
                    self.records.remove(&entry.key[..]);
                } else {
                    self.set(&entry);
                }
            } else if let Some(life) = self.sight.keys.read_life(&entry.key) {
                if deleted {
                    self.silenced(life, look);
                } else {
                    members_changed |= self.lost.remove(&life);
                    self.lives.insert(life);
                }
            }
        }
        if members_changed {
            self.tell();
        }
        Ok(())
    }

    /// A sign of life has vanished.
    fn silenced(&mut self, life: (NodeId, Incarnation), look: &Notify) {
        self.lives.remove(&life);
        let (node_id, incarnation) = life;
        if self.sight.own == Some(&node_id) {
            return look.notify_one();
        }
        // etcd deletes it when the lease ends, and that is later than its owner counts.
        self.silent.insert(node_id, (incarnation, (self.sight.telling.now)().mono));
    }

    /// Takes a record. One that cannot be read changes nothing: what was there is still accounted for.
    fn set(&mut self, entry: &etcd::KeyValue) {
        match self.sight.keys.read_node(&entry.key, &entry.value, entry.mod_revision) {
            Ok(member) => {
                self.records.insert(entry.key.to_vec(), (member, entry.mod_revision));
            }
            Err(why) => {
                self.sight.telling.counts.count(Metric::ViewsIgnored);
                tracing::warn!(key = %String::from_utf8_lossy(&entry.key), why, "cluster: not a record");
            }
        }
    }

    fn tell(&self) {
        let member = |(member, _): &(Member, i64)| {
            let lost = self.lost.contains(&(member.node_id.clone(), member.incarnation));
            Member { state: if lost { MemberState::Lost } else { member.state }, ..member.clone() }
        };
        let members = self.records.values().map(member).collect();
        let epoch = Epoch(u64::try_from(self.revision).unwrap_or(0));
        self.sight.telling.observe(View::new(epoch, members));
    }

    /// Writes `lost` where it is due; after how long to look again.
    async fn mark_the_lost(&mut self, link: &mut Link) -> Result<Duration, Fault> {
        let now = (self.sight.telling.now)().mono;
        self.listen(now);
        let due: Vec<(NodeId, Incarnation)> = self
            .silent
            .iter()
            .filter(|(_, (_, at))| *at <= now)
            .map(|(node_id, (incarnation, _))| (node_id.clone(), *incarnation))
            .collect();
        let patience = self.patience_ms();
        for (node_id, incarnation) in due {
            // Whatever becomes of it comes as a change; else it is tried again.
            self.silent.insert(node_id.clone(), (incarnation, now.plus_ms(patience)));
            if self.sight.own.is_some() {
                self.mark_lost(link, &node_id, incarnation).await?;
            } else if self.lost.insert((node_id, incarnation)) {
                self.tell();
            }
        }
        let first = self.silent.values().map(|(_, at)| at.since_ms(now)).min();
        Ok(Duration::from_millis(first.unwrap_or(patience).max(1)))
    }

    /// A sign of life may be late, of a node that registers or of one that takes a new lease: a lease's time.
    fn patience_ms(&self) -> u64 {
        u64::from(self.sight.lease_s).saturating_mul(1_010)
    }

    /// Finds the records without a sign of life.
    fn listen(&mut self, now: Mono) {
        let own = self.sight.own;
        let patience = self.patience_ms();
        let silent = self.records.values().map(|(member, _)| member).filter(|member| {
            Some(&member.node_id) != own
                && member.state != MemberState::Lost
                && !self.lives.contains(&(member.node_id.clone(), member.incarnation))
        });
        let mut found = BTreeMap::new();
        for member in silent {
            let since = self.silent.get(&member.node_id).filter(|(of, _)| *of == member.incarnation);
            let at = since.map_or_else(|| now.plus_ms(patience), |(_, at)| *at);
            found.insert(member.node_id.clone(), (member.incarnation, at));
        }
        self.silent = found;
    }

    async fn mark_lost(
        &self,
        link: &mut Link,
        node_id: &NodeId,
        incarnation: Incarnation,
    ) -> Result<(), Fault> {
        let keys = self.sight.keys;
        let key = keys.node(node_id);
        let Some((member, revision)) = self.records.get(&key) else { return Ok(()) };
        let lost = Member { state: MemberState::Lost, ..member.clone() };
        let write = etcd::TxnRequest {
            compare: vec![unchanged(&key, *revision), absent(&keys.life(node_id, incarnation))],
            success: vec![put(&key, value(&lost), 0)],
            ..etcd::TxnRequest::default()
        };
        if link.transact(write).await?.succeeded {
            self.sight.telling.counts.count(Metric::RecordsLost);
            tracing::warn!(%node_id, %incarnation, "cluster: a node's lease has ended: written down as lost");
        }
        Ok(())
    }
}
