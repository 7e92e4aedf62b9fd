//! The files of OpenIM's configuration folder as texts by file and key, with `IMENV_` variables in place of what they
//! override (spec 11.2). What the keys mean is not known here.
//!
//! Keys are compared without regard to case, as OpenIM does.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::fault::{Fault, OPENIM_ENV, Origin};
use super::super::yaml::Grammar;
use super::super::{sources, yaml};

/// A file of the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum File {
    /// openim-msggateway.yml.
    Gateway,
    /// share.yml.
    Share,
    /// discovery.yml.
    Discovery,
    /// redis.yml.
    Redis,
    /// webhooks.yml.
    Webhooks,
    /// log.yml.
    Log,
    /// config.yaml, the one file of OpenIM 3.5.
    Whole,
}

impl File {
    /// The files of OpenIM from 3.7 on.
    pub(super) const SPLIT: [Self; 6] =
        [Self::Gateway, Self::Share, Self::Discovery, Self::Redis, Self::Webhooks, Self::Log];

    /// Its name in the folder.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "openim-msggateway.yml",
            Self::Share => "share.yml",
            Self::Discovery => "discovery.yml",
            Self::Redis => "redis.yml",
            Self::Webhooks => "webhooks.yml",
            Self::Log => "log.yml",
            Self::Whole => "config.yaml",
        }
    }

    /// What the variables begin with that override its keys. OpenIM 3.5 has none of that form.
    fn env_prefix(self) -> Option<String> {
        let (stem, _) = self.name().split_once('.')?;
        (self != Self::Whole).then(|| format!("{OPENIM_ENV}{}_", env_part(stem)))
    }
}

fn env_part(name: &str) -> String {
    name.to_uppercase().replace(['.', '-'], "_")
}

/// One key of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// As the file writes it.
    pub(super) key: String,
    /// The items of a list are joined by commas; nothing and null are empty.
    pub(super) text: String,
    /// The file, or the variable.
    pub(super) origin: Origin,
}

/// All that was read.
#[derive(Debug, Default)]
pub(super) struct Values {
    by_key: BTreeMap<(File, String), Value>,
}

impl Values {
    /// The value of a key, in any case.
    pub(super) fn get(&self, file: File, key: &str) -> Option<&Value> {
        self.by_key.get(&(file, key.to_lowercase()))
    }

    /// All values of a file, by key.
    pub(super) fn of(&self, file: File) -> impl Iterator<Item = &Value> {
        self.by_key.iter().filter(move |((f, _), _)| *f == file).map(|(_, value)| value)
    }

    /// Reads one file of the folder.
    ///
    /// # Errors
    /// Why it cannot be read, or a key that stands there twice.
    pub(super) fn read(&mut self, folder: &Path, file: File) -> Result<(), Box<Fault>> {
        let path = folder.join(file.name());
        for yaml::Entry { key, text, line } in sources::read(&path, Grammar::Foreign)? {
            let origin = Origin::Folder(format!("{}:{line} {key}", path.display()));
            let text = if matches!(text.as_str(), "~" | "null") { String::new() } else { text };
            let value = Value { key, text, origin };
            if let Some(first) = self.by_key.insert((file, value.key.to_lowercase()), value.clone()) {
                return Err(Box::new(Fault {
                    key: value.key,
                    value: None,
                    origin: value.origin,
                    expected: format!("set twice, first in {}; keep one", first.origin),
                    example: String::new(),
                }));
            }
        }
        Ok(())
    }

    /// Puts the variables in the place of what they override. Gives the names of those that override nothing although
    /// they begin like one of the files read.
    pub(super) fn override_by(&mut self, env: &[(String, String)]) -> Vec<String> {
        let mut idle = Vec::new();
        for (name, text) in env {
            let prefix = |file: &File| file.env_prefix().filter(|prefix| name.starts_with(prefix));
            let Some((file, prefix)) = File::SPLIT.iter().find_map(|f| prefix(f).map(|p| (*f, p))) else {
                continue;
            };
            let rest = &name[prefix.len()..];
            let overridden = self.by_key.iter_mut().find(|((f, k), _)| *f == file && env_part(k) == rest);
            match overridden {
                Some((_, value)) => {
                    value.text = text.trim().to_owned();
                    value.origin = Origin::Env(name.clone());
                }
                None => idle.push(name.clone()),
            }
        }
        idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(file: File, text: &str) -> Result<Values, Box<Fault>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(file.name()), text).unwrap();
        let mut values = Values::default();
        values.read(folder.path(), file).map(|()| values)
    }

    #[test]
    fn keys_are_found_in_any_case_and_name_their_line() {
        let values =
            values(File::Share, "secret: s\nmultiLogin:\n  policy: 1\n  none: ~\nlist: [a, b]\n").unwrap();
        let policy = values.get(File::Share, "MULTILOGIN.Policy").unwrap();
        assert_eq!((policy.key.as_str(), policy.text.as_str()), ("multiLogin.policy", "1"));
        assert!(policy.origin.to_string().ends_with("/share.yml:3 multiLogin.policy"), "{}", policy.origin);
        assert_eq!(values.get(File::Share, "multilogin.none").unwrap().text, "");
        assert_eq!(values.get(File::Share, "list").unwrap().text, "a,b");
        assert_eq!(values.get(File::Redis, "secret"), None);
        assert_eq!(values.of(File::Share).count(), 4);
    }

    #[test]
    fn variables_override_keys_that_are_there() {
        let text = "rpc:\n  registerIP: ''\nlongConnSvr:\n  ports: [10001]\n";
        let mut values = values(File::Gateway, text).unwrap();
        let env = [
            ("IMENV_OPENIM_MSGGATEWAY_RPC_REGISTERIP", " 10.0.0.9 "),
            ("IMENV_OPENIM_MSGGATEWAY_RPC_PORTS", "1"),
            ("IMENV_KAFKA_ADDRESS", "kafka:9092"),
            ("PINION_LOG_LEVEL", "info"),
        ]
        .map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(values.override_by(&env), ["IMENV_OPENIM_MSGGATEWAY_RPC_PORTS"]);
        let ip = values.get(File::Gateway, "rpc.registerIP").unwrap();
        assert_eq!(ip.text, "10.0.0.9");
        assert_eq!(ip.origin, Origin::Env("IMENV_OPENIM_MSGGATEWAY_RPC_REGISTERIP".into()));
        assert_eq!(values.get(File::Gateway, "rpc.ports"), None);
        assert_eq!(values.get(File::Gateway, "longConnSvr.ports").unwrap().text, "10001");
    }

    #[test]
    fn a_key_that_stands_there_twice_is_a_fault() {
        let fault = values(File::Log, "isJson: true\nisjson: false\n").unwrap_err();
        assert!(fault.origin.to_string().contains("log.yml:2"), "{fault}");
        assert!(fault.expected.contains("log.yml:1 isJson"), "{fault}");
    }
}
