//! The command line: flags of settings come from the settings table, the rest is named here.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{dispatch, doctor, drain, orders, plan, proxy, replay, route, rpc, shards, trace, version, who};
use crate::config::{
    CONFIG_ENV, Planted, PlantedFault, PlantedPush, PlantedUpstream, Reload, SETTINGS, Sources, text_of,
};

pub(super) const PRINT_CONFIG: &str = "print-config";
pub(super) const PLANT_STALL: &str = "plant-stall";
const PLANT: &str = "plant";
const PLANT_UPSTREAM: &str = "plant-upstream";
const PLANT_PUSH: &str = "plant-push";
pub(super) const CONFIG: &str = "config";

/// The whole command line.
pub(super) fn command() -> Command {
    with_gateway_flags(Command::new("pinion"))
        .about("Long-connection gateway for OpenIM. Without a command it runs as `pinion gateway`.")
        .version(version::SHORT)
        .long_version(version::LONG)
        .disable_help_subcommand(true)
        // A flag before a command would be read by nobody.
        .args_conflicts_with_subcommands(true)
        .subcommand(with_gateway_flags(Command::new("gateway")).about("Run the gateway (the default)"))
        .subcommand(
            with_settings(Command::new("check"))
                .about("Judge a configuration without starting; prints every fault")
                .arg(print_config()),
        )
        .subcommand(token())
        .subcommand(listen())
        .subcommand(push())
        .subcommand(replay::command())
        .subcommand(dispatch::command())
        .subcommand(route::command())
        .subcommand(who::command())
        .subcommand(trace::command())
        .subcommand(shards::command())
        .subcommand(orders::reload_command())
        .subcommand(orders::log_level_command())
        .subcommand(drain::command())
        .subcommand(drain::adopt_command())
        .subcommand(drain::forget_command())
        .subcommand(doctor::command())
        .subcommand(plan::command())
        .subcommand(proxy::command())
}

fn with_gateway_flags(command: Command) -> Command {
    let hidden =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value).hide(true);
    with_settings(command)
        .arg(print_config())
        .arg(
            hidden(PLANT_STALL, "SHARD:MS")
                .help("Test switch: on SIGUSR2 this shard stalls for so long, or until the next one")
                .value_parser(stall),
        )
        .arg(
            hidden(PLANT, "FAULT")
                .help("Test switch: incident-1 or swapped-queues")
                .value_parser(PlantedFault::parse),
        )
        .arg(
            hidden(PLANT_UPSTREAM, "FAULT")
                .help("Test switch: slow:MS or dead:FROM_MS-TO_MS")
                .value_parser(PlantedUpstream::parse),
        )
        .arg(hidden(PLANT_PUSH, "FAULT").help("Test switch: unsliced").value_parser(PlantedPush::parse))
}

/// The test switches that travel with the configuration.
pub(super) fn planted(matches: &ArgMatches) -> Planted {
    Planted {
        fault: matches.get_one::<PlantedFault>(PLANT).copied(),
        upstream: matches.get_one::<PlantedUpstream>(PLANT_UPSTREAM).copied(),
        push: matches.get_one::<PlantedPush>(PLANT_PUSH).copied(),
    }
}

pub(super) fn print_config() -> Arg {
    Arg::new(PRINT_CONFIG)
        .long(PRINT_CONFIG)
        .action(ArgAction::SetTrue)
        .help("Print every setting with its value and where it came from, then end")
}

fn stall(text: &str) -> Result<(u16, u64), String> {
    let parse = || {
        let (shard, ms) = text.split_once(':')?;
        Some((shard.parse().ok()?, ms.parse().ok()?))
    };
    parse().ok_or_else(|| "expected SHARD:MS, for example 0:5000".to_owned())
}

/// `--config` and one flag per setting.
pub(super) fn with_settings(command: Command) -> Command {
    with_some_settings(command, |_| true)
}

/// As [`with_settings`], with flags of these settings only.
pub(super) fn with_some_settings(command: Command, wanted: impl Fn(&str) -> bool) -> Command {
    let file = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help(format!("Configuration file, YAML [env: {CONFIG_ENV}]"));
    let settings = SETTINGS.iter().filter(|setting| wanted(setting.key)).map(|setting| {
        let flag = Arg::new(setting.key)
            .long(setting.flag_name())
            .value_name("VALUE")
            .allow_negative_numbers(true)
            .help_heading("Settings (flag over environment over file; [reloads] = SIGHUP is enough)")
            .help(format!(
                "{} [default: {}] [env: {}]{}",
                setting.doc,
                setting.default,
                setting.env_name(),
                match setting.reload {
                    Reload::Live => " [reloads]",
                    Reload::Restart => "",
                }
            ));
        match setting.key {
            "openim.config_dir" => flag.visible_alias("openim-config"),
            // As OpenIM's own gateway has it.
            "openim.index" => flag.short('i'),
            // As `pinion route` has it.
            "cluster.members" => flag.visible_alias("members"),
            _ => flag,
        }
    });
    command.arg(file).args(settings)
}

/// What the flags and the environment say.
pub(super) fn sources(matches: &ArgMatches) -> Sources {
    let mut sources = Sources::from_env();
    if let Some(file) = matches.get_one::<PathBuf>(CONFIG) {
        sources.file = Some(file.clone());
    }
    let given = SETTINGS.iter().filter_map(|setting| {
        // A command may have some settings only.
        let text = matches.try_get_one::<String>(setting.key).ok().flatten()?;
        Some((setting.key, text.clone()))
    });
    sources.flags = given.collect();
    sources
}

/// For a process that is no node itself: a node's own name and address are asked of nobody, so they need not be known,
/// and a list of the nodes need not have a line for it.
pub(super) fn of_no_node(mut sources: Sources) -> Sources {
    // Faults of the sources are told when they are loaded.
    if text_of("cluster.source", &sources).is_ok_and(|text| text.as_deref() == Some("static")) {
        sources.flags.retain(|(given, _)| *given != "cluster.source");
        sources.flags.push(("cluster.source", "none".to_owned()));
    }
    for (key, text) in [("cluster.node_id", "none"), ("cluster.rpc_address", "localhost:1")] {
        if !sources.flags.iter().any(|(given, _)| *given == key) {
            sources.flags.push((key, text.to_owned()));
        }
    }
    sources
}

/// `--platform`.
pub(super) fn platform() -> Arg {
    Arg::new("platform").long("platform").value_name("ID|NAME").value_parser(platform_value)
}

/// A platform by id or name.
fn platform_value(text: &str) -> Result<crate::ids::Platform, String> {
    use crate::ids::Platform;
    let by_id = || Platform::new(text.parse().ok()?);
    let by_name = || Platform::all().find(|p| p.name().eq_ignore_ascii_case(text));
    by_id().or_else(by_name).ok_or_else(|| {
        let names: Vec<_> = Platform::all().map(|p| format!("{} {}", p.id(), p.name())).collect();
        format!("expected a platform, one of {}", names.join(", "))
    })
}

fn token() -> Command {
    with_settings(Command::new("token"))
        .about("Make a login token for the embedded backend, or for OpenIM if auth.secret is OpenIM's")
        .arg(required("user", "USER", "User id"))
        .arg(platform().required(true).help("Platform of the login, 1 to 11 or its name"))
        .arg(
            Arg::new("ttl")
                .long("ttl")
                .value_name("DAYS")
                .default_value("90")
                .value_parser(value_parser!(u32).range(1..=36_500))
                .help("Days until it expires"),
        )
}

fn listen() -> Command {
    Command::new("listen")
        .about("Log in as a client and print every frame; answers nothing, reconnects")
        .arg(required("token", "TOKEN", "Login token; names user and platform"))
        .arg(
            Arg::new("url")
                .long("url")
                .value_name("URL")
                .default_value("ws://127.0.0.1:10001")
                .help("The gateway"),
        )
        .arg(platform().help("Platform to claim instead of the token's"))
        .arg(
            Arg::new("count")
                .long("count")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many pushes"),
        )
        .arg(
            Arg::new("encoding")
                .long("encoding")
                .value_parser(PossibleValuesParser::new(["gob", "json"]))
                .default_value("gob")
                .help("Encoding of the envelopes"),
        )
        .arg(Arg::new("gzip").long("gzip").action(ArgAction::SetTrue).help("Ask for compressed envelopes"))
}

fn push() -> Command {
    Command::new("push")
        .about("Push a text message over gRPC and say whom it reached")
        .arg(required("to", "USER[,USER..]", "Recipients"))
        .arg(required("text", "TEXT", "What to say"))
        .args(rpc::arguments())
        .arg(
            Arg::new("from")
                .long("from")
                .value_name("USER")
                .default_value("pinion")
                .help("Sender of the message"),
        )
}

fn required(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .value_name(value)
        .required(true)
        .value_parser(clap::builder::NonEmptyStringValueParser::new())
        .help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_has_a_flag_per_setting() {
        command().debug_assert();
        for setting in SETTINGS {
            let flag = format!("--{}", setting.flag_name());
            let matches = command().try_get_matches_from(["pinion", &flag, setting.example]).unwrap();
            assert_eq!(sources(&matches).flags, [(setting.key, setting.example.to_owned())]);
        }
    }

    #[test]
    fn openims_folder_and_index_have_short_names() {
        let matches = command()
            .try_get_matches_from(["pinion", "gateway", "--openim-config", "/etc/openim", "-i", "2"])
            .unwrap();
        let flags = sources(matches.subcommand_matches("gateway").unwrap()).flags;
        assert_eq!(
            flags,
            [("openim.config_dir", "/etc/openim".to_owned()), ("openim.index", "2".to_owned())]
        );
    }

    #[test]
    fn platforms_go_by_id_and_by_name() {
        for (text, want) in
            [("1", Some(1)), ("web", Some(5)), ("IPad", Some(9)), ("0", None), ("12", None), ("tv", None)]
        {
            assert_eq!(platform_value(text).ok().map(|p| p.id()), want, "{text}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for arguments in [
            &["pinion", "--websocket-prot", "1"][..],
            &["pinion", "--websocket-port", "1", "check"],
            &["pinion", "--plant-stall", "0"],
            &["pinion", "--plant", "incident-2"],
            &["pinion", "--plant-upstream", "dead"],
            &["pinion", "--plant-push", "sliced"],
            &["pinion", "token", "--user", "u"],
            &["pinion", "token", "--user", "", "--platform", "1"],
            &["pinion", "token", "--user", "u", "--platform", "1", "--ttl", "0"],
            &["pinion", "listen"],
            &["pinion", "listen", "--token", "t", "--encoding", "xml"],
            &["pinion", "push", "--to", "u"],
            &["pinion", "push", "--to", "u", "--text", "t", "--rpc", "localhost"],
            &["pinion", "push", "--to", "u", "--text", "t", "--rpc-cert", "c", "--rpc-key", "k"],
            &["pinion", "push", "--to", "u", "--text", "t", "--rpc-ca", "a", "--rpc-cert", "c"],
            &["pinion", "push", "--to", "u", "--text", "t", "--rpc-ca", "a", "--rpc-key", "k"],
            &["pinion", "who"],
            &["pinion", "who", ""],
            &["pinion", "trace", "u", "--for", "30"],
            &["pinion", "trace", "u", "--for", "11m"],
            &["pinion", "trace", "u", "--count", "0"],
            &["pinion", "log-level", "info", "debug"],
            &["pinion", "reload", "now"],
            &["pinion", "serve"],
        ] {
            let error = command().try_get_matches_from(arguments).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}
