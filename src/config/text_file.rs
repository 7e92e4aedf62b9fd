//! Lists and rules that operators keep in files of their own.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::cluster::members::LineFault;

/// The text of a file of at most so many bytes.
///
/// # Errors
/// It cannot be read, or is larger; with its path, in words for the operator.
pub fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    contents(path, bytes_max).map_err(|why| format!("{}: {why}", path.display()))
}

/// As [`read`], for those who say themselves which file it is.
///
/// # Errors
/// Why not, without the path.
pub fn contents(path: &Path, bytes_max: u64) -> Result<String, String> {
    let said = |error: std::io::Error| error.to_string();
    let file = File::open(path).map_err(said)?;
    let bytes = file.metadata().map_err(said)?.len();
    let mut text = String::new();
    // Also where the size is not known before (a pipe, a file that grows): never more than one byte too many.
    let read = if bytes > bytes_max {
        bytes
    } else {
        let read = file.take(bytes_max.saturating_add(1)).read_to_string(&mut text).map_err(said)?;
        u64::try_from(read).unwrap_or(u64::MAX)
    };
    if read > bytes_max {
        return Err(format!("{read} bytes, at most {bytes_max} are read"));
    }
    Ok(text)
}

/// All that is wrong with a file, a line each.
pub fn told(path: &Path, faults: &[LineFault]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_most_bytes_is_read_and_one_of_more_is_not() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).as_deref(), Ok("12345"));
        let fault = read(&path, 4).unwrap_err();
        assert_eq!(fault, format!("{}: 5 bytes, at most 4 are read", path.display()));
        assert_eq!(contents(&path, 4).unwrap_err(), "5 bytes, at most 4 are read");
        assert!(contents(&folder.path().join("none"), 4).unwrap_err().contains("No such file"));
        // Says that it is empty, and is not.
        assert!(contents(Path::new("/proc/self/status"), 1).unwrap_err().starts_with("2 bytes, at most 1"));
    }
}
