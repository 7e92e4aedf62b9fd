//! OpenIM: what the generator counts is what the gateway counts.

use std::sync::mpsc;
use std::time::Duration;

use super::gateway::Gateway;
use super::{HOLD, doing, play, settings};
use crate::script::{Ending, Operation};
use crate::settings::{Encoding, Protocol, Settings};
use crate::tally::Outcome;

const GOB: Protocol = Protocol::OpenIm { encoding: Encoding::Gob, gzip: false };

fn at(gateway: &Gateway, connections: usize, protocol: Protocol) -> Settings {
    let mut settings = Settings { protocol, push: Some(gateway.grpc), ..settings(connections) };
    settings.targets[0].address = gateway.websocket;
    settings
}

#[track_caller]
fn clean(outcome: &Outcome) {
    assert_eq!(outcome.tally.errors.total(), 0, "{:?}", outcome.tally.errors);
    assert_eq!(outcome.tally.answered, outcome.tally.begun);
}

#[test]
fn logins_pushes_and_deliveries_are_the_gateways() {
    let gateway = Gateway::start();
    let pushing =
        || doing(|conn| Operation::Push { users: vec!["u000003".into(), conn.user.to_owned()], bytes: 100 });
    let asked = Settings {
        rate: Some(200.0),
        duration: Duration::from_millis(500),
        server_pids: vec![gateway.pid()],
        // In time for a ping of each.
        ping: Some(Duration::from_millis(200)),
        ..at(&gateway, 10, GOB)
    };
    let outcome = play(&asked, pushing).unwrap();
    clean(&outcome);
    // 100 places in the schedule; a tenth of them are connection 3's own, where the user is named twice.
    assert_eq!((outcome.tally.begun, outcome.tally.logins), (100, 10));
    gateway.shows("pinion_handshakes_total", "outcome=\"ok\"", 10);
    gateway.shows("pinion_pushes_total", "", outcome.tally.deliveries);
    assert_eq!(outcome.tally.delivery.0.len(), outcome.tally.deliveries);
    let server = outcome.server.unwrap();
    assert!(server.cpu_seconds > 0.0 && server.memory_bytes > 0, "{server:?}");
}

#[test]
fn every_encoding_has_its_replies_and_finds_the_time_in_its_pushes() {
    let gateway = Gateway::start();
    for (encoding, gzip) in
        [(Encoding::Gob, false), (Encoding::Gob, true), (Encoding::Json, false), (Encoding::Json, true)]
    {
        let chatting = || doing(|_| Operation::Chat { to: "u000001".into(), bytes: 200 });
        let asked = Settings {
            rate: Some(50.0),
            duration: Duration::from_millis(400),
            ..at(&gateway, 2, Protocol::OpenIm { encoding, gzip })
        };
        let outcome = play(&asked, chatting).unwrap();
        clean(&outcome);
        assert_eq!(outcome.tally.begun, 20, "{encoding:?} {gzip}");
        assert!(outcome.tally.deliveries >= 10, "{encoding:?} {gzip}: {:?}", outcome.tally);
    }
}

#[test]
fn requests_are_answered_and_an_outcome_frame_is_a_login() {
    let gateway = Gateway::start();
    let mut asked = at(&gateway, 4, GOB);
    asked.targets[0].path = "/?isMsgResp=true".into();
    // Whose newest numbers: field 1, a text.
    let asking = || {
        doing(|conn| Operation::Request {
            identifier: 1001,
            data: [&[0x0a, 7], conn.user.as_bytes()].concat(),
        })
    };
    let outcome = play(&asked, asking).unwrap();
    clean(&outcome);
    gateway.shows("pinion_requests_total", "outcome=\"answered\"", outcome.tally.answered);
    assert_eq!(outcome.tally.logins, 4);
}

#[test]
fn a_storm_of_reconnects_is_counted_on_both_sides() {
    let gateway = Gateway::start();
    let storm = || doing(|_| Operation::Reconnect { how: Ending::Close });
    let asked = Settings { rate: Some(100.0), duration: Duration::from_millis(500), ..at(&gateway, 10, GOB) };
    let outcome = play(&asked, storm).unwrap();
    let tally = &outcome.tally;
    assert_eq!((tally.answered, tally.begun, tally.logins), (50, 50, 60), "{tally:?}");
    gateway.shows("pinion_handshakes_total", "outcome=\"ok\"", 60);
}

#[test]
fn those_who_log_in_again_elsewhere_are_kicked_and_stay_away() {
    let gateway = Gateway::start();
    let holding = Settings { duration: Duration::from_secs(4), ..at(&gateway, 6, GOB) };
    let second = Settings { duration: Duration::from_millis(300), ..at(&gateway, 6, GOB) };
    let (tell, all_in) = mpsc::channel();
    let first = std::thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut said = false;
            crate::run::run(&holding, &|_, _| Ok(Box::new(HOLD)), &mut |second| {
                if second.open == 6 && !std::mem::replace(&mut said, true) {
                    tell.send(()).unwrap();
                }
            })
        });
        all_in.recv_timeout(Duration::from_secs(30)).unwrap();
        clean(&play(&second, || HOLD).unwrap());
        first.join().unwrap().unwrap()
    });
    assert_eq!((first.tally.kicked, first.tally.logins, first.open), (6, 6, 0), "{:?}", first.tally);
    gateway.shows("pinion_kicks_total", "", 6);
}

#[test]
fn a_wrong_secret_is_told_with_openims_code() {
    let gateway = Gateway::start();
    let mut asked = at(&gateway, 1, GOB);
    asked.users.tokens = crate::settings::Tokens::Secret("wrong".into());
    let text = play(&asked, || HOLD).unwrap_err().to_string();
    assert!(text.contains("answered with 1505"), "{text}");
}
