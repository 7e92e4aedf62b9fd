//! What OpenIM's dashboards read at `/metrics` (spec 11.4): `online_user_num` and `rpc_count`.

use pinion::pb::openim::msggateway::{KickUserOfflineReq, KickUserOfflineResp, OnlineBatchPushOneMsgReq};
use pinion::rpc::client::call_once;
use prost::Message as _;

use crate::harness::{CALL_DEADLINE_MS, Client, Frame, Gateway, eventually};

const KICKED: i32 = 2002;

fn await_online(gateway: &Gateway, wanted: f64, when: &str) {
    eventually(when, || (gateway.metrics().sum("online_user_num", &[]) == wanted).then_some(()));
}

fn kicked(mut client: Client) {
    assert!(matches!(client.next(), Frame::Response(frame) if frame.id == KICKED));
    client.closed();
}

#[test]
fn online_user_num_is_the_count_of_distinct_users_whatever_ends_their_connections() {
    // Spec 8.5: upstream's own drifts with kicks and double unregistrations.
    let gateway = Gateway::start(&["--shards-count", "2"]);
    await_online(&gateway, 0.0, "before the first login");
    let first = gateway.connect("alice", 1);
    let browser = gateway.connect("alice", 5);
    let others: Vec<_> = (0..6).map(|n| gateway.connect(&format!("user{n}"), 1)).collect();
    await_online(&gateway, 7.0, "two platforms of alice are one user");
    let second = gateway.connect("alice", 1);
    kicked(first);
    await_online(&gateway, 7.0, "a login that kicks another of its user");
    drop(browser);
    await_online(&gateway, 7.0, "one of two platforms left");
    let kick =
        KickUserOfflineReq { platform_id: 1, kick_user_id_list: vec!["alice".into(), "nobody".into()] };
    let metadata = [("operationid", "it"), ("opuserid", "imAdmin")];
    gateway.call::<KickUserOfflineResp>("KickUserOffline", &metadata, &kick).unwrap();
    gateway.call::<KickUserOfflineResp>("KickUserOffline", &metadata, &kick).unwrap();
    kicked(second);
    await_online(&gateway, 6.0, "kicked twice, gone once");
    let again = gateway.connect("alice", 1);
    await_online(&gateway, 7.0, "back");
    drop((again, others));
    await_online(&gateway, 0.0, "all lost");
}

#[test]
fn rpc_count_has_every_call_of_openim_by_path_and_outcome_and_no_other() {
    let gateway = Gateway::start(&["--rpc-legacy-service", "true"]);
    let metadata = [("operationid", "it"), ("opuserid", "imAdmin")];
    let call = |service: &str, method: &str, body: Vec<u8>| {
        let path = format!("/{service}/{method}");
        call_once(gateway.grpc, &path, &metadata, body.into(), CALL_DEADLINE_MS).is_ok()
    };
    const OPENIM: &str = "openim.msggateway.msgGateway";
    let kick = |platform_id| {
        let kick_user_id_list = vec!["alice".into()];
        KickUserOfflineReq { platform_id, kick_user_id_list }.encode_to_vec()
    };
    assert!(call(OPENIM, "KickUserOffline", kick(1)) && call(OPENIM, "KickUserOffline", kick(2)));
    assert!(!call(OPENIM, "KickUserOffline", kick(10)), "platform 10 is refused");
    assert!(!call(OPENIM, "OnlineBatchPushOneMsg", OnlineBatchPushOneMsgReq::default().encode_to_vec()));
    assert!(!call(OPENIM, "NoSuchMethod", Vec::new()));
    assert!(
        call("OpenIMServer.msggateway.msgGateway", "KickUserOffline", kick(1)),
        "OpenIM 3.5 has no rpc_count"
    );
    assert!(call("grpc.health.v1.Health", "Check", Vec::new()));
    eventually("all calls", || (gateway.metrics().sum("pinion_rpc_calls_total", &[]) == 7.0).then_some(()));
    let metrics = gateway.metrics();
    for (method, code, wanted) in [
        ("KickUserOffline", "0", 2.0),
        ("KickUserOffline", "-1", 1.0),
        ("OnlineBatchPushOneMsg", "0", 0.0),
        ("OnlineBatchPushOneMsg", "-1", 1.0),
    ] {
        let path = format!("path=\"/{OPENIM}/{method}\"");
        let labels = ["name=\"messagegateway-rpc-service\"", &path, &format!("code=\"{code}\"")];
        assert_eq!(metrics.sum("rpc_count", &labels), wanted, "{method} {code}");
    }
    assert_eq!(metrics.sum("rpc_count", &[]), 4.0, "and nothing else");
}
