//! Keeps this node in the registry: its own key, and the one of OpenIM's Prometheus discovery.
//!
//! A key lives under a lease, and the lease as long as it is renewed: a node that dies is gone from the registry when
//! its lease ends (spec 11.1, trap 35). What always holds: while registration is wanted, a key that is found missing,
//! or under another lease, is written again at once; when it is withdrawn, the lease is revoked, which deletes the
//! key. A lease outlives a broken connection and is taken up again by the next.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use super::link::{Dial, Fault, Link};
use super::value::{endpoint, key, prometheus};
use crate::control::backoff::Backoff;
use crate::control::counts::Counts;
use crate::control::mailbox::{Leases, Wanted};
use crate::control::news::{Board, RegistrationState};
use crate::control::plan::RegistrationPlan;
use crate::metrics::Metric;

/// See the module's documentation.
pub(in crate::control) struct Registrar<'a> {
    /// The own key first.
    claims: Vec<Claim>,
    dial: &'a Dial,
    board: &'a Board,
    counts: &'a Counts,
}

/// A key that is to be there.
struct Claim {
    key: Vec<u8>,
    value: Vec<u8>,
    ttl_s: u32,
    /// `None`: none was granted, or it is gone.
    lease: Option<i64>,
    /// When the lease is looked after next.
    due: Instant,
}

impl<'a> Registrar<'a> {
    pub(in crate::control) fn new(
        root: &str,
        plan: &RegistrationPlan,
        dial: &'a Dial,
        (board, counts): (&'a Board, &'a Counts),
    ) -> Self {
        let own =
            Claim::new(key(root, &plan.service, plan.address), endpoint(plan.address), plan.lease_s.max(1));
        let metrics = plan.prometheus.as_ref().map(|prometheus_plan| {
            let value = prometheus(prometheus_plan.target);
            Claim::new(prometheus_plan.key.clone().into_bytes(), value, prometheus_plan.lease_s.max(1))
        });
        let claims = [own].into_iter().chain(metrics).collect();
        Self { claims, dial, board, counts }
    }

    pub(in crate::control) fn own_key(&self) -> Vec<u8> {
        self.claims.first().map(|claim| claim.key.clone()).unwrap_or_default()
    }

    /// Does what is wanted until the end is. `look`: look after the own key now.
    pub(in crate::control) async fn keep_until_end(&mut self, look: &Notify, wanted: &mut Wanted) {
        self.show(RegistrationState::Absent);
        while wanted.registered_or_end().await {
            let leases = tokio::select! {
                () = self.keep(look) => Leases::Leave,
                leases = wanted.withdrawn_or_end() => leases,
            };
            if leases == Leases::Revoke {
                tokio::select! {
                    () = self.leave() => self.show(RegistrationState::Absent),
                    () = wanted.registered() => {}
                }
            }
        }
    }

    /// Session after session.
    async fn keep(&mut self, look: &Notify) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let fault = match self.session(look).await {
                Err(fault) => fault,
                Ok(never) => match never {},
            };
            let wait = backoff.next(began.elapsed());
            self.counts.count(Metric::RegistrationFailures);
            self.show(RegistrationState::Uncertain);
            if backoff.is_first() {
                tracing::warn!(%fault, "etcd: this node is not registered, or not for long; trying again");
            } else {
                tracing::debug!(%fault, ?wait, "etcd: still not registered");
            }
            sleep(wait).await;
        }
    }

    async fn session(&mut self, look: &Notify) -> Result<Infallible, Fault> {
        let mut link = self.dial.connect().await?;
        for claim in &mut self.claims {
            claim.tend(&mut link, self.counts).await?;
        }
        self.show(RegistrationState::Present);
        tracing::info!("etcd: this node is registered");
        loop {
            let due = self.claims.iter().map(|claim| claim.due).min().unwrap_or_else(Instant::now);
            tokio::select! {
                () = sleep_until(due) => {}
                () = look.notified() => {
                    if let Some(own) = self.claims.first_mut() {
                        own.due = Instant::now();
                    }
                }
            }
            let now = Instant::now();
            for claim in self.claims.iter_mut().filter(|claim| claim.due <= now) {
                claim.tend(&mut link, self.counts).await?;
            }
        }
    }

    /// Ends the leases; tries until it has worked: a lease may outlive its time, since a new leader of etcd extends it.
    async fn leave(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let fault = match self.revoke().await {
                Ok(()) => return tracing::info!("etcd: this node is no longer registered"),
                Err(fault) => fault,
            };
            self.show(RegistrationState::Uncertain);
            let wait = backoff.next(began.elapsed());
            tracing::debug!(%fault, ?wait, "etcd: the registration is not revoked yet");
            sleep(wait).await;
        }
    }

    async fn revoke(&mut self) -> Result<(), Fault> {
        if self.claims.iter().all(|claim| claim.lease.is_none()) {
            return Ok(());
        }
        let mut link = self.dial.connect().await?;
        for claim in &mut self.claims {
            if let Some(lease) = claim.lease {
                match link.revoke(lease).await {
                    Ok(()) | Err(Fault::NoLease) => claim.lease = None,
                    Err(fault) => return Err(fault),
                }
            }
        }
        Ok(())
    }

    fn show(&self, state: RegistrationState) {
        self.counts.set(Metric::RegistrationPresent, u64::from(state == RegistrationState::Present));
        self.board.registration(state);
    }
}

impl Claim {
    fn new(key: Vec<u8>, value: Vec<u8>, ttl_s: u32) -> Self {
        Self { key, value, ttl_s, lease: None, due: Instant::now() }
    }

    /// Renews the lease and makes sure that the key is there under it.
    async fn tend(&mut self, link: &mut Link, counts: &Counts) -> Result<(), Fault> {
        let asked = Instant::now();
        let had = self.lease;
        if let Some(lease) = had {
            match link.keep_alive(lease).await {
                Ok(()) => {}
                Err(Fault::NoLease) => self.lease = None,
                Err(fault) => return Err(fault),
            }
        }
        let lease = match self.lease {
            Some(lease) => lease,
            None => {
                let lease = link.grant(self.ttl_s).await?;
                self.lease = Some(lease);
                lease
            }
        };
        if link.lease_of(&self.key).await? != Some(lease) {
            if had.is_some() {
                counts.count(Metric::RegistrationsLost);
                let key = String::from_utf8_lossy(&self.key);
                tracing::warn!(%key, "etcd: the key of this node or its lease was gone; written again");
            }
            match link.put(&self.key, &self.value, lease).await {
                Ok(()) => {}
                Err(Fault::NoLease) => {
                    // It ended between two calls: the next session gets another.
                    self.lease = None;
                    return Err(Fault::NoLease);
                }
                Err(fault) => return Err(fault),
            }
        }
        self.due = asked + Duration::from_secs(self.ttl_s.into()) / 3;
        Ok(())
    }
}
