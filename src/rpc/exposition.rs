//! `/metrics`: the blocks of all threads as OpenMetrics text, in the order of `metrics::DESCRIPTIONS`.
//!
//! Under OpenIM's names, for its dashboards (spec 11.4): `online_user_num` and `rpc_count`, and the `process_*` of
//! Prometheus's own clients. There are no `go_*`: nothing of Go runs here.

mod process;

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tracing_appender::non_blocking::ErrorCounter;

use crate::admission::{Admission, NodeState};
use crate::metrics::{Block, DESCRIPTIONS, Kind, Metric};
use process::Process;

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
    /// As discovery knows this gateway's service: the label `name` of `rpc_count`.
    pub(super) service: String,
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
    registry.register_collector(Box::new(Process::new()));
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
                if first.kind == Kind::Upstream {
                    let labels = Labels(Some(("name", &self.service)), description.labels);
                    put(&mut samples.encode_family(&labels)?, first.kind, self.sum(*metric))?;
                    continue;
                }
                for (shard, block) in &self.blocks {
                    let labels = Labels(Some(("shard", shard)), description.labels);
                    let mut sample = samples.encode_family(&labels)?;
                    put(&mut sample, first.kind, block.value(*metric))?;
                }
            }
        }
        self.node(&mut encoder)
    }
}

impl Sources {
    /// Of all threads.
    fn sum(&self, metric: Metric) -> u64 {
        self.blocks.iter().map(|(_, block)| block.value(metric)).sum()
    }

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
            let labels = Labels(Some(("state", name)), &[]);
            put(&mut states.encode_family(&labels)?, Kind::Gauge, u64::from(state == value))?;
        }
        let (open, limit) = (self.admission.open(), self.admission.connections_max());
        let gauges = [
            ("pinion_node_connections", "Places taken of the connection limit.", u64::from(open)),
            ("pinion_node_connections_limit", "The connection limit.", u64::from(limit)),
            // A user is on one shard: no user is in this sum twice.
            ("online_user_num", "Distinct users with a registered connection.", self.sum(Metric::Users)),
        ];
        for (name, help, value) in gauges {
            let mut gauge = family_encoder(encoder, (name, help), Kind::Gauge)?;
            put(&mut gauge, Kind::Gauge, value)?;
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
        // OpenMetrics has no counter without `_total`.
        Kind::Upstream => encoder.encode_descriptor(name, help, None, MetricType::Unknown),
    }
}

fn put(sample: &mut MetricEncoder<'_>, kind: Kind, value: u64) -> fmt::Result {
    match kind {
        Kind::Counter => sample.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        Kind::Gauge | Kind::Upstream => sample.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

/// The label that a scrape adds, and those of the metric.
#[derive(Debug)]
struct Labels<'a>(Option<(&'a str, &'a str)>, &'a [(&'a str, &'a str)]);

impl prometheus_client::encoding::EncodeLabelSet for Labels<'_> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder) -> fmt::Result {
        use prometheus_client::encoding::EncodeLabel;
        for label in self.0.iter().chain(self.1) {
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
        tally.add(Metric::CountKickError, 2);
        let block = |tally: &Tally| {
            let block = Block::default();
            block.publish(tally);
            Arc::new(block)
        };
        let busy = block(&tally);
        tally.set(Metric::Users, 4);
        tally.add(Metric::CountKickError, 3);
        let sources = Sources {
            blocks: vec![
                ("0".to_owned(), busy),
                ("rpc0".to_owned(), Arc::default()),
                ("1".to_owned(), block(&tally)),
            ],
            admission: Arc::new(Admission::new(10)),
            dropped_log_lines: None,
            service: "messageGateway".to_owned(),
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
            "# TYPE online_user_num gauge",
            "online_user_num 7",
            "# TYPE rpc_count unknown",
            "rpc_count{name=\"messageGateway\",path=\"/openim.msggateway.msgGateway/KickUserOffline\",code=\"-1\"} 7",
            "rpc_count{name=\"messageGateway\",path=\"/openim.msggateway.msgGateway/KickUserOffline\",code=\"0\"} 0",
            "# EOF",
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line}\n{text}");
        }
        assert!(text.contains("pinion_build_info{version=\""), "{text}");
        let samples = text.lines().filter(|l| l.contains("shard=\"0\"")).count();
        let ours = DESCRIPTIONS.iter().filter(|(_, description)| description.kind != Kind::Upstream).count();
        assert_eq!(samples, ours);
        assert_eq!(text.lines().filter(|l| l.starts_with("rpc_count{")).count(), DESCRIPTIONS.len() - ours);
        let mut families: Vec<_> = text.lines().filter(|l| l.starts_with("# TYPE")).collect();
        let all = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), all, "a family is described twice");
    }
}
