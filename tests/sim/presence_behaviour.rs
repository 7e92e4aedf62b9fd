//! What a hub's presence records say besides who is online: where users logged in, and, for webhooks (spec 11.6), which
//! connections came, left and were kicked.

use pinion::hub::mail::{KickMail, RemoteLoginMail, ShardMail};
use pinion::hub::upstream::{ConnectionMark, ConnectionNews, LoginPlace, PresenceRecord};
use pinion::hub::{HubConfig, Input};
use pinion::ids::{Platform, Text};
use pinion::limits;
use pinion::pb::openim::sdkws::SetAppBackgroundStatusReq;
use prost::Message as _;

use crate::rig::{Rig, config, ticket};

const IOS: i32 = 1;

fn rig() -> Rig {
    Rig::new(HubConfig { names_connections: true, announces_logins: true, ..config() })
}

fn record(rig: &mut Rig) -> PresenceRecord {
    let record = rig.hub.next_presence().expect("something has changed");
    assert_eq!(rig.hub.next_presence(), None, "one user has one record");
    record
}

/// His connections, as `GetUsersOnlineStatus` names them.
fn marks(rig: &mut Rig) -> Vec<ConnectionMark> {
    let users = rig.status("u");
    let devices = users.into_iter().flat_map(|user| user.devices);
    let mark = devices.map(|device| ConnectionMark {
        platform: device.platform.id(),
        connection_id: device.connection_id,
        background: device.background,
    });
    mark.collect()
}

fn login_elsewhere(rig: &mut Rig) {
    rig.input(Input::Mail(ShardMail::RemoteLogin(Box::new(RemoteLoginMail {
        ticket: ticket(8),
        operation_id: Text::from("remote"),
        user: Text::from("u"),
        platform: Platform::IOS,
        token: Text::from("another"),
        judge: pinion::hub::mail::Judge::Shard,
    }))));
    rig.turn();
}

fn kick_call(rig: &mut Rig) {
    rig.input(Input::Mail(ShardMail::Kick(Box::new(KickMail {
        ticket: ticket(7),
        platform: Platform::IOS,
        users: vec![Text::from("u")],
    }))));
    rig.turn();
}

fn login_here(rig: &mut Rig) {
    rig.log_in("u", Platform::IOS);
}

#[test]
fn records_name_the_connections_that_are_there_and_the_one_that_left() {
    let mut rig = rig();
    let conn = rig.log_in("u", Platform::IOS);
    let here = marks(&mut rig);
    assert_eq!((here.len(), here[0].connection_id.len(), here[0].background), (1, 32, false));
    let expected = PresenceRecord {
        user: "u".into(),
        online: vec![IOS],
        offline: vec![],
        logins: vec![(IOS, LoginPlace::Here)],
        connections: Some(Box::new(ConnectionNews { here, ..ConnectionNews::default() })),
    };
    assert_eq!(record(&mut rig), expected);
    let body = SetAppBackgroundStatusReq { user_id: "u".into(), is_background: true }.encode_to_vec();
    rig.request(conn, "u", (2004, "bg"), &body);
    rig.read(conn);
    let left = marks(&mut rig);
    assert!(left[0].background);
    rig.input(Input::TransportLost(conn));
    rig.input(Input::TransportClosed(conn));
    rig.turn();
    let expected = PresenceRecord {
        user: "u".into(),
        offline: vec![IOS],
        connections: Some(Box::new(ConnectionNews { left, ..ConnectionNews::default() })),
        ..PresenceRecord::default()
    };
    assert_eq!(record(&mut rig), expected);
}

/// By a login here, by one on another gateway, by `KickUserOffline` (spec 11.6: the webhook that OpenIM never sends).
#[test]
fn each_kick_is_named_once_however_it_came() {
    /// Who does it; who is online then; which logins are told.
    type Row = (fn(&mut Rig), &'static [i32], &'static [(i32, LoginPlace)]);
    let table: [Row; 3] = [
        (login_here, &[IOS], &[(IOS, LoginPlace::Here)]),
        (login_elsewhere, &[], &[(IOS, LoginPlace::Elsewhere)]),
        (kick_call, &[], &[]),
    ];
    for (kick, online, logins) in table {
        let mut rig = rig();
        let conn = rig.log_in("u", Platform::IOS);
        let left = marks(&mut rig);
        record(&mut rig);
        kick(&mut rig);
        rig.read(conn);
        // Whatever happens to it now, it was kicked once.
        kick_call_of_nobody(&mut rig);
        rig.input(Input::TransportLost(conn));
        rig.input(Input::TransportClosed(conn));
        rig.wait(limits::FLUSH_DEADLINE_MS + limits::TICK_MS);
        let PresenceRecord { online: there, logins: told, connections, offline, .. } = record(&mut rig);
        let news = connections.expect("webhooks want them");
        assert_eq!((&*there, &*told, &*offline), (online, logins, &[IOS][..]));
        assert_eq!((news.kicked, news.left), (vec![IOS], left));
    }
}

/// Of a platform on which he is not.
fn kick_call_of_nobody(rig: &mut Rig) {
    rig.input(Input::Mail(ShardMail::Kick(Box::new(KickMail {
        ticket: ticket(9),
        platform: Platform::ANDROID,
        users: vec![Text::from("u")],
    }))));
}

#[test]
fn nobody_wants_to_know_of_connections_unless_there_are_webhooks() {
    let mut rig = Rig::new(config());
    login_here(&mut rig);
    login_here(&mut rig);
    kick_call(&mut rig);
    login_elsewhere(&mut rig);
    let PresenceRecord { logins, connections, .. } = record(&mut rig);
    // Nor of logins elsewhere, if there is no elsewhere.
    assert_eq!((logins, connections), (vec![(IOS, LoginPlace::Here)], None));
}

/// The record is made when it is taken: it says where the newest login was, and who is there now.
#[test]
fn a_login_elsewhere_is_told_of_users_who_are_not_here_too() {
    let mut rig = rig();
    login_elsewhere(&mut rig);
    let told = record(&mut rig);
    assert_eq!((told.online, told.offline), (vec![], vec![]));
    assert_eq!(told.logins, [(IOS, LoginPlace::Elsewhere)]);
    login_elsewhere(&mut rig);
    login_here(&mut rig);
    assert_eq!(record(&mut rig).logins, [(IOS, LoginPlace::Here)]);
}
