//! The messages that are pushed: requests encoded once, with the few bytes that differ from push to push patched in.
//!
//! A message carries the time at which it was due to be sent, behind a mark that the clients look for. A mark has a
//! tag: one letter that tells the pushes of one measurement from another's. Clients find it in plain gob only, where
//! the message stands as it is.

use bytes::Bytes;
use memchr::memmem;
use pinion::pb::openim::msggateway::OnlineBatchPushOneMsgReq;
use pinion::pb::openim::sdkws::MsgData;
use pinion::pb::pinion::v1::push_message::To;
use pinion::pb::pinion::v1::{AllLocalUsers, PushBatch, PushMessage, Report, UserList};
use prost::Message as _;

/// In front of each tag and time.
const MARK: &[u8] = b"~due:";
/// Hexadecimal digits of a time.
const TIME_DIGITS: usize = 16;
/// Where a template has the name of its user: as long as any name of [`user`].
const USER_PLACE: &str = "u######";
/// The OpenIM entry for all pushes.
pub const OPENIM_PATH: &str = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg";
/// Our own API, unary.
pub const SEND_PATH: &str = "/pinion.v1.Push/Send";
/// Our own API, streaming.
pub const STREAM_PATH: &str = "/pinion.v1.Push/Stream";

/// The name of the client with this number. All names have one length.
pub fn user(number: usize) -> String {
    format!("u{number:06}")
}

/// Which measurement a push belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// What keeps the gateway busy.
    Load = b'l' as isize,
    /// What is timed beside it.
    Probe = b'p' as isize,
}

/// An encoded request.
#[derive(Clone, Debug)]
pub struct Template {
    bytes: Vec<u8>,
    times: Vec<usize>,
    users: Vec<usize>,
}

impl Template {
    /// OpenIM's request: one message for these users.
    pub fn openim(users: Vec<String>, body: usize, tag: Tag) -> Self {
        let request = OnlineBatchPushOneMsgReq {
            msg_data: Some(msg_data(&users, body, tag)),
            push_to_user_i_ds: users,
        };
        Self::of(request.encode_to_vec())
    }

    /// As [`Template::openim`] for one user, who is named when a push is made.
    pub fn openim_to_one(body: usize, tag: Tag) -> Self {
        Self::openim(vec![USER_PLACE.to_owned()], body, tag)
    }

    /// A request of `pinion.v1` with these message ids, each for this user.
    pub fn pinion(ids: std::ops::Range<u64>, user: String, body: usize) -> Self {
        let users = vec![user];
        let message = PushMessage {
            msg_data: msg_data(&users, body, Tag::Load).encode_to_vec().into(),
            operation_id: "bench".into(),
            to: Some(To::Users(UserList { user_ids: users })),
            ..PushMessage::default()
        };
        let messages = ids.map(|id| PushMessage { id, ..message.clone() }).collect();
        Self::of(PushBatch { messages }.encode_to_vec())
    }

    /// A request of `pinion.v1`: one message for everybody, answered with totals.
    pub fn pinion_to_all(body: usize) -> Self {
        let message = PushMessage {
            msg_data: msg_data(&[], body, Tag::Load).encode_to_vec().into(),
            operation_id: "bench".into(),
            to: Some(To::AllLocalUsers(AllLocalUsers {})),
            report: Report::Totals.into(),
            ..PushMessage::default()
        };
        Self::of(PushBatch { messages: vec![message] }.encode_to_vec())
    }

    fn of(bytes: Vec<u8>) -> Self {
        let times = memmem::find_iter(&bytes, MARK).map(|at| at + MARK.len() + 1).collect();
        let users = memmem::find_iter(&bytes, USER_PLACE.as_bytes()).collect();
        Self { bytes, times, users }
    }

    /// The gRPC message with this time in it, and this user where the template left one open.
    pub fn framed(&self, due_ns: u64, user: &str) -> Bytes {
        let len = u32::try_from(self.bytes.len()).expect("a request is below 8 MiB");
        let mut out = Vec::with_capacity(5 + self.bytes.len());
        out.push(0);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&self.bytes);
        let digits = format!("{due_ns:016x}");
        for at in &self.times {
            out[5 + at..][..TIME_DIGITS].copy_from_slice(digits.as_bytes());
        }
        for at in &self.users {
            out[5 + at..][..USER_PLACE.len()].copy_from_slice(user.as_bytes());
        }
        out.into()
    }

    /// Bytes of a gRPC message.
    pub fn len(&self) -> usize {
        5 + self.bytes.len()
    }
}

/// A text message: to one user as in a one-to-one chat, to many as in a group.
fn msg_data(users: &[String], body: usize, tag: Tag) -> MsgData {
    let mark = format!("{}{}{:016x}", String::from_utf8_lossy(MARK), char::from(tag as u8), 0);
    let mut content = format!("{{\"content\":\"{mark}");
    let mut words = Words(1);
    while content.len() + 2 < body {
        let room = body - 2 - content.len();
        content.extend(words.next_word().chars().take(room));
    }
    content.push_str("\"}");
    let single = users.len() == 1;
    MsgData {
        send_id: "sender".into(),
        recv_id: if single { users[0].clone() } else { String::new() },
        group_id: if single { String::new() } else { "group".into() },
        client_msg_id: "5f1c7e0b9a3d4c26".into(),
        server_msg_id: "9b2f60d1c4e8a735".into(),
        session_type: if single { 1 } else { 3 },
        msg_from: 100,
        content_type: 101,
        content: content.into(),
        seq: 4_711,
        send_time: 1_700_000_000_000,
        create_time: 1_700_000_000_000,
        status: 2,
        ..MsgData::default()
    }
}

/// Text that gzip makes as much of as of a chat: words of a small vocabulary, the same in every run.
struct Words(u32);

impl Words {
    /// The constants are those of Numerical Recipes' generator; its upper bits are good enough for words.
    fn draw(state: &mut u32, below: u32) -> u32 {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 8) % below
    }

    /// One of 500 words of 2 to 9 letters, and a blank. A word's number is the seed of its letters.
    fn next_word(&mut self) -> String {
        let mut seed = Self::draw(&mut self.0, 500);
        let letters = 2 + Self::draw(&mut seed, 8);
        let letter = |_| char::from(b'a' + u8::try_from(Self::draw(&mut seed, 26)).unwrap_or_default());
        (0..letters).map(letter).chain([' ']).collect()
    }
}

/// The tag and time that a received frame carries.
pub fn due(payload: &[u8]) -> Option<(Tag, u64)> {
    let at = memmem::find(payload, MARK)? + MARK.len();
    let tag = match payload.get(at)? {
        b'l' => Tag::Load,
        b'p' => Tag::Probe,
        _ => return None,
    };
    let digits = std::str::from_utf8(payload.get(at + 1..at + 1 + TIME_DIGITS)?).ok()?;
    Some((tag, u64::from_str_radix(digits, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_user_are_patched_and_the_request_stays_whole() {
        let template = Template::openim_to_one(100, Tag::Probe);
        let framed = template.framed(0xabc, &user(42));
        assert_eq!((framed.len(), due(&framed)), (template.len(), Some((Tag::Probe, 0xabc))));
        let request = OnlineBatchPushOneMsgReq::decode(&framed[5..]).unwrap();
        let message = request.msg_data.unwrap();
        assert_eq!(request.push_to_user_i_ds, [user(42)]);
        assert_eq!((message.recv_id, message.content.len()), (user(42), 100));
    }

    #[test]
    fn every_message_of_a_batch_gets_its_time() {
        let template = Template::pinion(5..8, user(1), 60);
        let framed = template.framed(9, "");
        let batch = PushBatch::decode(&framed[5..]).unwrap();
        assert_eq!(batch.messages.iter().map(|m| m.id).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(batch.messages.iter().all(|m| due(&m.msg_data) == Some((Tag::Load, 9))));
    }

    #[test]
    fn what_is_no_mark_is_none() {
        for bytes in [&b""[..], b"~due:", b"~due:x0000000000000000", b"~due:l00", b"~due:lzzzzzzzzzzzzzzzz"] {
            assert_eq!(due(bytes), None, "{bytes:?}");
        }
    }
}
