//! A run shared between processes: this program started several times, each told its part on its standard input and
//! telling what its threads tell on its standard output, as lines of JSON.
//!
//! What always holds: a part ends with whoever started it, since its input ends then and the kernel kills it; what a
//! script prints in a part is printed by the first process, since only lines with [`SIGN`] are ours.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use crossbeam_channel::{Receiver, Sender, select, unbounded};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::de::DeserializeOwned;

use crate::crew::{self, Reins};
use crate::news::{News, Order, Part};
use crate::run::Scripts;

/// Set for parts.
pub const VARIABLE: &str = "PINION_BENCH_PART";
/// In front of what is meant for the first process: nobody else writes a record separator.
const SIGN: &str = "\u{1e}part:";

/// Runs parts in processes of their own; as [`crew::with`].
pub fn with<T>(parts: &[Part], lead: impl FnOnce(&Reins) -> T) -> Result<T, String> {
    let (tell, news) = unbounded();
    std::thread::scope(|scope| {
        let mut reins = Reins { orders: Vec::new(), news, pids: vec![std::process::id()], threads: 0 };
        for part in parts {
            let (mut child, mut input, output) = start()?;
            say(&mut input, part).map_err(|error| format!("a process of the bench: {error}"))?;
            reins.pids.push(child.id());
            let (order, ordered) = unbounded();
            reins.orders.push(order);
            let (first, tell) = (reins.threads, tell.clone());
            reins.threads += part.threads;
            scope.spawn(move || pass_orders(input, &ordered));
            scope.spawn(move || {
                pass_news(output, first, &tell);
                let ended = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                // Nobody listens after an orderly end.
                let _ =
                    tell.send((first, News::Failed(format!("a process of the bench has ended: {ended}"))));
            });
        }
        let outcome = lead(&reins);
        reins.quit();
        Ok(outcome)
    })
}

fn start() -> Result<(Child, ChildStdin, ChildStdout), String> {
    let failed = |error: std::io::Error| format!("no process of the bench can be started: {error}");
    let program = std::env::current_exe().map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments()).env(VARIABLE, "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let input = child.stdin.take().ok_or("a process without its input")?;
    let output = child.stdout.take().ok_or("a process without its output")?;
    Ok((child, input, output))
}

/// The program is told by [`VARIABLE`] that it is a part.
#[cfg(not(test))]
fn arguments() -> [&'static str; 0] {
    []
}

/// A test's program runs the one test that is a part.
#[cfg(test)]
fn arguments() -> [&'static str; 3] {
    ["tests::a_part", "--exact", "--nocapture"]
}

fn say(to: &mut impl std::io::Write, what: &impl serde::Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Until there are no more; then the part's input ends, and so does the part.
fn pass_orders(mut input: ChildStdin, orders: &Receiver<Order>) {
    for order in orders {
        // One that has ended is told of by its output.
        if say(&mut input, &order).is_err() || order == Order::Quit {
            return;
        }
    }
}

fn pass_news(output: ChildStdout, first: usize, tell: &Sender<(usize, News)>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let news = line.split_once(SIGN).map(|(_, json)| serde_json::from_str::<(usize, News)>(json));
        let told = match news {
            Some(Ok((thread, news))) => tell.send((first + thread, news)),
            Some(Err(error)) => {
                tell.send((first, News::Failed(format!("a process of the bench said: {error}"))))
            }
            None => {
                println!("{line}");
                Ok(())
            }
        };
        if told.is_err() {
            return;
        }
    }
}

/// Runs this process as a part: settings and orders from the standard input, news to the standard output.
pub fn part(scripts: Scripts<'_>) -> ExitCode {
    // Refused, it still ends when its input does.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    match run_part(scripts) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tell_parent(&(0, News::Failed(why)));
            ExitCode::FAILURE
        }
    }
}

fn run_part(scripts: Scripts<'_>) -> Result<(), String> {
    crate::machine::Machine::read(); // for its own limit of descriptors
    let part: Part = next_line()?.ok_or("no settings came")?;
    let (order, orders) = unbounded();
    let reader = std::thread::Builder::new().name("orders".to_owned()).spawn(move || {
        while let Ok(Some(next)) = next_line::<Order>() {
            if order.send(next).is_err() {
                return;
            }
        }
    });
    reader.map_err(|error| error.to_string())?;
    crew::with(&part, scripts, |reins| {
        loop {
            select! {
                recv(reins.news) -> news => match news {
                    Ok(news) => tell_parent(&news),
                    Err(_) => return,
                },
                // No more orders: the first process has ended.
                recv(orders) -> order => match order {
                    Ok(order @ Order::Go { .. }) => reins.tell(order),
                    Ok(Order::Quit) | Err(_) => return,
                },
            }
        }
    })
}

fn next_line<T: DeserializeOwned>() -> Result<Option<T>, String> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) => serde_json::from_str(&line).map(Some).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn tell_parent(news: &(usize, News)) {
    let line = serde_json::to_string(news).expect("numbers and texts");
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the input has ended too, or will.
    let _ = writeln!(out, "{SIGN}{line}").and_then(|()| out.flush());
}
