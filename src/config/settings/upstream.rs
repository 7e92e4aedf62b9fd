//! The settings of what is around OpenIM: Redis, webhooks, presence and calls; the fifth part of the table.

use super::openim::{ENDPOINTS_OR_NONE, PEM, SWITCH, TEXT, text_or_none};
use super::{Reload, Setting, Visibility, name_of, named, path, path_text};
use crate::config::openim::RedisMode;
use crate::config::value::{Endpoint, Secret, boolean, millis, number, optional, web_url};
use crate::limits;

const ENDPOINTS: &str = "at least one host:port, several joined by commas";
const TIMEOUT: &str = "a time from 1ms to 15s (plain number = milliseconds)";

fn web_url_or_none(text: &str) -> Option<String> {
    if text.is_empty() { Some(String::new()) } else { web_url(text) }
}

fn timeout(text: &str) -> Option<u64> {
    millis(text, 1..=limits::WEBHOOK_TIMEOUT_MS_MAX)
}

/// `redis.*`, `webhooks.*`, `presence.*` and `upstream.*`: they count with `backend: openim` only.
pub(super) const UPSTREAM: &[Setting] = &[
    setting!(
        "redis.mode",
        "standalone",
        "`standalone`, `cluster` or `sentinel`",
        "cluster",
        "What Redis is",
        |d, t| d.config.openim.redis.mode = named(t, &RedisMode::NAMES)?,
        |c| name_of(c.openim.redis.mode, &RedisMode::NAMES)
    ),
    setting!(
        "redis.addresses",
        "localhost:16379",
        ENDPOINTS,
        "redis:6379",
        "Where Redis is, or some nodes of its cluster",
        |d, t| d.config.openim.redis.addresses = Endpoint::list(t)?,
        |c| Endpoint::listed(&c.openim.redis.addresses)
    ),
    setting!(
        "redis.username",
        "",
        TEXT,
        "gateway",
        "User of Redis (from version 6)",
        |d, t| d.config.openim.redis.username = text_or_none(t)?,
        |c| c.openim.redis.username
    ),
    setting!(
        "redis.password",
        "",
        "a password, or nothing",
        "the password of OpenIM's redis.yml",
        "Password of Redis",
        |d, t| d.config.openim.redis.password = Secret::new(t),
        |c| c.openim.redis.password.secret(),
        Secret
    ),
    setting!(
        "redis.db",
        "0",
        "a number from 0 to 65535",
        "0",
        "Database of Redis",
        |d, t| d.config.openim.redis.db = number(t, 0..=u16::MAX)?,
        |c| c.openim.redis.db
    ),
    setting!(
        "redis.master_name",
        "",
        TEXT,
        "redis-master",
        "Name of the master, for sentinels",
        |d, t| d.config.openim.redis.master_name = text_or_none(t)?,
        |c| c.openim.redis.master_name
    ),
    setting!(
        "redis.sentinel_addresses",
        "",
        ENDPOINTS_OR_NONE,
        "sentinel-0:26379,sentinel-1:26379",
        "Where the sentinels are",
        |d, t| d.config.openim.redis.sentinel_addresses = Endpoint::list_or_none(t)?,
        |c| Endpoint::listed(&c.openim.redis.sentinel_addresses)
    ),
    setting!(
        "webhooks.url",
        "",
        "a URL that begins with http:// or https://, or nothing",
        "http://127.0.0.1:10006/callbackExample",
        "Where webhooks are sent; the name of the event is added as last part of the path",
        |d, t| d.config.openim.webhooks.url = web_url_or_none(t)?,
        |c| c.openim.webhooks.url,
        Live
    ),
    setting!(
        "webhooks.ca",
        "",
        PEM,
        "/etc/pinion/hooks-ca.crt",
        "Who signs the certificate of an https:// receiver; nothing: whom the system trusts",
        |d, t| d.config.openim.webhooks.ca = optional(t, path)?,
        |c| path_text(c.openim.webhooks.ca.as_ref()),
        Live
    ),
    setting!(
        "webhooks.renewals",
        "true",
        SWITCH,
        "false",
        "Send the webhook for users who are online again whenever their presence is renewed, as OpenIM does",
        |d, t| d.config.openim.webhooks.renewals = boolean(t)?,
        |c| c.openim.webhooks.renewals,
        Live
    ),
    setting!(
        "webhooks.online",
        "false",
        SWITCH,
        "true",
        "Send a webhook for each platform on which a user is online",
        |d, t| d.config.openim.webhooks.online.enabled = boolean(t)?,
        |c| c.openim.webhooks.online.enabled,
        Live
    ),
    setting!(
        "webhooks.online_timeout_ms",
        "5s",
        TIMEOUT,
        "5s",
        "An answer that takes longer is a failure",
        |d, t| d.config.openim.webhooks.online.timeout_ms = timeout(t)?,
        |c| c.openim.webhooks.online.timeout_ms,
        Live
    ),
    setting!(
        "webhooks.offline",
        "false",
        SWITCH,
        "true",
        "Send a webhook for each platform that a user has left",
        |d, t| d.config.openim.webhooks.offline.enabled = boolean(t)?,
        |c| c.openim.webhooks.offline.enabled,
        Live
    ),
    setting!(
        "webhooks.offline_timeout_ms",
        "5s",
        TIMEOUT,
        "5s",
        "As webhooks.online_timeout_ms",
        |d, t| d.config.openim.webhooks.offline.timeout_ms = timeout(t)?,
        |c| c.openim.webhooks.offline.timeout_ms,
        Live
    ),
    setting!(
        "webhooks.kick_off",
        "false",
        SWITCH,
        "true",
        "Send a webhook when a user was kicked",
        |d, t| d.config.openim.webhooks.kick_off.enabled = boolean(t)?,
        |c| c.openim.webhooks.kick_off.enabled,
        Live
    ),
    setting!(
        "webhooks.kick_off_timeout_ms",
        "5s",
        TIMEOUT,
        "5s",
        "As webhooks.online_timeout_ms",
        |d, t| d.config.openim.webhooks.kick_off.timeout_ms = timeout(t)?,
        |c| c.openim.webhooks.kick_off.timeout_ms,
        Live
    ),
    setting!(
        "presence.renewal_ms",
        "600s",
        "a time from 10s to 840s (plain number = milliseconds)",
        "600s",
        "Users who stay online are reported again this often; Redis forgets them after 1800s",
        |d, t| d.config.openim.presence.renewal_ms = millis(t, 10_000..=limits::PRESENCE_RENEWAL_MS_MAX)?,
        |c| c.openim.presence.renewal_ms
    ),
    setting!(
        "presence.batch_wait_ms",
        "1s",
        "a time from 10ms to 10s (plain number = milliseconds)",
        "250ms",
        "A change of presence waits so long for others to share its call",
        |d, t| d.config.openim.presence.batch_wait_ms = millis(t, 10..=10_000)?,
        |c| c.openim.presence.batch_wait_ms
    ),
    setting!(
        "upstream.deadline_ms",
        "10s",
        "a time from 100ms to 60s (plain number = milliseconds)",
        "5s",
        "A call of a service that took longer is answered with an error",
        |d, t| d.config.openim.upstream.deadline_ms = millis(t, 100..=60_000)?,
        |c| c.openim.upstream.deadline_ms,
        Live
    ),
    setting!(
        "upstream.in_flight_max",
        "8192",
        "a number from 1 to 65536",
        "1024",
        "Calls of one rpc thread that wait for one service; more get an error at once",
        |d, t| d.config.openim.upstream.in_flight_max = number(t, 1..=65_536)?,
        |c| c.openim.upstream.in_flight_max
    ),
];
