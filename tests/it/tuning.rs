//! The files for operators: alert rules and the Grafana board parse, and every metric, label and value that they name
//! is in a scrape of a running gateway.
//!
//! PromQL is read only as far as that needs: names, matchers and label lists.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Parser};
use serde_json::{Map, Value, json};

use crate::harness::{Gateway, eventually};

const ALERTS: &str = "tuning/prometheus/alerts.yml";
const BOARD: &str = "tuning/grafana/pinion.json";
/// Prometheus adds these itself.
const ADDED_LABELS: [&str; 2] = ["instance", "job"];
/// And this one.
const ADDED_METRICS: [&str; 1] = ["up"];
/// Every symptom that has a name.
const SYMPTOMS: [&str; 19] = [
    "PinionDown",
    "PinionShardStalled",
    "PinionLoginFreeze",
    "PinionQueueStuck",
    "PinionLoopLag",
    "PinionDrainHangs",
    "PinionConnectionLimitNear",
    "PinionAcceptErrors",
    "PinionSocketsLeak",
    "PinionSlowConsumers",
    "PinionUpstreamTimeouts",
    "PinionLaneOverflows",
    "PinionLogLinesDropped",
    "PinionNodesApart",
    "PinionNotFit",
    "PinionPushesNotComplete",
    "PinionPushModeRoute",
    "PinionPushModeLocal",
    "PinionAdoptionFails",
];

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// YAML of mappings, lists and scalars, all scalars as text.
fn yaml(text: &str) -> Value {
    enum Open {
        Map(Map<String, Value>, Option<String>),
        List(Vec<Value>),
    }
    fn put(open: &mut [Open], root: &mut Value, value: Value) {
        match open.last_mut() {
            None => *root = value,
            Some(Open::List(items)) => items.push(value),
            Some(Open::Map(map, key)) => match key.take() {
                Some(key) => assert!(map.insert(key.clone(), value).is_none(), "{key} twice"),
                None => *key = Some(value.as_str().unwrap().to_owned()),
            },
        }
    }
    let (mut open, mut root) = (Vec::new(), Value::Null);
    for event in Parser::new_from_str(text) {
        match event.unwrap().0 {
            Event::Scalar(text, ..) => put(&mut open, &mut root, json!(text)),
            Event::MappingStart(..) => open.push(Open::Map(Map::new(), None)),
            Event::SequenceStart(..) => open.push(Open::List(Vec::new())),
            Event::MappingEnd | Event::SequenceEnd => {
                let value = match open.pop().unwrap() {
                    Open::Map(map, _) => Value::Object(map),
                    Open::List(items) => Value::Array(items),
                };
                put(&mut open, &mut root, value);
            }
            Event::Alias(_) => panic!("an alias"),
            _ => {}
        }
    }
    root
}

/// Metrics of a scrape: their labels with all values.
type Scrape = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn scrape(text: &str) -> Scrape {
    let mut scrape = Scrape::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let known = scrape.entry(name.to_owned()).or_default();
        for label in labels.trim_end_matches('}').split(',').filter(|label| !label.is_empty()) {
            let (key, value) = label.split_once('=').unwrap();
            known.entry(key.to_owned()).or_default().insert(value.trim_matches('"').to_owned());
        }
    }
    scrape
}

/// Label, operator, value.
type Matcher = (String, String, String);

/// What an expression names.
#[derive(Debug, Default)]
struct Named {
    /// Each with its matchers.
    metrics: Vec<(String, Vec<Matcher>)>,
    /// After `by`, `on` and the like; `None` if the expression has no such list.
    labels: Option<BTreeSet<String>>,
}

/// Splits an expression into names, strings, and single characters; `[5m]` and numbers are left out.
fn tokens(expression: &str) -> Vec<String> {
    let chars: Vec<char> = expression.chars().collect();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let from = at;
        let until = |stop: &dyn Fn(char) -> bool, from: usize| {
            (from..chars.len()).find(|at| stop(chars[*at])).unwrap_or(chars.len())
        };
        match chars[at] {
            '"' => at = until(&|c| c == '"', at + 1) + 1,
            '[' => {
                at = until(&|c| c == ']', at) + 1;
                continue;
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                at = until(&|c| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'), at);
            }
            c if c.is_ascii_digit() || c.is_whitespace() => {
                at += 1;
                continue;
            }
            _ => at += 1,
        }
        tokens.push(chars[from..at.min(chars.len())].iter().collect());
    }
    tokens
}

fn named(expression: &str) -> Named {
    let tokens = tokens(expression);
    let (mut named, mut at) = (Named::default(), 0);
    let is = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token == text);
    let end = |at: usize, close: &str| (at..tokens.len()).find(|at| is(*at, close)).unwrap_or(tokens.len());
    while at < tokens.len() {
        let token = tokens[at].as_str();
        at += 1;
        if !token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            continue;
        }
        if ["by", "without", "on", "ignoring", "group_left", "group_right"].contains(&token) {
            let close = end(at, ")");
            let list = tokens[at + 1..close].iter().filter(|token| *token != ",").cloned();
            named.labels.get_or_insert_default().extend(list);
            at = close;
        } else if is(at, "(")
            || is(at, "by")
            || is(at, "without")
            || ["and", "or", "unless", "bool", "offset"].contains(&token)
        {
            // A function or an operator.
        } else {
            let mut matchers = Vec::new();
            if is(at, "{") {
                let close = end(at, "}");
                for matcher in tokens[at + 1..close].split(|token| token == ",").filter(|m| !m.is_empty()) {
                    let value = matcher.last().unwrap().trim_matches('"').to_owned();
                    let operator = matcher[1..matcher.len() - 1].concat();
                    matchers.push((matcher[0].clone(), operator, value));
                }
                at = close;
            }
            named.metrics.push((token.to_owned(), matchers));
        }
    }
    named
}

/// What an expression names that a scrape does not have. `shown` are labels that a text about it names.
fn faults(expression: &str, shown: &[String], scrape: &Scrape) -> Vec<String> {
    let mut faults = Vec::new();
    let named = named(expression);
    if named.metrics.is_empty() {
        faults.push(format!("no metric in {expression}"));
    }
    let mut there: BTreeSet<String> = ADDED_LABELS.iter().map(|label| label.to_string()).collect();
    for (metric, matchers) in &named.metrics {
        let nothing = BTreeMap::new();
        let labels = match scrape.get(metric) {
            Some(labels) => labels,
            None if ADDED_METRICS.contains(&metric.as_str()) => &nothing,
            None => {
                faults.push(format!("no metric {metric}"));
                continue;
            }
        };
        there.extend(labels.keys().cloned());
        for (label, operator, value) in matchers {
            let known = match labels.get(label) {
                Some(known) => known,
                None if ADDED_LABELS.contains(&label.as_str()) => continue,
                None => {
                    faults.push(format!("{metric} has no label {label}"));
                    continue;
                }
            };
            let wanted: Vec<&str> =
                if operator.contains('~') { value.split('|').collect() } else { vec![value] };
            for value in wanted {
                let fits = |known: &String| match value.split_once(".*") {
                    Some((before, after)) => known.starts_with(before) && known.ends_with(after),
                    None => known == value,
                };
                if !known.iter().any(fits) {
                    faults.push(format!("{metric} has no {label}=\"{value}\", only {known:?}"));
                }
            }
        }
    }
    let listed = named.labels.clone().unwrap_or_default();
    faults.extend(listed.difference(&there).map(|label| format!("no label {label} to group by")));
    let kept = named.labels.map_or(there, |mut listed| {
        listed.remove("");
        listed
    });
    faults.extend(
        shown.iter().filter(|l| !kept.contains(*l)).map(|l| format!("a text shows {l}, which is gone")),
    );
    faults
}

/// The names after `prefix` in a text.
fn names_after(text: &str, prefix: &str) -> Vec<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    text.split(prefix).skip(1).map(name).collect()
}

fn a_scrape() -> Scrape {
    let gateway = Gateway::start(&["--shards-count", "2"]);
    let _client = gateway.connect("alice", 1);
    // Each shard publishes for itself, a moment later.
    eventually("the client in /metrics", || {
        (gateway.metrics().sum("pinion_connections", &[]) == 1.0).then_some(())
    });
    let (status, text) = gateway.get("/metrics").unwrap();
    assert_eq!(status, 200);
    scrape(&text)
}

#[test]
fn alert_rules_name_what_a_gateway_shows_and_say_why_and_what_to_do() {
    let scrape = a_scrape();
    let mut seen = BTreeSet::new();
    for group in yaml(&file(ALERTS))["groups"].as_array().unwrap() {
        assert!(group["name"].is_string());
        for rule in group["rules"].as_array().unwrap() {
            let alert = rule["alert"].as_str().unwrap();
            assert!(seen.insert(alert.to_owned()), "{alert} twice");
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(["page", "ticket"].contains(&severity), "{alert}: {severity}");
            let mut shown = Vec::new();
            for text in ["summary", "why", "do"] {
                let text =
                    rule["annotations"][text].as_str().unwrap_or_else(|| panic!("{alert} has no {text}"));
                assert!(text.len() > 10, "{alert}: {text}");
                shown.extend(names_after(text, "$labels."));
            }
            let faults = faults(rule["expr"].as_str().unwrap(), &shown, &scrape);
            assert_eq!(faults, [""; 0], "{alert}");
        }
    }
    for symptom in SYMPTOMS {
        assert!(seen.contains(symptom), "no alert for {symptom}");
    }
}

#[test]
fn the_board_shows_what_a_gateway_has() {
    let scrape = a_scrape();
    let board: Value = serde_json::from_str(&file(BOARD)).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let (mut expressions, mut ids) = (0, BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is not its own");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().replace("$instance", ".*");
            let mut shown = names_after(target["legendFormat"].as_str().unwrap(), "{{");
            shown.retain(|label| !label.is_empty());
            assert_eq!(faults(&expression, &shown, &scrape), [""; 0], "{title}: {expression}");
            expressions += 1;
        }
    }
    assert!(expressions > 20, "{expressions}");
}

#[test]
fn what_is_not_there_is_reported() {
    let scrape = scrape(
        "pinion_a{shard=\"0\",reason=\"x\"} 1\npinion_a{shard=\"1\",reason=\"y_error\"} 1\npinion_b 2\n# EOF",
    );
    for (expression, shown, want) in [
        ("sum by (shard) (rate(pinion_a{reason=\"x\"}[5m])) > 0.5", &["shard"][..], None),
        ("pinion_a{reason=~\"x|.*_error\"} / pinion_b > 1", &["reason", "instance"], None),
        ("up{job=\"pinion\"} == 0", &["instance"], None),
        ("pinion_c > 1", &[], Some("no metric pinion_c")),
        ("pinion_a - pinion_c{x=\"y\"}", &[], Some("no metric pinion_c")),
        ("pinion_a{lane=\"x\"}", &[], Some("pinion_a has no label lane")),
        ("pinion_a{reason=\"z\"}", &[], Some("pinion_a has no reason=\"z\"")),
        ("pinion_a{reason=~\"x|z\"}", &[], Some("pinion_a has no reason=\"z\"")),
        ("pinion_a{reason=~\".*_fault\"}", &[], Some("pinion_a has no reason=\".*_fault\"")),
        ("sum by (lane) (pinion_a)", &[], Some("no label lane")),
        ("sum by (shard) (pinion_a)", &["reason"], Some("a text shows reason")),
        ("1 > 2", &[], Some("no metric in")),
    ] {
        let shown: Vec<String> = shown.iter().map(|label| label.to_string()).collect();
        let found = faults(expression, &shown, &scrape);
        match want {
            None => assert_eq!(found, [""; 0], "{expression}"),
            Some(part) => assert!(found.len() == 1 && found[0].starts_with(part), "{expression}: {found:?}"),
        }
    }
}
