//! What is wrong with a configuration, in the words of the operator who has to mend it. All faults are shown at once.

use std::fmt;
use std::path::Path;

/// What the names of variables begin with that override OpenIM's files (spec 11.2).
pub(super) const OPENIM_ENV: &str = "IMENV_";

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Nobody set it, and it was worked out from the machine; says from what.
    Derived(String),
    /// `path:line` of the configuration file.
    File(String),
    /// `path:line key` of a file in OpenIM's configuration folder.
    Folder(String),
    /// The name of the environment variable.
    Env(String),
    /// The flag, with its dashes.
    Flag(String),
}

impl Origin {
    /// A place in the configuration file.
    pub fn file(path: &Path, line: usize) -> Self {
        Self::File(format!("{}:{line}", path.display()))
    }

    /// Whether an operator asked for it.
    pub fn is_given(&self) -> bool {
        !matches!(self, Self::Default | Self::Derived(_))
    }

    /// Whether it came from OpenIM's folder, or from a variable that overrides what stands there.
    pub fn is_openims(&self) -> bool {
        matches!(self, Self::Folder(_)) || matches!(self, Self::Env(name) if name.starts_with(OPENIM_ENV))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Derived(from) => write!(f, "default: {from}"),
            Self::File(place) => write!(f, "file {place}"),
            Self::Folder(place) => write!(f, "OpenIM's {place}"),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting as it was written, or what cannot be read.
    pub key: String,
    /// The value as it was written; `None` if the value is not the point.
    pub value: Option<String>,
    /// Who wrote it.
    pub origin: Origin,
    /// What was expected, or what to do.
    pub expected: String,
    /// A good value, or empty.
    pub example: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {}", self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value:?}")?;
        }
        write!(f, "  ({})\n      {}", self.origin, self.expected)?;
        if !self.example.is_empty() {
            write!(f, ", for example: {}", self.example)?;
        }
        Ok(())
    }
}

/// All that is wrong with a configuration; at least one fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => write!(f, "1 fault in the configuration:")?,
            n => write!(f, "{n} faults in the configuration:")?,
        }
        self.0.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

impl std::error::Error for Faults {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_shows_key_value_origin_expectation_and_example() {
        let fault = Fault {
            key: "websocket.port".into(),
            value: Some("99999".into()),
            origin: Origin::file(Path::new("p.yaml"), 3),
            expected: "expected a port".into(),
            example: "10001".into(),
        };
        let text = Faults(vec![fault.clone(), fault]).to_string();
        assert!(text.starts_with("2 faults in the configuration:\n"), "{text}");
        let one = "  websocket.port = \"99999\"  (file p.yaml:3)\n      expected a port, for example: 10001";
        assert_eq!(text.matches(one).count(), 2, "{text}");
    }
}
