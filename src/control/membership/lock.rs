//! The file that keeps a second process from this node's name on this host (A2), and that remembers its last life.
//!
//! The kernel frees the lock when the process ends, however it ends. The file stays.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek as _, Write as _};
use std::path::Path;

use crate::limits::LOCK_FILE_BYTES;
use crate::placement::view::{Incarnation, NodeId};
use crate::time::UnixMs;

/// The lock; kept until the process ends.
#[derive(Debug)]
pub struct LockFile {
    /// Held for its lock.
    _file: File,
    incarnation: Incarnation,
}

impl LockFile {
    /// Takes the lock and writes down who has it.
    ///
    /// # Errors
    /// Another process has it (who, as the file says), or the file cannot be written; in words for the operator.
    pub fn take(path: &Path, node_id: &NodeId, now: UnixMs) -> Result<Self, String> {
        let fault = |what: &str| format!("cluster.lock_file {}: {what}", path.display());
        let io = |error: std::io::Error| fault(&error.to_string());
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let locked = file.try_lock();
        let mut said = String::new();
        if let Err(error) = Read::by_ref(&mut file).take(LOCK_FILE_BYTES).read_to_string(&mut said) {
            return Err(io(error));
        }
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let who = if said.trim().is_empty() { "another process" } else { said.trim() };
                return Err(fault(&format!(
                    "held by {who}; two processes must not run under one cluster.node_id: end the other first, or give \
                     this one a name and a lock file of its own"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let incarnation = later(said.trim(), now);
        file.set_len(0).and_then(|()| file.rewind()).map_err(io)?;
        let pid = std::process::id();
        writeln!(file, "{node_id}, process {pid}, incarnation {incarnation}").map_err(io)?;
        file.sync_all().map_err(io)?;
        Ok(Self { _file: file, incarnation })
    }

    /// This life: the time in milliseconds, and later than the last one that the file knew, whatever the clock says.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }
}

/// The life after the one that the file names.
fn later(said: &str, now: UnixMs) -> Incarnation {
    let last = said.rsplit(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    Incarnation(u64::try_from(now.0).unwrap_or(0).max(last.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_is_told_who_has_the_name() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("gw-0.lock");
        let gw = NodeId::new("gw-0").unwrap();
        let first = LockFile::take(&path, &gw, UnixMs(1_000)).unwrap();
        assert_eq!(first.incarnation(), Incarnation(1_000));
        let fault = LockFile::take(&path, &gw, UnixMs(2_000)).unwrap_err();
        let who = format!("held by gw-0, process {}, incarnation 1000;", std::process::id());
        assert!(fault.contains(&who) && fault.starts_with("cluster.lock_file "), "{fault}");
        drop(first);
        // The clock was set back: the life is later all the same.
        let second = LockFile::take(&path, &gw, UnixMs(500)).unwrap();
        assert_eq!(second.incarnation(), Incarnation(1_001));
        drop(second);
        std::fs::write(&path, "garbage").unwrap();
        assert_eq!(LockFile::take(&path, &gw, UnixMs(7)).unwrap().incarnation(), Incarnation(7));
        let fault = LockFile::take(&folder.path().join("no/where"), &gw, UnixMs(7)).unwrap_err();
        assert!(fault.contains("No such file"), "{fault}");
    }
}
