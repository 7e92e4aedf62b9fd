//! Which lines are logged: a level, and exceptions for parts of the program. The grammar is that of env-filter without
//! spans, of which this program has none: `info`, or `warn,pinion::rpc=debug,h2=info`.

use std::fmt;

/// Directives in one text. More: a fault.
const DIRECTIVES_MAX: usize = 64;

/// How severe a line is at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// No lines.
    Off,
    /// What is broken.
    Error,
    /// What an operator should look at.
    Warn,
    /// What happens to the node, and faults of clients.
    Info,
    /// What happens to each connection and call.
    Debug,
    /// Each step.
    Trace,
}

impl Level {
    const NAMES: [(&str, Self); 6] = [
        ("off", Self::Off),
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];

    fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, level)| *level)
    }
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// As it was written.
    pub text: String,
    /// Of this program's own lines.
    pub own: Level,
    /// The beginning of a module path, and the level of its lines; the longest that fits counts.
    pub exceptions: Vec<(String, Level)>,
}

/// A directive that means nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadDirective(String);

impl fmt::Display for BadDirective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is no log directive: write a level (off, error, warn, info, debug or trace), and behind it, joined \
             by commas, exceptions like pinion::rpc=debug",
            self.0
        )
    }
}

impl std::error::Error for BadDirective {}

impl Levels {
    /// Reads directives. Without a level of its own the program logs at `info`.
    ///
    /// # Errors
    /// The first directive that means nothing.
    pub fn parse(text: &str) -> Result<Self, BadDirective> {
        let mut levels = Self { text: text.to_owned(), own: Level::Info, exceptions: Vec::new() };
        for (n, directive) in text.split(',').enumerate() {
            let bad = || BadDirective(directive.to_owned());
            match directive.split_once('=') {
                _ if n >= DIRECTIVES_MAX => return Err(bad()),
                None => levels.own = Level::parse(directive).ok_or_else(bad)?,
                Some((target, level)) if is_target(target) => {
                    levels.exceptions.push((target.to_owned(), Level::parse(level).ok_or_else(bad)?));
                }
                Some(_) => return Err(bad()),
            }
        }
        Ok(levels)
    }
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_exceptions_are_read() {
        for (text, own, exceptions) in [
            ("info", Level::Info, &[][..]),
            ("off", Level::Off, &[]),
            ("pinion::rpc=debug", Level::Info, &[("pinion::rpc", Level::Debug)]),
            ("warn,h2=trace,a-b=off", Level::Warn, &[("h2", Level::Trace), ("a-b", Level::Off)]),
        ] {
            let levels = Levels::parse(text).unwrap();
            let found: Vec<_> = levels.exceptions.iter().map(|(target, l)| (target.as_str(), *l)).collect();
            assert_eq!((levels.own, &found[..]), (own, exceptions), "{text}");
        }
    }

    #[test]
    fn the_bad_directive_is_named() {
        let long = "a=info,".repeat(DIRECTIVES_MAX) + "b=info";
        for (text, bad) in [
            ("loud", "loud"),
            ("info,pinion::rpc=debg", "pinion::rpc=debg"),
            ("info,=debug", "=debug"),
            ("info,[span]=debug", "[span]=debug"),
            ("INFO", "INFO"),
            ("info, h2=debug", " h2=debug"),
            ("", ""),
            ("info,", ""),
            (&long, "b=info"),
        ] {
            let error = Levels::parse(text).unwrap_err();
            assert_eq!(error, BadDirective(bad.to_owned()), "{text}");
            assert!(error.to_string().starts_with(&format!("`{bad}` is no log directive")), "{error}");
        }
    }
}
