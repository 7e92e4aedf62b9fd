//! Results as `pinion.v1` verdicts, as many at a time as there is room for.

use prost::Message;

use crate::cluster::router::{Cover, PushResult, ResultPart};
use crate::hub::mail::{self, DeviceOutcome};
use crate::ids::RpcTicket;
use crate::limits::PUSH_VERDICTS_MAX;
use crate::pb::pinion::v1::{DeviceVerdict, MessageVerdict, Outcome, Totals, UserVerdict};

/// Encoded length of a `MessageVerdict` without users, at most: id, last, ten totals, and what is around them.
const FRAME_BYTES: usize = 96;
/// Tag and length before a `UserVerdict`, at most.
const FIELD_BYTES: usize = 6;

/// How much still goes into a message, and how many verdicts before the thread wants a turn.
#[derive(Debug)]
pub(super) struct Room {
    bytes: usize,
    users: usize,
}

impl Room {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, users: PUSH_VERDICTS_MAX }
    }

    /// Whether no verdict fits any more.
    pub(super) fn is_full(&self) -> bool {
        !self.has_bytes() || self.users == 0
    }

    /// Whether one would fit after a turn.
    pub(super) fn has_bytes(&self) -> bool {
        self.bytes > FRAME_BYTES
    }

    /// The thread had its turn.
    pub(super) fn next_turn(&mut self) {
        self.users = PUSH_VERDICTS_MAX;
    }

    fn take(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What of one part of a message's results has not been said yet.
#[derive(Debug)]
pub(super) struct Unsaid {
    ticket: RpcTicket,
    /// The caller's id of the message.
    pub(super) id: u64,
    /// Which message of the call, counted from 0.
    pub(super) position: usize,
    results: std::vec::IntoIter<PushResult>,
    /// One for each of them, or none.
    covers: std::vec::IntoIter<Cover>,
    /// Of a last part, until they are said.
    totals: Option<Totals>,
    last: bool,
}

impl Unsaid {
    pub(super) fn new(ticket: RpcTicket, id: u64, position: usize, part: ResultPart) -> Self {
        let totals = part.last.then(|| totals(&part));
        let (results, covers) = (part.results.into_iter(), part.covers.into_iter());
        Self { ticket, id, position, results, covers, totals, last: part.last }
    }

    /// Says as much as there is room for; the verdict that fills it may be above it.
    pub(super) fn say(&mut self, verdict: &mut MessageVerdict, room: &mut Room) {
        room.take(FRAME_BYTES);
        while !room.is_full()
            && let Some(result) = self.results.next()
        {
            let user = user_verdict(result, self.covers.next());
            room.take(FIELD_BYTES + user.encoded_len());
            room.users -= 1;
            verdict.users.push(user);
        }
        if self.results.as_slice().is_empty() {
            verdict.last = self.last;
            verdict.totals = self.totals.take();
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_said(&self) -> bool {
        self.results.as_slice().is_empty()
    }

    /// The message, if this was its last part.
    pub(super) fn ends(&self) -> Option<RpcTicket> {
        self.last.then_some(self.ticket)
    }
}

fn totals(part: &ResultPart) -> Totals {
    let mail::Totals {
        users,
        written,
        queued,
        dropped,
        kicked,
        expired,
        not_here,
        background,
        too_large,
        cut_short: _,
    } = part.totals;
    Totals {
        written,
        queued,
        dropped,
        kicked,
        expired,
        not_here,
        background,
        too_large,
        not_reached: part.not_reached,
        users,
        not_complete: part.not_complete,
    }
}

fn user_verdict(result: PushResult, cover: Option<Cover>) -> UserVerdict {
    let outcome = match &result.devices {
        None => Outcome::NotReached,
        Some(devices) if !devices.is_empty() => Outcome::Unspecified,
        Some(_) if result.expired => Outcome::Expired,
        Some(_) => Outcome::NotHere,
    };
    let device = |device: mail::DeviceVerdict| DeviceVerdict {
        platform_id: device.platform.id(),
        connection_id: device.connection_id.to_vec().into(),
        outcome: device_outcome(device.outcome).into(),
    };
    UserVerdict {
        user_id: result.user.as_str().to_owned(),
        devices: result.devices.unwrap_or_default().into_iter().map(device).collect(),
        outcome: outcome.into(),
        complete: cover.as_ref().map(|cover| cover.complete),
        unaccounted: cover.into_iter().flat_map(|cover| cover.unaccounted).map(String::from).collect(),
    }
}

fn device_outcome(outcome: DeviceOutcome) -> Outcome {
    match outcome {
        DeviceOutcome::Written => Outcome::Written,
        DeviceOutcome::Queued => Outcome::Queued,
        DeviceOutcome::Dropped => Outcome::Dropped,
        DeviceOutcome::Kicked => Outcome::Kicked,
        DeviceOutcome::Expired => Outcome::Expired,
        DeviceOutcome::TooLarge => Outcome::TooLarge,
        DeviceOutcome::Background => Outcome::Background,
    }
}
