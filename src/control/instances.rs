//! One service as a registry shows it: each answer is an observation of the whole set, and what is believed of it is
//! counted, logged and posted. The same for every kind of registry.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::counts::Counts;
use super::news::Board;
use crate::backend::openim::Service;
use crate::cluster::endpoints::{Believed, Confirmation, Endpoints, Observation};
use crate::metrics::Metric;
use crate::time::Now;

/// What a task of `control` posts to, counts in and reads the time from.
pub(super) type Surroundings<'a> = (&'a Board, &'a Counts, fn() -> Now);

/// See the module's documentation.
pub(super) struct Instances {
    /// As the log names it.
    registry: &'static str,
    service: Service,
    believed: Believed,
}

impl Instances {
    pub(super) fn new(registry: &'static str, service: Service, confirmation: Confirmation) -> Self {
        Self { registry, service, believed: Believed::new(confirmation) }
    }

    /// Whether an empty set waits for confirmation: observe again.
    pub(super) fn are_in_doubt(&self) -> bool {
        self.believed.is_in_doubt()
    }

    /// Shows what is there now to what is believed.
    pub(super) fn observe(&mut self, addresses: Vec<SocketAddr>, (board, counts, now): Surroundings<'_>) {
        let (registry, service) = (self.registry, self.service);
        let observation = self.believed.observe(now().mono, addresses);
        let instances = self.believed.endpoints().addresses.len();
        match observation {
            Observation::Unchanged => return,
            Observation::Held => {
                counts.count(Metric::EndpointsHeld);
                tracing::warn!(
                    ?service,
                    kept = instances,
                    "{registry}: all instances are gone; not believed before it is confirmed"
                );
                return;
            }
            Observation::Halved => {
                counts.count(Metric::EndpointsHalved);
                tracing::warn!(
                    ?service,
                    left = instances,
                    "{registry}: half of the instances or more went at once"
                );
            }
            Observation::Changed => tracing::info!(?service, instances, "{registry}: instances changed"),
        }
        publish(board, counts, service, self.believed.endpoints());
    }
}

/// Posts a new version and shows its number and size.
fn publish(board: &Board, counts: &Counts, service: Service, endpoints: &Endpoints) {
    let (size, version) = match service {
        Service::Auth => (Metric::EndpointsAuth, Metric::EndpointsVersionAuth),
        Service::User => (Metric::EndpointsUser, Metric::EndpointsVersionUser),
        Service::Msg => (Metric::EndpointsMsg, Metric::EndpointsVersionMsg),
        Service::Push => (Metric::EndpointsPush, Metric::EndpointsVersionPush),
        Service::Gateway => (Metric::EndpointsGateway, Metric::EndpointsVersionGateway),
    };
    counts.set(size, endpoints.addresses.len() as u64);
    counts.set(version, endpoints.version);
    board.endpoints(service, Arc::new(endpoints.clone()));
}

/// How often to read while an empty set waits: so that the last observation that is needed comes when it is due.
pub(super) fn recheck(confirmation: Confirmation) -> Duration {
    let pauses = confirmation.observations.saturating_sub(1).max(1);
    Duration::from_millis((confirmation.over_ms / u64::from(pauses)).max(50))
}
