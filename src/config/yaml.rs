//! The configuration file: YAML to a flat list of settings, each with its line. What the settings mean is not
//! known here.
//!
//! Accepted: one document that is a mapping of scalars, of lists of scalars, and of mappings of those. `a: {b: 1}` and
//! `a.b: 1` are the same. Anchors, aliases and tags are refused: a configuration has no need of them. Files of others
//! may have anchors, tags and lists of anything: what a list holds besides plain values is passed over.

use saphyr_parser::{Event, Parser};

use crate::limits::{CONFIG_DEPTH_MAX, CONFIG_ENTRIES_MAX};

/// One setting as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// With dots between the levels.
    pub(super) key: String,
    /// As written; the items of a list are joined by commas.
    pub(super) text: String,
    /// Counted from 1.
    pub(super) line: usize,
}

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grammar {
    /// Ours: all of it must be understood.
    Own,
    /// OpenIM's: it may say more than we read.
    Foreign,
}

/// Why the file cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SyntaxFault {
    /// What is wrong.
    pub(super) problem: String,
    /// Counted from 1.
    pub(super) line: usize,
}

/// What encloses the next event.
enum Open {
    /// A mapping; the key whose value comes next, if it has been read.
    Mapping { key: Option<String> },
    /// A list: the items so far.
    List { items: Vec<String>, line: usize },
}

/// Reads the file's text. Entries come in the order of the file, duplicates kept.
pub(super) fn entries(text: &str, grammar: Grammar) -> Result<Vec<Entry>, SyntaxFault> {
    let mut reader = Reader { grammar, open: Vec::new(), entries: Vec::new(), documents: 0, passed_over: 0 };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| SyntaxFault {
            problem: format!("not YAML: {}", e.info()),
            line: e.marker().line(),
        })?;
        let line = span.start.line();
        reader.take(event, line).map_err(|problem| SyntaxFault { problem, line })?;
        if reader.entries.len() > CONFIG_ENTRIES_MAX {
            let problem = format!("more than {CONFIG_ENTRIES_MAX} settings");
            return Err(SyntaxFault { problem, line });
        }
    }
    Ok(reader.entries)
}

struct Reader {
    grammar: Grammar,
    open: Vec<Open>,
    entries: Vec<Entry>,
    documents: usize,
    /// Levels open inside what is passed over.
    passed_over: usize,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        let starts = matches!(event, Event::MappingStart(..) | Event::SequenceStart(..));
        let in_list = matches!(self.open.last(), Some(Open::List { .. })) && self.grammar == Grammar::Foreign;
        if self.passed_over > 0 || (in_list && starts) {
            self.passed_over += usize::from(starts);
            self.passed_over -= usize::from(matches!(event, Event::MappingEnd | Event::SequenceEnd));
            return Ok(());
        }
        let foreign = self.grammar == Grammar::Foreign;
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err("a second document; the configuration is one document".into());
                }
            }
            Event::Scalar(text, _, anchor, tag) if foreign || (anchor == 0 && tag.is_none()) => {
                self.scalar(&text, line)?
            }
            Event::MappingStart(anchor, tag) if foreign || (anchor == 0 && tag.is_none()) => {
                self.enter(Open::Mapping { key: None })?;
            }
            Event::SequenceStart(anchor, tag) if foreign || (anchor == 0 && tag.is_none()) => {
                self.enter(Open::List { items: Vec::new(), line })?
            }
            Event::MappingEnd => {
                self.open.pop();
                self.value_is_complete();
            }
            Event::SequenceEnd => {
                if let Some(Open::List { items, line }) = self.open.pop() {
                    self.entry(items.join(","), line);
                    self.value_is_complete();
                }
            }
            Event::Alias(_) | Event::Scalar(..) | Event::MappingStart(..) | Event::SequenceStart(..) => {
                return Err("anchors, aliases and tags are not accepted".into());
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn scalar(&mut self, text: &str, line: usize) -> Result<(), String> {
        match self.open.last_mut() {
            // An empty file is a scalar without text.
            None if text.is_empty() || text == "~" => Ok(()),
            None => Err("expected settings like `websocket: {port: 10001}`".into()),
            Some(Open::List { items, .. }) => {
                items.push(text.to_owned());
                Ok(())
            }
            Some(Open::Mapping { key: key @ None }) => {
                *key = Some(text.to_owned());
                Ok(())
            }
            Some(Open::Mapping { key: Some(_) }) => {
                self.entry(text.to_owned(), line);
                self.value_is_complete();
                Ok(())
            }
        }
    }

    fn enter(&mut self, level: Open) -> Result<(), String> {
        match (self.open.last(), &level) {
            (None, Open::List { .. }) => return Err("expected settings, found a list".into()),
            (Some(Open::List { .. }), _) => return Err("a list holds plain values only".into()),
            (Some(Open::Mapping { key: None }), _) => return Err("a key must be a plain word".into()),
            _ if self.open.len() >= CONFIG_DEPTH_MAX => return Err("nested too deeply".into()),
            _ => self.open.push(level),
        }
        Ok(())
    }

    fn entry(&mut self, text: String, line: usize) {
        let levels = self.open.iter().filter_map(|level| match level {
            Open::Mapping { key } => key.as_deref(),
            Open::List { .. } => None,
        });
        let key = levels.collect::<Vec<_>>().join(".");
        self.entries.push(Entry { key, text, line });
    }

    fn value_is_complete(&mut self) {
        if let Some(Open::Mapping { key }) = self.open.last_mut() {
            *key = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: &[(&str, &str, usize)]) {
        check_as(Grammar::Own, text, want);
        check_as(Grammar::Foreign, text, want);
    }

    fn check_as(grammar: Grammar, text: &str, want: &[(&str, &str, usize)]) {
        let got = entries(text, grammar).unwrap();
        let got: Vec<_> = got.iter().map(|e| (e.key.as_str(), e.text.as_str(), e.line)).collect();
        assert_eq!(got, want, "{text:?}");
    }

    #[test]
    fn levels_are_joined_by_dots_and_lines_are_kept() {
        check("", &[]);
        check("# nothing\n", &[]);
        check("a: 1\n", &[("a", "1", 1)]);
        check(
            "# head\nwebsocket:\n  port: 10001 # why\n  address: \"::\"\nlog.level: info\n",
            &[("websocket.port", "10001", 3), ("websocket.address", "::", 4), ("log.level", "info", 5)],
        );
        check("auth:\n  admin_users: [a, b]\n", &[("auth.admin_users", "a,b", 2)]);
        check("auth:\n  admin_users:\n    - a\n", &[("auth.admin_users", "a", 3)]);
        check("{a: {b: 1, c: 2}}", &[("a.b", "1", 1), ("a.c", "2", 1)]);
        check("a: 1\na: 2\n", &[("a", "1", 1), ("a", "2", 2)]);
    }

    #[test]
    fn files_of_others_may_say_more() {
        let check = |text, want: &[_]| check_as(Grammar::Foreign, text, want);
        check(
            "a:\n  - {b: [1, {c: 2}]}\n  - x\n  - [y, z]\n  - w\nd: 1\n",
            &[("a", "x,w", 2), ("d", "1", 6)],
        );
        check("a: &x 1\nb: !!str 2\nc: &y {d: 1}\n", &[("a", "1", 1), ("b", "2", 2), ("c.d", "1", 3)]);
        // What an alias stands for is not looked up, and to take it for nothing would be wrong.
        assert_eq!(entries("a: &x 1\nb: *x\n", Grammar::Foreign).unwrap_err().line, 2);
        for text in ["just words", "- a\n", "a: 1\n---\nb: 2\n", "a: [1\n"] {
            assert!(entries(text, Grammar::Foreign).is_err(), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_of_others_is_a_panic(text in "[a-c:\\-\\[\\]{},&*!~#'\" \n]{0,60}") {
            for grammar in [Grammar::Own, Grammar::Foreign] {
                if let Ok(found) = entries(&text, grammar) {
                    proptest::prop_assert!(found.iter().all(|entry| entry.line >= 1));
                }
            }
        }
    }

    #[test]
    fn what_is_no_list_of_settings_is_refused_with_its_line() {
        for (text, line) in [
            ("just words", 1),
            ("- a\n- b\n", 1),
            ("a: 1\n---\nb: 2\n", 2),
            ("a: &x 1\nb: *x\n", 1),
            ("a: !!int 1\n", 1),
            ("a:\n  - {b: 1}\n", 2),
            ("a: [1\n", 2),
            ("{a: {b: {c: {d: {e: {f: {g: {h: {i: 1}}}}}}}}}", 1),
        ] {
            let fault = entries(text, Grammar::Own).unwrap_err();
            assert_eq!(fault.line, line, "{text:?}: {fault:?}");
        }
    }
}
