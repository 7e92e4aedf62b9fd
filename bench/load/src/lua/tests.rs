//! Each hook, what it gets and may return; and what a script is told when it is wrong.

use std::io::Write as _;
use std::time::Duration;

use super::{check, done, script};
use crate::script::{Conn, Ending, Incoming, MessageKind, Operation, Script};
use crate::settings::Settings;
use crate::tally::{Errors, Outcome, Second, Tally};
use crate::tests::settings;

/// A script in a file of its own, and the settings that name it.
fn written(text: &str) -> (tempfile::NamedTempFile, Settings) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let settings = Settings {
        script: Some(file.path().to_owned()),
        script_arguments: vec!["one".into(), "2".into()],
        ..settings(10)
    };
    (file, settings)
}

fn loaded(text: &str) -> Box<dyn Script> {
    let (_file, settings) = written(text);
    script(&settings, 0).unwrap()
}

fn fault(text: &str) -> String {
    let (file, settings) = written(text);
    let why = match script(&settings, 0) {
        Ok(mut script) => {
            let incoming = Incoming { data: b"x", ..Incoming::default() };
            let said = [
                script.request(&CONN).err(),
                script.hooks().delay.then(|| script.delay(&CONN).err()).flatten(),
                script.connected(&CONN).err(),
                script.message(&CONN, &incoming).err(),
            ];
            said.into_iter().flatten().next().expect(text)
        }
        Err(why) => why,
    };
    why.replace(&file.path().display().to_string(), "FILE")
}

const CONN: Conn<'static> = Conn { number: 3, user: "u000003", login: 1 };

fn text(data: &str) -> Operation {
    Operation::Message { data: data.as_bytes().to_vec(), kind: MessageKind::Text }
}

#[test]
fn a_string_is_a_message_and_nothing_is_idle() {
    let mut script = loaded("function request(c) if c.number == 3 then return 'hello ' .. c.user end end");
    assert_eq!(script.request(&CONN).unwrap(), text("hello u000003"));
    assert_eq!(script.request(&Conn { number: 4, ..CONN }).unwrap(), Operation::Idle);
}

#[test]
fn hooks_that_are_absent_are_not_called() {
    let hooks = loaded("function request() return 'x' end function closed() end").hooks();
    assert!(hooks.request && hooks.closed);
    assert!(!hooks.connected && !hooks.delay && !hooks.message && !hooks.response);
}

#[test]
fn every_operation_can_be_made() {
    for (made, operation) in [
        ("pinion.message('a')", text("a")),
        (
            "pinion.message('a', 'binary')",
            Operation::Message { data: b"a".to_vec(), kind: MessageKind::Binary },
        ),
        ("pinion.request(1001, '\\0x')", Operation::Request { identifier: 1001, data: b"\0x".to_vec() }),
        ("pinion.chat(pinion.user(7), 50)", Operation::Chat { to: "u000007".into(), bytes: 50 }),
        ("pinion.push('u', 9)", Operation::Push { users: vec!["u".into()], bytes: 9 }),
        ("pinion.push({'u', 'v'})", Operation::Push { users: vec!["u".into(), "v".into()], bytes: 100 }),
        (
            "pinion.post('http://127.0.0.1:9/p?x', 'b')",
            Operation::Post {
                address: "127.0.0.1:9".parse().unwrap(),
                path: "/p?x".into(),
                body: b"b".to_vec(),
            },
        ),
        ("pinion.reconnect()", Operation::Reconnect { how: Ending::Close }),
        ("pinion.reconnect('drop')", Operation::Reconnect { how: Ending::Drop }),
        ("pinion.stall(250)", Operation::Stall { milliseconds: 250 }),
        ("pinion.idle()", Operation::Idle),
    ] {
        let mut script = loaded(&format!("function request() return {made} end"));
        assert_eq!(script.request(&CONN).unwrap(), operation, "{made}");
        assert_eq!(script.request(&CONN).unwrap(), operation, "{made} once more");
    }
}

#[test]
fn init_gets_the_arguments_and_setup_the_thread() {
    let source = "local count = 0
        function setup(thread) thread:set('mine', count); count = count + 1; assert(thread.addr == '127.0.0.1:1') end
        function init(args) first, second = args[1], tonumber(args[2]) end
        function request() return first .. second .. wrk.thread:get('mine') end";
    let (_file, settings) = written(source);
    for thread in 0..2 {
        let mut script = script(&settings, thread).unwrap();
        assert_eq!(script.request(&CONN).unwrap(), text(&format!("one2{thread}")));
    }
}

#[test]
fn a_script_of_wrks_works() {
    let mut script = loaded("wrk.method = 'POST'\nwrk.body = 'static'\nwrk.headers['X'] = 'y'");
    assert!(script.hooks().request);
    assert_eq!(script.request(&CONN).unwrap(), text("static"));
    let mut script = loaded(
        "function request() return wrk.format(nil, wrk.path, nil, wrk.scheme .. wrk.host .. wrk.port) end",
    );
    assert!(
        matches!(script.request(&CONN).unwrap(), Operation::Message { data, .. } if data.starts_with(b"ws"))
    );
}

#[test]
fn what_comes_reaches_the_script_and_conn_is_its_to_keep_things_in() {
    let mut script = loaded(
        "function connected(c) c.logins = (c.logins or 0) + 1; return {'one', pinion.stall(5)} end
         function message(c, m) return m.data .. m.identifier .. m.code .. m.error .. c.logins .. c.login end
         function response(status, headers, body, c)
             assert(status == 7 and headers.error == 'bad' and body == 'data' and c.number == 3)
         end
         function closed(c, code, reason) return code == 1001 and reason == 'gone' end
         function delay() return 1.5 end",
    );
    let operations = script.connected(&CONN).unwrap();
    assert_eq!(operations, [text("one"), Operation::Stall { milliseconds: 5 }]);
    let incoming = Incoming { identifier: 2001, code: 7, error: "bad", data: b"data" };
    assert_eq!(script.message(&Conn { login: 2, ..CONN }, &incoming).unwrap(), [text("data20017bad12")]);
    script.response(&CONN, &incoming).unwrap();
    assert!(script.closed(&CONN, 1001, "gone").unwrap() && !script.closed(&CONN, 1000, "gone").unwrap());
    assert_eq!(script.delay(&CONN).unwrap(), Duration::from_micros(1500));
}

#[test]
fn faults_name_file_line_and_what_was_wrong() {
    for (source, says) in [
        ("function request(", "FILE:1: "),
        ("\nerror('on loading')", "FILE:2: on loading"),
        ("function init()\n local x = nil + 1 end", "FILE:2: attempt to perform arithmetic"),
        ("\n\nfunction request() return 5 end", "FILE:3: the script's request returned a "),
        ("function request() return {} end", "must return a string or what pinion.message"),
        ("function request()\n local p = pinion.push(5) return p end", "FILE:2: pinion.push: users is a "),
        ("function request()\n return pinion.reconnect('x') end", "FILE:1: pinion.reconnect: \"x\""),
        ("function request()\n return pinion.post('x', '') end", "FILE:1: pinion.post: \"x\""),
        (
            "function request() return 'x' end\nfunction delay() return -1 end",
            "FILE:2: the script's delay returned -1",
        ),
        ("function request() return 'x' end\nfunction delay() end", "must return milliseconds"),
        ("request = 5", "the script's request is a "),
        ("function connected() error('there') end", "FILE:1: there"),
        ("function message() error('here') end", "FILE:1: here"),
    ] {
        let why = fault(source);
        assert!(why.contains(says), "{source}: {why}");
    }
    let missing = Settings { script: Some("/nowhere.lua".into()), ..settings(1) };
    assert!(check(&missing).unwrap_err().starts_with("/nowhere.lua: "));
}

#[test]
fn done_gets_the_summary_and_the_latencies() {
    let source = "function done(summary, latency, requests)
        assert(summary.requests == 2 and summary.duration == 1e6 and summary.errors.connect == 3)
        assert(summary.deliveries == 0 and summary.connections == 10)
        assert(math.abs(latency.min - 1000) < 2 and math.abs(latency.max - 3000) < 4)
        assert(math.abs(latency.mean - 2000) < 4 and math.abs(latency.stdev - 1000) < 4)
        assert(math.abs(latency:percentile(99) - 3000) < 4)
        assert(#latency == 2)
        local value, count = latency(1)
        assert(math.abs(value - 1000) < 2 and count == 1)
        assert(math.abs(requests.max - 2) < 0.1)
        error('all of it is right')
    end";
    let (_file, settings) = written(source);
    let mut tally =
        Tally { answered: 2, errors: Errors { connect: 3, ..Errors::default() }, ..Tally::default() };
    tally.latency.record(1_000_000);
    tally.latency.record(3_000_000);
    let outcome = Outcome {
        tally,
        connect_seconds: 0.5,
        seconds: 1.0,
        open: 10,
        server: None,
        server_connecting: None,
        own_cpu_seconds: 0.1,
        own_connect_cpu_seconds: 0.0,
        processes: 1,
        timeline: vec![Second { answered: 2, ..Second::default() }],
    };
    let why = done(&settings, &outcome).unwrap_err();
    assert!(why.ends_with("all of it is right"), "{why}");
}

#[test]
fn every_shipped_script_loads_and_says_how_to_run_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "lua") {
            continue;
        }
        count += 1;
        let source = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(source.contains(&format!("-s bench/scripts/{name}")), "{name}: no command at its head");
        check(&Settings { script: Some(path.clone()), ..settings(20) }).unwrap();
    }
    assert!(count >= 10, "{count} scripts in {folder}");
}
