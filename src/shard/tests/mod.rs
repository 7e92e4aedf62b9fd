//! Tests of the shard's parts over real sockets, on every driver that the machine allows.

mod admission;
mod doorway;
mod engine;
mod node;
mod smoke;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::config::{
    AuthConfig, Config, Driver, Engine, LogConfig, RecordConfig, RecordMode, ShardsConfig, WebsocketConfig,
};
use crate::limits;

/// A configuration for tests: any free port, two shards, fixed keys.
pub(crate) fn config() -> Config {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        cluster: crate::config::ClusterConfig::default(),
        assign: crate::config::AssignConfig::default(),
        backend: crate::config::Backend::Embedded,
        openim: crate::config::OpenimConfig::default(),
        websocket: WebsocketConfig {
            address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            port: 0,
            connections_max: 100,
            handshakes_max: limits::HANDSHAKES_MAX,
            send_buffer_bytes: 32 * 1024,
            receive_buffer_bytes: 32 * 1024,
        },
        admission: crate::config::AdmissionConfig::default(),
        rpc: crate::config::RpcConfig::at(loopback),
        http_listen: loopback,
        http_token: None,
        shards: ShardsConfig {
            count: 2,
            rpc_count: 1,
            pin: false,
            driver: Driver::Auto,
            engine: Engine::Auto,
            huge_pages: false,
            owner_key: [1, 2],
        },
        auth: AuthConfig { secret: "openIM123".into(), admin_users: vec!["imAdmin".into()] },
        login_policy: 1,
        lenient: false,
        outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
        outbox_frames_max: limits::OUTBOX_FRAMES_MAX,
        shard_outbox_bytes_max: limits::SHARD_OUTBOX_BYTES_MAX,
        rates: Default::default(),
        drain_deadline_ms: limits::DRAIN_DEADLINE_MS,
        drain_evict_per_s: None,
        stall_abort_ms: limits::STALL_ABORT_MS,
        record: RecordConfig {
            mode: RecordMode::Off,
            dir: std::env::temp_dir(),
            bytes_max: limits::RECORDING_BYTES_MAX,
        },
        log: LogConfig { level: "info".into(), json: false, users: crate::config::UserNames::Plain },
        planted: Default::default(),
    }
}
