//! What the micro benchmarks in `benches/` work on: inputs of typical size, and a hub with hands on it (`crowd`).
//!
//! Not here: what is measured, and how (`benches/micro`). What always holds: an input is what a real client or caller
//! sends, built by the gateway's own client side or by prost, and the tests below hold that the gateway takes it.

pub mod crowd;

use bytes::Bytes;
use pinion::backend::token;
use pinion::ids::Platform;
use pinion::pb::openim::msggateway::OnlineBatchPushOneMsgReq;
use pinion::pb::openim::sdkws::MsgData;
use pinion::pb::pinion::v1::{PushBatch, PushMessage, UserList, push_message::To};
use pinion::time::UnixMs;
use pinion::wire::envelope::{Codec, Encoding, Request, Variant};
use prost::Message as _;

/// Content of a chat message: between a word and a paragraph.
pub const CONTENT_BYTES: usize = 200;
/// What signs [`token()`].
pub const SECRET: &str = "openIM123";
/// When every benchmark takes place.
pub const NOW: UnixMs = UnixMs(1_700_000_000_000);

/// `gob`, `gob+gzip`, `json` or `json+gzip`: names a benchmark.
pub fn variant_name(variant: Variant) -> &'static str {
    match (variant.encoding, variant.gzip) {
        (Encoding::Gob, false) => "gob",
        (Encoding::Gob, true) => "gob+gzip",
        (Encoding::Json, false) => "json",
        (Encoding::Json, true) => "json+gzip",
    }
}

/// A user id of the length that OpenIM gives them.
pub fn user(number: usize) -> String {
    format!("{number:010}")
}

/// Text of so many bytes that compresses as chat does: words, not one letter.
pub fn content(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["when ", "the ", "gateway ", "sleeps, ", "no ", "message ", "waits ", "long. "];
    // Steps of a full period over the words, so that they do not simply repeat.
    let words = (0_usize..).map(|n| WORDS[(n * n + n / 3) % WORDS.len()]);
    words.flat_map(str::bytes).take(bytes).collect()
}

/// A serialised `sdkws.MsgData` from one user to another.
pub fn msg_data(content_bytes: usize) -> Bytes {
    let message = MsgData {
        send_id: user(1),
        recv_id: user(2),
        client_msg_id: "0f3e6c1f4d2b8a9975310246813579bd".into(),
        session_type: 1,
        content_type: 101,
        content: content(content_bytes).into(),
        ..MsgData::default()
    };
    message.encode_to_vec().into()
}

/// The payload of a client's frame that sends a message (1003).
pub fn request_payload(variant: Variant) -> Vec<u8> {
    let request = Request {
        id: 1003,
        send_id: user(1).into(),
        operation_id: "1700000000000123456".into(),
        msg_incr: "0000000001_1700000000_1".into(),
        data: msg_data(CONTENT_BYTES),
    };
    Codec::default().encode_request(variant, &request)
}

/// A token that is good at [`NOW`].
///
/// # Panics
/// The token cannot be signed.
pub fn token() -> String {
    let web = Platform::new(5).expect("5 is the web");
    token::issue(SECRET, &user(1), web, NOW, 86_400).expect("is signed")
}

/// The head that OpenIM's SDK opens a connection with.
pub fn head() -> Vec<u8> {
    let (user, token) = (user(1), token());
    format!(
        "GET /?sendID={user}&token={token}&platformID=5&operationID=1700000000000123456&isBackground=false\
         &sdkType=go&compression=gzip HTTP/1.1\r\nHost: gateway.example.com:10001\r\n\
         User-Agent: Go-http-client/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// `OnlineBatchPushOneMsgReq` to so many users.
pub fn push_request(users: usize) -> Bytes {
    let request = OnlineBatchPushOneMsgReq {
        msg_data: Some(MsgData::decode(msg_data(CONTENT_BYTES)).unwrap_or_default()),
        push_to_user_i_ds: (0..users).map(user).collect(),
    };
    request.encode_to_vec().into()
}

/// `pinion.v1.PushBatch` of so many messages to one user each.
pub fn push_batch(messages: usize) -> Bytes {
    let message = |number: usize| PushMessage {
        id: number as u64,
        msg_data: msg_data(CONTENT_BYTES),
        operation_id: "1700000000000123456".into(),
        to: Some(To::Users(UserList { user_ids: vec![user(number)] })),
        ..PushMessage::default()
    };
    PushBatch { messages: (0..messages).map(message).collect() }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use pinion::cluster::batch::Batch;
    use pinion::cluster::request::PushRequest;
    use pinion::session::handshake::{Judgement, Rules, Strictness, judge};
    use pinion::wire::compat::Compat;
    use pinion::wire::upgrade;

    use super::*;

    #[test]
    fn the_gateway_takes_every_input() {
        for variant in Variant::all() {
            let request = Codec::default().decode(variant, &request_payload(variant), 65_536).unwrap();
            assert_eq!((request.id, &request.data), (1003, &msg_data(CONTENT_BYTES)), "{variant:?}");
        }
        let (head, _) = upgrade::parse(&head()).unwrap().unwrap();
        let rules = Rules { compat: Compat::Main, strictness: Strictness::Strict };
        let Judgement::Login(login) = judge(&head, rules) else { panic!("{head:?}") };
        assert!(login.variant.gzip && login.upgrade.is_ok());
        assert_eq!(token::verify(SECRET, &login.token, NOW).unwrap().user.as_ref(), user(1));
        assert_eq!(PushRequest::decode(push_request(10)).unwrap().check().unwrap().2.len(), 10);
        assert_eq!(Batch::decode(push_batch(10)).unwrap().check().unwrap().len(), 10);
    }

    #[test]
    fn content_has_its_length_and_does_not_simply_repeat() {
        assert_eq!(content(4000).len(), 4000);
        assert_ne!(content(80)[..40], content(80)[40..]);
    }
}
