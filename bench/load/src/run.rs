//! A run from its settings to its outcome: refuses what the machine cannot hold, starts threads or processes, opens
//! the measured time when all are connected, and puts together what they counted.
//!
//! Not here: what one thread does (`thread/`), and how a run is shared between processes (`processes.rs`).

use std::process::ExitCode;

use pinion_bench_kit::clock::{now_ns, seconds};
use pinion_bench_kit::cpu::Clocks;

use crate::crew::{self, Reins};
use crate::machine::Machine;
use crate::news::{News, Order, Part};
use crate::processes;
use crate::script::Script;
use crate::server::{self, Server, Snapshot, cpu_since};
use crate::settings::Settings;
use crate::tally::{Outcome, Second, Tally};
use crate::timeline::Timeline;

/// From "all are connected" to the measured time: longer than any thread takes to look for orders.
const START_NS: u64 = 100_000_000;

/// Makes the script of a thread, on that thread. Threads are counted from 0 over all processes of the run.
pub type Scripts<'a> = &'a (dyn Fn(&Settings, usize) -> Result<Box<dyn Script>, String> + Sync);

/// Why there is no outcome: a text for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What cannot be, with figures.
    pub why: String,
    /// What to do about it, a command where there is one.
    pub mend: Option<String>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)?;
        match &self.mend {
            Some(mend) => write!(f, "\n  {mend}"),
            None => Ok(()),
        }
    }
}

/// Runs it. `progress` is called once a second, from this thread, while connecting too.
///
/// # Errors
/// The machine cannot hold the load, nothing could be connected at all, or a script failed.
pub fn run(
    settings: &Settings,
    scripts: Scripts<'_>,
    progress: &mut dyn FnMut(&Second),
) -> Result<Outcome, Refusal> {
    let layout = Machine::read().layout(settings)?;
    check_token(settings)?;
    let server = Server::watch(&settings.server_pids).map_err(refusal)?;
    let threads = settings.threads.max(layout.processes);
    let settings = Settings { sources: layout.sources, threads, ..settings.clone() };
    let whole = Part {
        first_thread: 0,
        threads,
        first_connection: 0,
        connections: settings.connections,
        epoch_ns: now_ns(),
        settings,
    };
    let lead = |reins: &Reins| {
        let base = server.as_ref().map(Server::snapshot);
        Lead { part: &whole, server: server.as_ref(), base, reins, progress, processes: layout.processes }
            .run()
    };
    let outcome = if layout.processes == 1 {
        crew::with(&whole, scripts, lead)
    } else {
        processes::with(&whole.split(layout.processes), lead)
    };
    outcome.map_err(refusal)?
}

/// Whether this process was started by another one of the same run: then `main` does nothing but [`part`].
pub fn is_part() -> bool {
    std::env::var_os(processes::VARIABLE).is_some()
}

/// A part of a run that several processes share: settings from stdin, what was counted to stdout.
pub fn part(scripts: Scripts<'_>) -> ExitCode {
    processes::part(scripts)
}

fn refusal(why: String) -> Refusal {
    Refusal { why, mend: None }
}

fn check_token(settings: &Settings) -> Result<(), Refusal> {
    match &settings.push_token {
        Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(refusal("the token for pushes has characters that no header may have".to_owned()))
        }
        _ => Ok(()),
    }
}

/// Leads the threads through a run.
struct Lead<'a> {
    part: &'a Part,
    server: Option<&'a Server>,
    /// Before the first connection.
    base: Option<Snapshot>,
    reins: &'a Reins,
    progress: &'a mut dyn FnMut(&Second),
    processes: usize,
}

/// What all processes had used at one moment.
struct Moment {
    server: Option<Snapshot>,
    own: Vec<Clocks>,
}

impl Lead<'_> {
    fn run(mut self) -> Result<Outcome, Refusal> {
        let mut timeline = Timeline::new(self.reins.threads);
        let begin = self.moment();
        let connected_ns = self.connect(&mut timeline)?;
        let connected = self.moment();
        let go_ns = now_ns() + START_NS;
        self.reins.tell(Order::Go { at_ns: go_ns });
        let (tally, open, last_ns) = self.measure(&mut timeline)?;
        let end = self.moment();
        let duration = self.part.settings.duration.as_secs_f64();
        let measured = seconds(go_ns, last_ns).max(duration);
        let used = |from: &Moment, to: &Moment| {
            let (from, to) = (from.server.as_ref()?, to.server.as_ref()?);
            Some(to.since(from, self.base.as_ref()?))
        };
        Ok(Outcome {
            tally: self.corrected(tally, measured),
            connect_seconds: seconds(self.part.epoch_ns, connected_ns),
            seconds: measured,
            open,
            server: used(&connected, &end),
            server_connecting: used(&begin, &connected),
            own_cpu_seconds: cpu_since(&end.own, &connected.own).total(),
            own_connect_cpu_seconds: cpu_since(&connected.own, &begin.own).total(),
            processes: self.processes,
            timeline: timeline.end(),
        })
    }

    fn moment(&self) -> Moment {
        Moment {
            server: self.server.map(server::Server::snapshot),
            own: self.reins.pids.iter().map(|&pid| Clocks::of(pid)).collect(),
        }
    }

    /// Waits until all threads are connected. When the last one was.
    fn connect(&mut self, timeline: &mut Timeline) -> Result<u64, Refusal> {
        let (mut waiting, mut any, mut last_ns, mut reason) = (self.reins.threads, 0, 0, None);
        while waiting > 0 {
            if let News::Connected { open, at_ns, why_not } = self.next(timeline)? {
                waiting -= 1;
                any += open;
                last_ns = last_ns.max(at_ns);
                reason = reason.or(why_not);
            }
        }
        match reason {
            Some(why) if any == 0 => Err(self.nothing_connected(&why)),
            _ => Ok(last_ns),
        }
    }

    fn nothing_connected(&self, why: &str) -> Refusal {
        let targets: Vec<String> =
            self.part.settings.targets.iter().map(|target| target.address.to_string()).collect();
        Refusal {
            why: format!(
                "none of {} connections to {} was made: {why}",
                self.part.settings.connections,
                targets.join(", ")
            ),
            mend: None,
        }
    }

    /// Waits until all threads are done; what they counted, how many connections are open, when the last answer came.
    fn measure(&mut self, timeline: &mut Timeline) -> Result<(Tally, usize, u64), Refusal> {
        let (mut all, mut open_sum, mut end_ns) = (Tally::default(), 0, 0);
        for _ in 0..self.reins.threads {
            let (tally, open, last_ns) = loop {
                if let News::Done { tally, open, last_ns } = self.next(timeline)? {
                    break (tally, open, last_ns);
                }
            };
            all.merge(&tally);
            open_sum += open;
            end_ns = end_ns.max(last_ns);
        }
        Ok((all, open_sum, end_ns))
    }

    /// The next news that is no second.
    fn next(&mut self, timeline: &mut Timeline) -> Result<News, Refusal> {
        loop {
            match self.reins.news.recv() {
                Ok((_, News::Second { number, second, latency })) => {
                    timeline.add(number, &second, &latency).iter().for_each(&mut *self.progress);
                }
                Ok((_, News::Failed(why))) => return Err(refusal(why)),
                Ok((_, news)) => return Ok(news),
                Err(_) => return Err(refusal("the load threads have ended".to_owned())),
            }
        }
    }

    /// A closed loop's latencies, corrected: a connection that is not held up begins an operation every so often, on
    /// the average of this run.
    fn corrected(&self, mut tally: Tally, measured: f64) -> Tally {
        if self.part.settings.rate.is_none() && tally.answered > 0 {
            let connections = self.part.settings.connections as f64;
            let interval_ns = measured * 1e9 * connections / tally.answered as f64;
            tally.latency = tally.raw.corrected(interval_ns as u64);
        }
        tally
    }
}
