//! Model check of the doorbell of the mailboxes: no lost wake-up, no lost mail, no doubled mail.
//!
//! `src/shard/doorbell.rs` is compiled here as it stands, with loom's atomics in place of the standard library's. The
//! build script makes copies without the sender's fence, without the reader's fence and without the re-check; the
//! model must fail for each of them, or it would prove nothing.
//!
//! The stand-in queue is one atomic with acquire and release: enough to hand over mail, and no more. A queue behind a
//! `Mutex` would order everything by itself and hide a missing fence (architecture.md section 9). Loom 0.7 treats
//! SeqCst *accesses* as acquire-release but models SeqCst *fences*, which is what the doorbell uses.
//!
//! Run: `cargo test -p pinion-loom --release`.
#![allow(unreachable_pub, reason = "the doorbell is public in the gateway and compiled here as it stands")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]
#![cfg(test)]

mod atomics {
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
}

#[path = "../../../src/shard/doorbell.rs"]
mod doorbell;

#[allow(dead_code, reason = "the mutants share one harness, which uses a part of each")]
mod mutants {
    pub(crate) use super::atomics;
    include!(concat!(env!("OUT_DIR"), "/mutants.rs"));
}

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

/// Preemptions of one execution that are tried. A lost wake-up needs one. Three take about a second in release, five
/// take minutes.
const PREEMPTIONS_MAX: usize = 3;

/// The stand-in queue: bit n is mail n.
struct BitQueue(AtomicUsize);

impl BitQueue {
    fn insert(&self, mail: usize) {
        let before = self.0.fetch_or(1 << mail, Ordering::Release);
        assert_eq!(before & 1 << mail, 0, "mail {mail} was posted twice");
    }

    fn waits(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// The lowest mail. The look before the removal may see an old value, as a real queue's may.
    fn pop(&self) -> Option<usize> {
        if !self.waits() {
            return None;
        }
        let mail = self.0.load(Ordering::Acquire).trailing_zeros() as usize;
        self.0.fetch_and(!(1 << mail), Ordering::AcqRel);
        Some(mail)
    }
}

/// A bell that counts. Relaxed: a write to an eventfd is not relied upon to order anything.
struct CountingBell(AtomicUsize);

/// The harness, once for each copy of the doorbell: their traits are different traits to the compiler.
macro_rules! model {
    ($name:ident, $($doorbell:ident)::+) => {
        mod $name {
            use $($doorbell)::+::{Bell, Doorbell, Inlet, Outlet};

            use super::*;

            impl Outlet for BitQueue {
                type Mail = usize;
                fn push(&self, mail: usize) -> Result<(), usize> {
                    self.insert(mail);
                    Ok(())
                }
            }

            impl Inlet for BitQueue {
                fn is_empty(&self) -> bool {
                    !self.waits()
                }
            }

            impl Bell for CountingBell {
                fn ring(&self) {
                    self.0.fetch_add(1, Ordering::Relaxed);
                }
            }

            struct Post {
                queue: BitQueue,
                doorbell: Doorbell<CountingBell>,
            }

            /// `senders` threads post `mails` mails each while this one reads as a shard does.
            fn execution(senders: usize, mails: usize) {
                let post = Arc::new(Post {
                    queue: BitQueue(AtomicUsize::new(0)),
                    doorbell: Doorbell::new(CountingBell(AtomicUsize::new(0))),
                });
                let threads: Vec<_> = (0..senders)
                    .map(|sender| {
                        let post = Arc::clone(&post);
                        thread::spawn(move || {
                            for n in 0..mails {
                                post.doorbell.send(&post.queue, sender * mails + n).unwrap();
                            }
                        })
                    })
                    .collect();
                let mut read = vec![0; senders * mails];
                let mut drain = || std::iter::from_fn(|| post.queue.pop()).for_each(|mail| read[mail] += 1);
                let rings = || post.doorbell.bell().0.load(Ordering::Relaxed);
                let (mut asleep, mut heard) = (false, 0);
                // Each mail keeps the reader awake for one round at most, and rings once at most.
                for _ in 0..=2 * senders * mails {
                    drain();
                    asleep = post.doorbell.prepare_sleep(&post.queue);
                    if asleep && rings() == heard {
                        break;
                    }
                    heard = rings();
                    post.doorbell.woken();
                }
                threads
                    .into_iter()
                    .for_each(|thread| thread.join().unwrap());
                if asleep && rings() == heard {
                    assert!(
                        !post.queue.waits(),
                        "lost wake-up: mail waits, the reader sleeps, nobody rang"
                    );
                }
                post.doorbell.woken();
                drain();
                assert!(
                    read.iter().all(|&times| times == 1),
                    "lost or doubled mail: {read:?}"
                );
                assert!(
                    post.doorbell.prepare_sleep(&post.queue),
                    "all is read, so it may sleep"
                );
            }

            pub fn check(senders: usize, mails: usize) {
                let mut builder = loom::model::Builder::new();
                builder.preemption_bound = Some(PREEMPTIONS_MAX);
                builder.check(move || execution(senders, mails));
            }
        }
    };
}

model!(production, crate::doorbell);
model!(sender_fence_removed, crate::mutants::sender_fence_removed);
model!(reader_fence_removed, crate::mutants::reader_fence_removed);
model!(recheck_removed, crate::mutants::recheck_removed);

#[test]
fn the_doorbell_loses_no_wake_up_and_no_mail() {
    for (senders, mails) in [(1, 1), (1, 2), (2, 1)] {
        production::check(senders, mails);
    }
}

/// A model check with so many senders and so many mails each.
type Check = fn(usize, usize);

#[test]
fn each_line_of_the_protocol_is_needed() {
    let mutants: [(&str, Check); 3] = [
        ("sender fence", sender_fence_removed::check),
        ("reader fence", reader_fence_removed::check),
        ("re-check", recheck_removed::check),
    ];
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {})); // the failures are what is wanted; their traces are noise
    let found = mutants.map(|(name, check)| {
        let fault = std::panic::catch_unwind(|| check(1, 1)).err();
        (name, fault.and_then(|fault| fault.downcast_ref::<&str>().map(|text| text.to_string())))
    });
    std::panic::set_hook(loud);
    for (name, fault) in found {
        let fault = fault.unwrap_or_default();
        assert!(fault.starts_with("lost wake-up"), "the model did not miss the {name}: {fault:?}");
    }
}
