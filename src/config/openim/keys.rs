//! The keys of OpenIM's files and what becomes of them (spec 11.3, traps 34 and 36): one table.
//!
//! Not here: listeners and ports, which several keys decide together (`ports`), and the discovery in use (`folder`).

use super::files::File;
use crate::limits::{GRPC_MESSAGE_BYTES_MAX, WEBHOOK_TIMEOUT_MS_MAX};

/// A key of a file. A key that ends in `.*` stands for all below it.
pub(super) struct Key {
    pub(super) file: File,
    pub(super) key: &'static str,
    pub(super) meaning: Meaning,
}

/// What becomes of a value.
pub(super) enum Meaning {
    /// It is the text of that setting.
    Setting(&'static str),
    /// That setting gets what the function makes of it: `Ok(None)` is as if the key was not there, `Err` says what was
    /// expected.
    Converted(&'static str, fn(&str) -> Result<Option<String>, &'static str>),
    /// `ports` and `folder` read it.
    Combined,
    /// Nothing; says why.
    Unused(&'static str),
    /// Nothing, and only worth a word unless it is this; says why.
    Fixed(usize, &'static str),
}

impl Key {
    /// The key of a file, in any case; `None`: nobody knows it.
    pub(super) fn find(file: File, key: &str) -> Option<&'static Self> {
        KEYS.iter().find(|known| known.file == file && known.stands_for(key))
    }

    fn stands_for(&self, key: &str) -> bool {
        match self.key.strip_suffix('*') {
            Some(prefix) => key.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix)),
            None => self.key.eq_ignore_ascii_case(key),
        }
    }
}

const OWN_LIMITS: &str = "Pinion has its own limits: requests.*, websocket.*, upstream.*";
const NO_EFFECT: &str = "it has no effect in OpenIM either; a message may have 51200 bytes";
const OTHERS: &str = "a gateway does not call these services";
const AUTH_DECIDES: &str = "the auth service decides it";
const LOG_FILES: &str = "Pinion logs to standard error; whoever starts it keeps the lines";
const OWN_REDIS: &str = "Pinion's connections to Redis are few and fixed in number";
const OWN_DEADLINE: &str = "the deadlines of a login are fixed";
const BODY_SIZE: &str = "a gRPC message may have 8388608 bytes, both ways";
const OUTCOME: &str = "what the receiver answers changes nothing";
const NICKNAMES: &str = "a gateway has no use for names of admins";

const fn setting(file: File, key: &'static str, setting: &'static str) -> Key {
    Key { file, key, meaning: Meaning::Setting(setting) }
}

const fn converted(
    file: File,
    key: &'static str,
    setting: &'static str,
    convert: fn(&str) -> Result<Option<String>, &'static str>,
) -> Key {
    Key { file, key, meaning: Meaning::Converted(setting, convert) }
}

const fn combined(file: File, key: &'static str) -> Key {
    Key { file, key, meaning: Meaning::Combined }
}

const fn unused(file: File, key: &'static str, why: &'static str) -> Key {
    Key { file, key, meaning: Meaning::Unused(why) }
}

const fn fixed(file: File, key: &'static str, good: usize, why: &'static str) -> Key {
    Key { file, key, meaning: Meaning::Fixed(good, why) }
}

/// Every key that a gateway of OpenIM reads.
const KEYS: &[Key] = &[
    combined(File::Gateway, "listenIP"),
    combined(File::Gateway, "rpc.autoSetPorts"),
    combined(File::Gateway, "rpc.ports"),
    combined(File::Gateway, "prometheus.enable"),
    combined(File::Gateway, "prometheus.ports"),
    combined(File::Gateway, "longConnSvr.ports"),
    converted(File::Gateway, "rpc.registerIP", "discovery.register_ip", unless_empty),
    converted(File::Gateway, "longConnSvr.websocketMaxConnNum", "websocket.connections_max", connections),
    unused(File::Gateway, "longConnSvr.websocketMaxMsgLen", NO_EFFECT),
    unused(File::Gateway, "longConnSvr.websocketTimeout", OWN_DEADLINE),
    unused(File::Gateway, "ratelimiter.*", OWN_LIMITS),
    unused(File::Gateway, "circuitBreaker.*", OWN_LIMITS),
    setting(File::Share, "secret", "auth.secret"),
    setting(File::Share, "imAdminUserID", "auth.admin_users"),
    setting(File::Share, "imAdminUser.userIDs", "auth.admin_users"),
    unused(File::Share, "imAdminUser.nicknames", NICKNAMES),
    setting(File::Share, "multiLogin.policy", "login.policy"),
    unused(File::Share, "multiLogin.maxNumOneEnd", AUTH_DECIDES),
    fixed(File::Share, "rpcMaxBodySize.requestMaxBodySize", GRPC_MESSAGE_BYTES_MAX, BODY_SIZE),
    fixed(File::Share, "rpcMaxBodySize.responseMaxBodySize", GRPC_MESSAGE_BYTES_MAX, BODY_SIZE),
    setting(File::Share, "rpcRegisterName.auth", "discovery.service_auth"),
    setting(File::Share, "rpcRegisterName.user", "discovery.service_user"),
    setting(File::Share, "rpcRegisterName.msg", "discovery.service_msg"),
    setting(File::Share, "rpcRegisterName.push", "discovery.service_push"),
    setting(File::Share, "rpcRegisterName.messageGateway", "discovery.service_gateway"),
    unused(File::Share, "rpcRegisterName.*", OTHERS),
    combined(File::Discovery, "enable"),
    setting(File::Discovery, "etcd.rootDirectory", "discovery.etcd_root"),
    setting(File::Discovery, "etcd.address", "discovery.etcd_addresses"),
    setting(File::Discovery, "etcd.username", "discovery.etcd_username"),
    setting(File::Discovery, "etcd.password", "discovery.etcd_password"),
    converted(File::Discovery, "kubernetes.namespace", "discovery.namespace", unless_empty),
    setting(File::Discovery, "rpcService.auth", "discovery.service_auth"),
    setting(File::Discovery, "rpcService.user", "discovery.service_user"),
    setting(File::Discovery, "rpcService.msg", "discovery.service_msg"),
    setting(File::Discovery, "rpcService.push", "discovery.service_push"),
    setting(File::Discovery, "rpcService.messageGateway", "discovery.service_gateway"),
    unused(File::Discovery, "rpcService.*", OTHERS),
    setting(File::Redis, "address", "redis.addresses"),
    setting(File::Redis, "username", "redis.username"),
    setting(File::Redis, "password", "redis.password"),
    converted(File::Redis, "redisMode", "redis.mode", unless_empty),
    setting(File::Redis, "db", "redis.db"),
    setting(File::Redis, "sentinelMode.masterName", "redis.master_name"),
    setting(File::Redis, "sentinelMode.sentinelsAddrs", "redis.sentinel_addresses"),
    unused(File::Redis, "sentinelMode.*", OWN_REDIS),
    unused(File::Redis, "maxRetry", OWN_REDIS),
    unused(File::Redis, "poolSize", OWN_REDIS),
    setting(File::Webhooks, "url", "webhooks.url"),
    setting(File::Webhooks, "afterUserOnline.enable", "webhooks.online"),
    converted(File::Webhooks, "afterUserOnline.timeout", "webhooks.online_timeout_ms", seconds),
    setting(File::Webhooks, "afterUserOffline.enable", "webhooks.offline"),
    converted(File::Webhooks, "afterUserOffline.timeout", "webhooks.offline_timeout_ms", seconds),
    setting(File::Webhooks, "afterUserKickOff.enable", "webhooks.kick_off"),
    converted(File::Webhooks, "afterUserKickOff.timeout", "webhooks.kick_off_timeout_ms", seconds),
    converted(File::Log, "remainLogLevel", "log.level", log_level),
    converted(File::Log, "isJson", "log.format", log_format),
    unused(File::Log, "storageLocation", LOG_FILES),
    unused(File::Log, "rotationTime", LOG_FILES),
    unused(File::Log, "remainRotationCount", LOG_FILES),
    unused(File::Log, "isStdout", LOG_FILES),
    unused(File::Log, "isSimplify", LOG_FILES),
    combined(File::Whole, "envs.discovery"),
    combined(File::Whole, "rpc.listenIP"),
    combined(File::Whole, "longConnSvr.openImWsPort"),
    combined(File::Whole, "longConnSvr.openImMessageGatewayPort"),
    combined(File::Whole, "rpcPort.openImMessageGatewayPort"),
    combined(File::Whole, "prometheus.enable"),
    combined(File::Whole, "prometheus.messageGatewayPrometheusPort"),
    converted(File::Whole, "rpc.registerIP", "discovery.register_ip", unless_empty),
    converted(File::Whole, "longConnSvr.websocketMaxConnNum", "websocket.connections_max", connections),
    unused(File::Whole, "longConnSvr.websocketMaxMsgLen", NO_EFFECT),
    unused(File::Whole, "longConnSvr.websocketTimeout", OWN_DEADLINE),
    setting(File::Whole, "secret", "auth.secret"),
    setting(File::Whole, "manager.userID", "auth.admin_users"),
    setting(File::Whole, "multiLoginPolicy", "login.policy"),
    unused(File::Whole, "tokenPolicy.expire", AUTH_DECIDES),
    setting(File::Whole, "rpcRegisterName.openImAuthName", "discovery.service_auth"),
    setting(File::Whole, "rpcRegisterName.openImUserName", "discovery.service_user"),
    setting(File::Whole, "rpcRegisterName.openImMsgName", "discovery.service_msg"),
    setting(File::Whole, "rpcRegisterName.openImPushName", "discovery.service_push"),
    setting(File::Whole, "rpcRegisterName.openImMessageGatewayName", "discovery.service_gateway"),
    setting(File::Whole, "redis.address", "redis.addresses"),
    setting(File::Whole, "redis.username", "redis.username"),
    setting(File::Whole, "redis.password", "redis.password"),
    setting(File::Whole, "callback.url", "webhooks.url"),
    setting(File::Whole, "callback.userOnline.enable", "webhooks.online"),
    converted(File::Whole, "callback.userOnline.timeout", "webhooks.online_timeout_ms", seconds),
    unused(File::Whole, "callback.userOnline.failedContinue", OUTCOME),
    setting(File::Whole, "callback.userOffline.enable", "webhooks.offline"),
    converted(File::Whole, "callback.userOffline.timeout", "webhooks.offline_timeout_ms", seconds),
    unused(File::Whole, "callback.userOffline.failedContinue", OUTCOME),
    setting(File::Whole, "callback.userKickOff.enable", "webhooks.kick_off"),
    converted(File::Whole, "callback.userKickOff.timeout", "webhooks.kick_off_timeout_ms", seconds),
    unused(File::Whole, "callback.userKickOff.failedContinue", OUTCOME),
    converted(File::Whole, "log.remainLogLevel", "log.level", log_level),
    converted(File::Whole, "log.isJson", "log.format", log_format),
    unused(File::Whole, "log.*", LOG_FILES),
];

fn unless_empty(text: &str) -> Result<Option<String>, &'static str> {
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// OpenIM ships 100000, which nobody chose: as many of them as the open-file limit allows.
fn connections(text: &str) -> Result<Option<String>, &'static str> {
    Ok((text != "100000").then(|| text.to_owned()))
}

/// OpenIM counts in seconds, and its client gives up at the most that we take.
fn seconds(text: &str) -> Result<Option<String>, &'static str> {
    match text.parse::<u32>() {
        Ok(seconds) => Ok(Some((u64::from(seconds) * 1_000).min(WEBHOOK_TIMEOUT_MS_MAX).to_string())),
        Err(_) => Err("expected a number of seconds"),
    }
}

/// Spec 11.5: 0 fatal, 1 panic, 2 error, 3 warn, 4 info, 5 debug, 6 debug with SQL.
fn log_level(text: &str) -> Result<Option<String>, &'static str> {
    let level = match text {
        "0" | "1" | "2" => "error",
        "3" => "warn",
        "4" => "info",
        "5" | "6" => "debug",
        _ => return Err("expected a level from 0 (fatal) to 6 (debug)"),
    };
    Ok(Some(level.to_owned()))
}

fn log_format(text: &str) -> Result<Option<String>, &'static str> {
    match text {
        "true" => Ok(Some("json".to_owned())),
        "false" => Ok(Some("text".to_owned())),
        _ => Err("expected true or false"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::settings::setting;
    use super::*;

    #[test]
    fn each_key_names_a_setting_that_there_is_and_is_found() {
        for known in KEYS {
            if let Meaning::Setting(key) | Meaning::Converted(key, _) = known.meaning {
                assert!(setting(key).is_some(), "{key}");
            }
            let written = known.key.replace('*', "anything").to_uppercase();
            let found = Key::find(known.file, &written).unwrap();
            assert_eq!((found.file, found.key), (known.file, known.key), "hidden by an earlier row");
        }
        assert!(Key::find(File::Share, "secrets").is_none() && Key::find(File::Log, "secret").is_none());
    }

    #[test]
    fn levels_formats_and_times_become_ours() {
        let level = |text| log_level(text).map(Option::unwrap_or_default);
        for (text, want) in
            [("0", "error"), ("1", "error"), ("2", "error"), ("3", "warn"), ("4", "info"), ("5", "debug")]
        {
            assert_eq!(level(text).as_deref(), Ok(want));
        }
        assert_eq!(level("6").as_deref(), Ok("debug"));
        assert!(level("7").is_err() && level("").is_err() && level("info").is_err());
        assert_eq!(log_format("true"), Ok(Some("json".into())));
        assert_eq!(log_format("false"), Ok(Some("text".into())));
        assert!(log_format("yes").is_err());
        assert_eq!(seconds("5"), Ok(Some("5000".into())));
        assert_eq!((seconds("15"), seconds("16")), (Ok(Some("15000".into())), Ok(Some("15000".into()))));
        assert!(seconds("5s").is_err() && seconds("-1").is_err());
        assert_eq!((connections("100000"), connections("5")), (Ok(None), Ok(Some("5".into()))));
        assert_eq!((unless_empty(""), unless_empty("x")), (Ok(None), Ok(Some("x".into()))));
    }
}
