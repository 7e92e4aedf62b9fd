//! `pinion.v1.PushBatch`, decoded by hand: `msg_data` and user ids stay slices of the request.
//!
//! Decoding and checking are two steps, as in `request`. What always holds: a batch is good as a whole or refused as a
//! whole, and naming few bytes cannot cost many: messages and users are counted while they are read.

use bytes::Bytes;

use super::fields::{Fields, Malformed, Value};
use super::request::MessageFacts;
use super::router::To;
use crate::hub::mail::Report;
use crate::ids::Text;
use crate::limits::{PUSH_BATCH_MAX, PUSH_EXPIRE_MS, RPC_USERS_MAX};

/// Messages in the order of the batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    messages: Vec<Raw>,
    users: usize,
}

/// One message as it came.
#[derive(Debug, Default, PartialEq, Eq)]
struct Raw {
    id: u64,
    msg_data: Bytes,
    operation_id: Text,
    to: Option<Named>,
    only_if_online: bool,
    expire_after_ms: u64,
    report: u64,
}

/// The oneof `to`.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Users(Vec<Text>),
    AllLocal,
}

/// One message that may be pushed.
#[derive(Debug)]
pub struct BatchMessage {
    /// The caller's id.
    pub id: u64,
    /// For the frame.
    pub operation_id: Text,
    /// The raw `sdkws.MsgData`.
    pub msg_data: Bytes,
    /// What is known of it.
    pub facts: MessageFacts,
    /// Who gets it.
    pub to: To,
    /// See [`crate::hub::mail::PushRules::only_if_online`].
    pub only_if_online: bool,
    /// How long it may wait from its arrival; 0: no limit, and not for absent users.
    pub expire_after_ms: u64,
    /// [`Report::Each`] or [`Report::Totals`].
    pub report: Report,
}

/// Why a batch is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum BatchFault {
    /// It is not protobuf, or not this message.
    Malformed(Malformed),
    /// More messages than [`PUSH_BATCH_MAX`].
    TooManyMessages,
    /// More users over all messages than [`RPC_USERS_MAX`].
    TooManyUsers,
    /// No message.
    Empty,
    /// A message breaks a rule.
    Rule {
        /// Counted from 0.
        position: usize,
        /// The caller's id.
        id: u64,
        /// Which.
        text: String,
    },
}

impl From<Malformed> for BatchFault {
    fn from(fault: Malformed) -> Self {
        Self::Malformed(fault)
    }
}

impl BatchFault {
    /// For the caller.
    pub fn text(&self) -> String {
        match self {
            Self::Malformed(fault) => fault.text().to_owned(),
            Self::TooManyMessages => format!("a batch has at most {PUSH_BATCH_MAX} messages"),
            Self::TooManyUsers => format!("a batch names at most {RPC_USERS_MAX} users"),
            Self::Empty => "messages is empty".to_owned(),
            Self::Rule { position, id, text } => format!("messages[{position}] (id {id}): {text}"),
        }
    }
}

impl Batch {
    /// Reads a batch.
    ///
    /// # Errors
    /// [`BatchFault::Malformed`] and the two of too many.
    pub fn decode(body: Bytes) -> Result<Self, BatchFault> {
        let mut batch = Self::default();
        for field in Fields::of(body) {
            if let (1, value) = field? {
                if batch.messages.len() >= PUSH_BATCH_MAX {
                    return Err(BatchFault::TooManyMessages);
                }
                let message = Raw::decode(value.bytes()?, &mut batch.users)?;
                batch.messages.push(message);
            }
        }
        Ok(batch)
    }

    /// Users named by all messages, duplicates included.
    pub fn users(&self) -> usize {
        self.users
    }

    /// Applies the rules of `push.proto` to all messages.
    ///
    /// # Errors
    /// [`BatchFault::Empty`] and [`BatchFault::Rule`].
    pub fn check(self) -> Result<Vec<BatchMessage>, BatchFault> {
        if self.messages.is_empty() {
            return Err(BatchFault::Empty);
        }
        let check = |(position, raw): (usize, Raw)| {
            let id = raw.id;
            raw.check().map_err(|text| BatchFault::Rule { position, id, text })
        };
        self.messages.into_iter().enumerate().map(check).collect()
    }
}

impl Raw {
    fn decode(body: Bytes, users: &mut usize) -> Result<Self, BatchFault> {
        let mut raw = Self::default();
        for field in Fields::of(body) {
            let (number, value) = field?;
            match number {
                1 => raw.id = value.varint()?,
                2 => raw.msg_data = value.bytes()?,
                3 => raw.operation_id = value.text()?,
                4 => raw.add_users(value, users)?,
                5 => {
                    for field in Fields::of(value.bytes()?) {
                        field?;
                    }
                    raw.to = Some(Named::AllLocal);
                }
                6 => raw.only_if_online = value.varint()? != 0,
                7 => raw.expire_after_ms = value.varint()? & u64::from(u32::MAX),
                8 => raw.report = value.varint()?,
                _ => {}
            }
        }
        Ok(raw)
    }

    /// The last member of a oneof counts; a message that comes twice is merged, so lists add up.
    fn add_users(&mut self, value: Value, count: &mut usize) -> Result<(), BatchFault> {
        let mut users = match self.to.take() {
            Some(Named::Users(users)) => users,
            _ => Vec::new(),
        };
        for field in Fields::of(value.bytes()?) {
            if let (1, value) = field? {
                *count += 1;
                if *count > RPC_USERS_MAX {
                    return Err(BatchFault::TooManyUsers);
                }
                users.push(value.text()?);
            }
        }
        self.to = Some(Named::Users(users));
        Ok(())
    }

    fn check(self) -> Result<BatchMessage, String> {
        let facts =
            MessageFacts::read(&self.msg_data).map_err(|fault| format!("msg_data: {}", fault.text()))?;
        facts.check()?;
        let to = match self.to {
            None => return Err("to is not set".to_owned()),
            Some(Named::Users(users)) if users.is_empty() => return Err("users is empty".to_owned()),
            Some(Named::Users(users)) => To::Users(users),
            Some(Named::AllLocal) => To::AllLocal,
        };
        if self.expire_after_ms > PUSH_EXPIRE_MS {
            return Err(format!("expire_after_ms is above {PUSH_EXPIRE_MS}"));
        }
        let report = match self.report {
            0 => Report::Each,
            1 => Report::Totals,
            _ => return Err("report is unknown".to_owned()),
        };
        let Self { id, operation_id, msg_data, only_if_online, expire_after_ms, .. } = self;
        Ok(BatchMessage { id, operation_id, msg_data, facts, to, only_if_online, expire_after_ms, report })
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
