//! The gather of a push whose verdicts come in parts: whose are in, what they add up to, who was never answered for.
//!
//! What always holds: a requested user has one result over all parts, the missing ones with the last.

use super::router::{PushResult, ResultPart, To};
use crate::hub::mail::{PushPart, RecipientVerdict, Report, Totals, Who};
use crate::ids::{ShardId, Text};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Parts {
    report: Report,
    /// Listed users whose verdict is not in, by position; `None` = it is. Empty for [`To::AllLocal`].
    missing: Vec<Option<Text>>,
    missing_count: u32,
    totals: Totals,
}

impl Parts {
    pub(super) fn new(report: Report, to: To) -> Self {
        let missing: Vec<Option<Text>> = match to {
            To::Users(users) => users.into_iter().map(Some).collect(),
            To::AllLocal => Vec::new(),
        };
        let missing_count = u32::try_from(missing.len()).unwrap_or(u32::MAX);
        Self { report, missing, missing_count, totals: Totals::default() }
    }

    /// Takes what a shard says; gives the results that the caller wants to hear now.
    pub(super) fn take(&mut self, part: PushPart) -> Vec<PushResult> {
        if part.last {
            self.totals.add(part.totals);
            if self.report == Report::Totals {
                // Without verdicts per user only the shards' sums say who was looked at.
                self.missing_count = self.missing_count.saturating_sub(part.totals.users);
            }
        }
        part.verdicts.into_iter().filter_map(|verdict| self.result(verdict)).collect()
    }

    fn result(&mut self, verdict: RecipientVerdict) -> Option<PushResult> {
        let user = match verdict.who {
            Who::User(user) => user,
            Who::Slot(slot) => {
                let user = self.missing.get_mut(slot as usize)?.take()?;
                self.missing_count = self.missing_count.saturating_sub(1);
                user
            }
        };
        Some(PushResult { user, devices: Some(verdict.devices), expired: verdict.expired })
    }

    /// The last part: `results` and who is missing. `silent` are the shards that did not answer to the end.
    pub(super) fn finish(
        self,
        mut results: Vec<PushResult>,
        silent: impl Iterator<Item = ShardId>,
    ) -> ResultPart {
        let not_reached = if self.missing.is_empty() {
            u32::try_from(silent.count()).unwrap_or(u32::MAX).saturating_add(self.totals.cut_short)
        } else {
            self.missing_count
        };
        if self.report != Report::Totals {
            let missing = self.missing.into_iter().flatten();
            results.extend(missing.map(|user| PushResult { user, devices: None, expired: false }));
        }
        ResultPart { results, totals: self.totals, not_reached, last: true, ..ResultPart::default() }
    }
}
