//! `pinion push`: a text message over gRPC, as openim-push would send it (spec 4.3), and what became of it.
//!
//! One call per recipient: a one-to-one message names its receiver, so each gets a message of its own.

use std::process::ExitCode;

use clap::ArgMatches;
use prost::Message as _;

use super::{EXIT_FAILED, EXIT_USAGE, fail, output, rpc};
use crate::ids::Platform;
use crate::limits::PUSH_DEADLINE_MS;
use crate::pb::openim::msggateway::{
    OnlineBatchPushOneMsgReq, OnlineBatchPushOneMsgResp, SingleMsgToUserPlatform,
};
use crate::pb::openim::sdkws::MsgData;
use crate::rpc::client::{CallError, Target};
use crate::shard::clock;
use crate::time::UnixMs;
use crate::wire::grpc::code;

const METHOD: &str = "/openim.msggateway.msgGateway/SuperGroupOnlineBatchPushOneMsg";
/// `contentType` of a text message.
const TEXT: i32 = 101;
/// `sessionType` of a one-to-one conversation.
const SINGLE: i32 = 1;
/// `status`: sent.
const SENT: i32 = 2;

/// Runs the command: 0 somebody was reached, 1 nobody, 2 it could not be asked.
pub(super) fn run(matches: &ArgMatches) -> ExitCode {
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str).unwrap_or_default();
    let recipients: Vec<&str> = text("to").split(',').map(str::trim).collect();
    if recipients.iter().any(|user| user.is_empty()) {
        return fail(EXIT_USAGE, "--to: expected user ids joined by commas, for example alice,bob");
    }
    let gateway = match rpc::target(matches) {
        Ok(gateway) => gateway,
        Err(why) => return fail(EXIT_USAGE, &why),
    };
    let mut reached = false;
    for (n, user) in recipients.into_iter().enumerate() {
        let now = clock::now().unix;
        let operation = format!("pinion-push-{}-{n}", now.0);
        let request = request(text("from"), user, text("text"), &operation, now);
        match call(&gateway, &operation, &request) {
            Ok(answer) => {
                for result in &answer.single_push_result {
                    reached |= result.resp.iter().any(|device| device.result_code == 0);
                    output::line(&format!("{}: {}", result.user_id, devices(&result.resp)));
                }
            }
            Err(why) => return fail(EXIT_USAGE, &format!("push to {user}: {why}")),
        }
    }
    if reached { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}

fn request(from: &str, to: &str, text: &str, operation: &str, now: UnixMs) -> OnlineBatchPushOneMsgReq {
    let content = serde_json::json!({ "content": text }).to_string();
    OnlineBatchPushOneMsgReq {
        msg_data: Some(MsgData {
            send_id: from.into(),
            recv_id: to.into(),
            // Unique enough for a command that a person types: SDKs drop a message whose id they have seen.
            client_msg_id: format!("{operation}-client"),
            server_msg_id: format!("{operation}-server"),
            sender_platform_id: Platform::all().last().map_or(0, Platform::id),
            sender_nickname: from.into(),
            session_type: SINGLE,
            msg_from: 100, // from a user; 200 would be a system message
            content_type: TEXT,
            content: content.into(),
            send_time: now.0,
            create_time: now.0,
            status: SENT,
            ..MsgData::default()
        }),
        push_to_user_i_ds: vec![to.into()],
    }
}

fn call(
    gateway: &Target,
    operation: &str,
    request: &OnlineBatchPushOneMsgReq,
) -> Result<OnlineBatchPushOneMsgResp, String> {
    let metadata = [("operationid", operation), ("opuserid", "pinion")];
    let answer = gateway
        .call(METHOD, &metadata, request.encode_to_vec().into(), PUSH_DEADLINE_MS)
        .map_err(|e| explained(&e))?;
    OnlineBatchPushOneMsgResp::decode(answer).map_err(|e| format!("the answer cannot be decoded: {e}"))
}

/// Adds what to do about it on the command line.
fn explained(error: &CallError) -> String {
    match error {
        CallError::Refused(status) if status.code == code::UNAUTHENTICATED => {
            format!("{error}; set PINION_RPC_TOKEN, or name a configuration file with --config")
        }
        _ => error.to_string(),
    }
}

/// What became of a push on each device of a user.
fn devices(devices: &[SingleMsgToUserPlatform]) -> String {
    if devices.is_empty() {
        return "not connected".into();
    }
    let outcome = |device: &SingleMsgToUserPlatform| {
        let platform =
            Platform::new(device.recv_plat_form_id.into()).map_or("unknown platform", Platform::name);
        match device.result_code {
            0 => format!("reached on {platform}"),
            1603 => format!("dropped on {platform} (its connection is too slow)"),
            1604 => format!("not sent to {platform} (in the background)"),
            code => format!("failed on {platform} with code {code}"),
        }
    };
    devices.iter().map(outcome).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_per_device() {
        let device = |result_code, recv_plat_form_id| SingleMsgToUserPlatform {
            result_code,
            recv_plat_form_id,
            ..SingleMsgToUserPlatform::default()
        };
        assert_eq!(devices(&[]), "not connected");
        assert_eq!(
            devices(&[device(0, 5), device(1604, 1)]),
            "reached on Web, not sent to IOS (in the background)"
        );
    }

    #[test]
    fn the_text_is_wrapped_as_openim_wraps_it() {
        let request = request("a", "b", "say \"hi\"", "op", UnixMs(5));
        let message = request.msg_data.unwrap();
        assert_eq!(&message.content[..], br#"{"content":"say \"hi\""}"#);
        assert_eq!((message.content_type, message.session_type), (101, 1));
    }
}
