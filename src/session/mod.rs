//! One connection's protocol life: pure, no sockets, no clock.
//!
//! A session is not its socket: "the transport is lost" and "the session is over" are two events, and a session is
//! named by its id. What is *not* here: users, queues, policy and fan-out, which concern many sessions (`hub`).
#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type, clippy::expect_used)]

pub mod disconnect;
pub mod handshake;
pub mod ledger;
pub mod meter;
pub mod outbox;
pub mod requests;
pub mod token;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use crate::ids::{Platform, connection_id_hex};
use crate::limits;
use crate::time::{Mono, Now};
use crate::wire::envelope::Variant;
use crate::wire::message::Inbound;
use disconnect::Disconnect;
use handshake::Login;
use ledger::Ledger;
use outbox::Outbox;
use requests::Requests;
use token::PackedToken;

/// "No slot": the end of every list that is linked through the slab.
pub const NONE: u32 = u32::MAX;

/// Monotonic time in units of `limits::TICK_MS`: half the size of a millisecond stamp, good for 13 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Tick(pub u32);

impl Tick {
    /// The tick that `now` lies in.
    pub fn of(now: Mono) -> Self {
        Self(u32::try_from(now.0 / limits::TICK_MS).unwrap_or(u32::MAX))
    }

    /// The first tick at which at least `ms` have passed.
    pub fn after_ms(self, ms: u64) -> Self {
        let ticks = ms.div_ceil(limits::TICK_MS);
        Self(self.0.saturating_add(u32::try_from(ticks).unwrap_or(u32::MAX)))
    }

    /// The same tick or a later one: the first in a step of `limits::REST_MS`.
    pub fn rest(self) -> Self {
        const STEP: u64 = limits::REST_MS / limits::TICK_MS;
        Self(u32::try_from(u64::from(self.0).next_multiple_of(STEP)).unwrap_or(u32::MAX))
    }

    /// The moment at which it begins.
    pub fn start(self) -> Mono {
        Mono(u64::from(self.0) * limits::TICK_MS)
    }

    /// Milliseconds from `earlier` to `self`.
    pub fn since_ms(self, earlier: Self) -> u64 {
        u64::from(self.0.saturating_sub(earlier.0)) * limits::TICK_MS
    }
}

/// Where a session is in its life. It only moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Waits for the token check.
    LoggingIn,
    /// Its token is good; in a storm of logins it waits a random time.
    Spread,
    /// Waits in the register queue.
    Registering,
    /// In a cluster: waits for the node's router, which claims it with its user's home.
    Claiming,
    /// Registered; its 101 was queued in the same call.
    Open,
    /// Over, but for frames that are flushed before the close.
    Closing,
    /// `Effect::Close` was given; the socket is being joined.
    Closed,
}

/// Who is on the other end.
#[derive(Debug, Serialize, Deserialize)]
pub enum Credentials {
    /// Before register: all arguments.
    Login(Box<Login>),
    /// After: what pushes, kicks and status calls need.
    Identity(Box<Identity>),
    /// After it left its user's list: what the log needs.
    Departed(Box<Departed>),
}

/// What is kept of an identity once nobody can reach it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Departed {
    /// The user that it was registered under.
    pub user: Box<str>,
}

/// What is kept of a login.
#[derive(Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The token, for policy 4 and `GetUsersOnlineStatus`.
    pub token: PackedToken,
}

/// A place in the timer wheel.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct TimerLink {
    /// Neighbours in the same bucket.
    pub prev: u32,
    /// See `prev`.
    pub next: u32,
    /// When it fires; [`TimerLink::NEVER`]: not in the wheel. (An `Option` is twice the size.)
    pub at: Tick,
}

impl TimerLink {
    /// The time of a timer that is not in the wheel. The clock is past all deadlines 13 years before.
    pub const NEVER: Tick = Tick(u32::MAX);

    /// Not in the wheel.
    pub const UNARMED: Self = Self { prev: NONE, next: NONE, at: Self::NEVER };

    /// Whether it is in the wheel.
    pub fn is_armed(&self) -> bool {
        self.at != Self::NEVER
    }
}

/// One session. Plain data; its size is a headline of the product (see the test).
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    /// Where it is in its life.
    pub phase: Phase,
    /// From the login.
    pub platform: Platform,
    /// How it encodes envelopes.
    pub variant: Variant,
    /// Set by request 2004; matters for iOS only (spec 3.5).
    pub background: bool,
    /// It stands in the hub's list of connections with something to send.
    pub flush_listed: bool,
    /// The socket is closed and joined; the slot is freed as soon as no queue holds it.
    pub transport_closed: bool,
    /// A drain waits for its requests in flight.
    pub draining: bool,
    /// Why it ends, once it does.
    pub reason: Option<Disconnect>,
    /// Index of its user in the hub's table; [`NONE`] while not registered.
    pub user: u32,
    /// Neighbours among the connections of the user, in registration order.
    pub user_prev: u32,
    /// See `user_prev`.
    pub user_next: u32,
    /// Whether it stands in the queues: unregister, kick, register.
    pub queued: [bool; 3],
    /// Its one timer.
    pub timer: TimerLink,
    /// End of the phase `LoggingIn`, `Spread`, `Registering`, `Claiming` or `Closing`.
    pub deadline: Tick,
    /// When the last frame was received; before the 101: when it was accepted.
    pub heard: Tick,
    /// When the gateway pinged it last (Web only).
    pub pinged: Tick,
    /// MD5 of address and time (spec 1.2): the `connID` of OpenIM.
    pub connection_id: [u8; 16],
    /// Reading half.
    pub inbound: Inbound,
    /// Frames that wait; `None` while idle.
    pub outbox: Option<Box<Outbox>>,
    /// Requests that wait; `None` while idle.
    pub requests: Option<Box<Requests>>,
    /// Users whose presence it watches (2005); `None` for most.
    pub watches: Option<Box<BTreeSet<Box<str>>>>,
    /// Who is on the other end.
    pub credentials: Credentials,
    /// Counts, for its limits and its last line in the log.
    pub ledger: Box<Ledger>,
}

impl Session {
    /// A session whose token check begins.
    pub fn new(now: Now, peer: SocketAddr, login: Box<Login>) -> Self {
        let tick = Tick::of(now.mono);
        Self {
            phase: Phase::LoggingIn,
            platform: login.platform,
            variant: login.variant,
            background: false,
            flush_listed: false,
            transport_closed: false,
            draining: false,
            reason: None,
            user: NONE,
            user_prev: NONE,
            user_next: NONE,
            queued: [false; 3],
            timer: TimerLink::UNARMED,
            deadline: tick.after_ms(limits::LOGIN_DEADLINE_MS),
            heard: tick,
            pinged: tick,
            connection_id: Md5::digest(format!("{peer}_{}", now.unix.0)).into(),
            inbound: Inbound::default(),
            outbox: None,
            requests: None,
            watches: None,
            credentials: Credentials::Login(login),
            ledger: Box::new(Ledger::new(tick, peer)),
        }
    }

    /// Registered and alive: pushes, kicks and status calls see it.
    pub fn is_registered(&self) -> bool {
        self.user != NONE
    }

    /// The token it logged in with; empty once it has left its user's list. `user` is the one that it is registered
    /// under: with the rest of the session it is what the token is unpacked with.
    pub fn token(&self, user: &str) -> Cow<'_, str> {
        match &self.credentials {
            Credentials::Login(login) => Cow::Borrowed(&login.token),
            Credentials::Identity(identity) => identity.token.text(user, self.platform),
            Credentials::Departed(_) => Cow::Borrowed(""),
        }
    }

    /// `connID` as OpenIM writes it.
    pub fn connection_id_hex(&self) -> Box<str> {
        connection_id_hex(self.connection_id)
    }

    /// Bytes that wait for the socket.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.bytes())
    }

    /// Bytes kept of what the client sent: a message that is not complete, and requests that wait.
    pub fn inbound_bytes(&self) -> usize {
        self.inbound.held_bytes() + self.requests.as_ref().map_or(0, |requests| requests.waiting_bytes())
    }

    /// When its peer will have taken no byte of what waits for too long; `None`: the socket takes what there is.
    pub fn send_deadline(&self) -> Option<Tick> {
        let stuck = self.outbox.as_ref().and_then(|outbox| outbox.stuck_since)?;
        Some(stuck.after_ms(limits::SEND_DEADLINE_MS))
    }

    /// When the hub must look at it again.
    pub fn next_timer(&self) -> Option<Tick> {
        match self.phase {
            Phase::LoggingIn | Phase::Spread | Phase::Registering | Phase::Claiming | Phase::Closing => {
                Some(self.deadline)
            }
            Phase::Open => {
                let silent = self.heard.after_ms(limits::READ_DEADLINE_MS);
                let ping = self.pinged.after_ms(limits::WEB_PING_INTERVAL_MS);
                // Heartbeats of all sessions are looked at together, so that an idle shard need not wake in each tick.
                let heard = if self.platform == Platform::WEB { silent.min(ping) } else { silent }.rest();
                let expiry = self.outbox.as_ref().and_then(|outbox| outbox.next_expiry());
                [self.send_deadline(), expiry].into_iter().flatten().chain([heard]).min()
            }
            Phase::Closed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_stays_small() {
        // With its generation in the slab 128, a size class of the allocator, as are 256 of them together.
        assert!(size_of::<Session>() <= 120, "{} bytes", size_of::<Session>());
        assert!(size_of::<Identity>() <= 48, "{} bytes", size_of::<Identity>());
    }

    #[test]
    fn the_connection_id_is_the_md5_of_address_and_time() {
        // Spec 1.2; expected: `printf 10.0.0.1:1024_1700000000000 | md5sum`, and the same for the others.
        let login = Login {
            user: "u".into(),
            token: "t".into(),
            platform: Platform::WEB,
            operation_id: "o".into(),
            variant: Variant { encoding: crate::wire::envelope::Encoding::Gob, gzip: false },
            wants_response: false,
            forwarded_for: Some("9.9.9.9".into()),
            upgrade: Err(crate::wire::upgrade::UpgradeFault::BadKey),
        };
        let now = Now { mono: Mono(5), unix: crate::time::UnixMs(1_700_000_000_000) };
        for (peer, id) in [
            ("10.0.0.1:1024", "1059376cdaa7c3e72894df862986ae62"),
            ("[2001:db8::1]:443", "774c6c0e7c1943f876a22cd19cce51f6"),
        ] {
            let session = Session::new(now, peer.parse().unwrap(), Box::new(login.clone()));
            assert_eq!(&*session.connection_id_hex(), id, "{peer}");
        }
    }

    #[test]
    fn ticks_round_deadlines_up() {
        assert_eq!(Tick::of(Mono(250)), Tick(2));
        assert_eq!(Tick(2).after_ms(1), Tick(3));
        assert_eq!(Tick(5).since_ms(Tick(2)), 300);
    }
}
