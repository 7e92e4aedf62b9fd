//! The settings of clients' way in, and who answers them; the first part of the table.

use std::net::IpAddr;

use super::{AUTO, Reload, Setting, Visibility, auto, name_of, named, networks, networks_text, size};
use crate::config::Backend;
use crate::config::value::number;
use crate::limits;
use crate::session::handshake::origin::ProxyHeader;

/// The word for no `websocket.proxies`.
const NO_PROXIES: &str = "none";
const PROXY_HEADERS: [(&str, ProxyHeader); 2] =
    [("off", ProxyHeader::Off), ("required", ProxyHeader::Required)];

/// `backend` and `websocket.*`.
pub(super) const WEBSOCKET: &[Setting] = &[
    setting!(
        "backend",
        "embedded",
        "`embedded` or `openim`",
        "openim",
        "Who answers clients: embedded = this process, for development; openim = OpenIM's services",
        |d, t| d.config.backend = named(t, &Backend::NAMES)?,
        |c| name_of(c.backend, &Backend::NAMES)
    ),
    setting!(
        "websocket.address",
        "::",
        "an IP address (:: = all, IPv4 included)",
        "0.0.0.0",
        "Address that clients reach",
        |d, t| d.config.websocket.address = t.parse::<IpAddr>().ok()?,
        |c| c.websocket.address
    ),
    setting!(
        "websocket.port",
        "10001",
        "a port from 0 to 65535 (0 = any free one)",
        "10001",
        "Port that clients reach",
        |d, t| d.config.websocket.port = number(t, 0..=u16::MAX)?,
        |c| c.websocket.port
    ),
    setting!(
        "websocket.connections_max",
        AUTO,
        "`auto` or a number from 1 to 4000000",
        "50000",
        "Most client connections of the node; auto = 100000, or what the open-file limit allows less a reserve",
        |d, t| d.connections_max = auto(t, |t| number(t, 1..=4_000_000))?,
        |c| c.websocket.connections_max,
        Live
    ),
    setting!(
        "websocket.shard_connections_max",
        AUTO,
        "`auto` or a number from 1 to 4000000",
        "30000",
        "Most client connections of a shard, more get 503; auto = websocket.connections_max",
        |d, t| d.shard_connections_max = auto(t, |t| number(t, 1..=4_000_000))?,
        |c| c.admission.shard_connections_max
    ),
    setting!(
        "websocket.address_connections_max",
        "0",
        "a number from 0 to 4000000 (0 = any number)",
        "1000",
        "Most connections of one address (an IPv6 /64 is one), more get 503; set websocket.proxies if there are any",
        |d, t| d.config.admission.address_connections_max = number(t, 0..=4_000_000)?,
        |c| c.admission.address_connections_max
    ),
    setting!(
        "websocket.accepts_per_second_max",
        "20000",
        "a number from 0 to 1000000 (0 = any number)",
        "5000",
        "Connections that the node accepts per second; more get 503",
        |d, t| d.config.admission.accepts_per_second_max = number(t, 0..=1_000_000)?,
        |c| c.admission.accepts_per_second_max,
        Live
    ),
    setting!(
        "websocket.proxies",
        "none",
        "`none` or at most 256 networks joined by commas, like 10.0.0.0/8",
        "10.0.0.0/8,192.0.2.4",
        "Proxies whose X-Forwarded-For is believed; nobody else's is looked at",
        |d, t| d.config.admission.proxies.networks = networks(t, NO_PROXIES, limits::PROXY_NETWORKS_MAX)?,
        |c| networks_text(&c.admission.proxies.networks, NO_PROXIES)
    ),
    setting!(
        "websocket.proxy_protocol",
        "off",
        "`off` or `required`",
        "required",
        "required = connections of websocket.proxies begin with a PROXY header (v1 or v2), or are closed",
        |d, t| d.config.admission.proxies.header = named(t, &PROXY_HEADERS)?,
        |c| name_of(c.admission.proxies.header, &PROXY_HEADERS)
    ),
    setting!(
        "websocket.handshakes_max",
        "4096",
        "a number from 1 to 100000",
        "4096",
        "Request heads that a shard reads at once; more wait to be accepted",
        |d, t| d.config.websocket.handshakes_max = number(t, 1..=100_000)?,
        |c| c.websocket.handshakes_max,
        Live
    ),
    setting!(
        "websocket.send_buffer_bytes",
        "32KiB",
        "a size from 4KiB to 16MiB",
        "32KiB",
        "SO_SNDBUF of client sockets (the kernel doubles it)",
        |d, t| d.config.websocket.send_buffer_bytes = size(t, 4 << 10, 16 << 20)?,
        |c| c.websocket.send_buffer_bytes
    ),
    setting!(
        "websocket.receive_buffer_bytes",
        "32KiB",
        "a size from 4KiB to 16MiB",
        "32KiB",
        "SO_RCVBUF of client sockets (the kernel doubles it)",
        |d, t| d.config.websocket.receive_buffer_bytes = size(t, 4 << 10, 16 << 20)?,
        |c| c.websocket.receive_buffer_bytes
    ),
];
