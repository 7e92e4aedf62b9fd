//! Lists and rules that operators keep in files of their own.

use std::path::Path;

use crate::cluster::members::LineFault;

/// The text of a file of at most so many bytes.
///
/// # Errors
/// It cannot be read, or is larger; with its path, in words for the operator.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let said = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = std::fs::metadata(path).map_err(said)?.len();
    if bytes > bytes_max {
        return Err(format!("{}: {bytes} bytes, at most {bytes_max} are read", path.display()));
    }
    std::fs::read_to_string(path).map_err(said)
}

/// All that is wrong with a file, a line each.
pub fn told(path: &Path, faults: &[LineFault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    lines.join("\n")
}
