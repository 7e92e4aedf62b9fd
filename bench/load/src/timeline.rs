//! Seconds of a run, put together from those of its threads.

use std::collections::BTreeMap;

use crate::tally::{Latencies, Second};

/// A second is complete when a later one by so many has begun, even if a thread has not reported it: it was late.
const LATE_SECONDS: u64 = 2;

/// See the module's documentation.
pub struct Timeline {
    threads: usize,
    /// By number, with how many threads have reported.
    open: BTreeMap<u64, (usize, Second, Latencies)>,
    complete: Vec<Second>,
}

impl Timeline {
    pub fn new(threads: usize) -> Self {
        Self { threads, open: BTreeMap::new(), complete: Vec::new() }
    }

    /// Adds a thread's; gives those that are complete now, in order.
    pub fn add(&mut self, number: u64, second: &Second, latency: &Latencies) -> &[Second] {
        let (reports, sum, latencies) = self.open.entry(number).or_default();
        *reports += 1;
        sum.open += second.open;
        sum.answered += second.answered;
        sum.deliveries += second.deliveries;
        sum.errors += second.errors;
        sum.bytes_in += second.bytes_in;
        latencies.add(latency);
        let before = self.complete.len();
        while let Some(entry) = self.open.first_entry() {
            if entry.get().0 < self.threads && *entry.key() + LATE_SECONDS > number {
                break;
            }
            self.close_first();
        }
        &self.complete[before..]
    }

    /// All seconds, those too that some thread has not reported.
    pub fn end(mut self) -> Vec<Second> {
        while !self.open.is_empty() {
            self.close_first();
        }
        self.complete
    }

    fn close_first(&mut self) {
        if let Some((number, (_, mut second, latencies))) = self.open.pop_first() {
            second.at_seconds = (number + 1) as f64;
            second.latency_p50_ns = latencies.0.value_at_quantile(0.5);
            second.latency_p99_ns = latencies.0.value_at_quantile(0.99);
            self.complete.push(second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_complete_with_its_last_thread_or_when_it_is_late() {
        let mut timeline = Timeline::new(2);
        let second = Second { open: 3, answered: 5, ..Second::default() };
        let mut latency = Latencies::default();
        latency.record(1_000);
        assert!(timeline.add(0, &second, &latency).is_empty());
        let complete = timeline.add(0, &second, &latency);
        assert_eq!((complete.len(), complete[0].open, complete[0].answered), (1, 6, 10));
        assert_eq!((complete[0].at_seconds, complete[0].latency_p50_ns), (1.0, 1_000));
        assert!(timeline.add(1, &second, &latency).is_empty());
        assert!(timeline.add(2, &second, &latency).is_empty());
        assert_eq!(timeline.add(3, &second, &latency).len(), 1, "the one at 1 is late");
        assert_eq!(timeline.end().len(), 4);
    }
}
