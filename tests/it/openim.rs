//! OpenIM's service with real connections behind it, in both dialects (spec 4.3 to 4.6).

use pinion::ids::Platform;
use pinion::pb::grpc::health::{HealthCheckRequest, HealthCheckResponse};
use pinion::pb::open_im_server::msggateway as legacy;
use pinion::pb::openim::msggateway as pb;
use pinion::pb::openim::sdkws::SetAppBackgroundStatusReq;
use pinion::rpc::client::{CallError, call_once};
use prost::Message;

use crate::harness::{CALL_DEADLINE_MS, Client, Frame, Gateway, Options, eventually, text_message};

const NEWER: &str = "openim.msggateway.msgGateway";
const OLDER: &str = "OpenIMServer.msggateway.msgGateway";
const PUSH: &str = "SuperGroupOnlineBatchPushOneMsg";
/// A phone, the phone that is pushed to in the background, a browser, and the two that no kick reaches.
const PLATFORMS: [i64; 5] = [1, 2, 5, 10, 11];

fn call<A: Message + Default>(
    gateway: &Gateway,
    (service, method): (&str, &str),
    request: &impl Message,
) -> Result<A, CallError> {
    let metadata = [("operationid", "it"), ("opuserid", "imAdmin")];
    let path = format!("/{service}/{method}");
    let answer = call_once(gateway.grpc, &path, &metadata, request.encode_to_vec().into(), CALL_DEADLINE_MS)?;
    Ok(A::decode(answer).unwrap())
}

/// A user on all of [`PLATFORMS`], with the tokens used; both phones are in the background.
fn user_everywhere(gateway: &Gateway) -> (Vec<Client>, Vec<String>) {
    let tokens: Vec<String> = PLATFORMS.iter().map(|platform| gateway.token("u", *platform)).collect();
    let mut clients: Vec<Client> = PLATFORMS
        .iter()
        .zip(&tokens)
        .map(|(platform, token)| {
            Client::connect(gateway.websocket, "u", *platform, token, &Options::default()).unwrap()
        })
        .collect();
    for phone in clients.iter_mut().take(2) {
        let request = SetAppBackgroundStatusReq { user_id: "u".into(), is_background: true };
        assert_eq!(phone.request(2004, &request).err_code, 0);
    }
    (clients, tokens)
}

#[test]
fn a_push_is_reported_per_device_in_both_dialects() {
    let gateway = Gateway::start(&["--rpc-legacy-service", "true"]);
    let (mut clients, _) = user_everywhere(&gateway);
    let request = pb::OnlineBatchPushOneMsgReq {
        msg_data: Some(text_message("sender", "u", "hello")),
        push_to_user_i_ds: vec!["u".into(), "absent".into(), "u".into()],
    };
    let answer: pb::OnlineBatchPushOneMsgResp = call(&gateway, (NEWER, PUSH), &request).unwrap();
    let rows: Vec<_> = answer
        .single_push_result
        .iter()
        .map(|r| {
            let row =
                |d: &pb::SingleMsgToUserPlatform| (d.result_code, d.recv_id.clone(), d.recv_plat_form_id);
            (r.user_id.as_str(), r.online_push, r.resp.iter().map(row).collect::<Vec<_>>())
        })
        .collect();
    let none = String::new;
    let devices = vec![(1604, none(), 1), (0, none(), 2), (0, none(), 5), (0, none(), 10), (0, none(), 11)];
    let here = ("u", true, devices);
    assert_eq!(rows, [here.clone(), ("absent", false, Vec::new()), here]);

    let answer: legacy::OnlineBatchPushOneMsgResp = call(&gateway, (OLDER, PUSH), &request).unwrap();
    let result = &answer.single_push_result[2];
    let rows: Vec<_> =
        result.resp.iter().map(|d| (d.result_code, d.recv_id.as_str(), d.recv_plat_form_id)).collect();
    assert_eq!((result.online_push, rows), (true, vec![(-3, "u", 1), (0, "u", 2)]));

    for client in &mut clients[1..] {
        for _ in 0..4 {
            let message = client.push().msgs.into_values().next().unwrap().msgs.remove(0);
            assert_eq!(message, text_message("sender", "u", "hello"));
        }
    }
}

#[test]
fn status_kicks_and_logins_elsewhere_in_both_dialects() {
    let gateway = Gateway::start(&["--rpc-legacy-service", "true"]);
    let (mut clients, tokens) = user_everywhere(&gateway);
    let asked = pb::GetUsersOnlineStatusReq { user_i_ds: vec!["absent".into(), "u".into()] };

    let answer: pb::GetUsersOnlineStatusResp =
        call(&gateway, (NEWER, "GetUsersOnlineStatus"), &asked).unwrap();
    let [user] = &answer.success_result[..] else { panic!("{answer:?}") };
    assert_eq!((user.user_id.as_str(), user.status), ("u", 1));
    let answer: legacy::GetUsersOnlineStatusResp =
        call(&gateway, (OLDER, "GetUsersOnlineStatus"), &asked).unwrap();
    let [older] = &answer.success_result[..] else { panic!("{answer:?}") };
    assert_eq!((older.user_id.as_str(), older.status.as_str()), ("u", "online"));
    let pairs = user.detail_platform_status.iter().zip(&older.detail_platform_status);
    for (n, (new, old)) in pairs.enumerate() {
        assert_eq!((i64::from(new.platform_id), &new.token), (PLATFORMS[n], &tokens[n]), "in login order");
        assert_eq!((new.is_background, new.conn_id.len()), (n < 2, 32));
        let name = Platform::new(PLATFORMS[n]).unwrap().name();
        assert_eq!((old.platform.as_str(), old.status.as_str()), (name, "online"));
        assert_eq!(
            (&old.conn_id, old.is_background, &old.token),
            (&new.conn_id, new.is_background, &new.token)
        );
    }

    let kick =
        pb::KickUserOfflineReq { platform_id: 5, kick_user_id_list: vec!["u".into(), "absent".into()] };
    call::<pb::KickUserOfflineResp>(&gateway, (NEWER, "KickUserOffline"), &kick).unwrap();
    // The login policy kicks the older login of that platform, unless it has the very token.
    for (token, platform_id) in [("another", 2), (tokens[0].as_str(), 1)] {
        let login = pb::MultiTerminalLoginCheckReq { user_id: "u".into(), platform_id, token: token.into() };
        call::<pb::MultiTerminalLoginCheckResp>(&gateway, (OLDER, "MultiTerminalLoginCheck"), &login)
            .unwrap();
    }
    for client in &mut clients[1..3] {
        assert!(matches!(client.next(), Frame::Response(kicked) if kicked.id == 2002));
        client.closed();
    }
    let answer: pb::GetUsersOnlineStatusResp =
        call(&gateway, (NEWER, "GetUsersOnlineStatus"), &asked).unwrap();
    let left = answer.success_result[0].detail_platform_status.iter().map(|d| d.platform_id);
    assert_eq!(left.collect::<Vec<_>>(), [1, 10, 11]);
}

#[test]
fn the_older_service_is_served_when_asked_for_only() {
    let gateway = Gateway::start(&[]);
    let refused = |service: &str| {
        let kick = pb::KickUserOfflineReq { platform_id: 5, kick_user_id_list: vec!["u".into()] };
        match call::<pb::KickUserOfflineResp>(&gateway, (service, "KickUserOffline"), &kick) {
            Ok(_) => None,
            Err(CallError::Refused(status)) => Some((status.code, status.message)),
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(refused(NEWER), None);
    assert_eq!(refused(OLDER), Some((12, format!("unknown service {OLDER}"))));
    let health = |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        call::<HealthCheckResponse>(&gateway, ("grpc.health.v1.Health", "Check"), &request).map(|a| a.status)
    };
    // The banner may be a moment ahead of the node's state.
    eventually("a serving node", || (health("").unwrap() == 1).then_some(()));
    assert_eq!(health(NEWER).unwrap(), 1);
    assert!(matches!(health(OLDER), Err(CallError::Refused(status)) if status.code == 5));
}
