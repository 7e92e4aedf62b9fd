//! An operator's drain: the node empties itself at a pace and without a deadline, and may be told to serve again.
//!
//! At once it leaves placement and assign (`Standing::Draining`), is not ready, gives other nodes' addresses back and
//! closes its listeners (after accepting who waits in them): a refused connect is an answer that clients retry and
//! that balancers mend by themselves, and it costs less than a 503 for each retry. It leaves OpenIM's discovery when
//! the last connection is gone, since OpenIM pushes only to what is registered.

use super::progress::{Counts, Drain, DrainView, Rate};
use crate::hub::drain::Pace;
use crate::limits::{
    ACCEPTS_PER_SECOND_MAX, DRAIN_EVICT_PER_S_MAX, DRAIN_EVICTIONS_MAX, DRAIN_LEAD_MS, REST_MS,
    STALL_WATCH_MS,
};
use crate::metrics::Metric;
use crate::node::{Node, NodeState};
use crate::placement::view::{NodeId, View};
use crate::shard::mailbox::{Control, RpcMail};
use crate::shard::orders::{DrainOrder, MainNews, NodeLevels, Standing};
use crate::shard::{bind_listener, clock};
use crate::time::Mono;

/// Of what the remaining members accept a drain takes at most 1 in so many: they have clients of their own.
const ACCEPTS_PART: u32 = 2;

impl Node {
    /// Carries out what an operator says of the drain.
    ///
    /// # Errors
    /// Why it cannot be done; all is as before.
    pub(in crate::node) fn order_drain(&mut self, order: DrainOrder) -> Result<DrainView, String> {
        let now = clock::now().mono;
        match order {
            DrainOrder::Look => {}
            DrainOrder::Begin => self.begin_drain(now)?,
            DrainOrder::Cancel => self.cancel_drain()?,
        }
        self.tend_drain();
        Ok(self.drain_view(now))
    }

    fn drain_view(&self, now: Mono) -> DrainView {
        let counts = self.drain_counts();
        self.drain.as_ref().map_or_else(|| DrainView::serving(counts.connections), |d| d.view(now, counts))
    }

    /// What is left, and who has gone.
    pub(in crate::node) fn drain_counts(&self) -> Counts {
        let evicted = self.blocks.iter().map(|block| block.value(Metric::DrainEvicted)).sum();
        Counts { connections: self.admission.open(), evicted }
    }

    fn begin_drain(&mut self, now: Mono) -> Result<(), String> {
        if self.drain.is_some() {
            return Ok(()); // and also if the node ends: it does what was asked for
        }
        self.all_hear()?;
        let rate = self.rate();
        tracing::info!(per_s = rate.per_s, from = rate.from, "draining, by an operator's order");
        self.admission.set_state(NodeState::Draining);
        self.shards.iter_mut().for_each(|shard| shard.listener = None);
        self.adopting.closed_by_drain(&mut self.shards);
        self.drain = Some(Drain::new(now, self.drain_counts(), rate));
        self.pace(now);
        self.supervisor.ready(&self.status());
        Ok(())
    }

    /// Hands every shard its part of the rate.
    fn pace(&mut self, now: Mono) {
        let Some(drain) = &self.drain else { return };
        let (start, per_s) = (now.plus_ms(DRAIN_LEAD_MS), drain.rate.per_s);
        let shards = u16::try_from(self.shards.len()).unwrap_or(u16::MAX); // as many as a u16 counts
        for (n, shard) in (0..).zip(&mut self.shards) {
            shard.untold.retain(|mail| !matches!(mail, Control::Evict(_)));
            shard.untold.push_back(Control::Evict(Pace::share(start, per_s, (n, shards))));
        }
    }

    fn cancel_drain(&mut self) -> Result<(), String> {
        match &self.drain {
            None => return Err("the gateway does not drain".to_owned()),
            Some(drain) if drain.deadline.is_some() => {
                return Err("the gateway ends: SIGTERM cannot be taken back".to_owned());
            }
            Some(_) => self.all_hear()?,
        }
        // First what can fail.
        let port = self.facts.websocket.port();
        let pair = || {
            let listener = bind_listener(&self.config, port)?;
            Ok((listener.try_clone()?, listener))
        };
        let listeners: std::io::Result<Vec<_>> = self.shards.iter().map(|_| pair()).collect();
        let listeners = listeners.map_err(|e| {
            format!(
                "cannot listen on {} again ({e}), so it goes on draining; free the port, then cancel again",
                self.facts.websocket
            )
        })?;
        for (shard, (ours, listener)) in self.shards.iter_mut().zip(listeners) {
            shard.listener = Some(ours);
            shard.untold.extend([Control::Serve, Control::Listen(listener)]);
        }
        let drain = self.drain.take();
        if let Some(control) = &self.control
            && drain.is_some_and(|drain| drain.withdrawn)
        {
            control.thread.register();
        }
        self.admission.set_state(NodeState::Ready);
        self.supervisor.ready(&self.status());
        tracing::info!("the drain is cancelled; serving again");
        Ok(())
    }

    /// An order that needs every shard is not begun while one has not heard of the last.
    pub(in crate::node) fn all_hear(&self) -> Result<(), String> {
        match self.shards.iter().position(|shard| !shard.untold.is_empty()) {
            None => Ok(()),
            Some(n) => Err(format!("shard {n} takes no mail at present (see /v1/shards); try again")),
        }
    }

    /// Evictions per second.
    fn rate(&self) -> Rate {
        let policy = self.reload.policy();
        let own = self.config.cluster.node_id.as_ref();
        rate(policy.drain_evict_per_s, policy.accepts_per_second_max, (own, self.view.as_deref()))
    }

    /// What a drain, and who has not heard of it, need at times. Returns after how many milliseconds to do it again.
    pub(in crate::node) fn tend_drain(&mut self) -> u64 {
        let now = clock::now().mono;
        let (counts, rate) = (self.drain_counts(), self.rate());
        let mut pause_ms = u64::MAX;
        if let Some(drain) = &mut self.drain {
            drain.report(now, counts);
            pause_ms = if counts.connections > 0 { REST_MS } else { pause_ms };
            if let Some(control) = &self.control
                && counts.connections == 0
                && drain.deadline.is_none()
                && !std::mem::replace(&mut drain.withdrawn, true)
            {
                control.thread.withdraw();
            }
            if drain.deadline.is_none() && drain.rate != rate {
                tracing::info!(per_s = rate.per_s, from = rate.from, "the drain has another rate");
                drain.rate = rate;
                self.pace(now);
            }
        }
        let told = self.tell_shards() & self.tell_levels();
        if told { pause_ms } else { pause_ms.min(STALL_WATCH_MS) }
    }

    /// Hands shards what they have not got yet. Returns whether all is told.
    pub(in crate::node) fn tell_shards(&mut self) -> bool {
        for shard in &mut self.shards {
            while let Some(mail) = shard.untold.pop_front() {
                if let Err(mail) = shard.address.control(mail) {
                    shard.untold.push_front(mail);
                    break;
                }
            }
        }
        self.shards.iter().all(|shard| shard.untold.is_empty())
    }

    /// Tells rpc thread 0 what has changed about the node. Returns whether all is told.
    pub(in crate::node) fn tell_levels(&mut self) -> bool {
        let paced = self.drain.as_ref().filter(|drain| drain.deadline.is_none());
        let levels = NodeLevels {
            standing: self.standing(),
            evict_per_s: paced.map_or(0, |drain| drain.rate.per_s),
            ..self.adopting.levels()
        };
        if levels == self.told {
            return true;
        }
        let news = RpcMail::Main(Box::new(MainNews::Levels(levels)));
        let told = self.rpcs.first().is_some_and(|rpc| rpc.address.post(news).is_ok());
        if told {
            self.told = levels;
        }
        told
    }

    pub(in crate::node) fn standing(&self) -> Standing {
        if self.drain.is_some() { Standing::Draining } else { Standing::Serving }
    }
}

/// What is configured, or else half of what the other active members accept, or else a plain number.
fn rate(configured: Option<u32>, accepts_max: u32, (own, view): (Option<&NodeId>, Option<&View>)) -> Rate {
    if let Some(per_s) = configured {
        return Rate { per_s, from: "drain.evict_per_s".to_owned() };
    }
    let others = view.map(|view| view.active().filter(|member| Some(&member.node_id) != own).count());
    match others {
        Some(n) if n > 0 => {
            // 0: any number.
            let each = if accepts_max == 0 { ACCEPTS_PER_SECOND_MAX } else { accepts_max };
            let all = u64::from(each) * u64::try_from(n).unwrap_or(u64::MAX);
            let part = all / u64::from(ACCEPTS_PART);
            let per_s = u32::try_from(part).unwrap_or(u32::MAX).clamp(1, DRAIN_EVICT_PER_S_MAX);
            let from = format!(
                "1/{ACCEPTS_PART} of what {n} other members accept (websocket.accepts_per_second_max)"
            );
            Rate { per_s, from }
        }
        Some(_) => Rate {
            per_s: DRAIN_EVICTIONS_MAX,
            from: "the default: no other member is active, so clients have nowhere to go".to_owned(),
        },
        None => Rate {
            per_s: DRAIN_EVICTIONS_MAX,
            from: "the default: other members are not known (cluster.source)".to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::view::{Epoch, Member, MemberState};

    #[test]
    fn the_rate_is_half_of_what_the_others_accept_unless_it_is_given() {
        let id = |name: &str| NodeId::new(name).unwrap();
        let member = |name: &str, state| Member { state, ..Member::new(id(name)) };
        let of = |members: Vec<Member>| View::new(Epoch(1), members);
        let fleet = of(vec![
            member("a", MemberState::Draining),
            member("b", MemberState::Active),
            member("c", MemberState::Active),
            member("d", MemberState::Lost),
        ]);
        let alone = of(vec![member("a", MemberState::Active)]);
        let a = id("a");
        for (configured, accepts_max, view, want) in [
            (Some(7), 100, Some(&fleet), 7),
            (None, 100, Some(&fleet), 100),
            (None, 1, Some(&fleet), 1),
            (None, 0, Some(&fleet), ACCEPTS_PER_SECOND_MAX),
            (None, 1_000_000, Some(&fleet), DRAIN_EVICT_PER_S_MAX),
            (None, 100, Some(&alone), DRAIN_EVICTIONS_MAX),
            (None, 100, None, DRAIN_EVICTIONS_MAX),
        ] {
            let Rate { per_s, from } = rate(configured, accepts_max, (Some(&a), view));
            assert_eq!(per_s, want, "{from}");
        }
        assert!(rate(None, 100, (Some(&a), Some(&alone))).from.contains("nowhere to go"));
    }
}
