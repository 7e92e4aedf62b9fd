//! This node's record and lease in etcd, and what the router orders about records.
//!
//! What always holds: a record is changed by a transaction on the revision that was read, so nothing that somebody
//! else wrote is written over; how long the lease holds is counted from the sending of what prolonged it, less 1 %
//! (A4); a lease is told only after the own record was read under it. A lease outlives a broken connection.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};

use super::EtcdMembers;
use super::etcd_txn::{absent, delete_unchanged, first_entry, get, put, unchanged};
use super::etcd_watch::{ClusterIds, Sight, Watcher};
use super::record::{Keys, of_a_new_life, value};
use super::telling::Telling;
use super::todo::{Orders, Registration, Todo};
use crate::cluster::protocol::io::OwnRecord;
use crate::control::backoff::Backoff;
use crate::control::etcd::link::{Dial, Fault, Link};
use crate::metrics::Metric;
use crate::pb::etcd;
use crate::placement::view::{Epoch, Incarnation, Member, MemberState, NodeId};
use crate::time::Mono;

/// What a sign of life says; that it is there is all.
const ALIVE: &[u8] = b"alive";
/// What of a lease's time counts by the own clock: A1 and A4.
const LEASE_PERMILLE: u64 = 990;

/// See the module's documentation.
pub(super) struct Registrant<'a> {
    plan: &'a EtcdMembers,
    /// The incarnation and the epochs in it are not meant.
    own: Member,
    keys: Keys,
    dial: &'a Dial,
    telling: &'a Telling<'a>,
    source: ClusterIds,
}

/// A registration that was made.
struct Kept {
    incarnation: Incarnation,
    first_epoch: Epoch,
    /// `None`: etcd has none any more.
    lease: Option<i64>,
    /// When it is to be renewed.
    due: Instant,
}

/// What became of orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Done,
    /// The own record is deleted, as ordered.
    Left,
}

impl<'a> Registrant<'a> {
    pub(super) fn new(plan: &'a EtcdMembers, own: Member, dial: &'a Dial, telling: &'a Telling<'a>) -> Self {
        Self { plan, own, keys: Keys::new(&plan.root), dial, telling, source: ClusterIds::default() }
    }

    /// Registers, keeps the lease, does what is ordered and tells of the others, until the end is wanted.
    pub(super) async fn serve_until_end(&self, mut orders: Orders) {
        let Some(mut kept) = self.register_or_end(&mut orders).await else { return };
        let look = Notify::new();
        let mut watcher = Watcher::new(self.sight());
        tokio::select! {
            () = watcher.watch_always(&look) => {}
            () = self.keep_until_end(&mut kept, &mut orders, &look) => {}
        }
    }

    /// How often the lease is renewed, and how long one attempt may take.
    fn third(&self) -> Duration {
        Duration::from_secs(self.plan.lease_s.into()) / 3
    }

    /// `None`: the end came first.
    async fn register_or_end(&self, orders: &mut Orders) -> Option<Kept> {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let fault = match self.register().await {
                Ok(kept) => return Some(kept),
                Err(fault) => fault,
            };
            let wait = self.failed(&mut backoff, began, &fault);
            if pause(orders, wait).await {
                return None;
            }
        }
    }

    /// Writes the own record as joining, and a sign of life under a new lease while it stands (M1).
    async fn register(&self) -> Result<Kept, Fault> {
        let mut link = self.dial.connect().await?;
        let node_id = &self.own.node_id;
        let before = self.await_the_end_of_the_last_life(&mut link).await?;
        let sent = (self.telling.now)().mono;
        let asked = Instant::now();
        let (lease, ttl_s) = link.granted(self.plan.lease_s).await?;
        let key = self.keys.node(node_id);
        let write = etcd::TxnRequest {
            compare: vec![before.map_or_else(|| absent(&key), |revision| unchanged(&key, revision))],
            success: vec![put(&key, value(&of_a_new_life(&self.own)), 0)],
            ..etcd::TxnRequest::default()
        };
        let written = link.transact(write).await?;
        if !written.succeeded {
            return Err(Fault::Ended(format!("the record of {node_id} was changed while it was read")));
        }
        let header = written.header.unwrap_or_default();
        let revision = u64::try_from(header.revision).unwrap_or(0);
        let incarnation = Incarnation(revision);
        let sign = etcd::TxnRequest {
            compare: vec![unchanged(&key, header.revision)],
            success: vec![put(&self.keys.life(node_id, incarnation), ALIVE.to_vec(), lease)],
            ..etcd::TxnRequest::default()
        };
        if !link.transact(sign).await?.succeeded {
            return Err(Fault::Ended(format!("the record of {node_id} was changed while it was written")));
        }
        self.source.registered.set(header.cluster_id);
        self.telling.joined(incarnation, Epoch(revision), valid_until(sent, ttl_s));
        Ok(Kept { incarnation, first_epoch: Epoch(revision), lease: Some(lease), due: asked + self.third() })
    }

    /// The revision of the record under this node's name, once no other process lives by it (A2). The sign of life of
    /// one that has died goes with its lease; where this one listens at the same address, no other does.
    async fn await_the_end_of_the_last_life(&self, link: &mut Link) -> Result<Option<i64>, Fault> {
        let node_id = &self.own.node_id;
        let (_, entry) = link.entry(&self.keys.node(node_id)).await?;
        let revision = entry.as_ref().map(|entry| entry.mod_revision);
        let Some((last, _)) = self.read(entry.as_ref()) else { return Ok(revision) };
        if last.rpc_addr == self.own.rpc_addr {
            return Ok(revision);
        }
        let (_, sign) = link.entry(&self.keys.life(node_id, last.incarnation)).await?;
        if sign.is_none() {
            return Ok(revision);
        }
        let by = format!(
            "another process of {node_id} lives, incarnation {} at {}; this one, at {}, waits until it has ended: end \
             one of them, or give it a cluster.node_id of its own. After a crash the other's lease ends within {} s, \
             and this node goes on by itself",
            last.incarnation, last.rpc_addr, self.own.rpc_addr, self.plan.lease_s
        );
        self.telling.name_taken(Some(&by));
        Err(Fault::Taken)
    }

    async fn keep_until_end(&self, kept: &mut Kept, orders: &mut Orders, look: &Notify) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let fault = match self.session(kept, orders, look).await {
                Ok(()) => return,
                Err(fault) => fault,
            };
            let wait = self.failed(&mut backoff, began, &fault);
            if pause(orders, wait).await {
                return;
            }
            kept.due = Instant::now();
        }
    }

    /// Counts and logs a failure; how long to wait.
    fn failed(&self, backoff: &mut Backoff, began: Instant, fault: &Fault) -> Duration {
        let wait = backoff.next(began.elapsed()).min(self.third() / 2);
        self.telling.counts.count(Metric::MembershipFailures);
        self.telling.counts.count(Metric::LeaseRenewalsFailed);
        if !matches!(fault, Fault::Taken) {
            self.telling.trouble(fault.to_string());
        }
        if backoff.is_first() {
            tracing::warn!(%fault, "cluster: etcd does not take this node's record or lease; trying again");
        } else {
            tracing::debug!(%fault, ?wait, "cluster: the own record or lease is still not taken");
        }
        wait
    }

    async fn session(&self, kept: &mut Kept, orders: &mut Orders, look: &Notify) -> Result<(), Fault> {
        let mut link = timeout(self.third(), self.dial.connect()).await.unwrap_or_else(|_| Err(late()))?;
        self.sight().check_source(&mut link).await?;
        loop {
            if kept.due <= Instant::now() {
                timeout(self.third(), self.tend(kept, &mut link)).await.unwrap_or_else(|_| Err(late()))?;
            }
            if self.work(kept, &mut link, &mut orders.todo).await? == Work::Left || orders.are_over() {
                return Ok(());
            }
            tokio::select! {
                () = sleep_until(kept.due) => {}
                () = look.notified() => kept.due = Instant::now(),
                () = orders.more() => {}
            }
        }
    }

    /// How the members are read.
    fn sight(&self) -> Sight<'_> {
        Sight {
            keys: &self.keys,
            dial: self.dial,
            telling: self.telling,
            lease_s: self.plan.lease_s,
            own: Some(&self.own.node_id),
            source: &self.source,
        }
    }

    /// See [`Sight::of_the_source`].
    fn of_the_source(&self, header: &etcd::ResponseHeader) -> Result<(), Fault> {
        self.sight().of_the_source(header)
    }

    /// Renews the lease or takes a new one, makes sure that the sign of life is under it, and reads the own record.
    async fn tend(&self, kept: &mut Kept, link: &mut Link) -> Result<(), Fault> {
        let asked = Instant::now();
        let mut sent = (self.telling.now)().mono;
        let renewed = match kept.lease {
            Some(lease) => match link.renew(lease).await {
                Ok(ttl_s) => Some((lease, ttl_s)),
                Err(Fault::NoLease) => None,
                Err(fault) => return Err(fault),
            },
            None => None,
        };
        let (lease, ttl_s) = match renewed {
            Some(renewed) => renewed,
            None => {
                kept.lease = None;
                sent = (self.telling.now)().mono;
                link.granted(self.plan.lease_s).await?
            }
        };
        kept.lease = Some(lease);
        let (mut own, mut bound) = self.look(kept, link).await?;
        if own != OwnRecord::Gone && bound != Some(lease) {
            let life = self.keys.life(&self.own.node_id, kept.incarnation);
            if let Err(fault) = link.put(&life, ALIVE, lease).await {
                if matches!(fault, Fault::NoLease) {
                    kept.lease = None;
                }
                return Err(fault);
            }
            (own, bound) = self.look(kept, link).await?;
        }
        if own != OwnRecord::Gone && bound != Some(lease) {
            return Err(Fault::Ended("somebody deletes this node's sign of life".into()));
        }
        kept.due = asked + self.third();
        self.telling.leased(valid_until(sent, ttl_s), own);
        Ok(())
    }

    /// The own record, and the lease that the sign of life is under, at one revision.
    async fn look(&self, kept: &Kept, link: &mut Link) -> Result<(OwnRecord, Option<i64>), Fault> {
        let node_id = &self.own.node_id;
        let life = self.keys.life(node_id, kept.incarnation);
        let both = etcd::TxnRequest {
            success: vec![get(&self.keys.node(node_id)), get(&life)],
            ..etcd::TxnRequest::default()
        };
        let answer = link.transact(both).await?;
        self.of_the_source(&answer.header.unwrap_or_default())?;
        let mut entries = answer.responses.into_iter().map(first_entry);
        let record = entries.next().flatten();
        let bound = entries.next().flatten().map(|entry| entry.lease);
        let own = match self.read(record.as_ref()) {
            Some((member, _)) if member.incarnation == kept.incarnation => match member.state {
                MemberState::Lost => OwnRecord::Lost,
                _ => OwnRecord::Kept,
            },
            // Of an earlier life, as a backup has it: to be written back.
            Some((member, _)) if member.incarnation < kept.incarnation => OwnRecord::Lost,
            later => {
                let later = later.map(|(member, _)| member);
                self.telling.note_replaced(&self.own, kept.incarnation, later.as_ref());
                OwnRecord::Gone
            }
        };
        Ok((own, bound))
    }

    /// A record and its revision; `None`: there is none that can be read.
    fn read(&self, entry: Option<&etcd::KeyValue>) -> Option<(Member, i64)> {
        let entry = entry?;
        match self.keys.read_node(&entry.key, &entry.value, entry.mod_revision) {
            Ok(member) => Some((member, entry.mod_revision)),
            Err(why) => {
                self.telling.counts.count(Metric::ViewsIgnored);
                tracing::warn!(key = %String::from_utf8_lossy(&entry.key), why, "cluster: not a record");
                None
            }
        }
    }

    /// Does what is ordered. What fails stays ordered.
    async fn work(&self, kept: &mut Kept, link: &mut Link, todo: &mut Todo) -> Result<Work, Fault> {
        if let Some((state, registration)) = todo.own {
            self.record(kept, link, (state, registration)).await?;
            todo.own = None;
        }
        while let Some((node_id, &life)) = todo.forget.first_key_value() {
            self.forget(link, node_id, life).await?;
            todo.forget.pop_first();
        }
        if !todo.leave {
            return Ok(Work::Done);
        }
        self.leave(kept, link).await?;
        todo.leave = false;
        Ok(Work::Left)
    }

    async fn record(
        &self,
        kept: &Kept,
        link: &mut Link,
        (state, registration): (MemberState, Registration),
    ) -> Result<(), Fault> {
        let key = self.keys.node(&self.own.node_id);
        let (header, entry) = link.entry(&key).await?;
        self.of_the_source(&header)?;
        let found = self.read(entry.as_ref());
        let later = |found: &(Member, i64)| found.0.incarnation > kept.incarnation;
        let Some((current, revision)) = found.clone().filter(|found| !later(found)) else {
            let by = found.as_ref().map(|(member, _)| member);
            self.telling.note_replaced(&self.own, kept.incarnation, by);
            self.telling.replaced();
            return Ok(());
        };
        let stands = current.incarnation == kept.incarnation && current.state != MemberState::Lost;
        let registered_epoch = match (registration, stands) {
            (Registration::Same, true) => current.registered_epoch,
            // The router hears of it with the next renewal, and registers.
            (Registration::Same, false) => return Ok(()),
            (Registration::New, _) => Epoch(0),
        };
        let next = Member {
            state,
            incarnation: kept.incarnation,
            first_epoch: kept.first_epoch,
            registered_epoch,
            ..self.own.clone()
        };
        let write = etcd::TxnRequest {
            compare: vec![unchanged(&key, revision)],
            success: vec![put(&key, value(&next), 0)],
            ..etcd::TxnRequest::default()
        };
        let answer = link.transact(write).await?;
        if !answer.succeeded {
            return Err(Fault::Ended("the own record was changed while it was written".into()));
        }
        if registration == Registration::New {
            let revision = answer.header.unwrap_or_default().revision;
            self.telling.recorded(Epoch(u64::try_from(revision).unwrap_or(0)));
        }
        Ok(())
    }

    /// Deletes the record of a lost life. One that has changed is left: then somebody knows more.
    async fn forget(
        &self,
        link: &mut Link,
        node_id: &NodeId,
        (incarnation, registered): (Incarnation, Option<Epoch>),
    ) -> Result<(), Fault> {
        let key = self.keys.node(node_id);
        let (header, entry) = link.entry(&key).await?;
        self.of_the_source(&header)?;
        let Some((member, revision)) = self.read(entry.as_ref()) else { return Ok(()) };
        let is_meant =
            member.incarnation == incarnation && registered.is_none_or(|of| of == member.registered_epoch);
        if !is_meant || member.state != MemberState::Lost {
            return Ok(());
        }
        if delete_unchanged(link, &key, revision).await? {
            self.telling.counts.count(Metric::RecordsForgotten);
            tracing::warn!(%node_id, %incarnation, "cluster: the record of a lost node is deleted");
        }
        Ok(())
    }

    async fn leave(&self, kept: &mut Kept, link: &mut Link) -> Result<(), Fault> {
        let key = self.keys.node(&self.own.node_id);
        let (header, entry) = link.entry(&key).await?;
        self.of_the_source(&header)?;
        if let Some((member, revision)) = self.read(entry.as_ref())
            && member.incarnation == kept.incarnation
            && !delete_unchanged(link, &key, revision).await?
        {
            return Err(Fault::Ended("the own record was changed while it was deleted".into()));
        }
        if let Some(lease) = kept.lease {
            match link.revoke(lease).await {
                Ok(()) | Err(Fault::NoLease) => kept.lease = None,
                Err(fault) => return Err(fault),
            }
        }
        tracing::info!("cluster: this node has left");
        Ok(())
    }
}

/// Waits, and takes orders meanwhile; whether the end came and nothing is left to do.
pub(super) async fn pause(orders: &mut Orders, wait: Duration) -> bool {
    let until = Instant::now() + wait;
    loop {
        if orders.are_over() {
            return true;
        }
        tokio::select! {
            () = sleep_until(until) => return false,
            () = orders.more() => {}
        }
    }
}

/// Until when a lease of so many seconds holds that was asked for then (A4).
pub(super) fn valid_until(sent: Mono, ttl_s: u64) -> Mono {
    sent.plus_ms(ttl_s.saturating_mul(LEASE_PERMILLE))
}

fn late() -> Fault {
    Fault::Ended("a renewal was not answered within a third of the lease".into())
}
