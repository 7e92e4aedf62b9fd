//! Envelopes in json: no input panics, and what is accepted survives a round trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion::wire::envelope::{Encoding, Variant};

fuzz_target!(|data: &[u8]| pinion_fuzz::envelope(Variant { encoding: Encoding::Json, gzip: false }, data));
