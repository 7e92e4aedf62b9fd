//! Printing that outlives its reader: a closed or full pipe is no reason to panic (`println!` would).

use std::io::Write;

/// Prints text to standard output. `false`: nobody reads any more.
pub(super) fn print(text: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_ok()
}

/// Prints a line to standard output. `false`: nobody reads any more.
pub(super) fn line(text: &str) -> bool {
    print(&format!("{text}\n"))
}

/// Prints a line to standard error. If that is closed there is nobody left to tell.
pub(super) fn error_line(text: &str) -> bool {
    let mut out = std::io::stderr().lock();
    writeln!(out, "{text}").is_ok()
}
