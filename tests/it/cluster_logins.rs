//! Logins of one user on several real nodes with the embedded backend: who stays, whose token ends, and what callers
//! hear of them, as at one node.

use pinion::pb::openim::msggateway::{
    GetUsersOnlineStatusReq, GetUsersOnlineStatusResp, MultiTerminalLoginCheckReq,
    MultiTerminalLoginCheckResp,
};

use crate::cluster::Cluster;
use crate::harness::{Client, Frame, Gateway, Options, eventually};

const IOS: i64 = 1;
/// A kick (spec 3.3).
const KICK: i32 = 2002;

fn log_in(gateway: &Gateway, user: &str, token: &str) -> Client {
    Client::connect(gateway.websocket, user, IOS, token, &Options::default())
        .unwrap_or_else(|e| panic!("{e}"))
}

fn marks(gateway: &Gateway) -> f64 {
    gateway.metrics().sum("pinion_cluster_logins_total", &["outcome=\"marks\""])
}

#[test]
fn a_login_at_one_node_ends_the_older_token_at_all_and_spares_its_own() {
    let cluster = Cluster::start(&["a", "b", "c"], "route");
    let user = cluster.user_of("c", "u");
    let [a, b, c] = &cluster.gateways[..] else { panic!() };
    let (old, new) = (a.token(&user, IOS), a.token(&user, IOS));
    let mut at_a = log_in(a, &user, &old);
    let mut at_b = log_in(b, &user, &new);
    let kicked = loop {
        match at_a.next() {
            Frame::Response(frame) => break frame.id,
            Frame::Control => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(kicked, KICK);
    at_a.closed();
    // b hears that it met a, and ends all tokens but its own; a had seen which, and says so.
    eventually("all nodes have heard of it", || {
        [(a, 1.0), (b, 1.0), (c, 2.0)].iter().all(|(node, least)| marks(node) >= *least).then_some(())
    });
    for node in [a, b, c] {
        match Client::connect(node.websocket, &user, IOS, &old, &Options::default()) {
            Ok(_) => panic!("the older token is good"),
            Err(answer) => assert!(answer.contains("1506"), "{answer}"),
        }
    }

    // The same token at another node: both stay, and pushes reach both.
    let mut at_c = log_in(c, &user, &new);
    eventually("c's login has been judged", || {
        let told = c.metrics().sum("pinion_cluster_logins_total", &["outcome=\"told\""]);
        (told == 1.0).then_some(())
    });
    a.push("sender", &[&user], "to both");
    assert_eq!((at_b.pushed_text(), at_c.pushed_text()), ("to both".to_owned(), "to both".to_owned()));
    let ended = |node: &Gateway| node.metrics().sum("pinion_cluster_logins_total", &["outcome=\"ended\""]);
    assert_eq!([a, b, c].map(ended), [1.0, 0.0, 0.0]);

    // Whichever node is asked: each connection in the order of the logins, with its token.
    let question = GetUsersOnlineStatusReq { user_i_ds: vec![user.clone()] };
    let metadata = [("operationid", "it-status"), ("opuserid", "imAdmin")];
    for node in [a, b, c] {
        let answer: GetUsersOnlineStatusResp =
            node.call("GetUsersOnlineStatus", &metadata, &question).unwrap();
        let details = &answer.success_result[0].detail_platform_status;
        let told: Vec<(i32, &str, bool)> =
            details.iter().map(|d| (d.platform_id, d.token.as_str(), d.is_background)).collect();
        assert_eq!(told, [(1, new.as_str(), false), (1, new.as_str(), false)]);
        assert!(details[0].conn_id != details[1].conn_id && details[0].conn_id.len() == 32);
        assert!(!node.logs().contains(&new) && !node.logs().contains(&old), "a token was logged");
    }
}

/// OpenIM's gateways tell each other of logins (spec 4.6). What a linked node of the cluster tells is judged by the
/// nodes' own protocol: judged here as well, the auth service would hear of it twice.
#[test]
fn a_login_check_of_a_linked_node_is_left_to_the_home() {
    let cluster = Cluster::start(&["a", "b"], "route");
    let user = cluster.user_of("b", "u");
    let [a, _] = &cluster.gateways[..] else { panic!() };
    let mut client = log_in(a, &user, &a.token(&user, IOS));
    let check = |from: &[(&str, &str)]| {
        let request =
            MultiTerminalLoginCheckReq { user_id: user.clone(), platform_id: 1, token: a.token(&user, IOS) };
        let metadata = [&[("operationid", "it-check")], from].concat();
        let _: MultiTerminalLoginCheckResp = a.call("MultiTerminalLoginCheck", &metadata, &request).unwrap();
    };
    check(&[("pinion-node", "b")]);
    a.push("sender", &[&user], "still here");
    assert_eq!(client.pushed_text(), "still here");
    // A node that is not linked, or no node: as ever.
    check(&[("pinion-node", "c")]);
    client.closed();
    let mut client = log_in(a, &user, &a.token(&user, IOS));
    check(&[]);
    client.closed();
}
