//! How a loop sleeps: until its nudge or until a time, whichever is first, with one timer for its whole life.
//!
//! Not here: until when (the loop). What always holds: a sleep ends at the latest about a millisecond after its time,
//! and one that is set anew for the same time costs nothing.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use monoio::time::{Instant, Sleep};

use super::clock;
use super::nudge::Nudge;
use crate::time::Mono;

/// What ended a sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Somebody rang.
    ByNudge,
    /// Nobody did: it was time.
    ByClock,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Rest {
    timer: Pin<Box<Sleep>>,
    until: Mono,
}

impl Rest {
    /// A timer of the calling thread's runtime.
    pub(super) fn new() -> Self {
        Self { timer: Box::pin(monoio::time::sleep(Duration::ZERO)), until: Mono(0) }
    }

    /// Sleeps.
    pub(super) async fn sleep(&mut self, nudge: &Nudge, until: Mono) -> Woken {
        if until != self.until {
            self.until = until;
            let wait = until.since_ms(clock::now().mono);
            self.timer.as_mut().reset(Instant::now() + Duration::from_millis(wait));
        }
        poll_fn(|cx| {
            if nudge.poll_wait(cx).is_ready() {
                return Poll::Ready(Woken::ByNudge);
            }
            self.timer.as_mut().poll(cx).map(|()| Woken::ByClock)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::thread::{block_on, tests::on_each_of_the_drivers};

    #[test]
    fn a_sleep_ends_by_its_nudge_or_else_at_its_time_and_not_before() {
        on_each_of_the_drivers(|driver| {
            block_on(driver, |_| async move {
                let (mut rest, nudge, start) = (Rest::new(), Nudge::default(), clock::now().mono);
                let (near, far) = (start.plus_ms(20), start.plus_ms(3_600_000));
                nudge.ring();
                assert_eq!(rest.sleep(&nudge, far).await, Woken::ByNudge, "{driver:?}");
                for _ in 0..2 {
                    assert_eq!(
                        rest.sleep(&nudge, near).await,
                        Woken::ByClock,
                        "{driver:?}: nearer, then past"
                    );
                    assert!(clock::now().mono >= near);
                }
                let ringer = nudge.clone();
                monoio::spawn(async move {
                    monoio::time::sleep(Duration::from_millis(5)).await;
                    ringer.ring();
                });
                assert_eq!(rest.sleep(&nudge, far).await, Woken::ByNudge, "{driver:?}: rung meanwhile");
            });
        });
    }
}
