//! The mailbox of a shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use criterion::{Criterion, Throughput};
use pinion::hub::mail::ShardMail;
use pinion::ids::{RpcId, RpcTicket, SlotId};
use pinion::shard::mailbox::shard_mailbox;

/// Mails of one flood: many times what the lane holds, so that sender and reader meet at its bound.
const FLOOD: u64 = 100_000;

/// The smallest mail: no allocation is in the figures.
fn mail() -> ShardMail {
    ShardMail::CancelPush(RpcTicket { rpc: RpcId(0), slot: SlotId { index: 1, generation: 1 } })
}

/// Mails per second. `awake`: posted and taken by one thread, the reader awake. `asleep`: as that, but the reader has
/// announced its sleep each time, so the sender rings (a write to an eventfd) and the reader silences the bell.
/// `flood`: another thread sends as fast as the lane takes it.
pub(super) fn mailbox(c: &mut Criterion) {
    let mut group = c.benchmark_group("mailbox");
    group.throughput(Throughput::Elements(1));
    let (address, inbox) = shard_mailbox().expect("there is a descriptor");
    group.bench_function("awake", |b| {
        b.iter(|| {
            address.push(mail()).expect("there is room");
            inbox.next_push().expect("is there")
        });
    });
    group.bench_function("asleep", |b| {
        b.iter(|| {
            assert!(inbox.prepare_sleep());
            address.push(mail()).expect("there is room");
            inbox.woken();
            inbox.next_push().expect("is there")
        });
    });

    // The reader asks for a flood by raising the count that may be sent; the sender ends when it is gone.
    let asked = Arc::new(AtomicU64::new(0));
    let wanted = Arc::clone(&asked);
    let sender = thread::Builder::new().name("flood".into()).spawn(move || {
        let mut sent = 0;
        loop {
            match wanted.load(Ordering::Acquire) {
                u64::MAX => return,
                asked if sent < asked && address.push(mail()).is_ok() => sent += 1,
                _ => thread::yield_now(),
            }
        }
    });
    let sender = sender.expect("a thread");
    group.throughput(Throughput::Elements(FLOOD)).sample_size(20);
    group.bench_function("flood", |b| {
        b.iter(|| {
            asked.fetch_add(FLOOD, Ordering::Release);
            let mut taken = 0;
            while taken < FLOOD {
                match inbox.next_push() {
                    Some(_) => taken += 1,
                    None => thread::yield_now(),
                }
            }
        });
    });
    group.finish();
    asked.store(u64::MAX, Ordering::Release);
    sender.join().expect("the sender ends");
}
