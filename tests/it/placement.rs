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

/// The table of spec 10.4, by the command that shows it on an existing fleet; pinned numbers of OpenIM's own ring.
/// Spec trap 33: rings of other strings, or of another number of members, send users elsewhere.
#[test]
fn route_diff_shows_incident_2_and_that_pinion_does_not_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let compare = |scheme: &str, replicas: u32| {
        let [push, proxy] = [("push", "88"), ("proxy", "none")].map(|(side, port)| {
            let file = folder.path().join(side);
            let pods = format!("pods openimserver namespace=openim-lin replicas={replicas} port={port}");
            std::fs::write(&file, format!("placement {scheme}\n{pods}\n")).unwrap();
            file
        });
        let (code, out, err) =
            texts(&run(pinion(&["route", "diff", &push.to_string_lossy(), &proxy.to_string_lossy()])));
        assert_eq!(err, "");
        (code, out)
    };
    for (replicas, percent) in [(1, "0.0"), (2, "37.6"), (3, "66.8"), (5, "78.6"), (10, "90.2")] {
        let (code, out) = compare("openim-ring", replicas);
        let said = format!("{percent} % of user0 to user99999 differ");
        assert!(code == i32::from(replicas > 1) && out.contains(&said), "{replicas}: {code} {out}");
        assert!(
            out.contains("hashed with a port on one side only: A openimserver-openim-msggateway-0."),
            "{out}"
        );
        let (code, out) = compare("rendezvous", replicas);
        assert!(code == 0 && out.contains("0.0 % of user0 to user99999 differ"), "{replicas}: {code} {out}");
    }
}
