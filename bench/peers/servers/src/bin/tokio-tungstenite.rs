//! tokio-tungstenite as a user would write it: a task per connection on one thread; to broadcast is to write to each.
//!
//! One setting differs from its defaults: read buffers of 4 KiB instead of 128 KiB, which it allocates and clears for
//! each connection and which would be all that its memory figure says.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking and uses the real clock"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::stream::{SplitSink, StreamExt as _};
use futures_util::{SinkExt as _, TryStreamExt as _};
use peers::{BROADCAST, ECHO};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

const READ_BUFFER_BYTES: usize = 4096;

type Sink = Rc<Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>>;
type Crowd = Rc<RefCell<BTreeMap<u64, Sink>>>;

fn main() {
    let listener = peers::listen();
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime");
        let crowd = Crowd::default();
        for number in 0.. {
            let (socket, _) = listener.accept().await.expect("a client");
            socket.set_nodelay(true).expect("a TCP option");
            drop(tokio::task::spawn_local(serve(number, socket, Rc::clone(&crowd))));
        }
    });
}

/// Ends with the connection; whatever its end was is of no interest here.
async fn serve(number: u64, socket: TcpStream, crowd: Crowd) {
    let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    let Ok(websocket) = tokio_tungstenite::accept_async_with_config(socket, Some(config)).await else {
        return;
    };
    let (sink, mut stream) = websocket.split();
    let sink = Rc::new(Mutex::new(sink));
    crowd.borrow_mut().insert(number, Rc::clone(&sink));
    while let Ok(Some(message)) = stream.try_next().await {
        if !matches!(message, Message::Text(_) | Message::Binary(_)) {
            continue; // pings are answered by the library
        }
        match message.clone().into_data().first() {
            Some(&ECHO) => drop(sink.lock().await.send(message).await),
            Some(&BROADCAST) => broadcast(number, &message, &crowd).await,
            _ => {}
        }
    }
    crowd.borrow_mut().remove(&number);
}

/// A receiver that has gone is found by its own task.
async fn broadcast(from: u64, message: &Message, crowd: &Crowd) {
    let others = crowd
        .borrow()
        .iter()
        .filter(|(n, _)| **n != from)
        .map(|(_, sink)| Rc::clone(sink))
        .collect::<Vec<_>>();
    for sink in others {
        drop(sink.lock().await.send(message.clone()).await);
    }
}
