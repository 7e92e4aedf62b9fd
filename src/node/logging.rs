//! Logging to standard error through a bounded, lossy queue: a stalled terminal or pipe costs log lines, which are
//! counted, and never stops a shard.
//!
//! What is logged can change while the gateway runs. Whether a line is logged at all is then still one load of a number
//! that the compiler put beside it; only lines that are logged look at the filter, behind a lock that is held for
//! writing for as long as it takes to put another filter in its place.

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::config::LogConfig;
use crate::config::levels::{BadDirective, Level, Levels};
use crate::limits::LOG_LINES_MAX;

/// Keeps the log's writer thread; what is queued is written when this is dropped (within a bound).
pub struct Logging {
    dropped: ErrorCounter,
    levels: LogLevels,
    _writer: WorkerGuard,
}

impl Logging {
    /// Starts it, once per process.
    ///
    /// # Errors
    /// A text for the operator.
    pub fn start(config: &LogConfig) -> Result<Self, String> {
        let (lines, writer) = NonBlockingBuilder::default()
            .buffered_lines_limit(LOG_LINES_MAX)
            .lossy(true)
            .thread_name("log")
            .finish(std::io::stderr());
        let dropped = lines.error_counter();
        let levels = Levels::parse(&config.level).map_err(|bad| format!("log.level: {bad}"))?;
        let (filter, handle) = reload::Layer::new(targets(&levels));
        let layer = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(false);
        let layer = if config.json { layer.json().boxed() } else { layer.boxed() };
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init()
            .map_err(|e| e.to_string())?;
        let levels = LogLevels { text: levels.text, handle };
        Ok(Self { dropped, levels, _writer: writer })
    }

    /// Counts the lines that were dropped.
    pub(super) fn dropped(&self) -> ErrorCounter {
        self.dropped.clone()
    }

    /// What changes the levels.
    pub(super) fn levels(&self) -> LogLevels {
        self.levels.clone()
    }
}

/// Which lines are logged, and the way to change it.
#[derive(Clone)]
pub(super) struct LogLevels {
    text: String,
    handle: reload::Handle<Targets, Registry>,
}

impl LogLevels {
    /// As directives.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Logs by other directives from now on.
    ///
    /// # Errors
    /// A directive means nothing; all is as before.
    pub(super) fn set(&mut self, text: &str) -> Result<(), BadDirective> {
        let levels = Levels::parse(text)?;
        match self.handle.reload(targets(&levels)) {
            Ok(()) => self.text = levels.text,
            // The subscriber is the process's own and lives as long.
            Err(error) => tracing::error!(%error, "the log levels could not be changed"),
        }
        Ok(())
    }
}

/// Libraries log their inner life at debug and trace; unless they are named, only what is wrong is of interest.
fn targets(levels: &Levels) -> Targets {
    let own = filter(levels.own);
    let exceptions = levels.exceptions.iter().map(|(target, level)| (target.clone(), filter(*level)));
    Targets::new()
        .with_target("pinion", own)
        .with_default(own.min(LevelFilter::WARN))
        .with_targets(exceptions)
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn the_longest_exception_counts_and_libraries_are_kept_short() {
        let targets =
            targets(&Levels::parse("debug,pinion::rpc=off,pinion::rpc::gate=trace,h2=info").unwrap());
        for (target, level, logged) in [
            ("pinion::shard", Level::DEBUG, true),
            ("pinion::shard", Level::TRACE, false),
            ("pinion::rpc::call", Level::ERROR, false),
            ("pinion::rpc::gate", Level::TRACE, true),
            ("h2::codec", Level::INFO, true),
            ("h2::codec", Level::DEBUG, false),
            ("rustls", Level::WARN, true),
            ("rustls", Level::INFO, false),
        ] {
            assert_eq!(targets.would_enable(target, &level), logged, "{target} {level}");
        }
        let off = super::targets(&Levels::parse("off").unwrap());
        assert!(!off.would_enable("rustls", &Level::ERROR));
    }
}
