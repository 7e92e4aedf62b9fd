//! The rules, one function each: a file in, findings out. Exceptions are applied by the caller.

use super::source::{Source, Token};

/// What a rule has to say about a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: &'static str,
    pub path: String,
    /// From 1; 0 for the file as a whole.
    pub line: usize,
    pub what: String,
}

/// A rule with the name that exceptions use.
pub type Rule = (&'static str, fn(&Source) -> Vec<(usize, String)>);

/// All rules that look at one file. The arrows between layers are in `layers.rs`.
pub const RULES: &[Rule] = &[
    ("file-lines", file_lines),
    ("function-lines", function_lines),
    ("line-width", line_width),
    ("module-doc", module_doc),
    ("word", banned_words),
    ("discarded-result", discarded_result),
    ("unsafe", |s| placed(s, UNSAFE_PLACES, is_unsafe)),
    ("atomic", |s| placed(s, ATOMIC_PLACES, is_atomic)),
    ("arc", |s| placed(s, ARC_PLACES, |t| matches!(t.text, "Arc" | "ArcSwap"))),
    ("monoio", |s| placed(s, MONOIO_PLACES, |t| t.text.starts_with("monoio"))),
    ("tokio", |s| placed(s, CONTROL_PLACES, |t| t.text.starts_with("tokio") || t.text.starts_with("tonic"))),
    ("blocking", blocking),
    ("limit-name", limit_name),
];

/// architecture.md section 5: sockets (ring engine and hand-over), the stall backtrace, the bounded reader.
const UNSAFE_PLACES: &[&str] = &[
    "src/shard/engine/outgoing.rs",
    "src/shard/engine/pool.rs",
    "src/shard/engine/uring.rs",
    "src/shard/socket.rs",
    "src/shard/stall_trace.rs",
    "src/rpc/bounded.rs",
];
/// What is shared with the kernel; mailbox, metrics, admission, and the heartbeat that the watcher reads.
const ATOMIC_PLACES: &[&str] = &[
    "src/shard/engine/pool.rs",
    "src/shard/engine/uring.rs",
    "src/shard/mailbox",
    "src/shard/news",
    "src/shard/rpc_mailbox",
    "src/shard/doorbell",
    "src/shard/atomics",
    "src/shard/pulse",
    "src/shard/stall",
    "src/control/mailbox",
    "src/metrics",
    "src/admission",
];
/// Those, configuration, where threads are started, and what they are started with.
const ARC_PLACES: &[&str] = &[
    "src/shard/mailbox",
    "src/shard/news",
    "src/shard/rpc_mailbox",
    "src/shard/doorbell",
    "src/shard/atomics",
    "src/shard/pulse",
    "src/shard/stall",
    "src/shard/mod.rs",
    "src/shard/run.rs",
    "src/shard/door.rs",
    "src/control/",    // its mailbox, its block, and endpoints as they are posted
    "src/hub/mail.rs", // frames that an rpc thread built for all shards
    "src/metrics",
    "src/admission",
    "src/config",
    "src/rpc",
    "src/node",
    "src/cli",
];
const MONOIO_PLACES: &[&str] = &["src/shard/", "src/rpc/"];
const CONTROL_PLACES: &[&str] = &["src/control/"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const TEST_FUNCTION_LINES_MAX: usize = 120;
const LINE_CHARS_MAX: usize = 120;
const WORDS_BANNED: &[&str] = &["FIXME", "utils", "helper", "manager"];

/// Runs every rule on every file.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        for (rule, find) in RULES {
            let finding = |(line, what)| Finding { rule, path: source.path.clone(), line, what };
            findings.extend(find(source).into_iter().map(finding));
        }
    }
    findings
}

fn file_lines(source: &Source) -> Vec<(usize, String)> {
    let outer = |t: &std::ops::Range<usize>| source.lines_in(t);
    let tables: usize = source.tables().iter().map(outer).sum();
    let lines = source.text.lines().count().saturating_sub(tables);
    if lines <= FILE_LINES_MAX {
        return Vec::new();
    }
    vec![(0, format!("{lines} lines, at most {FILE_LINES_MAX}"))]
}

fn function_lines(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for function in source.functions() {
        let max = if function.in_test { TEST_FUNCTION_LINES_MAX } else { FUNCTION_LINES_MAX };
        if function.lines > max {
            found.push((
                function.line,
                format!("fn {}: {} lines, at most {max}", function.name, function.lines),
            ));
        }
    }
    found
}

fn line_width(source: &Source) -> Vec<(usize, String)> {
    let tables = source.tables();
    let in_table = |line: usize| {
        tables.iter().any(|t| (source.line_of(t.start)..=source.line_of(t.end - 1)).contains(&line))
    };
    let wide = |(i, line): (usize, &str)| {
        let chars = line.chars().count();
        (chars > LINE_CHARS_MAX && !in_table(i + 1))
            .then(|| (i + 1, format!("{chars} characters, at most {LINE_CHARS_MAX}")))
    };
    source.text.lines().enumerate().filter_map(wide).collect()
}

fn module_doc(source: &Source) -> Vec<(usize, String)> {
    let mut head =
        source.text.lines().map(str::trim_start).skip_while(|l| l.is_empty() || l.starts_with("#!["));
    if head.next().is_some_and(|line| line.starts_with("//!")) {
        return Vec::new();
    }
    vec![(1, "no module documentation at the head of the file".to_owned())]
}

/// In src only, comments and strings included: a name that says nothing in a comment says nothing either.
fn banned_words(source: &Source) -> Vec<(usize, String)> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (i, line) in source.text.lines().enumerate() {
        let lower = line.to_lowercase();
        for word in WORDS_BANNED {
            if lower.contains(&word.to_lowercase()) {
                found.push((i + 1, format!("the word `{word}`")));
            }
        }
    }
    found
}

fn discarded_result(source: &Source) -> Vec<(usize, String)> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let tokens = source.tokens();
    let mut found = Vec::new();
    for (i, five) in tokens.windows(5).enumerate() {
        let ends_in_ok = five.iter().map(|t| t.text).eq([".", "ok", "(", ")", ";"]);
        if ends_in_ok && !is_used(&tokens[..i]) && !source.in_test(five[0].at) {
            found.push((
                source.line_of(five[1].at),
                "a statement ends in `.ok();`: the error is dropped".to_owned(),
            ));
        }
    }
    found
}

/// The statement whose tokens come last in `before` binds, assigns or returns its value.
fn is_used(before: &[Token<'_>]) -> bool {
    let mut depth = 0usize;
    for (i, token) in before.iter().enumerate().rev() {
        match token.text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            "=" | "return" | "let" => return true,
            ";" | "{" => return false,
            // A block that ended before this statement; inside the statement braces follow a closure or `match`.
            _ if i == 0 => return false,
            _ => {}
        }
    }
    false
}

/// Reports the tokens that `is` names, in src, outside tests and outside `places`.
fn placed(source: &Source, places: &[&str], is: fn(&Token<'_>) -> bool) -> Vec<(usize, String)> {
    if !source.path.starts_with("src/") || places.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for token in source.tokens() {
        if is(&token) && !source.in_test(token.at) {
            found.push((source.line_of(token.at), format!("`{}` has no place here", token.text)));
        }
    }
    found
}

fn is_unsafe(token: &Token<'_>) -> bool {
    token.text == "unsafe"
}

fn is_atomic(token: &Token<'_>) -> bool {
    let name = token.text.strip_prefix("Atomic");
    token.text == "atomic" || name.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Whatever can make a thread wait for another one. `.send(` waits on a full channel of crossbeam.
fn blocking(source: &Source) -> Vec<(usize, String)> {
    const TYPES: &[&str] = &["Mutex", "RwLock", "Condvar", "Barrier"];
    const CALLS: &[&str] =
        &["recv", "recv_timeout", "recv_deadline", "blocking_recv", "blocking_send", "send_timeout"];
    if !source.path.starts_with("src/") || CONTROL_PLACES.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let tokens = source.tokens();
    let has_channels = tokens.iter().any(|t| t.text == "crossbeam_channel");
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let after_dot =
            i > 0 && tokens[i - 1].text == "." && tokens.get(i + 1).is_some_and(|t| t.text == "(");
        // The doorbell's own `send` gives the mail back instead of waiting.
        let to_doorbell = i > 1 && matches!(tokens[i - 2].text, "bell" | "doorbell");
        let path = |name: &str| i > 2 && tokens[i - 3].text == name && tokens[i - 1].text == ":";
        let blocks = TYPES.contains(&token.text)
            || (after_dot && CALLS.contains(&token.text))
            || (after_dot && has_channels && token.text == "send" && !to_doorbell)
            || (token.text == "sync" && path("tokio"))
            || (token.text == "sleep" && path("thread"));
        if blocks && !source.in_test(token.at) {
            found.push((source.line_of(token.at), format!("`{}` can block the thread", token.text)));
        }
    }
    found
}

fn limit_name(source: &Source) -> Vec<(usize, String)> {
    if !source.path.starts_with("src/limits") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for pair in source.tokens().windows(2) {
        let name = pair[1].text;
        let good = name == "_" || ["_BYTES", "_MS", "_MAX"].iter().any(|unit| name.ends_with(unit));
        if pair[0].text == "const" && !good {
            found.push((source.line_of(pair[1].at), format!("{name} ends neither in a unit nor in _MAX")));
        }
    }
    found
}
