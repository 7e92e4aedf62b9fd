//! Asking a running gateway over its admin port: what `pinion who`, `trace`, `shards`, `reload` and `log-level` share,
//! and how they show sizes, times and tables.
//!
//! One request per connection, as the gateway serves them; every wait has a deadline.

use std::fmt;
use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgMatches};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::client::dial;
use super::{EXIT_USAGE, fail, output};
use crate::limits::{ADMIN_ANSWER_BYTES, ADMIN_ANSWER_MS};

/// Where the admin port is, and what it may want to see.
pub(super) struct Gateway {
    host: String,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nobody answers there.
    Unreachable(String, String),
    /// The gateway says no.
    Refused(String),
    /// The answer is not one of this version.
    Strange(String),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(host, why) => write!(
                f,
                "no gateway answers on the admin port {host}: {why} (is it running? --http IP:PORT names another one)"
            ),
            Self::Refused(why) => write!(f, "the gateway refuses: {why}"),
            Self::Strange(why) => {
                write!(f, "the answer is not understood: {why} (another version of pinion?)")
            }
        }
    }
}

/// `--http` and `--token`.
pub(super) fn arguments() -> [Arg; 2] {
    [
        Arg::new("http")
            .long("http")
            .value_name("HOST:PORT")
            .default_value("127.0.0.1:12140")
            .help("The gateway's admin port (http.listen)"),
        token(),
    ]
}

/// `--token`.
pub(super) fn token() -> Arg {
    Arg::new("token")
        .long("token")
        .value_name("TOKEN")
        .env("PINION_HTTP_TOKEN")
        .hide_env_values(true)
        .help("The gateway's http.token, if it runs on another machine; prefer the environment")
}

impl Gateway {
    /// As the flags name it.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let text = |name: &str| matches.get_one::<String>(name).cloned();
        Self::at(&text("http").unwrap_or_default(), text("token").as_ref())
    }

    /// At `host:port`.
    pub(super) fn at(host: &str, token: Option<&String>) -> Self {
        Self { host: host.to_owned(), token: token.filter(|token| !token.is_empty()).cloned() }
    }

    /// The text that a path answers with.
    pub(super) fn get(&self, path: &str) -> Result<String, Failed> {
        self.request("GET", path)
    }

    /// The text that an order is answered with.
    pub(super) fn post(&self, path: &str) -> Result<String, Failed> {
        self.request("POST", path)
    }

    fn request(&self, method: &str, path: &str) -> Result<String, Failed> {
        let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
        let unreachable = |why: String| Failed::Unreachable(self.host.clone(), why);
        let mut socket = dial(&self.host).map_err(unreachable)?;
        let token = match &self.token {
            Some(token) if token.bytes().all(|b| b.is_ascii_graphic()) => {
                format!("Authorization: Bearer {token}\r\n")
            }
            Some(_) => return Err(Failed::Refused("a token has no blanks and no special characters".into())),
            None => String::new(),
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{token}{length}Connection: close\r\n\r\n",
            self.host
        );
        let mut answer = Vec::new();
        let deadline = Some(Duration::from_millis(ADMIN_ANSWER_MS));
        socket
            .set_read_timeout(deadline)
            .and_then(|()| socket.set_write_timeout(deadline))
            .and_then(|()| socket.write_all(request.as_bytes()))
            .and_then(|()| socket.take(ADMIN_ANSWER_BYTES).read_to_end(&mut answer))
            .map_err(|e| unreachable(e.to_string()))?;
        body_of(&String::from_utf8_lossy(&answer))
    }

    /// The value that a path answers with.
    pub(super) fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failed> {
        parse(&self.get(path)?)
    }
}

/// The value in a text of the gateway.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failed> {
    serde_json::from_str(text).map_err(|e| Failed::Strange(e.to_string()))
}

/// `user` for a query.
pub(super) fn escaped(user: &str) -> String {
    utf8_percent_encode(user, NON_ALPHANUMERIC).to_string()
}

/// The end of a command that got no answer.
pub(super) fn give_up(failed: &Failed) -> ExitCode {
    fail(EXIT_USAGE, &failed.to_string())
}

/// Prints the answer as it came, or why there is none.
pub(super) fn tell(answer: Result<String, Failed>) -> ExitCode {
    match answer {
        Ok(text) => output::print(&text),
        Err(failed) => return give_up(&failed),
    };
    ExitCode::SUCCESS
}

/// Waits before the next question.
pub(super) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn body_of(answer: &str) -> Result<String, Failed> {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    match status {
        Some("200") => Ok(body.to_owned()),
        Some("404") if body.starts_with("try ") => Err(Failed::Strange("it does not know this verb".into())),
        Some(_) => Err(Failed::Refused(body.trim().to_owned())),
        None => Err(Failed::Strange("not HTTP".into())),
    }
}

/// Bytes in at most five characters.
pub(super) fn size(bytes: u64) -> String {
    let mut unit = 1024;
    for name in ["K", "M", "G"] {
        if bytes < unit {
            break;
        }
        if bytes < unit * 1024 || name == "G" {
            return format!("{}.{}{name}", bytes / unit, bytes % unit * 10 / unit);
        }
        unit *= 1024;
    }
    bytes.to_string()
}

/// A length of time in at most six characters or so.
pub(super) fn span(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Rows under a heading, columns two blanks apart, each as wide as its widest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heading.get(column).map(|cell| cell.len())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}  "));
        format!("{}\n", padded.collect::<String>().trim_end())
    };
    let mut text = line(&mut heading.iter().copied());
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_spans_are_short() {
        for (bytes, want) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1536, "1.5K"),
            (1 << 20, "1.0M"),
            (5 << 30, "5.0G"),
            (2000 << 30, "2000.0G"),
        ] {
            assert_eq!(size(bytes), want);
        }
        for (ms, want) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_250, "1.2s"),
            (185_000, "3m05s"),
            (7_380_000, "2h03m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(span(ms), want);
        }
    }

    #[test]
    fn answers_are_told_apart() {
        assert_eq!(body_of("HTTP/1.1 200 OK\r\na: b\r\n\r\n{}\n").unwrap(), "{}\n");
        for (answer, part) in [
            ("HTTP/1.1 403 Forbidden\r\n\r\n403: no\n", "refuses: 403: no"),
            ("HTTP/1.1 404 Not Found\r\n\r\ntry one of /x\n", "another version"),
            ("SSH-2.0", "not HTTP"),
            ("", "not HTTP"),
        ] {
            let why = body_of(answer).unwrap_err().to_string();
            assert!(why.contains(part), "{answer}: {why}");
        }
    }

    #[test]
    fn tables_line_up() {
        let rows = [vec!["1".to_owned(), "x".to_owned()], vec!["22222".to_owned(), String::new()]];
        assert_eq!(table(&["id", "what"], &rows), "id     what\n1      x\n22222\n");
    }
}
