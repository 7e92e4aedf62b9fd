//! fastwebsockets as its examples have it: hyper upgrades, a task per connection on one thread, halves split; to
//! broadcast is to write to each.

#![allow(
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a bench fails by panicking and uses the real clock"
)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::Bytes;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollectorRead, Frame, OpCode, Payload, WebSocketError, WebSocketWrite};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use peers::{BROADCAST, ECHO};
use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::Mutex;

type Io = TokioIo<Upgraded>;
type Writer = Rc<Mutex<WebSocketWrite<WriteHalf<Io>>>>;

/// Those who are past their handshake.
#[derive(Default)]
struct Crowd {
    next: Cell<u64>,
    writers: RefCell<BTreeMap<u64, Writer>>,
}

fn main() {
    let listener = peers::listen();
    listener.set_nonblocking(true).expect("a listener that does not wait");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener of the runtime");
        let crowd = Rc::new(Crowd::default());
        loop {
            let (socket, _) = listener.accept().await.expect("a client");
            socket.set_nodelay(true).expect("a TCP option");
            let crowd = Rc::clone(&crowd);
            drop(tokio::task::spawn_local(async move {
                let service = service_fn(move |request| open(request, Rc::clone(&crowd)));
                let http = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                // A client that goes away is no event here.
                drop(http.with_upgrades().await);
            }));
        }
    });
}

async fn open(
    mut request: Request<Incoming>,
    crowd: Rc<Crowd>,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgraded) = upgrade(&mut request)?;
    drop(tokio::task::spawn_local(serve(upgraded, crowd)));
    Ok(response)
}

/// Ends with the connection; whatever its end was is of no interest here.
async fn serve(upgraded: UpgradeFut, crowd: Rc<Crowd>) {
    let Ok(websocket) = upgraded.await else { return };
    let (reader, writer) = websocket.split(tokio::io::split);
    let writer = Rc::new(Mutex::new(writer));
    let number = crowd.next.replace(crowd.next.get() + 1);
    crowd.writers.borrow_mut().insert(number, Rc::clone(&writer));
    let ended = read(number, FragmentCollectorRead::new(reader), &writer, &crowd).await;
    crowd.writers.borrow_mut().remove(&number);
    drop(ended);
}

async fn read(
    number: u64,
    mut reader: FragmentCollectorRead<ReadHalf<Io>>,
    writer: &Writer,
    crowd: &Crowd,
) -> Result<Infallible, WebSocketError> {
    // Pongs and answers to a close: the frame borrows from the reader, so it is written before the next read.
    let mut obligated = |frame: Frame<'static>| async move { writer.lock().await.write_frame(frame).await };
    loop {
        let frame = reader.read_frame(&mut obligated).await?;
        match (frame.opcode, frame.payload.first()) {
            (OpCode::Close, _) => return Err(WebSocketError::ConnectionClosed),
            (OpCode::Text | OpCode::Binary, Some(&ECHO)) => writer.lock().await.write_frame(frame).await?,
            (OpCode::Text | OpCode::Binary, Some(&BROADCAST)) => broadcast(number, &frame, crowd).await,
            _ => {}
        }
    }
}

/// A receiver that has gone is found by its own task.
async fn broadcast(from: u64, frame: &Frame<'_>, crowd: &Crowd) {
    let others: Vec<Writer> = {
        let writers = crowd.writers.borrow();
        writers.iter().filter(|(number, _)| **number != from).map(|(_, writer)| Rc::clone(writer)).collect()
    };
    for writer in others {
        let copy = Frame::new(true, frame.opcode, None, Payload::Borrowed(&frame.payload));
        drop(writer.lock().await.write_frame(copy).await);
    }
}
