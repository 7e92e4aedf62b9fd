//! The engine against servers that are not it: tungstenite's, and a gateway in a process of its own.

mod echo;
mod gateway;
mod openim;
mod raw;

use std::process::ExitCode;
use std::time::Duration;

use crate::run::{Refusal, is_part, part, run};
use crate::script::{Conn, Hooks, Operation, Script};
use crate::settings::{Driver, Protocol, Settings, Target, Tokens, Users};
use crate::tally::{Errors, Outcome};

/// A run with so many connections to an address that nobody listens on; change what matters.
pub fn settings(connections: usize) -> Settings {
    Settings {
        targets: vec![Target {
            address: "127.0.0.1:1".parse().unwrap(),
            host: "test".into(),
            path: "/".into(),
        }],
        threads: 1,
        connections,
        duration: Duration::from_millis(300),
        rate: None,
        timeout: Duration::from_secs(20),
        headers: Vec::new(),
        protocol: Protocol::Raw,
        users: Users {
            prefix: "u".into(),
            first: 0,
            per_user: 1,
            platform: 1,
            platforms: 0,
            tokens: Tokens::Secret("openIM123".into()),
        },
        push: None,
        push_token: None,
        ramp: None,
        connecting: 64,
        sources: Vec::new(),
        ping: None,
        processes: None,
        server_pids: Vec::new(),
        cpus: Vec::new(),
        script: None,
        script_arguments: Vec::new(),
        driver: Driver::Auto,
    }
}

/// A script of closures.
pub struct Play {
    pub hooks: Hooks,
    pub connected: fn(&Conn<'_>) -> Vec<Operation>,
    pub request: fn(&Conn<'_>) -> Operation,
    pub closed: fn(u16) -> bool,
}

/// Connections that only hold.
pub const HOLD: Play = Play {
    hooks: Hooks {
        connected: false,
        request: false,
        delay: false,
        message: false,
        response: false,
        closed: false,
    },
    connected: |_| Vec::new(),
    request: |_| Operation::Idle,
    closed: |_| false,
};

/// Connections that do this, again and again.
pub fn doing(request: fn(&Conn<'_>) -> Operation) -> Play {
    Play { hooks: Hooks { request: true, ..Hooks::default() }, request, ..HOLD }
}

impl Script for Play {
    fn hooks(&self) -> Hooks {
        self.hooks
    }

    fn connected(&mut self, conn: &Conn<'_>) -> Result<Vec<Operation>, String> {
        Ok((self.connected)(conn))
    }

    fn request(&mut self, conn: &Conn<'_>) -> Result<Operation, String> {
        Ok((self.request)(conn))
    }

    fn closed(&mut self, _: &Conn<'_>, code: u16, _: &str) -> Result<bool, String> {
        Ok((self.closed)(code))
    }
}

/// A run with such a script in every thread.
pub fn play(settings: &Settings, script: fn() -> Play) -> Result<Outcome, Refusal> {
    run(settings, &|_, _| Ok(Box::new(script())), &mut |_| {})
}

/// All of them.
pub fn total(errors: &Errors) -> u64 {
    let by_kind = errors.handshake.values().chain(errors.closed.values()).chain(errors.answer.values());
    errors.connect + errors.read + errors.write + errors.timeout + errors.protocol + by_kind.sum::<u64>()
}

/// Not a test of its own: the process that `processes.rs` starts. Echoes where the protocol is raw.
#[test]
fn a_part() {
    if is_part() && part(&|_, _| Ok(Box::new(raw::echo()))) != ExitCode::SUCCESS {
        std::process::exit(1);
    }
}
