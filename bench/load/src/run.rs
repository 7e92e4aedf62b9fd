//! A run from its settings to its outcome: refuses what the machine cannot hold, starts threads or processes, opens
//! the measured time when all are connected, and puts together what they counted.
//!
//! Not here: what one thread does (`thread/`), and how a run is shared between processes (`processes.rs`).

use std::process::ExitCode;

use crate::script::Script;
use crate::settings::Settings;
use crate::tally::{Outcome, Second};

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
    let _ = (settings, scripts, progress);
    Err(Refusal { why: "the engine is being built".to_owned(), mend: None })
}

/// Whether this process was started by another one of the same run: then `main` does nothing but [`part`].
pub fn is_part() -> bool {
    std::env::var_os("PINION_BENCH_PART").is_some()
}

/// A part of a run that several processes share: settings from stdin, what was counted to stdout.
pub fn part(scripts: Scripts<'_>) -> ExitCode {
    let _ = scripts;
    ExitCode::FAILURE
}
