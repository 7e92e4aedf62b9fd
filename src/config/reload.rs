//! What a new configuration changes in a running gateway, by key. Nothing is changed here (`node::reload` does it).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Config, Reload, SETTINGS, Setting, Visibility};

/// A setting with another value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// As in the file.
    pub key: String,
    /// The value before and the new one; `None`: a secret.
    pub values: Option<(String, String)>,
}

impl Change {
    /// The value before and the new one; `None`: a secret.
    pub fn values(&self) -> Option<(&str, &str)> {
        self.values.as_ref().map(|(old, new)| (old.as_str(), new.as_str()))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.values {
            Some((old, new)) => write!(f, "{}: {old:?} -> {new:?}", self.key),
            None => write!(f, "{}: (changed)", self.key),
        }
    }
}

/// What a reload did; also the answer of `/v1/reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// In force from now on.
    pub applied: Vec<Change>,
    /// Other than what the gateway was started with, and not in force before it is started again.
    pub pending: Vec<Change>,
    /// What works and is likely not what the operator wants.
    pub warnings: Vec<String>,
}

impl Changes {
    /// Compares `new` with what the gateway was started with, and with what was read last.
    pub fn between(started: &Config, last: &Config, new: &Config) -> Self {
        let changes = |reload, old| {
            let settings = SETTINGS.iter().filter(move |setting| setting.reload == reload);
            settings.filter_map(|setting| change(setting, old, new)).collect()
        };
        Self {
            applied: changes(Reload::Live, last),
            pending: changes(Reload::Restart, started),
            warnings: Vec::new(),
        }
    }
}

fn change(setting: &Setting, old: &Config, new: &Config) -> Option<Change> {
    let values = ((setting.show)(old), (setting.show)(new));
    let public = setting.visibility == Visibility::Public;
    (values.0 != values.1).then(|| Change { key: setting.key.to_owned(), values: public.then_some(values) })
}

#[cfg(test)]
mod tests {
    use super::super::settings::Draft;
    use super::*;

    fn config(texts: &[(&str, &str)]) -> Config {
        let mut draft = Draft::blank();
        for setting in SETTINGS {
            let given = texts.iter().find(|(key, _)| *key == setting.key);
            (setting.apply)(&mut draft, given.map_or(setting.default, |(_, text)| text)).unwrap();
        }
        draft.config
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        changes.iter().map(Change::to_string).collect()
    }

    #[test]
    fn what_counts_is_told_once_and_what_waits_each_time() {
        let started = config(&[]);
        let second = config(&[("login.policy", "4"), ("websocket.port", "7"), ("auth.secret", "s3cret")]);
        let changes = Changes::between(&started, &started, &second);
        assert_eq!(texts(&changes.applied), [r#"login.policy: "1" -> "4""#]);
        let pending = [r#"websocket.port: "10001" -> "7""#, "auth.secret: (changed)"];
        assert_eq!(texts(&changes.pending), pending);
        let again = Changes::between(&started, &second, &second);
        assert_eq!(
            (texts(&again.applied), texts(&again.pending)),
            (vec![], pending.map(str::to_owned).to_vec())
        );
        let back = Changes::between(&started, &second, &started);
        assert_eq!((back.applied.len(), back.pending.len()), (1, 0));
    }

    #[test]
    fn no_secret_is_shown() {
        let secrets: Vec<_> = SETTINGS.iter().filter(|s| s.visibility == Visibility::Secret).collect();
        assert!(!secrets.is_empty());
        for setting in secrets {
            let changes =
                Changes::between(&config(&[]), &config(&[]), &config(&[(setting.key, setting.example)]));
            let shown = texts(&[changes.applied, changes.pending].concat());
            if setting.key != "shards.owner_key" {
                assert_eq!(shown, [format!("{}: (changed)", setting.key)]);
            }
        }
    }
}
