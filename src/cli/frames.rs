//! Frames of the gateway in words, for `pinion listen`.

use prost::Message as _;

use crate::pb::openim::sdkws::{MsgData, PullMsgs, PushMessages, SubUserOnlineStatusTips};
use crate::time::UnixMs;
use crate::wire::envelope::OwnedResponse;

/// Identifier of a push (spec 3.1).
pub(super) const PUSH: i32 = 2001;
/// Identifier of a kick (spec 3.1).
pub(super) const KICK: i32 = 2002;
const PRESENCE: i32 = 2005;
/// `contentType` of a text message.
const TEXT: i32 = 101;
/// Characters shown of a content that is no text message.
const CONTENT_SHOWN_MAX: usize = 200;

/// The name of a request identifier (spec 3.1, server names).
fn name(id: i32) -> &'static str {
    match id {
        1001 => "GetNewestSeq",
        1002 => "PullMsgBySeqList",
        1003 => "SendMsg",
        1004 => "SendSignalMsg",
        1005 => "PullMsg",
        1006 => "GetConvMaxReadSeq",
        1007 => "PullConvLastMessage",
        PUSH => "Push",
        KICK => "Kick",
        2003 => "Logout",
        2004 => "SetBackgroundStatus",
        PRESENCE => "SubUserOnlineStatus",
        _ => "unknown",
    }
}

/// `12:34:56.789`, UTC.
pub(super) fn time_of_day(at: UnixMs) -> String {
    let ms = at.0.rem_euclid(86_400_000);
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

/// The lines that describe a frame; the first stands alone, the others are details.
pub(super) fn describe(frame: &OwnedResponse) -> Vec<String> {
    let mut head = format!("frame {} {}", frame.id, name(frame.id));
    for (field, text) in [("msgIncr", &frame.msg_incr), ("operationID", &frame.operation_id)] {
        if !text.is_empty() {
            head.push_str(&format!(" {field}={text}"));
        }
    }
    if frame.err_code != 0 || !frame.err_msg.is_empty() {
        head.push_str(&format!(" errCode={} errMsg={:?}", frame.err_code, frame.err_msg));
    }
    let data = frame.data.as_deref().unwrap_or_default();
    let mut lines = vec![head];
    let decoded = match frame.id {
        PUSH => PushMessages::decode(data).map(|push| push_lines(&push)),
        PRESENCE => SubUserOnlineStatusTips::decode(data).map(|tips| presence_lines(&tips)),
        _ if data.is_empty() => return lines,
        _ => Ok(vec![format!("  {} bytes of data", data.len())]),
    };
    match decoded {
        Ok(more) => lines.extend(more),
        Err(e) => lines.push(format!("  data of {} bytes cannot be decoded: {e}", data.len())),
    }
    lines
}

fn push_lines(push: &PushMessages) -> Vec<String> {
    let kinds = [("conversation", &push.msgs), ("notification", &push.notification_msgs)];
    let mut lines = Vec::new();
    for (kind, conversations) in kinds {
        for (id, PullMsgs { msgs, .. }) in conversations {
            lines.extend(msgs.iter().map(|message| format!("  {kind} {id} {}", message_text(message))));
        }
    }
    lines
}

fn message_text(message: &MsgData) -> String {
    let content = String::from_utf8_lossy(&message.content);
    let json = serde_json::from_str::<serde_json::Value>(&content);
    let text =
        json.iter().filter(|_| message.content_type == TEXT).find_map(|json| json.get("content")?.as_str());
    let what = match text {
        Some(text) => format!("text {text:?}"),
        None => {
            let shown: String = content.chars().take(CONTENT_SHOWN_MAX).collect();
            format!("contentType {} {shown:?}", message.content_type)
        }
    };
    let to = if message.group_id.is_empty() { &message.recv_id } else { &message.group_id };
    format!("from {} to {to} seq {}: {what}", message.send_id, message.seq)
}

fn presence_lines(tips: &SubUserOnlineStatusTips) -> Vec<String> {
    let line = |user: &crate::pb::openim::sdkws::SubUserOnlineStatusElem| {
        if user.online_platform_i_ds.is_empty() {
            format!("  {} is offline", user.user_id)
        } else {
            format!("  {} is online on platforms {:?}", user.user_id, user.online_platform_i_ds)
        }
    };
    tips.subscribers.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_shows_conversation_sender_and_text() {
        let message = MsgData {
            send_id: "a".into(),
            recv_id: "b".into(),
            content_type: TEXT,
            content: r#"{"content":"hello"}"#.into(),
            seq: 3,
            ..MsgData::default()
        };
        let mut push = PushMessages::default();
        push.msgs.insert("si_a_b".into(), PullMsgs { msgs: vec![message], ..PullMsgs::default() });
        let frame = OwnedResponse {
            id: PUSH,
            operation_id: "op".into(),
            data: Some(push.encode_to_vec().into()),
            ..OwnedResponse::default()
        };
        assert_eq!(
            describe(&frame),
            ["frame 2001 Push operationID=op", "  conversation si_a_b from a to b seq 3: text \"hello\"",]
        );
    }

    #[test]
    fn frames_without_or_with_broken_data_are_described_too() {
        for (id, data, want) in [
            (KICK, None, "frame 2002 Kick"),
            (4242, Some("x"), "frame 4242 unknown|  1 bytes of data"),
            (PRESENCE, None, "frame 2005 SubUserOnlineStatus"),
        ] {
            let data = data.map(|d| d.into());
            let frame = OwnedResponse { id, data, ..OwnedResponse::default() };
            assert_eq!(describe(&frame).join("|"), want);
        }
        let broken = OwnedResponse { id: PUSH, data: Some("\u{ff}".into()), ..OwnedResponse::default() };
        assert!(describe(&broken)[1].contains("cannot be decoded"));
    }

    #[test]
    fn times_are_of_the_day() {
        assert_eq!(time_of_day(UnixMs(86_400_000 + 3_723_004)), "01:02:03.004");
    }
}
