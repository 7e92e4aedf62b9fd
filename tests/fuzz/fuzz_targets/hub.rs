//! Everything that can happen to a hub, in any order that the shard's contract allows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion_fuzz::hub::{Op, Rig};

fuzz_target!(|input: (u8, Vec<Op>)| {
    let (policy, ops) = input;
    let mut rig = Rig::new(policy);
    for op in ops {
        rig.apply(op);
    }
    rig.end();
});
