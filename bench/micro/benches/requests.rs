//! Requests of the push API, walked by hand.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion::cluster::request::{MessageFacts, PushRequest};
use pinion_bench_micro::{message, push_request};

fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("request");
    let data = message(100);
    group.throughput(Throughput::Elements(1));
    group.bench_function("facts of a message of 100 B", |b| {
        b.iter(|| MessageFacts::read(black_box(&data)).unwrap())
    });
    for users in [1, 100, 10_000] {
        let body = push_request(users, 100);
        group.throughput(Throughput::Elements(users as u64));
        group.bench_function(format!("a push to {users} users: decode and check"), |b| {
            b.iter(|| PushRequest::decode(black_box(body.clone())).unwrap().check().unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
