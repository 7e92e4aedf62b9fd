//! The arguments of a login and the order in which they are refused (spec 1.2 to 1.4).
//!
//! `query` reads them from the query string, `v` from the one argument that holds them all, `path` knows which paths
//! are redirected, `origin` whom to believe about the address. Both forms give the same `Arguments`, and one list of
//! checks judges these. Which arguments there are, and which of them are checked, depends on the version that the
//! gateway stands in for ([`Rules`]).
//!
//! Not here: the connection limit (check 1), which comes before any of this; the token (checks 4 and 5); the upgrade
//! headers (check 6), which are only carried along.

pub mod origin;
mod path;
mod query;
mod v;

use serde::{Deserialize, Serialize};

use crate::ids::Platform;
use crate::wire::compat::Compat;
use crate::wire::envelope::{Encoding, Variant};
use crate::wire::gojson;
use crate::wire::upgrade::{AcceptKey, Head, UpgradeFault};

/// A login whose arguments are good; the token is not checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// `sendID`, or `userID` of the `v` form.
    pub user: Box<str>,
    /// The JWT, unchecked.
    pub token: Box<str>,
    /// 1..=11.
    pub platform: Platform,
    /// Trace id of the handshake.
    pub operation_id: Box<str>,
    /// From `sdkType` and `compression`.
    pub variant: Variant,
    /// `isMsgResp` / `sendResponse`: the outcome of the token check comes as a first text frame.
    pub wants_response: bool,
    /// `X-Forwarded-For` of a configured proxy; `None` from anybody else.
    pub forwarded_for: Option<Box<str>>,
    /// Looked at after the token check (spec 1.3 step 6).
    pub upgrade: Result<AcceptKey, UpgradeFault>,
}

/// An error as the client sees it: by HTTP body or by first text frame (spec 1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// `errCode`.
    pub code: i32,
    /// `errMsg`.
    pub message: Box<str>,
    /// `errDlt`.
    pub detail: Box<str>,
}

/// What a head leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Go on with the token check on the owner shard.
    Login(Box<Login>),
    /// Answer by HTTP 200 + JSON and close.
    Refuse(Refusal),
    /// 301 to the cleaned path (spec 1.1), then close.
    Redirect(Box<str>),
}

/// How missing arguments are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strictness {
    /// patch.14 and newer: `operationID` and `isBackground` are required.
    Strict,
    /// Up to patch.13: they may be missing (spec 1.2, some third-party JS clients).
    Lenient,
}

/// By which rules a login is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The version whose checks these are. 3.5 has few and an order of its own (spec 1.3); the others have the same.
    pub compat: Compat,
    /// Without effect in 3.5, where neither argument is looked at.
    pub strictness: Strictness,
}

/// What a login says about itself, in either form, unchecked but for its types.
#[derive(Debug, Default, PartialEq, Eq)]
struct Arguments {
    user: String,
    token: String,
    platform: i64,
    operation_id: String,
    compression: String,
    sdk_type: String,
    wants_response: bool,
}

/// `errCode` and `errMsg` of bad arguments.
const ARGS_ERROR: (i32, &str) = (1602, "args err, need token, sendID, platformID");
/// `errCode` and `errMsg` of a token that is another's (spec 7.5).
const TOKEN_INVALID: (i32, &str) = (1502, "TokenInvalidError");
/// What upstream answers when it finds no better code.
const SERVER_ERROR: (i32, &str) = (500, "ServerInternalError");

impl Refusal {
    /// Check 1: the node holds as many connections as it may.
    pub fn connection_limit() -> Self {
        Self::new((1601, "ConnOverMaxNumLimit"), "over max conn num limit")
    }

    fn arguments(detail: &str) -> Self {
        Self::new(ARGS_ERROR, detail)
    }

    fn new((code, message): (i32, &str), detail: &str) -> Self {
        Self { code, message: message.into(), detail: detail.into() }
    }

    /// `{"errCode":..,"errMsg":"..","errDlt":".."}` with Go's escapes (spec 1.3).
    pub fn json(&self) -> String {
        let mut json = format!("{{\"errCode\":{},\"errMsg\":", self.code);
        gojson::write_string(&mut json, &self.message);
        json.push_str(",\"errDlt\":");
        gojson::write_string(&mut json, &self.detail);
        json.push('}');
        json
    }
}

/// The first text frame of a successful login (spec 1.4).
pub const SUCCESS_JSON: &str = r#"{"errCode":0,"errMsg":"","errDlt":""}"#;

/// Whose login a head is, in either form, whatever else is wrong with it; `None`: it does not say. For those who only
/// have to find the user's node, where the head is judged.
pub fn user(head: &Head) -> Option<Box<str>> {
    let (_, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    let query = query::Query::parse(query);
    let user = match v::arguments(query.first("v")) {
        Ok(arguments) if !query.first("v").is_empty() => arguments.user,
        _ => query.first("sendID").to_owned(),
    };
    (!user.is_empty()).then(|| user.into())
}

/// Checks 2 and 3 of spec 1.3, in order; before them the path.
pub fn judge(head: &Head, rules: Rules) -> Judgement {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    if let Some(cleaned) = path::cleaned(path) {
        return Judgement::Redirect(path::with_query(&cleaned, query));
    }
    let query = query::Query::parse(query);
    let arguments = match (rules.compat, query.first("v")) {
        (Compat::V35, _) => query::arguments_v35(&query, head.compression.as_deref()),
        (_, "") => query::arguments(&query, head.compression.as_deref(), rules.strictness),
        (_, v) => v::arguments(v),
    };
    match arguments.and_then(|arguments| check(arguments, head, rules)) {
        Ok(login) => Judgement::Login(Box::new(login)),
        Err(refusal) => Judgement::Refuse(refusal),
    }
}

/// Checks 3a to 3e.
fn check(arguments: Arguments, head: &Head, rules: Rules) -> Result<Login, Refusal> {
    let must_be_traced = rules.compat != Compat::V35 && rules.strictness == Strictness::Strict;
    if arguments.operation_id.is_empty() && must_be_traced {
        return Err(Refusal::arguments("operationID is empty"));
    }
    if arguments.token.is_empty() {
        return Err(Refusal::arguments("token is empty"));
    }
    if arguments.user.is_empty() {
        return Err(Refusal::arguments("sendID is empty"));
    }
    let platform =
        Platform::new(arguments.platform).ok_or_else(|| no_platform(arguments.platform, rules.compat))?;
    let encoding = match arguments.sdk_type.as_str() {
        "" | "go" => Encoding::Gob,
        "js" => Encoding::Json,
        _ => return Err(Refusal::arguments("sdkType is invalid")),
    };
    Ok(Login {
        user: arguments.user.into(),
        token: arguments.token.into(),
        platform,
        operation_id: arguments.operation_id.into(),
        variant: Variant { encoding, gzip: arguments.compression == "gzip" },
        wants_response: arguments.wants_response,
        forwarded_for: head.forwarded_for.clone(),
        upgrade: head.upgrade,
    })
}

/// 3.5 has no check 3d: it goes on to compare with the token, which never names such a platform, and finds check 5b
/// violated. (It would look at the token itself first: 1501, 1503 to 1505. To the client they are all the same.)
fn no_platform(id: i64, compat: Compat) -> Refusal {
    match compat {
        Compat::V35 => Refusal::new(TOKEN_INVALID, &format!("no token names platform {id}")),
        Compat::Patch16 | Compat::Main => Refusal::arguments("platformID is invalid"),
    }
}

#[cfg(test)]
mod tests;
