//! The fields of requests and replies, as names and as what a decoder found; shared by gob and JSON.

use std::borrow::Cow;

use bytes::Bytes;

use super::{OwnedResponse, Request, gob};

/// The fields of both structures (spec 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    ReqIdentifier,
    Token,
    SendId,
    OperationId,
    MsgIncr,
    ErrCode,
    ErrMsg,
    Data,
}

/// One of the two structures, as a decoder sees it.
pub(super) trait Structure {
    /// What it has. Others are unknown to it, also those of the other structure.
    const FIELDS: [Field; 6];

    fn from_parts(parts: Parts<'_>) -> Self;
}

impl Field {
    pub(super) fn by_gob_name(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"ReqIdentifier" => Self::ReqIdentifier,
            b"Token" => Self::Token,
            b"SendID" => Self::SendId,
            b"OperationID" => Self::OperationId,
            b"MsgIncr" => Self::MsgIncr,
            b"ErrCode" => Self::ErrCode,
            b"ErrMsg" => Self::ErrMsg,
            b"Data" => Self::Data,
            _ => return None,
        })
    }

    /// The only wire type that Go accepts for it.
    pub(super) fn gob_type(self) -> i64 {
        match self {
            Self::ReqIdentifier | Self::ErrCode => gob::INT,
            Self::Data => gob::BYTES,
            Self::Token | Self::SendId | Self::OperationId | Self::MsgIncr | Self::ErrMsg => gob::STRING,
        }
    }

    pub(super) fn json_name(self) -> &'static str {
        match self {
            Self::ReqIdentifier => "reqIdentifier",
            Self::Token => "token",
            Self::SendId => "sendID",
            Self::OperationId => "operationID",
            Self::MsgIncr => "msgIncr",
            Self::ErrCode => "errCode",
            Self::ErrMsg => "errMsg",
            Self::Data => "data",
        }
    }
}

/// The fields of both structures as a decoder finds them, borrowed where possible.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) id: i32,
    pub(super) token: Cow<'a, str>,
    pub(super) send_id: Cow<'a, str>,
    pub(super) operation_id: Cow<'a, str>,
    pub(super) msg_incr: Cow<'a, str>,
    pub(super) err_code: i32,
    pub(super) err_msg: Cow<'a, str>,
    pub(super) data: Option<Cow<'a, [u8]>>,
}

impl<'a> Parts<'a> {
    /// Where a number goes; `None` if the field is none.
    pub(super) fn number(&mut self, field: Field) -> Option<&mut i32> {
        match field {
            Field::ReqIdentifier => Some(&mut self.id),
            Field::ErrCode => Some(&mut self.err_code),
            _ => None,
        }
    }

    /// Where a text goes; `None` if the field is none.
    pub(super) fn text(&mut self, field: Field) -> Option<&mut Cow<'a, str>> {
        match field {
            Field::Token => Some(&mut self.token),
            Field::SendId => Some(&mut self.send_id),
            Field::OperationId => Some(&mut self.operation_id),
            Field::MsgIncr => Some(&mut self.msg_incr),
            Field::ErrMsg => Some(&mut self.err_msg),
            Field::ReqIdentifier | Field::ErrCode | Field::Data => None,
        }
    }
}

impl Structure for Request {
    const FIELDS: [Field; 6] =
        [Field::ReqIdentifier, Field::Token, Field::SendId, Field::OperationId, Field::MsgIncr, Field::Data];

    fn from_parts(parts: Parts<'_>) -> Self {
        Self {
            id: parts.id,
            send_id: parts.send_id.into(),
            operation_id: parts.operation_id.into(),
            msg_incr: parts.msg_incr.into(),
            data: parts.data.map(into_bytes).unwrap_or_default(),
        }
    }
}

impl Structure for OwnedResponse {
    const FIELDS: [Field; 6] = [
        Field::ReqIdentifier,
        Field::MsgIncr,
        Field::OperationId,
        Field::ErrCode,
        Field::ErrMsg,
        Field::Data,
    ];

    fn from_parts(parts: Parts<'_>) -> Self {
        Self {
            id: parts.id,
            msg_incr: parts.msg_incr.into(),
            operation_id: parts.operation_id.into(),
            err_code: parts.err_code,
            err_msg: parts.err_msg.into(),
            data: parts.data.map(into_bytes),
        }
    }
}

/// One copy of a borrowed slice; none of a decoded one.
fn into_bytes(data: Cow<'_, [u8]>) -> Bytes {
    match data {
        Cow::Borrowed(data) => Bytes::copy_from_slice(data),
        Cow::Owned(data) => Bytes::from(data),
    }
}
