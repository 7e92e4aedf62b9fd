//! OpenIM 3.5 in Kubernetes: services and gateways have names with ports, which are looked up again and again, since a
//! pod that is restarted has another address (spec 10.3).
//!
//! What always holds: a name that cannot be looked up keeps its last addresses, because the resolver does not tell a
//! name that is gone from trouble of its own, and to call an address in vain costs little. The lookups of a round are
//! made side by side, each with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::instances::{Instances, Surroundings};
use super::lookup::look_up;
use super::news::DiscoveryState;
use super::plan::{CONFIRMATION, NamesPlan};
use crate::backend::openim::Service;
use crate::metrics::Metric;

/// See the module's documentation.
pub(super) struct Resolver<'a> {
    plan: &'a NamesPlan,
    services: Vec<(Instances, &'a [String])>,
    /// The last addresses of each name.
    known: BTreeMap<&'a str, BTreeSet<SocketAddr>>,
    around: Surroundings<'a>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(plan: &'a NamesPlan, around: Surroundings<'a>) -> Self {
        let services = plan
            .services
            .iter()
            .map(|(service, names)| (Instances::new("names", *service, CONFIRMATION), names.as_slice()));
        Self { plan, services: services.collect(), known: BTreeMap::new(), around }
    }

    /// Round after round. Does not end.
    pub(super) async fn look_up_always(&mut self) {
        let (board, ..) = self.around;
        board.discovery(DiscoveryState::Loading);
        let mut told = DiscoveryState::Loading;
        loop {
            let state = self.round().await;
            if state != told {
                told = state;
                board.discovery(state);
            }
            sleep(Duration::from_millis(self.plan.round_ms)).await;
        }
    }

    /// Looks all names up; how those that must have an address stand. A gateway may be away.
    async fn round(&mut self) -> DiscoveryState {
        let (_, counts, _) = self.around;
        let names: BTreeSet<&'a str> = self
            .services
            .iter()
            .flat_map(|(_, names)| names.iter())
            .chain(&self.plan.own)
            .map(String::as_str)
            .collect();
        let look_ups = names.into_iter().map(async |name| (name, look_up(name).await));
        let mut failed = BTreeSet::new();
        for (name, found) in join_all(look_ups).await {
            match found {
                Ok(addresses) => {
                    self.known.insert(name, addresses.into_iter().collect());
                }
                Err(why) => {
                    counts.count(Metric::NameFailures);
                    failed.insert(name);
                    tracing::debug!(name, why, "a name cannot be looked up");
                }
            }
        }
        let own = self.plan.own.as_deref().and_then(|own| self.known.get(own));
        for (instances, names) in &mut self.services {
            let found = names.iter().filter_map(|name| self.known.get(name.as_str())).flatten();
            let others = found.filter(|address| own.is_none_or(|own| !own.contains(address)));
            instances.observe(others.copied().collect(), self.around);
        }
        counts.count(Metric::DiscoveryLoads);
        let must = self.plan.services.iter().filter(|(service, _)| *service != Service::Gateway);
        let must = || must.clone().flat_map(|(_, names)| names).map(String::as_str);
        match (must().all(|name| self.known.contains_key(name)), must().any(|name| failed.contains(name))) {
            (false, _) => DiscoveryState::Loading,
            (true, false) => DiscoveryState::Current,
            (true, true) => DiscoveryState::Stale,
        }
    }
}
