//! The requests of the push API, decoded by hand: `MsgData` stays the raw bytes it came as, user ids are slices of
//! the request, and lists have a limit. With them the request checks of spec 4.2, in upstream's order and words.
//!
//! Decoding and checking are two steps because upstream's are: a body that cannot be decoded is gRPC's error, a
//! request that fails its check is OpenIM's 1001.

use bytes::{BufMut, Bytes, BytesMut};

use super::fields::{Fields, Malformed};
use crate::hub::conversation::{MessageKind, Parties, SESSION_NOTIFICATION, conversation_key};
use crate::ids::{Platform, Text};
use crate::limits::RPC_USERS_MAX;

/// `contentType` of OA notifications: goes with session type 4 and nothing else (spec 4.2).
const CONTENT_OA_NOTIFICATION: i32 = 1400;
/// The option that files a message as notification when it is false (spec 3.3).
const IS_NOT_NOTIFICATION: &[u8] = b"isNotNotification";

/// What the request checks and the conversation key need of a `sdkws.MsgData`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageFacts {
    sender: Text,
    receiver: Text,
    group: Text,
    session_type: i32,
    content_type: i32,
    has_content: bool,
    is_notification: bool,
}

impl MessageFacts {
    /// Walks the top-level fields once. Known fields must have their wire type, strings must be UTF-8: a client that
    /// is handed anything else drops its connection.
    pub fn read(msg_data: &Bytes) -> Result<Self, Malformed> {
        let mut facts = Self::default();
        for field in Fields::of(msg_data.clone()) {
            let (number, value) = field?;
            match number {
                1 => facts.sender = value.text()?,
                2 => facts.receiver = value.text()?,
                3 => facts.group = value.text()?,
                9 => facts.session_type = value.int32()?,
                11 => facts.content_type = value.int32()?,
                12 => facts.has_content = !value.bytes()?.is_empty(),
                19 => facts.read_option(value.bytes()?)?,
                4 | 5 | 7 | 8 | 21..=23 => drop(value.text()?),
                6 | 10 | 14..=18 => drop(value.varint()?),
                20 => check_offline_push(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(facts)
    }

    /// One entry of the `options` map; the last one of a key counts.
    fn read_option(&mut self, entry: Bytes) -> Result<(), Malformed> {
        let (mut key, mut set) = (Text::default(), false);
        for field in Fields::of(entry) {
            let (number, value) = field?;
            match number {
                1 => key = value.text()?,
                2 => set = value.varint()? != 0,
                _ => {}
            }
        }
        if key.as_bytes() == IS_NOT_NOTIFICATION {
            self.is_notification = !set;
        }
        Ok(())
    }

    /// The key clients file the message under (spec 3.3).
    pub fn conversation(&self) -> Box<str> {
        let kind = if self.is_notification { MessageKind::Notification } else { MessageKind::Chat };
        let parties = Parties { sender: &self.sender, receiver: &self.receiver, group: &self.group };
        conversation_key(self.session_type, parties, kind).into()
    }

    /// Applies what spec 4.2 says of the message itself.
    ///
    /// # Errors
    /// The text of the failed check.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.sender.is_empty() {
            return Err("sendID is empty");
        }
        if !self.has_content {
            return Err("content is empty");
        }
        if (self.session_type == SESSION_NOTIFICATION) != (self.content_type == CONTENT_OA_NOTIFICATION) {
            return Err("notification msg must have correct session type and content type");
        }
        Ok(())
    }
}

/// Walks a `sdkws.OfflinePushInfo`, of which nothing is needed here.
fn check_offline_push(info: Bytes) -> Result<(), Malformed> {
    for field in Fields::of(info) {
        match field? {
            (1..=4 | 6, value) => drop(value.text()?),
            (5, value) => drop(value.varint()?),
            _ => {}
        }
    }
    Ok(())
}

/// `OnlineBatchPushOneMsgReq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushRequest {
    /// The message and what is known of it; `None` if the field is absent.
    pub message: Option<(Bytes, MessageFacts)>,
    /// In the order of the request, duplicates kept.
    pub users: Vec<Text>,
}

impl PushRequest {
    /// Reads the request.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        let mut msg_data = None;
        let mut users = Vec::new();
        for field in Fields::of(body) {
            let (number, value) = field?;
            match number {
                1 => msg_data = Some(merge(msg_data, value.bytes()?)),
                2 => push_user(&mut users, value.text()?)?,
                _ => {}
            }
        }
        let message = match msg_data {
            Some(bytes) => {
                let facts = MessageFacts::read(&bytes)?;
                Some((bytes, facts))
            }
            None => None,
        };
        Ok(Self { message, users })
    }

    /// Applies spec 4.2; gives the message, or the text of the failed check.
    pub fn check(self) -> Result<(Bytes, MessageFacts, Vec<Text>), &'static str> {
        let (bytes, facts) = self.message.ok_or("MsgData is empty")?;
        facts.check()?;
        if self.users.is_empty() {
            return Err("PushToUserIDs is empty");
        }
        Ok((bytes, facts, self.users))
    }
}

/// `OnlinePushMsgReq`: the same fields, with one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnePushRequest {
    message: Option<(Bytes, MessageFacts)>,
    user: Text,
}

impl OnePushRequest {
    /// Reads the request. Of a single field that comes twice the last counts.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        let PushRequest { message, mut users } = PushRequest::decode(body)?;
        Ok(Self { message, user: users.pop().unwrap_or_default() })
    }

    /// Applies spec 4.2.
    pub fn check(self) -> Result<(), &'static str> {
        let (_, facts) = self.message.ok_or("MsgData is empty")?;
        facts.check()?;
        if self.user.is_empty() { Err("PushToUserID is empty") } else { Ok(()) }
    }
}

/// A message field that comes twice is merged, and merging is concatenation of the encodings.
fn merge(before: Option<Bytes>, bytes: Bytes) -> Bytes {
    let Some(before) = before else { return bytes };
    let mut merged = BytesMut::with_capacity(before.len() + bytes.len());
    merged.put_slice(&before);
    merged.put_slice(&bytes);
    merged.freeze()
}

fn push_user(users: &mut Vec<Text>, user: Text) -> Result<(), Malformed> {
    if users.len() >= RPC_USERS_MAX {
        return Err(Malformed::TooMany);
    }
    users.push(user);
    Ok(())
}

/// `KickUserOfflineReq`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KickRequest {
    platform: i32,
    users: Vec<Text>,
}

impl KickRequest {
    /// Reads the request.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        let mut request = Self::default();
        for field in Fields::of(body) {
            let (number, value) = field?;
            match number {
                1 => request.platform = value.int32()?,
                2 => push_user(&mut request.users, value.text()?)?,
                _ => {}
            }
        }
        Ok(request)
    }

    /// Applies spec 4.2.
    pub fn check(self) -> Result<(Platform, Vec<Text>), &'static str> {
        let platform = kickable(self.platform)?;
        if self.users.is_empty() {
            return Err("KickUserIDList is empty");
        }
        Ok((platform, self.users))
    }
}

/// Platforms 10 and 11 connect fine but are refused by both kick RPCs (spec trap 19).
fn kickable(platform: i32) -> Result<Platform, &'static str> {
    Platform::new(i64::from(platform)).filter(|p| p.id() <= 9).ok_or("PlatformID is invalid")
}

/// `GetUsersOnlineStatusReq`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRequest {
    users: Vec<Text>,
}

impl StatusRequest {
    /// Reads the request.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        let mut request = Self::default();
        for field in Fields::of(body) {
            let (number, value) = field?;
            if number == 1 {
                push_user(&mut request.users, value.text()?)?;
            }
        }
        Ok(request)
    }

    /// Applies spec 4.2.
    pub fn check(self) -> Result<Vec<Text>, &'static str> {
        if self.users.is_empty() {
            return Err("UserIDs is empty");
        }
        Ok(self.users)
    }
}

/// `MultiTerminalLoginCheckReq`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginRequest {
    user: Text,
    platform: i32,
    token: Text,
}

impl LoginRequest {
    /// Reads the request.
    pub fn decode(body: Bytes) -> Result<Self, Malformed> {
        let mut request = Self::default();
        for field in Fields::of(body) {
            let (number, value) = field?;
            match number {
                1 => request.user = value.text()?,
                2 => request.platform = value.int32()?,
                3 => request.token = value.text()?,
                _ => {}
            }
        }
        Ok(request)
    }

    /// Applies spec 4.2; gives user, platform and token.
    pub fn check(self) -> Result<(Text, Platform, Text), &'static str> {
        let platform = kickable(self.platform)?;
        if self.user.is_empty() {
            return Err("UserID is empty");
        }
        if self.token.is_empty() {
            return Err("token is empty");
        }
        Ok((self.user, platform, self.token))
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
