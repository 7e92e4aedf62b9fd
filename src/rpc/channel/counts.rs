//! What a channel counts. Plain numbers: the owner reads them and publishes what it likes.

/// Counts of one channel since it was made, and how it stands now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelCounts {
    /// Calls that were asked for; each ends as one of the next seven, or is open.
    pub calls: u64,
    /// With a message.
    pub answered: u64,
    /// With [`CallFault::Status`](super::CallFault::Status).
    pub statuses: u64,
    /// With [`CallFault::Unavailable`](super::CallFault::Unavailable).
    pub unavailable: u64,
    /// With [`CallFault::Deadline`](super::CallFault::Deadline).
    pub deadlines: u64,
    /// With [`CallFault::Overloaded`](super::CallFault::Overloaded).
    pub overloaded: u64,
    /// With [`CallFault::Metadata`](super::CallFault::Metadata).
    pub metadata: u64,
    /// Dropped by the caller.
    pub cancelled: u64,
    /// Milliseconds that all calls that are over took together.
    pub latency_ms: u64,
    /// Second attempts.
    pub retries: u64,
    /// Times that an instance was taken out of rotation.
    pub breaker_opens: u64,
    /// Connections that became ready.
    pub connects: u64,
    /// Attempts that did not.
    pub connect_failures: u64,
    /// Keep-alive PINGs sent.
    pub pings: u64,
    /// Connections now, with those that are being drained.
    pub connections: usize,
    /// Instances that can be asked now, of [`ChannelCounts::instances`].
    pub ready: usize,
    /// Instances of the last snapshot.
    pub instances: usize,
    /// Calls that are open or wait now.
    pub in_flight: usize,
    /// Those of them that wait for an instance.
    pub waiting: usize,
    /// Bytes of requests and answers that they hold.
    pub held_bytes: usize,
}
