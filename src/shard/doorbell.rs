//! The doorbell of a mailbox: wakes a reader that sleeps, costs a reader that is awake nothing.
//!
//! Not here: the queues (crossbeam channels, `mailbox.rs`) and the bell (an eventfd, `bell.rs`). This file is generic
//! over both, because `tests/loom` compiles it as it stands with loom's atomics, a stand-in queue and a counting bell.
//! It also compiles copies from which one of the lines marked `// loom:` was taken out, and demands that the model
//! fails for each. Whoever changes a marked line changes `tests/loom/build.rs` with it. No unit tests here, for the
//! same reason; the tests with real threads are in `mailbox.rs`.
//!
//! What always holds: when a sender is done, its mail was read, or the reader is awake and will look at the queues
//! before it sleeps, or the bell was rung after the reader fell asleep.
//!
//! Why: the sender writes *queue* then reads *asleep*; the reader writes *asleep* then reads *queue*. Without the two
//! SeqCst fences both may read the old value (a store may pass a later load of another address, on x86 too), and the
//! mail would lie there until something else wakes the reader. With them at least one side sees the other.

use super::atomics::{AtomicBool, Ordering, fence};

/// The sending end of a bounded queue.
pub trait Outlet {
    /// What it carries.
    type Mail;

    /// Appends without waiting. Full, or the reader is gone: the mail comes back. Publishes with release or stronger.
    fn push(&self, mail: Self::Mail) -> Result<(), Self::Mail>;
}

/// The reading end of all queues that share one doorbell.
pub trait Inlet {
    /// Whether nothing waits in any of them. Looks with acquire or stronger.
    fn is_empty(&self) -> bool;
}

/// Wakes the reader out of its wait in the kernel.
pub trait Bell {
    /// Rings. Never waits. A ring that the reader has not heard yet may swallow this one.
    fn ring(&self);
}

/// One flag and one bell for all queues of one reader.
#[derive(Debug)]
pub struct Doorbell<B> {
    /// The reader waits for the bell, or is about to. Set by the reader only; taken back by the reader, or by the one
    /// sender that will ring.
    ///
    /// Every write is a swap, the reader's too, where a store would do: loom 0.7 does not know that a store cannot slip
    /// between the two halves of a sender's swap, and reports wake-ups as lost that no machine loses. Beside the
    /// system calls of a sleep it costs nothing.
    asleep: AtomicBool,
    bell: B,
}

impl<B: Bell> Doorbell<B> {
    /// A doorbell whose reader is awake.
    pub fn new(bell: B) -> Self {
        Self { asleep: AtomicBool::new(false), bell }
    }

    /// What rings.
    pub fn bell(&self) -> &B {
        &self.bell
    }

    /// Sender: posts, then wakes the reader if it sleeps. Of several senders one rings.
    ///
    /// # Errors
    /// The mail, if the queue did not take it. Nobody is woken then: a full queue has a reader that is awake, or one
    /// that was rung for.
    pub fn send<Q: Outlet>(&self, queue: &Q, mail: Q::Mail) -> Result<(), Q::Mail> {
        queue.push(mail)?;
        fence(Ordering::SeqCst); // loom: sender fence
        // The load keeps the flag's cache line shared while the reader is awake: a swap alone would move it between
        // all senders of a flood.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.bell.ring();
        }
        Ok(())
    }

    /// Reader: announces sleep. `true`: wait for the bell now. `false`: mail came meanwhile, read on.
    ///
    /// Call [`Doorbell::woken`] after a wait, whatever ended it.
    #[must_use]
    pub fn prepare_sleep(&self, queues: &impl Inlet) -> bool {
        self.asleep.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst); // loom: reader fence
        let empty = queues.is_empty(); // loom: re-check
        if !empty {
            self.woken();
        }
        empty
    }

    /// Reader: is awake; senders need not ring. A sender that took the flag before may still be about to ring, which
    /// costs one wake-up for nothing.
    pub fn woken(&self) {
        self.asleep.swap(false, Ordering::Relaxed);
    }
}
