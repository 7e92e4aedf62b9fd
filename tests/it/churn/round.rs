//! One gateway under churn: what is asked of it, what it was seen to do, and what is wrong with that.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pinion::limits::LOGIN_DEADLINE_MS;

use super::client::{Answer, Connection, Knock, Reply};
use super::crowd::{Crowd, Patience, Progress, Seen};
use crate::harness::{DEADLINE, Gateway, LEVELS, Metrics};

/// What a login may take beyond its deadline on a busy machine before it counts as hanging: one that hangs does so for
/// ever.
const SLACK: Duration = Duration::from_secs(10);
/// Threads of clients that wait, and one more that does not.
const CROWDS: u64 = 3;
/// Accounts that log in at half time and at the end, whatever the crowds do.
const EVERYBODY: usize = 24;
/// What is run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub policy: u8,
    pub shards: usize,
    /// `--plant-upstream`.
    pub upstream: Option<String>,
    /// `--plant`.
    pub fault: Option<&'static str>,
    pub churn: Duration,
    /// How long the gateway may take to become empty.
    pub settle: Duration,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Logins wait for ever, or a shard does not turn.
    Freeze(String),
    /// A connection whose client has left is still registered.
    Zombie(String),
    /// Something did not go back to what it was.
    Leak(String),
    /// Descriptors are not sessions and handshakes.
    Descriptors(String),
    /// The last login is not like the first.
    LastLogin(String),
}

/// What a round came to.
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub seen: Seen,
    pub kicks: f64,
    pub pushes: f64,
    /// The figures in one line.
    pub line: String,
}

/// Runs a plan.
pub fn run(plan: &Plan) -> Outcome {
    let gateway = start(plan);
    let patience = Duration::from_millis(LOGIN_DEADLINE_MS) + SLACK;
    let first = log_in_and_send(&gateway, patience).expect("the first login works");
    assert_eq!(leftovers(&gateway, None, DEADLINE), Vec::<String>::new());
    let base = descriptors_at_rest(&gateway);
    let Churned { seen, open, samples } = churn(&gateway, plan, patience);
    let mut findings = Vec::new();
    findings.extend(samples.wrong.into_iter().map(Finding::Descriptors));
    findings.extend(frozen(&gateway, &seen));
    let held = open.len();
    if plan.fault.is_none() {
        findings.extend(descriptors_held(&gateway, base));
    }
    drop(open);
    let left = leftovers(&gateway, Some(base), plan.settle);
    let metrics = gateway.metrics();
    findings.extend(leaks(&metrics, &left, plan));
    let frozen = findings.iter().any(|finding| matches!(finding, Finding::Freeze(_)));
    let last = if frozen { Err("not tried".into()) } else { log_in_and_send(&gateway, patience) };
    findings.extend(last.as_ref().err().filter(|_| !frozen).cloned().map(Finding::LastLogin));
    let kicks = metrics.sum("pinion_kicks_total", &[]);
    let pushes = metrics.sum("pinion_pushes_total", &["outcome=\"queued\""]);
    let line = format!(
        "policy {} on {} shards, upstream {}, fault {}: {} logins ({} refused, {} busy, {} gone, {} left early), \
         {kicks} kicks, {pushes} pushes, {} replies; longest login {} ms, longest reply {} ms; first login and send \
         {} ms, last {last:?}; {held} open at the end, {} samples; high water {}; left over: {left:?}",
        plan.policy,
        plan.shards,
        plan.upstream.as_deref().unwrap_or("normal"),
        plan.fault.unwrap_or("none"),
        seen.logins,
        seen.refused,
        seen.busy,
        seen.gone,
        seen.left,
        seen.replies,
        seen.longest_login.as_millis(),
        seen.longest_reply.as_millis(),
        first,
        samples.count,
        high_water(&metrics),
    );
    println!("{line}");
    Outcome { findings, seen, kicks, pushes, line }
}

/// What the crowds came to, with the connections that they still hold.
struct Churned {
    seen: Seen,
    open: Vec<Connection>,
    samples: Samples,
}

fn churn(gateway: &Gateway, plan: &Plan, patience: Duration) -> Churned {
    let progress = Progress::default();
    let mut seen = Seen::default();
    let mut open = Vec::new();
    let samples = std::thread::scope(|scope| {
        let crowds: Vec<_> = (0..=CROWDS)
            .map(|n| {
                let patience = if n < CROWDS { Patience::Long(patience) } else { Patience::Short };
                let crowd = Crowd::new(gateway, u64::from(plan.policy) * 100 + n, patience);
                let progress = &progress;
                scope.spawn(move || crowd.run(progress))
            })
            .collect();
        let sampler = scope.spawn(|| sample(gateway, plan.shards, &progress));
        std::thread::sleep(plan.churn / 2);
        let half_time = scope.spawn(|| everybody(gateway, patience));
        std::thread::sleep(plan.churn / 2);
        let late = Instant::now();
        // A frozen gateway lets nobody do enough: its freeze must have been reported.
        let is_ripe = || match plan.fault {
            Some("incident-1") => gateway.logs().contains("has not turned for"),
            _ => progress.is_enough(),
        };
        while !is_ripe() && late.elapsed() < DEADLINE {
            std::thread::sleep(Duration::from_millis(10));
        }
        progress.stop.store(true, Ordering::Relaxed);
        seen.add(&everybody(gateway, patience));
        seen.add(&half_time.join().unwrap());
        for crowd in crowds {
            let (saw, left) = crowd.join().unwrap();
            seen.add(&saw);
            open.extend(left);
        }
        sampler.join().unwrap()
    });
    Churned { seen, open, samples }
}

fn start(plan: &Plan) -> Gateway {
    let (policy, shards) = (plan.policy.to_string(), plan.shards.to_string());
    // The machine may be busy: a stall is a finding of the churn, not an end of the process.
    let mut flags = vec![
        "--login-policy",
        &policy,
        "--shards-count",
        &shards,
        "--stall-abort-ms",
        "120s",
        "--log-level",
        "warn",
    ];
    for (flag, value) in [("--plant-upstream", plan.upstream.as_deref()), ("--plant", plan.fault)] {
        flags.extend(value.map(|value| [flag, value]).into_iter().flatten());
    }
    Gateway::start(&flags)
}

/// Logins of many accounts at once, so of every shard: at half time, and when the churn is over but its clients are
/// still there.
fn everybody(gateway: &Gateway, patience: Duration) -> Seen {
    let mut crowd = Crowd::new(gateway, 7, Patience::Long(patience));
    crowd.log_in_all(0..EVERYBODY);
    crowd.into_seen()
}

/// A login, a message, its reply: milliseconds.
fn log_in_and_send(gateway: &Gateway, patience: Duration) -> Result<u128, String> {
    let since = Instant::now();
    let token = gateway.token("alice", 1);
    let knock = Knock::new(gateway.websocket, "alice", (1, &token), patience).map_err(|e| e.to_string())?;
    let (Answer::In(mut connection), _) = knock.answer(patience) else {
        return Err(format!("no login after {} ms", since.elapsed().as_millis()));
    };
    match connection.send_msg("bob") {
        Reply::Came(_) => Ok(since.elapsed().as_millis()),
        Reply::Gone => Err("lost before its reply".into()),
        Reply::Hung => Err("no reply".into()),
    }
}

/// Nothing is scraped meanwhile: the least of many counts is one without a connection of ours that is being closed.
fn descriptors_at_rest(gateway: &Gateway) -> usize {
    let counts = (0..20).map(|_| {
        std::thread::sleep(Duration::from_millis(20));
        gateway.descriptors()
    });
    counts.min().unwrap_or(0)
}

/// What is not zero, or not what it was, after `within`.
fn leftovers(gateway: &Gateway, descriptors: Option<usize>, within: Duration) -> Vec<String> {
    let since = Instant::now();
    loop {
        let metrics = gateway.metrics();
        let levels = LEVELS.iter().map(|level| (*level, metrics.sum(level, &[])));
        let mut left: Vec<String> =
            levels.filter(|(_, n)| *n != 0.0).map(|(level, n)| format!("{level} {n}")).collect();
        let held = gateway.descriptors();
        left.extend(
            descriptors.filter(|base| held > *base).map(|base| format!("{held} descriptors, not {base}")),
        );
        if left.is_empty() || since.elapsed() > within {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn leaks(metrics: &Metrics, left: &[String], plan: &Plan) -> Option<Finding> {
    if left.is_empty() {
        return None;
    }
    let registered = metrics.sum("pinion_registered_connections", &[]);
    let text = left.join(", ");
    Some(if registered > 0.0 {
        let (users, s) = (metrics.sum("pinion_users", &[]), plan.settle.as_secs());
        Finding::Zombie(format!(
            "{registered} connections of {users} users are registered {s} s after the last client left: {text}"
        ))
    } else {
        Finding::Leak(text)
    })
}

/// Logins that waited too long, with what the watcher says about it.
fn frozen(gateway: &Gateway, seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    if seen.hung_logins > 0 || seen.hung_replies > 0 {
        findings.push(Finding::Freeze(format!(
            "{} logins waited longer than their deadline of {LOGIN_DEADLINE_MS} ms (the longest {} ms), {} requests \
             got no reply",
            seen.hung_logins,
            seen.longest_login.as_millis(),
            seen.hung_replies
        )));
        let logs = gateway.logs();
        let told = logs.lines().filter(|line| line.contains("has not turned for"));
        findings.extend(told.map(|line| Finding::Freeze(line.to_owned())));
    }
    findings
}

/// With clients connected and nothing moving: descriptors of the process, sockets of the engines, sessions of the hubs.
fn descriptors_held(gateway: &Gateway, base: usize) -> Option<Finding> {
    let since = Instant::now();
    loop {
        let metrics = gateway.metrics();
        let known = metrics.sum("pinion_connections", &[]) + metrics.sum("pinion_handshakes_in_flight", &[]);
        let sockets = metrics.sum("pinion_sockets", &[]);
        let held = gateway.descriptors().saturating_sub(base);
        if sockets == known && held as f64 == sockets {
            return None;
        }
        if since.elapsed() > DEADLINE {
            let text = format!("{held} descriptors, {sockets} sockets, {known} sessions and handshakes");
            return Some(Finding::Descriptors(text));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

struct Samples {
    count: u64,
    wrong: Vec<String>,
}

/// What one shard published at one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    turns: f64,
    connections: f64,
    handshakes: f64,
    sockets: f64,
    queued: f64,
}

impl Sample {
    fn of(metrics: &Metrics, shard: usize) -> Self {
        let label = format!("shard=\"{shard}\"");
        let value = |family: &str| metrics.sum(family, &[&label]);
        Self {
            turns: value("pinion_turns_total"),
            connections: value("pinion_connections"),
            handshakes: value("pinion_handshakes_in_flight"),
            sockets: value("pinion_sockets"),
            queued: value("pinion_queue_depth"),
        }
    }

    /// A socket is closed before its session is freed: the session may wait for its entry in a queue.
    fn is_right(&self) -> bool {
        let without_socket = self.connections + self.handshakes - self.sockets;
        (0.0..=self.queued).contains(&without_socket)
    }
}

/// Scrapes while clients come and go. A scrape may cut through a publish: only what two in a row agree on is judged.
fn sample(gateway: &Gateway, shards: usize, progress: &Progress) -> Samples {
    let mut samples = Samples { count: 0, wrong: Vec::new() };
    while !progress.stop.load(Ordering::Relaxed) {
        let (one, two) = (gateway.metrics(), gateway.metrics());
        for shard in 0..shards {
            let sample = Sample::of(&one, shard);
            if sample == Sample::of(&two, shard) {
                samples.count += 1;
                if !sample.is_right() {
                    samples.wrong.push(format!("shard {shard} published {sample:?}"));
                }
            }
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    samples
}

fn high_water(metrics: &Metrics) -> String {
    let queue = |name: &str| {
        let label = format!("queue=\"{name}\"");
        format!("{name} {}", metrics.sum("pinion_queue_high_water", &[&label]))
    };
    [queue("register"), queue("unregister"), queue("kick")].join(", ")
}
