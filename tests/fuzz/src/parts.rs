//! What a hub tells about a push whose verdicts come in parts.

use std::collections::HashSet;

use pinion::hub::mail::{PushPart, Report};

/// A push and what was told about it.
#[derive(Debug)]
pub struct Sent {
    report: Report,
    /// Users at most.
    listed: usize,
    told: HashSet<String>,
}

impl Sent {
    /// Nothing was told yet.
    pub fn new(report: Report, listed: usize) -> Self {
        Self { report, listed, told: HashSet::new() }
    }

    /// No user has two verdicts, and the totals count those who were looked at.
    pub fn part(&mut self, part: &PushPart) {
        for verdict in &part.verdicts {
            assert!(self.told.insert(format!("{:?}", verdict.who)), "{verdict:?} comes twice");
            assert!(verdict.devices.is_empty() || !verdict.expired, "{verdict:?}");
        }
        assert!(self.told.len() <= self.listed, "{} of {} are told of", self.told.len(), self.listed);
        if part.last {
            let looked_at = part.totals.users as usize;
            let counted = if self.report == Report::Totals { 0 } else { looked_at };
            assert_eq!(self.told.len(), counted, "{:?}", part.totals);
            assert!(looked_at <= self.listed, "{:?}", part.totals);
        }
    }
}
