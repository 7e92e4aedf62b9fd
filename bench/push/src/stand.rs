//! What every scenario stands on: a gateway, its clients and a caller, and the window in which they are measured.

use std::path::PathBuf;

use tokio::runtime::Runtime;

use crate::crowd::{Crowd, Options};
use crate::gateway::{ENCODES, Figures, Gateway, QUEUED, SENDS, TURNS};
use crate::grpc::Caller;
use crate::report::Report;
use pinion_bench_kit::clock::{now_ns, seconds};
use pinion_bench_kit::cpu::{Clocks, Split, machine_busy};

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Plan {
    pub gateway: PathBuf,
    /// More flags for the gateway.
    pub flags: Vec<String>,
    pub server_cpus: Vec<usize>,
    pub load_cpus: Vec<usize>,
    pub runs: usize,
    /// Of each part of a run.
    pub seconds: f64,
    pub connections: usize,
    /// Whom unary pushes go to in turn.
    pub users: usize,
    /// Bytes of `content`.
    pub body: usize,
    pub variant: String,
    pub in_flight: usize,
    pub batch: usize,
    pub fan_out: FanOut,
}

/// How a fan-out names its recipients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanOut {
    /// OpenIM's call, with the name of each.
    Listed,
    /// `pinion.v1.Push/Send` to all local users, answered with totals.
    Everybody,
}

/// A gateway with clients. Dropped in this order: the gateway last, so that no client loses its connection.
pub struct Stand {
    pub caller: Caller,
    pub runtime: Runtime,
    pub crowd: Crowd,
    pub gateway: Gateway,
    /// Frames that all clients must have got since the start.
    pushed: u64,
}

impl Stand {
    /// Starts a gateway with these flags more, logs so many clients in, and connects a caller.
    pub fn start(plan: &Plan, clients: usize, flags: &[&str]) -> Self {
        let mut all = plan.flags.clone();
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let gateway = Gateway::start(&plan.gateway, &plan.server_cpus, &all);
        let crowd = Crowd::start(&crowd_options(plan, &gateway, 0, clients), &plan.load_cpus);
        let runtime = crate::runtime();
        let caller = runtime.block_on(Caller::connect(gateway.grpc));
        Self { caller, runtime, crowd, gateway, pushed: 0 }
    }

    /// Waits until so many frames more have reached the clients; gives the time of the last one.
    pub fn arrived(&mut self, frames: u64) -> u64 {
        self.pushed += frames;
        self.crowd.until(self.pushed)
    }

    /// Frames that have reached the clients since the start.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Begins to measure, once the gateway's figures show what was pushed so far.
    pub fn open(&self) -> Window {
        Window {
            figures: self.gateway.figures_after(&Figures::default(), self.pushed),
            gateway: Clocks::of(self.gateway.pid()),
            crowd: Clocks::of(self.crowd.pid()),
            caller: Clocks::of(std::process::id()),
            busy: machine_busy(),
            start_ns: now_ns(),
        }
    }

    /// Ends it: `pushes` went to `recipients` each. The gateway must have queued exactly these, which it is asked.
    pub fn close(&mut self, window: &Window, pushes: u64, recipients: u64) -> Used {
        let wall_s = seconds(window.start_ns, now_ns());
        let split = Clocks::of(self.gateway.pid()).since(&window.gateway);
        let crowd_s = Clocks::of(self.crowd.pid()).since(&window.crowd).total();
        let caller_s = Clocks::of(std::process::id()).since(&window.caller).total();
        let others_s = machine_busy() - window.busy - split.total() - crowd_s - caller_s;
        let after = self.gateway.figures_after(&window.figures, pushes * recipients);
        let since = |names| after.since(&window.figures, names);
        assert_eq!(since(QUEUED), pushes * recipients, "pushes that the gateway queued");
        Used {
            wall_s,
            split,
            crowd_s,
            caller_s,
            others_s,
            pushes,
            sends: since(SENDS),
            encodes: since(ENCODES),
            turns: since(TURNS),
        }
    }
}

/// Clients of a gateway, numbered from `first`.
pub fn crowd_options(plan: &Plan, gateway: &Gateway, first: usize, count: usize) -> Options {
    Options { target: gateway.websocket, count, first, variant: plan.variant.clone() }
}

/// The state of everything at the start of a measurement.
pub struct Window {
    figures: Figures,
    gateway: Clocks,
    crowd: Clocks,
    caller: Clocks,
    busy: f64,
    start_ns: u64,
}

/// What was used in a window.
#[derive(Clone, Copy, Debug)]
pub struct Used {
    pub wall_s: f64,
    pub split: Split,
    crowd_s: f64,
    caller_s: f64,
    others_s: f64,
    pushes: u64,
    sends: u64,
    encodes: u64,
    turns: u64,
}

impl Used {
    /// How many units of work a core's second of the gateway did: what a core can do, whoever held it up.
    pub fn per_core_second(&self, units: u64) -> f64 {
        units as f64 / self.split.total()
    }

    /// The gateway's CPU time by place, over `per` units of work.
    pub fn report_cpu(&self, report: &mut Report, unit: &'static str, per: u64) {
        let us = |seconds: f64| seconds * 1e6 / per.max(1) as f64;
        report.add("gateway CPU", unit, us(self.split.total()));
        report.add("  rpc thread, user (RPC)", unit, us(self.split.rpc.user));
        report.add("  shards, user (hub and frames)", unit, us(self.split.shards.user));
        report.add("  rpc thread, system (kernel)", unit, us(self.split.rpc.system));
        report.add("  shards, system (kernel)", unit, us(self.split.shards.system));
        report.add("  other threads", unit, us(self.split.rest.total()));
    }

    /// What the gateway says it did, and which part of the machine everybody took.
    pub fn report_work(&self, report: &mut Report, per: u64) {
        let per = per.max(1) as f64;
        report.add("sendmsg calls", "per push", self.sends as f64 / per);
        report.add("encodes", "per call", self.encodes as f64 / self.pushes.max(1) as f64);
        report.add("turns of the shards", "per push", self.turns as f64 / per);
        report.add("cores taken by the gateway", "cores", self.split.total() / self.wall_s);
        report.add("cores taken by the clients", "cores", self.crowd_s / self.wall_s);
        report.add("cores taken by the caller", "cores", self.caller_s / self.wall_s);
        report.add("cores taken by others (noise)", "cores", (self.others_s / self.wall_s).max(0.0));
    }
}
