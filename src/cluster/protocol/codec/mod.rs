//! Frames to bytes and back (`proto/pinion/peer/v1/peer.proto`): pure, within limits, and never a panic.
//!
//! `write` makes the words of a frame, `read` a frame of words, `queue` keeps encoded frames until the link takes
//! them, many in one message. What always holds: frames leave in the order in which they came; what is read breaks no
//! limit, and costs at most about a hundred times its bytes while it is read.

mod queue;
mod read;
mod write;

use std::fmt;

pub use queue::{Batch, Queue, Unsent};
pub use read::decode;

use super::super::fields::Malformed;

/// The version of the protocol that this node speaks.
///
/// 2: a claim names its token, and a login hears of others that it met.
pub const VERSION: u32 = 2;

/// Why a message of a peer is not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecFault {
    /// No protobuf.
    Malformed(&'static str),
    /// No protobuf of its kind.
    Undecodable(String),
    /// It breaks this rule of the file.
    Rule(&'static str),
    /// Its Hello is of that version.
    Version(u32),
}

impl fmt::Display for CodecFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(text) => write!(f, "a message of the peer is no batch of frames: {text}"),
            Self::Undecodable(text) => write!(f, "a frame of the peer cannot be decoded: {text}"),
            Self::Rule(text) => write!(f, "a frame of the peer breaks a rule: {text}"),
            Self::Version(theirs) => write!(
                f,
                "the peer speaks version {theirs} of the protocol between nodes, this node version {VERSION}: run \
                 releases with a common version"
            ),
        }
    }
}

impl From<Malformed> for CodecFault {
    fn from(fault: Malformed) -> Self {
        Self::Malformed(fault.text())
    }
}

#[cfg(test)]
mod tests;
