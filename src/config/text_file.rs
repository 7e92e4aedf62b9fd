//! Lists and rules that operators keep in files of their own.

use std::path::Path;

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
