//! The operator's program that moves an address to this host or away (`cluster.adopt_hook`): one process at a time,
//! beside the main thread, which looks now and then whether it has ended. It never blocks main.
//!
//! What always holds: a process that is started is reaped, and none outlives its time: it is killed with what it
//! started.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::cluster::adoption::Claim;
use crate::time::Mono;

/// What the program is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// The address comes here.
    Take,
    /// It leaves.
    Give,
}

/// A process that runs.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) claim: Claim,
    pub(super) verb: Verb,
    child: Child,
    deadline: Mono,
    ms: u64,
    killed: bool,
}

impl Verb {
    /// The program's first argument.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Give => "give",
        }
    }
}

impl Run {
    /// Starts `program VERB NODE ADDRESS`, which has so many milliseconds.
    ///
    /// # Errors
    /// Why it cannot be started.
    pub(super) fn start(
        program: &Path,
        (claim, verb): (&Claim, Verb),
        now: Mono,
        ms: u64,
    ) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.arg(verb.word()).arg(claim.node.as_str()).arg(claim.address.to_string());
        // Its errors stand beside the gateway's. A group of its own, to be ended with its children.
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let child = command.spawn().map_err(|e| format!("it cannot be started: {e}"))?;
        Ok(Self { claim: claim.clone(), verb, child, deadline: now.plus_ms(ms), ms, killed: false })
    }

    /// What came of it. `None`: it runs.
    pub(super) fn ended(&mut self, now: Mono) -> Option<Result<(), String>> {
        let late = || Err(format!("it did not end within {} ms and was killed", self.ms));
        match self.child.try_wait() {
            Ok(None) => {}
            Ok(Some(_)) if self.killed => return Some(late()),
            Ok(Some(status)) if status.success() => return Some(Ok(())),
            Ok(Some(status)) => return Some(Err(format!("it ended with {status}"))),
            Err(error) => return Some(Err(format!("it cannot be waited for: {error}"))),
        }
        if now >= self.deadline && !std::mem::replace(&mut self.killed, true) {
            self.kill();
        }
        None
    }

    fn kill(&self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
            tracing::warn!(%error, "the hook could not be killed");
        }
    }
}

impl Drop for Run {
    /// The node ends before it does.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::placement::view::NodeId;
    use crate::shard::clock;

    /// What a script comes to, which has so many milliseconds.
    fn outcome(script: &str, ms: u64) -> Result<(), String> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("hook");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let claim = Claim { node: NodeId::new("b").unwrap(), address: "[fd00::2]:10001".parse().unwrap() };
        let mut run = Run::start(&program, (&claim, Verb::Take), clock::now().mono, ms)?;
        loop {
            if let Some(outcome) = run.ended(clock::now().mono) {
                return outcome;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_hook_gets_its_arguments_and_its_failures_are_told_apart() {
        assert_eq!(outcome(r#"[ "$*" = "take b [fd00::2]:10001" ]"#, 60_000), Ok(()));
        let failed = outcome("exit 3", 60_000).unwrap_err();
        assert!(failed.contains("ended with exit status: 3"), "{failed}");
        // The child that it waits for is ended with it: else this would take as long.
        let late = outcome("sleep 3600", 100).unwrap_err();
        assert!(late.contains("within 100 ms and was killed"), "{late}");
        let claim = Claim { node: NodeId::new("b").unwrap(), address: "10.0.0.2:1".parse().unwrap() };
        let absent = Run::start(Path::new("/nowhere/hook"), (&claim, Verb::Give), Mono(0), 1);
        assert!(absent.unwrap_err().contains("cannot be started"));
    }
}
