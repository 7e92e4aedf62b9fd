//! Command lines, and what they come to: settings, or one clear sentence.

use std::time::Duration;

use super::{Asked, asked, command};
use crate::settings::{Driver, Encoding, Protocol, Tokens};

fn parse(line: &str) -> Result<Asked, String> {
    let words = std::iter::once("pinion-bench").chain(line.split_whitespace());
    let found = command().try_get_matches_from(words).map_err(|error| error.to_string())?;
    asked(&found)
}

fn good(line: &str) -> Asked {
    parse(line).unwrap_or_else(|why| panic!("{line}: {why}"))
}

#[track_caller]
fn refused(line: &str, says: &str) {
    let why = parse(line).map(|_| ()).expect_err(line);
    assert!(why.contains(says), "{line}: {why}");
}

#[test]
fn wrks_line_is_understood() {
    let Asked { settings, output } =
        good("-t 2 -c 10k -d 30s -T 2s -L -R 1.5k -s Cargo.toml ws://127.0.0.1:10001/x?y=1 -- 7 --eight");
    assert_eq!((settings.threads, settings.connections), (2, 10_000));
    assert_eq!((settings.duration, settings.timeout), (Duration::from_secs(30), Duration::from_secs(2)));
    assert_eq!(settings.rate, Some(1_500.0));
    assert_eq!(settings.script_arguments, ["7", "--eight"]);
    let target = &settings.targets[0];
    assert_eq!((target.address.to_string().as_str(), target.path.as_str()), ("127.0.0.1:10001", "/x?y=1"));
    assert_eq!(target.host, "127.0.0.1:10001");
    assert!(output.latency && !output.quiet);
}

#[test]
fn without_options_it_is_a_short_run_of_openim() {
    let settings = good("ws://127.0.0.1").settings;
    assert_eq!(settings.protocol, Protocol::OpenIm { encoding: Encoding::Gob, gzip: false });
    assert_eq!(settings.targets[0].address.port(), 80);
    assert_eq!(settings.ping, Some(Duration::from_secs(24)));
    assert!(matches!(settings.users.tokens, Tokens::Secret(_)) && settings.rate.is_none());
}

#[test]
fn clients_are_as_asked_for() {
    let settings = good(
        "-c 4 --encoding json --gzip --per-user 2 --platforms 1 --platform 5 --first-user 9 --user-prefix x \
         --driver epoll --ping 0 --sources 127.0.0.2-127.0.0.4,127.0.0.9 --cpus 0,1 --server-pid 7 \
         --push 127.0.0.1:10140 ws://127.0.0.1:1 ws://127.0.0.1:2",
    )
    .settings;
    assert_eq!(settings.protocol, Protocol::OpenIm { encoding: Encoding::Json, gzip: true });
    let users = &settings.users;
    assert_eq!((users.per_user, users.platforms, users.platform, users.first), (2, 1, 5, 9));
    assert_eq!((settings.driver, settings.ping), (Driver::Epoll, None));
    assert_eq!(settings.sources.len(), 4);
    assert_eq!((&settings.cpus[..], &settings.server_pids[..]), (&[0, 1][..], &[7][..]));
    assert_eq!((settings.push.unwrap().port(), settings.targets.len()), (10140, 2));
}

#[test]
fn faults_say_what_would_be_right() {
    for (line, says) in [
        ("", "required"),
        ("127.0.0.1:1", "expected ws://HOST:PORT"),
        ("wss://127.0.0.1:1", "tls.sh"),
        ("ftp://127.0.0.1:1", "ftp is not spoken here"),
        ("-c 0 ws://127.0.0.1:1", "expected a number above 0"),
        ("-c 1x ws://127.0.0.1:1", "like 400 or 10k"),
        ("-d 3d ws://127.0.0.1:1", "30s, 2m, 1h or 250ms"),
        ("-R 0 ws://127.0.0.1:1", "expected a rate"),
        ("-R 5 ws://127.0.0.1:1", "--script"),
        ("-t 20 -c 10 ws://127.0.0.1:1", "10 connections for 20 threads"),
        ("-H novalue ws://127.0.0.1:1", "expected \"Name: value\""),
        ("-s /nowhere.lua ws://127.0.0.1:1", "/nowhere.lua"),
        ("--raw --gzip ws://127.0.0.1:1", "--raw"),
        ("--tokens /nowhere ws://127.0.0.1:1", "/nowhere"),
        ("--api https://x --api-secret s ws://127.0.0.1:1", "expected http://"),
        ("--api http://x ws://127.0.0.1:1", "--api-secret"),
        ("--register ws://127.0.0.1:1", "--api"),
        ("--sources 127.0.0.9-127.0.0.2 ws://127.0.0.1:1", "expected an address, or a range"),
        ("--per-user 12 ws://127.0.0.1:1", "--platforms"),
        ("--push nowhere ws://127.0.0.1:1", "HOST:PORT"),
        ("--driver kqueue ws://127.0.0.1:1", "io_uring"),
        ("--nonsense ws://127.0.0.1:1", "--nonsense"),
    ] {
        refused(line, says);
    }
}

#[test]
fn a_secret_comes_from_a_file_and_is_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "from the file\nsecond line\n").unwrap();
    let line = format!("--secret @{} ws://127.0.0.1:1", file.path().display());
    let asked = good(&line);
    assert!(matches!(&asked.settings.users.tokens, Tokens::Secret(secret) if secret == "from the file"));
    assert!(!format!("{:?}", asked.settings.users).contains("from the file"));
    refused("--secret @/nowhere ws://127.0.0.1:1", "--secret: /nowhere");
    let help = command().render_long_help().to_string();
    assert!(!help.contains("openIM123") && help.contains("PINION_BENCH_SECRET"), "{help}");
}
