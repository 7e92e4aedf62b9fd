//! Users who log in at another gateway: when what they leave here need not be told.

use super::super::change::Change;
use super::super::platforms::Platforms;
use super::{Manner, Place, Reports};
use crate::time::Mono;

impl Reports {
    /// Where what he leaves is told by another gateway.
    pub(super) fn hand_over(&mut self, now: Mono, at: u32, change: &Change) -> Platforms {
        let (steady_ms, manner) = (self.times.steady_ms, self.manner);
        let Some(user) = self.users.row_mut(at) else { return Platforms::NONE };
        let is_rested = user.place == Place::Idle && now.since_ms(user.since) >= steady_ms;
        let is_steady = is_rested || user.place == Place::Dirty && user.was_steady;
        let elsewhere = user.elsewhere.without(change.here).or(change.elsewhere);
        // Who stays here is handed over only if all is told of him and it would be heard that he is gone there.
        let stays = if is_rested && manner == Manner::Batches { elsewhere } else { Platforms::NONE };
        let known = user.elsewhere.without(change.here).without(change.elsewhere);
        user.elsewhere = known.or(stays).and(change.online);
        if !change.here.is_empty() {
            user.repair_after = now;
        }
        if is_steady { elsewhere.without(change.online) } else { Platforms::NONE }
    }
}
