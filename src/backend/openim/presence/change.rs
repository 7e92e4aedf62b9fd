//! What a presence record says, as sets of platforms.

use super::platforms::Platforms;
use crate::hub::upstream::{LoginPlace, PresenceRecord};

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) online: Platforms,
    pub(super) gone: Platforms,
    /// Where the newest login was here.
    pub(super) here: Platforms,
    /// Where it was on another gateway.
    pub(super) elsewhere: Platforms,
}

impl Change {
    pub(super) fn of(record: &PresenceRecord) -> Self {
        let logins = |at| {
            let at_it = record.logins.iter().filter(move |(_, place)| *place == at);
            at_it.filter_map(|(platform, _)| Platforms::one(*platform)).fold(Platforms::NONE, Platforms::or)
        };
        Self {
            online: Platforms::of(&record.online),
            gone: Platforms::of(&record.offline),
            here: logins(LoginPlace::Here),
            elsewhere: logins(LoginPlace::Elsewhere),
        }
    }
}
