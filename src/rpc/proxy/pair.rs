//! What a thread knows of one client: his socket, the member's, and what is between them.
//!
//! What always holds: what only an opening needs is freed when the member has answered, so an idle pair is this record
//! and two sockets.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::relay::Flow;
use crate::admission::AddressPlace;
use crate::ids::SlotId;
use crate::placement::view::NodeId;
use crate::time::Mono;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) client: OwnedFd,
    pub(super) member: Option<OwnedFd>,
    /// From the client to the member.
    pub(super) up: Flow,
    /// From the member to the client.
    pub(super) down: Flow,
    pub(super) stage: Stage,
    /// `None`: it may stay as it is.
    pub(super) deadline: Mono,
    /// Bytes were moved since the deadline was set.
    pub(super) moved: bool,
    /// It is on the list of those who have more to move.
    pub(super) queued: bool,
    pub(super) place: Place,
    pub(super) opening: Option<Box<Opening>>,
}

/// Whether it counts as a pair, and for which address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It was refused.
    None,
    /// Under the limit of the process.
    Taken,
    /// And under that of its address.
    OfAddress(AddressPlace),
}

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// His request head is read.
    Head,
    /// A member is dialled.
    Dialling,
    /// A member has the head and has not answered.
    Answer,
    /// Bytes go both ways.
    Open,
    /// One side has ended.
    HalfClosed,
    /// He was refused and may read his answer.
    Lingering,
}

/// What is known until a member has answered.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) peer: SocketAddr,
    /// The head, and what came with it.
    pub(super) received: Vec<u8>,
    /// Whom to try, the first one last.
    pub(super) targets: Vec<Target>,
    /// Who is being tried.
    pub(super) target: Option<Target>,
    pub(super) tried: usize,
}

/// A member to dial.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) node: NodeId,
    pub(super) address: SocketAddr,
    pub(super) is_home: bool,
}

/// There is no deadline.
pub(super) const NEVER: Mono = Mono(u64::MAX);

impl Pair {
    pub(super) fn new(client: OwnedFd, peer: SocketAddr, place: Place) -> Self {
        let opening = Opening { peer, received: Vec::new(), targets: Vec::new(), target: None, tried: 0 };
        Self {
            client,
            member: None,
            up: Flow::default(),
            down: Flow::default(),
            stage: Stage::Head,
            deadline: NEVER,
            moved: false,
            queued: false,
            place,
            opening: Some(Box::new(opening)),
        }
    }
}

/// Which socket of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// The client's.
    Client,
    /// The member's.
    Member,
}

/// The half of a generation that fits into a token.
const GENERATION: u32 = u32::MAX >> 1;

/// What epoll carries: position, half a generation, side. Only events that were fetched before a socket was closed can
/// be stale, so that much of the generation tells them apart.
pub(super) fn token(id: SlotId, side: Side) -> u64 {
    let low = (id.generation & GENERATION) << 1 | u32::from(side == Side::Member);
    u64::from(id.index) << 32 | u64::from(low)
}

/// The position of a token's pair, its side, and whether an id is meant.
pub(super) fn of_token(token: u64) -> (u32, Side, impl Fn(SlotId) -> bool) {
    let index = u32::try_from(token >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from(token & u64::from(u32::MAX)).unwrap_or_default();
    let side = if low & 1 == 1 { Side::Member } else { Side::Client };
    (index, side, move |id: SlotId| id.index == index && id.generation & GENERATION == low >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_pair_is_small_and_tokens_name_one_life() {
        assert!(size_of::<Pair>() <= 80, "{}", size_of::<Pair>());
        let id = SlotId { index: 7, generation: 0x8000_0003 };
        for side in [Side::Client, Side::Member] {
            let (index, read, is) = of_token(token(id, side));
            assert_eq!((index, read, is(id)), (7, side, true));
            assert!(
                !is(SlotId { index: 7, generation: 4 }) && !is(SlotId { index: 8, generation: 0x8000_0003 })
            );
        }
    }
}
