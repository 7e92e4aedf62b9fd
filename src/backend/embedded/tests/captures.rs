//! Requests that real clients sent, out of `tests/vectors`.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::*;
use crate::pb::openim::msg::GetConversationsHasReadAndMaxSeqResp;
use crate::pb::openim::sdkws::{GetMaxSeqResp, PullMessageBySeqsResp};

/// (request id, user, `Data`) of every forwarded request that the client of a capture sent.
fn captured(file: &str) -> Vec<(u64, String, Vec<u8>)> {
    let file: serde_json::Value = serde_json::from_str(file).unwrap();
    let requests = file["vectors"].as_array().unwrap().iter().map(|v| &v["req"]);
    requests
        .filter(|req| req.is_object())
        .map(|req| {
            let data = BASE64_STANDARD.decode(req["Data_base64"].as_str().unwrap_or_default());
            let user = req["SendID"].as_str().unwrap().to_owned();
            (req["ReqIdentifier"].as_u64().unwrap(), user, data.unwrap())
        })
        .collect()
}

#[test]
fn real_requests_of_real_clients_get_replies_that_decode() {
    let files = [
        ("native", include_str!("../../../../tests/vectors/openim-native-gob.json"), 0),
        ("wasm", include_str!("../../../../tests/vectors/openim-wasm-gob.json"), 0),
        ("js", include_str!("../../../../tests/vectors/openim-js-json.json"), 0),
        // It sends to a group, which is refused.
        ("offline-group", include_str!("../../../../tests/vectors/openim-native-offline-group.json"), 1),
    ];
    for (name, file, refused_expected) in files {
        let mut backend = backend(HistoryLimits::default());
        let mut refused = 0;
        let mut answered = 0;
        for (id, user, data_bytes) in captured(file) {
            let method = match id {
                1001 => Method::GetMaxSeq,
                1002 => Method::PullMessageBySeqs,
                1003 => Method::SendMsg,
                1006 => Method::GetConversationsHasReadAndMaxSeq,
                2003 => Method::DelUserPushToken,
                _ => continue, // answered by the gateway itself
            };
            let (outcome, pushes) = forward(&mut backend, &user, method, data_bytes);
            if matches!(outcome, UpstreamOutcome::Failed(_)) {
                assert_eq!((code(&outcome), method), (1001, Method::SendMsg), "{name}");
                refused += 1;
                continue;
            }
            answered += 1;
            match method {
                Method::GetMaxSeq => drop(data::<GetMaxSeqResp>(outcome)),
                Method::PullMessageBySeqs => drop(data::<PullMessageBySeqsResp>(outcome)),
                Method::SendMsg => {
                    assert!(!data::<SendMsgResp>(outcome).server_msg_id.is_empty(), "{name}");
                    assert_eq!(users(&pushes[0]), ["u_bob", &*user], "{name}");
                }
                Method::GetConversationsHasReadAndMaxSeq => {
                    drop(data::<GetConversationsHasReadAndMaxSeqResp>(outcome));
                }
                _ => assert_eq!(outcome, UpstreamOutcome::Data(Bytes::new()), "{name}"),
            }
        }
        assert_eq!(refused, refused_expected, "{name}");
        assert!(answered >= 3, "{name}: {answered}");
    }
}

#[test]
fn the_first_login_of_a_real_client_finds_its_messages() {
    let mut backend = backend(HistoryLimits::default());
    for (send, count) in [("u_robot", 3), ("u_ann", 1)] {
        for n in 0..count {
            send_ok(&mut backend, &message(send, "u_hist", &n.to_string()));
        }
    }
    let requests = captured(include_str!("../../../../tests/vectors/openim-native-offline-group.json"));
    let first = |wanted: u64| requests.iter().find(|(id, ..)| *id == wanted).unwrap().2.clone();
    let (outcome, _) = forward(&mut backend, "u_hist", Method::GetMaxSeq, first(1001));
    let max: GetMaxSeqResp = data(outcome);
    // Exactly what the stub of the capture answered.
    let expected = [("si_u_ann_u_hist".to_owned(), 1), ("si_u_hist_u_robot".to_owned(), 3)];
    assert_eq!(max.max_seqs, expected.into());
    let (outcome, _) = forward(&mut backend, "u_hist", Method::PullMessageBySeqs, first(1002));
    let pulled: PullMessageBySeqsResp = data(outcome);
    for (id, newest) in [("si_u_ann_u_hist", 1), ("si_u_hist_u_robot", 3)] {
        let part = &pulled.msgs[id];
        assert_eq!((seqs(part), part.is_end, part.end_seq), (vec![newest], true, newest), "{id}");
    }
}
