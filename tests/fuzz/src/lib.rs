//! What several fuzz targets share. A target panics when a property is broken; `scripts/fuzz.sh` says how to run one.

pub mod hub;
mod parts;

use pinion::limits;
use pinion::wire::envelope::{Codec, Response, Variant};
use pinion::wire::message::{Event, Inbound, ReadLimits};

/// The places where `bytes` are cut: `cuts` are offsets, taken modulo the length.
pub fn split<'a>(bytes: &'a [u8], cuts: &[u8]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) * 7 % (bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Whatever is accepted as an envelope is the same after encoding and decoding it again.
pub fn envelope(variant: Variant, message: &[u8]) {
    let mut codec = Codec::default();
    if let Ok(request) = codec.decode(variant, message, limits::INFLATED_BYTES_MAX) {
        assert!(request.data.len() <= limits::INFLATED_BYTES_MAX);
        let again = codec.encode_request(variant, &request);
        assert_eq!(codec.decode(variant, &again, usize::MAX >> 1), Ok(request));
    }
    if let Ok(mut response) = codec.decode_response(variant, message) {
        // Gob writes no empty field, so that empty is nil when it comes back.
        response.data = response.data.filter(|data| !data.is_empty());
        let frame = codec.encode(
            variant,
            &Response {
                id: response.id,
                msg_incr: &response.msg_incr,
                operation_id: &response.operation_id,
                err_code: response.err_code,
                err_msg: &response.err_msg,
                data: response.data.as_deref(),
            },
        );
        assert_eq!(codec.decode_response(variant, &payload(frame.bytes())), Ok(response));
    }
}

/// The payload of a data frame of the gateway, as a client reads it.
pub fn payload(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let (mut inbound, limits) = (Inbound::default(), ReadLimits::client(usize::MAX >> 1));
    match inbound.feed(&mut frame, &limits).next() {
        Ok(Some(Event::Message { payload, .. })) => payload.to_vec(),
        other => panic!("no data frame: {other:?}"),
    }
}
