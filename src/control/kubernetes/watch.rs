//! Follows the instances of OpenIM's services in Kubernetes, each on its own: reads its object, asks to be told of
//! every change after that version, and applies changes as they come.
//!
//! What always holds: what is believed comes from the whole object, never from a difference; a version is only ever
//! given back to the server. While an empty set waits for its confirmation, the object is read again.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, sleep_until};

use super::api::{Dial, Fault, Link};
use super::object::{Endpoints, Event, List};
use crate::backend::openim::Service;
use crate::control::backoff::Backoff;
use crate::control::instances::{Instances, Surroundings, recheck};
use crate::control::news::DiscoveryState;
use crate::control::plan::{ControlFault, KubernetesPlan};
use crate::limits::KUBERNETES_WATCH_LEAST_MS;
use crate::metrics::Metric;

/// See the module's documentation.
pub(in crate::control) struct Watcher {
    plan: KubernetesPlan,
    dial: Dial,
}

impl Watcher {
    /// Checks the plan.
    pub(in crate::control) fn new(plan: KubernetesPlan) -> Result<Self, ControlFault> {
        Ok(Self { dial: Dial::new(&plan)?, plan })
    }

    /// Does not end.
    pub(in crate::control) async fn watch_always(&self, around: Surroundings<'_>) {
        let freshness = Freshness::new(self.plan.services.len(), around);
        let follow = |(service, name): &(Service, String)| {
            let (service, name) = (*service, name.clone());
            let follower = Follower { watcher: self, service, name, freshness: &freshness, around };
            follower.follow_always()
        };
        join_all(self.plan.services.iter().map(follow)).await;
    }
}

/// How fresh the services are together.
struct Freshness<'a> {
    services: usize,
    state: RefCell<(DiscoveryState, BTreeSet<Service>)>,
    around: Surroundings<'a>,
}

impl<'a> Freshness<'a> {
    fn new(services: usize, around: Surroundings<'a>) -> Self {
        around.0.discovery(DiscoveryState::Loading);
        Self { services, state: RefCell::new((DiscoveryState::Loading, BTreeSet::new())), around }
    }

    fn watched(&self, service: Service) {
        self.change(|watched| watched.insert(service));
    }

    fn lost(&self, service: Service) {
        self.change(|watched| watched.remove(&service));
    }

    /// Tells the state if it is another than before.
    fn change(&self, change: impl FnOnce(&mut BTreeSet<Service>) -> bool) {
        let (state, watched) = &mut *self.state.borrow_mut();
        change(watched);
        let now = match (*state, watched.len() == self.services) {
            (_, true) => DiscoveryState::Current,
            (DiscoveryState::Loading, false) => DiscoveryState::Loading,
            (_, false) => DiscoveryState::Stale,
        };
        if now != *state {
            *state = now;
            self.around.0.discovery(now);
            tracing::info!(?now, "Kubernetes: discovery");
        }
    }
}

/// What follows one service.
struct Follower<'a> {
    watcher: &'a Watcher,
    service: Service,
    name: String,
    freshness: &'a Freshness<'a>,
    around: Surroundings<'a>,
}

impl Follower<'_> {
    /// Session after session.
    async fn follow_always(self) {
        let (_, counts, _) = self.around;
        let mut instances = Instances::new("Kubernetes", self.service, self.watcher.plan.confirmation);
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let fault = match self.session(&mut instances).await {
                Err(fault) => fault,
                Ok(never) => match never {},
            };
            let wait = backoff.next(began.elapsed());
            let name = &self.name;
            // The ordinary end of a history; what is known was current a moment ago and will be in a moment.
            if !matches!(fault, Fault::Expired) {
                self.freshness.lost(self.service);
                counts.count(Metric::KubernetesFailures);
            }
            if backoff.is_first() {
                tracing::warn!(%name, %fault, "Kubernetes: a service is not watched; trying again until it is");
            } else {
                tracing::debug!(%name, %fault, ?wait, "Kubernetes: still not watched");
            }
            sleep(wait).await;
        }
    }

    async fn session(&self, instances: &mut Instances) -> Result<Infallible, Fault> {
        let link = self.watcher.dial.connect()?;
        loop {
            let List { metadata, .. } = self.load(&link, instances).await?;
            self.watch(&link, metadata.resource_version, instances).await?;
        }
    }

    /// Reads the object. One that is not there has no instances.
    async fn load(&self, link: &Link<'_>, instances: &mut Instances) -> Result<List, Fault> {
        let list = link.list(&self.name).await?;
        self.observe(list.object(&self.name), instances);
        self.around.1.count(Metric::DiscoveryLoads);
        Ok(list)
    }

    /// Watch after watch, until the object is to be read again.
    async fn watch(
        &self,
        link: &Link<'_>,
        mut version: String,
        instances: &mut Instances,
    ) -> Result<(), Fault> {
        let read_again = Instant::now() + recheck(self.watcher.plan.confirmation);
        loop {
            let began = Instant::now();
            let mut watch = link.watch(&self.name, &version).await?;
            self.freshness.watched(self.service);
            loop {
                let event = tokio::select! {
                    event = watch.next() => event?,
                    () = sleep_until(read_again), if instances.are_in_doubt() => return Ok(()),
                };
                match event {
                    Some(event) => version = self.apply(event, instances)?.unwrap_or(version),
                    None => break,
                }
            }
            if began.elapsed() < Duration::from_millis(KUBERNETES_WATCH_LEAST_MS) {
                return Err(Fault::Ended("a watch ended as soon as it began".into()));
            }
        }
    }

    /// Applies an event; the version up to which all is known then.
    fn apply(&self, event: Event, instances: &mut Instances) -> Result<Option<String>, Fault> {
        let (object, shown) = match &event {
            Event::Added(object) | Event::Modified(object) => (object, Some(Some(object))),
            Event::Deleted(object) => (object, Some(None)),
            Event::Bookmark(object) => (object, None),
            Event::Error(status) if status.code == http::StatusCode::GONE.as_u16() => {
                return Err(Fault::Expired);
            }
            Event::Error(status) => {
                return Err(Fault::Ended(format!("a watch: {} {}", status.code, status.message)));
            }
        };
        if let Some(object) = shown {
            self.observe(object, instances);
        }
        let version = object.metadata.resource_version.clone();
        Ok((!version.is_empty()).then_some(version))
    }

    fn observe(&self, object: Option<&Endpoints>, instances: &mut Instances) {
        let port_name = &self.watcher.plan.port_name;
        let found = object.map(|object| object.found(port_name)).unwrap_or_default();
        if found.ignored > 0 {
            self.around.1.add(Metric::EndpointsIgnored, found.ignored as u64);
            let ports = object.map(Endpoints::port_names).unwrap_or_default();
            tracing::warn!(
                name = %self.name, ignored = found.ignored, %port_name, ?ports,
                "Kubernetes: addresses without a port of that name, or too many; see discovery.port_name"
            );
        }
        instances.observe(found.addresses, self.around);
    }
}
