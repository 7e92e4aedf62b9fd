//! Makes the faulty copies of the doorbell: one for each line that the protocol cannot do without.

use std::{env, fs, path::Path};

/// Name of the copy, the mark of the line, and what stands there instead.
const MUTANTS: [(&str, &str, &str); 3] = [
    ("sender_fence_removed", "// loom: sender fence", ""),
    ("reader_fence_removed", "// loom: reader fence", ""),
    ("recheck_removed", "// loom: re-check", "let (empty, _) = (true, queues);"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../src/shard/doorbell.rs");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", source.display());
    let text = fs::read_to_string(source)?;
    let out = env::var("OUT_DIR")?;
    let mut modules = String::new();
    for (name, mark, instead) in MUTANTS {
        let hits = text.lines().filter(|line| line.ends_with(mark)).count();
        assert_eq!(
            hits, 1,
            "doorbell.rs has {hits} lines that end in `{mark}`; the mutant {name} needs exactly one"
        );
        let swap = |line| if str::ends_with(line, mark) { instead } else { line };
        let mutant: Vec<&str> = text.lines().map(swap).collect();
        let file = Path::new(&out).join(format!("{name}.rs"));
        fs::write(&file, mutant.join("\n"))?;
        modules += &format!("#[path = {:?}]\npub mod {name};\n", file.display().to_string());
    }
    fs::write(Path::new(&out).join("mutants.rs"), modules)?;
    Ok(())
}
