//! A caller that streams, and shards that a test plays step by step.

use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::time::Duration;

use super::grpc::push_request;
use super::*;
use crate::hub::mail::{PushMail, Totals};
use crate::pb::pinion::v1::{
    MessageVerdict, PushBatch, PushMessage, PushVerdicts, UserList, push_message::To as PbTo,
};
use crate::rpc::stream::send_all;
use crate::wire::grpc::{Messages, frame};

pub(super) const STREAM: &str = "/pinion.v1.Push/Stream";
pub(super) const SEND: &str = "/pinion.v1.Push/Send";
/// Longer than any test waits for something that comes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message to these users.
pub(super) fn message(id: u64, users: &[&str]) -> PushMessage {
    PushMessage {
        id,
        msg_data: push_request(&[]).msg_data.unwrap().encode_to_vec().into(),
        to: Some(PbTo::Users(UserList { user_ids: users.iter().map(ToString::to_string).collect() })),
        ..PushMessage::default()
    }
}

pub(super) fn framed(messages: Vec<PushMessage>) -> Bytes {
    frame(&PushBatch { messages }.encode_to_vec()).unwrap()
}

/// One streaming call.
pub(super) struct Caller {
    pub(super) outgoing: SendStream<Bytes>,
    pub(super) incoming: Incoming,
}

/// What it is answered.
pub(super) struct Incoming {
    body: RecvStream,
    messages: Messages,
    unread: VecDeque<MessageVerdict>,
}

impl Caller {
    pub(super) async fn start(sender: &mut SendRequest<Bytes>, headers: &[(&str, &str)]) -> Self {
        let mut request = Request::post(format!("http://gateway{STREAM}"));
        for (key, value) in [("content-type", "application/grpc"), ("te", "trailers")].iter().chain(headers) {
            request = request.header(*key, *value);
        }
        let (response, outgoing) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        let response = monoio::time::timeout(PATIENCE, response).await.expect("a response").unwrap();
        assert_eq!(response.headers()["grpc-accept-encoding"], "identity,gzip");
        let messages = Messages::new(limits::GRPC_MESSAGE_BYTES_MAX);
        let incoming = Incoming { body: response.into_body(), messages, unread: VecDeque::new() };
        Self { outgoing, incoming }
    }

    pub(super) async fn push(&mut self, messages: Vec<PushMessage>) {
        self.push_bytes(framed(messages)).await;
    }

    pub(super) async fn push_bytes(&mut self, bytes: Bytes) {
        let sent = monoio::time::timeout(PATIENCE, send_all(&mut self.outgoing, bytes)).await;
        sent.expect("the call is read").unwrap();
    }

    pub(super) fn half_close(&mut self) {
        self.outgoing.send_data(Bytes::new(), true).unwrap();
    }

    pub(super) async fn next_message(&mut self) -> Option<PushVerdicts> {
        self.incoming.next_message().await
    }

    pub(super) async fn next(&mut self) -> Option<MessageVerdict> {
        self.incoming.next().await
    }

    pub(super) async fn status(&mut self) -> (i32, String) {
        self.incoming.status().await
    }
}

impl Incoming {
    /// The verdicts of the next message, or `None` at the end.
    pub(super) async fn next_message(&mut self) -> Option<PushVerdicts> {
        loop {
            if let Some(message) = self.messages.take().unwrap() {
                assert!(!message.compressed);
                return Some(PushVerdicts::decode(message.bytes).unwrap());
            }
            let chunk = monoio::time::timeout(PATIENCE, self.body.data()).await.expect("news")?.unwrap();
            self.body.flow_control().release_capacity(chunk.len()).unwrap();
            self.messages.push(chunk);
        }
    }

    /// The next verdict, or `None` at the end.
    pub(super) async fn next(&mut self) -> Option<MessageVerdict> {
        while self.unread.is_empty() {
            let message = self.next_message().await?;
            self.unread.extend(message.verdicts);
        }
        self.unread.pop_front()
    }

    /// The status, when nothing comes before it.
    pub(super) async fn status(&mut self) -> (i32, String) {
        assert_eq!(self.next().await, None);
        let trailers = poll_fn(|cx| self.body.poll_trailers(cx)).await.unwrap().expect("trailers");
        let text = |name| trailers.get(name).map_or("", |v| v.to_str().unwrap());
        let status = Status::parse(text("grpc-status").parse().unwrap(), text("grpc-message"), None);
        (status.code, status.message)
    }
}

/// Lets the rpc thread run until `next` gives something.
pub(super) async fn until<T>(mut next: impl FnMut() -> Option<T>) -> T {
    let start = clock::now().mono;
    loop {
        if let Some(found) = next() {
            return found;
        }
        assert!(clock::now().mono.since_ms(start) < 60_000, "nothing came");
        monoio::time::sleep(Duration::from_millis(2)).await;
    }
}

impl Node {
    /// The next push of an absent shard.
    pub(super) async fn taken(&self, shard: u16) -> Box<PushMail> {
        until(|| self.inboxes[usize::from(shard)].next_push().and_then(as_push)).await
    }

    /// The next push of any absent shard.
    pub(super) async fn taken_by_any(&self) -> (ShardId, Box<PushMail>) {
        until(|| {
            let inboxes = (0..SHARDS).map(ShardId).zip(&self.inboxes);
            inboxes.filter_map(|(id, inbox)| Some((id, as_push(inbox.next_push()?)?))).next()
        })
        .await
    }

    /// The next cancelled push of an absent shard.
    pub(super) async fn cancelled(&self, shard: ShardId) -> RpcTicket {
        until(|| match self.inboxes[usize::from(shard.0)].next_control()? {
            Control::Hub(ShardMail::CancelPush(ticket)) => Some(ticket),
            other => panic!("{other:?}"),
        })
        .await
    }

    /// A shard says what became of its recipients.
    pub(super) fn say(&self, shard: ShardId, ticket: RpcTicket, part: PushPart) {
        let outcome = Box::new(RpcOutcome::Push(part));
        self.rpc.post(RpcMail::Outcome { shard, ticket, outcome }).unwrap();
    }

    /// A shard has written a push to one device of each recipient.
    pub(super) fn say_written(&self, shard: ShardId, mail: &PushMail) {
        let verdicts: Vec<_> = mail.audience.listed().iter().map(|r| written(r.slot)).collect();
        let count = u32::try_from(verdicts.len()).unwrap();
        let totals = Totals { users: count, written: count, ..Totals::default() };
        self.say(shard, mail.ticket.unwrap(), PushPart { verdicts, totals, last: true });
    }
}

pub(super) fn written(slot: u32) -> RecipientVerdict {
    let outcome = DeviceOutcome::Written;
    let device = DeviceVerdict { number: 0, platform: Platform::WEB, connection_id: [7; 16], outcome };
    RecipientVerdict::of_slot(slot, vec![device])
}

fn as_push(mail: ShardMail) -> Option<Box<PushMail>> {
    match mail {
        ShardMail::Push(push) => Some(push),
        _ => None,
    }
}
