//! A line a second while it runs, on the standard error: rewritten in place on a terminal, else one after the other.

use std::io::{IsTerminal as _, Write as _};

use super::units::{count, size, time};
use crate::tally::Second;

/// Where lines go.
pub struct Progress {
    terminal: bool,
    quiet: bool,
}

impl Progress {
    /// On the standard error.
    pub fn new(quiet: bool) -> Self {
        Self { terminal: std::io::stderr().is_terminal(), quiet }
    }

    /// What there was in this second.
    pub fn show(&mut self, second: &Second) {
        if self.quiet {
            return;
        }
        let line = line(second);
        let mut out = std::io::stderr().lock();
        // A terminal that is gone is no reason to stop measuring.
        let _ = if self.terminal {
            write!(out, "\r\x1b[K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }

    /// Leaves a clean line.
    pub fn end(self) {
        if self.terminal && !self.quiet {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(second: &Second) -> String {
    let mut line = format!("  {:>4.0}s  {:>6} open", second.at_seconds, second.open);
    if second.answered > 0 {
        line += &format!(
            "  {:>8} req/s  p50 {}  p99 {}",
            count(second.answered as f64),
            time(second.latency_p50_ns as f64),
            time(second.latency_p99_ns as f64)
        );
    }
    if second.deliveries > 0 {
        line += &format!("  {:>8} deliveries/s", count(second.deliveries as f64));
    }
    line += &format!("  {}/s", size(second.bytes_in as f64));
    if second.errors > 0 {
        line += &format!("  {} errors", second.errors);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_there_was() {
        let idle = Second { at_seconds: 3.0, open: 10_000, ..Second::default() };
        assert_eq!(line(&idle), "     3s   10000 open  0.00B/s");
        let busy = Second {
            answered: 5_000,
            deliveries: 2_000,
            errors: 2,
            bytes_in: 2048,
            latency_p50_ns: 120_000,
            latency_p99_ns: 3_000_000,
            ..idle
        };
        assert_eq!(
            line(&busy),
            "     3s   10000 open     5.00k req/s  p50 120.00us  p99 3.00ms     2.00k deliveries/s  2.00KB/s  2 errors"
        );
    }
}
