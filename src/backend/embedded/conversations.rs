//! One-to-one conversations with their histories, and who takes part in them.
//!
//! Not here: what a client may ask for (`send`, `pull`). Conversations are never removed, so their number is the
//! bound; messages are: first by count per conversation, then by bytes over all, from the largest conversation.
//!
//! What always holds: `ids`, `of_users` and `by_size` agree with `all`; a conversation has one pair of users, even
//! if the ids of another pair join to the same key (spec trap 29): those are refused.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use serde::{Deserialize, Serialize};

use super::HistoryLimits;
use super::history::History;
use crate::limits;
use crate::pb::openim::sdkws::MsgData;
use crate::time::UnixMs;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conversations {
    all: Vec<Conversation>,
    /// Conversation id -> position in `all`.
    ids: BTreeMap<Box<str>, usize>,
    /// User -> positions in `all`.
    of_users: BTreeMap<Box<str>, BTreeSet<usize>>,
    /// (bytes, position) of every conversation that keeps messages.
    by_size: BTreeSet<(usize, usize)>,
    messages: usize,
    bytes: usize,
}

/// One conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Conversation {
    /// Its key (spec 3.3).
    pub id: Box<str>,
    /// What is kept.
    pub history: History,
    /// When the newest message got its number.
    pub max_seq_time: UnixMs,
    /// Whoever takes part, with the newest number known to be read: his own last message.
    pub read: BTreeMap<Box<str>, i64>,
}

/// Why a message has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// [`HistoryLimits::conversations_max`].
    ConversationsFull,
    /// `limits::EMBEDDED_USER_CONVERSATIONS_MAX`, of the sender or the receiver.
    UserConversationsFull,
    /// Another pair of users has this conversation id.
    AmbiguousId,
}

impl Conversations {
    /// Gives the message its number and keeps it. Returns it serialized, with the number.
    ///
    /// # Errors
    /// See [`Refusal`]; then nothing has changed.
    pub(super) fn append(
        &mut self,
        now: UnixMs,
        limits: &HistoryLimits,
        id: &str,
        mut message: MsgData,
    ) -> Result<Bytes, Refusal> {
        let position = self.open(limits, id, &message)?;
        // `open` gave a position within `all`.
        let conversation = self.all.get_mut(position).ok_or(Refusal::ConversationsFull)?;
        message.seq = conversation.history.next_seq();
        let bytes = Bytes::from(message.encode_to_vec());
        conversation.max_seq_time = now;
        conversation.read.insert(message.send_id.into(), message.seq);
        self.resize(position, |history| history.push(bytes.clone()));
        self.trim(position, limits);
        Ok(bytes)
    }

    /// The conversation, if the user takes part in it.
    pub(super) fn find(&self, user: &str, id: &str) -> Option<&Conversation> {
        let conversation = self.all.get(*self.ids.get(id)?)?;
        conversation.read.contains_key(user).then_some(conversation)
    }

    /// All conversations of the user, oldest first.
    pub(super) fn of_user(&self, user: &str) -> impl Iterator<Item = &Conversation> {
        let positions = self.of_users.get(user).into_iter().flatten();
        positions.filter_map(|position| self.all.get(*position))
    }

    /// Kept messages.
    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    /// Bytes of kept messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The position of the conversation between the sender and the receiver, which is made if need be.
    fn open(&mut self, limits: &HistoryLimits, id: &str, message: &MsgData) -> Result<usize, Refusal> {
        let pair = [message.send_id.as_str(), message.recv_id.as_str()];
        if let Some(position) = self.ids.get(id).copied() {
            let known = pair.iter().all(|user| self.find(user, id).is_some());
            return if known { Ok(position) } else { Err(Refusal::AmbiguousId) };
        }
        if self.all.len() >= limits.conversations_max {
            return Err(Refusal::ConversationsFull);
        }
        let full = |user| {
            let count = self.of_users.get(user).map_or(0, BTreeSet::len);
            count >= limits::EMBEDDED_USER_CONVERSATIONS_MAX
        };
        if pair.into_iter().any(full) {
            return Err(Refusal::UserConversationsFull);
        }
        let position = self.all.len();
        self.ids.insert(id.into(), position);
        for user in pair {
            self.of_users.entry(user.into()).or_default().insert(position);
        }
        self.all.push(Conversation {
            id: id.into(),
            history: History::default(),
            max_seq_time: UnixMs::default(),
            read: pair.into_iter().map(|user| (user.into(), 0)).collect(),
        });
        Ok(position)
    }

    /// Brings conversation and total back below the limits.
    fn trim(&mut self, position: usize, limits: &HistoryLimits) {
        while self.all.get(position).is_some_and(|c| c.history.len() > limits.history_max) {
            self.resize(position, |history| {
                history.forget_oldest();
            });
        }
        while self.bytes > limits.history_bytes {
            let Some((_, largest)) = self.by_size.last().copied() else {
                return;
            };
            self.resize(largest, |history| {
                history.forget_oldest();
            });
        }
    }

    /// Changes one history and everything that is counted from it.
    fn resize(&mut self, position: usize, change: impl FnOnce(&mut History)) {
        let Some(conversation) = self.all.get_mut(position) else {
            return;
        };
        let history = &mut conversation.history;
        let (bytes, messages) = (history.bytes(), history.len());
        change(history);
        self.bytes = self.bytes.saturating_sub(bytes) + history.bytes();
        self.messages = self.messages.saturating_sub(messages) + history.len();
        self.by_size.remove(&(bytes, position));
        if history.len() > 0 {
            self.by_size.insert((history.bytes(), position));
        }
    }
}

#[cfg(test)]
mod tests;
