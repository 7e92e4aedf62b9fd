//! Every call, under each version: spec 3.1, 5.1 and 6.1 as tables.

use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::ids::ShardId;
use crate::pb::openim::msg::SendMsgReq;
use crate::pb::openim::sdkws::MsgData;
use crate::time::Mono;

const ALL: [Compat; 3] = [Compat::V35, Compat::Patch16, Compat::Main];

const METHODS: [Method; 8] = [
    Method::GetMaxSeq,
    Method::PullMessageBySeqs,
    Method::SendMsg,
    Method::SendSignalMsg,
    Method::GetSeqMessage,
    Method::GetConversationsHasReadAndMaxSeq,
    Method::GetLastMessage,
    Method::DelUserPushToken,
];

fn metadata() -> CallMetadata {
    CallMetadata {
        operation_id: "op".into(),
        user: "u1".into(),
        platform: Platform::ANDROID,
        connection_id: "c".into(),
    }
}

fn call(metadata: CallMetadata, request: UpstreamRequest) -> UpstreamCall {
    UpstreamCall { shard: ShardId(0), ticket: None, deadline: Mono(0), metadata, request }
}

fn asked(compat: Compat, request: UpstreamRequest) -> Question {
    question(compat, &call(metadata(), request)).unwrap()
}

fn forward(method: Method, data: &'static [u8]) -> UpstreamRequest {
    UpstreamRequest::Forward { method, data: Bytes::from_static(data) }
}

fn parse_token() -> UpstreamRequest {
    UpstreamRequest::ParseToken { token: "T".into() }
}

fn invalidate() -> UpstreamRequest {
    UpstreamRequest::InvalidateToken { preserved: "T".into(), user: "u2".into(), platform: Platform::WEB }
}

/// Keys and values, to read.
fn shown(question: &Question) -> String {
    let pairs: Vec<_> = question.metadata.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

#[test]
fn trap_16_paths_have_the_package_and_the_case_of_their_version() {
    // Spec trap 16, 3.1, 5.1: auth and user methods begin in lower case, the others in upper case.
    let all: [(UpstreamRequest, Service, &str); 11] = [
        (forward(Method::GetMaxSeq, b""), Service::Msg, "msg.msg/GetMaxSeq"),
        (forward(Method::PullMessageBySeqs, b""), Service::Msg, "msg.msg/PullMessageBySeqs"),
        (forward(Method::SendMsg, b""), Service::Msg, "msg.msg/SendMsg"),
        (forward(Method::SendSignalMsg, b""), Service::Msg, "msg.msg/SendMsg"),
        (forward(Method::GetSeqMessage, b""), Service::Msg, "msg.msg/GetSeqMessage"),
        (
            forward(Method::GetConversationsHasReadAndMaxSeq, b""),
            Service::Msg,
            "msg.msg/GetConversationsHasReadAndMaxSeq",
        ),
        (forward(Method::GetLastMessage, b""), Service::Msg, "msg.msg/GetLastMessage"),
        (forward(Method::DelUserPushToken, b""), Service::Push, "push.PushMsgService/DelUserPushToken"),
        (parse_token(), Service::Auth, "auth.Auth/parseToken"),
        (invalidate(), Service::Auth, "auth.Auth/invalidateToken"),
        (UpstreamRequest::KickTokens { tokens: vec![] }, Service::Auth, "auth.Auth/kickTokens"),
    ];
    for (request, service, path) in all {
        for compat in ALL {
            let ends_tokens = matches!(
                request,
                UpstreamRequest::InvalidateToken { .. } | UpstreamRequest::KickTokens { .. }
            );
            if compat == Compat::V35 && ends_tokens {
                let fault = question(compat, &call(metadata(), request.clone())).unwrap_err();
                assert_eq!(fault.into_status().code, 12);
                continue;
            }
            let question = asked(compat, request.clone());
            let package = if compat == Compat::V35 { "OpenIMServer" } else { "openim" };
            assert_eq!(question.path, format!("/{package}.{path}"), "{compat:?}");
            assert_eq!(question.service, service, "{path}");
        }
    }
    for (compat, path) in [
        (Compat::V35, "/OpenIMServer.msggateway.msgGateway/MultiTerminalLoginCheck"),
        (Compat::Patch16, "/openim.msggateway.msgGateway/MultiTerminalLoginCheck"),
        (Compat::Main, "/openim.msggateway.msgGateway/MultiTerminalLoginCheck"),
    ] {
        let check = login_check(compat, &metadata(), "T").unwrap();
        assert_eq!((check.service, check.path), (Service::Gateway, path));
    }
    for (method, name) in [
        (UserMethod::SetUserOnlineStatus, "setUserOnlineStatus"),
        (UserMethod::SetUserStatus, "setUserStatus"),
        (UserMethod::GetUserStatus, "getUserStatus"),
    ] {
        let path = |compat| own_call(compat, method, "p_1_1".into(), Bytes::new()).path;
        assert_eq!(path(Compat::V35), format!("/OpenIMServer.user.user/{name}"));
        assert_eq!(path(Compat::Main), format!("/openim.user.user/{name}"));
    }
}

#[test]
fn metadata_is_that_of_the_table() {
    // Spec 6.1, the second table, row by row.
    let full = "operationid=op opuserid=u1 platform=Android connid=c";
    let without_platform = "operationid=op opuserid=u1 connid=c";
    for compat in ALL {
        let at_login = if compat == Compat::V35 { full } else { without_platform };
        assert_eq!(shown(&asked(compat, parse_token())), at_login, "{compat:?}");
        assert_eq!(shown(&login_check(compat, &metadata(), "T").unwrap()), at_login, "{compat:?}");
        for method in METHODS {
            assert_eq!(shown(&asked(compat, forward(method, b""))), full, "{method:?} {compat:?}");
        }
        let own = own_call(
            compat,
            UserMethod::SetUserOnlineStatus,
            own_operation_id(4711, 3),
            Bytes::from_static(b"x"),
        );
        assert_eq!(shown(&own), "operationid=p_4711_3", "{compat:?}");
    }
    for compat in [Compat::Patch16, Compat::Main] {
        assert_eq!(shown(&asked(compat, invalidate())), full);
        // A job from another gateway has no user and no connection; the keys are there all the same.
        let remote = CallMetadata { user: "".into(), connection_id: "".into(), ..metadata() };
        let kick = UpstreamRequest::KickTokens { tokens: vec!["T".into()] };
        let question = question(compat, &call(remote, kick)).unwrap();
        assert_eq!(shown(&question), "operationid=op opuserid= platform=Android connid=");
    }
}

#[test]
fn trap_18_the_operation_id_is_there_once_and_in_ascii() {
    // Spec trap 18 and 6.1: also an empty one; what no header can hold is no call, and is not escaped.
    let with = |operation_id: &str, user: &str| {
        let metadata = CallMetadata { operation_id: operation_id.into(), user: user.into(), ..metadata() };
        (call(metadata.clone(), parse_token()), metadata)
    };
    for (operation_id, user, fault) in [
        ("", "u1", None),
        ("", "", None),
        (" ~", "a b", None),
        ("ü", "u1", Some("operationid")),
        ("a\nb", "u1", Some("operationid")),
        ("op\u{7f}", "用户", Some("operationid")),
        ("op", "用户", Some("opuserid")),
        ("op", "u\0", Some("opuserid")),
    ] {
        let (call, metadata) = with(operation_id, user);
        for compat in ALL {
            // 3.5's gateways refuse an empty one.
            let traced = if compat == Compat::V35 && operation_id.is_empty() { "c" } else { operation_id };
            for (outcome, id) in
                [(question(compat, &call), operation_id), (login_check(compat, &metadata, "T"), traced)]
            {
                match (outcome, fault) {
                    (Ok(question), None) => {
                        let ids: Vec<_> =
                            question.metadata.iter().filter(|(key, _)| *key == "operationid").collect();
                        assert_eq!(ids, [&("operationid", id.into())]);
                    }
                    (Err(got), Some(key)) => assert_eq!(got, CallFault::Metadata(key)),
                    (other, _) => panic!("{operation_id:?} {user:?}: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn messages_are_what_the_methods_take() {
    for compat in ALL {
        for method in METHODS {
            // What a client sent is not looked at, whatever it is: ff is no protobuf.
            let message = asked(compat, forward(method, b"\x0a\xff")).message;
            let expected: &[u8] = match method {
                Method::SendMsg => b"\x1a\x02\x0a\xff",
                Method::SendSignalMsg => b"",
                _ => b"\x0a\xff",
            };
            assert_eq!(message, expected, "{method:?}");
        }
        // An empty MsgData is there, which is not the same as none.
        assert_eq!(asked(compat, forward(Method::SendMsg, b"")).message, &b"\x1a\x00"[..]);
        assert_eq!(asked(compat, parse_token()).message, &b"\x0a\x01T"[..]);
        let check = login_check(compat, &metadata(), "T").unwrap();
        assert_eq!(check.message, &b"\x0a\x02u1\x10\x02\x1a\x01T"[..]);
    }
    assert_eq!(asked(Compat::Main, invalidate()).message, &b"\x0a\x01T\x12\x02u2\x18\x05"[..]);
    let kick = UpstreamRequest::KickTokens { tokens: vec!["S".into(), "T".into()] };
    assert_eq!(asked(Compat::Main, kick).message, &b"\x0a\x01S\x0a\x01T"[..]);
}

#[test]
fn trap_19_logins_of_all_platforms_are_told() {
    // Spec trap 19: upstream's gateways refuse 10 and 11 today; one that no longer does must hear of them.
    for platform in Platform::all() {
        let login = CallMetadata { platform, ..metadata() };
        let check = login_check(Compat::Main, &login, "T").unwrap();
        let told = MultiTerminalLoginCheckReq::decode(check.message).unwrap();
        assert_eq!(told.platform_id, platform.id());
    }
}

#[test]
fn trap_23_request_1004_asks_with_nothing() {
    // Spec trap 23: SendMsg's path, and no message in it, so that the service refuses.
    let question = asked(Compat::Main, forward(Method::SendSignalMsg, b"\x0a\x01a"));
    assert_eq!((question.path, question.message.len()), ("/openim.msg.msg/SendMsg", 0));
    assert_eq!(SendMsgReq::decode(question.message).unwrap().msg_data, None);
}

#[test]
fn only_what_changes_nothing_more_is_sent_again() {
    for (request, retry) in [
        (parse_token(), Retry::Safe),
        (UpstreamRequest::KickTokens { tokens: vec![] }, Retry::Safe),
        (invalidate(), Retry::Never),
        (forward(Method::GetMaxSeq, b""), Retry::Safe),
        (forward(Method::PullMessageBySeqs, b""), Retry::Safe),
        (forward(Method::GetSeqMessage, b""), Retry::Safe),
        (forward(Method::GetConversationsHasReadAndMaxSeq, b""), Retry::Safe),
        (forward(Method::GetLastMessage, b""), Retry::Safe),
        (forward(Method::SendMsg, b""), Retry::Never),
        (forward(Method::SendSignalMsg, b""), Retry::Never),
        (forward(Method::DelUserPushToken, b""), Retry::Never),
    ] {
        assert_eq!(asked(Compat::Main, request.clone()).retry, retry, "{request:?}");
    }
    assert_eq!(login_check(Compat::Main, &metadata(), "T").unwrap().retry, Retry::Never);
    let own = |method| own_call(Compat::Main, method, "p_1_1".into(), Bytes::new()).retry;
    assert_eq!(own(UserMethod::SetUserOnlineStatus), Retry::Never);
    assert_eq!(own(UserMethod::SetUserStatus), Retry::Never);
    assert_eq!(own(UserMethod::GetUserStatus), Retry::Safe);
}

proptest! {
    #[test]
    fn a_message_is_wrapped_as_its_own_encoder_would(content in proptest::collection::vec(any::<u8>(), 0..300)) {
        let message = MsgData { send_id: "u1".into(), content: content.into(), seq: -1, ..MsgData::default() };
        let data = Bytes::from(message.encode_to_vec());
        let request = UpstreamRequest::Forward { method: Method::SendMsg, data };
        let expected = SendMsgReq { msg_data: Some(message) }.encode_to_vec();
        prop_assert_eq!(asked(Compat::Main, request).message, expected);
    }
}
