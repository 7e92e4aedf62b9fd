//! Frames and envelopes, in and out.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use pinion::limits;
use pinion::wire::envelope::{Codec, Response, Variant};
use pinion::wire::frame::{Opcode, masked};
use pinion::wire::mask;
use pinion::wire::message::{Inbound, ReadLimits};
use pinion_bench_micro::{CONTENT_BYTES, content, msg_data, request_payload, variant_name};

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// Frames that lie in one read.
const FRAMES: usize = 32;

/// Frames per second of one read that holds 32 of them: headers parsed, payloads unmasked and lent.
pub(super) fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame parse");
    group.throughput(Throughput::Elements(FRAMES as u64));
    let limits = ReadLimits::default();
    for payload in [16, 100, 1000, 16_384] {
        let read = masked(Opcode::Binary, &content(payload), KEY).repeat(FRAMES);
        group.bench_function(BenchmarkId::from_parameter(format!("{payload} B")), |b| {
            b.iter_batched_ref(
                || read.clone(),
                |read| {
                    let mut inbound = Inbound::default();
                    let mut feed = inbound.feed(read, &limits);
                    while let Ok(Some(event)) = feed.next() {
                        black_box(event);
                    }
                    assert_eq!(feed.frames(), FRAMES as u64);
                },
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// Bytes per second of unmasking alone.
pub(super) fn unmask(c: &mut Criterion) {
    let mut group = c.benchmark_group("unmask");
    for bytes in [16, 100, 1000, 16_384] {
        group.throughput(Throughput::Bytes(bytes as u64));
        let mut payload = content(bytes);
        group.bench_function(BenchmarkId::from_parameter(format!("{bytes} B")), |b| {
            b.iter(|| mask::apply(black_box(KEY), 0, black_box(&mut payload)));
        });
    }
    group.finish();
}

/// Envelopes per second: a client's request with 200 B of content, by variant.
pub(super) fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope decode");
    group.throughput(Throughput::Elements(1));
    let mut codec = Codec::default();
    for variant in Variant::all() {
        let payload = request_payload(variant);
        group.bench_function(variant_name(variant), |b| {
            b.iter(|| {
                codec.decode(variant, black_box(&payload), limits::MESSAGE_BYTES_MAX).expect("is good")
            });
        });
    }
    group.finish();
}

/// Envelopes per second: a push or reply with 200 B and with 4 000 B of content, frame header included, by variant.
pub(super) fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope encode");
    group.throughput(Throughput::Elements(1));
    let mut codec = Codec::default();
    for bytes in [CONTENT_BYTES, 4000] {
        let data = msg_data(bytes);
        let response = Response {
            id: 2001,
            operation_id: "1700000000000123456",
            data: Some(&data),
            ..Response::default()
        };
        for variant in Variant::all() {
            let name = BenchmarkId::new(variant_name(variant), format!("{bytes} B"));
            group.bench_function(name, |b| b.iter(|| codec.encode(variant, black_box(&response))));
        }
    }
    group.finish();
}
