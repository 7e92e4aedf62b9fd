//! Who answers the shards' questions on rpc thread 0: the embedded backend, behind the same mail as OpenIM's services.
//!
//! Only its glue is here: the backend is pure and knows neither shards' mailboxes nor push sources.

use super::planted::{Fate, LateCalls};
use crate::backend::embedded::{self, BackendPush, EmbeddedConfig};
use crate::cluster::router::{Push, To};
use crate::config::Config;
use crate::hub::mail::{PushBody, PushRules};
use crate::hub::upstream::{
    PresenceRecord, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply, UserPlatforms,
};
use crate::ids::{ShardId, SourceId};
use crate::limits::PUSH_DEADLINE_MS;
use crate::metrics::{Metric, Tally};
use crate::time::Now;

/// What follows from a question or a presence record.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// For the shard that asked.
    pub(super) reply: Option<UpstreamReply>,
    /// Nobody waits for their verdicts.
    pub(super) pushes: Vec<Push>,
    /// For all shards.
    pub(super) news: Option<UserPlatforms>,
}

impl Work {
    /// The answer of a thread without a backend: shards ask thread 0 only, so this is a wrong address.
    pub(super) fn no_backend(call: &UpstreamCall) -> Self {
        let reply = call.ticket.map(|ticket| UpstreamReply {
            ticket,
            outcome: UpstreamOutcome::Failed(UpstreamError::internal()),
        });
        Self { reply, ..Self::default() }
    }
}

/// The embedded backend as seen by an rpc thread.
pub(super) struct Embedded {
    embedded: embedded::Embedded,
    /// All its pushes are one source: they keep their order.
    source: SourceId,
    /// Test switch.
    late: LateCalls,
}

impl Embedded {
    pub(super) fn new(config: &Config, source: SourceId) -> Self {
        let embedded = embedded::Embedded::new(EmbeddedConfig::new(&config.auth.secret));
        Self { embedded, source, late: LateCalls::new(config.planted.upstream) }
    }

    /// Answers one question; with a planted upstream perhaps later, in [`Embedded::next_late`].
    pub(super) fn call(&mut self, now: Now, call: &UpstreamCall) -> Work {
        if self.late.hold(now.mono, call) { Work::default() } else { self.answer(now, call) }
    }

    /// Whether a late answer is outstanding.
    pub(super) fn owes(&self) -> bool {
        !self.late.is_empty()
    }

    /// The next late answer whose time has come, and for whom.
    pub(super) fn next_late(&mut self, now: Now) -> Option<(ShardId, Work)> {
        let (call, fate) = self.late.next_due(now.mono)?;
        let work = match fate {
            Fate::Answered => self.answer(now, &call),
            Fate::Lost => Work::no_backend(&call),
        };
        Some((call.shard, work))
    }

    fn answer(&mut self, now: Now, call: &UpstreamCall) -> Work {
        let answer = self.embedded.call(now, call);
        let source = self.source;
        let push = |push: BackendPush| Push {
            source,
            body: PushBody {
                operation_id: push.operation_id,
                conversation: push.conversation,
                msg_data: push.msg_data,
                frames: None,
            },
            to: To::Users(push.users),
            rules: PushRules::default(),
            deadline: now.mono.plus_ms(PUSH_DEADLINE_MS),
        };
        Work { reply: answer.reply, pushes: answer.pushes.into_iter().map(push).collect(), news: None }
    }

    /// Takes the presence record of a user that `owner` owns.
    pub(super) fn presence(&mut self, now: Now, record: &PresenceRecord, owner: ShardId) -> Work {
        Work { news: self.embedded.presence(now, record, owner), ..Work::default() }
    }

    /// Writes what it holds into the thread's counts.
    pub(super) fn publish(&self, tally: &mut Tally) {
        tally.set(Metric::BackendMessages, self.embedded.messages() as u64);
        tally.set(Metric::BackendBytes, self.embedded.bytes() as u64);
    }
}
