//! Bytes to values and back: frames, masks, envelopes, handshakes.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench fails by panicking")]

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pinion::limits::CLIENT_INFLATED_BYTES_MAX;
use pinion::session::handshake::{Judgement, Strictness, judge};
use pinion::wire::envelope::{Codec, Request, Response, Variant};
use pinion::wire::frame::{Frame, Opcode, masked};
use pinion::wire::mask;
use pinion::wire::message::{Event, Inbound, ReadLimits};
use pinion::wire::upgrade::{AcceptKey, parse, switching};
use pinion_bench_micro::{HEAD, message};

const SIZES: [usize; 3] = [100, 1_000, 16_000];

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let wire = masked(Opcode::Binary, &vec![7; size], [1, 2, 3, 4]);
        let limits = ReadLimits::default();
        group.bench_function(format!("parse and unmask {size} B"), |b| {
            let mut inbound = Inbound::default();
            b.iter_batched_ref(
                || wire.clone(),
                |wire| {
                    let mut feed = inbound.feed(wire, &limits);
                    assert!(matches!(black_box(feed.next().unwrap()), Some(Event::Message { .. })));
                },
                BatchSize::SmallInput,
            );
        });
        let mut bytes = vec![7; size];
        group.bench_function(format!("unmask {size} B"), |b| {
            b.iter(|| mask::apply([1, 2, 3, 4], 0, black_box(&mut bytes)));
        });
        group.bench_function(format!("build {size} B"), |b| {
            b.iter(|| black_box(Frame::new(Opcode::Binary, black_box(&bytes))));
        });
    }
    group.finish();
}

fn name(variant: Variant) -> String {
    format!("{:?}{}", variant.encoding, if variant.gzip { " gzip" } else { "" }).to_lowercase()
}

fn envelopes(c: &mut Criterion) {
    let mut group = c.benchmark_group("envelope");
    let data = message(100);
    for variant in Variant::all() {
        let mut codec = Codec::default();
        let request = Request {
            id: 1003,
            send_id: "u000001".into(),
            operation_id: "1700000000000000".into(),
            msg_incr: "42".into(),
            data: Bytes::clone(&data),
        };
        let wire = codec.encode_request(variant, &request);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("decode a request, {}", name(variant)), |b| {
            b.iter(|| codec.decode(variant, black_box(&wire), CLIENT_INFLATED_BYTES_MAX).unwrap());
        });
        for size in SIZES {
            let data = message(size);
            let push = Response {
                id: 2001,
                operation_id: "1700000000000000",
                data: Some(&data),
                ..Response::default()
            };
            group.bench_function(format!("encode a push of {size} B, {}", name(variant)), |b| {
                b.iter(|| black_box(codec.encode(variant, black_box(&push))));
            });
        }
    }
    group.finish();
}

fn handshakes(c: &mut Criterion) {
    let mut group = c.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("parse the head", |b| b.iter(|| parse(black_box(HEAD)).unwrap().unwrap()));
    let (head, _) = parse(HEAD).unwrap().unwrap();
    group.bench_function("judge the arguments", |b| {
        b.iter(|| {
            let judgement = judge(black_box(&head), Strictness::Strict);
            assert!(matches!(judgement, Judgement::Login(_)));
        });
    });
    group.bench_function("answer the key", |b| {
        b.iter(|| switching(AcceptKey::answer_to(black_box(b"dGhlIHNhbXBsZSBub25jZQ=="))));
    });
    group.finish();
}

criterion_group!(benches, frames, envelopes, handshakes);
criterion_main!(benches);
