//! Several gateways with a list of each other: a push at any of them reaches a client at any other, once, and says
//! whether anybody can be missing.

use std::net::TcpListener;

use pinion::pb::openim::msggateway::{
    GetUsersOnlineStatusReq, GetUsersOnlineStatusResp, KickUserOfflineReq, KickUserOfflineResp,
    OnlineBatchPushOneMsgReq, OnlineBatchPushOneMsgResp,
};
use pinion::pb::openim::sdkws::MsgData;
use pinion::pb::pinion::v1::{Outcome, PushBatch, PushVerdicts, UserVerdict};
use pinion::placement::view::{Epoch, Member, NodeId, View};
use pinion::placement::{Algorithm, Placement};
use pinion::rpc::client::call_once;
use prost::Message;

use crate::drain::post;
use crate::harness::{
    CALL_DEADLINE_MS, Frame, Gateway, eventually, pinion, push_message, run, text_message, texts,
};

/// Gateways that know each other by a file.
pub struct Cluster {
    pub gateways: Vec<Gateway>,
    placement: Placement,
    _folder: tempfile::TempDir,
}

/// A port that nobody listens on now: the list must have it before its gateway starts.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Cluster {
    pub fn start(nodes: &[&str], push_mode: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("members");
        let ports: Vec<u16> = nodes.iter().map(|_| free_port()).collect();
        let line = |(id, port): (&&str, &u16)| format!("{id} rpc=127.0.0.1:{port}\n");
        let lines: String = nodes.iter().zip(&ports).map(line).collect();
        std::fs::write(&list, format!("placement rendezvous\n{lines}")).unwrap();
        // None is ready before it has met the others.
        let starts = nodes.iter().zip(&ports).map(|(id, port)| {
            let (id, list, listen) =
                (id.to_string(), list.to_str().unwrap().to_owned(), format!("127.0.0.1:{port}"));
            std::thread::spawn(move || {
                Gateway::start(&[
                    "--shards-count",
                    "2",
                    "--rpc-listen",
                    &listen,
                    "--cluster-source",
                    "static",
                    "--cluster-node-id",
                    &id,
                    "--cluster-members",
                    &list,
                    "--cluster-push-mode",
                    push_mode,
                ])
            })
        });
        let starts: Vec<_> = starts.collect();
        let gateways = starts.into_iter().map(|start| start.join().unwrap()).collect();
        let members = nodes.iter().map(|id| Member::new(NodeId::new(id).unwrap())).collect();
        let placement = View::new(Epoch(1), members).placement(&Algorithm::Rendezvous);
        let cluster = Self { gateways, placement, _folder: folder };
        for gateway in &cluster.gateways {
            eventually("a fit node with all its links", || {
                let (status, text) = gateway.get("/readyz").unwrap();
                (status == 200 && text == "ready\n").then_some(())
            });
        }
        cluster
    }

    /// A user who belongs to that node.
    pub fn user_of(&self, node: &str, mark: &str) -> String {
        let home = |user: &String| self.placement.home(user).is_some_and(|home| home.as_str() == node);
        (0..).map(|n| format!("{mark}{n}")).find(home).unwrap()
    }
}

/// One message by `pinion.v1.Push/Send`; what became of it for each user.
fn send(gateway: &Gateway, users: &[&str], text: &str) -> Vec<UserVerdict> {
    let batch = PushBatch { messages: vec![push_message(1, users, text)] };
    let message = batch.encode_to_vec().into();
    let answer = call_once(gateway.grpc, "/pinion.v1.Push/Send", &[], message, CALL_DEADLINE_MS).unwrap();
    let verdicts = PushVerdicts::decode(answer).unwrap().verdicts;
    assert!(verdicts[0].last);
    verdicts[0].users.clone()
}

fn outcomes(verdict: &UserVerdict) -> Vec<Outcome> {
    verdict.devices.iter().map(|device| device.outcome()).collect()
}

/// A message with an id of its own, as OpenIM's push service sends it.
fn openim_push(gateway: &Gateway, user: &str, text: &str) -> OnlineBatchPushOneMsgResp {
    let request = OnlineBatchPushOneMsgReq {
        msg_data: Some(MsgData { server_msg_id: text.to_owned(), ..text_message("sender", user, text) }),
        push_to_user_i_ds: vec![user.to_owned()],
    };
    let metadata = [("operationid", "it-push"), ("opuserid", "sender")];
    gateway.call("SuperGroupOnlineBatchPushOneMsg", &metadata, &request).unwrap()
}

fn reached(answer: &OnlineBatchPushOneMsgResp) -> (usize, bool) {
    assert_eq!(answer.single_push_result.len(), 1);
    (answer.single_push_result[0].resp.len(), answer.single_push_result[0].online_push)
}

#[test]
fn a_push_at_any_node_reaches_a_stray_once_and_a_dead_node_is_named() {
    let mut cluster = Cluster::start(&["a", "b", "c"], "route");
    let (stray, resident) = (cluster.user_of("b", "u"), cluster.user_of("c", "r"));
    let mut at_a = cluster.gateways[0].connect(&stray, 1);
    let mut also = cluster.gateways[2].connect(&resident, 1);
    for (round, gateway) in cluster.gateways.iter().enumerate() {
        let text = format!("round {round}");
        let verdicts = send(gateway, &[&stray, &resident, "nobody"], &text);
        for verdict in &verdicts {
            assert_eq!((verdict.complete, verdict.unaccounted.len()), (Some(true), 0), "{verdict:?}");
            let reached = if verdict.user_id == "nobody" { vec![] } else { vec![Outcome::Written] };
            assert_eq!(outcomes(verdict), reached, "{verdict:?}");
        }
        assert_eq!((at_a.pushed_text(), also.pushed_text()), (text.clone(), text));
    }

    // OpenIM's push service asks one node, whichever; what comes to two is delivered once.
    assert_eq!(reached(&openim_push(&cluster.gateways[2], &stray, "once")), (1, true));
    assert_eq!(at_a.pushed_text(), "once");
    assert_eq!(reached(&openim_push(&cluster.gateways[1], &stray, "once")), (1, true));
    assert_eq!(reached(&openim_push(&cluster.gateways[1], "nobody", "for nobody")), (0, false));
    let doubled = |gateway: &Gateway| gateway.metrics().sum("pinion_cluster_doubled_messages_total", &[]);
    eventually("the double is counted", || (doubled(&cluster.gateways[0]) >= 1.0).then_some(()));
    send(&cluster.gateways[1], &[&stray], "after");
    assert_eq!(at_a.pushed_text(), "after", "the double was not delivered");

    // So do questions and kicks.
    let metadata = [("operationid", "it-status"), ("opuserid", "imAdmin")];
    let question = GetUsersOnlineStatusReq { user_i_ds: vec![stray.clone(), "nobody".into()] };
    let answer: GetUsersOnlineStatusResp =
        cluster.gateways[2].call("GetUsersOnlineStatus", &metadata, &question).unwrap();
    let online: Vec<(&str, usize)> = answer
        .success_result
        .iter()
        .map(|result| (result.user_id.as_str(), result.detail_platform_status.len()))
        .collect();
    assert_eq!(online, [(stray.as_str(), 1)]);
    let kick = KickUserOfflineReq { platform_id: 1, kick_user_id_list: vec![stray.clone()] };
    let _: KickUserOfflineResp = cluster.gateways[1].call("KickUserOffline", &metadata, &kick).unwrap();
    while !matches!(at_a.next(), Frame::Close(_) | Frame::Gone(_)) {}
    eventually("he is gone", || {
        let verdict = send(&cluster.gateways[2], &[&stray], "nobody there").remove(0);
        (verdict.outcome() == Outcome::NotHere && verdict.complete == Some(true)).then_some(())
    });

    // kill -9: whoever is reached is reported, and who may be missing is named.
    drop(cluster.gateways.remove(0));
    let verdict = eventually("the dead node is named", || {
        let verdict = send(&cluster.gateways[0], &[&resident], "still").remove(0);
        assert_eq!(outcomes(&verdict), [Outcome::Written], "{verdict:?}");
        (verdict.complete == Some(false)).then_some(verdict)
    });
    assert_eq!(verdict.unaccounted, ["a"]);
    let (status, text) = cluster.gateways[0].get("/readyz").unwrap();
    let said =
        "ready\ncluster: not linked to a: pushes are not complete; if it is dead for good: pinion forget a\n";
    assert_eq!((status, text.as_str()), (200, said));
    let (status, json) = cluster.gateways[0].get("/v1/cluster").unwrap();
    let view: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((status, &view["node_id"], &view["unlinked"][0]), (200, &"b".into(), &"a".into()));
    assert_eq!((&view["fit"], &view["members"][2]["linked"]), (&true.into(), &true.into()));
    the_dead_are_forgotten_and_nobody_else(&cluster, &resident);
}

/// Of the nodes a, b and c the first is dead.
fn the_dead_are_forgotten_and_nobody_else(cluster: &Cluster, user: &str) {
    let b = &cluster.gateways[0];
    let http = b.http.to_string();
    let forget = |node: &str| texts(&run(pinion(&["forget", node, "--http", &http])));
    for (node, said) in [
        ("b", "b is this node, which lives"),
        ("c", "c lives: this node is linked to it; end its process first"),
        ("d", "no node d is known here; the others are a, c"),
    ] {
        let (code, _, err) = forget(node);
        assert!(code == 2 && err.contains(said), "{node}: {code} {err}");
    }
    let (status, why) = post(b, "/v1/forget?node=a&incarnation=7");
    assert!(status == 400 && why.starts_with("400: a has incarnation "), "{status} {why}");
    assert!(why.ends_with(" here, not 7; look at GET /v1/cluster again\n"), "{why}");
    assert_eq!(send(b, &[user], "yet").remove(0).complete, Some(false), "nothing has changed");
    // Twice: it is true already.
    for _ in 0..2 {
        let (code, out, err) = forget("a");
        assert!(code == 0 && out.starts_with("forgotten here"), "{code} {out} {err}");
    }
    assert_eq!(b.get("/readyz").unwrap(), (200, "ready\n".to_owned()));
    // The user's home waits for it until it is told, too: nothing but their lists tells them.
    assert_eq!(send(b, &[user], "again").remove(0).unaccounted, ["a"]);
    let http = cluster.gateways[1].http.to_string();
    assert_eq!(texts(&run(pinion(&["forget", "a", "--http", &http]))).0, 0);
    assert_eq!(send(b, &[user], "at last").remove(0).complete, Some(true));
}

/// Recipients of other nodes whose message only this node has, and others too.
fn heard_by(gateway: &Gateway, wanted: [f64; 2]) {
    let family = "pinion_cluster_local_elsewhere_total";
    let count = |by: &str| gateway.metrics().sum(family, &[&format!("heard_by=\"{by}\"")]);
    eventually(&format!("{wanted:?}"), || {
        (["this_node_only", "others_too"].map(count) == wanted).then_some(())
    });
}

#[test]
fn in_mode_local_a_node_answers_for_its_own_connections_and_counts_the_others() {
    let cluster = Cluster::start(&["a", "b"], "local");
    let user = cluster.user_of("b", "u");
    let mut client = cluster.gateways[0].connect(&user, 1);
    assert_eq!(reached(&openim_push(&cluster.gateways[0], &user, "here")), (1, true));
    assert_eq!(client.pushed_text(), "here");
    // His home has no connection of his, and says so: the push service asks the others itself.
    assert_eq!(reached(&openim_push(&cluster.gateways[1], &user, "there")), (0, false));
    // A push service that asks every gateway, and one that asks one by another hash: those are missed.
    let other = cluster.user_of("a", "v");
    for gateway in &cluster.gateways {
        openim_push(gateway, &other, "everywhere");
    }
    heard_by(&cluster.gateways[1], [0.0, 1.0]);
    openim_push(&cluster.gateways[1], &other, "elsewhere");
    heard_by(&cluster.gateways[1], [1.0, 1.0]);
    heard_by(&cluster.gateways[0], [0.0, 0.0]);
    // An operator who has no list asks any node.
    let members = format!("http://{}", cluster.gateways[0].http);
    let (code, out, err) = texts(&run(pinion(&["route", "where", &user, "--members", &members])));
    let rpc = cluster.gateways[1].grpc;
    assert!(code == 0 && out.contains(&format!("home       b  (rpc {rpc})\n")), "{code} {out} {err}");
    let change = ["route", "rehearse", "--members", &members, "--remove", "a", "--users", "100"];
    let (code, out, err) = texts(&run(pinion(&change)));
    assert!(code == 0 && out.contains("busiest afterwards: b, 1.00 times"), "{code} {out} {err}");
    // Our own API reaches him from everywhere.
    let verdict = send(&cluster.gateways[1], &[&user], "routed").remove(0);
    assert_eq!((outcomes(&verdict), verdict.complete), (vec![Outcome::Written], Some(true)));
    assert_eq!(client.pushed_text(), "routed");
}
