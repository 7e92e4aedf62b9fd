//! Links to the other nodes, below the router (`cluster::protocol`): one gRPC stream per pair (routing-protocol.md
//! section 5), on rpc thread 0.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::budget::Ration;
use super::call::{End, Service, StreamCall};
use crate::cluster::protocol::frame::{Frame, Generation};
use crate::config::Token;
use crate::metrics::Tally;
use crate::placement::view::NodeId;
use crate::shard::turn::Turns;

/// What the router's driver hears. It reads the clock after it has the event in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A transport that this node dialled is open: send a Hello.
    Opened(NodeId),
    /// From a transport of that peer; its first is a Hello or the answer to one.
    Frame(NodeId, Frame),
    /// The transport of that generation has ended. `acceptor` may be zero: see [`Generation::is_same_transport`].
    Closed(NodeId, Generation),
    /// No link, and why: for the log and the operator. It is dialled again all the same.
    Refused {
        /// With whom.
        peer: NodeId,
        /// Why not, and what to do about it.
        why: String,
    },
}

/// What links are made of.
pub struct LinksPlan {
    /// This node.
    pub own: NodeId,
    /// `rpc.token`: shown to peers.
    pub token: Option<Token>,
    /// How the other nodes' ports are believed; `None`: plain HTTP/2.
    pub tls: Option<PeerTls>,
    /// The thread's.
    pub turns: Turns,
    /// What the connections of the thread read in a turn.
    pub ration: Rc<Ration>,
    /// Takes the events, in order. It may call [`Links`] at once.
    pub hear: Rc<dyn Fn(LinkEvent)>,
}

/// TLS towards peers.
#[derive(Clone)]
pub struct PeerTls {
    /// Roots, and our own certificate.
    pub config: Arc<ClientConfig>,
    /// The name that every peer's certificate has; `None`: the host that is dialled.
    pub name: Option<ServerName<'static>>,
}

/// See the module's documentation. Clones are the same links.
#[derive(Clone)]
pub struct Links {
    inner: Rc<Inner>,
}

struct Inner {
    plan: LinksPlan,
}

impl Links {
    /// No links yet.
    pub fn new(plan: LinksPlan) -> Self {
        Self { inner: Rc::new(Inner { plan }) }
    }

    /// Whom to keep dialling, and where (`host:port`): the whole set; links to those that are missing are closed. Ids
    /// that are not above the own one are left out: they dial us.
    pub fn dial(&self, _targets: BTreeMap<NodeId, String>) {}

    /// Sends on the transport of the frame's generation; nothing if it has ended.
    pub fn send(&self, _to: &NodeId, _frame: Frame) {}

    /// Ends the transport of that generation.
    pub fn close(&self, _peer: &NodeId, _generation: Generation) {}

    /// Sends what is queued and ends all links; none is made any more.
    pub fn end(&self) {}

    /// Writes the counts of the links.
    pub fn publish(&self, _tally: &mut Tally) {}

    /// Serves a peer that dialled us, to the end of its stream.
    pub(super) async fn accept(&self, _service: &Rc<Service>, _call: StreamCall) -> Result<(), End> {
        Ok(())
    }
}
