//! Tests of OpenIM's folder, through `load`: `layouts` has what the three of them become and who wins, `refusals` what
//! is refused, noted and hidden.

mod layouts;
mod refusals;

use std::path::{Path, PathBuf};

use super::super::machine::Machine;
use super::super::{Faults, Loaded, Sources, load, setting};
use super::Interface;
use crate::time::UnixMs;

const PATCH16: &str = "patch16";
const MAIN: &str = "main";
const V35: &str = "v3.5";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/openim-config").join(name)
}

/// A copy of a fixture with texts replaced; an empty text stands for the whole file, which is removed.
fn edited(name: &str, edits: &[(&str, &str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap() {
        let file = file.unwrap();
        let mut text = std::fs::read_to_string(file.path()).unwrap();
        let edits = edits.iter().filter(|(name, ..)| file.file_name() == *name);
        let mut removed = false;
        for (_, from, to) in edits {
            assert!(text.contains(from), "{from:?} is not in {name}/{:?}", file.file_name());
            removed |= from.is_empty();
            text = text.replacen(from, to, 1);
        }
        if !removed {
            std::fs::write(folder.path().join(file.file_name()), text).unwrap();
        }
    }
    folder
}

fn sources(folder: &Path, env: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Sources {
    let mut all = Sources {
        env: env.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
        flags: flags.iter().map(|(k, v)| (*k, v.to_string())).collect(),
        ..Sources::default()
    };
    all.flags.push(("openim.config_dir", folder.display().to_string()));
    all
}

fn load_from(sources: &Sources) -> Result<Loaded, Faults> {
    let interface = Interface { address: [10, 9, 8, 7].into(), up: true, loopback: false };
    let machine =
        Machine { cpus: vec![0, 1], quota: None, files_max: 1_000_000, interfaces: vec![interface] };
    load(sources, &machine, UnixMs(0), || [1, 2])
}

fn load_folder(folder: &Path, flags: &[(&'static str, &str)]) -> Result<Loaded, Faults> {
    load_from(&sources(folder, &[], flags))
}

const POD: [(&str, &str); 3] = [
    ("MY_POD_NAME", "release-openim-msggateway-1"),
    ("MY_POD_NAMESPACE", "im"),
    ("MY_MSGGATEWAY_REPLICACOUNT", "2"),
];

/// Compares what is in force.
fn check(loaded: &Loaded, want: &[(&str, &str)]) {
    for (key, value) in want {
        assert_eq!(setting(key).unwrap().shown(&loaded.config), *value, "{key}, {}", loaded.origin(key));
    }
}
