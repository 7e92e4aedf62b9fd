//! A judgement: how good, in words, and what mends it.

use std::fmt;

/// How good a point is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grade {
    /// Nothing to do.
    Ok,
    /// It works; something could be better or is unknown.
    Hint,
    /// It works below what was planned, or slower.
    Warn,
    /// What was planned cannot work.
    Fail,
}

impl Grade {
    /// As printed, in JSON too.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Hint => "hint",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }

    /// The exit code of a run whose worst grade this is: 1 and 2 keep the meaning that they have in all commands.
    pub(super) const fn exit_code(self) -> u8 {
        match self {
            Self::Ok | Self::Hint => 0,
            Self::Warn => 3,
            Self::Fail => 4,
        }
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a point says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) grade: Grade,
    pub(super) text: String,
    /// The command, or the line of a file, that mends it. Never there with [`Grade::Ok`].
    pub(super) fix: Option<String>,
}

impl Verdict {
    pub(super) fn ok(text: impl Into<String>) -> Self {
        Self { grade: Grade::Ok, text: text.into(), fix: None }
    }

    pub(super) fn hint(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { grade: Grade::Hint, text: text.into(), fix: Some(fix.into()) }
    }

    pub(super) fn warn(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { grade: Grade::Warn, text: text.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(text: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { grade: Grade::Fail, text: text.into(), fix: Some(fix.into()) }
    }

    /// The fact could not be read, so nothing is claimed.
    pub(super) fn unknown(what: &str, path: &str) -> Self {
        Self { grade: Grade::Hint, text: format!("{what} is not known"), fix: Some(format!("cat {path}")) }
    }
}

/// A verdict under the name of its point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) point: &'static str,
    pub(super) verdict: Verdict,
}
