//! The control thread against a real etcd, a real Redis and an HTTP server (`scripts/servers.sh` installs them), and a
//! stand-in for the API server of Kubernetes.

mod etcd;
mod kubernetes;
mod lookup;
mod membership;
mod membership_kubernetes;
mod membership_listed;
mod membership_watched;
mod nodes;
mod redis;
mod redis_cluster;
mod registration;
pub mod servers;
mod webhooks;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pinion::backend::openim::Service;
use pinion::cluster::endpoints::Endpoints;
use pinion::control::mailbox::{ControlAddress, ControlThread, Leases};
use pinion::control::news::{DiscoveryState, News, RegistrationState};
use pinion::control::plan::{
    CONFIRMATION, ControlPlan, Discovery, EtcdPlan, RedisPlan, RedisTopology, Subscription,
};
use pinion::metrics::{Block, Metric};
use pinion::shard::clock;

use crate::harness::{DEADLINE, eventually};

/// A running control thread and what it told.
struct Control {
    address: ControlAddress,
    /// `None`: ended.
    thread: Option<ControlThread>,
    news: Arc<Mutex<Vec<News>>>,
    block: Arc<Block>,
}

impl Control {
    fn start(change: impl FnOnce(&mut ControlPlan)) -> Self {
        let news = Arc::<Mutex<Vec<News>>>::default();
        let block = Arc::<Block>::default();
        let sink = Arc::clone(&news);
        let mut plan = ControlPlan {
            discovery: Discovery::Static(Vec::new()),
            redis: None,
            webhooks: None,
            membership: None,
            news: Box::new(move |news| {
                sink.lock().unwrap().push(news);
                Ok(())
            }),
            now: clock::now,
            block: Arc::clone(&block),
        };
        change(&mut plan);
        let (address, thread) = pinion::control::spawn(plan).unwrap();
        Self { address, thread: Some(thread), news, block }
    }

    fn thread(&self) -> &ControlThread {
        self.thread.as_ref().unwrap()
    }

    /// What was told so far.
    fn told(&self) -> Vec<News> {
        self.news.lock().unwrap().clone()
    }

    /// Waits until this is what was told last of its kind.
    fn await_endpoints(&self, service: Service, ports: &[u16]) {
        let what = format!("{service:?} at {ports:?}");
        eventually(&what, || {
            let last = self.endpoints(service)?;
            (last.addresses.iter().map(|a| a.port()).eq(ports.iter().copied())).then_some(())
        });
    }

    fn endpoints(&self, service: Service) -> Option<Arc<Endpoints>> {
        self.told().into_iter().rev().find_map(|news| match news {
            News::Endpoints { service: of, endpoints } if of == service => Some(endpoints),
            _ => None,
        })
    }

    fn await_discovery(&self, wanted: DiscoveryState) {
        eventually(&format!("{wanted:?}"), || {
            let told = self.told();
            let last = told.iter().rev().find(|news| matches!(news, News::Discovery(_)))?;
            (*last == News::Discovery(wanted)).then_some(())
        });
    }

    fn await_registration(&self, wanted: RegistrationState) {
        eventually(&format!("{wanted:?}"), || {
            let told = self.told();
            let last = told.iter().rev().find(|news| matches!(news, News::Registration(_)))?;
            (*last == News::Registration(wanted)).then_some(())
        });
    }

    /// Waits until so many of these were told.
    fn await_count(&self, wanted: &News, times: usize) {
        eventually(&format!("{times} times {wanted:?}"), || {
            (self.told().iter().filter(|news| *news == wanted).count() >= times).then_some(())
        });
    }

    /// Waits until a count is at least so high.
    fn await_metric(&self, metric: Metric, least: u64) {
        eventually(&format!("{metric:?} {least}"), || (self.block.value(metric) >= least).then_some(()));
    }

    fn end(&mut self, leases: Leases) {
        self.thread.take().unwrap().end(leases, DEADLINE);
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            thread.end(Leases::Leave, Duration::ZERO);
        }
        if std::thread::panicking() {
            eprintln!("--- news\n{:#?}", self.told());
        }
    }
}

fn etcd_plan(address: impl ToString) -> EtcdPlan {
    let names = [
        (Service::Auth, "auth"),
        (Service::User, "user"),
        (Service::Msg, "msg"),
        (Service::Push, "push"),
        (Service::Gateway, "messageGateway"),
    ];
    EtcdPlan {
        addresses: vec![address.to_string()],
        root: "openim".into(),
        services: names.map(|(service, name)| (service, name.to_owned())).into(),
        credentials: None,
        tls: None,
        confirmation: CONFIRMATION,
        registration: None,
    }
}

fn redis_plan(address: impl ToString) -> RedisPlan {
    RedisPlan {
        addresses: vec![address.to_string()],
        topology: RedisTopology::Standalone,
        username: String::new(),
        password: String::new(),
        db: 0,
        subscription: Subscription::OnlineChange,
    }
}
