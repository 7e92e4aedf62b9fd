//! What a shard answers to the rpc threads, kept in order while their lane is full.
//!
//! A call reserves one slot for its answer, but a push may be answered in many parts. What always holds: answers reach
//! an rpc thread in the order of the hub; at most `OUTCOMES_WAITING_MAX` wait, beyond that one is lost and counted
//! (its call says "not reached" at its deadline). Nobody waits: the loop tries again in its next turn, at the latest
//! with its tick.

use std::collections::VecDeque;

use super::mailbox::{RpcAddress, RpcMail};
use crate::hub::mail::RpcOutcome;
use crate::ids::{RpcTicket, ShardId};
use crate::limits::OUTCOMES_WAITING_MAX;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Outcomes {
    shard: ShardId,
    rpcs: Vec<RpcAddress>,
    waiting: VecDeque<(RpcTicket, Box<RpcOutcome>)>,
}

impl Outcomes {
    pub(super) fn new(shard: ShardId, rpcs: Vec<RpcAddress>) -> Self {
        Self { shard, rpcs, waiting: VecDeque::new() }
    }

    /// Posts an answer, or keeps it behind those that wait.
    pub(super) fn say(&mut self, ticket: RpcTicket, outcome: Box<RpcOutcome>) {
        self.waiting.push_back((ticket, outcome));
        self.pass();
        if self.waiting.len() > OUTCOMES_WAITING_MAX
            && let Some((ticket, _)) = self.waiting.pop_back()
        {
            if let Some(rpc) = self.rpc(ticket) {
                rpc.count_lost();
            }
            tracing::warn!(?ticket, "a verdict was not delivered: its rpc thread takes none");
        }
    }

    /// Posts what waits, as far as there is room.
    pub(super) fn pass(&mut self) {
        while let Some((ticket, outcome)) = self.waiting.pop_front() {
            let Some(rpc) = self.rpc(ticket) else { continue }; // no thread has given such a ticket
            let mail = RpcMail::Outcome { shard: self.shard, ticket, outcome };
            if let Err(RpcMail::Outcome { outcome, .. }) = rpc.post(mail) {
                return self.waiting.push_front((ticket, outcome));
            }
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn rpc(&self, ticket: RpcTicket) -> Option<&RpcAddress> {
        self.rpcs.get(usize::from(ticket.rpc.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mail::PushPart;
    use crate::ids::{RpcId, SlotId};
    use crate::limits::RPC_CALLS_MAX;
    use crate::shard::mailbox::rpc_mailbox;

    fn ticket(index: u32) -> RpcTicket {
        RpcTicket { rpc: RpcId(0), slot: SlotId { index, generation: 0 } }
    }

    fn part() -> Box<RpcOutcome> {
        Box::new(RpcOutcome::Push(PushPart::whole(Vec::new())))
    }

    #[test]
    fn answers_beyond_the_lane_wait_in_order_and_beyond_the_limit_the_newest_is_lost() {
        let (address, inbox) = rpc_mailbox(1).unwrap();
        let mut outcomes = Outcomes::new(ShardId(0), vec![address]);
        let room = RPC_CALLS_MAX + u32::try_from(OUTCOMES_WAITING_MAX).unwrap();
        (0..=room).for_each(|n| outcomes.say(ticket(n), part()));
        let mut read = 0;
        while let Some(mail) = inbox.next() {
            let RpcMail::Outcome { ticket: next, .. } = mail else { panic!("{mail:?}") };
            assert_eq!(next, ticket(read));
            read += 1;
            outcomes.pass();
        }
        assert_eq!((read, outcomes.is_empty()), (room, true));
        let mut tally = crate::metrics::Tally::default();
        inbox.publish(&mut tally);
        assert_eq!(tally.value(crate::metrics::Metric::LaneRpcFull), 1);
    }
}
