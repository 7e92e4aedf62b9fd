//! A source file as the rules see it: its text, the same text with comments and literals blanked, and which lines are
//! test code. Not a parser: tokens and brackets are enough for every rule here.

use std::collections::BTreeSet;
use std::ops::Range;

/// One file of the tree.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    /// As written.
    pub text: String,
    /// Same length and same lines, but comments, strings and character literals are spaces.
    pub code: String,
    /// The whole file is test code.
    pub is_test: bool,
    starts: Vec<usize>,
    tests: Vec<Range<usize>>,
}

/// A function with a body.
pub struct Function {
    pub name: String,
    /// Line of the `fn` keyword, from 1.
    pub line: usize,
    /// Lines between its braces.
    pub lines: usize,
    pub in_test: bool,
}

/// A word or a single punctuation byte of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'a> {
    pub text: &'a str,
    pub at: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            is_test: path.starts_with("tests/") || path.ends_with("/tests.rs") || path.contains("/tests/"),
            starts,
            tests: Vec::new(),
        };
        source.tests = source.test_regions();
        source
    }

    /// Line number of a byte, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// The byte belongs to test code.
    pub fn in_test(&self, at: usize) -> bool {
        self.is_test || self.tests.iter().any(|region| region.contains(&at))
    }

    /// Words and punctuation of the code, in order.
    pub fn tokens(&self) -> Vec<Token<'_>> {
        let bytes = self.code.as_bytes();
        let mut tokens = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let from = at;
            while at < bytes.len() && is_word(bytes[at]) {
                at += 1;
            }
            if at == from {
                at += 1;
            }
            if !bytes[from].is_ascii_whitespace() {
                tokens.push(Token { text: &self.code[from..at], at: from });
            }
        }
        tokens
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let tables = self.tables();
        let tokens = self.tokens();
        let mut found = Vec::new();
        for pair in tokens.windows(2) {
            if pair[0].text != "fn" || !is_word(pair[1].text.as_bytes()[0]) {
                continue;
            }
            let Some(body) = self.body_after(pair[1].at) else {
                continue;
            };
            let lines = self.line_of(body.end - 1).saturating_sub(self.line_of(body.start) + 1);
            let tables: usize =
                tables.iter().filter(|t| body.contains(&t.start)).map(|t| self.lines_in(t)).sum();
            found.push(Function {
                name: pair[1].text.to_owned(),
                line: self.line_of(pair[0].at),
                lines: lines.saturating_sub(tables),
                in_test: self.in_test(pair[0].at),
            });
        }
        found
    }

    /// Constant tables: `const` or `static` items whose value is an array, and rows given to a macro outside functions.
    pub fn tables(&self) -> Vec<Range<usize>> {
        let tokens = self.tokens();
        let mut found = Vec::new();
        let mut depth = 0usize;
        for (i, token) in tokens.iter().enumerate() {
            depth += usize::from(token.text == "{");
            depth -= usize::from(token.text == "}").min(depth);
            if token.text == "{" && depth == 1 && i > 1 && tokens[i - 1].text == "!" {
                found.push(token.at..self.close_of(token.at));
            }
            if token.text != "const" && token.text != "static" {
                continue;
            }
            let value = tokens[i..].iter().position(|t| matches!(t.text, "=" | "{" | "("));
            let Some(value) = value.map(|v| i + v).filter(|v| tokens[*v].text == "=") else {
                continue;
            };
            let open = tokens[value + 1..].iter().find(|t| t.text != "&");
            if let Some(open) = open.filter(|t| t.text == "[") {
                found.push(token.at..self.close_of(open.at));
            }
        }
        found
    }

    /// Lines that a range touches.
    pub fn lines_in(&self, range: &Range<usize>) -> usize {
        self.line_of(range.end.saturating_sub(1)) - self.line_of(range.start) + 1
    }

    /// Files that this one declares as `#[cfg(test)] mod name;`.
    pub fn test_modules(&self) -> Vec<String> {
        let folder = self.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let stem = self.path.trim_end_matches(".rs");
        let own = if self.path.ends_with("/mod.rs") || self.path == "src/lib.rs" { folder } else { stem };
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(test)]") {
            let mut words = self.code[at + 12..].split_whitespace().skip_while(|w| w.starts_with("pub"));
            if let (Some("mod"), Some(name)) = (words.next(), words.next())
                && let Some(name) = name.strip_suffix(';')
            {
                found.push(format!("{own}/{name}.rs"));
                found.push(format!("{own}/{name}/"));
            }
        }
        found
    }

    fn test_regions(&self) -> Vec<Range<usize>> {
        let mut regions = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(test)]") {
            if let Some(body) = self.body_after(at + 12) {
                regions.push(at..body.end);
            }
        }
        regions
    }

    /// The braces that follow, unless a `;` comes first (outside parentheses and square brackets).
    fn body_after(&self, from: usize) -> Option<Range<usize>> {
        let mut depth = 0usize;
        for (i, byte) in self.code.bytes().enumerate().skip(from) {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth = depth.saturating_sub(1),
                b';' if depth == 0 => return None,
                b'{' if depth == 0 => return Some(i..self.close_of(i)),
                _ => {}
            }
        }
        None
    }

    /// One past the bracket that closes the one at `open`.
    fn close_of(&self, open: usize) -> usize {
        let mut depth = 0usize;
        for (i, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return i + 1;
            }
        }
        self.code.len()
    }
}

/// Marks the files that others declare as test modules.
pub fn mark_test_files(sources: &mut [Source]) {
    let declared: BTreeSet<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in sources {
        let inside =
            |name: &String| source.path == *name || (name.ends_with('/') && source.path.starts_with(name));
        source.is_test |= declared.iter().any(inside);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Replaces comments and literals by spaces, line ends kept.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal_len(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        if end == at {
            out.push(if bytes[at].is_ascii() { bytes[at] } else { b' ' });
            at += 1;
        } else {
            out.extend(bytes[at..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
            at = end;
        }
    }
    String::from_utf8(out).expect("only ASCII was kept")
}

/// Length of the comment, string or character literal that starts here; 0 if none does.
fn literal_len(rest: &[u8], before: Option<u8>) -> usize {
    let find = |needle: &[u8], from: usize| {
        let tail = rest.get(from..).unwrap_or_default();
        tail.windows(needle.len()).position(|w| w == needle).map_or(rest.len(), |i| from + i)
    };
    match rest {
        [b'/', b'/', ..] => find(b"\n", 0),
        [b'/', b'*', ..] => (find(b"*/", 2) + 2).min(rest.len()),
        [b'"', ..] => quoted_len(rest, b'"'),
        [b'r', tail @ ..] if !before.is_some_and(|b| is_word(b) && b != b'b') => {
            let hashes = tail.iter().take_while(|b| **b == b'#').count();
            if tail.get(hashes) != Some(&b'"') {
                return 0;
            }
            let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
            (find(&close, hashes + 2) + close.len()).min(rest.len())
        }
        [b'\'', b'\\', ..] => quoted_len(rest, b'\''),
        // A lifetime has no closing quote after one character.
        [b'\'', tail @ ..] => {
            let width = std::str::from_utf8(&tail[..tail.len().min(4)])
                .unwrap_or_else(|e| std::str::from_utf8(&tail[..e.valid_up_to()]).unwrap_or_default())
                .chars()
                .next()
                .map_or(0, char::len_utf8);
            if width > 0 && tail.get(width) == Some(&b'\'') { width + 2 } else { 0 }
        }
        _ => 0,
    }
}

fn quoted_len(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}
