//! How threads tell the main thread that something has happened: a bounded lane, and a bell that it sleeps on.
//!
//! What always holds: news that are sent while nobody waits end the next wait at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, TrySendError, bounded};

use super::NodeEvent;
use super::bell::EventBell;
use super::doorbell::Bell;

/// The sender's end; cheap to clone.
#[derive(Clone, Debug)]
pub struct NodeNews {
    lane: Sender<NodeEvent>,
    bell: Arc<EventBell>,
}

/// The main thread's end.
#[derive(Debug)]
pub struct NodeInbox {
    lane: Receiver<NodeEvent>,
    bell: Arc<EventBell>,
}

/// A lane with room for so many events.
///
/// # Errors
/// The process is out of descriptors.
pub fn node_news(capacity: usize) -> io::Result<(NodeNews, NodeInbox)> {
    let (sender, receiver) = bounded(capacity);
    let bell = Arc::new(EventBell::new()?);
    Ok((NodeNews { lane: sender, bell: Arc::clone(&bell) }, NodeInbox { lane: receiver, bell }))
}

impl NodeNews {
    /// Tells the main thread. Never waits.
    ///
    /// # Errors
    /// The lane is full, or the main thread has ended.
    pub fn try_send(&self, event: NodeEvent) -> Result<(), TrySendError<NodeEvent>> {
        self.lane.try_send(event)?;
        self.bell.ring();
        Ok(())
    }
}

impl NodeInbox {
    /// The next event. After [`TryRecvError::Empty`] the bell is silent until there is one.
    ///
    /// # Errors
    /// There is none, or all senders have ended.
    pub fn try_recv(&self) -> Result<NodeEvent, TryRecvError> {
        self.bell.silence();
        self.lane.try_recv()
    }

    /// Waits for the next event.
    ///
    /// # Errors
    /// None has come in time, or all senders have ended.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<NodeEvent, RecvTimeoutError> {
        self.lane.recv_timeout(timeout)
    }

    /// Readable while the bell rings.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::ids::ShardId;

    fn rings(inbox: &NodeInbox) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(inbox.bell(), PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn the_bell_rings_until_all_was_taken() {
        let (news, inbox) = node_news(2).unwrap();
        assert!(!rings(&inbox));
        news.try_send(NodeEvent::ShardReady(ShardId(1))).unwrap();
        news.try_send(NodeEvent::ShardReady(ShardId(2))).unwrap();
        assert!(rings(&inbox));
        assert!(matches!(inbox.try_recv(), Ok(NodeEvent::ShardReady(ShardId(1)))));
        assert!(matches!(inbox.try_recv(), Ok(NodeEvent::ShardReady(ShardId(2)))));
        assert!(matches!(inbox.try_recv(), Err(TryRecvError::Empty)));
        assert!(!rings(&inbox));
        drop(news);
        assert!(matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)));
    }
}
