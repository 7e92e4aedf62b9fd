//! OpenIM's services answer: what is asked of whom, in which words, and what their answers mean (spec 5, 6, 9).
//!
//! `calls` says what travels, `answers` what came back, `tokens` what 3.5 asks Redis instead, `presence` who is
//! told where users are.
//!
//! Pure: no sockets, no clock. The channels are in `rpc`, discovery and Redis in `control`.

pub mod answers;
pub mod calls;
#[cfg(test)]
mod differences;
pub mod presence;
pub mod tokens;

/// A service of OpenIM that a gateway calls (spec 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// `parseToken`, `invalidateToken`, `kickTokens`.
    Auth,
    /// `setUserOnlineStatus`, `getUserStatus`; 3.5: `setUserStatus`.
    User,
    /// Requests 1001 to 1007.
    Msg,
    /// `DelUserPushToken`.
    Push,
    /// The other gateways: `MultiTerminalLoginCheck`.
    Gateway,
}

impl Service {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Auth, Self::User, Self::Msg, Self::Push, Self::Gateway];
}
