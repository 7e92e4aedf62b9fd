//! The settings of the threads, of sessions and of what is written down; the third part of the table.

use super::{AUTO, DEFAULT_SECRET, Reload, Setting, Visibility, auto, name_of, named, size};
use crate::config::levels::Levels;
use crate::config::value::{boolean, bytes, key_pair, millis, names, number};
use crate::config::{Driver, Engine, RecordMode, UserNames};
use crate::limits;

const ENGINES: [(&str, Engine); 3] = [("auto", Engine::Auto), ("ring", Engine::Ring), ("task", Engine::Task)];
const DRIVERS: [(&str, Driver); 3] =
    [("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];
const RECORD_MODES: [(&str, RecordMode); 3] =
    [("off", RecordMode::Off), ("shape", RecordMode::Shape), ("full", RecordMode::Full)];
const LOG_USERS: [(&str, UserNames); 2] = [("plain", UserNames::Plain), ("hashed", UserNames::Hashed)];
const LOG_FORMATS: [(&str, bool); 2] = [("text", false), ("json", true)];

fn rate(text: &str, least: u32) -> Option<u32> {
    u32::try_from(bytes(text, u64::from(least)..=u64::from(limits::REQUEST_RATE_MAX))?).ok()
}

/// `shards.*`, `auth.*`, `login.*`, `outbox.*`, `requests.*`, `drain.*`, `stall.*`, `record.*` and `log.*`.
pub(super) const NODE: &[Setting] = &[
    setting!(
        "shards.count",
        AUTO,
        "`auto` or a number from 1 to 1024",
        "4",
        "Shard threads; auto = one per CPU, less the rpc threads from 4 CPUs up",
        |d, t| d.shards = auto(t, |t| number(t, 1..=1024))?,
        |c| c.shards.count
    ),
    setting!(
        "shards.rpc_count",
        AUTO,
        "`auto` or a number from 1 to 128",
        "1",
        "rpc threads; auto = one per 8 shards",
        |d, t| d.rpcs = auto(t, |t| number(t, 1..=128))?,
        |c| c.shards.rpc_count
    ),
    setting!(
        "shards.pin",
        AUTO,
        "`auto`, `true` or `false`",
        "true",
        "Pin shard i to the i-th CPU of the set; auto = unless a cgroup quota is smaller than the set",
        |d, t| d.pin = auto(t, boolean)?,
        |c| c.shards.pin
    ),
    setting!(
        "shards.huge_pages",
        "false",
        "`true` or `false`",
        "true",
        "Let memory come in transparent huge pages of 2 MiB: tens of MiB more, fewer misses of the address cache",
        |d, t| d.config.shards.huge_pages = boolean(t)?,
        |c| c.shards.huge_pages
    ),
    setting!(
        "shards.driver",
        "auto",
        "`auto`, `io_uring` or `epoll`",
        "auto",
        "What waits for sockets; auto = io_uring if the kernel lets us, else epoll",
        |d, t| d.config.shards.driver = named(t, &DRIVERS)?,
        |c| name_of(c.shards.driver, &DRIVERS)
    ),
    setting!(
        "shards.engine",
        "auto",
        "`auto`, `ring` or `task`",
        "task",
        "What moves the bytes of clients: an own io_uring or a task per connection; auto = ring where the driver and kernel allow it",
        |d, t| d.config.shards.engine = named(t, &ENGINES)?,
        |c| name_of(c.shards.engine, &ENGINES)
    ),
    setting!(
        "shards.owner_key",
        "random",
        "`random` or two hexadecimal numbers of 64 bits joined by a colon",
        "1f:2e",
        "Key of the hash that gives users to shards; give it in tests only",
        |d, t| d.owner_key = if t == "random" { None } else { Some(key_pair(t)?) },
        |c| format!("{:x}:{:x}", c.shards.owner_key[0], c.shards.owner_key[1]),
        Secret
    ),
    setting!(
        "auth.secret",
        DEFAULT_SECRET,
        "a secret that is not empty",
        "the `secret` of OpenIM's share.yml",
        "Key that tokens are signed with; prefer file or environment, flags show in the process list",
        |d, t| d.config.auth.secret = (!t.is_empty()).then(|| t.to_owned())?,
        |c| c.auth.secret,
        Secret
    ),
    setting!(
        "auth.admin_users",
        "imAdmin",
        "user ids joined by commas",
        "imAdmin",
        "Who may ask for the online status of users over gRPC",
        |d, t| d.config.auth.admin_users = names(t)?,
        |c| c.auth.admin_users.join(","),
        Live
    ),
    setting!(
        "login.policy",
        "1",
        "0, 1, 4 or 5",
        "1",
        "Which older logins a login ends (OpenIM's multiLogin.policy)",
        |d, t| d.config.login_policy = named(t, &[("0", 0), ("1", 1), ("4", 4), ("5", 5)])?,
        |c| c.login_policy,
        Live
    ),
    setting!(
        "login.lenient",
        "false",
        "`true` or `false`",
        "false",
        "Accept logins without operationID and isBackground, as OpenIM did up to 3.8.3-patch.13",
        |d, t| d.config.lenient = boolean(t)?,
        |c| c.lenient,
        Live
    ),
    setting!(
        "login.connections_per_user_max",
        "64",
        "a number from 1 to 100000",
        "64",
        "Most connections of one user that a login leaves; more get 503",
        |d, t| d.config.admission.user_connections_max = number(t, 1..=100_000)?,
        |c| c.admission.user_connections_max,
        Live
    ),
    setting!(
        "login.spread_ms",
        "2s",
        "a time from 0 to 5s (0 = off; plain number = milliseconds)",
        "2s",
        "In a storm of logins a 101 waits a random time, at most this",
        |d, t| d.config.admission.spread_ms = millis(t, 0..=5_000)?,
        |c| c.admission.spread_ms,
        Live
    ),
    setting!(
        "login.spread_above_per_second",
        "2000",
        "a number from 1 to 1000000",
        "2000",
        "Logins per second and shard that are no storm",
        |d, t| d.config.admission.spread_above_per_second = number(t, 1..=1_000_000)?,
        |c| c.admission.spread_above_per_second,
        Live
    ),
    setting!(
        "outbox.bytes_max",
        "2MiB",
        "a size from 1025KiB to 64MiB",
        "2MiB",
        "Bytes that may wait for one connection; more: it is closed as a slow consumer",
        |d, t| d.config.outbox_bytes_max = size(t, limits::FRAME_SENT_BYTES_MAX + 1024, 64 << 20)?,
        |c| c.outbox_bytes_max,
        Live
    ),
    setting!(
        "outbox.frames_max",
        "256",
        "a number from 16 to 65536",
        "256",
        "Frames that may wait for one connection; more: it is closed as a slow consumer",
        |d, t| d.config.outbox_frames_max = number(t, 16..=65_536)?,
        |c| c.outbox_frames_max,
        Live
    ),
    setting!(
        "outbox.shard_bytes_max",
        "256MiB",
        "a size from 4MiB to 64GiB",
        "256MiB",
        "Bytes that may wait for all connections of a shard",
        |d, t| d.config.shard_outbox_bytes_max = size(t, 4 << 20, 64 << 30)?,
        |c| c.shard_outbox_bytes_max
    ),
    setting!(
        "requests.frames_per_s",
        "2000",
        "a number from 10 to 1000000",
        "1000",
        "Frames of one connection per second, 4 seconds' worth in a burst; more: it is closed",
        |d, t| d.config.rates.frames = number(t, 10..=1_000_000)?,
        |c| c.rates.frames,
        Live
    ),
    setting!(
        "requests.bytes_per_s",
        "4MiB",
        "a size from 64KiB to 64MiB",
        "4MiB",
        "Bytes from one connection per second, 4 seconds' worth in a burst; more: it is closed",
        |d, t| d.config.rates.bytes = rate(t, 64 << 10)?,
        |c| c.rates.bytes,
        Live
    ),
    setting!(
        "requests.inflated_bytes_per_s",
        "16MiB",
        "a size from 1MiB to 64MiB",
        "16MiB",
        "As requests.bytes_per_s, after gunzip",
        |d, t| d.config.rates.inflated = rate(t, 1 << 20)?,
        |c| c.rates.inflated,
        Live
    ),
    setting!(
        "requests.calls_per_s",
        "500",
        "a number from 1 to 1000000",
        "500",
        "Requests of one connection that upstream must answer, per second; more get an error at once",
        |d, t| d.config.rates.calls = number(t, 1..=1_000_000)?,
        |c| c.rates.calls,
        Live
    ),
    setting!(
        "drain.deadline_ms",
        "10s",
        "a time from 0 to 3600s (plain number = milliseconds)",
        "10s",
        "After SIGTERM all connections are closed within this time",
        |d, t| d.config.drain_deadline_ms = millis(t, 0..=3_600_000)?,
        |c| c.drain_deadline_ms,
        Live
    ),
    setting!(
        "drain.evict_per_s",
        AUTO,
        "`auto` or a number from 1 to 100000",
        "200",
        "At most so many connections are closed per second by POST /v1/drain; auto: half of what the other members \
         accept, 500 where none is known",
        |d, t| d.config.drain_evict_per_s = auto(t, |t| number(t, 1..=limits::DRAIN_EVICT_PER_S_MAX))?,
        |c| c.drain_evict_per_s.map_or_else(|| AUTO.to_owned(), |n| n.to_string()),
        Live
    ),
    setting!(
        "stall.abort_ms",
        "15s",
        "a time from 2s to 3600s (plain number = milliseconds)",
        "15s",
        "A shard that does not turn for so long ends the process, for the supervisor to restart",
        |d, t| d.config.stall_abort_ms = millis(t, 2 * limits::STALL_REPORT_MS..=3_600_000)?,
        |c| c.stall_abort_ms,
        Live
    ),
    setting!(
        "record.mode",
        "off",
        "`off`, `shape` or `full`",
        "shape",
        "Record the inputs of shards; shape: no bodies, no tokens; full: raw bytes, tokens included",
        |d, t| d.config.record.mode = named(t, &RECORD_MODES)?,
        |c| name_of(c.record.mode, &RECORD_MODES)
    ),
    setting!(
        "record.dir",
        "recordings",
        "the path of a directory",
        "/var/lib/pinion/recordings",
        "Where recordings go, one file per shard, readable by the owner only",
        |d, t| d.config.record.dir = (!t.is_empty()).then(|| t.into())?,
        |c| c.record.dir.display()
    ),
    setting!(
        "record.bytes_max",
        "256MiB",
        "a size from 64KiB to 1024GiB",
        "256MiB",
        "A shard's recording stops there",
        |d, t| d.config.record.bytes_max = bytes(t, 64 << 10..=1 << 40)?,
        |c| c.record.bytes_max
    ),
    setting!(
        "log.level",
        "info",
        "`off`, `error`, `warn`, `info`, `debug` or `trace`; behind it, joined by commas, exceptions like pinion::rpc=debug",
        "info,pinion::rpc=debug",
        "Least severe lines that are logged",
        |d, t| d.config.log.level = Levels::parse(t).ok()?.text,
        |c| c.log.level,
        Live
    ),
    setting!(
        "log.format",
        "text",
        "`text` or `json`",
        "json",
        "How lines are logged, on standard error",
        |d, t| d.config.log.json = named(t, &LOG_FORMATS)?,
        |c| name_of(c.log.json, &LOG_FORMATS)
    ),
    setting!(
        "log.users",
        "plain",
        "`plain` or `hashed`",
        "hashed",
        "How users appear in the log; hashed: with a key drawn at start",
        |d, t| d.config.log.users = named(t, &LOG_USERS)?,
        |c| name_of(c.log.users, &LOG_USERS),
        Live
    ),
];
