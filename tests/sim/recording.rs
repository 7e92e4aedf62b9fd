//! Recordings: what a hub was fed, replayed through a fresh hub to the same trace hash; what a shape keeps to itself;
//! and that a changed recording is noticed.

use pinion::hub::record::{Mode, Recorder, ReplayError, replay};
use pinion::ids::Platform;

use crate::rig::{Rig, config};
use crate::world::Options;
use crate::{SEEDS, run, seeds};

#[test]
fn a_recording_replays_to_the_same_trace() {
    let (mut full_told, mut compared, mut recordings) = (0, 0, 0);
    for mode in [Mode::Shape, Mode::Full] {
        let options = Options { record: Some(mode), ..Options::default() };
        for seed in seeds(SEEDS / 10) {
            let report = run("a_recording_replays", seed, options);
            for (trace, recording) in report.hub_traces.iter().zip(&report.recordings) {
                let replayed = replay(recording).unwrap_or_else(|e| panic!("{e}, {mode:?}, seed {seed}"));
                assert_eq!(replayed.trace_hash, *trace, "{mode:?}, seed {seed}");
                assert!(!replayed.truncated, "{mode:?}, seed {seed}");
                (compared, recordings) = (compared + replayed.compared, recordings + 1);
                // The token, the body of a push (as bytes, in JSON) and the body of a request.
                for secret in ["secret-token", "109,109,109", "120,120,120"] {
                    let told = recording.contains(secret);
                    assert!(mode == Mode::Full || !told, "a shape tells {secret}, seed {seed}");
                    full_told += u32::from(mode == Mode::Full && told);
                }
            }
        }
    }
    // Over all worlds: in a single one a shard may have little to do.
    assert!(compared > 10 * recordings, "{compared} effects in {recordings} recordings");
    assert!(full_told > 0, "the secrets that a shape must not tell are there to be told");
}

#[test]
fn a_changed_recording_diverges() {
    let options = Options { record: Some(Mode::Shape), ..Options::default() };
    let report = run("a_changed_recording_diverges", 3, options);
    let recording = report.recordings.iter().max_by_key(|r| r.len()).expect("a shard");
    let lines: Vec<&str> = recording.lines().collect();
    let accepted = lines.iter().position(|line| line.contains("Accepted")).expect("a login");
    let changed = [&lines[..accepted], &lines[accepted + 1..]].concat().join("\n");
    assert!(matches!(replay(&changed), Err(ReplayError::Diverged { .. })));
}

/// A hub that records, and what it has recorded once `talk` is over.
fn recorded(mode: Mode, bytes_max: u64, talk: impl Fn(&mut Rig)) -> (u64, String) {
    let mut rig = Rig::new(config());
    rig.hub.record(Recorder::new(mode, &config(), bytes_max));
    talk(&mut rig);
    let text = String::from_utf8(rig.hub.take_recording()).unwrap();
    (rig.hub.trace_hash(), text)
}

fn overload(rig: &mut Rig) {
    let conn = rig.log_in("u", Platform::IOS);
    for n in 0..20 {
        rig.request(conn, "u", (1003, &format!("s{n}")), &[b'x'; 30_000]);
    }
    assert!(rig.is_closed(conn), "too many bytes wait");
}

#[test]
fn a_shape_replays_what_only_the_size_of_bodies_decided() {
    let (trace, text) = recorded(Mode::Shape, u64::MAX / 2, overload);
    assert_eq!(replay(&text).map(|r| r.trace_hash), Ok(trace));
    assert!(text.len() < 20_000, "the bodies are not in it: {} bytes", text.len());
}

#[test]
fn bytes_before_the_101_are_replayed_too() {
    for mode in [Mode::Shape, Mode::Full] {
        let (trace, text) = recorded(mode, u64::MAX / 2, |rig| {
            let login = rig.arguments("u", Platform::IOS);
            let conn = rig.accept(login).unwrap();
            rig.ping(conn, b"early");
            rig.turn();
        });
        assert_eq!(replay(&text).map(|r| r.trace_hash), Ok(trace), "{mode:?}");
    }
}

#[test]
fn a_recording_stops_at_its_limit_and_says_so() {
    let (_, text) = recorded(Mode::Full, 40_000, overload);
    assert!(text.len() < 41_000);
    let replayed = replay(&text).unwrap();
    assert!(replayed.truncated);
}

#[test]
fn text_that_is_no_recording_is_refused_with_its_line() {
    let (_, text) = recorded(Mode::Full, u64::MAX / 2, overload);
    assert_eq!(replay(""), Err(ReplayError::NoStart));
    let rest = text.split_once('\n').unwrap().1;
    assert_eq!(replay(rest), Err(ReplayError::NoStart));
    assert!(matches!(replay(&format!("{text}garbage")), Err(ReplayError::Malformed { .. })));
}
