//! What HTTP/2's errors and answers that are none mean to gRPC.

use h2::Reason;

use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use crate::rpc::unary::Answer;
use crate::wire::grpc::{CallFault, code, code_of_http};

/// How one attempt of a call ended without an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server says that it did not look at it, or it was never sent: it may be tried elsewhere, whatever it does.
    Refused(String),
    /// The connection broke: it may have been carried out.
    Broken(String),
    /// What the caller gets; another attempt is of no use.
    Final(CallFault),
    /// As `Final`: the peer reset the stream, or we did because its answer breaks HTTP/2.
    Reset(CallFault),
}

impl Failure {
    /// Of a stream.
    pub(super) fn of(error: &h2::Error) -> Self {
        match error.reason() {
            // RFC 9113, 6.8: of streams above the last id in a GOAWAY nothing was done. h2 ends no other so.
            _ if error.is_go_away() && error.is_remote() => Self::Refused(error.to_string()),
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Self::Refused(error.to_string()),
            Some(reason) if error.is_reset() => {
                Self::Reset(CallFault::status(code_of_reason(reason), format!("stream reset: {reason}")))
            }
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// gRPC over HTTP/2, "Errors": what a reset stream means.
fn code_of_reason(reason: Reason) -> i32 {
    match reason {
        Reason::REFUSED_STREAM => code::UNAVAILABLE,
        Reason::CANCEL => code::CANCELLED,
        Reason::ENHANCE_YOUR_CALM => code::RESOURCE_EXHAUSTED,
        Reason::INADEQUATE_SECURITY => code::PERMISSION_DENIED,
        _ => code::INTERNAL,
    }
}

/// What is not a message is a fault.
pub(super) fn message_of(answer: Answer) -> Result<bytes::Bytes, CallFault> {
    Err(match answer {
        Answer::Message(message) => return Ok(message),
        Answer::Refused(status) => status.into(),
        Answer::Http(status) => {
            let text = format!("unexpected HTTP status code received from server: {status}");
            CallFault::status(code_of_http(status.as_u16()), text)
        }
        Answer::Bad(fault) => fault.status(GRPC_MESSAGE_BYTES_MAX).into(),
        Answer::NoStatus => CallFault::status(code::INTERNAL, "the answer ended without a grpc-status"),
        Answer::TooMuch => CallFault::Overloaded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_streams_have_grpcs_codes() {
        let table = [
            (Reason::NO_ERROR, 13),
            (Reason::PROTOCOL_ERROR, 13),
            (Reason::CANCEL, 1),
            (Reason::REFUSED_STREAM, 14),
            (Reason::ENHANCE_YOUR_CALM, 8),
            (Reason::INADEQUATE_SECURITY, 7),
        ];
        for (reason, code) in table {
            assert_eq!(code_of_reason(reason), code, "{reason}");
        }
    }
}
