//! Who answers the shards' questions on rpc thread 0: the embedded backend behind the same mail as OpenIM's services.

use crate::cluster::request::MessageFacts;
use crate::cluster::router::Push;
use crate::hub::mail::PushBody;
use crate::hub::upstream::{
    PresenceRecord, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply, UserPlatforms,
};
use crate::ids::SourceId;
use crate::limits::PUSH_DEADLINE_MS;
use crate::metrics::Tally;
use crate::time::Now;

/// What follows from a question or a presence record.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// For the shard that asked.
    pub(super) reply: Option<UpstreamReply>,
    /// Nobody waits for their verdicts.
    pub(super) pushes: Vec<Push>,
    /// For all shards.
    pub(super) news: Vec<UserPlatforms>,
}

impl Work {
    /// The answer of a thread without a backend: shards ask thread 0 only, so this is a wrong address.
    pub(super) fn no_backend(call: &UpstreamCall) -> Self {
        let reply = call.ticket.map(|ticket| UpstreamReply {
            ticket,
            outcome: UpstreamOutcome::Failed(UpstreamError::internal()),
        });
        Self {
            reply,
            ..Self::default()
        }
    }
}

/// The embedded backend as seen by an rpc thread.
pub(super) struct Backend {
    /// All its pushes are one source: they keep their order.
    source: SourceId,
}

impl Backend {
    pub(super) fn new(source: SourceId) -> Self {
        Self { source }
    }

    /// Answers one question.
    pub(super) fn call(&mut self, _now: Now, call: &UpstreamCall) -> Work {
        Work::no_backend(call)
    }

    /// Takes one presence record.
    pub(super) fn presence(&mut self, _now: Now, _record: PresenceRecord) -> Work {
        Work::default()
    }

    /// Writes what it holds into the thread's counts.
    pub(super) fn publish(&self, _tally: &mut Tally) {}
}
