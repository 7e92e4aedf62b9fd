//! Placement as others see it: Python computes the vectors that the library is tested against, and an operator sees
//! incident 2 on a fleet of OpenIM's.

use std::path::Path;
use std::process::Command;

use crate::harness::{pinion, run, texts};

#[test]
fn python_computes_the_same_homes() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/placement.py");
    let output =
        Command::new("python3").arg(script).output().expect("python3 is on this machine: ci.sh demands it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn route_diff_shows_incident_2_and_that_pinion_does_not_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let compare = |scheme: &str| {
        let [push, proxy] = [("push", "88"), ("proxy", "none")].map(|(side, port)| {
            let file = folder.path().join(side);
            let pods = format!("pods openimserver namespace=openim-lin replicas=2 port={port}");
            std::fs::write(&file, format!("placement {scheme}\n{pods}\n")).unwrap();
            file
        });
        let (code, out, err) =
            texts(&run(pinion(&["route", "diff", &push.to_string_lossy(), &proxy.to_string_lossy()])));
        assert_eq!(err, "");
        (code, out)
    };
    let (code, out) = compare("openim-ring");
    assert!(code == 1 && out.contains("37.6 % of user0 to user99999 differ"), "{code} {out}");
    let (code, out) = compare("rendezvous");
    assert!(code == 0 && out.contains("0.0 % of user0 to user99999 differ"), "{code} {out}");
}
