//! Each trap of section 13 of the wire specification that is named here has a test that says so, as "spec trap" and its
//! number: in Rust, or in the suites of real clients.

use std::fs;
use std::path::Path;

use super::tree;

/// Multi-login and presence, etcd's values, dead settings, ports, rings, proxies.
const TRAPS: [u8; 14] = [25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38];
/// The suites of real clients, which are Python.
const SUITES: &str = "tests/clients";

#[test]
fn each_trap_has_a_test() {
    let mut texts: Vec<String> = Vec::new();
    for source in tree() {
        let places = source.text.match_indices("pec trap ");
        texts.extend(places.filter(|(at, _)| source.in_test(*at)).map(|(at, _)| named(&source.text[at..])));
    }
    let suites = Path::new(env!("CARGO_MANIFEST_DIR")).join(SUITES);
    for entry in fs::read_dir(suites).expect("the suites are there") {
        let path = entry.expect("a folder can be read").path();
        if path.extension().is_some_and(|e| e == "py") {
            let text = fs::read_to_string(path).expect("a source file is readable UTF-8");
            texts.extend(text.match_indices("pec trap ").map(|(at, _)| named(&text[at..])));
        }
    }
    let missing: Vec<u8> = TRAPS.into_iter().filter(|trap| !texts.contains(&trap.to_string())).collect();
    assert!(missing.is_empty(), "no test says that it is about trap {missing:?}");
}

/// The number behind the words.
fn named(text: &str) -> String {
    text.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect()
}
