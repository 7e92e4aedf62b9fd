//! The engine against servers of its own process.

use std::time::Duration;

use crate::settings::{Driver, Protocol, Settings, Target, Tokens, Users};

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
