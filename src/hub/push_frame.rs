//! The frame of a push, for one variant. Pure: shards build small frames themselves, rpc threads build large ones for
//! all shards.

use bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::mail::PushBody;
use crate::limits::SHARED_FRAME_BYTES;
use crate::metrics::Metric;
use crate::wire::envelope::{Codec, Encoding, Response, Variant};

/// The request identifier of a push frame (spec 3.3).
const PUSH: i32 = 2001;

/// Whether an rpc thread builds the frames of a push for all shards ([`PushBody::frames`]).
pub fn is_shared(body: &PushBody) -> bool {
    body.msg_data.len() > SHARED_FRAME_BYTES
}

/// The gauge of a shard's connections that would get the frame of a variant. A moment old: a connection whose frame
/// nobody built gets it from its shard.
pub fn registered_gauge(variant: Variant) -> Metric {
    match (variant.encoding, variant.gzip) {
        (Encoding::Gob, false) => Metric::RegisteredGob,
        (Encoding::Gob, true) => Metric::RegisteredGobGzip,
        (Encoding::Json, false) => Metric::RegisteredJson,
        (Encoding::Json, true) => Metric::RegisteredJsonGzip,
    }
}

/// The complete WebSocket frame of a push.
pub fn shared_frame(codec: &mut Codec, variant: Variant, body: &PushBody) -> Bytes {
    codec.encode_shared(variant, &response(body, &push_messages(body)))
}

/// The envelope of a push around [`push_messages`].
pub(super) fn response<'a>(body: &'a PushBody, data: &'a [u8]) -> Response<'a> {
    Response { id: PUSH, operation_id: &body.operation_id, data: Some(data), ..Response::default() }
}

/// `sdkws.PushMessages` with one conversation and one message (spec 3.3), around the raw bytes of the message: a map
/// entry {1: key, 2: PullMsgs {1: message}} in field 1 (`msgs`) or 2 (`notificationMsgs`).
pub(super) fn push_messages(body: &PushBody) -> Vec<u8> {
    let pull_len = field_len(body.msg_data.len());
    let entry_len = field_len(body.conversation.len()) + field_len(pull_len);
    let mut out = Vec::with_capacity(field_len(entry_len));
    let field = if body.is_notification() { 2 } else { 1 };
    put_header(&mut out, field, entry_len);
    put_header(&mut out, 1, body.conversation.len());
    out.extend_from_slice(body.conversation.as_bytes());
    put_header(&mut out, 2, pull_len);
    put_header(&mut out, 1, body.msg_data.len());
    out.extend_from_slice(&body.msg_data);
    out
}

fn put_header(out: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Length of a length-delimited field with a one-byte key.
fn field_len(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::openim::sdkws::{MsgData, PullMsgs, PushMessages};
    use prost::Message as _;

    #[test]
    fn a_push_is_encoded_as_protobuf_would() {
        let message =
            MsgData { send_id: "a".into(), content: vec![7; 300].into(), seq: 9, ..MsgData::default() };
        for key in ["si_a_b", "n_a_b", ""] {
            let msg_data = message.encode_to_vec().into();
            let body =
                PushBody { operation_id: "op".into(), conversation: key.into(), msg_data, frames: None };
            let pull = PullMsgs { msgs: vec![message.clone()], ..PullMsgs::default() };
            let map = std::collections::BTreeMap::from([(key.to_owned(), pull)]);
            let expected = match body.is_notification() {
                true => PushMessages { notification_msgs: map, ..PushMessages::default() },
                false => PushMessages { msgs: map, ..PushMessages::default() },
            };
            assert_eq!(PushMessages::decode(push_messages(&body).as_slice()), Ok(expected), "{key}");
        }
    }

    #[test]
    fn a_shared_frame_is_the_frame_that_a_shard_would_build() {
        let body = PushBody {
            operation_id: "op".into(),
            conversation: "si_a_b".into(),
            msg_data: vec![7; 20_000].into(),
            frames: None,
        };
        let mut codec = Codec::default();
        for variant in Variant::all() {
            let data = push_messages(&body);
            let built = codec.encode(variant, &response(&body, &data));
            assert_eq!(built.bytes(), shared_frame(&mut Codec::default(), variant, &body), "{variant:?}");
        }
    }

    #[test]
    fn frames_are_shared_above_the_limit() {
        for (bytes, shared) in [(0, false), (SHARED_FRAME_BYTES, false), (SHARED_FRAME_BYTES + 1, true)] {
            let body = PushBody {
                operation_id: "op".into(),
                conversation: "".into(),
                msg_data: vec![0; bytes].into(),
                frames: None,
            };
            assert_eq!(is_shared(&body), shared, "{bytes} bytes");
        }
    }

    #[test]
    fn each_variant_has_a_gauge_of_its_own() {
        let gauges: std::collections::BTreeSet<_> = Variant::all().map(registered_gauge).collect();
        assert_eq!(gauges.len(), Variant::COUNT);
    }
}
