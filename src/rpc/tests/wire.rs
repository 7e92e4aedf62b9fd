//! A peer that writes HTTP/2 by hand, so that it can break any rule. Also used by `tests/it`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What begins a connection.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Types of frames (RFC 9113 section 6).
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// Flags.
pub(super) const ACK: u8 = 0x1;
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
/// Everything that a test waits for must be there by then.
const TIMEOUT: Duration = Duration::from_secs(60);

/// One frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Header fields as literals that are not indexed (RFC 7541 section 6.2.2).
pub(super) fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for text in fields.iter().flat_map(|(name, value)| [("\0", *name), ("", *value)]) {
        block.extend(text.0.as_bytes());
        block.push(u8::try_from(text.1.len()).ok().filter(|n| *n < 127).expect("short texts only"));
        block.extend(text.1.as_bytes());
    }
    block
}

/// The head of a good push call.
pub(super) fn call_head() -> Vec<u8> {
    literals(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg"),
        (":authority", "gateway"),
        ("content-type", "application/grpc"),
        ("operationid", "op"),
    ])
}

/// What the server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

impl Received {
    /// The error code of RST_STREAM or GOAWAY.
    pub(super) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// The client's side of a connection.
pub(super) struct Peer(pub(super) TcpStream);

impl Peer {
    /// Connects and says nothing.
    pub(super) fn silent(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        socket.set_write_timeout(Some(TIMEOUT)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self(socket)
    }

    /// Connects, sends the preface and SETTINGS.
    pub(super) fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// As [`Peer::connect`], with these settings.
    pub(super) fn connect_with(address: SocketAddr, settings: &[u8]) -> Self {
        let mut peer = Self::silent(address);
        peer.write(PREFACE);
        peer.write(&frame(SETTINGS, 0, 0, settings));
        peer
    }

    /// Sends bytes. A server that has closed is no failure: what it said is still there to be read.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Err(error) if !is_end(error.kind()) => panic!("{error}"),
            _ => {}
        }
    }

    /// The next frame; `None`: the server has closed.
    pub(super) fn next(&mut self) -> Option<Received> {
        let mut head = [0; 9];
        self.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]).try_into().unwrap()];
        self.read_exact(&mut payload)?;
        Some(Received { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.0.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if is_end(error.kind()) => None,
            Err(error) => panic!("waited in vain: {error}"),
        }
    }

    /// The first frame that is wanted; what else comes is passed over.
    pub(super) fn find(&mut self, wanted: impl Fn(&Received) -> bool) -> Received {
        let mut last = None;
        loop {
            let Some(frame) = self.next() else { panic!("the server closed after {last:?}") };
            if wanted(&frame) {
                return frame;
            }
            last = Some(frame);
        }
    }

    /// The first frame about a stream that ends it: HEADERS with END_STREAM, or RST_STREAM.
    pub(super) fn outcome(&mut self, stream: u32) -> Received {
        self.find(|f| f.stream == stream && (f.kind == RST_STREAM || f.flags & END_STREAM != 0))
    }

    /// Reads to the end of the connection: the code of the last GOAWAY, if there was one.
    pub(super) fn closed(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }

    /// Whether the server still answers: a PING comes back.
    pub(super) fn is_served(&mut self) -> bool {
        self.write(&frame(PING, 0, 0, b"are you?"));
        while let Some(frame) = self.next() {
            if frame.kind == PING && frame.flags & ACK != 0 && frame.payload == b"are you?" {
                return true;
            }
        }
        false
    }

    /// From now on reads and writes do not wait.
    pub(super) fn into_flooder(self) -> Flooder {
        self.0.set_nonblocking(true).unwrap();
        Flooder { socket: self.0, unsent: Vec::new(), chunks: 0 }
    }
}

/// Sends as fast as the server reads, without a thread of its own.
pub(super) struct Flooder {
    socket: TcpStream,
    unsent: Vec<u8>,
    /// Chunks begun.
    pub(super) chunks: u32,
}

impl Flooder {
    /// Reads what is there and writes what fits: bytes written, or `None` if the server has closed.
    pub(super) fn step(&mut self, chunk: impl FnOnce(u32) -> Vec<u8>) -> Option<usize> {
        let mut sink = [0; 65_536];
        match self.socket.read(&mut sink) {
            Ok(0) => return None,
            Err(error) if error.kind() != ErrorKind::WouldBlock => return None,
            _ => {}
        }
        if self.unsent.is_empty() {
            self.unsent = chunk(self.chunks);
            self.chunks += 1;
        }
        match self.socket.write(&self.unsent) {
            Ok(n) => {
                self.unsent.drain(..n);
                Some(n)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(0),
            Err(_) => None,
        }
    }
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}
