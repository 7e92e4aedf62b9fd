//! SendMsg (1003): checks, numbers, keeps and forwards one message.
//!
//! Only one-to-one messages (sessionType 1): groups need memberships, which a development backend does not have.
//! Checks are sane rather than complete: no friends, no black lists, no existence of users.

use bytes::Bytes;
use prost::Message as _;

use super::conversations::{Conversations, Refusal};
use super::{BackendPush, HistoryLimits};
use crate::hub::conversation::{MessageKind, Parties, SESSION_SINGLE, conversation_key};
use crate::hub::upstream::{CallMetadata, UpstreamError};
use crate::ids::Text;
use crate::limits;
use crate::pb::openim::msg::SendMsgResp;
use crate::pb::openim::sdkws::MsgData;
use crate::time::UnixMs;

/// `MsgData.status` of a message that was sent.
const STATUS_SENT: i32 = 2;

/// Takes one message in. `serial` is different for each call.
///
/// # Errors
/// What the client is told; then nothing has changed.
pub(super) fn send(
    conversations: &mut Conversations,
    limits: &HistoryLimits,
    (now, serial): (UnixMs, u64),
    metadata: &CallMetadata,
    data: &Bytes,
) -> Result<(SendMsgResp, BackendPush), UpstreamError> {
    // Before decoding, so that a hostile message is not unpacked.
    if data.len() > limits::EMBEDDED_MESSAGE_BYTES {
        return Err(refused("the message is too large for the embedded backend"));
    }
    let mut message = MsgData::decode(data.clone()).map_err(|_| UpstreamError::internal())?;
    check(&message, metadata)?;
    // Unique within a process, and across restarts unless the clock is set back.
    message.server_msg_id = format!("{:016x}{serial:016x}", now.0);
    message.status = STATUS_SENT;
    if message.send_time <= 0 {
        message.send_time = now.0;
    }
    let reply = SendMsgResp {
        server_msg_id: message.server_msg_id.clone(),
        client_msg_id: message.client_msg_id.clone(),
        send_time: message.send_time,
        modify: None,
    };
    let conversation = key(&message);
    let mut users = vec![Text::from(message.recv_id.as_str())];
    if wants(&message, "senderSync") && message.send_id != message.recv_id {
        users.push(Text::from(message.send_id.as_str()));
    }
    let msg_data = if wants(&message, "history") {
        conversations.append(now, limits, &conversation, message).map_err(refusal)?
    } else {
        // Typing and the like: no number, no trace.
        message.seq = 0;
        message.encode_to_vec().into()
    };
    let push = BackendPush {
        operation_id: Text::from(&*metadata.operation_id),
        users,
        msg_data,
        conversation: conversation.into(),
    };
    Ok((reply, push))
}

fn check(message: &MsgData, metadata: &CallMetadata) -> Result<(), UpstreamError> {
    if *message.send_id != *metadata.user {
        return Err(super::no_permission());
    }
    if message.session_type != SESSION_SINGLE {
        return Err(refused("the embedded backend has one-to-one messages only"));
    }
    if message.recv_id.is_empty() {
        return Err(UpstreamError::args("recvID is empty"));
    }
    if message.content.is_empty() {
        return Err(UpstreamError::args("content is empty"));
    }
    if message.send_id.len().max(message.recv_id.len()) > limits::EMBEDDED_USER_ID_BYTES {
        return Err(refused("a user id is too long for the embedded backend"));
    }
    Ok(())
}

/// An option of the message; what is not said counts as true (spec 3.3, 10.1).
fn wants(message: &MsgData, option: &str) -> bool {
    message.options.get(option).copied().unwrap_or(true)
}

/// What the message is filed under.
fn key(message: &MsgData) -> String {
    let parties = Parties { sender: &message.send_id, receiver: &message.recv_id, group: &message.group_id };
    let kind =
        if wants(message, "isNotNotification") { MessageKind::Chat } else { MessageKind::Notification };
    conversation_key(message.session_type, parties, kind)
}

fn refusal(refusal: Refusal) -> UpstreamError {
    refused(match refusal {
        Refusal::ConversationsFull => "the embedded backend is full: too many conversations",
        Refusal::UserConversationsFull => "too many conversations of one user for the embedded backend",
        Refusal::AmbiguousId => "the conversation id belongs to other users, since user ids contain _",
    })
}

/// 1001 with its text where clients see it: details are not sent to them (spec 3.2).
fn refused(text: &str) -> UpstreamError {
    UpstreamError { code: 1001, message: format!("ArgsError: {text}").into(), detail: "".into() }
}
