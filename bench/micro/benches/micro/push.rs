//! What a push API call costs before the hub: the walk over its protobuf and its checks.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use pinion::cluster::batch::Batch;
use pinion::cluster::request::PushRequest;
use pinion_bench_micro::{push_batch, push_request};

/// Users per second of OpenIM's push request, messages per second of a `pinion.v1` batch (one user each, as a stream
/// of single pushes has them): decoded and checked.
pub(super) fn requests(c: &mut Criterion) {
    let mut group = c.benchmark_group("push walk");
    for users in [1, 100, 10_000] {
        let body = push_request(users);
        group.throughput(Throughput::Elements(users as u64));
        group.bench_function(BenchmarkId::new("request, users", users), |b| {
            b.iter(|| {
                PushRequest::decode(black_box(&body).clone()).expect("decodes").check().expect("is good")
            });
        });
    }
    for messages in [1, 100] {
        let body = push_batch(messages);
        group.throughput(Throughput::Elements(messages as u64));
        group.bench_function(BenchmarkId::new("batch, messages", messages), |b| {
            b.iter(|| Batch::decode(black_box(&body).clone()).expect("decodes").check().expect("is good"));
        });
    }
    group.finish();
}
