//! The gzip envelope: what flate2's own reader accepts, the codec reads as the same request; and back.
//!
//! Input: one byte (odd: JSON, even: gob), the message.
#![no_main]

use std::io::Read;

use flate2::read::MultiGzDecoder;
use libfuzzer_sys::fuzz_target;
use pinion::limits;
use pinion::wire::envelope::{Codec, Encoding, EnvelopeFault, Request, Variant};

fuzz_target!(|data: &[u8]| {
    let [first, message @ ..] = data else { return };
    let encoding = if first & 1 == 0 { Encoding::Gob } else { Encoding::Json };
    let packed = Variant { encoding, gzip: true };
    let mut codec = Codec::default();

    let ours = codec.decode(packed, message, limits::INFLATED_BYTES_MAX);
    let members = message.windows(3).filter(|bytes| bytes == b"\x1f\x8b\x08").count();
    if let Some(plain) = inflated(message)
        && members <= limits::GZIP_MEMBERS_MAX
    {
        let expected = if plain.len() > limits::INFLATED_BYTES_MAX {
            Err(EnvelopeFault::InflatedTooBig)
        } else {
            codec.decode(Variant { encoding, gzip: false }, &plain, limits::INFLATED_BYTES_MAX)
        };
        assert_eq!(ours, expected);
    }

    let request = Request { data: message.to_vec().into(), ..Request::default() };
    let message = codec.encode_request(packed, &request);
    assert_eq!(codec.decode(packed, &message, limits::INFLATED_BYTES_MAX), Ok(request));
    assert!(inflated(&message).is_some());
});

/// What the members hold, a little above the limit at most; `None` if they are not whole.
fn inflated(packed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let limit = limits::INFLATED_BYTES_MAX as u64 + 1;
    MultiGzDecoder::new(packed).take(limit).read_to_end(&mut plain).ok()?;
    Some(plain)
}
