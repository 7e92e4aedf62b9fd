//! The one thread of `pinion dispatch`: the assign API without a gateway, and `/healthz`, `/readyz`, `/metrics` for
//! operators on a listener of their own.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use monoio::net::TcpStream;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use super::door::{self, Event, Site};
use super::head::{Head, HeadFault};
use super::reply::Reply;
use super::{AssignStart, Assigner, Counts};
use crate::admission::Admission;
use crate::cluster::assign::roster::Roster;
use crate::config::Config;
use crate::control::membership::MembershipNews;
use crate::control::news::{DiscoveryState, News};
use crate::ids::RpcId;
use crate::limits::{LANE_BATCH_MAX, RPC_IDLE_TICK_MS};
use crate::metrics::Block;
use crate::rpc::exposition::{self, Sources};
use crate::rpc::operators;
use crate::rpc::run::{await_mail, stop_accepting};
use crate::shard::mailbox::{RpcInbox, RpcMail};
use crate::shard::news::NodeNews;
use crate::shard::orders::MainNews;
use crate::shard::thread::{Seat, spawn_on};
use crate::shard::turn::Turns;
use crate::shard::{DriverKind, NodeEvent};

/// What the thread is started with.
pub struct DispatchStart {
    /// All settings; `assign.*`, `http.*`, `cluster.placement`, `websocket.proxies` and `rpc.*` count.
    pub config: Arc<Config>,
    /// Which monoio driver (already probed).
    pub driver: DriverKind,
    /// Its mail: members, settings, news of the control thread, the end.
    pub inbox: RpcInbox,
    /// Its counts, if the control thread watches the members.
    pub source: Option<Arc<Block>>,
    /// For clients.
    pub assign: AssignStart,
    /// For operators.
    pub http: TcpListener,
    /// How many lines the log writer dropped.
    pub dropped_log_lines: ErrorCounter,
    /// News for the main thread.
    pub events: NodeNews,
}

/// Starts the thread. It says [`NodeEvent::RpcReady`] when it serves, and ends after `RpcMail::Drain`.
///
/// # Errors
/// The system gives no thread. Later failures come as [`NodeEvent::Failed`].
pub fn spawn(start: DispatchStart) -> io::Result<JoinHandle<()>> {
    let seat = Seat { name: "dispatch".to_owned(), cpu: None, driver: start.driver };
    let events = start.events.clone();
    spawn_on(seat, events, |turns| async move {
        let events = start.events.clone();
        if let Err(error) = run(start, turns).await
            && events.try_send(NodeEvent::Failed(format!("dispatch: {error}"))).is_err()
        {
            tracing::error!(%error, "main does not listen");
        }
    })
}

async fn run(start: DispatchStart, turns: Turns) -> io::Result<()> {
    let block: Arc<Block> = Arc::default();
    let inbox = start.inbox;
    let doorbell = TcpStream::from_std(std::net::TcpStream::from(inbox.doorbell_fd()?))?;
    let counts = Counts::Own(Box::default());
    let assigner = Assigner::new(&start.config, None, counts, start.assign.polling.clone());
    let shut = [start.assign.listener.try_clone()?, start.http.try_clone()?];
    assigner.serve(start.assign, &turns);
    let state = start.source.as_ref().map(|_| DiscoveryState::Loading);
    let watch = Rc::new(Watch { state: Cell::new(state), has_view: Cell::default() });
    let control = start.source.map(|block| ("control".to_owned(), block));
    let sources = Sources {
        blocks: vec![("dispatch".to_owned(), Arc::clone(&block))].into_iter().chain(control).collect(),
        admission: Arc::new(Admission::new(0)),
        dropped_log_lines: Some(start.dropped_log_lines),
        service: start.config.openim.discovery.names.gateway.clone(),
    };
    let registry = exposition::registry(sources);
    let operators = Operators { assigner: Rc::clone(&assigner), watch: Rc::clone(&watch), registry };
    monoio::spawn(door::accept(start.http, Rc::new(operators), turns.clone()));
    monoio::spawn(publish_always(Rc::clone(&assigner), block));
    if start.events.try_send(NodeEvent::RpcReady(RpcId(0))).is_err() {
        tracing::error!("main does not listen");
    }
    read_mail(&inbox, (&assigner, &watch), &doorbell, &turns).await;
    assigner.end();
    shut.iter().for_each(stop_accepting);
    Ok(())
}

/// Until the mail that ends it.
async fn read_mail(
    inbox: &RpcInbox,
    (assigner, watch): (&Assigner, &Watch),
    doorbell: &TcpStream,
    turns: &Turns,
) {
    loop {
        for _ in 0..LANE_BATCH_MAX {
            match inbox.next() {
                Some(RpcMail::Drain(_)) => return,
                Some(RpcMail::Main(news)) => match *news {
                    MainNews::Members(_) if watch.has_view.get() => {} // the list counts until there is a view
                    MainNews::Members(roster) => assigner.adopt(*roster),
                    MainNews::Reloaded { policy, .. } => assigner.set_policy(&policy),
                    MainNews::Answer { .. } | MainNews::Levels(_) => {} // nobody orders anything here
                },
                Some(RpcMail::News(news)) => watch.hear(*news, assigner),
                Some(_) => {} // there are no shards
                None => break,
            }
        }
        await_mail(inbox, doorbell, turns).await;
    }
}

async fn publish_always(assigner: Rc<Assigner>, block: Arc<Block>) {
    loop {
        if let Counts::Own(tally) = &assigner.counts {
            block.publish(&tally.borrow());
        }
        monoio::time::sleep(Duration::from_millis(RPC_IDLE_TICK_MS)).await;
    }
}

/// What the control thread has told.
struct Watch {
    /// `None`: the members are in a list.
    state: Cell<Option<DiscoveryState>>,
    has_view: Cell<bool>,
}

impl Watch {
    fn hear(&self, news: News, assigner: &Assigner) {
        match news {
            News::Membership(news) => {
                if let MembershipNews::View(view) = *news {
                    self.has_view.set(true);
                    assigner.adopt(Roster::of(view));
                }
            }
            News::Discovery(state) => self.state.set(Some(state)),
            _ => {} // nothing else is asked of it
        }
    }

    /// What answers are made of.
    fn text(&self) -> &'static str {
        match (self.state.get(), self.has_view.get()) {
            (None, _) | (Some(DiscoveryState::Current), _) => "ready\n",
            (Some(_), true) => "ready, but the members are not watched: the last known ones are handed out\n",
            (Some(_), false) => "ready, but nothing was ever heard of the members: answers are static\n",
        }
    }
}

/// What operators and load balancers ask.
struct Operators {
    assigner: Rc<Assigner>,
    watch: Rc<Watch>,
    registry: Registry,
}

impl Site for Operators {
    fn answer(&self, head: &Head, _: IpAddr) -> Reply {
        let readiness = self.assigner.not_ready().map_or_else(|| Ok(self.watch.text()), Err);
        operators::answer(head, readiness, || {
            let counts = exposition::text(&self.registry).map_err(|error| error.to_string())?;
            Ok((exposition::CONTENT_TYPE, counts))
        })
    }

    fn refuse(&self, fault: HeadFault) -> Reply {
        operators::refuse(fault)
    }

    fn note(&self, _: Event) {} // clients are counted, operators are few

    fn is_shared(&self, _: IpAddr) -> bool {
        true
    }

    fn has_ended(&self) -> bool {
        self.assigner.has_ended()
    }
}
