//! A part of the bench in a process of its own: this same program, spoken to in lines. It ends with its owner, by its
//! own hand: its input ends.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use pinion_bench_kit::cpu::on_cpus;

/// See the module's documentation.
pub struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program with these arguments on these CPUs.
    pub fn start(arguments: &[String], cpus: &[usize]) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = on_cpus(cpus, || command.spawn()).unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let output = BufReader::new(process.stdout.take().expect("it was piped"));
        let input = process.stdin.take();
        Self { process, input, output }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells it something.
    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("open until it is dropped");
        writeln!(input, "{line}").unwrap_or_else(|e| panic!("{line:?} cannot be said: {e}"));
    }

    /// Waits for what it says next.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let n = self.output.read_line(&mut line).expect("text");
        assert!(n > 0, "a part of the bench has ended; what it said is above");
        line.trim_end().to_owned()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.input = None;
        if let Err(e) = self.process.wait() {
            eprintln!("a part of the bench has not ended: {e}");
        }
    }
}
