//! What `pinion proxy` counts, and its text for Prometheus. As in the gateway each thread counts in plain memory and
//! publishes to a block of its own; the one who shows them only reads.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Kind;

macro_rules! proxy_metrics {
    ($($variant:ident $kind:ident $name:literal $(($key:literal = $value:literal))? $help:literal;)*) => {
        /// Every metric of a thread of the proxy.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum ProxyMetric { $(#[doc = $help] $variant,)* }

        /// Metric, kind, family, its own label, help. Members of one family stand together.
        const ROWS: &[(ProxyMetric, Kind, &str, &str, &str)] = &[$((
            ProxyMetric::$variant,
            Kind::$kind,
            $name,
            concat!($(",", $key, "=\"", $value, "\"")?),
            $help,
        ),)*];
    };
}

proxy_metrics! {
    Pairs Gauge "pinion_proxy_pairs" "Clients that are connected with a member.";
    Openings Gauge "pinion_proxy_handshakes_in_flight" "Clients that have no answer of a member yet.";
    Lingering Gauge "pinion_proxy_lingering" "Refused clients that may still read their answer.";
    HalfClosed Gauge "pinion_proxy_half_closed_pairs" "Pairs of which one side has ended.";
    HeldBytes Gauge "pinion_proxy_held_bytes" "Bytes held in memory and pipes because a side is slow.";
    PipesUsed Gauge "pinion_proxy_pipes" "Pipes that hold bytes of a pair.";
    Members Gauge "pinion_proxy_members" "Members in placement.";
    MembersCurrent Gauge "pinion_proxy_members_current" "1 while the members are known as they are now; 0: the last known ones stand.";
    MembersAvoided Gauge "pinion_proxy_members_avoided" "Members that are tried after the others, since they were not reached.";
    MembersRead Counter "pinion_proxy_member_lists_total" ("outcome" = "taken") "Member lists that were read anew.";
    MembersBad Counter "pinion_proxy_member_lists_total" ("outcome" = "refused") "Member lists that were read anew.";
    NamesUnresolved Counter "pinion_proxy_names_unresolved_total" "Names of members that could not be resolved; the last addresses stay.";

    AdminFull Counter "pinion_proxy_operators_refused_total" "Connections of operators that were closed at accept since too many are open.";

    Accepted Counter "pinion_proxy_accepts_total" "Connections accepted.";
    AcceptErrors Counter "pinion_proxy_accept_errors_total" "Failed accepts.";
    AcceptWaits Counter "pinion_proxy_accept_waits_total" "Times that a thread stopped accepting since too many handshakes were open.";
    Upgraded Counter "pinion_proxy_handshakes_total" ("outcome" = "upgraded") "Handshakes by outcome.";
    RefusedByMember Counter "pinion_proxy_handshakes_total" ("outcome" = "refused_by_member") "Handshakes by outcome.";
    BadHead Counter "pinion_proxy_handshakes_total" ("outcome" = "bad_head") "Handshakes by outcome.";
    HeadTooLong Counter "pinion_proxy_handshakes_total" ("outcome" = "head_too_long") "Handshakes by outcome.";
    HeadTooSlow Counter "pinion_proxy_handshakes_total" ("outcome" = "head_too_slow") "Handshakes by outcome.";
    ClientGone Counter "pinion_proxy_handshakes_total" ("outcome" = "client_gone") "Handshakes by outcome.";
    PairsFull Counter "pinion_proxy_handshakes_total" ("outcome" = "pairs_limit") "Handshakes by outcome.";
    AddressFull Counter "pinion_proxy_handshakes_total" ("outcome" = "address_limit") "Handshakes by outcome.";
    Draining Counter "pinion_proxy_handshakes_total" ("outcome" = "draining") "Handshakes by outcome.";
    NoFiles Counter "pinion_proxy_handshakes_total" ("outcome" = "no_descriptors") "Handshakes by outcome.";
    Unreachable Counter "pinion_proxy_handshakes_total" ("outcome" = "no_member_reached") "Handshakes by outcome.";
    NoAnswer Counter "pinion_proxy_handshakes_total" ("outcome" = "no_answer") "Handshakes by outcome.";
    BadAnswer Counter "pinion_proxy_handshakes_total" ("outcome" = "closed_without_answer") "Handshakes by outcome.";

    LingeringFull Counter "pinion_proxy_answers_cut_total" "Refused clients that were closed at once, perhaps under their answer, since too many are reading theirs.";
    DialHome Counter "pinion_proxy_dials_total" ("outcome" = "home") "Connections to members by outcome.";
    DialElsewhere Counter "pinion_proxy_dials_total" ("outcome" = "alternative") "Connections to members by outcome.";
    DialRefused Counter "pinion_proxy_dials_total" ("outcome" = "refused") "Connections to members by outcome.";
    DialTimeout Counter "pinion_proxy_dials_total" ("outcome" = "timeout") "Connections to members by outcome.";
    DialFailed Counter "pinion_proxy_dials_total" ("outcome" = "error") "Connections to members by outcome.";

    BytesUp Counter "pinion_proxy_bytes_total" ("direction" = "to_member") "Bytes moved, heads and answers included.";
    BytesDown Counter "pinion_proxy_bytes_total" ("direction" = "to_client") "Bytes moved, heads and answers included.";
    Copies Counter "pinion_proxy_moves_total" ("by" = "copy") "Moves of bytes from one side to the other.";
    Splices Counter "pinion_proxy_moves_total" ("by" = "splice") "Moves of bytes from one side to the other.";
    NoPipe Counter "pinion_proxy_no_pipe_total" "Times that bytes were copied since no pipe was to be had.";
    SlowClient Counter "pinion_proxy_stops_total" ("slow" = "client") "Times that a side was not read on since the other is slow.";
    SlowMember Counter "pinion_proxy_stops_total" ("slow" = "member") "Times that a side was not read on since the other is slow.";

    EndedClosed Counter "pinion_proxy_pairs_ended_total" ("how" = "closed") "Pairs that ended.";
    EndedReset Counter "pinion_proxy_pairs_ended_total" ("how" = "reset") "Pairs that ended.";
    EndedHalfClosed Counter "pinion_proxy_pairs_ended_total" ("how" = "half_closed_too_long") "Pairs that ended.";
    EndedDrain Counter "pinion_proxy_pairs_ended_total" ("how" = "drain") "Pairs that ended.";
}

/// Plain counts of one thread.
#[derive(Clone, Debug)]
pub struct ProxyTally([u64; ROWS.len()]);

impl Default for ProxyTally {
    fn default() -> Self {
        Self([0; ROWS.len()])
    }
}

impl ProxyTally {
    /// Adds to a counter.
    pub fn add(&mut self, metric: ProxyMetric, n: u64) {
        if let Some(value) = self.0.get_mut(metric as usize) {
            *value = value.wrapping_add(n);
        }
    }

    /// Adds one to a counter.
    pub fn count(&mut self, metric: ProxyMetric) {
        self.add(metric, 1);
    }

    /// Sets a gauge.
    pub fn set(&mut self, metric: ProxyMetric, value: u64) {
        if let Some(slot) = self.0.get_mut(metric as usize) {
            *slot = value;
        }
    }
}

/// The published counts of one thread, written by that thread only.
#[derive(Debug)]
#[repr(align(128))]
pub struct ProxyBlock([AtomicU64; ROWS.len()]);

impl Default for ProxyBlock {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl ProxyBlock {
    /// Copies a thread's counts. Call it from that thread only.
    pub fn publish(&self, tally: &ProxyTally) {
        for (slot, value) in self.0.iter().zip(tally.0) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    /// What was published last.
    pub fn value(&self, metric: ProxyMetric) -> u64 {
        self.0.get(metric as usize).map_or(0, |slot| slot.load(Ordering::Relaxed))
    }
}

/// Of [`text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All blocks in Prometheus' text format 0.0.4, each with the value of its label `thread`.
pub fn text<'a>(blocks: impl Iterator<Item = (String, &'a ProxyBlock)> + Clone) -> String {
    let mut out = String::new();
    let mut family = "";
    for (metric, kind, name, label, help) in ROWS {
        if *name != family {
            family = name;
            let kind = if *kind == Kind::Gauge { "gauge" } else { "counter" };
            out += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        for (thread, block) in blocks.clone() {
            let value = block.value(*metric);
            out += &format!("{name}{{thread=\"{thread}\"{label}}} {value}\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_shown_once_per_thread_and_families_stand_together() {
        let (one, two) = (ProxyBlock::default(), ProxyBlock::default());
        let mut tally = ProxyTally::default();
        tally.count(ProxyMetric::Upgraded);
        tally.set(ProxyMetric::Pairs, 7);
        one.publish(&tally);
        let text = text([("0".to_owned(), &one), ("1".to_owned(), &two)].into_iter());
        assert!(
            text.contains("pinion_proxy_pairs{thread=\"0\"} 7\npinion_proxy_pairs{thread=\"1\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("pinion_proxy_handshakes_total{thread=\"0\",outcome=\"upgraded\"} 1\n"),
            "{text}"
        );
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(names.len(), once.len(), "a family is shown in one piece");
        for (number, (metric, kind, name, _, _)) in ROWS.iter().enumerate() {
            assert_eq!(*metric as usize, number);
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        }
    }
}
