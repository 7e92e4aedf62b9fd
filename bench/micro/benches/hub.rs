//! The hub without sockets: logins, and the fan-out of one push to 10 000 sessions; and the mailbox between threads.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench fails by panicking")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pinion::hub::mail::{KickMail, ShardMail};
use pinion::ids::{Platform, RpcId, RpcTicket, SlotId};
use pinion::shard::mailbox::{Control, shard_mailbox};
use pinion_bench_micro::{Rig, message};

const SESSIONS: usize = 10_000;
const LOGINS: usize = 1_000;

fn logins(c: &mut Criterion) {
    let mut group = c.benchmark_group("registry");
    group.throughput(Throughput::Elements(LOGINS as u64));
    group.bench_function("1 000 logins into an empty hub", |b| {
        b.iter_batched_ref(
            || Rig::new(LOGINS),
            |rig| (0..LOGINS).for_each(|number| rig.log_in(number)),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan-out");
    group.sample_size(20);
    group.throughput(Throughput::Elements(SESSIONS as u64));
    let mut rig = Rig::with_users(SESSIONS);
    for size in [100, 1_000] {
        let data = message(size);
        group.bench_function(format!("one push of {size} B to 10 000 sessions"), |b| {
            b.iter(|| assert_eq!(rig.fan_out(data.clone()), SESSIONS));
        });
    }
    group.finish();
}

fn control() -> Control {
    let ticket = RpcTicket { rpc: RpcId(0), slot: SlotId { index: 0, generation: 1 } };
    let platform = Platform::new(1).unwrap();
    Control::Hub(ShardMail::Kick(Box::new(KickMail { ticket, platform, users: Vec::new() })))
}

fn mailbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    let (address, inbox) = shard_mailbox().unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("one mail to an awake shard and out", |b| {
        b.iter(|| {
            address.control(control()).unwrap();
            inbox.next_control().unwrap()
        });
    });
    group.bench_function("one mail to a sleeping shard: the doorbell rings", |b| {
        b.iter(|| {
            assert!(inbox.prepare_sleep());
            address.control(control()).unwrap();
            inbox.woken();
            inbox.next_control().unwrap()
        });
    });
    const FLOOD: u64 = 64;
    group.throughput(Throughput::Elements(FLOOD));
    group.bench_function("64 mails, then all out", |b| {
        b.iter(|| {
            (0..FLOOD).for_each(|_| address.control(control()).unwrap());
            (0..FLOOD).for_each(|_| drop(inbox.next_control().unwrap()));
        });
    });
    group.finish();
}

criterion_group!(benches, logins, fan_out, mailbox);
criterion_main!(benches);
