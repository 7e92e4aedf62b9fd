//! The arrows of architecture.md section 4: a module of `src/` may name what lies below it, never what lies above or
//! beside it. The ground layer and the top may name their own layer, but nowhere is there a circle.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::Finding;
use super::source::{Source, Token};

/// From the top down. The first and the last layer may use their own members.
const LAYERS: &[&[&str]] = &[
    &["main", "cli", "node"],
    &["rpc"],
    &["shard"],
    &["control"],
    &["config", "admission"],
    &["cluster", "backend"],
    &["hub"],
    &["session"],
    &["wire"],
    &["placement"],
    &["arena", "limits", "ids", "metrics", "random", "time", "pb"],
];

/// Findings of all files together.
pub fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/") && s.path != "src/lib.rs") {
        let from = module_of(&source.path);
        let finding = |line, what| Finding { rule: "layer", path: source.path.clone(), line, what };
        if rank(&from).is_none() {
            findings.push(finding(0, format!("module `{from}` is in no layer")));
        }
        for (at, to) in named_modules(source) {
            let line = source.line_of(at);
            match (rank(&from), rank(&to)) {
                (Some(above), Some(below)) if from != to && !may_name(above, below) => {
                    findings.push(finding(line, format!("`{from}` names `{to}`, which is not below it")));
                }
                _ if from != to => {
                    graph.entry(from.clone()).or_default().insert(to);
                }
                _ => {}
            }
        }
    }
    if let Some(circle) = circle_in(&graph) {
        findings.push(Finding {
            rule: "layer",
            path: "src".to_owned(),
            line: 0,
            what: format!("circle: {circle}"),
        });
    }
    findings
}

/// `src/hub/push.rs` and `src/hub.rs` are both `hub`.
fn module_of(path: &str) -> String {
    let inner = path.trim_start_matches("src/");
    inner.split(['/', '.']).next().unwrap_or(inner).to_owned()
}

fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn may_name(above: usize, below: usize) -> bool {
    above < below || (above == below && (above == 0 || above == LAYERS.len() - 1))
}

/// Top-level modules that a file names: after `crate::`, after `pinion::` (in main), and where a chain of `super`
/// reaches the root of the crate. Names of the root itself (macros) are not modules and are left out.
fn named_modules(source: &Source) -> Vec<(usize, String)> {
    let tokens = source.tokens();
    let mut found = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let token = tokens[i];
        let path_goes_on = |at: usize| tokens.get(at + 1).is_some_and(|t| t.text == ":");
        let starts = i == 0 || tokens[i - 1].text != ":";
        let root = match token.text {
            "crate" | "pinion" if starts && path_goes_on(i) => Some(i + 3),
            "super" if starts => supers_to_root(source, &tokens, i),
            _ => None,
        };
        if let Some(first) = root {
            found.extend(heads(&tokens, first));
        }
        i += 1;
    }
    found.retain(|(_, name)| rank(name).is_some());
    found
}

/// Index after `super::super::` if that chain ends at the crate's root.
fn supers_to_root(source: &Source, tokens: &[Token<'_>], from: usize) -> Option<usize> {
    let inner = source.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    let inline = usize::from(source.in_test(tokens[from].at) && !source.is_test);
    let depth = inner.split('/').count() + inline;
    let mut at = from;
    let mut supers = 0;
    while tokens.get(at).is_some_and(|t| t.text == "super") {
        supers += 1;
        at += 3;
    }
    (supers >= depth).then_some(at)
}

/// The first name of a path, or the first name of each branch of `{a::x, b::{y, z}}`.
fn heads(tokens: &[Token<'_>], first: usize) -> Vec<(usize, String)> {
    let Some(token) = tokens.get(first) else {
        return Vec::new();
    };
    if token.text != "{" {
        return vec![(token.at, token.text.to_owned())];
    }
    let mut found = Vec::new();
    let mut depth = 0usize;
    let mut expect = true;
    for token in &tokens[first..] {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => break,
            "}" => depth -= 1,
            "," if depth == 1 => expect = true,
            name if depth == 1 && expect => {
                found.push((token.at, name.to_owned()));
                expect = false;
            }
            _ => {}
        }
    }
    found
}

/// One circle, written out.
fn circle_in(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    fn walk(graph: &BTreeMap<String, BTreeSet<String>>, path: &mut Vec<String>) -> Option<String> {
        let last = path.last()?.clone();
        for next in graph.get(&last)? {
            if path.contains(next) {
                return Some(format!("{} -> {next}", path.join(" -> ")));
            }
            path.push(next.clone());
            if let Some(circle) = walk(graph, path) {
                return Some(circle);
            }
            path.pop();
        }
        None
    }
    graph.keys().find_map(|start| walk(graph, &mut vec![start.clone()]))
}
