//! The same requests under the rules of each version: every cell of spec 1.2 and every row of spec 1.3.

use super::*;

/// What became of a request, as far as versions differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    In,
    Refused(i32, &'static str),
}
use Outcome::{In, Refused};

const V35_DETAIL: &str = "1602 args err, need token, sendID, platformID";

fn outcome(query: &str, compat: Compat, strictness: Strictness) -> (Option<Login>, i32, String) {
    match super::super::judge(&head(&format!("/?{query}")), Rules { compat, strictness }) {
        Judgement::Login(login) => (Some(*login), 0, String::new()),
        Judgement::Refuse(refusal) => (None, refusal.code, refusal.detail.into()),
        Judgement::Redirect(to) => panic!("{query}: redirected to {to}"),
    }
}

#[test]
fn each_version_has_its_checks() {
    let base = "token=T&sendID=u&platformID=5";
    let full = "token=T&sendID=u&platformID=5&operationID=o&isBackground=0";
    let v = VECTOR;
    for (query, v35, newer) in [
        (full.to_owned(), In, In),
        // Optional in 3.5, required since patch.14.
        (format!("{base}&isBackground=0"), In, Refused(1602, "operationID is empty")),
        (format!("{base}&operationID=o"), In, Refused(500, "invalid syntax")),
        (format!("{base}&operationID=o&isBackground=maybe"), In, Refused(500, "invalid syntax")),
        // Not known in 3.5.
        (format!("{full}&isMsgResp=maybe"), In, Refused(1602, "isMsgResp is not bool")),
        (format!("{full}&sdkType=java"), In, Refused(1602, "sdkType is invalid")),
        (format!("{full}&v=!"), In, Refused(1602, "data is not base64")),
        (v.to_owned(), Refused(1602, V35_DETAIL), In),
        // Present, but no platform: 3.5 compares it with the token.
        (
            full.replace("=5", "=12"),
            Refused(1502, "no token names platform 12"),
            Refused(1602, "platformID is invalid"),
        ),
        (
            full.replace("=5", "=0"),
            Refused(1502, "no token names platform 0"),
            Refused(1602, "platformID is invalid"),
        ),
        (full.replace("=5", "=five"), Refused(1602, V35_DETAIL), Refused(1602, "platformID is not int")),
        (full.replace("=5", "="), Refused(1602, V35_DETAIL), Refused(1602, "platformID is not int")),
        (full.replace("=T", "="), Refused(1602, V35_DETAIL), Refused(1602, "token is empty")),
        (full.replace("=u", "="), Refused(1602, V35_DETAIL), Refused(1602, "sendID is empty")),
        // 3.5 looks for all three before it reads the number.
        ("platformID=99".to_owned(), Refused(1602, V35_DETAIL), Refused(500, "invalid syntax")),
    ] {
        for (compat, expected) in [(Compat::V35, v35), (Compat::Patch16, newer), (Compat::Main, newer)] {
            let (login, code, detail) = outcome(&query, compat, Strictness::Strict);
            let got = if login.is_some() { (0, "") } else { (code, &*detail) };
            let expected = match expected {
                In => (0, ""),
                Refused(code, detail) => (code, detail),
            };
            assert_eq!(got, expected, "{query} {compat:?}");
        }
    }
}

#[test]
fn leniency_changes_nothing_in_version_3_5() {
    for query in ["token=T&sendID=u&platformID=5", "token=T&sendID=u", "sendID=u&platformID=5&operationID=o"]
    {
        let [strict, lenient] =
            [Strictness::Strict, Strictness::Lenient].map(|s| outcome(query, Compat::V35, s));
        assert_eq!(strict, lenient, "{query}");
    }
}

#[test]
fn version_3_5_knows_gob_and_plain_refusals_only() {
    // A first frame, JSON and `v` came later (spec 1.2): who asks for them gets what 3.5 gives anybody.
    let query = "token=T&sendID=u&platformID=+5&isMsgResp=true&sdkType=js&compression=gzip";
    let (login, ..) = outcome(&query.replace('+', "%2B"), Compat::V35, Strictness::Strict);
    let login = login.expect("good arguments");
    assert_eq!(login.variant, Variant { encoding: Encoding::Gob, gzip: true });
    assert!(!login.wants_response);
    assert_eq!((&*login.operation_id, login.platform), ("", Platform::WEB));
}

#[test]
fn compression_is_asked_for_in_two_places() {
    // Spec 1.2: in 3.5 either is enough; later the header counts if the argument is empty.
    for (argument, header, v35, newer) in [
        ("gzip", None, true, true),
        ("", Some("gzip"), true, true),
        ("none", Some("gzip"), true, false),
        ("gzip", Some("none"), true, true),
        ("none", Some("none"), false, false),
        ("", None, false, false),
    ] {
        for (compat, expected) in [(Compat::V35, v35), (Compat::Patch16, newer), (Compat::Main, newer)] {
            let mut head = head(&format!("/?{GOOD}&compression={argument}"));
            head.compression = header.map(Into::into);
            match super::super::judge(&head, Rules { compat, strictness: Strictness::Strict }) {
                Judgement::Login(login) => {
                    assert_eq!(login.variant.gzip, expected, "{argument} {header:?} {compat:?}")
                }
                other => panic!("{argument} {header:?} {compat:?}: {other:?}"),
            }
        }
    }
}
