//! The end: stop accepting, close all connections by the deadline, end the threads. A second signal means now, and so
//! does none: an operator's drain (`paced`) that SIGTERM meets gets the deadline, and goes on from where it is.

mod paced;
mod progress;

use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;

pub(super) use self::progress::Drain;
pub use self::progress::DrainView;
use self::progress::Rate;
use super::{Failure, Node, NodeState, is_end};
use crate::control::mailbox::Leases;
use crate::limits::{DRAIN_GRACE_MS, STALL_WATCH_MS};
use crate::shard::mailbox::{Control, RpcMail};
use crate::shard::{NodeEvent, clock};
use crate::time::Mono;

impl Node {
    /// Drains the shards, then the rpc threads.
    pub(super) fn drain(mut self) -> Result<(), Failure> {
        let now = clock::now().mono;
        let deadline = now.plus_ms(self.reload.policy().drain_deadline_ms);
        self.admission.set_state(NodeState::Draining);
        self.supervisor.stopping();
        let by_deadline = Rate { per_s: 0, from: String::new() };
        let counts = self.drain_counts();
        let drain = self.drain.get_or_insert_with(|| Drain::new(now, counts, by_deadline));
        drain.deadline = Some(deadline);
        self.adopting.closed_by_drain(&mut self.shards);
        let drained = self.drain_shards(deadline);
        // Not before: OpenIM pushes only to what is registered, and until now there were connections.
        if let Some(control) = &self.control {
            control.thread.withdraw();
        }
        // Also if a shard is stuck: the others' last answers still leave through the rpc threads, and so does the last
        // of presence.
        self.end_rpcs();
        if let Some(control) = self.control.take() {
            control.thread.end(Leases::Revoke, Duration::from_millis(DRAIN_GRACE_MS));
        }
        drained
    }

    fn drain_shards(&mut self, first: Mono) -> Result<(), Failure> {
        let mut deadline = first;
        // What they have not heard yet does not matter any more. Their listeners are taken out of the accept group by
        // the shards themselves, after they have emptied the accept queue.
        for shard in &mut self.shards {
            shard.listener = None;
            shard.untold.clear();
        }
        let mut untold: Vec<usize> = (0..self.shards.len()).collect();
        let mut open = self.shards.len();
        self.tend_drain();
        while open > 0 {
            untold.retain(|&n| !self.tell(n, deadline));
            match self.events.recv_timeout(Duration::from_millis(STALL_WATCH_MS)) {
                Ok(NodeEvent::ShardDrained(shard)) => {
                    tracing::info!(shard = shard.0, "drained");
                    open -= 1;
                }
                Ok(NodeEvent::Failed(why)) => return Err(Failure::Said(why)),
                Ok(NodeEvent::Order { ticket, order }) => self.order(ticket, order),
                Ok(NodeEvent::View(view)) => self.see(view),
                Ok(event) => tracing::debug!(?event, "unexpected news"),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.watch()?;
            self.tend_drain();
            self.tend_adoption();
            let now = clock::now().mono;
            if self.signals.pending().any(is_end) && deadline > now {
                tracing::warn!("second signal: closing everything now");
                deadline = now;
                self.drain.iter_mut().for_each(|drain| drain.deadline = Some(now));
                untold = (0..self.shards.len()).collect();
            }
            if now.since_ms(deadline) > DRAIN_GRACE_MS {
                return Err(Failure::Said(format!("{open} shards did not drain in time")));
            }
        }
        Ok(())
    }

    /// Tells a shard to drain. `false`: its control lane is full, try again.
    fn tell(&self, shard: usize, deadline: Mono) -> bool {
        let shard = self.shards.get(shard);
        shard.is_none_or(|shard| shard.address.control(Control::Drain(deadline)).is_ok())
    }

    fn end_rpcs(&mut self) {
        let deadline = clock::now().mono.plus_ms(DRAIN_GRACE_MS);
        let mut untold: Vec<usize> = (0..self.rpcs.len()).collect();
        loop {
            untold.retain(|&n| {
                let rpc = self.rpcs.get(n);
                rpc.is_some_and(|rpc| rpc.address.post(RpcMail::Drain(deadline)).is_err())
            });
            self.tend_adoption();
            let shards = self.shards.iter().map(|shard| &shard.thread);
            let threads = || shards.clone().chain(self.rpcs.iter().map(|rpc| &rpc.thread));
            if threads().all(|thread| thread.is_finished()) && self.adopting.is_over() {
                return;
            }
            if clock::now().mono > deadline.plus_ms(DRAIN_GRACE_MS) {
                let names: Vec<_> = threads()
                    .filter(|thread| !thread.is_finished())
                    .filter_map(|thread| thread.thread().name())
                    .collect();
                // Not joined: the exit must not wait for a thread that does not end.
                tracing::warn!(?names, hooks_ended = self.adopting.is_over(), "not all ended in time");
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
