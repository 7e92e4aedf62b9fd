//! `/metrics`: the blocks of all threads as OpenMetrics text, in the order of `metrics::DESCRIPTIONS`.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use crate::admission::{Admission, NodeState};
use crate::metrics::{Block, DESCRIPTIONS, Kind};

/// What Prometheus is told about the text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the figures come from.
pub(super) struct Sources {
    /// The blocks with the value of their `shard` label.
    pub(super) blocks: Vec<(String, Arc<Block>)>,
    /// State and connection count of the node.
    pub(super) admission: Arc<Admission>,
    /// Lines that the log writer dropped.
    pub(super) dropped_log_lines: Option<ErrorCounter>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

/// A registry that reads the sources at each scrape.
pub(super) fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    registry
}

/// The text of one scrape.
pub(super) fn text(registry: &Registry) -> Result<String, fmt::Error> {
    let mut text = String::new();
    text::encode(&mut text, registry)?;
    Ok(text)
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut rest = DESCRIPTIONS;
        while let Some(((_, first), _)) = rest.split_first() {
            let members = rest.iter().take_while(|(_, d)| d.name == first.name).count();
            let (family, after) = rest.split_at(members);
            rest = after;
            let mut samples = family_encoder(&mut encoder, (first.name, first.help), first.kind)?;
            for (metric, description) in family {
                for (shard, block) in &self.blocks {
                    let labels = Labels(Some(("shard", shard)), description.label);
                    let mut sample = samples.encode_family(&labels)?;
                    put(&mut sample, first.kind, block.value(*metric))?;
                }
            }
        }
        self.node(&mut encoder)
    }
}

impl Sources {
    /// What belongs to the node and to no thread.
    fn node(&self, encoder: &mut DescriptorEncoder) -> fmt::Result {
        let mut build =
            encoder.encode_descriptor("pinion_build", "Facts of the build.", None, MetricType::Info)?;
        build.encode_info(&[
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("PINION_COMMIT")),
            ("rustc", env!("PINION_RUSTC")),
        ])?;
        let state = self.admission.state();
        let help = "1 for the state that the node is in.";
        let mut states = family_encoder(encoder, ("pinion_node_state", help), Kind::Gauge)?;
        for (name, value) in [
            ("starting", NodeState::Starting),
            ("ready", NodeState::Ready),
            ("draining", NodeState::Draining),
        ] {
            let labels = Labels(Some(("state", name)), None);
            put(&mut states.encode_family(&labels)?, Kind::Gauge, u64::from(state == value))?;
        }
        let limits = [
            ("pinion_node_connections", "Places taken of the connection limit.", self.admission.open()),
            ("pinion_node_connections_limit", "The connection limit.", self.admission.connections_max()),
        ];
        for (name, help, value) in limits {
            let mut gauge = family_encoder(encoder, (name, help), Kind::Gauge)?;
            put(&mut gauge, Kind::Gauge, u64::from(value))?;
        }
        if let Some(dropped) = &self.dropped_log_lines {
            let about =
                ("pinion_log_lines_dropped_total", "Log lines dropped because the writer was behind.");
            let mut counter = family_encoder(encoder, about, Kind::Counter)?;
            put(&mut counter, Kind::Counter, dropped.dropped_lines() as u64)?;
        }
        Ok(())
    }
}

/// Opens a family. OpenMetrics appends `_total` to the samples of a counter itself.
fn family_encoder<'a>(
    encoder: &'a mut DescriptorEncoder<'_>,
    (name, help): (&'a str, &'a str),
    kind: Kind,
) -> Result<MetricEncoder<'a>, fmt::Error> {
    match kind {
        Kind::Counter => {
            let name = name.strip_suffix("_total").unwrap_or(name);
            encoder.encode_descriptor(name, help, None, MetricType::Counter)
        }
        Kind::Gauge => encoder.encode_descriptor(name, help, None, MetricType::Gauge),
    }
}

fn put(sample: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => sample.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        Kind::Gauge => sample.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

/// One or two labels.
#[derive(Debug)]
struct Labels<'a>(Option<(&'a str, &'a str)>, Option<(&'a str, &'a str)>);

impl prometheus_client::encoding::EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        for label in [self.0, self.1].into_iter().flatten() {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Metric, Tally};

    #[test]
    fn every_metric_of_every_thread_is_shown_once_and_families_are_described_once() {
        let mut tally = Tally::default();
        tally.add(Metric::PushQueued, 7);
        tally.set(Metric::Users, 3);
        let busy = Block::default();
        busy.publish(&tally);
        let sources = Sources {
            blocks: vec![("0".to_owned(), Arc::new(busy)), ("rpc0".to_owned(), Arc::default())],
            admission: Arc::new(Admission::new(10)),
            dropped_log_lines: None,
        };
        let text = text(&registry(sources)).unwrap();
        for line in [
            "pinion_pushes_total{shard=\"0\",outcome=\"queued\"} 7",
            "pinion_pushes_total{shard=\"rpc0\",outcome=\"queued\"} 0",
            "pinion_users{shard=\"0\"} 3",
            "# TYPE pinion_pushes counter",
            "# TYPE pinion_users gauge",
            "pinion_node_state{state=\"starting\"} 1",
            "pinion_node_state{state=\"ready\"} 0",
            "pinion_node_connections_limit 10",
            "# EOF",
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}\n{text}");
        }
        assert!(text.contains("pinion_build_info{version=\""), "{text}");
        let samples = text.lines().filter(|l| l.contains("shard=\"0\"")).count();
        assert_eq!(samples, DESCRIPTIONS.len());
        let mut families: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let all = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), all, "a family is described twice");
    }
}
