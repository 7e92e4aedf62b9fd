//! A caller of `pinion.v1.Push/Stream`, blocking: each method drives the connection for as long as it needs to.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::Request;
use monoio::io::IntoPollIo;
use monoio::{LegacyDriver, Runtime, RuntimeBuilder};
use pinion::pb::pinion::v1::{
    MessageVerdict, PushBatch, PushMessage, PushVerdicts, UserList, UserVerdict, push_message::To,
};
use pinion::wire::grpc::{Messages, frame};
use prost::Message;

use super::{DEADLINE, text_message};

/// See the module's documentation.
pub struct PushStream {
    runtime: Runtime<monoio::time::TimeDriver<LegacyDriver>>,
    /// `None` when it is dropped.
    call: Option<(SendStream<Bytes>, RecvStream)>,
    messages: Messages,
    unread: VecDeque<MessageVerdict>,
}

/// A text message to these users.
pub fn push_message(id: u64, users: &[&str], text: &str) -> PushMessage {
    PushMessage {
        id,
        msg_data: text_message("sender", "someone", text).encode_to_vec().into(),
        operation_id: format!("push-{id}"),
        to: Some(To::Users(UserList { user_ids: users.iter().map(ToString::to_string).collect() })),
        ..PushMessage::default()
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    monoio::time::timeout(DEADLINE, work).await.expect("the gateway answers in time")
}

impl PushStream {
    /// Opens a connection and the call.
    pub fn open(address: SocketAddr) -> Self {
        let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build().unwrap();
        let call = runtime.block_on(in_time(async {
            let stream = monoio::net::TcpStream::connect_addr(address).await.unwrap();
            let (sender, connection) = h2::client::handshake(stream.into_poll_io().unwrap()).await.unwrap();
            monoio::spawn(async move { connection.await.unwrap_or_default() });
            let request = Request::post(format!("http://{address}/pinion.v1.Push/Stream"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .unwrap();
            let mut sender = sender.ready().await.unwrap();
            let (response, outgoing) = sender.send_request(request, false).unwrap();
            (outgoing, response.await.unwrap().into_body())
        }));
        let messages = Messages::new(16 << 20);
        Self { runtime, call: Some(call), messages, unread: VecDeque::new() }
    }

    /// Sends one batch.
    pub fn push(&mut self, messages: Vec<PushMessage>) {
        let mut bytes = frame(&PushBatch { messages }.encode_to_vec()).unwrap();
        let (outgoing, _) = self.call.as_mut().unwrap();
        self.runtime.block_on(in_time(async {
            while !bytes.is_empty() {
                outgoing.reserve_capacity(bytes.len());
                let room = match outgoing.capacity() {
                    0 => poll_fn(|cx| outgoing.poll_capacity(cx)).await.unwrap().unwrap(),
                    room => room,
                };
                outgoing.send_data(bytes.split_to(room.min(bytes.len())), false).unwrap();
            }
            // The connection's task has its turn, and writes.
            monoio::time::sleep(std::time::Duration::from_millis(1)).await;
        }));
    }

    /// The next verdict, or `None` at the end.
    pub fn next(&mut self) -> Option<MessageVerdict> {
        while self.unread.is_empty() {
            if let Some(message) = self.messages.take().unwrap() {
                self.unread.extend(PushVerdicts::decode(message.bytes).unwrap().verdicts);
                continue;
            }
            let (_, body) = self.call.as_mut().unwrap();
            let chunk = self.runtime.block_on(in_time(async {
                let chunk = body.data().await?.unwrap();
                body.flow_control().release_capacity(chunk.len()).unwrap();
                Some(chunk)
            }));
            self.messages.push(chunk?);
        }
        self.unread.pop_front()
    }

    /// Waits for the last verdict of a message, which is the oldest one unanswered; gives the users of all its parts.
    pub fn answer(&mut self, id: u64) -> Vec<UserVerdict> {
        let mut users = Vec::new();
        loop {
            let verdict = self.next().expect("the stream goes on");
            assert_eq!(verdict.id, id);
            users.extend(verdict.users);
            if verdict.last {
                return users;
            }
        }
    }

    /// Half-closes; the stream must end with OK and without another verdict.
    pub fn finish(mut self) {
        let (outgoing, _) = self.call.as_mut().unwrap();
        self.runtime.block_on(async { outgoing.send_data(Bytes::new(), true).unwrap() });
        assert_eq!(self.next(), None);
        let (_, body) = self.call.as_mut().unwrap();
        let trailers = self.runtime.block_on(in_time(poll_fn(|cx| body.poll_trailers(cx))));
        assert_eq!(trailers.unwrap().unwrap()["grpc-status"], "0");
    }
}

impl Drop for PushStream {
    /// Only inside a runtime may its tasks be woken.
    fn drop(&mut self) {
        let call = self.call.take();
        self.runtime.block_on(async { drop(call) });
    }
}
