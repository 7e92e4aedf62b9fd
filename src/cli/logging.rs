//! Logging to standard error through a bounded, lossy queue: a stalled terminal or pipe costs log lines, which are
//! counted, and never stops a shard.

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogConfig;
use crate::limits::LOG_LINES_MAX;

/// Keeps the log's writer thread; what is queued is written when this is dropped (within a bound).
pub(super) struct Logging {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

impl Logging {
    /// Starts it, once per process.
    ///
    /// # Errors
    /// A text for the operator.
    pub(super) fn start(config: &LogConfig) -> Result<Self, String> {
        let (lines, writer) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_LINES_MAX)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = lines.error_counter();
        let level: LevelFilter = config.level.parse().map_err(|e| format!("log.level: {e}"))?;
        // Libraries log their inner life at debug and trace; from them only what is wrong is of interest.
        let filter = Targets::new().with_target("pinion", level).with_default(level.min(LevelFilter::WARN));
        let layer = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(false);
        let layer = if config.json { layer.json().boxed() } else { layer.boxed() };
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init()
            .map_err(|e| e.to_string())?;
        Ok(Self { dropped, _writer: writer })
    }

    /// Counts the lines that were dropped.
    pub(super) fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }
}
