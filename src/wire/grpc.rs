//! gRPC as bytes: status values (OpenIM's are above 16), `grpc-message`, `grpc-status-details-bin`, `grpc-timeout`, and
//! the messages of a body (`body`, compressed ones `gunzip`), what a caller knows of a call (`call`). HTTP/2 is not
//! here.

mod body;
mod call;
mod gunzip;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use prost::Message;

use crate::pb;

pub use body::{BodyFault, Message as BodyMessage, Messages, PREFIX_BYTES, frame};
pub use call::{CallFault, Retry};
pub use gunzip::Gunzip;

/// The generations of OpenIM, by the root of their protobuf packages (spec 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `openim.*`: 3.7 and newer.
    #[default]
    Openim,
    /// `OpenIMServer.*`: 3.5 and 3.6.
    Legacy,
}

impl Dialect {
    /// `type_url` of the one detail that OpenIM's peers look at (spec 6.4).
    fn error_info_url(self) -> &'static str {
        match self {
            Self::Openim => "type.googleapis.com/openim.protobuf.ErrorInfo",
            Self::Legacy => "type.googleapis.com/OpenIMServer.protobuf.ErrorInfo",
        }
    }

    fn of_error_info(url: &str) -> Option<Self> {
        [Self::Openim, Self::Legacy].into_iter().find(|dialect| dialect.error_info_url() == url)
    }
}

/// gRPC says: all but printable ASCII and `%` is escaped.
const MESSAGE_ESCAPES: &AsciiSet = &CONTROLS.add(b'%');

/// grpc-go pads nothing and accepts both; so do we.
const BASE64_LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Status values of gRPC itself that Pinion sends.
pub mod code {
    /// Success.
    pub const OK: i32 = 0;
    /// The caller gave up.
    pub const CANCELLED: i32 = 1;
    /// An HTTP error that says nothing to gRPC.
    pub const UNKNOWN: i32 = 2;
    /// Bad metadata (spec 6.1).
    pub const INVALID_ARGUMENT: i32 = 3;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// No such service (health), file or symbol (reflection).
    pub const NOT_FOUND: i32 = 5;
    /// HTTP status 403.
    pub const PERMISSION_DENIED: i32 = 7;
    /// A limit of ours.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
    /// A peer that is not the one that was meant, or of another version.
    pub const FAILED_PRECONDITION: i32 = 9;
    /// The wrong thread of a node: dial again.
    pub const ABORTED: i32 = 10;
    /// No such method, or a compression that we do not know.
    pub const UNIMPLEMENTED: i32 = 12;
    /// A body that cannot be decoded.
    pub const INTERNAL: i32 = 13;
    /// A full queue or a node that leaves; try again, or elsewhere.
    pub const UNAVAILABLE: i32 = 14;
    /// The caller did not show who it is.
    pub const UNAUTHENTICATED: i32 = 16;
    /// OpenIM `ArgsError` (spec 7.5).
    pub const ARGS: i32 = 1001;
    /// OpenIM `NoPermissionError` (spec 7.5).
    pub const NO_PERMISSION: i32 = 1002;
}

/// The outcome of a call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// `grpc-status`: gRPC's 0..=16 or an OpenIM code.
    pub code: i32,
    /// `grpc-message`, not escaped.
    pub message: String,
    /// `ErrorInfo.cause`; `None` = no details are attached (errors of gRPC itself).
    pub cause: Option<String>,
    /// Whose `ErrorInfo` the details are.
    pub dialect: Dialect,
}

impl Status {
    /// An error of gRPC itself, without details.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None, dialect: Dialect::Openim }
    }

    /// An OpenIM error. P16 always attaches details; their cause is the detail, else the message (spec 6.4).
    pub fn openim(code: i32, message: &str, detail: &str) -> Self {
        let cause = if detail.is_empty() { message } else { detail };
        Self { cause: Some(cause.to_owned()), ..Self::new(code, message) }
    }

    /// 1001 `ArgsError` with the text of a request check (spec 4.2).
    pub fn args(detail: &str) -> Self {
        Self::openim(code::ARGS, "ArgsError", detail)
    }

    /// As peers of that generation read it.
    #[must_use]
    pub fn for_peers_of(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// The value of `grpc-message`.
    pub fn escaped_message(&self) -> String {
        utf8_percent_encode(&self.message, MESSAGE_ESCAPES).to_string()
    }

    /// The value of `grpc-status-details-bin`, if details are attached.
    pub fn details_bin(&self) -> Option<String> {
        let cause = self.cause.clone()?;
        let info = pb::openim::protobuf::ErrorInfo { cause, ..Default::default() };
        let status = pb::rpc::Status {
            code: self.code,
            message: self.message.clone(),
            details: vec![pb::rpc::Any {
                type_url: self.dialect.error_info_url().to_owned(),
                value: info.encode_to_vec().into(),
            }],
        };
        Some(STANDARD_NO_PAD.encode(status.encode_to_vec()))
    }

    /// Rebuilds what a peer sent. Broken details count as none; the cause follows spec 6.4 (`warp` joined by `->`,
    /// then `cause`; first detail only).
    pub fn parse(code: i32, message: &str, details_bin: Option<&str>) -> Self {
        let message = percent_decode_str(message).decode_utf8_lossy().into_owned();
        let (cause, dialect) = details_bin.and_then(cause_of).unzip();
        Self { code, message, cause, dialect: dialect.unwrap_or_default() }
    }
}

fn cause_of(details_bin: &str) -> Option<(String, Dialect)> {
    let bytes = BASE64_LENIENT.decode(details_bin).ok()?;
    let status = pb::rpc::Status::decode(bytes.as_slice()).ok()?;
    let detail = status.details.into_iter().next()?;
    let dialect = Dialect::of_error_info(&detail.type_url)?;
    let info = pb::openim::protobuf::ErrorInfo::decode(detail.value).ok()?;
    let mut parts = info.warp;
    if !info.cause.is_empty() {
        parts.push(info.cause);
    }
    Some((parts.join("->"), dialect))
}

/// The longest `grpc-timeout` in milliseconds: eight digits, some 27 hours.
pub const TIMEOUT_MS_MAX: u64 = 99_999_999;

/// The value of `grpc-timeout`; longer than [`TIMEOUT_MS_MAX`] is that.
pub fn timeout_value(ms: u64) -> String {
    format!("{}m", ms.min(TIMEOUT_MS_MAX))
}

/// Whether a metadata value can be sent: printable ASCII (spec 6.1).
pub fn is_printable(value: &str) -> bool {
    value.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// What an answer without `grpc-status` means by its HTTP status (gRPC, "HTTP to gRPC Status Code Mapping").
pub fn code_of_http(status: u16) -> i32 {
    match status {
        400 => code::INTERNAL,
        401 => code::UNAUTHENTICATED,
        403 => code::PERMISSION_DENIED,
        404 => code::UNIMPLEMENTED,
        429 | 502..=504 => code::UNAVAILABLE,
        _ => code::UNKNOWN,
    }
}

/// Reads `grpc-timeout`: 1 to 8 digits and a unit. In milliseconds, rounded up. `None` = malformed.
pub fn parse_timeout(value: &str) -> Option<u64> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => amount * 3_600_000,
        "M" => amount * 60_000,
        "S" => amount * 1_000,
        "m" => amount,
        "u" => amount.div_ceil(1_000),
        "n" => amount.div_ceil(1_000_000),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Spec A.3.
    const KICKED_DETAILS: &str = "COILEhBUb2tlbktpY2tlZEVycm9yGkMKLXR5cGUuZ29vZ2xlYXBpcy5jb20vb3BlbmltLnByb3RvYnVm\
                                  LkVycm9ySW5mbxISIhBUb2tlbktpY2tlZEVycm9y";

    #[test]
    fn details_equal_the_vector_of_the_specification_and_come_back() {
        let status = Status::openim(1506, "TokenKickedError", "");
        assert_eq!(status.details_bin().as_deref(), Some(KICKED_DETAILS));
        assert_eq!(Status::parse(1506, "TokenKickedError", Some(KICKED_DETAILS)), status);
        assert_eq!(Status::new(14, "full").details_bin(), None);
    }

    #[test]
    fn details_name_the_package_of_the_callers_generation() {
        for (dialect, url) in [
            (Dialect::Openim, "type.googleapis.com/openim.protobuf.ErrorInfo"),
            (Dialect::Legacy, "type.googleapis.com/OpenIMServer.protobuf.ErrorInfo"),
        ] {
            let status = Status::args("UserIDs is empty").for_peers_of(dialect);
            let details = status.details_bin().expect("attached");
            let bytes = BASE64_LENIENT.decode(&details).expect("base64");
            let read = pb::rpc::Status::decode(bytes.as_slice()).expect("a status");
            assert_eq!(read.details[0].type_url, url);
            assert_eq!(Status::parse(1001, "ArgsError", Some(&details)), status);
        }
    }

    #[test]
    fn broken_or_foreign_details_count_as_none() {
        for details in ["", "!", "COIL", "CAE"] {
            assert_eq!(Status::parse(13, "x", Some(details)).cause, None, "{details}");
        }
    }

    #[test]
    fn padded_details_are_read_too() {
        let status = Status::openim(1001, "ArgsError", "content is empty");
        let mut details = status.details_bin().expect("attached");
        while !details.len().is_multiple_of(4) {
            details.push('=');
        }
        assert_eq!(Status::parse(1001, "ArgsError", Some(&details)), status);
    }

    #[test]
    fn messages_are_escaped_as_grpc_says() {
        let table = [
            ("plain text ~", "plain text ~"),
            ("50%", "50%25"),
            ("a\nb", "a%0Ab"),
            ("ü", "%C3%BC"),
            ("", ""),
        ];
        for (text, escaped) in table {
            let status = Status::new(13, text);
            assert_eq!(status.escaped_message(), escaped);
            assert_eq!(Status::parse(13, escaped, None), status);
        }
    }

    #[test]
    fn timeouts_have_digits_and_a_unit() {
        let table = [
            ("1S", Some(1_000)),
            ("100m", Some(100)),
            ("2M", Some(120_000)),
            ("1H", Some(3_600_000)),
            ("99999999H", Some(99_999_999 * 3_600_000)),
            ("1u", Some(1)),
            ("1500u", Some(2)),
            ("1n", Some(1)),
            ("0m", Some(0)),
            ("", None),
            ("S", None),
            ("1", None),
            ("123456789S", None),
            ("-1S", None),
            ("1s", None),
            ("1ü", None),
        ];
        for (text, ms) in table {
            assert_eq!(parse_timeout(text), ms, "{text}");
        }
    }

    #[test]
    fn timeouts_are_written_in_milliseconds_and_read_back() {
        for (ms, value) in [(0, "0m"), (1, "1m"), (99_999_999, "99999999m"), (100_000_000, "99999999m")] {
            assert_eq!(timeout_value(ms), value);
            assert_eq!(parse_timeout(value), Some(ms.min(TIMEOUT_MS_MAX)));
        }
    }

    #[test]
    fn printable_ascii_is_from_space_to_tilde() {
        for (value, printable) in [
            ("", true),
            (" ~aZ09", true),
            ("\x1f", false),
            ("\x7f", false),
            ("a\tb", false),
            ("\u{fc}", false),
        ] {
            assert_eq!(is_printable(value), printable, "{value:?}");
        }
    }

    #[test]
    fn http_errors_are_read_as_grpc_says() {
        let table = [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (429, 14),
            (502, 14),
            (503, 14),
            (504, 14),
            (500, 2),
            (302, 2),
        ];
        for (http, code) in table {
            assert_eq!(code_of_http(http), code, "{http}");
        }
    }

    proptest! {
        #[test]
        fn escaping_comes_back(text in ".{0,40}") {
            let escaped = Status::new(2, text.as_str()).escaped_message();
            prop_assert!(escaped.bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert_eq!(Status::parse(2, &escaped, None).message, text);
        }
    }
}
