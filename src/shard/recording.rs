//! Writes the recording of a shard's inputs to its file (`record.mode`). A switch for finding faults, off by default:
//! the file is written by the shard itself, a tick's worth at a time, so a slow disk slows the shard.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::config::{Config, RecordMode};
use crate::hub::record::{Mode, Recorder};
use crate::hub::{Hub, HubConfig};
use crate::ids::ShardId;

/// An open recording.
#[derive(Debug)]
pub(super) struct Recording {
    file: File,
}

impl Recording {
    /// Starts recording if the configuration says so. `record.dir` must exist.
    ///
    /// # Errors
    /// The file cannot be created.
    pub(super) fn start(
        shard: ShardId,
        config: &Config,
        hub_config: &HubConfig,
        hub: &mut Hub,
    ) -> io::Result<Option<Self>> {
        let mode = match config.record.mode {
            RecordMode::Off => return Ok(None),
            RecordMode::Shape => Mode::Shape,
            RecordMode::Full => Mode::Full,
        };
        let path = config.record.dir.join(format!("shard{}.jsonl", shard.0));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600) // full recordings hold tokens and messages
            .open(&path)
            .map_err(|error| {
                io::Error::new(error.kind(), format!("record.dir: {}: {error}", path.display()))
            })?;
        hub.record(Recorder::new(mode, hub_config, config.record.bytes_max));
        Ok(Some(Self { file }))
    }

    /// Writes what was recorded since the last time. A full disk ends nothing but the recording's use.
    pub(super) fn write(&mut self, hub: &mut Hub) {
        if let Err(error) = self.file.write_all(&hub.take_recording()) {
            tracing::warn!(%error, "the recording could not be written");
        }
    }
}
