//! Text frames: a ping is answered with a pong that is JSON and that the gateway would itself take as a pong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion::wire::text::{TextAnswer, answer};

fuzz_target!(|data: &[u8]| {
    if let Ok(TextAnswer::Pong(pong)) = answer(data) {
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&pong).is_ok(), "{pong}");
        assert!(!pong.contains(['<', '>', '&', '\n']), "{pong}");
        assert_eq!(answer(pong.as_bytes()), Ok(TextAnswer::Nothing));
    }
});
