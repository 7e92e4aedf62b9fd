//! Names that others want to dial.

use pinion::control::lookup::NameAnswer;
use pinion::limits::LOOKUPS_IN_FLIGHT_MAX;
use pinion::metrics::Metric;

use super::*;

#[test]
fn each_name_is_answered_also_those_that_had_to_wait() {
    let control = Control::start(|plan| plan.discovery = Discovery::None);
    let names: Vec<String> =
        (1..=4 * LOOKUPS_IN_FLIGHT_MAX).map(|port| format!("localhost:{port}")).collect();
    for name in names.iter().map(String::as_str).chain(["no such name:1"]) {
        control.address.look_up(name.to_owned()).unwrap();
    }
    let answers = || -> Vec<NameAnswer> {
        let answer = |news| if let News::Name(answer) = news { Some(answer) } else { None };
        control.told().into_iter().filter_map(answer).collect()
    };
    let answers = eventually("all answers", || Some(answers()).filter(|all| all.len() == names.len() + 1));
    for answer in &answers {
        match (&answer.found, names.iter().position(|name| *name == answer.name)) {
            (Ok(found), Some(n)) => {
                assert!(found.iter().all(|at| at.ip().is_loopback() && usize::from(at.port()) == n + 1));
            }
            (Err(why), None) => assert!(!why.is_empty() && answer.name == "no such name:1"),
            _ => panic!("{answer:?}"),
        }
    }
    control.await_metric(Metric::PeerNameFailures, 1);
}
