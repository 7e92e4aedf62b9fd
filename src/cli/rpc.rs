//! Reaching a gateway's gRPC port from the command line: address, TLS and token, as flags, environment or file give
//! them. Used by every command that makes gRPC calls.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use clap::{Arg, ArgMatches, value_parser};

use super::args::CONFIG;
use crate::config::{self, CONFIG_ENV, Sources, Token, setting};
use crate::rpc::client::{Target, TlsIdentity};

const RPC: &str = "rpc";
const TOKEN: &str = "rpc-token";
const CA: &str = "rpc-ca";
const CERT: &str = "rpc-cert";
const KEY: &str = "rpc-key";
/// The setting that both sides know.
const TOKEN_SETTING: &str = "rpc.token";

/// `--rpc` and what the gateway may ask for.
pub(super) fn arguments() -> [Arg; 6] {
    let file = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("FILE").value_parser(value_parser!(PathBuf)).help(help)
    };
    let token_env = setting(TOKEN_SETTING).map(|s| s.env_name()).unwrap_or_default();
    [
        Arg::new(RPC)
            .long(RPC)
            .value_name("HOST:PORT")
            .value_parser(host_and_port)
            .default_value("127.0.0.1:10140")
            .help("The gateway's gRPC address; with TLS its certificate must be for HOST"),
        Arg::new(TOKEN).long(TOKEN).value_name("TOKEN").help(format!(
            "The gateway's {TOKEN_SETTING}; flags show in the process list, so prefer file or environment [env: \
             {token_env}]"
        )),
        file(CONFIG, "").help(format!("Configuration file to take {TOKEN_SETTING} from, YAML [env: {CONFIG_ENV}]")),
        file(CA, "Speak TLS, and believe certificates that this CA signed, PEM"),
        file(CERT, "Our certificate, for a gateway with rpc.tls_client_ca, PEM").requires(CA).requires(KEY),
        file(KEY, "The private key of --rpc-cert, PEM").requires(CERT),
    ]
}

/// Keeps the text: the name is looked up when it is used.
fn host_and_port(text: &str) -> Result<String, String> {
    let fits = |(host, port): (&str, &str)| !host.is_empty() && port.parse::<u16>().is_ok();
    if text.rsplit_once(':').is_some_and(fits) {
        Ok(text.to_owned())
    } else {
        Err("expected HOST:PORT, for example 127.0.0.1:10140".into())
    }
}

/// What the arguments amount to.
///
/// # Errors
/// A text for the user: a name that is not found, a file that is no good, a token that cannot be one.
pub(super) fn target(matches: &ArgMatches) -> Result<Target, String> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).map(PathBuf::as_path);
    let gateway = matches.get_one::<String>(RPC).map(String::as_str).unwrap_or_default();
    let addresses: Vec<SocketAddr> =
        gateway.to_socket_addrs().map_err(|e| format!("--rpc {gateway}: {e}"))?.collect();
    let (host, _) = gateway.rsplit_once(':').unwrap_or((gateway, ""));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tls = path(CA).map(|ca| TlsIdentity::read(host, ca, path(CERT).zip(path(KEY)))).transpose()?;
    Ok(Target { addresses, tls, token: token(matches)? })
}

fn token(matches: &ArgMatches) -> Result<Option<Token>, String> {
    let mut sources = Sources::from_env();
    if let Some(file) = matches.get_one::<PathBuf>(CONFIG) {
        sources.file = Some(file.clone());
    }
    sources.flags.extend(matches.get_one::<String>(TOKEN).map(|text| (TOKEN_SETTING, text.clone())));
    let text = config::text_of(TOKEN_SETTING, &sources).map_err(|faults| faults.to_string())?;
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let expected = setting(TOKEN_SETTING).map(|s| s.expected).unwrap_or_default();
    Token::parse(&text).map(Some).ok_or_else(|| format!("{TOKEN_SETTING}: expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_a_host_and_a_port() {
        for good in ["127.0.0.1:1", "[::1]:10140", "gateway.internal:10140", "localhost:0"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for bad in ["", "localhost", ":1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:x"] {
            assert!(host_and_port(bad).is_err(), "{bad}");
        }
    }
}
