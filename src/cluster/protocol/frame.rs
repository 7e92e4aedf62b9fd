//! What two nodes say to each other (routing-protocol.md section 5): values, not bytes. The link encodes them, keeps
//! their order within a generation and loses none but by ending.

use std::fmt;

use bytes::Bytes;

pub use crate::hub::cluster::{Class, Key, Marked, TokenDigest, TokenMarks, TokenName};
use crate::hub::mail::DeviceVerdict;
use crate::ids::Text;
use crate::placement::Fingerprint;
use crate::placement::view::{Epoch, Incarnation, NodeId};

/// One life of the link between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation {
    /// Of the node that dialled: the lower node id.
    pub dialler: Incarnation,
    /// Its counter of attempts.
    pub count: u64,
    /// Of the other; zero in a [`Body::Hello`], whose sender may not know it.
    pub acceptor: Incarnation,
}

impl Generation {
    /// Whether both name one attempt to dial: what a Hello and its answer have in common.
    pub fn is_same_transport(&self, other: &Self) -> bool {
        (self.dialler, self.count) == (other.dialler, other.count)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Of another generation: dropped, unread.
    pub generation: Generation,
    /// Newest beat of the receiver that the sender had when it composed this; 0 = its Hello or HelloAck.
    pub seen: u64,
    /// What is said.
    pub body: Body,
}

/// A connection of the whole cluster; never reused.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conn {
    /// Of its node.
    pub node: NodeId,
    /// Of that node.
    pub incarnation: Incarnation,
    /// Counted by that node.
    pub number: u64,
}

/// A push, from its entry node through every copy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PushId {
    /// Entry node.
    pub node: NodeId,
    /// Of the entry node.
    pub incarnation: Incarnation,
    /// Counted by the entry node.
    pub number: u64,
}

/// Who is speaking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Epoch at which this incarnation first registered.
    pub first_epoch: Epoch,
    /// Epoch of its present registration.
    pub registered_epoch: Epoch,
    /// Of its view; diagnosis only.
    pub view_epoch: Epoch,
    /// Of its placement; diagnosis only.
    pub fingerprint: Fingerprint,
    /// Whom it counts (M4), and itself: under a static list others may not know of them.
    pub knows: Vec<Known>,
}

/// A node that another one counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Known {
    /// Who.
    pub node: NodeId,
    /// Which life; zero if that is not known.
    pub incarnation: Incarnation,
    /// What peers dial, `HOST:PORT`. Empty: unknown.
    pub rpc_addr: Text,
}

/// What became of a push on one connection, or what the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// In an answer to a question: whether it is in the background.
    pub verdict: DeviceVerdict,
    /// Only in the answer to a question that asks for it.
    pub token: Option<Token>,
}

impl From<DeviceVerdict> for Device {
    fn from(verdict: DeviceVerdict) -> Self {
        Self { verdict, token: None }
    }
}

/// A token of a client, on its way to a caller who may see it. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub Box<str>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a token of {} bytes", self.0.len())
    }
}

/// The result of one recipient at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// One entry per connection there.
    Known(Vec<(Conn, Device)>),
    /// It may or may not have been delivered there, and will not be again.
    Unknown,
}

/// What became of a push to one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Who.
    pub user: Text,
    /// Each connection once, in order.
    pub results: Vec<(Conn, Device)>,
    /// No connection that was open at acceptance, and still is, can be missing from the results.
    pub complete: bool,
    /// Why it is not complete: nodes that did not answer. Empty as well if the node that decided was not fit.
    pub unaccounted: Vec<NodeId>,
}

/// A connection made known to a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Number of the connection at the sender.
    pub number: u64,
    /// Its user.
    pub user: Text,
    /// Its class; `None` conflicts with nobody.
    pub class: Option<Class>,
    /// Spares older ones with the same; `None`: spares nobody, and is not spared.
    pub token: Option<TokenName>,
    /// Of a login that was completed before: a claim made anew.
    pub key: Option<Key>,
}

/// A copy of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// The asker's number of the question; comes back with the answer.
    pub leg: u64,
    /// Which push.
    pub push: PushId,
    /// To whom.
    pub recipients: Vec<Text>,
    /// What, opaque here.
    pub payload: Bytes,
}

/// Where users belong in the view of a node that is not their home.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    /// Of that view.
    pub epoch: Epoch,
    /// Their home in it; none if no node is active.
    pub home: Option<NodeId>,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Opens a generation.
    Hello(Hello),
    /// Accepts it; composed after the sender was recorded.
    HelloAck(Hello),
    /// Echoed through [`Frame::seen`].
    Beat(u64),
    /// Asks for [`Body::ClaimAck`].
    Claim(Claim),
    /// The claim stands; the time makes the login's key.
    ClaimAck {
        /// Of the claim.
        number: u64,
        /// See [`Key::time`].
        time: u64,
    },
    /// The login was completed.
    Confirm {
        /// Of the claim.
        number: u64,
        /// Its key from now on.
        key: Key,
    },
    /// The connection has ended, or belongs to the receiver no longer.
    Unclaim(u64),
    /// "All my connections that belong to you under this placement are claimed with you."
    Declare {
        /// Counts up within the generation.
        number: u64,
        /// Of the placement.
        fingerprint: Fingerprint,
    },
    /// The promise of that number has replaced all before it.
    DeclareAck(u64),
    /// To the home of the recipients.
    Route(Copy),
    /// From the home.
    RouteReply {
        /// Of the question.
        leg: u64,
        /// Of those that are at home there.
        verdicts: Vec<Verdict>,
    },
    /// Not the home of these: nothing was delivered for them.
    NotHome {
        /// Of the question.
        leg: u64,
        /// Who.
        recipients: Vec<Text>,
        /// Where they belong instead.
        seat: Seat,
    },
    /// To a holder, from the home or from the entry node. Never forwarded.
    Deliver {
        /// What.
        copy: Copy,
        /// Whether another copy may exist.
        attempt: Attempt,
    },
    /// From the holder; may come in parts.
    DeliverReply {
        /// Of the question.
        leg: u64,
        /// One per recipient.
        answers: Vec<(Text, Answer)>,
    },
    /// Ends exactly this connection if its key is smaller than the winner's.
    Kick {
        /// Number at the receiver.
        number: u64,
        /// The key that stays.
        winner: Key,
    },
    /// The receiver's login of this key met older connections of its user at the sender or at those whose home the
    /// sender is: the auth service is to be told, once for each login.
    Met(Key),
    /// The embedded backend of the sender has ended tokens.
    Marks(TokenMarks),
    /// The sender has no connections and ends.
    Goodbye,
}

/// Whether a copy is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// No other copy of this push exists for these recipients.
    First,
    /// Another may exist.
    Second,
}
