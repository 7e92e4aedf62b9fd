//! gRPC as bytes: the length prefix, status values (OpenIM's are above 16), `grpc-message`, `grpc-status-details-bin`
//! and `grpc-timeout`. HTTP/2 is not here.
//!
//! What always holds: an assembler never keeps more than its limit plus one chunk, whatever length a peer announces.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use prost::Message;

use crate::pb;

/// Compressed flag and length (gRPC over HTTP/2, "Length-Prefixed-Message").
pub const PREFIX_BYTES: usize = 5;

/// `type_url` of the one detail that OpenIM's peers look at (spec 6.4).
const ERROR_INFO_URL: &str = "type.googleapis.com/openim.protobuf.ErrorInfo";

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
    /// Bad metadata (spec 6.1).
    pub const INVALID_ARGUMENT: i32 = 3;
    /// The deadline passed.
    pub const DEADLINE_EXCEEDED: i32 = 4;
    /// A limit of ours.
    pub const RESOURCE_EXHAUSTED: i32 = 8;
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
}

impl Status {
    /// An error of gRPC itself, without details.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), cause: None }
    }

    /// An OpenIM error. P16 always attaches details; their cause is the detail, else the message (spec 6.4).
    pub fn openim(code: i32, message: &str, detail: &str) -> Self {
        let cause = if detail.is_empty() { message } else { detail };
        Self { code, message: message.to_owned(), cause: Some(cause.to_owned()) }
    }

    /// 1001 `ArgsError` with the text of a request check (spec 4.2).
    pub fn args(detail: &str) -> Self {
        Self::openim(code::ARGS, "ArgsError", detail)
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
                type_url: ERROR_INFO_URL.to_owned(),
                value: info.encode_to_vec().into(),
            }],
        };
        Some(STANDARD_NO_PAD.encode(status.encode_to_vec()))
    }

    /// Rebuilds what a peer sent. Broken details count as none; the cause follows spec 6.4 (`warp` joined by `->`,
    /// then `cause`; first detail only).
    pub fn parse(code: i32, message: &str, details_bin: Option<&str>) -> Self {
        let message = percent_decode_str(message).decode_utf8_lossy().into_owned();
        let cause = details_bin.and_then(cause_of);
        Self { code, message, cause }
    }
}

fn cause_of(details_bin: &str) -> Option<String> {
    let bytes = BASE64_LENIENT.decode(details_bin).ok()?;
    let status = pb::rpc::Status::decode(bytes.as_slice()).ok()?;
    let detail = status.details.into_iter().next().filter(|d| d.type_url == ERROR_INFO_URL)?;
    let info = pb::openim::protobuf::ErrorInfo::decode(detail.value).ok()?;
    let mut parts = info.warp;
    if !info.cause.is_empty() {
        parts.push(info.cause);
    }
    Some(parts.join("->"))
}

/// Prefixes one message. `None` if its length does not fit the prefix.
pub fn frame(message: &[u8]) -> Option<Bytes> {
    let length = u32::try_from(message.len()).ok()?;
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + message.len());
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_slice(message);
    Some(bytes.freeze())
}

/// Why a body is not one unary message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The compressed flag is set; no compression is offered.
    Compressed,
    /// The prefix announces so many bytes, or so many came: more than the limit.
    TooBig(usize),
    /// The body ended before the message did.
    Truncated,
    /// Bytes follow the one message.
    Trailing,
}

impl BodyFault {
    /// As a server answers it (texts of grpc-go).
    pub fn status(self, limit: usize) -> Status {
        match self {
            Self::Compressed => Status::new(
                code::UNIMPLEMENTED,
                "grpc: message is compressed, and no compression is supported",
            ),
            Self::TooBig(size) => Status::new(
                code::RESOURCE_EXHAUSTED,
                format!("grpc: received message larger than max ({size} vs. {limit})"),
            ),
            Self::Truncated => Status::new(code::INTERNAL, "grpc: body ended inside a message"),
            Self::Trailing => Status::new(code::INTERNAL, "grpc: a unary call carries one message"),
        }
    }
}

/// Puts the one message of a unary body together, however it is cut.
#[derive(Debug)]
pub struct Assembler {
    limit: usize,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// At most one chunk so far: the usual case, which copies nothing.
    One(Bytes),
    Many(BytesMut),
}

impl Held {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes,
        }
    }
}

impl Assembler {
    /// For a message of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, held: Held::One(Bytes::new()) }
    }

    /// Takes the next chunk of the body. After an error nothing more may be pushed.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), BodyFault> {
        self.held = match std::mem::replace(&mut self.held, Held::One(Bytes::new())) {
            Held::One(first) if first.is_empty() => Held::One(chunk),
            Held::One(first) => {
                let mut many = BytesMut::with_capacity(first.len() + chunk.len());
                many.put_slice(&first);
                many.put_slice(&chunk);
                Held::Many(many)
            }
            Held::Many(mut many) => {
                many.put_slice(&chunk);
                Held::Many(many)
            }
        };
        match prefix(self.held.as_slice()) {
            Some((flag, _)) if flag != 0 => Err(BodyFault::Compressed),
            Some((_, length)) if length > self.limit => Err(BodyFault::TooBig(length)),
            Some((_, length)) if self.held.as_slice().len() > PREFIX_BYTES + length => {
                Err(BodyFault::Trailing)
            }
            _ => Ok(()),
        }
    }

    /// Bytes held.
    pub fn held_bytes(&self) -> usize {
        self.held.as_slice().len()
    }

    /// The body is over: gives the message.
    pub fn finish(self) -> Result<Bytes, BodyFault> {
        let (_, length) = prefix(self.held.as_slice()).ok_or(BodyFault::Truncated)?;
        let mut body = match self.held {
            Held::One(bytes) => bytes,
            Held::Many(bytes) => bytes.freeze(),
        };
        if body.len() != PREFIX_BYTES + length {
            return Err(BodyFault::Truncated);
        }
        Ok(body.split_off(PREFIX_BYTES))
    }
}

/// The compressed flag and the announced length, once they are there.
fn prefix(bytes: &[u8]) -> Option<(u8, usize)> {
    let (&flag, rest) = bytes.split_first()?;
    let length = u32::from_be_bytes(*rest.first_chunk::<4>()?);
    Some((flag, usize::try_from(length).unwrap_or(usize::MAX)))
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
    fn a_body_that_is_not_one_message_is_refused() {
        type Row<'a> = (&'a [u8], Result<&'a [u8], BodyFault>);
        let table: [Row<'_>; 8] = [
            (b"\0\0\0\0\x02ab", Ok(b"ab")),
            (b"\0\0\0\0\0", Ok(b"")),
            (b"", Err(BodyFault::Truncated)),
            (b"\0\0\0\0", Err(BodyFault::Truncated)),
            (b"\0\0\0\0\x02a", Err(BodyFault::Truncated)),
            (b"\x01\0\0\0\0", Err(BodyFault::Compressed)),
            (b"\0\0\0\0\x02abc", Err(BodyFault::Trailing)),
            (b"\0\0\0\0\x05", Err(BodyFault::TooBig(5))),
        ];
        for (body, expected) in table {
            let mut assembler = Assembler::new(4);
            let got = assembler.push(Bytes::copy_from_slice(body)).and_then(|()| assembler.finish());
            assert_eq!(got, expected.map(Bytes::copy_from_slice), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_body_gives_the_same_message(
            message in prop::collection::vec(any::<u8>(), 0..200),
            cut in 1usize..40,
        ) {
            let body = frame(&message).expect("short");
            let mut assembler = Assembler::new(200);
            for chunk in body.chunks(cut) {
                assembler.push(Bytes::copy_from_slice(chunk)).expect("within the limit");
            }
            prop_assert_eq!(assembler.held_bytes(), body.len());
            prop_assert_eq!(assembler.finish().expect("whole"), message);
        }

        #[test]
        fn escaping_comes_back(text in ".{0,40}") {
            let escaped = Status::new(2, text.as_str()).escaped_message();
            prop_assert!(escaped.bytes().all(|b| (0x20..0x7f).contains(&b)));
            prop_assert_eq!(Status::parse(2, &escaped, None).message, text);
        }
    }
}
