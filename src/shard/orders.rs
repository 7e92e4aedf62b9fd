//! What operators order of a running node over its admin port, and what comes of it. The main thread carries orders
//! out: it alone may read files. Between it and the rpc threads they travel as mail; nobody waits with a thread.

use crate::cluster::assign::roster::Roster;
use crate::config::policy::RpcPolicy;
use crate::placement::view::NodeId;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Log by these directives from now on; `None`: say which are in force.
    LogLevel(Option<String>),
    /// About the drain.
    Drain(DrainOrder),
    /// About the addresses of other nodes.
    Adoption(AdoptionOrder),
}

/// What may be ordered about the drain. The answer is how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainOrder {
    /// Say how far it is.
    Look,
    /// Empty the node, at a pace and without a deadline.
    Begin,
    /// Serve again.
    Cancel,
}

/// What may be ordered about other nodes' addresses. The answer is which are held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdoptionOrder {
    /// Say which are held.
    Look,
    /// Take over what is listed for this node, whatever the view says, until it comes back or this is taken back.
    Take(NodeId),
    /// Give it back, whatever the view says, until it comes back.
    Release(NodeId),
}

/// Whether this node wants users. Told to rpc thread 0, whose router has the node's record say so
/// (`MembershipOrder::Record`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    #[default]
    Serving,
    /// It empties itself: out of placement, out of assign. Back to serving only after an operator's drain.
    Draining,
}

/// What rpc thread 0 shows of the main thread, and its router goes by. A level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeLevels {
    /// See [`Standing`].
    pub standing: Standing,
    /// Evictions per second of an operator's drain; 0 without one.
    pub evict_per_s: u32,
    /// Addresses of other nodes that are held.
    pub adopted: u64,
    /// Times that one could not be listened on.
    pub adoptions_failed: u64,
    /// Times that the hook failed.
    pub hooks_failed: u64,
}

/// What the main thread tells an rpc thread.
#[derive(Debug)]
pub enum MainNews {
    /// The configuration was read again.
    Reloaded {
        /// To go by from now on.
        policy: Box<RpcPolicy>,
        /// For `/metrics` of rpc thread 0.
        counts: ReloadCounts,
    },
    /// To rpc thread 0, whenever something of it changes.
    Levels(NodeLevels),
    /// The members of the cluster, for the assign API; thread 0 only.
    Members(Box<Roster>),
    /// An order is carried out, or not.
    Answer {
        /// Of the order.
        ticket: u64,
        /// Text for whoever ordered it: the answer, or what is wrong.
        answer: Result<String, String>,
    },
}

/// What came of all reloads since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadCounts {
    /// At least one setting got another value.
    pub applied: u64,
    /// Nothing was new, or nothing that counts without a restart.
    pub unchanged: u64,
    /// The configuration was faulty; all stayed as it was.
    pub refused: u64,
    /// Settings whose value counts after a restart only, now.
    pub pending: u64,
}
