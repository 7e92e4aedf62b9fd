//! What is kept of a connection for its limits and for the line that is logged at its end. In a box of 64 bytes beside
//! the session, which is looked at far more often.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::Tick;
use super::meter::Meter;

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// Address of the client. (In two parts: a `SocketAddr` is twice the size.)
    peer_address: IpAddr,
    peer_port: u16,
    /// What the client sent last.
    pub last_frame: LastFrame,
    /// When it was accepted.
    pub since: Tick,
    /// Received after the handshake.
    pub bytes_in: u64,
    /// Given to the socket, the answer to the handshake included.
    pub bytes_out: u64,
    /// Thrown away at the close.
    pub bytes_unsent: u32,
    /// What it has used of its rates.
    pub meter: Meter,
}

/// The kind of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastFrame {
    /// Nothing was received.
    #[default]
    Nothing,
    /// A request.
    Request,
    /// A text ping (spec 1.6).
    TextPing,
    /// A text pong.
    TextPong,
    /// A control frame.
    Ping,
    /// A control frame.
    Pong,
    /// A close frame.
    Close,
    /// Something that ended the session.
    Fault,
}

impl LastFrame {
    /// As it is logged.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "none",
            Self::Request => "request",
            Self::TextPing => "text_ping",
            Self::TextPong => "text_pong",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Close => "close",
            Self::Fault => "fault",
        }
    }
}

impl Ledger {
    /// Of a connection that was accepted now.
    pub fn new(tick: Tick, peer: SocketAddr) -> Self {
        Self {
            peer_address: peer.ip(),
            peer_port: peer.port(),
            last_frame: LastFrame::Nothing,
            since: tick,
            bytes_in: 0,
            bytes_out: 0,
            bytes_unsent: 0,
            meter: Meter::default(),
        }
    }

    /// A proxy has named the client.
    pub fn came_from(&mut self, client: SocketAddr) {
        (self.peer_address, self.peer_port) = (client.ip(), client.port());
    }

    /// Address of the client: the peer's, or what a believed proxy says (port 0: not known).
    pub fn peer(&self) -> SocketAddr {
        SocketAddr::new(self.peer_address, self.peer_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_fits_its_size_class() {
        assert!(size_of::<Ledger>() <= 64, "{} bytes", size_of::<Ledger>());
    }
}
