//! Where the texts of settings come from: file, environment, flags, and OpenIM's folder below all of them. Collects
//! them by key and finds what nobody knows. Judges no value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cluster_checks::POD_NAME_ENV;
use super::fault::{Fault, OPENIM_ENV, Origin};
use super::openim::folder::{self, Surroundings};
use super::openim::{NAMESPACE_ENV, POD_ENV, REPLICAS_ENV, SERVICE_ACCOUNT};
use super::settings::{SETTINGS, setting};
use super::yaml::{self, Grammar};
use crate::limits::CONFIG_FILE_BYTES;

/// The variable that names the configuration file, as `--config` does.
pub const CONFIG_ENV: &str = "PINION_CONFIG";

/// What this process was started with, as plain data.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// From `--config` or [`CONFIG_ENV`].
    pub file: Option<PathBuf>,
    /// All variables whose name begins with `PINION_` or `IMENV_`, the three `MY_*` ones of OpenIM 3.5, and `POD_NAME`.
    pub env: Vec<(String, String)>,
    /// Key and text of each flag that was given.
    pub flags: Vec<(&'static str, String)>,
    /// Whether this process runs in a pod of Kubernetes.
    pub in_pod: bool,
}

/// What begins the names of our own variables.
const OWN_ENV: &str = "PINION_";

impl Sources {
    /// The environment of this process, and no file or flags.
    pub fn from_env() -> Self {
        let env: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| {
                let name = name.into_string().ok()?;
                let ours = [OWN_ENV, OPENIM_ENV].iter().any(|prefix| name.starts_with(prefix))
                    || [POD_ENV, POD_NAME_ENV, NAMESPACE_ENV, REPLICAS_ENV].contains(&name.as_str());
                ours.then(|| (name, value.to_string_lossy().into_owned()))
            })
            .collect();
        let file = env.iter().find(|(name, _)| name == CONFIG_ENV);
        let file = file.map(|(_, path)| PathBuf::from(path));
        Self { file, env, flags: Vec::new(), in_pod: Path::new(SERVICE_ACCOUNT).is_dir() }
    }
}

/// Texts by key, each with its origin.
pub(super) type Given = BTreeMap<&'static str, (String, Origin)>;

/// What was collected.
pub(super) struct Collected {
    /// What is in force, as text.
    pub(super) texts: Given,
    /// What OpenIM's folder says that does not count.
    pub(super) notes: Vec<String>,
}

/// Collects everything: flags over environment over file over OpenIM's folder. Faults are appended to `faults`.
pub(super) fn collect(sources: &Sources, faults: &mut Vec<Fault>) -> Collected {
    let mut texts = own(sources, faults);
    let mut notes = Vec::new();
    if let Some((folder, asked)) = texts.get("openim.config_dir").filter(|(folder, _)| !folder.is_empty()) {
        let around = Surroundings { env: &sources.env, in_pod: sources.in_pod };
        let found = folder::read(Path::new(folder), asked, &texts, &around);
        faults.extend(found.faults);
        notes = found.notes;
        let weaker = found.texts;
        texts.extend(weaker);
    }
    Collected { texts, notes }
}

/// Without OpenIM's folder.
fn own(sources: &Sources, faults: &mut Vec<Fault>) -> Given {
    let mut given = Given::new();
    if let Some(path) = &sources.file {
        from_file(path, &mut given, faults);
    }
    for (name, text) in sources.env.iter().filter(|(name, _)| name.starts_with(OWN_ENV)) {
        if let Some(setting) = SETTINGS.iter().find(|s| s.env_name() == *name) {
            if !is_service_link(name, text) {
                given.insert(setting.key, (text.clone(), Origin::Env(name.clone())));
            }
        } else if !is_foreign(name, text) {
            let known = SETTINGS.iter().map(|s| s.env_name());
            faults.push(unknown(name, Origin::Env(name.clone()), known));
        }
    }
    for (key, text) in &sources.flags {
        if let Some(setting) = setting(key) {
            let flag = Origin::Flag(format!("--{}", setting.flag_name()));
            given.insert(setting.key, (text.clone(), flag));
        }
    }
    given
}

fn from_file(path: &Path, given: &mut Given, faults: &mut Vec<Fault>) {
    let entries = match read(path, Grammar::Own) {
        Ok(entries) => entries,
        Err(fault) => return faults.push(*fault),
    };
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let origin = Origin::file(path, entry.line);
        if let Some(first) = lines.insert(entry.key.clone(), entry.line) {
            faults.push(Fault {
                key: entry.key,
                value: None,
                origin,
                expected: format!("set twice, first in line {first}; keep one"),
                example: String::new(),
            });
        } else if let Some(setting) = setting(&entry.key) {
            given.insert(setting.key, (entry.text, origin));
        } else if let Some(fault) = misplaced(&entry, &origin) {
            faults.push(fault);
        } else {
            let known = SETTINGS.iter().map(|s| s.key.to_owned());
            faults.push(unknown(&entry.key, origin, known));
        }
    }
}

/// A section that was given a value. An empty section (`websocket:` with everything below commented out) is no fault.
fn misplaced(entry: &yaml::Entry, origin: &Origin) -> Option<Fault> {
    let inside = format!("{}.", entry.key);
    let keys: Vec<_> = SETTINGS.iter().map(|s| s.key).filter(|k| k.starts_with(&inside)).collect();
    let example = keys.first()?;
    if entry.text.is_empty() {
        return None;
    }
    Some(Fault {
        key: entry.key.clone(),
        value: Some(entry.text.clone()),
        origin: origin.clone(),
        expected: format!("this is a section; its settings are {}", keys.join(", ")),
        example: format!("{example}: {}", setting(example)?.example),
    })
}

/// Reads a file of settings, within a bound.
pub(super) fn read(path: &Path, grammar: Grammar) -> Result<Vec<yaml::Entry>, Box<Fault>> {
    let fault = |origin, expected| {
        Box::new(Fault {
            key: "configuration file".into(),
            value: Some(path.display().to_string()),
            origin,
            expected,
            example: String::new(),
        })
    };
    let whole = Origin::File(path.display().to_string());
    let text = std::fs::read(path).map_err(|e| fault(whole.clone(), format!("cannot be read: {e}")))?;
    if text.len() > CONFIG_FILE_BYTES {
        return Err(fault(whole, format!("larger than {CONFIG_FILE_BYTES} bytes")));
    }
    let text = String::from_utf8(text).map_err(|_| fault(whole, "not UTF-8".into()))?;
    yaml::entries(&text, grammar).map_err(|e| fault(Origin::file(path, e.line), e.problem))
}

/// Variables that begin like ours and are not meant for us.
fn is_foreign(name: &str, text: &str) -> bool {
    // What build.rs records is handed on to the program by `cargo run` and `cargo test`.
    const BUILD: [&str; 4] = ["PINION_COMMIT", "PINION_RUSTC", "PINION_PROFILE", "PINION_TARGET"];
    name == CONFIG_ENV
        || BUILD.contains(&name)
        || name.starts_with("PINION_TEST_")
        || is_service_link(name, text)
}

/// Kubernetes puts the addresses of all services into the environment of a pod, so a service named `pinion` gives
/// `PINION_SERVICE_HOST` and others, and one named `pinion-websocket` even `PINION_WEBSOCKET_PORT=tcp://...`.
fn is_service_link(name: &str, text: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme))
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || ["_TCP_", "_UDP_", "_SCTP_"].iter().any(|protocol| {
            name.split_once(protocol)
                .and_then(|(before, _)| before.rsplit_once("_PORT_"))
                .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        })
}

fn unknown(name: &str, origin: Origin, known: impl Iterator<Item = String>) -> Fault {
    let nearest = known
        .map(|k| (strsim::jaro_winkler(&k.to_lowercase(), &name.to_lowercase()), k))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    Fault {
        key: name.to_owned(),
        value: None,
        origin,
        expected: match nearest {
            Some((_, nearest)) => format!("unknown setting; did you mean {nearest}?"),
            None => "unknown setting; `pinion --print-config` lists all".into(),
        },
        example: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_and_cargo_are_not_ours() {
        for (name, text, foreign) in [
            ("PINION_SERVICE_HOST", "10.0.0.1", true),
            ("PINION_SERVICE_PORT_WEBSOCKET", "10001", true),
            ("PINION_PORT", "tcp://10.0.0.1:10001", true),
            ("PINION_PORT_10001_TCP", "tcp://10.0.0.1:10001", true),
            ("PINION_PORT_10001_TCP_ADDR", "10.0.0.1", true),
            ("PINION_GATEWAY_PORT_10001_TCP_PORT", "10001", true),
            ("PINION_COMMIT", "abc", true),
            ("PINION_TEST_DRIVER", "epoll", true),
            ("PINION_WEBSOCKET_PROT", "1", false),
            ("PINION_PORT", "10001", false),
            ("PINION_", "", false),
        ] {
            assert_eq!(is_foreign(name, text), foreign, "{name}={text}");
        }
    }

    #[test]
    fn a_service_named_like_a_setting_does_not_set_it() {
        let sources = Sources {
            env: vec![("PINION_WEBSOCKET_PORT".into(), "tcp://10.0.0.1:10001".into())],
            ..Sources::default()
        };
        let mut faults = Vec::new();
        assert!(collect(&sources, &mut faults).texts.is_empty() && faults.is_empty());
    }

    #[test]
    fn a_typing_error_gets_a_suggestion() {
        for (name, want) in [
            ("websocket.prot", "did you mean websocket.port?"),
            ("websokcet.port", "did you mean websocket.port?"),
            ("auth.secrets", "did you mean auth.secret?"),
            ("zzz", "lists all"),
        ] {
            let known = SETTINGS.iter().map(|s| s.key.to_owned());
            let fault = unknown(name, Origin::Default, known);
            assert!(fault.expected.contains(want), "{name}: {}", fault.expected);
        }
    }
}
