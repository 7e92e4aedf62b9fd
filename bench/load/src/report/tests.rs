//! Reports of runs that never were.

use std::time::Duration;

use super::{json, svg, text};
use crate::cli::Output;
use crate::settings::{Encoding, Protocol, Settings};
use crate::tally::{Errors, Latencies, Outcome, Second, ServerUse, Tally};
use crate::tests::settings;

fn spread(values: impl Iterator<Item = u64>) -> Latencies {
    let mut latencies = Latencies::default();
    values.for_each(|ns| latencies.record(ns));
    latencies
}

/// Pushes at 1 000/s to 200 connections for 2 s.
fn pushes() -> (Settings, Output, Outcome) {
    let settings = Settings {
        threads: 2,
        duration: Duration::from_secs(2),
        rate: Some(1_000.0),
        protocol: Protocol::OpenIm { encoding: Encoding::Gob, gzip: false },
        ..settings(200)
    };
    let output = Output { latency: true, url: "ws://127.0.0.1:10001".into(), ..Output::default() };
    let millisecond = 1_000_000;
    let tally = Tally {
        logins: 200,
        login_latency: spread((1..=200).map(|n| n * 10_000)),
        begun: 2_000,
        answered: 2_000,
        latency: spread((1..=2_000).map(|n| n * 1_000)),
        raw: spread((1..=2_000).map(|n| n * 1_000)),
        deliveries: 2_000,
        delivery: spread((1..=2_000).map(|n| n * 2_000)),
        messages_in: 2_000,
        messages_out: 0,
        bytes_in: 2 * 1024 * 1024,
        bytes_out: 1024,
        kicked: 0,
        errors: Errors::default(),
        lateness: spread(std::iter::repeat_n(50_000, 2_000)),
    };
    let server = ServerUse {
        cpu_seconds: 0.5,
        user_seconds: 0.2,
        system_seconds: 0.3,
        memory_before_bytes: 1_000_000,
        memory_bytes: 1_120_000,
        socket_memory_before_bytes: 0,
        socket_memory_bytes: 40_000,
        slab_before_bytes: 0,
        slab_bytes: 800_000,
    };
    let second = |at_seconds, answered| Second {
        at_seconds,
        open: 200,
        answered,
        deliveries: answered,
        errors: 0,
        bytes_in: answered * 1_000,
        latency_p50_ns: millisecond,
        latency_p99_ns: 2 * millisecond,
    };
    let outcome = Outcome {
        tally,
        connect_seconds: 0.1,
        seconds: 2.0,
        open: 200,
        server: Some(server.clone()),
        server_connecting: Some(ServerUse { cpu_seconds: 0.004, ..server }),
        own_cpu_seconds: 0.4,
        own_connect_cpu_seconds: 0.01,
        processes: 1,
        timeline: vec![second(1.0, 1_000), second(2.0, 1_000), second(3.0, 0)],
    };
    (settings, output, outcome)
}

#[test]
fn a_wrk_user_reads_it_at_sight() {
    let (settings, output, outcome) = pushes();
    let whole = text::head(&settings, &output) + &text::body(&settings, &output, &outcome);
    // wrk's lines in wrk's order, then ours.
    let mut rest = &whole[..];
    for line in [
        "Running 2s test @ ws://127.0.0.1:10001\n  2 threads and 200 connections at 1.00k operations/s\n",
        "  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency ",
        "    Req/Sec ",
        "  Latency Distribution (HdrHistogram - corrected)\n   50.000% ",
        "  100.000% ",
        "  Delivery Distribution (HdrHistogram - from due to received)\n",
        "  2000 messages in 2.00s, 2.00MB read\n",
        "Messages/sec:    1000.00\nTransfer/sec:     1.00MB\nRequests/sec:    1000.00\n",
        "Logins       200 in 0.10s (2000/s), p50 1.00ms",
        "open at the end 200\n",
        "Deliveries   2000 (1000/s), p50 2.00ms",
        "Server CPU   0.00 s while connecting (20.0 us per login)\n",
        "Server CPU   0.50 s measured (user 0.20, system 0.30), 250.00 us per operation\n",
        "Memory       600 B user per connection; the machine's kernel 4200 B (buffers 200, slabs 4000)\n",
        "Generator    0.40 s CPU (200.00 us per message), 1 process\n",
    ] {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is not next in\n{whole}"));
        rest = &rest[at + line.len()..];
    }
    assert_eq!(rest, "");
}

#[test]
fn errors_are_told_by_kind() {
    let (settings, output, mut outcome) = pushes();
    outcome.tally.errors = Errors {
        connect: 1,
        read: 2,
        write: 3,
        timeout: 4,
        handshake: [("503".to_owned(), 5)].into(),
        closed: [(1001, 6)].into(),
        answer: [("1505".to_owned(), 7)].into(),
        protocol: 8,
    };
    let text = text::body(&settings, &output, &outcome);
    for line in [
        "  Socket errors: connect 1, read 2, write 3, timeout 4\n",
        "  Refused handshakes: 503 5\n",
        "  Closed by the server: 1001 6\n",
        "  Error answers: 1505 7\n",
        "  Protocol errors: 8\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn logins_after_the_first_have_a_rate_of_their_own() {
    let (settings, output, mut outcome) = pushes();
    outcome.tally.logins = 700;
    let text = text::body(&settings, &output, &outcome);
    assert!(text.contains("Logins       200 in 0.10s (2000/s)"), "{text}");
    assert!(text.contains("    and again 500 (250/s while measured)\n"), "{text}");
}

#[test]
fn a_generator_that_was_the_bottleneck_says_so() {
    let (settings, output, mut outcome) = pushes();
    assert!(!text::body(&settings, &output, &outcome).contains("Warning"));
    outcome.own_cpu_seconds = 3.9;
    outcome.tally.lateness = spread(std::iter::repeat_n(20_000_000, 100));
    let text = text::body(&settings, &output, &outcome);
    assert!(text.contains("Warning: one in 100 operations left 20."), "{text}");
    assert!(text.contains("Warning: the generator's threads were busy 98 % of the time"), "{text}");
}

#[test]
fn json_has_all_of_it_and_comes_back() {
    let (settings, _, outcome) = pushes();
    let document = json::document(&settings, &outcome);
    let back: serde_json::Value = serde_json::from_str(&document.to_string()).unwrap();
    assert_eq!(back, document);
    assert_eq!(
        (&back["version"], &back["answered"], &back["logins"]),
        (&1.into(), &2_000.into(), &200.into())
    );
    assert_eq!(back["settings"]["protocol"], "openim-gob");
    assert!(!document.to_string().contains("openIM123"), "a secret is in it");
    let buckets = back["delivery_ns"]["buckets"].as_array().unwrap();
    let sum: u64 = buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum();
    assert_eq!(sum, 2_000);
    let timeline: Vec<Second> = serde_json::from_value(back["timeline"].clone()).unwrap();
    assert_eq!(timeline, outcome.timeline);
    let server: ServerUse = serde_json::from_value(back["server"].clone()).unwrap();
    assert_eq!(server.memory_bytes, 1_120_000);
    let errors: Errors = serde_json::from_value(back["errors"].clone()).unwrap();
    assert_eq!(errors, outcome.tally.errors);
}

/// The least of an XML reader: every tag that opens closes, in order.
fn elements(xml: &str) -> usize {
    let (mut open, mut count) = (Vec::new(), 0);
    for piece in xml.split('<').skip(1) {
        let (tag, _) = piece.split_once('>').expect("a tag ends");
        let name = tag.split_whitespace().next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.starts_with(['?', '!']) && !tag.ends_with('/') {
            open.push(name);
            count += 1;
        } else {
            count += 1;
        }
    }
    assert!(open.is_empty(), "{open:?}");
    count
}

#[test]
fn pictures_are_whole_and_labelled_with_units() {
    let (_, _, full) = pushes();
    let empty = Outcome { tally: Tally::default(), timeline: Vec::new(), ..full.clone() };
    for (outcome, elements_min) in [(full, 20), (empty, 5)] {
        let dir = tempfile::tempdir().unwrap();
        let written = svg::write(&dir.path().join("new"), &outcome).unwrap();
        assert_eq!(written.len(), 4);
        for path in written {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("<svg") && elements(&text) > elements_min, "{}", path.display());
            let unit = match path.file_name().unwrap().to_str().unwrap() {
                "latency.svg" | "latency-over-time.svg" => "milliseconds",
                _ => "seconds from the start",
            };
            assert!(text.contains(unit), "{}: no {unit}", path.display());
        }
    }
}
