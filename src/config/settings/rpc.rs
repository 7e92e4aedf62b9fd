//! The settings of callers and operators; the second part of the table.

use super::{Reload, Setting, Visibility, networks, networks_text, path, path_text, size};
use crate::config::value::{Token, boolean, millis, number, optional};
use crate::limits;

/// The word for no `rpc.allow`.
const ANY_SOURCE: &str = "any";

/// `rpc.*` and `http.*`.
pub(super) const RPC: &[Setting] = &[
    setting!(
        "rpc.listen",
        "127.0.0.1:10140",
        "an IP address and port (port 0 = any free one)",
        "127.0.0.1:10140",
        "Where gRPC listens; anybody who reaches it may push, kick and read tokens unless rpc.allow, rpc.token or \
         rpc.tls_client_ca says otherwise",
        |d, t| d.config.rpc.listen = t.parse().ok()?,
        |c| c.rpc.listen
    ),
    setting!(
        "rpc.legacy_service",
        "false",
        "`true` or `false`",
        "true",
        "Also serve the push API under its name in OpenIM 3.5 and 3.6",
        |d, t| d.config.rpc.legacy_service = boolean(t)?,
        |c| c.rpc.legacy_service
    ),
    setting!(
        "rpc.connections_max",
        "1024",
        "a number from 1 to 100000",
        "256",
        "gRPC connections of an rpc thread; more are closed",
        |d, t| d.config.rpc.limits.connections_max = number(t, 1..=100_000)?,
        |c| c.rpc.limits.connections_max,
        Live
    ),
    setting!(
        "rpc.address_connections_max",
        "512",
        "a number from 0 to 100000 (0 = any number)",
        "64",
        "gRPC connections of one source address and rpc thread; more are closed",
        |d, t| d.config.rpc.limits.address_connections_max = number(t, 0..=100_000)?,
        |c| c.rpc.limits.address_connections_max,
        Live
    ),
    setting!(
        "rpc.streams_max",
        "1024",
        "a number from 1 to 65536",
        "256",
        "Calls that one gRPC connection has open; more are refused with REFUSED_STREAM",
        |d, t| d.config.rpc.limits.streams_max = number(t, 1..=65_536)?,
        |c| c.rpc.limits.streams_max,
        Live
    ),
    setting!(
        "rpc.header_list_bytes",
        "16KiB",
        "a size from 1KiB to 1MiB",
        "32KiB",
        "Metadata of one gRPC call; more gets HTTP status 431",
        |d, t| d.config.rpc.limits.header_list_bytes = u32::try_from(size(t, 1 << 10, 1 << 20)?).ok()?,
        |c| c.rpc.limits.header_list_bytes,
        Live
    ),
    setting!(
        "rpc.send_buffer_bytes",
        "64KiB",
        "a size from 16KiB to 16MiB",
        "256KiB",
        "Bytes of an answer buffered for a gRPC caller that does not read",
        |d, t| d.config.rpc.limits.send_buffer_bytes = size(t, 16 << 10, 16 << 20)?,
        |c| c.rpc.limits.send_buffer_bytes,
        Live
    ),
    setting!(
        "rpc.send_deadline_ms",
        "20s",
        "a time from 100ms to 600s",
        "5s",
        "A gRPC connection that takes no byte of what waits for it for so long is closed",
        |d, t| d.config.rpc.limits.send_deadline_ms = millis(t, 100..=600_000)?,
        |c| c.rpc.limits.send_deadline_ms,
        Live
    ),
    setting!(
        "rpc.control_frames_per_s",
        "20000",
        "a number from 10 to 100000000",
        "5000",
        "HTTP/2 frames of a gRPC connection that are no work (PING, SETTINGS ..); beyond a burst it is closed",
        |d, t| d.config.rpc.limits.control_frames_per_s = number(t, 10..=limits::H2_RATE_MAX)?,
        |c| c.rpc.limits.control_frames_per_s,
        Live
    ),
    setting!(
        "rpc.resets_per_s",
        "5000",
        "a number from 10 to 100000000",
        "1000",
        "Calls that a gRPC connection cancels; beyond a burst it is closed",
        |d, t| d.config.rpc.limits.resets_per_s = number(t, 10..=limits::H2_RATE_MAX)?,
        |c| c.rpc.limits.resets_per_s,
        Live
    ),
    setting!(
        "rpc.allow",
        ANY_SOURCE,
        "`any` or at most 256 networks joined by commas, like 10.0.0.0/8",
        "10.0.0.0/8,2001:db8::/32",
        "Who may connect to the gRPC port; others are cut before a byte is read",
        |d, t| d.config.rpc.allow = networks(t, ANY_SOURCE, limits::RPC_NETWORKS_MAX)?,
        |c| networks_text(&c.rpc.allow, ANY_SOURCE),
        Live
    ),
    setting!(
        "rpc.token",
        "",
        "16 to 512 visible ASCII characters without blanks, or nothing",
        "0123456789abcdef",
        "What gRPC callers, other nodes among them, must send as bearer token (health checks need none); readable on the \
         way without TLS; a reload counts for calls and links after it",
        |d, t| d.config.rpc.token = optional(t, Token::parse)?,
        |c| c.rpc.token.as_ref().map(Token::secret).unwrap_or_default(),
        Secret,
        Live
    ),
    setting!(
        "rpc.tls_cert",
        "",
        "the path of a PEM file, or nothing",
        "/etc/pinion/tls.crt",
        "The gateway's certificate, then those between it and its CA; gRPC is then served over TLS only",
        |d, t| d.config.rpc.tls_cert = optional(t, path)?,
        |c| path_text(c.rpc.tls_cert.as_ref()),
        Live
    ),
    setting!(
        "rpc.tls_key",
        "",
        "the path of a PEM file, or nothing",
        "/etc/pinion/tls.key",
        "The private key of rpc.tls_cert, not encrypted; the files are read at start and at each reload",
        |d, t| d.config.rpc.tls_key = optional(t, path)?,
        |c| path_text(c.rpc.tls_key.as_ref()),
        Live
    ),
    setting!(
        "rpc.tls_client_ca",
        "",
        "the path of a PEM file, or nothing",
        "/etc/pinion/clients-ca.crt",
        "gRPC callers must show a certificate signed by one of these CAs; empty: none is asked for",
        |d, t| d.config.rpc.tls_client_ca = optional(t, path)?,
        |c| path_text(c.rpc.tls_client_ca.as_ref()),
        Live
    ),
    setting!(
        "http.listen",
        "127.0.0.1:12140",
        "an IP address and port (port 0 = any free one)",
        "127.0.0.1:12140",
        "Where health and metrics are served",
        |d, t| d.config.http_listen = t.parse().ok()?,
        |c| c.http_listen
    ),
    setting!(
        "http.token",
        "",
        "16 to 512 visible ASCII characters without blanks, or nothing",
        "0123456789abcdef",
        "What callers from other machines send as bearer token to ask /v1/*; without one they are refused",
        |d, t| d.config.http_token = optional(t, Token::parse)?,
        |c| c.http_token.as_ref().map(Token::secret).unwrap_or_default(),
        Secret,
        Live
    ),
];
