//! Placement in another language: Python computes the vectors that the library is tested against.

use std::path::Path;
use std::process::Command;

#[test]
fn python_computes_the_same_homes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/placement.py");
    let output =
        Command::new("python3").arg(script).output().expect("python3 is on this machine, as ci.sh demands");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
