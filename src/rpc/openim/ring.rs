//! The gateways of OpenIM 3.5 in Kubernetes: push hashes users over as many as `MY_MSGGATEWAY_REPLICACOUNT` says, so
//! that a count which is not that of the gateways that are there loses pushes (spec 10.4). Pure.
//!
//! A gateway answers if a channel to it is ready; this one does. A difference is an error once it has lasted, because
//! pods are restarted one by one.

use crate::time::Mono;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    /// As the variable says.
    expected: usize,
    answering: usize,
    /// How long they may differ, in milliseconds.
    differ_ms: u64,
    /// Since when they do; `None`: they do not.
    differs: Option<Mono>,
    reported: bool,
}

/// What is worth a line in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// The difference has lasted.
    Differs,
    /// There is none any more.
    Agrees,
}

impl Ring {
    /// Nobody else was asked yet. `None`: there is no ring.
    pub(super) fn new(expected: usize, differ_ms: u64, now: Mono) -> Option<Self> {
        let differs = (expected != 1).then_some(now);
        (expected > 0).then_some(Self { expected, answering: 1, differ_ms, differs, reported: false })
    }

    /// Takes how many others answer now.
    pub(super) fn observe(&mut self, now: Mono, others: usize) -> Option<Turn> {
        self.answering = others.saturating_add(1);
        if self.answering == self.expected {
            self.differs = None;
            return std::mem::take(&mut self.reported).then_some(Turn::Agrees);
        }
        self.differs.get_or_insert(now);
        let lasted = self.fault(now).is_some();
        let first = lasted && !self.reported;
        self.reported |= lasted;
        first.then_some(Turn::Differs)
    }

    /// What is wrong, in words for the operator.
    pub(super) fn fault(&self, now: Mono) -> Option<String> {
        let Self { expected, answering, .. } = self;
        let lasted = self.differs.is_some_and(|since| now.since_ms(since) >= self.differ_ms);
        lasted.then(|| {
            format!(
                "MY_MSGGATEWAY_REPLICACOUNT is {expected}, and {answering} gateways answer, this one included: \
                 OpenIM's push looks for users at gateways that are not there, or not at all that are\n"
            )
        })
    }

    /// The variable, and how many answer.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.expected, self.answering)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_an_error_once_it_has_lasted() {
        let mut ring = Ring::new(3, 100, Mono(0)).unwrap();
        for (now, others, turn, wrong) in [
            (0, 0, None, false),
            (99, 1, None, false),
            (100, 1, Some(Turn::Differs), true),
            (101, 0, None, true),
            (102, 2, Some(Turn::Agrees), false),
            (500, 2, None, false),
            (501, 3, None, false), // one too many
            (600, 3, None, false),
            (601, 3, Some(Turn::Differs), true),
            (602, 2, Some(Turn::Agrees), false),
            (603, 1, None, false), // a restart
            (700, 2, None, false),
        ] {
            assert_eq!(ring.observe(Mono(now), others), turn, "at {now}");
            assert_eq!(ring.fault(Mono(now)).is_some(), wrong, "at {now}");
            assert_eq!(ring.counts(), (3, others + 1));
        }
    }

    #[test]
    fn both_numbers_are_named() {
        let mut ring = Ring::new(5, 0, Mono(0)).unwrap();
        assert_eq!(ring.observe(Mono(0), 1), Some(Turn::Differs));
        let fault = ring.fault(Mono(0)).unwrap();
        assert!(fault.contains("is 5, and 2 gateways answer"), "{fault}");
    }

    #[test]
    fn a_gateway_alone_agrees_and_without_members_there_is_no_ring() {
        let ring = Ring::new(1, 0, Mono(0)).unwrap();
        assert_eq!(ring.fault(Mono(0)), None);
        assert!(Ring::new(0, 0, Mono(0)).is_none());
    }
}
