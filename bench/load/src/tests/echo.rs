//! A server that echoes, by tungstenite: somebody else's reading of RFC 6455.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tungstenite::Message;

/// See the module's documentation. Its threads end with their connections, and the process.
pub struct Echo {
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    messages: AtomicU64,
    stall: AtomicBool,
}

impl Echo {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let all = Arc::clone(&seen);
        spawn(move || {
            for socket in listener.incoming() {
                let seen = Arc::clone(&all);
                spawn(move || {
                    let Ok(mut socket) = tungstenite::accept(socket.unwrap()) else { return };
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    while let Ok(message) = socket.read() {
                        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
                            continue; // answered by tungstenite
                        }
                        seen.messages.fetch_add(1, Ordering::SeqCst);
                        if seen.stall.swap(false, Ordering::SeqCst) {
                            std::thread::sleep(STALL);
                        }
                        if socket.send(message).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    /// The next message is answered late.
    pub fn stall_once(&self) {
        self.seen.stall.store(true, Ordering::SeqCst);
    }

    pub fn connections(&self) -> u64 {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub fn messages(&self) -> u64 {
        self.seen.messages.load(Ordering::SeqCst)
    }
}

/// What is measured by those who were stopped by it, not waited for.
pub const STALL: Duration = Duration::from_millis(500);

pub fn spawn(work: impl FnOnce() + Send + 'static) {
    drop(std::thread::Builder::new().spawn(work).unwrap());
}
