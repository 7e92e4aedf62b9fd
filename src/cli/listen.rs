//! `pinion listen`: logs in as a client and prints every frame decoded. Reconnects as the SDKs do, and like them stops
//! when the token is refused or the login is kicked.

use std::process::ExitCode;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::ArgMatches;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::client::{Client, Got, Refused, host_of};
use super::{EXIT_FAILED, EXIT_USAGE, fail, frames, output};
use crate::ids::Platform;
use crate::limits::{LISTEN_BACKOFF_MS, LISTEN_PING_INTERVAL_MS, READ_DEADLINE_MS};
use crate::shard::clock;
use crate::wire::envelope::{Codec, Encoding, Variant};

/// The first wait before a reconnect, doubled each time (spec 1.5).
const BACKOFF_FIRST_MS: u64 = 1_000;
/// `errCode`s of a login that no SDK tries again (spec 1.7).
const FINAL_CODES: std::ops::RangeInclusive<i64> = 1501..=1507;

/// Why listening ended for good.
enum End {
    /// So many pushes were asked for, or nobody reads our output any more.
    Enough,
    /// The gateway does not want this login.
    Unwanted(String),
}

/// What a connection is made with.
struct Login {
    host: String,
    target: String,
    variant: Variant,
}

/// Runs the command.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let login = match login(matches) {
        Ok(login) => login,
        Err(text) => return fail(EXIT_USAGE, &text),
    };
    let mut listener =
        Listener { codec: Codec::default(), pushes_left: matches.get_one::<u64>("count").copied() };
    let mut backoff_ms = BACKOFF_FIRST_MS;
    loop {
        let problem = match Client::connect(&login.host, &login.target) {
            Ok(client) => {
                listener.say(&format!("connected to {}", login.host));
                backoff_ms = BACKOFF_FIRST_MS;
                match listener.listen(client, login.variant) {
                    Ok(End::Enough) => return ExitCode::SUCCESS,
                    Ok(End::Unwanted(why)) => return fail(EXIT_FAILED, &why),
                    Err(problem) => problem,
                }
            }
            Err(Refused::Json { code, body }) if FINAL_CODES.contains(&code) => {
                return fail(EXIT_FAILED, &format!("the login was refused: {body}"));
            }
            Err(Refused::Json { body, .. }) => format!("the login was refused: {body}"),
            Err(Refused::Other(problem)) => problem,
        };
        if !listener.say(&format!("disconnected: {problem}; next try in {} s", backoff_ms / 1000)) {
            return ExitCode::SUCCESS;
        }
        std::thread::sleep(Duration::from_millis(backoff_ms));
        backoff_ms = (backoff_ms * 2).min(LISTEN_BACKOFF_MS);
    }
}

/// Checks the arguments.
fn login(matches: &ArgMatches) -> Result<Login, String> {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let (user, claimed) = claims(text("token"))?;
    let platform = matches.get_one::<Platform>("platform").map_or(claimed, |p| i64::from(p.id()));
    let host = host_of(text("url"))?.to_owned();
    let variant = Variant {
        encoding: if text("encoding") == "json" { Encoding::Json } else { Encoding::Gob },
        gzip: matches.get_flag("gzip"),
    };
    let escape = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let sdk = if variant.encoding == Encoding::Json { "js" } else { "go" };
    let gzip = if variant.gzip { "&compression=gzip" } else { "" };
    let target = format!(
        "/?sendID={}&token={}&platformID={platform}&operationID=listen-{}&isBackground=false&sdkType={sdk}{gzip}",
        escape(&user),
        escape(text("token")),
        clock::now().unix.0,
    );
    Ok(Login { host, target, variant })
}

/// User and platform of a token. The signature is the gateway's business.
fn claims(token: &str) -> Result<(String, i64), String> {
    let parse = || {
        let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
        let user = claims.get("UserID")?.as_str()?.to_owned();
        Some((user, claims.get("PlatformID")?.as_i64()?))
    };
    parse().ok_or_else(|| {
        "--token: expected a token with the claims UserID and PlatformID; \
         `pinion token --user u1 --platform 1` makes one"
            .to_owned()
    })
}

struct Listener {
    codec: Codec,
    /// Pushes to wait for; `None` = for ever.
    pushes_left: Option<u64>,
}

impl Listener {
    /// Prints with the time. `false`: nobody reads any more.
    fn say(&self, text: &str) -> bool {
        output::line(&format!("{} {text}", frames::time_of_day(clock::now().unix)))
    }

    /// Reads until the connection ends (`Err` says why) or listening does.
    fn listen(&mut self, mut client: Client, variant: Variant) -> Result<End, String> {
        let mut heard = clock::now().mono;
        let mut pinged = heard;
        let mut got = Vec::new();
        loop {
            let read = client.read(&mut got);
            let now = clock::now().mono;
            if !got.is_empty() {
                heard = now;
            }
            for got in got.drain(..) {
                if let Some(end) = self.take(got, variant)? {
                    return Ok(end);
                }
            }
            // Judged after what came with the last read, so that nothing received is lost.
            read?;
            if now.since_ms(heard) > READ_DEADLINE_MS {
                return Err(format!("nothing heard for {READ_DEADLINE_MS} ms"));
            }
            if now.since_ms(pinged) >= LISTEN_PING_INTERVAL_MS {
                client.ping()?;
                pinged = now;
            }
        }
    }

    fn take(&mut self, got: Got, variant: Variant) -> Result<Option<End>, String> {
        let (text, payload) = match got {
            Got::Message { text, payload } => (text, payload),
            Got::Ping | Got::Pong => return Ok(None),
            Got::Close(code) => {
                let code = code.map_or_else(|| "without a code".to_owned(), |code| code.to_string());
                return Err(format!("the gateway closed: {code}"));
            }
        };
        if text {
            let open = self.say(&format!("text {:?}", String::from_utf8_lossy(&payload)));
            return Ok((!open).then_some(End::Enough));
        }
        let frame = match self.codec.decode_response(variant, &payload) {
            Ok(frame) => frame,
            Err(fault) => {
                self.say(&format!("frame of {} bytes cannot be decoded: {fault:?}", payload.len()));
                return Ok(None);
            }
        };
        if !self.say(&frames::describe(&frame).join("\n")) {
            return Ok(Some(End::Enough));
        }
        if frame.id == frames::KICK {
            let why = "kicked: another login of this user took over, or an administrator ended it";
            return Ok(Some(End::Unwanted(why.into())));
        }
        if frame.id == frames::PUSH
            && let Some(left) = &mut self.pushes_left
        {
            *left = left.saturating_sub(1);
            return Ok((*left == 0).then_some(End::Enough));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_read_without_the_secret() {
        // Spec A.5.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
                     eyJVc2VySUQiOiJ1MSIsIlBsYXRmb3JtSUQiOjEsImV4cCI6MTgwMDAwMDAwMCwiaWF0IjoxNzAwMDAwMDAwfQ.\
                     di_ejGECUyuK_JdnwMaTqPAtI6-afGebnLYJcHAh-S0";
        assert_eq!(claims(token), Ok(("u1".to_owned(), 1)));
        for bad in ["", "a.b.c", "a", "..", "a.e30.c"] {
            assert!(claims(bad).is_err(), "{bad:?}");
        }
    }
}
