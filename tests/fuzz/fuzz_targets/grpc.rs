//! gRPC framing: the one message of a body, however it is cut; status values and timeouts of any spelling.
//!
//! Input: three cuts, the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pinion::wire::grpc::{Assembler, BodyFault, PREFIX_BYTES, Status, frame, parse_timeout};

/// Small, so that the fuzzer reaches it.
const LIMIT: usize = 300;

fuzz_target!(|data: &[u8]| {
    let [a, b, c, body @ ..] = data else { return };
    let whole = assembled(&[body]);
    assert_eq!(assembled(&pinion_fuzz::split(body, &[*a, *b, *c])), whole);
    assert_eq!(assembled(&body.chunks(1).collect::<Vec<_>>()), whole);
    if let Ok(message) = whole {
        assert_eq!(frame(&message).as_deref(), Some(body));
    }

    let text = String::from_utf8_lossy(body);
    parse_timeout(&text);
    Status::parse(13, &text, Some(&text));
    let status = Status::openim(1001, "ArgsError", &text);
    assert_eq!(Status::parse(1001, &status.escaped_message(), status.details_bin().as_deref()), status);
    let status = Status::new(13, text);
    assert_eq!(Status::parse(13, &status.escaped_message(), None), status);
});

fn assembled(chunks: &[&[u8]]) -> Result<Bytes, BodyFault> {
    let mut assembler = Assembler::new(LIMIT);
    for chunk in chunks {
        assembler.push(Bytes::copy_from_slice(chunk))?;
        assert!(assembler.held_bytes() <= LIMIT + PREFIX_BYTES);
    }
    assembler.finish()
}
