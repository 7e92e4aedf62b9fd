//! The command line: wrk's options under wrk's names, and ours. From text to checked [`Settings`], once.
//!
//! Not here: what a run does. What always holds: a fault names the option, what was wrong and what would be right, and no
//! secret is ever part of a text.

mod arguments;
mod units;

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;

use crate::settings::{Driver, Encoding, Protocol, Settings, Target, Tokens, Users};
pub use arguments::command;

/// What was asked for.
#[derive(Debug)]
pub struct Asked {
    pub settings: Settings,
    pub output: Output,
}

/// What is said of the run, and where.
#[derive(Clone, Debug, Default)]
pub struct Output {
    /// `--latency`: the whole distribution.
    pub latency: bool,
    /// `--json`: a file, or `-` for the standard output instead of the report.
    pub json: Option<PathBuf>,
    /// `--plot`: a folder for the SVG files.
    pub plot: Option<PathBuf>,
    /// `--quiet`: no progress.
    pub quiet: bool,
    /// As it was typed, for the head of the report.
    pub url: String,
}

/// Checks what clap has taken apart.
///
/// # Errors
/// A text for the user, without `error:` in front.
pub fn asked(found: &ArgMatches) -> Result<Asked, String> {
    let urls: Vec<&String> = found.get_many("url").into_iter().flatten().collect();
    let targets = urls.iter().map(|url| target(url)).collect::<Result<Vec<_>, _>>()?;
    let protocol = protocol(found)?;
    let script = found.get_one::<PathBuf>("script").cloned();
    if let Some(path) = script.as_deref()
        && !path.is_file()
    {
        return Err(format!("--script: there is no file {}", path.display()));
    }
    let settings = Settings {
        targets,
        threads: count(found, "threads"),
        connections: count(found, "connections"),
        duration: duration(found, "duration").unwrap_or_default(),
        rate: found.get_one("rate").copied(),
        timeout: duration(found, "timeout").unwrap_or_default(),
        headers: headers(found)?,
        protocol,
        users: users(found, protocol)?,
        push: push(found)?,
        push_token: secret(found, "push-token")?,
        ramp: found.get_one("ramp").copied(),
        connecting: count(found, "connecting"),
        sources: sources(found)?,
        ping: duration(found, "ping").filter(|every| !every.is_zero()),
        processes: found.get_one("processes").copied(),
        server_pids: found.get_many("server-pid").into_iter().flatten().copied().collect(),
        cpus: found.get_many("cpus").into_iter().flatten().copied().collect(),
        script,
        script_arguments: found.get_many("arguments").into_iter().flatten().cloned().collect(),
        driver: match found.get_one::<String>("driver").map(String::as_str) {
            Some("io_uring") => Driver::IoUring,
            Some("epoll") => Driver::Epoll,
            _ => Driver::Auto,
        },
    };
    check(&settings)?;
    let output = Output {
        latency: found.get_flag("latency"),
        json: found.get_one("json").cloned(),
        plot: found.get_one("plot").cloned(),
        quiet: found.get_flag("quiet"),
        url: urls.first().map(|url| url.to_string()).unwrap_or_default(),
    };
    Ok(Asked { settings, output })
}

fn count(found: &ArgMatches, name: &str) -> usize {
    found.get_one(name).copied().unwrap_or_default()
}

fn duration(found: &ArgMatches, name: &str) -> Option<Duration> {
    found.get_one(name).copied()
}

/// What is right by itself and wrong together.
fn check(settings: &Settings) -> Result<(), String> {
    if settings.threads > settings.connections {
        return Err(format!(
            "--connections: {} connections for {} threads; each thread needs one at least",
            settings.connections, settings.threads
        ));
    }
    if settings.rate.is_some() && settings.script.is_none() && settings.protocol != Protocol::Raw {
        return Err("--rate: without a script OpenIM connections are only held; name one with --script \
                    (bench/scripts/push.lua pushes)"
            .to_owned());
    }
    if settings.ping.is_some() && settings.timeout.is_zero() {
        return Err("--timeout: must be above 0".to_owned());
    }
    let platforms = settings.users.platform..=9;
    let last = settings.users.platform + i32::try_from(settings.users.per_user).unwrap_or(i32::MAX) - 1;
    if settings.protocol != Protocol::Raw && !platforms.contains(&last) {
        return Err(format!(
            "--per-user: {} connections of a user from platform {} on would end at platform {last}; OpenIM's \
             platforms of clients are 1 to 9",
            settings.users.per_user, settings.users.platform
        ));
    }
    Ok(())
}

/// `ws://host:port/path?query`.
fn target(url: &str) -> Result<Target, String> {
    let wrong = |why: &str| format!("{url}: {why}; expected ws://HOST:PORT[/PATH]");
    let rest = match url.split_once("://") {
        Some(("ws" | "http", rest)) => rest,
        Some(("wss" | "https", _)) => {
            return Err(format!(
                "{url}: the generator does not speak TLS, since its own cost would hide the server's; \
                 measure TLS with bench/scripts/tls.sh"
            ));
        }
        Some((scheme, _)) => return Err(wrong(&format!("{scheme} is not spoken here"))),
        None => return Err(wrong("no scheme")),
    };
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let host = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Target { address: resolve(&host).map_err(|why| wrong(&why))?, host: authority.to_owned(), path })
}

fn resolve(host: &str) -> Result<SocketAddr, String> {
    match host.to_socket_addrs().map(|mut addresses| addresses.next()) {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(format!("{host} has no address")),
        Err(error) => Err(format!("{host}: {error}")),
    }
}

fn push(found: &ArgMatches) -> Result<Option<SocketAddr>, String> {
    let Some(text) = found.get_one::<String>("push") else { return Ok(None) };
    resolve(text)
        .map(Some)
        .map_err(|why| format!("--push: {why}; expected HOST:PORT of a gateway's gRPC port"))
}

fn protocol(found: &ArgMatches) -> Result<Protocol, String> {
    let gzip = found.get_flag("gzip");
    let encoding = found.get_one::<String>("encoding").map(String::as_str);
    if !found.get_flag("raw") {
        let encoding = if encoding == Some("json") { Encoding::Json } else { Encoding::Gob };
        return Ok(Protocol::OpenIm { encoding, gzip });
    }
    if gzip || encoding.is_some() {
        return Err("--raw: WebSocket messages as they are have neither --encoding nor --gzip".to_owned());
    }
    Ok(Protocol::Raw)
}

fn users(found: &ArgMatches, protocol: Protocol) -> Result<Users, String> {
    let text = |name: &str| found.get_one::<String>(name).cloned();
    let api = text("api");
    let tokens = match (found.get_one::<PathBuf>("tokens"), api) {
        (Some(file), None) => Tokens::File(file.clone()),
        (None, Some(url)) => {
            if !url.starts_with("http://") {
                return Err(format!("--api: {url}: expected http://HOST:PORT (https is not spoken here)"));
            }
            let secret = secret(found, "api-secret")?.ok_or(
                "--api: needs the administrator's secret: --api-secret, PINION_BENCH_API_SECRET or @FILE",
            )?;
            Tokens::Api { url, secret, register: found.get_flag("register") }
        }
        (Some(_), Some(_)) => return Err("--tokens and --api: one of them".to_owned()),
        (None, None) => Tokens::Secret(secret(found, "secret")?.unwrap_or_default()),
    };
    if protocol != Protocol::Raw
        && let Tokens::File(path) = &tokens
        && !path.is_file()
    {
        return Err(format!("--tokens: there is no file {}", path.display()));
    }
    Ok(Users {
        prefix: text("user-prefix").unwrap_or_default(),
        first: count(found, "first-user"),
        per_user: count(found, "per-user"),
        platform: found.get_one("platform").copied().unwrap_or(1),
        tokens,
    })
}

/// The value, or the first line of the file behind an `@`.
fn secret(found: &ArgMatches, name: &str) -> Result<Option<String>, String> {
    let Some(text) = found.get_one::<String>(name) else { return Ok(None) };
    let Some(path) = text.strip_prefix('@') else { return Ok(Some(text.clone())) };
    let read =
        std::fs::read_to_string(Path::new(path)).map_err(|error| format!("--{name}: {path}: {error}"))?;
    Ok(Some(read.lines().next().unwrap_or_default().trim().to_owned()))
}

fn headers(found: &ArgMatches) -> Result<Vec<(String, String)>, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once(':').unwrap_or_default();
        let (name, value) = (name.trim(), value.trim());
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let good = !name.is_empty() && name.bytes().all(token) && !value.contains(['\r', '\n']);
        good.then(|| (name.to_owned(), value.to_owned()))
            .ok_or_else(|| format!("--header: {text:?}: expected \"Name: value\""))
    };
    found.get_many("header").into_iter().flatten().map(pair).collect()
}

/// `127.0.0.2`, `127.0.0.2-127.0.0.9`, several with commas.
fn sources(found: &ArgMatches) -> Result<Vec<IpAddr>, String> {
    let mut all = Vec::new();
    for text in found.get_many::<String>("sources").into_iter().flatten() {
        let wrong =
            || format!("--sources: {text:?}: expected an address, or a range like 127.0.0.2-127.0.0.9");
        let Some((first, last)) = text.split_once('-') else {
            all.push(text.parse().map_err(|_| wrong())?);
            continue;
        };
        let bounds = (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>());
        let (Ok(first), Ok(last)) = bounds else { return Err(wrong()) };
        if first > last || u32::from(last) - u32::from(first) > 65_535 {
            return Err(wrong());
        }
        all.extend((u32::from(first)..=u32::from(last)).map(|bits| IpAddr::V4(bits.into())));
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
