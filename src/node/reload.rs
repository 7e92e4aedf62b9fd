//! A new configuration, and orders of operators, in a running node: SIGHUP, `/v1/reload` and `/v1/log-level`.
//!
//! The configuration is read again from where it came from at start and judged as at start. If anything is wrong with
//! it, nothing changes. What may change goes to each thread as an immutable policy by its mailbox; what may not is
//! named, each time, until the node is started again. What always holds: no connection is ended, and no secret is
//! shown.

use serde::Serialize;

use super::logging::{LogLevels, Logging};
use super::{Node, openim, roster};
use crate::config::cluster::MembershipSource;
use crate::config::machine::Machine;
use crate::config::policy::{NodePolicy, RpcPolicy, ShardPolicy};
use crate::config::reload::Changes;
use crate::config::{self, Config, Loaded, Sources};
use crate::limits::STALL_WATCH_MS;
use crate::shard::clock;
use crate::shard::mailbox::{Control, RpcMail};
use crate::shard::orders::{MainNews, Order, ReloadCounts};

/// What a reload works with.
pub(super) struct Reload {
    sources: Sources,
    /// As at start: what is worked out from it is not to change because the machine did.
    machine: Machine,
    started: Config,
    /// What was read last. Of it the policies are in force.
    last: Config,
    levels: LogLevels,
    counts: ReloadCounts,
    /// Threads that have not taken the last policy yet: their lane was full.
    untold: Untold,
}

/// By number.
#[derive(Default)]
struct Untold {
    shards: Vec<usize>,
    rpcs: Vec<usize>,
}

impl Reload {
    pub(super) fn new(config: &Config, sources: Sources, machine: Machine, logging: &Logging) -> Self {
        Self {
            sources,
            machine,
            started: config.clone(),
            last: config.clone(),
            levels: logging.levels(),
            counts: ReloadCounts::default(),
            untold: Untold::default(),
        }
    }

    /// In force now.
    pub(super) fn policy(&self) -> NodePolicy {
        NodePolicy::of(&self.last)
    }

    /// Settings that wait for a restart.
    pub(super) fn pending(&self) -> u64 {
        self.counts.pending
    }

    /// The configuration as it stands now.
    fn read(&self) -> Result<Loaded, String> {
        let drawn = || self.started.shards.owner_key;
        config::load(&self.sources, &self.machine, clock::now().unix, drawn)
            .map_err(|faults| faults.to_string())
    }
}

impl Node {
    /// Reads the configuration again, and tells systemd and the log what came of it. The answer is for whoever asked.
    ///
    /// # Errors
    /// What is wrong with the configuration; all is as before.
    pub(super) fn reload(&mut self) -> Result<Changes, String> {
        self.supervisor.reloading();
        let outcome = self.reload.read().and_then(|loaded| self.apply(loaded));
        let counts = &mut self.reload.counts;
        match &outcome {
            Ok(changes) if changes.applied.is_empty() => counts.unchanged += 1,
            Ok(_) => counts.applied += 1,
            Err(_) => counts.refused += 1,
        }
        if let Ok(changes) = &outcome {
            counts.pending = u64::try_from(changes.pending.len()).unwrap_or(u64::MAX);
        }
        say(&outcome);
        self.reload.untold =
            Untold { shards: (0..self.shards.len()).collect(), rpcs: (0..self.rpcs.len()).collect() };
        self.tell_policies();
        if outcome.is_ok() {
            self.tell_members();
        }
        self.supervisor.ready(&self.status());
        outcome
    }

    /// Tells the assign API who the members are, if it has not heard. Returns after how many milliseconds to do it
    /// again.
    pub(super) fn tell_view(&mut self) -> u64 {
        let assigns = self.config.assign.listen.is_some();
        let (Some(view), Some(rpc), true) = (&self.view, self.rpcs.first(), assigns) else { return u64::MAX };
        if self.members_untold && self.lookup.begin(view) {
            self.members_untold = false;
        }
        if let Some(found) = self.lookup.found() {
            let news = MainNews::Members(Box::new(found.clone()));
            if rpc.address.post(RpcMail::Main(Box::new(news))).is_ok() {
                self.lookup.told();
            }
        }
        if self.members_untold || !self.lookup.is_idle() { STALL_WATCH_MS } else { u64::MAX }
    }

    /// Reads the list of `cluster.members` again, for the assign API of a node that is alone: among others it goes by
    /// what the router believes.
    fn tell_members(&self) {
        let config = &self.reload.last;
        let alone = self.config.cluster.source == MembershipSource::None;
        if !alone || self.config.assign.listen.is_none() || config.cluster.members.is_none() {
            return;
        }
        let posted = roster::of(config).and_then(|found| {
            let (Some(rpc), Some(found)) = (self.rpcs.first(), found) else { return Ok(()) };
            let news = RpcMail::Main(Box::new(MainNews::Members(Box::new(found))));
            rpc.address.post(news).map_err(|_| "rpc thread 0 takes no mail; try again".to_owned())
        });
        if let Err(why) = posted {
            tracing::error!("the assign API keeps the members that it has: {why}");
        }
    }

    fn apply(&mut self, loaded: Loaded) -> Result<Changes, String> {
        let Loaded { mut config, warnings, .. } = loaded;
        let reload = &mut self.reload;
        config.planted = reload.started.planted;
        let changes = Changes { warnings, ..Changes::between(&reload.started, &reload.last, &config) };
        // First what can fail.
        if let Some(control) = &self.control {
            control.thread.set_webhooks(openim::webhooks(&config)?).map_err(|fault| fault.to_string())?;
        }
        let policy = NodePolicy::of(&config);
        reload.levels.set(&policy.log_level).map_err(|bad| format!("log.level: {bad}"))?;
        self.admission.set_limits(policy.connections_max, policy.accepts_per_second_max);
        if let Some(watcher) = &mut self.watcher {
            watcher.set_abort_ms(policy.stall_abort_ms);
        }
        reload.last = config;
        Ok(changes)
    }

    /// Hands the policies to the threads that have not got them yet. Returns after how many milliseconds to do it
    /// again: a lane was full.
    pub(super) fn tell_policies(&mut self) -> u64 {
        let Reload { untold, last, counts, .. } = &mut self.reload;
        untold.shards.retain(|&n| {
            let mail = Control::Policy(Box::new(ShardPolicy::of(last)));
            self.shards.get(n).is_some_and(|shard| shard.address.control(mail).is_err())
        });
        untold.rpcs.retain(|&n| {
            let news = MainNews::Reloaded { policy: Box::new(RpcPolicy::of(last)), counts: *counts };
            self.rpcs.get(n).is_some_and(|rpc| rpc.address.post(RpcMail::Main(Box::new(news))).is_err())
        });
        let is_done = untold.shards.is_empty() && untold.rpcs.is_empty();
        if is_done { u64::MAX } else { STALL_WATCH_MS }
    }

    /// Carries out an order of the admin port, which is on rpc thread 0.
    pub(super) fn order(&mut self, ticket: u64, order: Order) {
        let answer = match order {
            Order::Drain(order) => self.order_drain(order).and_then(|view| json(&view)),
            Order::Adoption(order) => self.order_adoption(order).and_then(|view| json(&view)),
            _ if self.drain.as_ref().is_some_and(|drain| drain.deadline.is_some()) => {
                Err("the gateway ends".to_owned())
            }
            Order::Reload => self.reload().and_then(|changes| json(&changes)),
            Order::LogLevel(None) => Ok(self.reload.levels.text().to_owned()),
            Order::LogLevel(Some(text)) => self.log_by(&text),
        };
        let news = RpcMail::Main(Box::new(MainNews::Answer { ticket, answer }));
        if self.rpcs.first().is_some_and(|rpc| rpc.address.post(news).is_err()) {
            tracing::warn!("the answer to an order found no room: its rpc thread takes no mail");
        }
    }

    fn log_by(&mut self, text: &str) -> Result<String, String> {
        let before = self.reload.levels.text().to_owned();
        self.reload.levels.set(text).map_err(|bad| bad.to_string())?;
        tracing::warn!(
            before,
            now = text,
            "log levels changed by an operator; until the next reload or start"
        );
        Ok(text.to_owned())
    }
}

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|e| format!("the answer cannot be written: {e}"))
}

fn say(outcome: &Result<Changes, String>) {
    match outcome {
        Ok(changes) => {
            for change in &changes.applied {
                let (old, new) = change.values().unzip();
                tracing::info!(key = change.key, old, new, "in force");
            }
            for change in &changes.pending {
                let (old, new) = change.values().unzip();
                tracing::warn!(key = change.key, old, new, "not in force: needs a restart");
            }
            for warning in &changes.warnings {
                tracing::warn!("{warning}");
            }
            let (applied, pending) = (changes.applied.len(), changes.pending.len());
            tracing::info!(applied, pending, "configuration reloaded");
        }
        Err(why) => tracing::error!("configuration not reloaded, all stays as it was: {why}"),
    }
}
