//! What clients read: newest numbers (1001), messages by range (1002) and by number (1005), read state (1006), last
//! messages (1007).
//!
//! What always holds: a user reads only conversations that he takes part in; what is not there, or not kept any
//! more, is absent from the answer; an answer fits one frame: it is shortened, and then does not say `isEnd`.
//! Messages of one conversation are in ascending order.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;

use super::conversations::{Conversation, Conversations};
use crate::hub::upstream::UpstreamError;
use crate::limits;
use crate::pb::openim::msg::{
    GetConversationsHasReadAndMaxSeqReq, GetConversationsHasReadAndMaxSeqResp, GetLastMessageReq,
    GetLastMessageResp, GetSeqMessageReq, GetSeqMessageResp, Seqs,
};
use crate::pb::openim::sdkws::{
    GetMaxSeqReq, GetMaxSeqResp, MsgData, PullMessageBySeqsReq, PullMessageBySeqsResp, PullMsgs, PullOrder,
    SeqRange,
};

/// 1001: newest numbers of all conversations; oldest kept ones where messages were forgotten.
pub(super) fn max_seqs(conversations: &Conversations, request: &GetMaxSeqReq) -> GetMaxSeqResp {
    let mut answer = GetMaxSeqResp::default();
    for conversation in conversations.of_user(&request.user_id) {
        let history = &conversation.history;
        let id = String::from(&*conversation.id);
        if history.min_seq() > 1 {
            answer.min_seqs.insert(id.clone(), history.min_seq());
        }
        answer.max_seqs.insert(id, history.max_seq());
    }
    answer
}

/// 1002: of each range the newest `num` messages (0: as many as one answer takes).
///
/// # Errors
/// ArgsError above `limits::EMBEDDED_ITEMS_MAX` ranges.
pub(super) fn by_range(
    conversations: &Conversations,
    pull_max: usize,
    request: &PullMessageBySeqsReq,
) -> Result<PullMessageBySeqsResp, UpstreamError> {
    few_enough(request.seq_ranges.len())?;
    let mut budget = Budget::new(pull_max);
    let mut answer = PullMessageBySeqsResp::default();
    for range in &request.seq_ranges {
        let Some(conversation) = conversations.find(&request.user_id, &range.conversation_id) else {
            continue;
        };
        if !budget.spend(range.conversation_id.len()) {
            break;
        }
        let part = newest_of_range(conversation, range, request.order(), &mut budget);
        let id = range.conversation_id.clone();
        side(&mut answer.msgs, &mut answer.notification_msgs, &id).insert(id, part);
    }
    Ok(answer)
}

/// 1005: exactly these numbers, each once.
///
/// # Errors
/// ArgsError above `limits::EMBEDDED_ITEMS_MAX` conversations or numbers.
pub(super) fn by_seq(
    conversations: &Conversations,
    pull_max: usize,
    request: &GetSeqMessageReq,
) -> Result<GetSeqMessageResp, UpstreamError> {
    few_enough(request.conversations.len())?;
    few_enough(request.conversations.iter().map(|c| c.seqs.len()).sum())?;
    let mut budget = Budget::new(pull_max);
    let mut answer = GetSeqMessageResp::default();
    for wanted in &request.conversations {
        let Some(conversation) = conversations.find(&request.user_id, &wanted.conversation_id) else {
            continue;
        };
        if !budget.spend(wanted.conversation_id.len()) {
            break;
        }
        let seqs: BTreeSet<i64> = wanted.seqs.iter().copied().collect();
        let part = exactly(conversation, &seqs, request.order(), &mut budget);
        let id = wanted.conversation_id.clone();
        side(&mut answer.msgs, &mut answer.notification_msgs, &id).insert(id, part);
    }
    Ok(answer)
}

/// 1006: newest and read numbers of the named conversations, or of all if none is named. Nothing is pinned.
///
/// # Errors
/// ArgsError above `limits::EMBEDDED_ITEMS_MAX` ids.
pub(super) fn read_seqs(
    conversations: &Conversations,
    request: &GetConversationsHasReadAndMaxSeqReq,
) -> Result<GetConversationsHasReadAndMaxSeqResp, UpstreamError> {
    few_enough(request.conversation_i_ds.len())?;
    let user = &*request.user_id;
    let mut answer = GetConversationsHasReadAndMaxSeqResp::default();
    let mut put = |conversation: &Conversation| {
        let seqs = Seqs {
            max_seq: conversation.history.max_seq(),
            has_read_seq: conversation.read.get(user).copied().unwrap_or(0),
            max_seq_time: conversation.max_seq_time.0,
        };
        answer.seqs.insert(String::from(&*conversation.id), seqs);
    };
    if request.conversation_i_ds.is_empty() {
        conversations.of_user(user).for_each(&mut put);
    }
    for id in &request.conversation_i_ds {
        conversations.find(user, id).into_iter().for_each(&mut put);
    }
    Ok(answer)
}

/// 1007: the newest kept message of each named conversation.
///
/// # Errors
/// ArgsError above `limits::EMBEDDED_ITEMS_MAX` ids.
pub(super) fn last_messages(
    conversations: &Conversations,
    pull_max: usize,
    request: &GetLastMessageReq,
) -> Result<GetLastMessageResp, UpstreamError> {
    few_enough(request.conversation_i_ds.len())?;
    let mut budget = Budget::new(pull_max);
    let mut answer = GetLastMessageResp::default();
    for id in &request.conversation_i_ds {
        let Some(last) = conversations.find(&request.user_id, id).and_then(|c| c.history.last()) else {
            continue;
        };
        if !budget.spend(id.len()) {
            break;
        }
        if let Some(message) = budget.take(last) {
            answer.msgs.insert(id.clone(), message);
        }
    }
    Ok(answer)
}

fn newest_of_range(
    conversation: &Conversation,
    range: &SeqRange,
    order: PullOrder,
    budget: &mut Budget,
) -> PullMsgs {
    let history = &conversation.history;
    let begin = range.begin.max(history.min_seq());
    let end = range.end.min(history.max_seq());
    let num = usize::try_from(range.num).ok().filter(|num| *num > 0).unwrap_or(usize::MAX);
    let mut part = PullMsgs::default();
    // The range down to here was looked at.
    let mut reached = end.saturating_add(1);
    let mut shortened = false;
    for seq in (begin..=end).rev().take(num) {
        let Some(message) = history.get(seq).and_then(|bytes| budget.take(bytes)) else {
            shortened = true;
            break;
        };
        part.msgs.push(message);
        reached = seq;
    }
    part.msgs.reverse();
    (part.is_end, part.end_seq) = match order {
        PullOrder::Asc => (range.end >= history.max_seq(), end),
        PullOrder::Desc => (reached <= history.min_seq(), reached),
    };
    part.is_end &= !shortened;
    part
}

fn exactly(
    conversation: &Conversation,
    seqs: &BTreeSet<i64>,
    order: PullOrder,
    budget: &mut Budget,
) -> PullMsgs {
    let history = &conversation.history;
    let mut part = PullMsgs::default();
    let mut shortened = false;
    let mut take = |seq: &i64| {
        let Some(bytes) = history.get(*seq) else { return };
        match budget.take(bytes) {
            Some(message) => part.msgs.push(message),
            // A budget that refused once refuses always, so nothing is left out in between.
            None => shortened = true,
        }
    };
    match order {
        PullOrder::Asc => seqs.iter().for_each(&mut take),
        PullOrder::Desc => seqs.iter().rev().for_each(&mut take),
    }
    (part.is_end, part.end_seq) = match order {
        PullOrder::Asc => (seqs.last().is_some_and(|seq| *seq >= history.max_seq()), history.max_seq()),
        PullOrder::Desc => (seqs.first().is_some_and(|seq| *seq <= history.min_seq()), history.min_seq()),
    };
    part.is_end &= !shortened;
    part.msgs.sort_by_key(|message| message.seq);
    part
}

/// Notifications travel in a map of their own (spec 3.3).
fn side<'a, T>(
    msgs: &'a mut BTreeMap<String, T>,
    notifications: &'a mut BTreeMap<String, T>,
    id: &str,
) -> &'a mut BTreeMap<String, T> {
    if id.starts_with("n_") { notifications } else { msgs }
}

fn few_enough(items: usize) -> Result<(), UpstreamError> {
    if items > limits::EMBEDDED_ITEMS_MAX {
        return Err(UpstreamError::args("too many items in one request"));
    }
    Ok(())
}

/// What one answer may still take.
struct Budget {
    messages: usize,
    bytes: usize,
}

/// Tags, lengths and flags around a message or a map entry.
const FRAMING_BYTES: usize = 48;

impl Budget {
    fn new(messages: usize) -> Self {
        Self { messages, bytes: limits::EMBEDDED_ANSWER_BYTES }
    }

    /// Takes bytes out; false if there are not enough.
    fn spend(&mut self, bytes: usize) -> bool {
        match self.bytes.checked_sub(bytes.saturating_add(FRAMING_BYTES)) {
            Some(left) => {
                self.bytes = left;
                true
            }
            None => false,
        }
    }

    /// The message, if there is room for it.
    fn take(&mut self, message: &Bytes) -> Option<MsgData> {
        self.messages = self.messages.checked_sub(1)?;
        if !self.spend(message.len()) {
            self.messages = 0; // a smaller one behind it would leave a hole
            return None;
        }
        // We encoded it, so it decodes.
        MsgData::decode(message.clone()).ok()
    }
}
