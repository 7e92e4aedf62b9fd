//! What goes into the router of a node and what comes out. Its driver moves frames, mail and records, and decides
//! nothing.

use bytes::Bytes;

use super::frame::{Class, Conn, Device, Frame, Generation, Key, PushId, TokenMarks, TokenName, Verdict};
use super::placed::Placed;
pub use crate::hub::cluster::{Login, Resident};
use crate::ids::{ShardId, Text};
use crate::placement::view::{Epoch, Incarnation, MemberState, NodeId, View};
use crate::time::Mono;

/// One event. The driver reads the clock *after* it has the event in hand: a `now` taken before a pause makes every
/// lease check worthless.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The membership as the source has it.
    View(View),
    /// The record asked for by [`Output::Register`] has been written, at this epoch.
    Recorded(Epoch),
    /// A renewal succeeded: valid until then, counted from its sending, times 0.99 (A4).
    Lease(Mono),
    /// The lease was regained after it had ended, and then the own record was read.
    Regained {
        /// As in [`Input::Lease`].
        until: Mono,
        /// What became of the own record.
        own: OwnRecord,
    },
    /// A transport to a peer of a higher id, dialled from here, is open.
    Opened(NodeId),
    /// From a peer's transport.
    Frame(NodeId, Frame),
    /// The transport of that generation has ended.
    Closed(NodeId, Generation),
    /// That peer lives, has no link with this node and does not count it among its members, as it says.
    Uncounted(NodeId),
    /// A shard acts by the placement of that epoch; its residents who belong elsewhere under it.
    Switched {
        /// Which.
        shard: ShardId,
        /// Of [`Mail::Add`].
        epoch: Epoch,
        /// In no order.
        residents: Vec<Resident>,
    },
    /// A login that the shard may not complete by itself.
    Login(Login),
    /// The shard has registered the connection: after [`Mail::Register`], or by itself.
    Registered(Resident),
    /// The connection has ended, registered or not.
    Gone(u64),
    /// The login of this key met older connections of its user at residents of this node ([`Mail::Judge`]).
    Met(Key),
    /// A shard's embedded backend has ended tokens.
    Marks(TokenMarks),
    /// A push has arrived here.
    Push(Push),
    /// The shards' answer to [`Mail::Deliver`].
    Delivered {
        /// Of the mail.
        leg: u64,
        /// Users without a connection here have an empty list.
        results: Vec<(Text, Vec<(u64, Device)>)>,
    },
    /// The operator says that this incarnation is dead.
    Forget(NodeId, Incarnation),
    /// Leave the placement.
    Drain,
    /// Back into it: what [`Input::Drain`] said is taken back.
    Serve,
    /// The listener is closed and the last connection gone: say goodbye and end.
    Emptied,
}

/// The own record, read after the lease was regained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRecord {
    /// In place, not lost.
    Kept,
    /// Marked lost meanwhile.
    Lost,
    /// Absent, or of a higher incarnation.
    Gone,
}

/// A push to be routed.
#[derive(Clone, Debug)]
pub struct Push {
    /// Comes back with the verdicts.
    pub ticket: u64,
    /// Each once.
    pub recipients: Vec<Text>,
    /// Opaque here.
    pub payload: Bytes,
}

/// One effect.
#[derive(Clone, Debug)]
pub enum Output {
    /// To a peer, in order within its generation.
    Send(NodeId, Frame),
    /// End the transport of that generation.
    Close(NodeId, Generation),
    /// To the shards.
    Mail(Mail),
    /// The push has ended: one verdict per recipient.
    Verdict {
        /// Of the push.
        ticket: u64,
        /// By user.
        verdicts: Vec<Verdict>,
    },
    /// Too many pushes in flight: refuse this one.
    Refused(u64),
    /// Write the own record in this state, by a transaction: the same registration.
    Record(MemberState),
    /// The own record is lost: write it back in this state. A new registration; [`Input::Recorded`] answers.
    Register(MemberState),
    /// Delete the record of a lost node: it holds no connection any more. A transaction on its revision. Of this life,
    /// and registered last at this epoch: one that has registered since may hold some again.
    Forget(NodeId, Incarnation, Epoch),
    /// Delete the own record and end: there are no connections.
    Leave,
    /// The barrier is passed for the first time: open the listener.
    Open,
    /// Close the listener and, within [`crate::limits::FENCE_CLOSE_MS`], every connection; end this incarnation.
    Fence(Reason),
    /// Count.
    Count(Count),
}

/// Why a node must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The own record is gone, or belongs to a later life.
    Replaced,
    /// `fence = strict`: no lease, and a peer was silent for too long.
    Isolated,
}

/// To the shards of this node. Mailboxes are FIFO.
#[derive(Clone, Debug)]
pub enum Mail {
    /// To every shard: act by this placement too, and answer [`Input::Switched`].
    Add(Epoch, Placed),
    /// To every shard: of the placements added only this one is left.
    Only(Epoch),
    /// Register the connection, then write its 101, then say [`Input::Registered`].
    Register(u64, Key),
    /// Refuse the login: this node cannot serve it now.
    Refuse(u64),
    /// Deliver once to each connection of each recipient.
    Deliver {
        /// Comes back with the answer.
        leg: u64,
        /// For traces.
        push: PushId,
        /// Each once.
        recipients: Vec<Text>,
        /// What.
        payload: Bytes,
    },
    /// End this connection if it is open and its key is smaller.
    Kick {
        /// Which.
        number: u64,
        /// The key that stays.
        winner: Key,
    },
    /// A login of this user and class has this key: end those of a smaller key and another token, and say
    /// [`Input::Registered`] again for one of a greater key. If it met older ones, say [`Input::Met`].
    Judge {
        /// Who.
        user: Text,
        /// Conflicts within it only.
        class: Class,
        /// Of the login.
        key: Key,
        /// Of the login.
        token: Option<TokenName>,
    },
    /// The login of this node that has this key met older connections of its user on other nodes.
    Met(Key),
    /// The embedded backend of another node has ended tokens.
    Marks(TokenMarks),
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Count {
    /// Recipients sent to their home.
    PushHome,
    /// Recipients sent once more, to the home that a node with a newer view named.
    PushAgain,
    /// Recipients sent to all nodes.
    PushAll,
    /// Recipients sent a second time, to all nodes.
    PushSecond,
    /// Verdicts not complete: the node that decided was not fit.
    NotFit,
    /// Verdicts not complete: a node is not linked, or its answer is missing or unknown.
    NoAnswer,
    /// Frames of an ended generation.
    StaleFrame,
    /// Links closed since a frame or a promise was too old.
    StaleLink,
    /// Links closed since the peer left claims or promises unanswered.
    LaggingLink,
    /// Logins served unclaimed.
    Unclaimed,
    /// Deliveries forgotten early.
    SeenEvicted,
    /// Recipients that went out of order after the longest wait.
    OutOfOrder,
    /// Renewals that came after the lease had ended.
    LateRenewal,
    /// Pushes, and copies of pushes, that found `LEGS_MAX` others in flight.
    LegsFull,
    /// Repeated copies that found no room to be remembered: answered "unknown".
    SeenFull,
    /// Hellos that could not name all the members that this node counts.
    KnowsCut,
}

impl Conn {
    /// The connection `number` of a node.
    pub(super) fn of(node: &NodeId, incarnation: Incarnation, number: u64) -> Self {
        Self { node: node.clone(), incarnation, number }
    }
}
