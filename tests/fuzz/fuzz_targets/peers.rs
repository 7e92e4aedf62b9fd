//! What another node sends: any bytes are a fault or frames, and frames that were
//! read are written and read as the same.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use pinion::cluster::protocol::codec::{Queue, decode};
use pinion::wire::grpc::PREFIX_BYTES;

fuzz_target!(|data: &[u8]| {
    let Ok(frames) = decode(Bytes::copy_from_slice(data)) else { return };
    let mut queue = Queue::default();
    let mut again = Vec::new();
    for frame in frames.clone() {
        assert!(queue.push(frame).is_ok(), "what fits one message fits the queue");
    }
    while let Some(batch) = queue.pop() {
        again.extend(decode(batch.bytes.slice(PREFIX_BYTES..)).expect("our own words"));
    }
    // Long answers may come in more parts; inputs of the fuzzer are shorter than one.
    assert_eq!(again, frames);
});
