//! Test switches: faults that a test plants into a running gateway, to see that they are outlived or found.
//!
//! What always holds: no file, no variable and no setting reaches them, only flags that `--help` does not show; without
//! one nothing is planted; the banner warns of one. They are runtime switches and not a cargo feature, so that the
//! binary that is tested with a fault is the very one that is tested without, and CI builds it once. What they do is in
//! `shard/planted.rs`, `shard/hub_plan.rs` and `rpc/planted.rs`.

/// What is planted; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// `--plant`.
    pub fault: Option<PlantedFault>,
    /// `--plant-upstream`.
    pub upstream: Option<PlantedUpstream>,
    /// `--plant-push`.
    pub push: Option<PlantedPush>,
}

/// Pushes are served as they must not be, for a figure to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedPush {
    /// A push is served whole before anything else has its turn.
    Unsliced,
}

/// Shard 0 gets the structure of incident 1, or of its half cure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedFault {
    /// A kick puts its connection in a short unregister queue that the same loop drains, and waits while it is full.
    Incident1,
    /// The end of a connection may be handled before its register, finds nothing, and is forgotten.
    SwappedQueues,
}

/// Upstream that answers late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedUpstream {
    /// Every call is answered after so many milliseconds.
    Slow(u64),
    /// Calls asked in this span of milliseconds, counted from the first call, fail after their deadline.
    Dead {
        /// First millisecond.
        from_ms: u64,
        /// Millisecond after the last.
        to_ms: u64,
    },
}

impl Planted {
    /// Whether anything is planted.
    pub fn is_some(&self) -> bool {
        *self != Self::default()
    }
}

impl PlantedFault {
    /// Reads `incident-1` or `swapped-queues`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "incident-1" => Ok(Self::Incident1),
            "swapped-queues" => Ok(Self::SwappedQueues),
            _ => Err("expected incident-1 or swapped-queues".to_owned()),
        }
    }
}

impl PlantedPush {
    /// Reads `unsliced`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "unsliced" => Ok(Self::Unsliced),
            _ => Err("expected unsliced".to_owned()),
        }
    }
}

impl PlantedUpstream {
    /// Reads `slow:MS` or `dead:FROM_MS-TO_MS`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parse = || match text.split_once(':')? {
            ("slow", ms) => Some(Self::Slow(ms.parse().ok()?)),
            ("dead", span) => {
                let (from, to) = span.split_once('-')?;
                let (from_ms, to_ms) = (from.parse().ok()?, to.parse().ok()?);
                (from_ms < to_ms).then_some(Self::Dead { from_ms, to_ms })
            }
            _ => None,
        };
        parse().ok_or_else(|| "expected slow:MS or dead:FROM_MS-TO_MS, for example dead:500-2500".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_are_read_or_refused() {
        let dead = PlantedUpstream::Dead { from_ms: 500, to_ms: 2500 };
        for (text, want) in [
            ("slow:100", Some(PlantedUpstream::Slow(100))),
            ("dead:500-2500", Some(dead)),
            ("dead:2500-500", None),
            ("dead", None),
            ("slow:", None),
            ("quick:1", None),
        ] {
            assert_eq!(PlantedUpstream::parse(text).ok(), want, "{text}");
        }
        assert_eq!(PlantedFault::parse("incident-1"), Ok(PlantedFault::Incident1));
        assert_eq!(PlantedFault::parse("swapped-queues"), Ok(PlantedFault::SwappedQueues));
        assert!(PlantedFault::parse("incident-2").is_err());
        assert_eq!(PlantedPush::parse("unsliced"), Ok(PlantedPush::Unsliced));
        assert!(PlantedPush::parse("sliced").is_err());
    }

    #[test]
    fn nothing_is_planted_by_default() {
        assert!(!Planted::default().is_some());
        assert!(Planted { upstream: Some(PlantedUpstream::Slow(1)), ..Planted::default() }.is_some());
    }
}
