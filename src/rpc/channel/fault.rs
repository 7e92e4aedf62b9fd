//! Why a call has no answer, and what HTTP/2's errors mean to gRPC.

use std::fmt;

use h2::Reason;

use crate::limits::GRPC_MESSAGE_BYTES_MAX;
use crate::rpc::unary::Answer;
use crate::wire::grpc::{Status, code, code_of_http};

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The service answered with this status (OpenIM's are above 16, spec 6.4), or with what gRPC makes of an HTTP
    /// error, of a reset stream or of an answer that is none: 13 and others.
    Status(Box<Status>),
    /// No instance could be asked, or the connection broke: the text names the service and the last cause.
    Unavailable(Box<str>),
    /// There was no answer in time. The call may have been carried out.
    Deadline,
    /// A limit of the channel, nothing was sent: too many calls are open or wait, or hold too much. Of an answer that
    /// is too much to hold together with the others this is said as well.
    Overloaded,
    /// The value of this key is not printable ASCII (spec 6.1), nothing was sent.
    Metadata(&'static str),
}

impl Fault {
    /// As grpc-go would report it to its caller. `service` is the one that was asked.
    pub fn into_status(self, service: &str) -> Status {
        match self {
            Self::Status(status) => *status,
            Self::Unavailable(text) => Status::new(code::UNAVAILABLE, text.into_string()),
            Self::Deadline => Status::new(code::DEADLINE_EXCEEDED, "context deadline exceeded"),
            Self::Overloaded => Status::new(code::RESOURCE_EXHAUSTED, format!("too many calls to {service}")),
            Self::Metadata(key) => {
                let text = format!("header key \"{key}\" contains value with non-printable ASCII characters");
                Status::new(code::INTERNAL, text)
            }
        }
    }

    fn status(code: i32, text: impl Into<String>) -> Self {
        Self::Status(Box::new(Status::new(code, text)))
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "status {}: {}", status.code, status.message),
            Self::Unavailable(text) => f.write_str(text),
            Self::Deadline => f.write_str("no answer before the deadline"),
            Self::Overloaded => f.write_str("too many calls are open, or they hold too much"),
            Self::Metadata(key) => write!(f, "the value of {key} is not printable ASCII"),
        }
    }
}

impl std::error::Error for Fault {}

/// How one attempt of a call ended without an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server says that it did not look at it, or it was never sent: it may be tried elsewhere, whatever it does.
    Refused(String),
    /// The connection broke: it may have been carried out.
    Broken(String),
    /// What the caller gets; another attempt is of no use.
    Final(Fault),
    /// As `Final`: the peer reset the stream, or we did because its answer breaks HTTP/2.
    Reset(Fault),
}

impl Failure {
    /// Of a stream.
    pub(super) fn of(error: &h2::Error) -> Self {
        match error.reason() {
            // RFC 9113, 6.8: of streams above the last id in a GOAWAY nothing was done. h2 ends no other so.
            _ if error.is_go_away() && error.is_remote() => Self::Refused(error.to_string()),
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Self::Refused(error.to_string()),
            Some(reason) if error.is_reset() => {
                Self::Reset(Fault::status(code_of_reason(reason), format!("stream reset: {reason}")))
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
pub(super) fn message_of(answer: Answer) -> Result<bytes::Bytes, Fault> {
    Err(match answer {
        Answer::Message(message) => return Ok(message),
        Answer::Refused(status) => status.into(),
        Answer::Http(status) => {
            let text = format!("unexpected HTTP status code received from server: {status}");
            Fault::status(code_of_http(status.as_u16()), text)
        }
        Answer::Bad(fault) => fault.status(GRPC_MESSAGE_BYTES_MAX).into(),
        Answer::NoStatus => Fault::status(code::INTERNAL, "the answer ended without a grpc-status"),
        Answer::TooMuch => Fault::Overloaded,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_small_and_say_what_grpc_go_would() {
        assert!(size_of::<Fault>() <= 32, "{}", size_of::<Fault>());
        let table = [
            (Fault::from(Status::openim(1506, "TokenKickedError", "")), 1506, "TokenKickedError"),
            (Fault::Unavailable("auth: nobody".into()), 14, "auth: nobody"),
            (Fault::Deadline, 4, "context deadline exceeded"),
            (Fault::Overloaded, 8, "too many calls to auth"),
            (
                Fault::Metadata("opuserid"),
                13,
                "header key \"opuserid\" contains value with non-printable ASCII characters",
            ),
        ];
        for (fault, code, text) in table {
            let status = fault.into_status("auth");
            assert_eq!((status.code, status.message.as_str()), (code, text));
        }
    }

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
