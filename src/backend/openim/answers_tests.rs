//! Spec 6.4 and 7.4 as tables, for each version; and what must never come out.

use proptest::prelude::*;

use super::*;

const ALL: [Compat; 3] = [Compat::V35, Compat::Patch16, Compat::Main];
const TOKEN: &str = "not.a.jwt.but.long.enough";

fn answers(compat: Compat) -> Answers<'static> {
    Answers { compat, target: "etcd:///openim/auth-rpc-service" }
}

fn token() -> Expect {
    Expect::Token { token: TOKEN.into() }
}

/// Code, message and detail that clients of a version get.
fn told(compat: Compat, fault: &CallFault) -> (i32, String, String) {
    let error = answers(compat).error(&token(), fault.clone());
    (error.code, error.message.into(), error.detail.into())
}

fn status(code: i32, message: &str) -> CallFault {
    CallFault::status(code, message)
}

#[test]
fn faults_look_as_in_each_version() {
    // Spec 6.4: 3.5 and patch.16 hand gRPC's own codes on; main makes them 500 and names a service that is down.
    let down = "grpc service auth-rpc-service down, grpc message no address";
    let internal = "ServerInternalError";
    for (fault, older, main) in [
        (status(14, "no address"), (14, "no address", ""), (500, down, "")),
        (CallFault::Unavailable("no address".into()), (14, "no address", ""), (500, down, "")),
        (status(4, "late"), (4, "late", ""), (500, internal, "late")),
        (
            CallFault::Deadline,
            (4, "context deadline exceeded", ""),
            (500, internal, "context deadline exceeded"),
        ),
        (status(1, "gone"), (1, "gone", ""), (500, internal, "gone")),
        (status(12, "unknown method"), (12, "unknown method", ""), (500, internal, "unknown method")),
        (status(99, "x"), (99, "x", ""), (500, internal, "x")),
        (status(100, "x"), (100, "x", ""), (100, "x", "")),
        (status(500, "plain text"), (500, "plain text", ""), (500, "plain text", "")),
        (status(0, "x"), (500, internal, "x"), (500, internal, "x")),
        (status(-2, "x"), (500, internal, "x"), (500, internal, "x")),
        (
            CallFault::Metadata("opuserid"),
            (13, "header key \"opuserid\" contains value with non-printable ASCII characters", ""),
            (500, internal, "header key \"opuserid\" contains value with non-printable ASCII characters"),
        ),
        (CallFault::Overloaded, (500, "too many requests", ""), (500, "too many requests", "")),
    ] {
        for compat in ALL {
            let (code, message, detail) = if compat == Compat::Main { main } else { older };
            assert_eq!(told(compat, &fault), (code, message.into(), detail.into()), "{fault:?} {compat:?}");
        }
    }
}

#[test]
fn trap_17_openims_codes_and_details_come_through() {
    // Spec trap 17, 6.4, 7.5: any code, also a webhook's; the cause becomes errDlt.
    for compat in ALL {
        for code in [1001, 1501, 1506, 1507, 80_000, 90_002, i32::MAX] {
            let fault = CallFault::from(Status { cause: Some("a->b".into()), ..Status::new(code, "Words") });
            assert_eq!(told(compat, &fault), (code, "Words".into(), "a->b".into()), "{compat:?}");
        }
    }
    // As it lies on the wire (spec A.3).
    let details = "COILEhBUb2tlbktpY2tlZEVycm9yGkMKLXR5cGUuZ29vZ2xlYXBpcy5jb20vb3BlbmltLnByb3RvYnVm\
                   LkVycm9ySW5mbxISIhBUb2tlbktpY2tlZEVycm9y";
    let fault = CallFault::from(Status::parse(1506, "TokenKickedError", Some(details)));
    let kicked = "TokenKickedError".to_owned();
    assert_eq!(told(Compat::Patch16, &fault), (1506, kicked.clone(), kicked));
}

#[test]
fn a_request_that_is_no_protobuf_is_500() {
    // Spec 3.2 rule 7: upstream's gateway finds it, and there is no gRPC code to show.
    let text = "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
    for (compat, message) in
        [(Compat::V35, text), (Compat::Patch16, "ServerInternalError"), (Compat::Main, "ServerInternalError")]
    {
        let error = answers(compat).error(&Expect::Data, status(13, text));
        assert_eq!((error.code, &*error.message), (500, message), "{compat:?}");
        // A value that no header can have is another matter.
        let local = answers(compat).error(&Expect::Data, CallFault::Metadata("operationid"));
        assert_eq!(local.code, if compat == Compat::Main { 500 } else { 13 }, "{compat:?}");
    }
}

#[test]
fn tokens_name_their_user_and_platform() {
    let outcome = |compat, bytes: &[u8]| answers(compat).outcome(&token(), Ok(Bytes::copy_from_slice(bytes)));
    let good = UpstreamOutcome::Token { user: "u1".into(), platform: 5 };
    let newer: &[u8] = b"\x0a\x02u1\x10\x05\x20\x07";
    let older: &[u8] = b"\x0a\x02u1\x12\x03Web\x20\x07";
    let malformed = UpstreamOutcome::Failed(malformed());
    for (compat, bytes, expected) in [
        (Compat::Main, newer, &good),
        (Compat::Patch16, newer, &good),
        (Compat::V35, older, &good),
        (Compat::Main, older, &malformed),
        (Compat::V35, newer, &malformed),
        (Compat::V35, b"\x0a\x02u1\x12\x03Wap", &malformed),
        (Compat::V35, b"\x0a\x02u1", &malformed),
        (Compat::Main, b"", &malformed),
        (Compat::Main, b"\x0a\xff", &malformed),
        (Compat::Main, b"\x10\x05", &malformed),
    ] {
        assert_eq!(outcome(compat, bytes), *expected, "{compat:?} {bytes:?}");
    }
    // A platform that is none is for the hub to compare.
    let strange = UpstreamOutcome::Token { user: "u1".into(), platform: 77 };
    assert_eq!(outcome(Compat::Main, b"\x0a\x02u1\x10\x4d"), strange);
}

#[test]
fn other_answers_pass_untouched() {
    // Spec 3.2 rule 9: also fields that we do not know.
    let bytes = Bytes::from_static(b"\xff\x00 no protobuf");
    for compat in ALL {
        let outcome = answers(compat).outcome(&Expect::Data, Ok(bytes.clone()));
        assert_eq!(outcome, UpstreamOutcome::Data(bytes.clone()));
    }
}

#[test]
fn errors_hold_no_token() {
    // Spec 7.4: services repeat it. `eyJ` begins every JWT, also those that this call did not name.
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJVc2VySUQiOiJ1MSJ9.c2lnbg";
    for (text, shown) in [
        (format!("1501 TokenExpiredError jwt parse error, token={TOKEN}"), true),
        (format!("{TOKEN}{TOKEN}, {jwt}"), true),
        (format!("token={jwt}, then more"), true),
        ("nothing secret in auth.default.svc.cluster.local".to_owned(), false),
    ] {
        for compat in ALL {
            for fault in [
                CallFault::from(Status { cause: Some(text.clone()), ..Status::new(1501, text.clone()) }),
                status(14, &text),
                status(4, &text),
                CallFault::Unavailable(text.clone().into()),
            ] {
                let (_, message, detail) = told(compat, &fault);
                for got in [message, detail] {
                    assert!(!got.contains(TOKEN) && !got.contains("eyJhb"), "{got}");
                    assert!(
                        got.is_empty() || got == "ServerInternalError" || got.contains(HIDDEN) == shown,
                        "{got}"
                    );
                }
            }
        }
    }
    for (text, shown) in [
        ("a eyJhbGciOiJIUzI1.y, b", "a (token), b"),
        ("eyJhbGciOiJIUzI1eyJhbGciOiJIUzI1", "(token)"),
        ("a KeyJar and eyJ", "a KeyJar and eyJ"), // too short for one
        ("eyJ_________é_eyJ____________.", "eyJ_________é_(token)"),
        ("", ""),
    ] {
        assert_eq!(&*redacted(text, ""), shown);
    }
    // A short text is no token, and cutting it out would spoil the words.
    assert_eq!(&*redacted("TokenMalformedError", "e"), "TokenMalformedError");
    let at_least = "x".repeat(TOKEN_BYTES_MIN);
    assert_eq!(&*redacted(&at_least, &at_least), HIDDEN);
    assert_eq!(&*redacted(&at_least[1..], &at_least[1..]), &at_least[1..]);
}

proptest! {
    #[test]
    fn no_answer_is_a_success_that_failed(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        code in any::<i32>(),
        text in ".{0,20}",
    ) {
        for compat in ALL {
            for expect in [token(), Expect::Data] {
                match answers(compat).outcome(&expect, Ok(bytes.clone().into())) {
                    UpstreamOutcome::Statuses(_) => prop_assert!(false, "nobody asked for it"),
                    UpstreamOutcome::Token { user, .. } => prop_assert!(!user.is_empty()),
                    UpstreamOutcome::Data(data) => prop_assert_eq!(data, bytes.clone()),
                    UpstreamOutcome::Failed(error) => prop_assert_eq!(error.code, 500),
                }
                let fault = CallFault::status(code, text.clone());
                prop_assert!(answers(compat).error(&expect, fault).code > 0);
            }
        }
    }
}
