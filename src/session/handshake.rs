//! The arguments of a login and the order in which they are refused (spec 1.2 to 1.4).

use serde::{Deserialize, Serialize};

use crate::ids::Platform;
use crate::wire::envelope::Variant;
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
    /// `X-Forwarded-For`, part of the logged address.
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

impl Refusal {
    /// `{"errCode":..,"errMsg":"..","errDlt":".."}` with Go's escapes (spec 1.3).
    pub fn json(&self) -> String {
        todo!()
    }
}

/// The first text frame of a successful login (spec 1.4).
pub const SUCCESS_JSON: &str = r#"{"errCode":0,"errMsg":"","errDlt":""}"#;

/// Checks 2 and 3 of spec 1.3, in order.
pub fn judge(head: &Head, strictness: Strictness) -> Judgement {
    let _ = (head, strictness);
    todo!()
}
