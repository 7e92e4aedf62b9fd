//! What an OpenIM client says (spec 1 to 3): the arguments of its login, and the messages that it and openim-push send.
//!
//! Envelopes are the gateway's own code (`pinion::wire::envelope`) from the client's side.

use pinion::pb::openim::msggateway::OnlineBatchPushOneMsgReq;
use pinion::pb::openim::sdkws::MsgData;
use pinion::wire::envelope;
use prost::Message as _;

use crate::script::MARK;
use crate::settings::{Encoding, Protocol, Users};

/// `reqIdentifier`s (spec 3.1).
pub const SEND_MESSAGE: i32 = 1003;
pub const KICK: i32 = 2002;

/// `contentType` of a text message.
const TEXT: i32 = 101;
const SINGLE_CHAT: i32 = 1;
const GROUP_CHAT: i32 = 3;
/// `msgFrom`: a user.
const FROM_USER: i32 = 100;
/// `status`: sent.
const SENT: i32 = 2;

/// How a connection's envelopes are encoded; `None`: it has none.
pub fn variant(protocol: Protocol) -> Option<envelope::Variant> {
    match protocol {
        Protocol::OpenIm { encoding, gzip } => Some(envelope::Variant {
            encoding: match encoding {
                Encoding::Gob => envelope::Encoding::Gob,
                Encoding::Json => envelope::Encoding::Json,
            },
            gzip,
        }),
        Protocol::Raw => None,
    }
}

/// The user of a connection.
pub fn user(users: &Users, connection: usize) -> String {
    format!("{}{:06}", users.prefix, users.first + connection / users.per_user.max(1))
}

/// Its platform.
pub fn platform(users: &Users, connection: usize) -> i32 {
    users.platform + i32::try_from(connection % users.per_user.max(1)).unwrap_or_default()
}

/// Path and query of a login (spec 1.2): OpenIM's arguments behind what `path` has already.
pub fn login_path(path: &str, user: &str, platform: i32, token: &str, variant: envelope::Variant) -> String {
    let joint = if path.contains('?') { '&' } else { '?' };
    let js = if variant.encoding == envelope::Encoding::Json { "&sdkType=js" } else { "" };
    let gzip = if variant.gzip { "&compression=gzip" } else { "" };
    format!(
        "{path}{joint}sendID={}&token={}&platformID={platform}&operationID=bench&isBackground=false{js}{gzip}",
        escape(user),
        escape(token)
    )
}

/// Whether the path asks for the outcome as a first text frame (spec 1.4).
pub fn wants_first_frame(path: &str) -> bool {
    path.split(['?', '&']).any(|pair| matches!(pair, "isMsgResp=true" | "isMsgResp=1"))
}

/// Percent-encoding for a query.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A chat message's data (1003), with a place for the send time. `id` makes it one of its own.
pub fn chat(from: &str, to: &str, bytes: usize, id: &str) -> Vec<u8> {
    let message = MsgData { send_id: from.into(), recv_id: to.into(), ..text(SINGLE_CHAT, bytes, id) };
    message.encode_to_vec()
}

/// A push as openim-push makes it, with a place for the send time: one-to-one for one user, else of a group.
pub fn push(users: Vec<String>, bytes: usize, id: &str) -> Vec<u8> {
    let message = match &users[..] {
        [one] => MsgData { recv_id: one.clone(), ..text(SINGLE_CHAT, bytes, id) },
        _ => MsgData { group_id: "bench".into(), ..text(GROUP_CHAT, bytes, id) },
    };
    let message = MsgData { send_id: "bench".into(), ..message };
    OnlineBatchPushOneMsgReq { msg_data: Some(message), push_to_user_i_ds: users }.encode_to_vec()
}

/// A text of so many bytes, at least what the time needs.
fn text(session_type: i32, bytes: usize, id: &str) -> MsgData {
    let mut content = b"{\"content\":\"".to_vec();
    content.extend_from_slice(MARK);
    // Letters rather than one byte over and over, so that gzip has something to do.
    let mut letter = 0u8;
    while content.len() + 2 < bytes {
        letter = letter.wrapping_mul(5).wrapping_add(7) ^ (content.len() as u8 >> 3);
        content.push(b'a' + letter % 26);
    }
    content.extend_from_slice(b"\"}");
    MsgData {
        client_msg_id: id.to_owned(),
        server_msg_id: id.to_owned(),
        session_type,
        msg_from: FROM_USER,
        content_type: TEXT,
        content: content.into(),
        send_time: 1_700_000_000_000,
        create_time: 1_700_000_000_000,
        status: SENT,
        ..MsgData::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::Marks;
    use crate::settings::Tokens;

    #[test]
    fn users_share_connections_in_turn() {
        let users = Users {
            prefix: "u".into(),
            first: 10,
            per_user: 2,
            platform: 1,
            tokens: Tokens::Secret(String::new()),
        };
        let who = |n| (user(&users, n), platform(&users, n));
        assert_eq!(who(0), ("u000010".to_owned(), 1));
        assert_eq!(who(1), ("u000010".to_owned(), 2));
        assert_eq!(who(2), ("u000011".to_owned(), 1));
    }

    #[test]
    fn a_login_has_openims_arguments() {
        let plain = envelope::Variant { encoding: envelope::Encoding::Gob, gzip: false };
        assert_eq!(
            login_path("/", "a b", 5, "t.k-n", plain),
            "/?sendID=a%20b&token=t.k-n&platformID=5&operationID=bench&isBackground=false"
        );
        let js = envelope::Variant { encoding: envelope::Encoding::Json, gzip: true };
        let path = login_path("/x?isMsgResp=true", "u", 5, "t", js);
        assert!(path.starts_with("/x?isMsgResp=true&sendID=u&"), "{path}");
        assert!(path.ends_with("&sdkType=js&compression=gzip"), "{path}");
        assert!(wants_first_frame(&path) && !wants_first_frame("/"));
    }

    #[test]
    fn messages_have_their_length_and_a_place_for_the_time() {
        let mut push = push(vec!["u000001".into()], 200, "1");
        Marks::default().stamp(&mut push, 99);
        let push = OnlineBatchPushOneMsgReq::decode(&push[..]).unwrap();
        let message = push.msg_data.unwrap();
        assert_eq!((message.content.len(), message.recv_id.as_str()), (200, "u000001"));
        assert_eq!(Marks::default().due(&message.content), Some(99));
        let mut chat = chat("a", "b", 0, "1");
        Marks::default().stamp(&mut chat, 7);
        assert_eq!(Marks::default().due(&MsgData::decode(&chat[..]).unwrap().content), Some(7));
    }
}
