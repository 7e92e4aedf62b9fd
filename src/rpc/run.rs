//! An rpc thread from start to end: its tasks, its ticker, its drain.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use monoio::net::TcpStream;
use rustix::net::Shutdown;

use super::admin::{self, Admin};
use super::assign::Assigner;
use super::bearer::Bearer;
use super::budget::Ration;
use super::call::{Live, Service};
use super::cluster::{Mesh, MeshPlan};
use super::exchange::{Backend, Exchange};
use super::exposition::{self, Sources};
use super::openim::{Openim, OpenimPlan};
use super::orders::Orders;
use super::peers::{Links, LinksPlan};
use super::readiness::Readiness;
use super::server::{self, Server};
use super::services::Catalog;
use super::upstream::Embedded;
use super::{RpcStart, UpstreamStart};
use crate::cluster::router::Router;
use crate::config::Config;
use crate::config::cluster::MembershipSource;
use crate::config::policy::RpcPolicy;
use crate::control::mailbox::ControlAddress;
use crate::control::news::News;
use crate::ids::{Ownership, RpcId, SourceId};
use crate::limits::{LANE_BATCH_MAX, RPC_CALLS_MAX, RPC_TICK_MS};
use crate::metrics::Block;
use crate::placement::view::{NodeId, View};
use crate::shard::NodeEvent;
use crate::shard::clock;
use crate::shard::mailbox::{RpcInbox, RpcMail, ShardAddress};
use crate::shard::news::NodeNews;
use crate::shard::orders::MainNews;
use crate::shard::turn::Turns;

/// Sources of pushes are named by thread and count; count 0 is the embedded backend.
fn first_source(rpc: RpcId) -> u64 {
    u64::from(rpc.0) << 48
}

/// Runs the thread until its drain has ended.
pub(super) async fn run(start: RpcStart, turns: Turns) {
    let (id, events) = (start.id, start.events.clone());
    let news = match serve(start, turns).await {
        Ok(()) => return,
        Err(error) => NodeEvent::Failed(format!("rpc thread {}: {error}", id.0)),
    };
    if let Err(error) = events.try_send(news) {
        tracing::error!(%error, "main does not listen");
    }
}

async fn serve(mut start: RpcStart, turns: Turns) -> io::Result<()> {
    let source = first_source(start.id);
    let ration = Rc::new(Ration::new(turns.clone()));
    let backend = backend(&mut start, source, &ration);
    let router = Router::new(start.id, View::of_one_node(start.ownership.clone()), RPC_CALLS_MAX);
    let place = Place::of(&mut start);
    let exchange = Exchange::new(router, start.shards, backend, source);
    let inbox = Rc::new(start.inbox);
    let doorbell = TcpStream::from_std(std::net::TcpStream::from(inbox.doorbell_fd()?))?;
    let readiness = Readiness { admission: start.admission, pulses: start.pulses };
    let policy = RpcPolicy::of(&start.config);
    let service = service((&start.config, &start.blocks), (&exchange, &turns), (&readiness, &policy));
    let mesh = mesh(&start.config, &service, place, &ration);
    let server = Server::new(service, policy.limits, turns.clone(), ration);
    let (grpc, mut listeners) = (start.grpc.try_clone()?, Vec::new());
    monoio::spawn(server::accept(start.grpc, Rc::clone(&server)));
    let mut reader = Reader {
        inbox: Rc::clone(&inbox),
        exchange: exchange.clone(),
        server: Rc::clone(&server),
        admin: None,
        mesh: mesh.clone(),
        assigner: None,
    };
    if let Some(assign) = start.assign {
        listeners.push(assign.listener.try_clone()?);
        reader.assigner = Some(Assigner::on_gateway(assign, &start.config, (&exchange, &readiness), &turns));
    }
    if let Some(http) = start.http {
        listeners.push(http.try_clone()?);
        let admin = Rc::new(Admin {
            exchange: exchange.clone(),
            mesh: mesh.clone(),
            token: RefCell::new(policy.http_token.as_ref().map(Bearer::of)),
            orders: Orders::new(start.events.clone()),
            registry: exposition::registry(Sources {
                blocks: start.blocks.clone(),
                admission: Arc::clone(&readiness.admission),
                dropped_log_lines: start.dropped_log_lines,
                service: start.config.openim.discovery.names.gateway.clone(),
            }),
            blocks: start.blocks,
            readiness,
        });
        reader.admin = Some(Rc::clone(&admin));
        monoio::spawn(admin::accept(http, admin, turns.clone()));
    }
    let assigner = reader.assigner.clone();
    monoio::spawn(reader.read_always(doorbell, turns));
    if let Err(error) = start.events.try_send(NodeEvent::RpcReady(start.id)) {
        tracing::error!(%error, "main does not listen");
    }
    let stop = || {
        server::accept_waiting(&grpc, &server);
        assigner.iter().for_each(|assigner| assigner.end());
        listeners.iter().chain([&grpc]).for_each(stop_accepting);
    };
    let publish = || {
        mesh.iter().for_each(|mesh| exchange.tally(|tally| mesh.publish(tally)));
        exchange.publish(&inbox, &start.block);
    };
    tick(&exchange, stop, publish).await;
    Ok(())
}

/// What calls of the gRPC port work with.
fn service(
    (config, blocks): (&Config, &[(String, Arc<Block>)]),
    (exchange, turns): (&Exchange, &Turns),
    (readiness, policy): (&Readiness, &RpcPolicy),
) -> Rc<Service> {
    Rc::new(Service {
        exchange: exchange.clone(),
        turns: turns.clone(),
        blocks: blocks.to_vec(),
        node_id: config.cluster.node_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        catalog: Catalog::new(&config.rpc, config.cluster.source),
        mesh: OnceCell::new(),
        links: OnceCell::new(),
        readiness: readiness.clone(),
        live: RefCell::new(Rc::new(Live::of(policy))),
    })
}

/// What of a thread's start its mesh needs.
struct Place {
    own: NodeId,
    control: ControlAddress,
    shards: Vec<ShardAddress>,
    ownership: Ownership,
    events: NodeNews,
}

impl Place {
    /// `None`: the node is alone, or this is not thread 0.
    fn of(start: &mut RpcStart) -> Option<Self> {
        let control = start.membership.take().filter(|_| start.id == RpcId(0))?;
        Some(Self {
            own: start.config.cluster.node_id.clone()?,
            control,
            shards: start.shards.clone(),
            ownership: start.ownership.clone(),
            events: start.events.clone(),
        })
    }
}

/// The router between nodes and its links, if this node is among others.
fn mesh(config: &Config, service: &Service, place: Option<Place>, ration: &Rc<Ration>) -> Option<Mesh> {
    let Place { own, control, shards, ownership, events } = place?;
    let resolver = control.clone();
    let link = |hear| {
        Links::new(LinksPlan {
            own: own.clone(),
            token: config.rpc.token.clone(),
            tls: config.cluster.peer_tls.clone(),
            look_up: Rc::new(move |name| resolver.look_up(name.to_owned()).is_ok()),
            turns: service.turns.clone(),
            ration: Rc::clone(ration),
            hear,
        })
    };
    let plan = MeshPlan {
        config: &config.cluster,
        own: own.clone(),
        exchange: service.exchange.clone(),
        shards,
        ownership,
        control,
        events,
    };
    let mesh = Mesh::new(plan, link);
    drop(service.links.set(mesh.links().clone())); // they were empty
    drop(service.mesh.set(mesh.clone()));
    Some(mesh)
}

/// How this node is called among the nodes of its cluster, if there is one.
fn node_of(config: &Config) -> Option<Box<str>> {
    let node = config.cluster.node_id.as_ref().filter(|_| config.cluster.source != MembershipSource::None)?;
    Some(node.as_str().into())
}

/// Who answers the shards' questions: thread 0 has him.
fn backend(start: &mut RpcStart, source: u64, ration: &Rc<Ration>) -> Backend {
    match start.openim.take() {
        _ if start.id != RpcId(0) => Backend::None,
        None => Backend::Embedded(Box::new(Embedded::new(&start.config, SourceId(source)))),
        Some(UpstreamStart { own, control }) => Backend::Openim(Openim::new(OpenimPlan {
            config: &start.config.openim,
            secret: &start.config.auth.secret,
            key: start.config.shards.owner_key,
            shown: start.config.log.users,
            own,
            node: node_of(&start.config),
            control,
            ration: Rc::clone(ration),
        })),
    }
}

/// Deadlines and counts, until the drain has ended; its first step is to stop accepting.
async fn tick(exchange: &Exchange, stop: impl Fn(), publish: impl Fn()) {
    let mut shut = false;
    loop {
        exchange.tick().await;
        let now = clock::now().mono;
        exchange.expire(now);
        publish();
        let Some(deadline) = exchange.draining() else {
            continue;
        };
        if !shut {
            shut = true;
            stop();
        }
        let busy = exchange.has_connections() || exchange.untold() > 0;
        if !busy || now >= deadline {
            return;
        }
    }
}

/// A pending accept keeps a dropped listener open, and must not be cancelled; `shutdown` ends it (platform.md rule 8).
pub(super) fn stop_accepting(listener: &TcpListener) {
    if let Err(error) = rustix::net::shutdown(listener, Shutdown::Both) {
        tracing::warn!(%error, "shutdown of a listener");
    }
}

/// Sleeps at the doorbell; where mail waits already, it is a turn.
pub(super) async fn await_mail(inbox: &RpcInbox, doorbell: &TcpStream, turns: &Turns) {
    if !inbox.prepare_sleep() {
        return turns.turn().await;
    }
    if let Err(error) = doorbell.readable(false).await {
        // Must not become a busy loop.
        tracing::error!(%error, "the doorbell cannot be waited for");
        monoio::time::sleep(Duration::from_millis(RPC_TICK_MS)).await;
    }
    inbox.woken();
}

/// Who reads the thread's mail, and who gets what.
struct Reader {
    inbox: Rc<RpcInbox>,
    exchange: Exchange,
    server: Rc<Server>,
    /// Thread 0 only.
    admin: Option<Rc<Admin>>,
    /// Thread 0 of a node among others.
    mesh: Option<Mesh>,
    /// Thread 0 only.
    assigner: Option<Rc<Assigner>>,
}

impl Reader {
    /// Takes mail in batches, then sleeps at the doorbell.
    async fn read_always(self, doorbell: TcpStream, turns: Turns) {
        let inbox = &self.inbox;
        loop {
            for _ in 0..LANE_BATCH_MAX {
                match inbox.next() {
                    Some(RpcMail::Main(news)) => self.hear(*news),
                    Some(RpcMail::Cluster(news)) => self.told(|mesh| mesh.shard(*news)),
                    Some(RpcMail::News(news)) => match *news {
                        News::Membership(news) => self.told(|mesh| mesh.membership(*news)),
                        News::Name(answer) => self.told(|mesh| mesh.links().looked_up(&answer)),
                        news => self.exchange.mail(RpcMail::News(Box::new(news))),
                    },
                    Some(RpcMail::Drain(deadline)) => {
                        // Main has drained the shards by now: no connection is left.
                        self.told(Mesh::leave);
                        self.exchange.mail(RpcMail::Drain(deadline));
                    }
                    Some(mail) => self.exchange.mail(mail),
                    None => break,
                }
            }
            await_mail(inbox, &doorbell, &turns).await;
        }
    }

    fn told(&self, take: impl FnOnce(&Mesh)) {
        if let Some(mesh) = &self.mesh {
            take(mesh);
        }
    }

    /// What the main thread tells.
    fn hear(&self, news: MainNews) {
        match (news, &self.admin) {
            (MainNews::Reloaded { policy, counts }, admin) => {
                self.server.adopt(&policy);
                self.exchange.adopt(&policy);
                self.told(|mesh| mesh.links().adopt(policy.token.clone(), policy.peer_tls.clone()));
                self.assigner.iter().for_each(|assigner| assigner.set_policy(&policy));
                if let Some(admin) = admin {
                    admin.adopt(&policy);
                    self.exchange.show_reloads(&counts);
                }
            }
            (MainNews::Levels(levels), _) => {
                self.exchange.show_levels(&levels);
                self.told(|mesh| mesh.stand(levels.standing));
            }
            (MainNews::Members(roster), _) => {
                self.assigner.iter().for_each(|assigner| assigner.adopt((*roster).clone()));
            }
            (MainNews::Answer { ticket, answer }, Some(admin)) => admin.orders.answered(ticket, answer),
            (MainNews::Answer { .. }, None) => {} // orders come from thread 0
        }
    }
}
