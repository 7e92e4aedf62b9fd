//! What the driver can do on rpc thread 0.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Board;
use super::driver::{Hands, LocalCopy};
use crate::cluster::protocol::frame::{Frame, Generation, Verdict};
use crate::cluster::protocol::io::Reason;
use crate::control::mailbox::{ControlAddress, Refused};
use crate::control::membership::MembershipOrder;
use crate::hub::cluster::ClusterMail;
use crate::hub::mail::ShardMail;
use crate::ids::{Ownership, ShardId};
use crate::metrics::Metric;
use crate::placement::view::{NodeId, View};
use crate::rpc::exchange::Exchange;
use crate::rpc::peers::Links;
use crate::shard::mailbox::{Control, ShardAddress};
use crate::shard::news::NodeNews;
use crate::shard::{NodeEvent, clock};
use crate::time::Now;

/// See the module's documentation.
pub(super) struct NodeHands {
    pub(super) own: NodeId,
    pub(super) exchange: Exchange,
    pub(super) links: Links,
    pub(super) shards: Vec<ShardAddress>,
    pub(super) ownership: Ownership,
    pub(super) control: ControlAddress,
    pub(super) events: NodeNews,
    pub(super) board: Rc<Board>,
}

impl NodeHands {
    fn tell_main(&self, event: NodeEvent) {
        if let Err(error) = self.events.try_send(event) {
            tracing::error!(%error, "main does not listen");
        }
    }
}

impl Hands for NodeHands {
    fn now(&self) -> Now {
        clock::now()
    }

    fn send(&mut self, to: &NodeId, frame: Frame) {
        self.links.send(to, frame);
    }

    fn close(&mut self, peer: &NodeId, generation: Generation) {
        self.links.close(peer, generation);
    }

    fn members(&mut self, view: &View) {
        self.tell_main(NodeEvent::View(Box::new(view.clone())));
    }

    fn dial(&mut self, targets: BTreeMap<NodeId, String>) {
        self.links.dial(targets);
    }

    fn mail(&mut self, shard: ShardId, mail: ClusterMail) -> Result<(), ClusterMail> {
        let Some(address) = self.shards.get(usize::from(shard.0)) else {
            return Ok(()); // a number that no connection of this node has
        };
        match address.control(Control::Hub(ShardMail::Cluster(Box::new(mail)))) {
            Err(Control::Hub(ShardMail::Cluster(mail))) => Err(*mail),
            _ => Ok(()),
        }
    }

    fn owner(&self, user: &str) -> ShardId {
        self.ownership.owner(user)
    }

    fn order(&mut self, order: MembershipOrder) -> Result<(), MembershipOrder> {
        match self.control.membership(order) {
            Err(Refused::Full(order)) => Err(order),
            Err(Refused::Closed(_)) | Ok(()) => Ok(()), // closed: the process ends
        }
    }

    fn deliver(&mut self, copy: LocalCopy) {
        self.board.copies.borrow_mut().push_back(copy);
    }

    fn verdict(&mut self, ticket: u64, verdicts: Option<Vec<Verdict>>) {
        let answer = self.board.pushes.borrow_mut().remove(&ticket);
        if let Some(answer) = answer {
            answer.come(verdicts);
        }
    }

    fn open(&mut self) {
        tracing::info!(node = %self.own, "in the cluster: clients may come");
        self.tell_main(NodeEvent::ClusterOpen);
    }

    fn fence(&mut self, reason: Reason) {
        let why = match reason {
            Reason::Replaced => {
                "this node's record in the membership is gone or belongs to a later process of the same node id: \
                 it ends, so that it does not hold connections that nobody counts (is cluster.node_id given twice?)"
            }
            Reason::Isolated => {
                "no lease, and a peer was silent for too long: with cluster.fence strict the node ends, so that the \
                 others may forget it"
            }
        };
        self.tell_main(NodeEvent::Failed(why.to_owned()));
    }

    fn count(&mut self, metric: Metric) {
        self.exchange.count(metric);
    }
}
