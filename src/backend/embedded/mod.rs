//! The embedded backend: answers everything that OpenIM's services would, from memory. For development and tests.
//!
//! Pure: no clock, sockets, entropy or threads. It lives on an rpc thread and sees the same [`UpstreamCall`]s as the
//! services. Not here: groups, friends, accounts, read receipts, anything on disk. A restart forgets all.
//!
//! What always holds: exactly one reply to a call that has a ticket; every map is bounded by a constant of
//! `limits.rs`; the same calls at the same times give the same answers.

mod config;
mod conversations;
mod history;
mod presence;
mod pull;
mod send;
mod token_check;
mod token_states;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::backend::token::Verifier;
use crate::hub::upstream::{
    Method, PresenceRecord, UpstreamCall, UpstreamError, UpstreamOutcome, UpstreamReply, UpstreamRequest,
    UserPlatforms,
};
use crate::ids::{ShardId, Text};
use crate::pb::openim::msg::{GetConversationsHasReadAndMaxSeqReq, GetLastMessageReq, GetSeqMessageReq};
use crate::pb::openim::push::DelUserPushTokenReq;
use crate::pb::openim::sdkws::{GetMaxSeqReq, PullMessageBySeqsReq};
use crate::time::{Now, UnixMs};
pub use config::{EmbeddedConfig, HistoryLimits};
use conversations::Conversations;
use presence::Presence;
pub use token_check::TokenCheck;
use token_states::TokenStates;

/// What one call leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `Some` exactly if the call had a ticket.
    pub reply: Option<UpstreamReply>,
    /// To be pushed, after the reply, in this order.
    pub pushes: Vec<BackendPush>,
}

/// A message for those of these users who are online.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendPush {
    /// Of the request that caused it.
    pub operation_id: Text,
    /// The recipients, each once.
    pub users: Vec<Text>,
    /// The serialized `MsgData`.
    pub msg_data: Bytes,
    /// Its conversation key (spec 3.3).
    pub conversation: Box<str>,
}

/// All that the backend remembers: plain data that can be written out and read back. It holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    tokens: TokenStates,
    conversations: Conversations,
    presence: Presence,
    /// Messages sent so far: makes server message ids unique.
    sent: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Embedded {
    config: EmbeddedConfig,
    verifier: Verifier,
    state: State,
}

impl Embedded {
    /// Knows nothing yet.
    pub fn new(config: EmbeddedConfig) -> Self {
        Self::with_state(config, State::default())
    }

    /// Goes on where another one stopped.
    pub fn with_state(config: EmbeddedConfig, state: State) -> Self {
        Self { verifier: Verifier::new(&config.secret), config, state }
    }

    /// For writing it out.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Answers one question.
    pub fn call(&mut self, now: Now, call: &UpstreamCall) -> Answer {
        let mut pushes = Vec::new();
        let about_tokens =
            token_check::answer(&self.verifier, &mut self.state.tokens, now.unix, &call.request)
                .map(|(outcome, _)| outcome);
        let outcome = match (about_tokens, &call.request) {
            (Some(outcome), _) => outcome,
            (None, UpstreamRequest::Forward { method, data }) => self
                .forward(now.unix, call, (*method, data), &mut pushes)
                .unwrap_or_else(UpstreamOutcome::Failed),
            (None, UpstreamRequest::UserStatus { users }) => {
                let statuses = users.iter().map(|user| self.state.presence.status(user));
                UpstreamOutcome::Statuses(statuses.collect())
            }
            // The rest is about tokens, or other gateways.
            (None, _) => UpstreamOutcome::Failed(UpstreamError::internal()),
        };
        Answer { reply: call.ticket.map(|ticket| UpstreamReply { ticket, outcome }), pushes }
    }

    /// Takes a presence record in. `Some`: subscribers must hear this.
    pub fn presence(&mut self, _now: Now, record: &PresenceRecord, from: ShardId) -> Option<UserPlatforms> {
        self.state.presence.record(record, from)
    }

    /// Kept messages.
    pub fn messages(&self) -> usize {
        self.state.conversations.messages()
    }

    /// Bytes of kept messages.
    pub fn bytes(&self) -> usize {
        self.state.conversations.bytes()
    }

    /// See [`EmbeddedConfig::limits_text`].
    pub fn limits_text(&self) -> String {
        self.config.limits_text()
    }

    /// A client's request (spec 3.1).
    fn forward(
        &mut self,
        now: UnixMs,
        call: &UpstreamCall,
        (method, data): (Method, &Bytes),
        pushes: &mut Vec<BackendPush>,
    ) -> Result<UpstreamOutcome, UpstreamError> {
        let user = &*call.metadata.user;
        let conversations = &mut self.state.conversations;
        let pull_max = self.config.history.pull_max;
        match method {
            Method::GetMaxSeq => {
                let request = own(data, user, |r: &GetMaxSeqReq| &r.user_id)?;
                encoded(&pull::max_seqs(conversations, &request))
            }
            Method::PullMessageBySeqs => {
                let request = own(data, user, |r: &PullMessageBySeqsReq| &r.user_id)?;
                encoded(&pull::by_range(conversations, pull_max, &request)?)
            }
            Method::SendMsg => {
                let moment = (now, self.state.sent);
                let (reply, push) =
                    send::send(conversations, &self.config.history, moment, &call.metadata, data)?;
                self.state.sent += 1;
                pushes.push(push);
                encoded(&reply)
            }
            // The gateway forwards an empty request (spec trap 23).
            Method::SendSignalMsg => Err(UpstreamError::args("MsgData is empty")),
            Method::GetSeqMessage => {
                let request = own(data, user, |r: &GetSeqMessageReq| &r.user_id)?;
                encoded(&pull::by_seq(conversations, pull_max, &request)?)
            }
            Method::GetConversationsHasReadAndMaxSeq => {
                let request = own(data, user, |r: &GetConversationsHasReadAndMaxSeqReq| &r.user_id)?;
                encoded(&pull::read_seqs(conversations, &request)?)
            }
            Method::GetLastMessage => {
                let request = own(data, user, |r: &GetLastMessageReq| &r.user_id)?;
                encoded(&pull::last_messages(conversations, pull_max, &request)?)
            }
            Method::DelUserPushToken => {
                // No push tokens are kept, so none is deleted, whoever asks.
                decoded::<DelUserPushTokenReq>(data)?;
                Ok(UpstreamOutcome::Data(Bytes::new()))
            }
        }
    }
}

/// A request that names its user, who must be the one of the connection: nobody reads for another.
fn own<T: Message + Default>(data: &Bytes, user: &str, named: fn(&T) -> &str) -> Result<T, UpstreamError> {
    let request = decoded::<T>(data)?;
    if named(&request) == user { Ok(request) } else { Err(no_permission()) }
}

fn decoded<T: Message + Default>(data: &Bytes) -> Result<T, UpstreamError> {
    T::decode(data.clone()).map_err(|_| UpstreamError::internal())
}

fn encoded(reply: &impl Message) -> Result<UpstreamOutcome, UpstreamError> {
    Ok(UpstreamOutcome::Data(reply.encode_to_vec().into()))
}

/// 1002 (spec 7.5).
fn no_permission() -> UpstreamError {
    UpstreamError { code: 1002, message: "NoPermissionError".into(), detail: "".into() }
}

#[cfg(test)]
mod tests;
