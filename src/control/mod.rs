//! The control thread: etcd, Redis and webhooks, through their well-kept clients on tokio's current-thread runtime.
//!
//! One thread with a low rate of work; the data path never waits for it. Not here: what the news mean (the rpc thread
//! takes them), names that differ between OpenIM's versions (they come in the plan), and any state of users. What
//! always holds: nobody waits for this thread and it waits for no other; each lane is bounded; each connection to a
//! server is watched, has deadlines, and is made again for ever with growing waits; a server that is away at start is
//! as one that goes away later.
//!
//! - [`plan`]: what to do; [`mailbox`]: how others reach the thread; [`news`]: what it tells.
//! - `etcd`: endpoints of OpenIM's services, and the own registration; `kubernetes`, `names`: the endpoints where
//!   nobody registers; `instances`: what is believed of any of them. [`lookup`]: names that others dial.
//! - `redis`, [`tokens`]: `online_change`, and the token states of OpenIM 3.5.
//! - [`webhooks`]: what OpenIM's callbacks are told.

mod backoff;
mod counts;
mod etcd;
mod instances;
mod kubernetes;
pub mod lookup;
pub mod mailbox;
pub mod membership;
mod names;
pub mod news;
pub mod plan;
mod redis;
mod roots;
pub mod tokens;
pub mod webhooks;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, sleep_until};

use self::counts::Counts;
use self::etcd::link::Dial;
use self::etcd::registration::Registrar;
use self::etcd::watch::Watcher;
use self::instances::Instances;
use self::kubernetes::watch::Watcher as KubernetesWatcher;
use self::mailbox::{ControlAddress, ControlThread, Hooks, Inbox, Post, Wanted};
use self::membership::{Membership, MembershipOrder};
use self::names::Resolver;
use self::news::{Board, DiscoveryState, NewsPost};
use self::plan::{ControlFault, ControlPlan, Discovery, EtcdPlan, NamesPlan, Subscription};
use self::redis::Servers;
use self::tokens::Keeper;
use self::webhooks::Sender;
use crate::backend::openim::Service;
use crate::limits;
use crate::metrics::Block;
use crate::time::Now;

/// The plan, checked, as parts that can go to the thread.
struct Parts {
    registry: Registry,
    servers: Option<(Servers, Subscription)>,
    membership: Option<Membership>,
    webhooks: watch::Receiver<Hooks>,
    news: NewsPost,
    now: fn() -> Now,
    block: Arc<Block>,
}

/// [`Discovery`], checked.
enum Registry {
    None,
    Static(Vec<(Service, Vec<SocketAddr>)>),
    Etcd(Box<EtcdPlan>, Dial),
    Kubernetes(Box<KubernetesWatcher>),
    Names(Box<NamesPlan>),
}

/// Starts the thread. The node is registered only when its owner asks for it ([`ControlThread::register`]).
///
/// # Errors
/// The plan cannot be carried out, whatever the servers answer: a bad address or certificate.
pub fn spawn(plan: ControlPlan) -> Result<(ControlAddress, ControlThread), ControlFault> {
    let (hooks, webhooks) =
        watch::channel(plan.webhooks.as_ref().map(Sender::new).transpose()?.map(Arc::new));
    let parts = check(plan, webhooks)?;
    let (address, want, inbox) = mailbox::mailbox();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(limits::NAME_LOOKUPS_MAX)
        .thread_name("names")
        .build()
        .map_err(ControlFault::System)?;
    let body = move || {
        runtime.block_on(run(parts, inbox));
        // A name lookup that hangs must not hold the end up.
        runtime.shutdown_background();
    };
    let thread = thread::Builder::new().name("control".into()).spawn(body).map_err(ControlFault::System)?;
    Ok((address, ControlThread::new(want, hooks, thread)))
}

fn check(plan: ControlPlan, webhooks: watch::Receiver<Hooks>) -> Result<Parts, ControlFault> {
    let registry = match plan.discovery {
        Discovery::None => Registry::None,
        Discovery::Static(services) => Registry::Static(services),
        Discovery::Etcd(etcd) => {
            let dial = Dial::new(&etcd)?;
            Registry::Etcd(etcd, dial)
        }
        Discovery::Kubernetes(kubernetes) => {
            Registry::Kubernetes(Box::new(KubernetesWatcher::new(*kubernetes)?))
        }
        Discovery::Names(names) => Registry::Names(names),
    };
    let servers = plan.redis.as_ref().map(|redis| Ok((Servers::new(redis)?, redis.subscription)));
    Ok(Parts {
        registry,
        servers: servers.transpose()?,
        membership: plan.membership.map(Membership::new).transpose()?,
        webhooks,
        news: plan.news,
        now: plan.now,
        block: plan.block,
    })
}

/// Everything that the thread does, until it is to end. Cancelling any of it is safe: it is the end of all of it.
async fn run(parts: Parts, inbox: Inbox) {
    let counts = Counts::new(parts.block, parts.now);
    let board = Board::new(parts.news, counts.clone());
    let Inbox { webhooks, tokens, membership: orders, names, wanted, post } = inbox;
    let (servers, subscription) = parts.servers.unzip();
    let keeper = servers.as_ref().map(|servers| Keeper::new(servers, &board, &counts, parts.now));
    let background = async {
        tokio::join!(
            board.offer_always(),
            publish_always(&counts, &post),
            redis::listen_always(servers.as_ref(), subscription, &board, &counts),
            lookup::answer_always(names, &board, &counts),
        )
    };
    // These finish what was taken when the end is wanted.
    let mut end = wanted.clone();
    let work = async {
        tokio::join!(
            end.end(),
            discover(parts.registry, &board, (&counts, parts.now), wanted.clone()),
            belong(parts.membership, orders, (&board, &counts, parts.now), wanted.clone()),
            webhooks::send_always(&parts.webhooks, webhooks, wanted.clone(), &counts),
            tokens::serve_always(keeper.as_ref(), tokens, wanted.clone()),
        )
    };
    let mut deadline = wanted.clone();
    tokio::select! {
        _ = background => {}
        _ = work => {}
        () = async { sleep_until(deadline.end().await).await } => {
            tracing::warn!("the control thread drops what it could not finish before its deadline");
        }
    }
    board.offer();
    post.publish(&counts);
    counts.publish();
}

async fn publish_always(counts: &Counts, post: &Post) {
    loop {
        post.publish(counts);
        counts.publish();
        sleep(Duration::from_millis(limits::CONTROL_PUBLISH_MS)).await;
    }
}

/// Keeps this node among the members of the cluster, if there are others. Without a source orders are refused.
async fn belong(
    membership: Option<Membership>,
    orders: mpsc::Receiver<MembershipOrder>,
    around: (&Board, &Counts, fn() -> Now),
    wanted: Wanted,
) {
    match membership {
        Some(membership) => membership.run_until_end(orders, around, wanted).await,
        None => drop(orders),
    }
}

/// Follows the registry until the end is wanted, and keeps the own registration in it.
async fn discover(registry: Registry, board: &Board, measures: (&Counts, fn() -> Now), mut wanted: Wanted) {
    let (counts, now) = measures;
    match registry {
        Registry::None => {}
        Registry::Static(services) => {
            for (service, addresses) in services {
                let mut instances = Instances::new("static", service, plan::CONFIRMATION);
                instances.observe(addresses, (board, counts, now));
            }
            board.discovery(DiscoveryState::Current);
        }
        Registry::Etcd(plan, dial) => {
            let look = Notify::new();
            let mut registrar = plan
                .registration
                .as_ref()
                .map(|registration| Registrar::new(&plan.root, registration, &dial, (board, counts)));
            let own_key = registrar.as_ref().map(Registrar::own_key);
            let mut watcher = Watcher::new(&plan, own_key, &dial, (board, counts, now));
            let mut end = wanted.clone();
            let watch = async {
                tokio::select! {
                    () = watcher.watch_always(&look) => {}
                    _ = end.end() => {}
                }
            };
            let keep = async {
                if let Some(registrar) = &mut registrar {
                    registrar.keep_until_end(&look, &mut wanted).await;
                }
            };
            tokio::join!(watch, keep);
        }
        Registry::Kubernetes(watcher) => {
            tokio::select! {
                () = watcher.watch_always((board, counts, now)) => {}
                _ = wanted.end() => {}
            }
        }
        Registry::Names(plan) => {
            let mut resolver = Resolver::new(&plan, (board, counts, now));
            tokio::select! {
                () = resolver.look_up_always() => {}
                _ = wanted.end() => {}
            }
        }
    }
}
