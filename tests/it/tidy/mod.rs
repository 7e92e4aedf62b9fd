//! What the compiler and clippy cannot say about the source tree: the arrows between layers, sizes, names, and where
//! `unsafe`, atomics, `Arc`, monoio and blocking primitives may stand.
//!
//! The rules are in `rules.rs` and `layers.rs`, their exceptions in `exceptions.rs`, the proof that each rule fires in
//! `planted.rs`.

mod exceptions;
mod layers;
mod planted;
mod rules;
mod source;
mod traps;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use exceptions::{EXCEPTIONS, Exception};
use rules::Finding;
use source::Source;

/// Folders and files with Rust of ours, from the repository's root.
const ROOTS: &[&str] = &["src", "tests", "bench", "build.rs"];

#[test]
fn the_tree_keeps_its_rules() {
    let sources = tree();
    assert!(sources.len() > 20, "the tree was not found: {} files", sources.len());
    let left = unexcused(findings(&sources), &EXCEPTIONS);
    assert!(left.is_empty(), "\n{}\n", left.join("\n"));
}

/// Every finding of every rule.
fn findings(sources: &[Source]) -> Vec<Finding> {
    let mut findings = rules::check(sources);
    findings.extend(layers::check(sources));
    findings
}

/// What is left after the exceptions, and the exceptions whose count is wrong.
fn unexcused(findings: Vec<Finding>, exceptions: &[Exception]) -> Vec<String> {
    let mut by_place: BTreeMap<(&str, String), Vec<Finding>> = BTreeMap::new();
    for finding in findings {
        by_place.entry((finding.rule, finding.path.clone())).or_default().push(finding);
    }
    let mut left = Vec::new();
    for exception in exceptions {
        let found = by_place.remove(&(exception.rule, exception.path.to_owned())).unwrap_or_default();
        if found.len() != exception.count || exception.reason.is_empty() {
            left.push(format!(
                "exceptions.rs: {} in {} covers {} findings, there are {}",
                exception.rule,
                exception.path,
                exception.count,
                found.len()
            ));
            by_place.insert((exception.rule, exception.path.to_owned()), found);
        }
    }
    for finding in by_place.into_values().flatten() {
        left.push(format!("{}:{}: [{}] {}", finding.path, finding.line, finding.rule, finding.what));
    }
    left
}

fn tree() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for name in ROOTS {
        collect(root, &root.join(name), &mut sources);
    }
    source::mark_test_files(&mut sources);
    sources
}

/// Adds the Rust files under `path`, sorted; build output and installed packages are not ours.
fn collect(root: &Path, path: &Path, sources: &mut Vec<Source>) {
    if path.is_file() && path.extension().is_some_and(|e| e == "rs") {
        let name = path.strip_prefix(root).expect("it was found under the root");
        let text = fs::read_to_string(path).expect("a source file is readable UTF-8");
        sources.push(Source::new(&name.to_string_lossy(), &text));
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    let mut paths: Vec<_> = entries.map(|e| e.expect("a folder can be read").path()).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.starts_with("target") && name != "node_modules" {
            collect(root, &path, sources);
        }
    }
}
