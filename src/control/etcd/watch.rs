//! Follows the instances of OpenIM's services.
//!
//! A session reads all services, asks to be told of every change after what was read, and applies changes as they
//! come. What always holds: what is kept of a service is its keys in the registry as of one revision; each change ends
//! in an observation of the whole set, and `Believed` decides what is posted. While an empty set waits for its
//! confirmation, the services are read again.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::{Dial, Fault, Link};
use super::value::{prefix, prefix_end, read_endpoint};
use crate::backend::openim::Service;
use crate::control::backoff::Backoff;
use crate::control::counts::Counts;
use crate::control::instances::{Instances, Surroundings, recheck};
use crate::control::news::{Board, DiscoveryState};
use crate::control::plan::EtcdPlan;
use crate::limits::SERVICE_ENDPOINTS_MAX;
use crate::metrics::Metric;
use crate::pb::etcd;
use crate::time::Now;

/// See the module's documentation.
pub(in crate::control) struct Watcher<'a> {
    services: Vec<Watched>,
    /// This node's own key: its deletion is passed on.
    own_key: Option<Vec<u8>>,
    recheck: Duration,
    dial: &'a Dial,
    board: &'a Board,
    counts: &'a Counts,
    now: fn() -> Now,
}

/// One service.
struct Watched {
    prefix: Vec<u8>,
    /// The revision that was read; older changes are in it.
    revision: i64,
    /// By key; at most `SERVICE_ENDPOINTS_MAX`.
    found: BTreeMap<Vec<u8>, std::net::SocketAddr>,
    instances: Instances,
}

impl<'a> Watcher<'a> {
    pub(in crate::control) fn new(
        plan: &EtcdPlan,
        own_key: Option<Vec<u8>>,
        dial: &'a Dial,
        (board, counts, now): Surroundings<'a>,
    ) -> Self {
        let watched = |(service, name): &(Service, String)| Watched {
            prefix: prefix(&plan.root, name),
            revision: 0,
            found: BTreeMap::new(),
            instances: Instances::new("etcd", *service, plan.confirmation),
        };
        let services = plan.services.iter().map(watched).collect();
        Self { services, own_key, recheck: recheck(plan.confirmation), dial, board, counts, now }
    }

    /// Session after session. `look` is rung when the own registration should be looked after.
    pub(in crate::control) async fn watch_always(&mut self, look: &Notify) {
        let mut backoff = Backoff::default();
        let mut state = DiscoveryState::Loading;
        self.board.discovery(state);
        loop {
            let began = Instant::now();
            let fault = match self.session(&mut state, look).await {
                Err(fault) => fault,
                Ok(never) => match never {},
            };
            let wait = backoff.next(began.elapsed());
            if state == DiscoveryState::Current {
                state = DiscoveryState::Stale;
                self.board.discovery(state);
            }
            // The registration's connection is idle most of the time: it may be as dead as this one.
            look.notify_one();
            self.counts.count(Metric::DiscoveryFailures);
            if backoff.is_first() {
                tracing::warn!(%fault, "etcd: the services are not watched; trying again until they are");
            } else {
                tracing::debug!(%fault, ?wait, "etcd: still not watched");
            }
            sleep(wait).await;
        }
    }

    async fn session(&mut self, state: &mut DiscoveryState, look: &Notify) -> Result<Infallible, Fault> {
        let mut link = self.dial.connect().await?;
        self.load(&mut link).await?;
        let mut changes = link.watch(self.services.iter().map(Watched::request).collect()).await?;
        *state = DiscoveryState::Current;
        self.board.discovery(*state);
        tracing::info!("etcd: the services are watched");
        // What happened to the own key meanwhile was not seen.
        look.notify_one();
        let mut read_again = Instant::now() + self.recheck;
        loop {
            let in_doubt = self.services.iter().any(|watched| watched.instances.are_in_doubt());
            tokio::select! {
                change = changes.message() => match change? {
                    Some(change) => self.apply(change, look)?,
                    None => return Err(Fault::Ended("the watch ended".into())),
                },
                () = sleep_until(read_again), if in_doubt => {
                    self.load(&mut link).await?;
                    read_again = Instant::now() + self.recheck;
                }
            }
        }
    }

    /// Reads all services.
    async fn load(&mut self, link: &mut Link) -> Result<(), Fault> {
        for n in 0..self.services.len() {
            let Some(watched) = self.services.get_mut(n) else { break };
            let answer = link.entries(&watched.prefix).await?;
            if answer.more {
                self.counts.count(Metric::EndpointsIgnored);
            }
            watched.revision = answer.header.map_or(0, |header| header.revision);
            watched.found.clear();
            for entry in answer.kvs {
                watched.set(&entry, self.counts);
            }
            self.observe(n);
        }
        self.counts.count(Metric::DiscoveryLoads);
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
        let mut touched = vec![false; self.services.len()];
        for event in change.events {
            let deleted = event.r#type() == etcd::event::EventType::Delete;
            let Some(entry) = event.kv else { continue };
            if deleted && self.own_key.as_deref() == Some(&entry.key[..]) {
                look.notify_one();
            }
            let service = self.services.iter().position(|watched| entry.key.starts_with(&watched.prefix));
            let Some((n, watched)) = service.and_then(|n| Some((n, self.services.get_mut(n)?))) else {
                continue;
            };
            if entry.mod_revision <= watched.revision {
                continue;
            }
            if deleted {
                watched.found.remove(&entry.key[..]);
            } else {
                watched.set(&entry, self.counts);
            }
            if let Some(touched) = touched.get_mut(n) {
                *touched = true;
            }
        }
        for n in (0..touched.len()).filter(|&n| touched.get(n) == Some(&true)) {
            self.observe(n);
        }
        Ok(())
    }

    /// Shows what is there now to what is believed.
    fn observe(&mut self, n: usize) {
        let Some(watched) = self.services.get_mut(n) else { return };
        let addresses = watched.found.values().copied().collect();
        watched.instances.observe(addresses, (self.board, self.counts, self.now));
    }
}

impl Watched {
    /// What to be told of: changes after what was read.
    fn request(&self) -> etcd::WatchCreateRequest {
        etcd::WatchCreateRequest {
            key: self.prefix.clone().into(),
            range_end: prefix_end(&self.prefix).into(),
            start_revision: self.revision.saturating_add(1),
        }
    }

    /// Takes an entry. One that is no endpoint is as one that is not there.
    fn set(&mut self, entry: &etcd::KeyValue, counts: &Counts) {
        let has_room = self.found.len() < SERVICE_ENDPOINTS_MAX || self.found.contains_key(&entry.key[..]);
        match read_endpoint(&entry.value) {
            Some(address) if has_room => {
                self.found.insert(entry.key.to_vec(), address);
            }
            _ => {
                self.found.remove(&entry.key[..]);
                counts.count(Metric::EndpointsIgnored);
                let key = String::from_utf8_lossy(&entry.key);
                tracing::debug!(%key, "etcd: not an endpoint, or too many of them");
            }
        }
    }
}
