//! One lane of reports: the users whose hash falls into it, in the lists of their places, and its request in flight.

use super::platforms::Platforms;
use super::renewal::Renewal;
use super::table::{Links, List, Row};
use crate::time::Mono;

/// Where a user stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In no list: in the request in flight.
    Out,
    /// There is something to tell.
    Dirty,
    /// What was told is told once more after a while (see [`User::echo`]).
    Settling,
    /// All was told.
    Idle,
}

/// A user who is online here, or about whom there is something to tell.
#[derive(Debug)]
pub(super) struct User {
    pub(super) user: Box<str>,
    pub(super) links: Links,
    /// When he came to his place; in flight: to the place before.
    pub(super) since: Mono,
    /// An `online_change` that lacks him is answered at once from here on.
    pub(super) repair_after: Mono,
    /// Where he is online here.
    pub(super) online: Platforms,
    /// To be told as gone, without what is in flight. Never also online.
    pub(super) offline: Platforms,
    /// OpenIM 3.5 only: what was told as online and not as gone since.
    pub(super) told: Platforms,
    /// Told by a request whose fate is unknown: it may still be carried out, after the one that follows. So these
    /// platforms are told again when that can no longer be. Also those of a repair that came too soon.
    pub(super) echo: Platforms,
    /// Where he has logged in on another gateway since he did here.
    pub(super) elsewhere: Platforms,
    pub(super) lane: u8,
    pub(super) place: Place,
    /// When something came to be told of him, all had been told for `steady_ms`.
    pub(super) was_steady: bool,
    /// He changed while he was in flight.
    pub(super) again: bool,
}

impl Row for User {
    fn user(&self) -> &str {
        &self.user
    }

    fn links(&self) -> Links {
        self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl User {
    pub(super) fn new(user: &str, lane: u8) -> Self {
        Self {
            user: user.into(),
            links: Links::UNLINKED,
            since: Mono(0),
            repair_after: Mono(0),
            online: Platforms::NONE,
            offline: Platforms::NONE,
            told: Platforms::NONE,
            echo: Platforms::NONE,
            elsewhere: Platforms::NONE,
            lane,
            place: Place::Out,
            was_steady: false,
            again: false,
        }
    }

    /// OpenIM 3.5: the change to tell next, leaving first.
    pub(super) fn next_change(&self) -> (Platforms, Platforms) {
        match self.offline.first() {
            Platforms::NONE => (self.online.without(self.told).first(), Platforms::NONE),
            offline => (Platforms::NONE, offline),
        }
    }

    /// What was told in vain, or is told once more, is to be told as gone unless it is online.
    pub(super) fn tell_again(&mut self, platforms: Platforms) {
        self.offline = self.offline.or(platforms).without(self.online);
        self.told = self.told.without(platforms);
    }
}

/// What the request in flight says of one user.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: u32,
    pub(super) online: Platforms,
    pub(super) offline: Platforms,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) number: u64,
    pub(super) deadline: Mono,
    pub(super) sent: Vec<Sent>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) dirty: List,
    pub(super) settling: List,
    /// In the order in which they were told.
    pub(super) idle: List,
    pub(super) flight: Option<Flight>,
    /// In a row.
    pub(super) failures: u32,
    /// Of the next request.
    pub(super) not_before: Mono,
    /// Users in the next request.
    pub(super) size: usize,
    pub(super) renewal: Renewal,
    /// A repair does not wait for a full batch.
    pub(super) is_urgent: bool,
}

impl Lane {
    pub(super) fn new(size: usize, renewal: Renewal) -> Self {
        Self {
            dirty: List::EMPTY,
            settling: List::EMPTY,
            idle: List::EMPTY,
            flight: None,
            failures: 0,
            not_before: Mono(0),
            size,
            renewal,
            is_urgent: false,
        }
    }

    pub(super) fn list(&mut self, place: Place) -> Option<&mut List> {
        match place {
            Place::Out => None,
            Place::Dirty => Some(&mut self.dirty),
            Place::Settling => Some(&mut self.settling),
            Place::Idle => Some(&mut self.idle),
        }
    }
}
