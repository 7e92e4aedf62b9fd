//! What operators order of a running node over its admin port, and what comes of it. The main thread carries orders
//! out: it alone may read files. Between it and the rpc threads they travel as mail; nobody waits with a thread.

use crate::cluster::assign::roster::Roster;
use crate::config::policy::RpcPolicy;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again.
    Reload,
    /// Log by these directives from now on; `None`: say which are in force.
    LogLevel(Option<String>),
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
