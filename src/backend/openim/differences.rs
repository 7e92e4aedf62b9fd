//! Every difference between OpenIM's versions that a gateway has to do with (spec 12), and where it is decided.
//!
//! A row without a decision would not compile, and a decision that names a test fails when that test is gone.

use bytes::Bytes;

use super::answers::{Answers, Expect};
use super::calls::{self, UserMethod};
use super::tokens::Tokens;
use crate::hub::upstream::{CallMetadata, Method, UpstreamCall, UpstreamRequest};
use crate::ids::{Platform, ShardId};
use crate::session::handshake::{Judgement, Login, Rules, Strictness, judge};
use crate::time::{Mono, UnixMs};
use crate::wire::compat::Compat;
use crate::wire::envelope::Encoding;
use crate::wire::grpc::CallFault;
use crate::wire::upgrade::{Head, UpgradeFault};
use Compat::{Main, Patch16, V35};
use Decided::{ByAll, Elsewhere, Here};

/// How a difference is decided.
enum Decided {
    /// By this check.
    Here(fn()),
    /// By the test of this name in this file.
    Elsewhere(&'static str, &'static str),
    /// All versions get what the newest has; why that is good for the older.
    ByAll(&'static str),
}

/// Version, difference, decision; in the order of spec 12.
const ROWS: [(&str, &str, Decided); 32] = [
    ("v3.6.0", "isMsgResp", Here(first_frames)),
    ("v3.7.0", "packages are named openim.*", Here(packages)),
    ("v3.7.0", "tokens are checked and ended by RPC", Here(tokens_by_rpc)),
    (
        "v3.7.0",
        "result codes 1603 and 1604",
        Elsewhere(
            "src/rpc/services/push_answer_tests.rs",
            "result_codes_follow_the_table_of_4_3_in_both_dialects",
        ),
    ),
    ("v3.8.0", "presence in batches", Here(presence_calls)),
    ("v3.8.0", "request 2005", Here(newer_requests)),
    (
        "v3.8.0",
        "the server pings Web",
        Elsewhere("tests/sim/request_behaviour.rs", "only_web_clients_are_pinged_every_27_seconds"),
    ),
    ("v3.8.1", "requests 1005 and 1006", Here(newer_requests)),
    (
        "v3.8.1",
        "forwarded address",
        Elsewhere("src/session/handshake/origin.rs", "only_proxies_are_believed_and_from_the_end"),
    ),
    ("v3.8.2", "JSON by sdkType=js", Here(encodings)),
    (
        "v3.8.2",
        "text ping and pong",
        Elsewhere("tests/sim/connection_behaviour.rs", "text_frames_come_only_where_clients_expect_them"),
    ),
    ("v3.8.2", "policy 4 and kickTokens", Here(tokens_by_rpc)),
    (
        "v3.8.2",
        "platforms as numbers in GetUsersOnlineStatus",
        Elsewhere("src/rpc/tests/legacy.rs", "states_and_platforms_have_names"),
    ),
    (
        "v3.8.2",
        "more classes of platforms",
        ByAll("only policy 4 looks at classes, and 3.5 does not have it"),
    ),
    ("v3.8.3", "request 1007", Here(newer_requests)),
    (
        "patch.8",
        "the same token kicks nobody",
        Elsewhere("tests/sim/policy_behaviour.rs", "the_same_token_kicks_nobody_and_is_preserved"),
    ),
    (
        "patch.8",
        "the same token kicks nobody: not so in 3.5",
        Elsewhere(
            "tests/sim/policy_behaviour.rs",
            "in_3_5_a_login_here_ends_an_older_one_with_its_token_and_the_token_stays_good",
        ),
    ),
    (
        "patch.8",
        "policy 5 covers all that is no PC",
        ByAll("it is what the policy says; 3.5 forgot the other platforms"),
    ),
    ("patch.13", "a writer with a queue", ByAll("clients see no difference but fewer hung connections")),
    (
        "patch.13",
        "the pong renews nothing",
        Elsewhere(
            "tests/sim/connection_behaviour.rs",
            "every_complete_frame_renews_the_read_deadline_and_nothing_else_does",
        ),
    ),
    ("patch.14", "argument v", Here(argument_v)),
    ("patch.14", "operationID and isBackground are mandatory", Here(mandatory_arguments)),
    ("patch.14", "platform range", Here(platform_range)),
    ("patch.14", "the platform is absent at the login's own calls", Here(platform_at_login)),
    ("patch.14", "success frame", Here(first_frames)),
    ("main", "error conversion", Here(error_conversion)),
    (
        "main",
        "temp-admin marker",
        Elsewhere("src/rpc/metadata.rs", "keys_that_custom_headers_name_must_be_there"),
    ),
    ("main", "customheader is carried on", Here(no_custom_header)),
    (
        "main",
        "sdkVersion",
        Elsewhere(
            "src/session/handshake/tests/order.rs",
            "only_the_first_of_equal_keys_counts_and_only_these_keys_do",
        ),
    ),
    (
        "main",
        "the queue is drained before the close",
        Elsewhere("tests/sim/connection_behaviour.rs", "a_flushed_end_keeps_what_was_queued_before_it"),
    ),
    (
        "main",
        "a pong renews the read deadline",
        Elsewhere(
            "tests/sim/connection_behaviour.rs",
            "every_complete_frame_renews_the_read_deadline_and_nothing_else_does",
        ),
    ),
    (
        "all",
        "handshake errors are HTTP 200",
        Elsewhere("tests/sim/login_behaviour.rs", "each_refusal_has_its_form"),
    ),
];

#[test]
fn every_difference_between_versions_is_decided() {
    for (version, what, decided) in &ROWS {
        match decided {
            Here(check) => check(),
            Elsewhere(file, test) => {
                let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                assert!(text.contains(&format!("fn {test}()")), "{version}, {what}: no {test} in {file}");
            }
            ByAll(reason) => assert!(!reason.is_empty(), "{version}, {what}"),
        }
    }
}

fn call(request: UpstreamRequest) -> UpstreamCall {
    let metadata = CallMetadata {
        operation_id: "op".into(),
        user: "u".into(),
        platform: Platform::WEB,
        connection_id: "c".into(),
    };
    UpstreamCall { shard: ShardId(0), ticket: None, deadline: Mono(0), metadata, request }
}

fn parse_token() -> UpstreamCall {
    call(UpstreamRequest::ParseToken { token: "T".into() })
}

fn forward(method: Method) -> UpstreamCall {
    call(UpstreamRequest::Forward { method, data: Bytes::new() })
}

fn login(query: &str, compat: Compat) -> Result<Login, i32> {
    let head = Head {
        target: format!("/?{query}").into(),
        compression: None,
        forwarded_for: None,
        upgrade: Err(UpgradeFault::NotGet),
    };
    match judge(&head, Rules { compat, strictness: Strictness::Strict }) {
        Judgement::Login(login) => Ok(*login),
        Judgement::Refuse(refusal) => Err(refusal.code),
        Judgement::Redirect(to) => panic!("redirected to {to}"),
    }
}

const GOOD: &str = "token=T&sendID=u&platformID=5&operationID=o&isBackground=0";

/// What becomes of a query in 3.5, patch.16 and main.
fn codes(query: &str) -> [i32; 3] {
    [V35, Patch16, Main].map(|compat| login(query, compat).err().unwrap_or(0))
}

fn first_frames() {
    let wants = |compat| login(&format!("{GOOD}&isMsgResp=true"), compat).unwrap().wants_response;
    assert_eq!([V35, Patch16, Main].map(wants), [false, true, true]);
}

fn encodings() {
    let encoding = |compat| login(&format!("{GOOD}&sdkType=js"), compat).unwrap().variant.encoding;
    assert_eq!([V35, Patch16, Main].map(encoding), [Encoding::Gob, Encoding::Json, Encoding::Json]);
}

fn argument_v() {
    assert_eq!(codes(&format!("{GOOD}&v=!")), [0, 1602, 1602]);
}

fn mandatory_arguments() {
    assert_eq!(codes("token=T&sendID=u&platformID=5&isBackground=0"), [0, 1602, 1602]);
    assert_eq!(codes("token=T&sendID=u&platformID=5&operationID=o"), [0, 500, 500]);
}

fn platform_range() {
    assert_eq!(codes(&GOOD.replace("=5", "=12")), [1502, 1602, 1602]);
}

fn packages() {
    let path = |compat| calls::question(compat, &forward(Method::SendMsg)).unwrap().path;
    let newer = "/openim.msg.msg/SendMsg";
    assert_eq!([V35, Patch16, Main].map(path), ["/OpenIMServer.msg.msg/SendMsg", newer, newer]);
}

fn newer_requests() {
    // 3.5 closes the connection. Its clients know none of these; a newer client gets the service's UNIMPLEMENTED.
    for method in [Method::GetSeqMessage, Method::GetConversationsHasReadAndMaxSeq, Method::GetLastMessage] {
        assert!(calls::question(V35, &forward(method)).is_ok());
    }
    let fault = CallFault::status(12, "unknown method");
    let error = Answers { compat: V35, target: "msg" }.error(&Expect::Data, fault);
    assert_eq!((error.code, &*error.message), (12, "unknown method"));
}

fn tokens_by_rpc() {
    let kick = || call(UpstreamRequest::KickTokens { tokens: vec![] });
    let mut tokens = Tokens::new("secret", 1);
    assert!(tokens.begin(UnixMs(0), &parse_token()).is_some());
    assert!(tokens.begin(UnixMs(0), &kick()).is_some());
    assert!(calls::question(V35, &kick()).is_err());
    for compat in [Patch16, Main] {
        assert_eq!(calls::question(compat, &parse_token()).unwrap().path, "/openim.auth.Auth/parseToken");
        assert_eq!(calls::question(compat, &kick()).unwrap().path, "/openim.auth.Auth/kickTokens");
    }
}

fn presence_calls() {
    let path = |compat, method| calls::own_call(compat, method, "p_1_1".into(), Bytes::new()).path;
    assert_eq!(path(V35, UserMethod::SetUserStatus), "/OpenIMServer.user.user/setUserStatus");
    assert_eq!(path(Main, UserMethod::SetUserOnlineStatus), "/openim.user.user/setUserOnlineStatus");
}

fn keys(compat: Compat, call: &UpstreamCall) -> Vec<&'static str> {
    calls::question(compat, call).unwrap().metadata.into_iter().map(|(key, _)| key).collect()
}

fn platform_at_login() {
    let shows = |compat| keys(compat, &parse_token()).contains(&"platform");
    assert_eq!([V35, Patch16, Main].map(shows), [true, false, false]);
}

fn no_custom_header() {
    // No call of ours is made within another one, so that there is nothing to carry on.
    assert_eq!(keys(Main, &forward(Method::GetMaxSeq)), ["operationid", "opuserid", "platform", "connid"]);
}

fn error_conversion() {
    let code = |compat| {
        Answers { compat, target: "a/b" }.error(&Expect::Data, CallFault::Unavailable("x".into())).code
    };
    assert_eq!([V35, Patch16, Main].map(code), [14, 14, 500]);
}
