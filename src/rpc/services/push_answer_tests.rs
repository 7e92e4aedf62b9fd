//! Tests of the answer to a push: what it says, and that generated code reads it.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pb::open_im_server::msggateway as legacy;
use crate::pb::openim::msggateway as pb;
use crate::wire::grpc::PREFIX_BYTES;

const OUTCOMES: [DeviceOutcome; 7] = [
    DeviceOutcome::Written,
    DeviceOutcome::Queued,
    DeviceOutcome::Dropped,
    DeviceOutcome::Kicked,
    DeviceOutcome::Expired,
    DeviceOutcome::TooLarge,
    DeviceOutcome::Background,
];

fn result(user: &str, devices: &[(i64, DeviceOutcome)]) -> PushResult {
    let verdict = |&(platform, outcome): &(i64, DeviceOutcome)| DeviceVerdict {
        number: 0,
        platform: Platform::new(platform).unwrap(),
        connection_id: [0; 16],
        outcome,
    };
    PushResult { user: user.into(), devices: Some(devices.iter().map(verdict).collect()), expired: false }
}

fn answer(results: &[PushResult]) -> Vec<pb::SingleMsgToUserResults> {
    let bytes = encode(results, Dialect::Openim).unwrap().split_off(PREFIX_BYTES);
    pb::OnlineBatchPushOneMsgResp::decode(bytes).unwrap().single_push_result
}

fn legacy_answer(results: &[PushResult]) -> Vec<legacy::SingleMsgToUserResults> {
    let bytes = encode(results, Dialect::Legacy).unwrap().split_off(PREFIX_BYTES);
    legacy::OnlineBatchPushOneMsgResp::decode(bytes).unwrap().single_push_result
}

#[test]
fn trap_20_one_result_per_requested_user_also_for_unknown_ones() {
    // Spec trap 20. Not reached in time, not here, here, and asked for twice.
    let late = PushResult { user: "late".into(), devices: None, expired: false };
    let here = result("here", &[(7, DeviceOutcome::Queued)]);
    let results = [late, result("absent", &[]), here.clone(), here];
    let users = ["late", "absent", "here", "here"];
    let listed = [0, 0, 1, 1];
    let answered = answer(&results);
    assert!(answered.iter().map(|r| r.user_id.as_str()).eq(users));
    assert!(answered.iter().map(|r| r.resp.len()).eq(listed));
    assert!(answered.iter().all(|r| !r.online_push));
    assert!(legacy_answer(&results).iter().map(|r| r.user_id.as_str()).eq(users));
}

#[test]
fn trap_21_online_push_is_true_for_platforms_1_and_2_only() {
    // Spec trap 21.
    for platform in 1..=11 {
        for outcome in OUTCOMES {
            let reached = matches!(outcome, DeviceOutcome::Written | DeviceOutcome::Queued);
            let results = [result("u", &[(platform, outcome)])];
            let expected = reached && platform <= 2;
            assert_eq!(answer(&results)[0].online_push, expected, "{platform} {outcome:?}");
            assert_eq!(legacy_answer(&results)[0].online_push, expected, "{platform} {outcome:?}");
        }
    }
}

#[test]
fn result_codes_follow_the_table_of_4_3_in_both_dialects() {
    for (outcome, code, legacy_code) in [
        (DeviceOutcome::Written, 0, 0),
        (DeviceOutcome::Queued, 0, 0),
        (DeviceOutcome::Dropped, 1603, -2),
        (DeviceOutcome::Kicked, 1603, -2),
        (DeviceOutcome::Expired, 1603, -2),
        (DeviceOutcome::TooLarge, 1603, -2),
        (DeviceOutcome::Background, 1604, -3),
    ] {
        let results = [result("u", &[(1, outcome)])];
        let device = &answer(&results)[0].resp[0];
        assert_eq!((device.result_code, device.recv_id.as_str(), device.recv_plat_form_id), (code, "", 1));
        let device = &legacy_answer(&results)[0].resp[0];
        let expected = (legacy_code, "u", 1);
        assert_eq!((device.result_code, device.recv_id.as_str(), device.recv_plat_form_id), expected);
    }
}

#[test]
fn the_older_dialect_lists_no_reached_device_that_is_no_phone() {
    let platforms = |results: &[PushResult]| -> Vec<i32> {
        legacy_answer(results)[0].resp.iter().map(|d| d.recv_plat_form_id).collect()
    };
    let all = |outcome| [result("u", &(1..=11).map(|p| (p, outcome)).collect::<Vec<_>>())];
    assert_eq!(platforms(&all(DeviceOutcome::Queued)), [1, 2]);
    assert_eq!(platforms(&all(DeviceOutcome::Dropped)), (1..=11).collect::<Vec<_>>());
    assert_eq!(answer(&all(DeviceOutcome::Queued))[0].resp.len(), 11);
}

proptest! {
    #[test]
    fn generated_code_writes_the_same_bytes(
        rows in prop::collection::vec(
            ("\\PC{0,300}", prop::collection::vec((1i64..=11, prop::sample::select(&OUTCOMES[..])), 0..4)),
            0..20,
        ),
    ) {
        let results: Vec<PushResult> = rows.iter().map(|(user, devices)| result(user, devices)).collect();
        let framed = encode(&results, Dialect::Openim).unwrap();
        let newer = pb::OnlineBatchPushOneMsgResp { single_push_result: answer(&results) };
        prop_assert_eq!(framed.slice(PREFIX_BYTES..), newer.encode_to_vec());
        let framed = encode(&results, Dialect::Legacy).unwrap();
        let older = legacy::OnlineBatchPushOneMsgResp { single_push_result: legacy_answer(&results) };
        prop_assert_eq!(framed.slice(PREFIX_BYTES..), older.encode_to_vec());
    }
}
