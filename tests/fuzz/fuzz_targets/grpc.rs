//! gRPC framing: the messages of a body, however it is cut, and what they unpack to; status values and timeouts of any
//! spelling.
//!
//! Input: three cuts, the body.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pinion::wire::grpc::{BodyFault, BodyMessage, Gunzip, Messages, Status, frame, parse_timeout};

/// Small, so that the fuzzer reaches it.
const LIMIT: usize = 300;

fuzz_target!(|data: &[u8]| {
    let [a, b, c, body @ ..] = data else { return };
    let whole = taken(&[body]);
    assert_eq!(taken(&pinion_fuzz::split(body, &[*a, *b, *c])), whole);
    assert_eq!(taken(&body.chunks(1).collect::<Vec<_>>()), whole);
    if whole.fault.is_none() && whole.messages.iter().all(|message| !message.compressed) {
        let framed: Vec<u8> = whole.messages.iter().flat_map(|m| frame(&m.bytes).unwrap()).collect();
        assert!(body.starts_with(&framed));
        assert_eq!(framed.len() + whole.held_bytes, body.len());
    }
    for message in whole.messages {
        unpack(message.bytes);
    }

    let text = String::from_utf8_lossy(body);
    parse_timeout(&text);
    Status::parse(13, &text, Some(&text));
    let status = Status::openim(1001, "ArgsError", &text);
    assert_eq!(Status::parse(1001, &status.escaped_message(), status.details_bin().as_deref()), status);
    let status = Status::new(13, text);
    assert_eq!(Status::parse(13, &status.escaped_message(), None), status);
});

/// What came out of a body, up to its end or the first fault.
#[derive(Debug, PartialEq, Eq)]
struct Taken {
    messages: Vec<BodyMessage>,
    fault: Option<BodyFault>,
    /// Of a message that is not complete. After a fault nothing is said about it.
    held_bytes: usize,
}

fn taken(chunks: &[&[u8]]) -> Taken {
    let mut messages = Messages::new(LIMIT);
    let mut taken = Taken { messages: Vec::new(), fault: None, held_bytes: 0 };
    for chunk in chunks {
        messages.push(Bytes::copy_from_slice(chunk));
        loop {
            match messages.take() {
                Ok(Some(message)) => {
                    assert!(message.bytes.len() <= LIMIT);
                    taken.messages.push(message);
                }
                Ok(None) => break,
                Err(fault) => {
                    taken.fault = Some(fault);
                    return taken;
                }
            }
        }
    }
    taken.held_bytes = messages.held_bytes();
    taken
}

/// Ends, and never holds more than its limit and one step.
fn unpack(packed: Bytes) {
    let mut gunzip = Gunzip::new(packed, LIMIT);
    loop {
        match gunzip.step() {
            Ok(None) => {}
            Ok(Some(plain)) => {
                assert!(plain.len() <= LIMIT);
                return;
            }
            Err(_) => return,
        }
    }
}
