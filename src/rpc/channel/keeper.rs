//! Keeps one instance connected, from the snapshot that names it first to the one that names it no more.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::Inner;
use super::backoff::Backoff;
use super::link::{Driver, Left};
use super::rotation::{Hope, Joined};
use crate::shard::nudge::Nudge;

/// Connects, and connects again when the connection ends: at once if it was good, else after a growing pause.
pub(super) async fn keep(inner: Rc<Inner>, instance: Joined) {
    let Joined { key, address, stop } = instance;
    let limits = inner.limits;
    // Keys differ, so instances pause differently; so do channels, by their seed.
    let seed = inner.seed ^ key.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut backoff = Backoff::new(limits.backoff_least_ms, limits.backoff_ms, seed);
    loop {
        let Some(connected) = unless_stopped(&stop, Driver::connect(&inner, address)).await else {
            return;
        };
        match connected {
            Err(cause) => {
                let news = inner.change(|state, _| {
                    state.counts.connect_failures += 1;
                    state.rotation.lost(key, Hope::None, &cause)
                });
                if news {
                    tracing::warn!(service = %inner.service, %address, cause, "an instance is down");
                }
            }
            Ok(mut driver) => {
                inner.change(|state, _| {
                    state.counts.connects += 1;
                    state.rotation.ready(key, &driver.link);
                });
                tracing::info!(service = %inner.service, %address, "an instance is connected");
                let left = driver.serve(&stop).await;
                let (good, cause) = (driver.was_good(), driver.link.cause());
                let cause = cause.as_deref().unwrap_or_default();
                // One short connection is bad luck.
                let hope = if good || backoff.is_fresh() { Hope::Soon } else { Hope::None };
                inner.change(|state, _| state.rotation.lost(key, hope, cause));
                tracing::info!(service = %inner.service, %address, cause, good, "its connection takes no more calls");
                match left {
                    Left::Dead => drop(driver),
                    Left::Leaving => drop(monoio::spawn(driver.drain())),
                    Left::Stopped => return driver.drain().await,
                }
                if good {
                    backoff.reset();
                    continue;
                }
            }
        }
        let pause = monoio::time::sleep(Duration::from_millis(backoff.pause_ms()));
        if unless_stopped(&stop, pause).await.is_none() {
            return;
        }
    }
}

/// Runs `work`, at most until `stop` rings; then it is dropped.
async fn unless_stopped<T>(stop: &Nudge, work: impl Future<Output = T>) -> Option<T> {
    let (mut stop, mut work) = (pin!(stop.wait()), pin!(work));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => stop.as_mut().poll(cx).map(|()| None),
    })
    .await
}
