//! The assign API: clients ask over HTTP which node to dial, `GET /v1/assign?userID=U&platformID=P`.
//!
//! `cluster/assign` decides; here is what it decides from (members, what they say of themselves, settings) and who may
//! ask how often. `door` is the listener, `head` what comes in, `reply` what goes out, `poll` asks the members,
//! `dispatch` is the process that does nothing else. On a gateway all of it runs on rpc thread 0. Whoever learns of a
//! new membership gives it to `Assigner::adopt`. What always holds: nobody waits for anything but his own bytes, and
//! each request is counted once.

pub mod dispatch;
mod door;
pub(super) mod head;
mod poll;
pub(super) mod reply;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;

use ahash::RandomState;
use rustix::net::sockopt;

use self::door::{Event, Site};
use self::head::{Head, HeadFault, Method, Question};
pub use self::poll::Polling;
use self::poll::Whom;
use self::reply::Reply;
use super::exchange::Exchange;
use super::readiness::Readiness;
use crate::cluster::assign::pace::{Over, Pace};
use crate::cluster::assign::roster::Roster;
use crate::cluster::assign::standing::{Standings, Takes, Told};
use crate::cluster::assign::{Cluster, Decided, Request};
use crate::config::policy::RpcPolicy;
use crate::config::{AssignPolicy, Config};
use crate::limits::{ASSIGN_NOBODY_MS, ASSIGN_SEND_BUFFER_BYTES};
use crate::metrics::{Metric, Tally};
use crate::placement::view::{NodeId, View};
use crate::placement::{Algorithm, Placement};
use crate::session::handshake::origin::Proxies;
use crate::shard::clock;
use crate::shard::turn::Turns;
use crate::wire::proxy::Source;

const PATH: &str = "/v1/assign";

/// What rpc thread 0 needs for `assign.listen`.
pub struct AssignStart {
    /// Where clients ask.
    pub listener: TcpListener,
    /// Who is there; `None`: not known yet.
    pub roster: Option<Roster>,
    /// Which member this node is, if it is one.
    pub own: Option<NodeId>,
    /// How members are asked.
    pub polling: Polling,
}

/// Builds a listener whose clients can park little in the kernel.
///
/// # Errors
/// The address is in use, is not ours, or its port needs a privilege.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = super::bind_listener(address)?;
    sockopt::set_socket_send_buffer_size(&listener, ASSIGN_SEND_BUFFER_BYTES)?; // inherited by its connections
    Ok(listener)
}

/// Where this component's counts go.
pub(super) enum Counts {
    /// To those of an rpc thread.
    Thread(Exchange),
    /// To its own.
    Own(Box<RefCell<Tally>>),
}

/// This node, where it is one of the members: it need not be asked over the network.
pub(super) struct Own {
    node_id: NodeId,
    readiness: Readiness,
}

/// See the module's documentation.
pub(super) struct Assigner {
    policy: RefCell<AssignPolicy>,
    algorithm: Algorithm,
    known: RefCell<Option<Known>>,
    standings: RefCell<Standings>,
    pace: RefCell<Pace<RandomState>>,
    proxies: Proxies,
    own: Option<Own>,
    counts: Counts,
    polling: RefCell<Rc<Polling>>,
    ended: Cell<bool>,
}

/// The membership.
struct Known {
    roster: Roster,
    placement: Placement,
}

impl Own {
    fn told(&self) -> Told {
        let admission = &self.readiness.admission;
        let ready = self.readiness.not_ready(clock::now().mono).is_none();
        Told {
            connections: admission.open(),
            connections_max: admission.connections_max(),
            takes: if ready { Takes::Clients } else { Takes::Nobody },
        }
    }
}

impl Assigner {
    /// Nobody is known yet.
    pub(super) fn new(config: &Config, own: Option<Own>, counts: Counts, polling: Polling) -> Rc<Self> {
        let [a, b] = config.shards.owner_key;
        Rc::new(Self {
            policy: RefCell::new(config.assign.policy.clone()),
            algorithm: config.cluster.placement.clone(),
            known: RefCell::default(),
            standings: RefCell::default(),
            pace: RefCell::new(Pace::new(RandomState::with_seeds(a, b, !a, !b))),
            proxies: config.admission.proxies.clone(),
            own,
            counts,
            polling: RefCell::new(Rc::new(polling)),
            ended: Cell::new(false),
        })
    }

    /// On rpc thread 0 of a gateway, serving from now on.
    pub(super) fn on_gateway(
        start: AssignStart,
        config: &Config,
        (exchange, readiness): (&Exchange, &Readiness),
        turns: &Turns,
    ) -> Rc<Self> {
        let own = start.own.clone().map(|node_id| Own { node_id, readiness: readiness.clone() });
        let assigner = Self::new(config, own, Counts::Thread(exchange.clone()), start.polling.clone());
        assigner.serve(start, turns);
        assigner
    }

    /// Serves clients and asks members, from now on.
    pub(super) fn serve(self: &Rc<Self>, start: AssignStart, turns: &Turns) {
        let AssignStart { listener, roster, .. } = start;
        if let Some(roster) = roster {
            self.adopt(roster);
        }
        let site: Rc<dyn Site> = Rc::<Self>::clone(self);
        monoio::spawn(door::accept(listener, site, turns.clone()));
        monoio::spawn(poll::poll_always(Rc::clone(self)));
    }

    /// Goes by another membership from now on. An older one than that in force is the caller's business.
    pub(super) fn adopt(&self, roster: Roster) {
        self.standings.borrow_mut().keep(&roster.view);
        let placement = roster.view.placement(&self.algorithm);
        let before = self.known.replace(Some(Known { roster, placement }));
        let known = self.known.borrow();
        if let Some(Known { roster: Roster { view, .. }, .. }) = &*known
            && before.is_none_or(|before| before.roster.view != *view)
        {
            tracing::info!(members = view.members().len(), epoch = %view.epoch(), "assign: other members");
        }
        drop(known);
        self.show_members();
    }

    /// Goes by other settings from now on, and asks members by the files as they are now. Who has an answer keeps it.
    pub(super) fn set_policy(&self, policy: &RpcPolicy) {
        self.policy.replace(policy.assign.clone());
        match Polling::of(policy.token.clone(), &policy.tls_files) {
            Ok(polling) => drop(self.polling.replace(Rc::new(polling))),
            Err(why) => tracing::error!("members are asked as before the reload: {why}"),
        }
    }

    /// How members are asked now.
    fn polling(&self) -> Rc<Polling> {
        Rc::clone(&self.polling.borrow())
    }

    /// The listener is shut down: connections end with their next answer.
    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// Why no client gets a node; `None`: it does.
    pub(super) fn not_ready(&self) -> Option<&'static str> {
        let policy = self.policy.borrow();
        let request = Request { user: "", platform: None, labels: &[] };
        let known = self.known.borrow();
        let standings = self.standings.borrow();
        let cluster = known.as_ref().map(|known| known.cluster(&standings));
        policy.decision.decide(&request, cluster).is_none().then_some("no member and no assign.fallback\n")
    }

    /// Members to be asked: where, and under which name they are registered.
    fn to_ask(&self) -> Vec<Whom> {
        let known = self.known.borrow();
        let Some(Known { roster, .. }) = known.as_ref() else { return Vec::new() };
        let is_own = |node_id: &NodeId| self.own.as_ref().is_some_and(|own| own.node_id == *node_id);
        let active = roster.view.active().filter(|member| !is_own(&member.node_id));
        active
            .filter_map(|member| {
                let address = *roster.addresses.get(&member.node_id)?;
                let (node_id, rpc_addr) = (member.node_id.clone(), member.rpc_addr.clone());
                Some(Whom { node_id, address, rpc_addr })
            })
            .collect()
    }

    /// What came of asking a member.
    fn hear(&self, node_id: &NodeId, answer: Result<Told, String>) {
        if self.known.borrow().as_ref().is_none_or(|known| known.roster.view.member(node_id).is_none()) {
            return; // it has left meanwhile
        }
        let mut standings = self.standings.borrow_mut();
        match answer {
            Ok(told) => {
                if standings.is_unreachable(node_id) {
                    tracing::info!(node = %node_id, "answers again: clients are sent to it");
                }
                standings.heard(node_id, told);
                self.counts.count(Metric::AssignPolls);
            }
            Err(why) => {
                if standings.missed(node_id) {
                    tracing::warn!(node = %node_id, why, "does not answer: no client is sent to it until it does");
                }
                self.counts.count(Metric::AssignPollFailures);
            }
        }
        drop(standings);
        self.show_members();
    }

    fn show_members(&self) {
        let known = self.known.borrow();
        let empty = View::default();
        let view = known.as_ref().map_or(&empty, |known| &known.roster.view);
        let counts = self.standings.borrow().counts(view);
        self.counts.show(Metric::AssignMembersOpen, counts.open);
        self.counts.show(Metric::AssignMembersUnreachable, counts.unreachable);
        self.counts.show(Metric::AssignMembersClosed, counts.closed);
    }

    /// The answer to a good question.
    fn assign(&self, question: &Question) -> Reply {
        if let Some(own) = &self.own {
            self.standings.borrow_mut().heard(&own.node_id, own.told());
        }
        let policy = self.policy.borrow();
        let (known, standings) = (self.known.borrow(), self.standings.borrow());
        let cluster = known.as_ref().map(|known| known.cluster(&standings));
        let request = Request { user: &question.user, platform: question.platform, labels: &question.labels };
        let Some(found) = policy.decision.decide(&request, cluster) else {
            self.counts.count(Metric::AssignNobody);
            let message =
                "no node takes clients and assign.fallback is empty; use the last one that was good";
            return Reply::later(reply::UNAVAILABLE, "no_node", message, ASSIGN_NOBODY_MS);
        };
        self.counts.count(match found.decided {
            Decided::Placement => Metric::AssignPlaced,
            Decided::Rule(_) => Metric::AssignRule,
            Decided::Fallback => Metric::AssignStatic,
        });
        tracing::debug!(decided = ?found.decided, home = ?found.home, passed_over = ?found.passed_over, "assigned");
        Reply::assigned(&found)
    }

    /// Whether the client may ask now.
    fn admit(&self, head: &Head, peer: IpAddr) -> Result<(), Reply> {
        let peer = SocketAddr::new(peer, 0);
        let client = self.proxies.client(peer, Source::Unsaid, head.forwarded_for.as_deref()).ip();
        let rates = self.policy.borrow().rates;
        let mut pace = self.pace.borrow_mut();
        let taken = pace.take(clock::now().mono, client, rates);
        self.counts.add(Metric::AssignSharedRate, pace.take_shared());
        let (metric, error, message, after_ms) = match taken {
            Ok(()) => return Ok(()),
            Err(Over::Address(after_ms)) => {
                (Metric::AssignAddressRate, "address_rate", "your address asks too often", after_ms)
            }
            Err(Over::All(after_ms)) => {
                (Metric::AssignRate, "rate", "too many clients ask at once", after_ms)
            }
        };
        self.counts.count(metric);
        Err(Reply::later(reply::TOO_MANY_REQUESTS, error, message, after_ms))
    }

    fn judged(&self, head: &Head, peer: IpAddr, cors: &str) -> Result<Reply, Reply> {
        self.admit(head, peer)?;
        let refused = |metric, status, error, message: &str| {
            self.counts.count(metric);
            Err(Reply::refused(status, error, message))
        };
        if head.path() != PATH {
            let message = "this listener answers GET /v1/assign?userID=U&platformID=P";
            return refused(Metric::AssignNotFound, reply::NOT_FOUND, "not_found", message);
        }
        match head.method {
            Method::Options => {
                self.counts.count(Metric::AssignPreflight);
                Ok(reply::preflight(cors))
            }
            Method::Other => {
                let wrong = "only GET, HEAD and OPTIONS";
                refused(Metric::AssignMethod, reply::METHOD_NOT_ALLOWED, "wrong_method", wrong)
                    .map_err(|reply| reply.with("Allow: GET, HEAD, OPTIONS\r\n"))
            }
            Method::Get | Method::Head if head.has_body => {
                let message = "a question has no body; its arguments are in the query";
                refused(Metric::AssignBad, reply::BAD_REQUEST, "body", message)
            }
            Method::Get | Method::Head => match Question::of(&head.target) {
                Ok(question) => Ok(self.assign(&question)),
                Err(why) => refused(Metric::AssignBad, reply::BAD_REQUEST, "bad_argument", &why),
            },
        }
    }
}

impl Known {
    fn cluster<'a>(&'a self, standings: &'a Standings) -> Cluster<'a> {
        Cluster { view: &self.roster.view, placement: &self.placement, standings }
    }
}

impl Counts {
    fn count(&self, metric: Metric) {
        self.add(metric, 1);
    }

    fn add(&self, metric: Metric, n: u64) {
        match self {
            Self::Thread(exchange) => exchange.add(metric, n),
            Self::Own(tally) => tally.borrow_mut().add(metric, n),
        }
    }

    fn show(&self, metric: Metric, value: u64) {
        match self {
            Self::Thread(exchange) => exchange.show(metric, value),
            Self::Own(tally) => tally.borrow_mut().set(metric, value),
        }
    }
}

impl Site for Assigner {
    fn answer(&self, head: &Head, peer: IpAddr) -> Reply {
        let cors = reply::cors(&self.policy.borrow().origins, head.origin.as_deref());
        let (Ok(reply) | Err(reply)) = self.judged(head, peer, &cors);
        reply.with(&cors)
    }

    fn refuse(&self, fault: HeadFault) -> Reply {
        let (metric, status, error, message) = match fault {
            HeadFault::Malformed => {
                (Metric::AssignBad, reply::BAD_REQUEST, "bad_request", "this is no HTTP/1.1")
            }
            HeadFault::TooLong => {
                let message = "the head of a request has at most 8 KiB and 64 lines";
                (Metric::AssignTooLong, reply::HEAD_TOO_LARGE, "head_too_long", message)
            }
            HeadFault::TooSlow => {
                let message = "the head of the request did not come in time";
                (Metric::AssignTooSlow, reply::REQUEST_TIMEOUT, "head_too_slow", message)
            }
        };
        self.counts.count(metric);
        Reply::refused(status, error, message)
    }

    fn note(&self, event: Event) {
        match event {
            Event::Open(count) => {
                self.counts.show(Metric::AssignConnections, u64::try_from(count).unwrap_or(u64::MAX));
            }
            Event::Full => self.counts.count(Metric::AssignFull),
            Event::AddressFull => self.counts.count(Metric::AssignAddressFull),
            Event::Cut => self.counts.count(Metric::AssignCut),
        }
    }

    fn is_shared(&self, address: IpAddr) -> bool {
        self.proxies.contain(address)
    }

    fn has_ended(&self) -> bool {
        self.ended.get()
    }
}
