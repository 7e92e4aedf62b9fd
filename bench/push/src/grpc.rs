//! The caller: gRPC over h2 on tokio's single-threaded runtime, so that the client is not the gateway's own code on
//! the gateway's own runtime.
//!
//! Not here: deadlines and retries. A call that fails ends the bench: a figure with errors in it is none.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use pinion::pb::pinion::v1::PushVerdicts;
use prost::Message as _;
use tokio::net::TcpStream;

/// Windows that never hold the server back.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// One HTTP/2 connection. Clones share it.
#[derive(Clone)]
pub struct Caller {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Caller {
    /// Connects. Runs on the current runtime.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the gRPC port");
        stream.set_nodelay(true).expect("a TCP option");
        let (sender, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake::<_, Bytes>(stream)
            .await
            .expect("an HTTP/2 server");
        drop(tokio::spawn(async move {
            if let Err(error) = connection.await
                && !error.is_io()
            {
                eprintln!("the gRPC connection: {error}");
            }
        }));
        Self { sender, address }
    }

    /// Calls, and gives the length of the answer.
    pub async fn unary(&self, path: &str, framed: Bytes) -> usize {
        let mut sender = self.sender.clone().ready().await.expect("an open connection");
        let (response, mut stream) = sender.send_request(self.request(path), false).expect("a call");
        stream.send_data(framed, true).expect("its message");
        let (head, mut body) = response.await.expect("an answer").into_parts();
        check(path, &head.headers);
        let mut bytes = 0;
        while let Some(data) = body.data().await {
            let data = data.expect("an answer to its end");
            bytes += data.len();
            body.flow_control().release_capacity(data.len()).expect("what was received");
        }
        let trailers = poll_fn(|cx| body.poll_trailers(cx)).await.expect("trailers");
        check(path, &trailers.unwrap_or_default());
        assert!(bytes > 0, "{path}: an answer without a message");
        bytes
    }

    /// Opens a stream both ways.
    pub async fn stream(&self, path: &str) -> Stream {
        let mut sender = self.sender.clone().ready().await.expect("an open connection");
        let (response, requests) = sender.send_request(self.request(path), false).expect("a call");
        Stream { requests, answers: Answers::Waiting(response), buffer: BytesMut::new(), received: 0 }
    }

    fn request(&self, path: &str) -> Request<()> {
        Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("operationid", "bench")
            .header("opuserid", "imAdmin")
            .body(())
            .expect("a path that we wrote")
    }
}

/// An error ends the bench.
fn check(path: &str, headers: &HeaderMap) {
    if let Some(status) = headers.get("grpc-status") {
        assert!(status == "0", "{path}: refused: {headers:?}");
    }
}

/// A stream of batches and verdicts.
pub struct Stream {
    requests: SendStream<Bytes>,
    answers: Answers,
    buffer: BytesMut,
    received: usize,
}

enum Answers {
    Waiting(h2::client::ResponseFuture),
    Open(RecvStream),
}

impl Stream {
    /// Sends a message. What is sent at once is bounded by who calls: h2 queues it.
    pub fn send(&mut self, framed: Bytes) {
        self.requests.send_data(framed, false).expect("an open stream");
    }

    /// The next message, without its frame.
    pub async fn next(&mut self) -> Bytes {
        loop {
            if let Some(message) = self.cut() {
                return message;
            }
            let body = self.body().await;
            let data = body.data().await.expect("the stream has ended").expect("an open stream");
            body.flow_control().release_capacity(data.len()).expect("what was received");
            self.received += data.len();
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Bytes of all answers so far.
    pub fn received(&self) -> usize {
        self.received
    }

    /// The next verdicts: how many messages they finish.
    pub async fn finished(&mut self) -> usize {
        let verdicts = PushVerdicts::decode(self.next().await).expect("verdicts");
        verdicts.verdicts.iter().filter(|verdict| verdict.last).count()
    }

    async fn body(&mut self) -> &mut RecvStream {
        if let Answers::Waiting(response) = &mut self.answers {
            let (head, body) = response.await.expect("an answer").into_parts();
            check("the stream", &head.headers);
            self.answers = Answers::Open(body);
        }
        match &mut self.answers {
            Answers::Open(body) => body,
            Answers::Waiting(_) => unreachable!("it was opened above"),
        }
    }

    fn cut(&mut self) -> Option<Bytes> {
        let head = self.buffer.get(1..5)?;
        let len = usize::try_from(u32::from_be_bytes(head.try_into().ok()?)).ok()?;
        if self.buffer.len() < 5 + len {
            return None;
        }
        let mut message = self.buffer.split_to(5 + len);
        Some(message.split_off(5).freeze())
    }
}
