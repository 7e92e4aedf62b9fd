//! A call as its caller sees it: whether it may be made twice, and why it has no answer.

use std::fmt;

use super::{Status, code};

/// Whether a call that may have been carried out may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may, once, after a broken connection: whenever the second one comes, it changes nothing more.
    Safe,
    /// It must not: a message would be sent twice, or a late repetition would undo what came after the first. It is
    /// sent again only if the first instance says that it did not look at it.
    Never,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallFault {
    /// The service answered with this status (OpenIM's are above 16, spec 6.4), or with what gRPC makes of an HTTP
    /// error, of a reset stream or of an answer that is none: 13 and others.
    Status(Box<Status>),
    /// No instance could be asked, or the connection broke: the text names the service and the last cause.
    Unavailable(Box<str>),
    /// There was no answer in time. The call may have been carried out.
    Deadline,
    /// A limit of ours, nothing was sent: too many calls are open or wait, or hold too much. Of an answer that is too
    /// much to hold together with the others this is said as well.
    Overloaded,
    /// The value of this metadata key is not printable ASCII (spec 6.1), nothing was sent.
    Metadata(&'static str),
}

impl CallFault {
    /// With a status of gRPC's own.
    pub fn status(code: i32, text: impl Into<String>) -> Self {
        Self::from(Status::new(code, text))
    }

    /// As grpc-go would report it to its caller.
    pub fn into_status(self) -> Status {
        match self {
            Self::Status(status) => *status,
            Self::Unavailable(text) => Status::new(code::UNAVAILABLE, text),
            Self::Deadline => Status::new(code::DEADLINE_EXCEEDED, "context deadline exceeded"),
            Self::Overloaded => Status::new(code::RESOURCE_EXHAUSTED, "too many calls"),
            Self::Metadata(key) => {
                let text = format!("header key {key:?} contains value with non-printable ASCII characters");
                Status::new(code::INTERNAL, text)
            }
        }
    }
}

impl From<Status> for CallFault {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl fmt::Display for CallFault {
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

impl std::error::Error for CallFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_small_and_say_what_grpc_go_would() {
        assert!(size_of::<CallFault>() <= 32, "{}", size_of::<CallFault>());
        let table = [
            (CallFault::from(Status::openim(1506, "TokenKickedError", "")), 1506, "TokenKickedError"),
            (CallFault::Unavailable("auth: nobody".into()), 14, "auth: nobody"),
            (CallFault::Deadline, 4, "context deadline exceeded"),
            (CallFault::Overloaded, 8, "too many calls"),
            (
                CallFault::Metadata("opuserid"),
                13,
                "header key \"opuserid\" contains value with non-printable ASCII characters",
            ),
        ];
        for (fault, code, text) in table {
            let status = fault.into_status();
            assert_eq!((status.code, status.message.as_str()), (code, text));
        }
    }
}
