//! The answer to `SuperGroupOnlineBatchPushOneMsg`, encoded by hand around the user ids, which are slices of the
//! request: no string and no list per recipient (half the time of generated code; measured).
//!
//! What always holds: one result per requested user, in the order of the request, duplicates kept (spec trap 20).

use bytes::{BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::cluster::router::PushResult;
use crate::hub::mail::{DeviceOutcome, DeviceVerdict};
use crate::ids::Platform;
use crate::rpc::stream::framed;
use crate::wire::grpc::{Dialect, Status};

/// `OnlineBatchPushOneMsgResp`, behind its prefix.
pub(super) fn encode(results: &[PushResult], dialect: Dialect) -> Result<Bytes, Status> {
    let rows = || results.iter().map(|result| Row::new(result, dialect));
    let length = rows().map(|row| delimited_len(row.len())).sum();
    framed(length, |out| rows().for_each(|row| row.put(out)))
}

/// `SingleMsgToUserResults`: a user that is not here, or was not reached, has no devices.
#[derive(Clone, Copy)]
struct Row<'a> {
    user: &'a str,
    verdicts: &'a [DeviceVerdict],
    dialect: Dialect,
}

impl<'a> Row<'a> {
    fn new(result: &'a PushResult, dialect: Dialect) -> Self {
        Self { user: &result.user, verdicts: result.devices.as_deref().unwrap_or_default(), dialect }
    }

    fn devices(self) -> impl Iterator<Item = Device<'a>> {
        self.verdicts.iter().filter_map(move |verdict| Device::new(verdict, self))
    }

    /// Whether a phone was reached: decides offline pushes (spec 4.3, trap 21).
    fn online_push(self) -> bool {
        self.verdicts.iter().any(|v| is_reached(v.outcome) && v.platform.is_phone())
    }

    fn len(self) -> usize {
        let devices: usize = self.devices().map(|device| delimited_len(device.len())).sum();
        text_len(self.user) + devices + if self.online_push() { 2 } else { 0 }
    }

    fn put(self, out: &mut BytesMut) {
        put_length(out, 1, self.len());
        put_text(out, 1, self.user);
        self.devices().for_each(|device| device.put(out));
        if self.online_push() {
            put_varint(out, 3, 1);
        }
    }
}

/// `SingleMsgToUserPlatform`.
#[derive(Clone, Copy)]
struct Device<'a> {
    /// An int64; negative ones of the older dialect take ten bytes.
    code: u64,
    receiver: &'a str,
    platform: Platform,
}

impl<'a> Device<'a> {
    /// `None`: not listed.
    fn new(verdict: &DeviceVerdict, row: Row<'a>) -> Option<Self> {
        let (code, receiver) = match row.dialect {
            Dialect::Openim => (result_code(verdict.outcome), ""),
            Dialect::Legacy if is_reached(verdict.outcome) && !verdict.platform.is_phone() => return None,
            Dialect::Legacy => (legacy_result_code(verdict.outcome), row.user),
        };
        Some(Self { code: code.cast_unsigned(), receiver, platform: verdict.platform })
    }

    fn platform(self) -> u64 {
        u64::from(self.platform.id().unsigned_abs())
    }

    fn len(self) -> usize {
        let code = if self.code == 0 { 0 } else { 1 + encoded_len_varint(self.code) };
        code + text_len(self.receiver) + 1 + encoded_len_varint(self.platform())
    }

    fn put(self, out: &mut BytesMut) {
        put_length(out, 2, self.len());
        if self.code != 0 {
            put_varint(out, 1, self.code);
        }
        put_text(out, 2, self.receiver);
        put_varint(out, 3, self.platform());
    }
}

fn is_reached(outcome: DeviceOutcome) -> bool {
    result_code(outcome) == 0
}

/// Spec 4.3.
fn result_code(outcome: DeviceOutcome) -> i64 {
    match outcome {
        DeviceOutcome::Written | DeviceOutcome::Queued => 0,
        DeviceOutcome::Background => 1604,
        DeviceOutcome::Dropped | DeviceOutcome::Kicked | DeviceOutcome::Expired | DeviceOutcome::TooLarge => {
            1603
        }
    }
}

/// Spec 4.3, column S351.
fn legacy_result_code(outcome: DeviceOutcome) -> i64 {
    match result_code(outcome) {
        0 => 0,
        1604 => -3,
        _ => -2,
    }
}

/// All field numbers here are below 16, so a key is one byte.
fn delimited_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// Protobuf leaves empty text out.
fn text_len(text: &str) -> usize {
    if text.is_empty() { 0 } else { delimited_len(text.len()) }
}

fn put_text(out: &mut BytesMut, field: u32, text: &str) {
    if !text.is_empty() {
        put_length(out, field, text.len());
        out.put_slice(text.as_bytes());
    }
}

fn put_length(out: &mut BytesMut, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn put_varint(out: &mut BytesMut, field: u32, value: u64) {
    encode_key(field, WireType::Varint, out);
    encode_varint(value, out);
}

#[cfg(test)]
#[path = "push_answer_tests.rs"]
mod tests;
