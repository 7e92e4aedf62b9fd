//! The one list of exceptions to the rules of `tidy`.
//!
//! Each names its rule, its file, how many findings it covers (exactly: an exception that is no longer needed fails
//! the test) and why. The number of exceptions stands in the type: whoever adds one changes it, and the review sees it.

/// One file that may break one rule.
pub struct Exception {
    pub rule: &'static str,
    pub path: &'static str,
    /// Findings that it covers.
    pub count: usize,
    pub reason: &'static str,
}

/// No connection is there.
const MAIN_THREAD: &str = "the main thread waits for signals, for news of the threads and for their end";

pub const EXCEPTIONS: [Exception; 11] = [
    blocking("src/shard/news.rs", 1, MAIN_THREAD),
    blocking("src/node/drain.rs", 2, MAIN_THREAD),
    blocking("src/node/threads.rs", 2, MAIN_THREAD),
    blocking(
        "src/shard/stall_trace.rs",
        1,
        "the watcher, on the main thread, waits for the stuck thread's answer",
    ),
    blocking("src/shard/planted.rs", 1, "the fault of incident 1, planted by a test switch"),
    blocking("src/cli/listen.rs", 1, "a client on the command line waits before it dials again"),
    blocking("src/cli/admin.rs", 1, "a command waits before it asks the gateway again"),
    Exception {
        rule: "tokio",
        path: "src/rpc/tls.rs",
        count: 1,
        reason: "tokio-rustls uses tokio's io traits, as h2 does; no runtime of tokio's is in the tree",
    },
    word("src/backend/token/mac.rs", 2, "the name of a type of the JWT library"),
    word("src/config/openim/keys.rs", 1, "a section of OpenIM 3.5's configuration (spec 11.3)"),
    word("src/rpc/services/openim.rs", 1, "OpenIM's own text of an error (spec 4.4)"),
];

const fn blocking(path: &'static str, count: usize, reason: &'static str) -> Exception {
    Exception { rule: "blocking", path, count, reason }
}

const fn word(path: &'static str, count: usize, reason: &'static str) -> Exception {
    Exception { rule: "word", path, count, reason }
}
