//! One WebSocket frame (RFC 6455 section 5.2).

use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// A complete frame as the gateway sends it: header and payload, unmasked, unfragmented. Cloning counts a
/// reference without an atomic; one frame serves all its recipients on a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame(Rc<[u8]>);

/// RFC 6455 section 5.2 opcodes that the gateway sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl Frame {
    /// Builds a frame around a payload.
    pub fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let _ = (opcode, payload);
        todo!()
    }
    /// A close frame; `None` = without code (RFC 6455 section 5.5.1). `reason` is cut to 123 bytes at a character boundary.
    pub fn close(code: Option<u16>, reason: &str) -> Self {
        let _ = (code, reason);
        todo!()
    }
    /// Bytes that are not a WebSocket frame (an HTTP response), so that they can wait in the same outbox.
    pub fn raw(bytes: &[u8]) -> Self {
        Self(Rc::from(bytes))
    }
    /// Header and payload.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}
