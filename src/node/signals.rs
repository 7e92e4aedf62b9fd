//! What the main thread waits for: signals, and news of the other threads. Meanwhile it sleeps in the kernel.
//!
//! What always holds: a signal that comes while nobody waits ends the next wait at once, and so do news.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::shard::news::NodeInbox;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Signals(SignalDelivery<UnixStream, SignalOnly>);

impl Signals {
    /// From now on these signals do nothing but end up here.
    ///
    /// # Errors
    /// A signal cannot be caught, or the process is out of descriptors.
    pub(super) fn catch(signals: &[i32]) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        SignalDelivery::with_pipe(read, write, SignalOnly, signals).map(Self)
    }

    /// Catches one more.
    ///
    /// # Errors
    /// As [`Signals::catch`].
    pub(super) fn add(&self, signal: i32) -> io::Result<()> {
        self.0.handle().add_signal(signal)
    }

    /// Those that came since the last call, each once.
    pub(super) fn pending(&mut self) -> impl Iterator<Item = i32> {
        self.0.pending()
    }

    /// Waits for a signal or for news, so many milliseconds at most. It may end early.
    pub(super) fn wait(&self, news: &NodeInbox, ms: u64) {
        self.wait_beside([PollFd::from_borrowed_fd(news.bell(), PollFlags::IN)], ms);
    }

    /// As [`Signals::wait`], for any of these instead of news.
    pub(super) fn wait_beside<'a>(&'a self, others: impl IntoIterator<Item = PollFd<'a>>, ms: u64) {
        let timeout = Timespec {
            tv_sec: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(ms % 1_000 * 1_000_000).unwrap_or(0),
        };
        let mut all = vec![PollFd::new(self.0.get_read(), PollFlags::IN)];
        all.extend(others);
        let ended = poll(&mut all, Some(&timeout)); // EINTR: a signal has come, which is what is waited for
        tracing::trace!(?ended, "main wakes");
    }
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::SIGWINCH;

    use super::*;
    use crate::shard::NodeEvent;
    use crate::shard::news::node_news;

    #[test]
    fn a_signal_ends_the_wait_and_is_told_once() {
        let mut signals = Signals::catch(&[]).unwrap();
        signals.add(SIGWINCH).unwrap();
        signal_hook::low_level::raise(SIGWINCH).unwrap();
        let mut seen: Vec<i32> = Vec::new();
        let (news, inbox) = node_news(1).unwrap();
        while seen.is_empty() {
            signals.wait(&inbox, 3_600_000);
            seen.extend(signals.pending());
        }
        assert_eq!(seen, [SIGWINCH]);
        signals.wait(&inbox, 0);
        assert_eq!(signals.pending().count(), 0);
        // Ends at once, or never.
        news.try_send(NodeEvent::Failed("a thread".into())).unwrap();
        signals.wait(&inbox, 3_600_000);
    }
}
