//! What the services' answers mean to a client (spec 6.4, 7.4, 7.5).
//!
//! What always holds: an error's code is not 0, which would be success; nothing that goes to a client or a log holds a
//! token. Not here: what was asked (`calls`), and what an error does to a connection (`hub`): at the handshake codes
//! below 1001 count as trouble on the way, not as OpenIM's word (spec trap 1).

use bytes::Bytes;
use prost::Message as _;

use crate::hub::upstream::{UpstreamError, UpstreamOutcome};
use crate::ids::Platform;
use crate::pb::open_im_server::auth as legacy;
use crate::pb::openim::auth::ParseTokenResp;
use crate::wire::compat::Compat;
use crate::wire::grpc::{CallFault, Dialect, Status, code};

/// Below this a status is gRPC's own or the way's, from here on OpenIM's (spec 6.4).
const OPENIM_CODE_MIN: i32 = 100;
/// A shorter text is no token: a JWT's first part alone is longer.
const TOKEN_BYTES_MIN: usize = 16;
/// Stands where a token stood.
const HIDDEN: &str = "(token)";

/// How to read the answer of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// `parseToken`'s.
    Token {
        /// What was asked about: services repeat it in their errors.
        token: Box<str>,
    },
    /// Nothing in it is looked at: a client's request, or a call that nobody waits for.
    Data,
}

/// Reads the answers of one service.
#[derive(Clone, Copy, Debug)]
pub struct Answers<'a> {
    /// The version that the services are of.
    pub compat: Compat,
    /// Where the service was looked for, as discovery names it. Clients of main see the part behind the last slash.
    pub target: &'a str,
}

impl Answers<'_> {
    /// What is answered to the shard that asked.
    pub fn outcome(self, expect: &Expect, answer: Result<Bytes, CallFault>) -> UpstreamOutcome {
        let message = match answer {
            Ok(message) => message,
            Err(fault) => return UpstreamOutcome::Failed(self.error(expect, fault)),
        };
        match expect {
            Expect::Data => Some(UpstreamOutcome::Data(message)),
            Expect::Token { .. } => claims(self.compat, message),
        }
        .unwrap_or_else(|| UpstreamOutcome::Failed(malformed()))
    }

    /// What a fault looks like to a client of this version, and to the log.
    pub fn error(self, expect: &Expect, fault: CallFault) -> UpstreamError {
        let error = self.spelled_out(expect, fault);
        let token = match expect {
            Expect::Token { token } => token,
            Expect::Data => "",
        };
        let (message, detail) = (redacted(&error.message, token), redacted(&error.detail, token));
        UpstreamError { message, detail, ..error }
    }

    fn spelled_out(self, expect: &Expect, fault: CallFault) -> UpstreamError {
        let status = match fault {
            // How a service refuses a protobuf that it cannot decode. Upstream's gateway decodes what clients send, so
            // that the fault is found there and is no transport's (spec 3.2 rule 7).
            CallFault::Status(status) if status.code == code::INTERNAL && *expect == Expect::Data => {
                return match self.compat {
                    Compat::V35 => error(500, &status.message, ""),
                    Compat::Patch16 | Compat::Main => error(500, "ServerInternalError", &status.message),
                };
            }
            CallFault::Overloaded => return error(500, "too many requests", ""),
            fault => fault.into_status(),
        };
        self.of_status(&status)
    }

    /// Spec 6.4, the second table.
    fn of_status(self, status: &Status) -> UpstreamError {
        let detail = status.cause.as_deref().unwrap_or_default();
        match (status.code, self.compat) {
            (OPENIM_CODE_MIN.., _) | (1.., Compat::V35 | Compat::Patch16) => {
                error(status.code, &status.message, detail)
            }
            (code::UNAVAILABLE, Compat::Main) => {
                let service = self.target.rsplit('/').next().unwrap_or_default();
                error(500, &format!("grpc service {service} down, grpc message {}", status.message), "")
            }
            // Also a status of 0 or less, which is no error's: OpenIM's services make it 500 themselves.
            _ => error(500, "ServerInternalError", &status.message),
        }
    }
}

fn error(code: i32, message: &str, detail: &str) -> UpstreamError {
    UpstreamError { code, message: message.into(), detail: detail.into() }
}

/// The service answered something that is no answer to this.
fn malformed() -> UpstreamError {
    UpstreamError { detail: "malformed answer".into(), ..UpstreamError::internal() }
}

/// Whose token it is. 3.5 names the platform (spec 5.2). `None`: malformed; nobody's token is no good token either.
fn claims(compat: Compat, message: Bytes) -> Option<UpstreamOutcome> {
    let (user, platform) = match compat.dialect() {
        Dialect::Openim => {
            let claims = ParseTokenResp::decode(message).ok()?;
            (claims.user_id, claims.platform_id)
        }
        Dialect::Legacy => {
            let claims = legacy::ParseTokenResp::decode(message).ok()?;
            let platform = Platform::all().find(|platform| platform.name() == claims.platform)?;
            (claims.user_id, platform.id())
        }
    };
    (!user.is_empty()).then(|| UpstreamOutcome::Token { user: user.into(), platform })
}

/// Without the token that was asked about, and without anything that begins like a JWT and is long enough to be one:
/// services repeat tokens in their errors (spec 7.4), and those of other calls name other tokens.
fn redacted(text: &str, token: &str) -> Box<str> {
    let text = if token.len() < TOKEN_BYTES_MIN { text.to_owned() } else { text.replace(token, HIDDEN) };
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.as_str();
    // Base64 of `{"`, which every JWT's first part begins with.
    while let Some(at) = rest.find("eyJ") {
        let (before, from) = rest.split_at(at);
        let behind = from.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "-_.=+/".contains(c));
        let (run, _) = from.split_at(from.len() - behind.len());
        shown.push_str(before);
        shown.push_str(if run.len() < TOKEN_BYTES_MIN { run } else { HIDDEN });
        rest = behind;
    }
    shown.push_str(rest);
    shown.into()
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
