//! The hub with 10 000 sessions and no sockets.

use criterion::{BatchSize, Criterion, Throughput};
use pinion::wire::envelope::{Encoding, Variant};
use pinion_bench_micro::crowd::Crowd;
use pinion_bench_micro::variant_name;

const SESSIONS: u32 = 10_000;
const PLAIN_GOB: Variant = Variant { encoding: Encoding::Gob, gzip: false };

/// Operations per second on the table of users beside 10 000 others. The table is the hub's own and is reached as the
/// shard reaches it: `look up` is a question for one user's status, `insert and remove` a login up to its 101 and the
/// end of that connection.
pub(super) fn registry(c: &mut Criterion) {
    let mut group = c.benchmark_group("registry");
    group.throughput(Throughput::Elements(1));
    let mut crowd = Crowd::new(SESSIONS, PLAIN_GOB);
    let mut number = 0;
    group.bench_function("look up", |b| {
        b.iter(|| {
            // A step that is prime to the number of users: every look meets another, cold one.
            number = (number + 7919) % SESSIONS as usize;
            assert!(crowd.is_online(number));
        });
    });
    group.bench_function("insert and remove", |b| {
        b.iter(|| {
            let conn = crowd.log_in("another", PLAIN_GOB);
            crowd.leave(conn);
        });
    });
    group.finish();
}

/// Deliveries per second: one push of 200 B to 10 000 users by name, until all frames are taken by (absent) sockets
/// and the verdicts are out. Building the mail is not measured, freeing it is.
pub(super) fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    group.throughput(Throughput::Elements(SESSIONS.into())).sample_size(20);
    for variant in Variant::all() {
        let mut crowd = Crowd::new(SESSIONS, variant);
        let mail = crowd.push_mail();
        group.bench_function(variant_name(variant), |b| {
            b.iter_batched(
                || mail.clone(),
                |mail| assert_eq!(crowd.serve(mail).frames, SESSIONS as usize),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}
