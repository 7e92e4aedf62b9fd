//! The text of `/metrics`, as numbers.

use std::collections::BTreeMap;

/// Gauges that are zero when nobody is there.
pub const LEVELS: [&str; 11] = [
    "pinion_connections",
    "pinion_registered_connections",
    "pinion_users",
    "pinion_sockets",
    "pinion_handshakes_in_flight",
    "pinion_outbox_bytes",
    "pinion_upstream_calls_in_flight",
    "pinion_pushes_in_flight",
    "pinion_subscription_targets",
    "pinion_queue_depth",
    "pinion_lane_depth",
];

/// Values by series.
#[derive(Debug, Default)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// Parses Prometheus text; comments are left out.
    pub fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    /// The sum over all series of a family whose labels contain each of `labels` (like `outcome="ok"`).
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let matching = self.0.iter().filter(|(series, _)| {
            let (name, rest) = series.split_once('{').unwrap_or((series, ""));
            name == family && labels.iter().all(|label| rest.contains(label))
        });
        matching.map(|(_, value)| value).sum()
    }

    /// Whether a family is there at all.
    pub fn has(&self, family: &str) -> bool {
        self.0.keys().any(|series| series.split('{').next() == Some(family))
    }
}
