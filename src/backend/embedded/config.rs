//! What the embedded backend is told at start: the secret and how much to keep.

use std::fmt;

use crate::limits;

/// What the backend is told at start.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// Signs and checks tokens (OpenIM's `share.secret`).
    pub secret: Box<str>,
    /// What is kept.
    pub history: HistoryLimits,
}

impl EmbeddedConfig {
    /// With the limits of `limits.rs`.
    pub fn new(secret: &str) -> Self {
        Self { secret: secret.into(), history: HistoryLimits::default() }
    }

    /// One line for the banner.
    pub fn limits_text(&self) -> String {
        let HistoryLimits { history_max, history_bytes, conversations_max, pull_max } = self.history;
        format!(
            "one-to-one messages only, in memory: {history_max} messages per conversation, {} MiB in all, \
             {conversations_max} conversations, {} per user, {pull_max} messages per pull, {} KiB per message; \
             a restart forgets everything",
            history_bytes / (1024 * 1024),
            limits::EMBEDDED_USER_CONVERSATIONS_MAX,
            limits::EMBEDDED_MESSAGE_BYTES / 1024,
        )
    }
}

impl fmt::Debug for EmbeddedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConfig").field("secret", &"(hidden)").field("history", &self.history).finish()
    }
}

/// How much is kept and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// See `limits::EMBEDDED_HISTORY_MAX`.
    pub history_max: usize,
    /// See `limits::EMBEDDED_HISTORY_BYTES`.
    pub history_bytes: usize,
    /// See `limits::EMBEDDED_CONVERSATIONS_MAX`.
    pub conversations_max: usize,
    /// See `limits::EMBEDDED_PULL_MAX`.
    pub pull_max: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self {
            history_max: limits::EMBEDDED_HISTORY_MAX,
            history_bytes: limits::EMBEDDED_HISTORY_BYTES,
            conversations_max: limits::EMBEDDED_CONVERSATIONS_MAX,
            pull_max: limits::EMBEDDED_PULL_MAX,
        }
    }
}
