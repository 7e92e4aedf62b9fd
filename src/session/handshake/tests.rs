//! Every rule of spec 1.2 and 1.3, by tables, and the targets that real clients sent.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;

use super::*;
use crate::wire::upgrade;

mod order;
mod versions;

const GOOD: &str = "token=T&sendID=u1&platformID=5&operationID=op&isBackground=false";

fn head(target: &str) -> Head {
    Head { target: target.into(), compression: None, forwarded_for: None, upgrade: Err(UpgradeFault::NotGet) }
}

/// By the newest rules; those of other versions are in `versions`.
fn judge(head: &Head, strictness: Strictness) -> Judgement {
    super::judge(head, Rules { compat: Compat::Main, strictness })
}

fn login(head: &Head, strictness: Strictness) -> Login {
    match judge(head, strictness) {
        Judgement::Login(login) => *login,
        other => panic!("{}: {other:?}", head.target),
    }
}

fn strict(query: &str) -> Login {
    login(&head(&format!("/?{query}")), Strictness::Strict)
}

/// Code and detail of the refusal.
fn refusal(query: &str, strictness: Strictness) -> (i32, String) {
    match judge(&head(&format!("/?{query}")), strictness) {
        Judgement::Refuse(refusal) => {
            let message = if refusal.code == 500 { SERVER_ERROR.1 } else { ARGS_ERROR.1 };
            assert_eq!(&*refusal.message, message);
            (refusal.code, refusal.detail.into())
        }
        other => panic!("{query}: {other:?}"),
    }
}

fn v(json: &str) -> String {
    format!("v={}", URL_SAFE_NO_PAD.encode(json))
}

#[test]
fn the_user_is_found_in_either_form_whatever_else_is_wrong() {
    for (query, want) in [
        (GOOD.to_owned(), Some("u1")),
        ("sendID=u%2F2".to_owned(), Some("u/2")),
        (v(r#"{"userID":"u3"}"#), Some("u3")),
        (format!("{}&sendID=u4", v(r#"{"userID":"u3"}"#)), Some("u3")),
        ("v=%3D%3D&sendID=u4".to_owned(), Some("u4")),
        ("sendID=".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(user(&head(&format!("/?{query}"))).as_deref(), want, "{query}");
    }
}

#[test]
fn a_good_query_is_a_login() {
    let mut head = head(&format!("/any/path?{GOOD}"));
    head.forwarded_for = Some("1.2.3.4".into());
    assert_eq!(
        login(&head, Strictness::Strict),
        Login {
            user: "u1".into(),
            token: "T".into(),
            platform: Platform::WEB,
            operation_id: "op".into(),
            variant: Variant { encoding: Encoding::Gob, gzip: false },
            wants_response: false,
            forwarded_for: Some("1.2.3.4".into()),
            upgrade: Err(UpgradeFault::NotGet),
        }
    );
}

#[test]
fn faults_are_found_in_upstreams_order() {
    // Each row spoils or drops one more argument, the last check first; the answer is that of the earliest check.
    let mut arguments: Vec<(&str, &str)> = vec![
        ("platformID", "5"),
        ("isMsgResp", "true"),
        ("isBackground", "0"),
        ("operationID", "op"),
        ("token", "T"),
        ("sendID", "u1"),
        ("sdkType", "js"),
    ];
    for (key, bad, code, detail) in [
        ("sdkType", "JS", 1602, "sdkType is invalid"),
        ("platformID", "12", 1602, "platformID is invalid"),
        ("sendID", "", 1602, "sendID is empty"),
        ("token", "", 1602, "token is empty"),
        ("operationID", "", 1602, "operationID is empty"),
        ("isBackground", "yes", 500, "invalid syntax"),
        ("isMsgResp", "yes", 1602, "isMsgResp is not bool"),
        ("platformID", "five", 1602, "platformID is not int"),
    ] {
        for argument in &mut arguments {
            if argument.0 == key {
                argument.1 = bad;
            }
        }
        let query: Vec<String> = arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(refusal(&query.join("&"), Strictness::Strict), (code, detail.into()), "{query:?}");
    }
    assert_eq!(refusal("", Strictness::Strict), (1602, "platformID is not int".into()));
}

#[test]
fn lenient_means_that_two_arguments_may_be_missing() {
    // Spec trap 2.
    let query = "token=T&sendID=u1&platformID=5";
    assert_eq!(refusal(query, Strictness::Strict), (500, "invalid syntax".into()));
    let query_strict = format!("{query}&isBackground=true");
    assert_eq!(refusal(&query_strict, Strictness::Strict), (1602, "operationID is empty".into()));
    let login = login(&head(&format!("/?{query}")), Strictness::Lenient);
    assert_eq!((&*login.user, &*login.operation_id), ("u1", ""));
    let nonsense = format!("{query}&isBackground=maybe");
    assert_eq!(refusal(&nonsense, Strictness::Lenient), (500, "invalid syntax".into()));
}

#[test]
fn numbers_and_booleans_have_gos_spellings() {
    let platform = |text: &str| {
        let query = GOOD.replace("platformID=5", &format!("platformID={text}"));
        match judge(&head(&format!("/?{query}")), Strictness::Strict) {
            Judgement::Login(login) => Ok(login.platform.id()),
            Judgement::Refuse(refusal) => Err(refusal.detail),
            Judgement::Redirect(_) => panic!("redirect"),
        }
    };
    for (text, id) in [("5", 5), ("%2B5", 5), ("05", 5), ("11", 11), ("1", 1)] {
        assert_eq!(platform(text), Ok(id), "{text}");
    }
    for text in ["", "+5", "5+", "0x5", "1_1", "5.0", "9223372036854775808", "٥"] {
        assert_eq!(platform(text), Err("platformID is not int".into()), "{text}"); // a bare + is a space
    }
    for text in ["0", "12", "-5", "9223372036854775807"] {
        assert_eq!(platform(text), Err("platformID is invalid".into()), "{text}");
    }
    for (text, value) in [
        ("1", true),
        ("t", true),
        ("T", true),
        ("TRUE", true),
        ("true", true),
        ("True", true),
        ("0", false),
        ("f", false),
        ("F", false),
        ("FALSE", false),
        ("false", false),
        ("False", false),
        ("", false),
    ] {
        assert_eq!(strict(&format!("{GOOD}&isMsgResp={text}")).wants_response, value, "{text}");
    }
    for text in ["tRue", "yes", "2", "%20true"] {
        let query = format!("{GOOD}&isMsgResp={text}");
        assert_eq!(refusal(&query, Strictness::Strict).1, "isMsgResp is not bool", "{text}");
    }
}

#[test]
fn pairs_are_read_as_go_reads_them() {
    for (query, user) in [
        (format!("{GOOD}&sendID=u2"), "u1"),
        (format!("sendID=a;b&{GOOD}"), "u1"),
        (format!("sendID=%zz&{GOOD}"), "u1"),
        (format!("sendID=%4&{GOOD}"), "u1"),
        (format!("sendID=%&{GOOD}"), "u1"),
        (format!("sendID=a+b%20c&{GOOD}"), "a b c"),
        (format!("send%49D=%e7%94%A8&{GOOD}"), "用"),
        (format!("sendID=用户&{GOOD}"), "用户"),
        (format!("sendID=a=b&{GOOD}"), "a=b"),
        (format!("&&=&SENDID=x&{GOOD}"), "u1"),
    ] {
        assert_eq!(&*strict(&query).user, user, "{query}");
    }
    assert_eq!(refusal(&format!("sendID&{GOOD}"), Strictness::Strict).1, "sendID is empty");
}

#[test]
fn variants_follow_sdk_type_and_compression() {
    for (extra, header, encoding, gzip) in [
        ("", None, Encoding::Gob, false),
        ("&sdkType=go&compression=gzip", None, Encoding::Gob, true),
        ("&sdkType=js", Some("gzip"), Encoding::Json, true),
        ("&sdkType=js&compression=", Some("gzip"), Encoding::Json, true),
        ("&compression=none", Some("gzip"), Encoding::Gob, false),
        ("&compression=GZIP", None, Encoding::Gob, false),
        ("", Some("deflate"), Encoding::Gob, false),
    ] {
        let mut head = head(&format!("/?{GOOD}{extra}"));
        head.compression = header.map(Into::into);
        let variant = login(&head, Strictness::Strict).variant;
        assert_eq!(variant, Variant { encoding, gzip }, "{extra} {header:?}");
    }
}

/// Spec A.4.
const VECTOR: &str = "v=eyJ0b2tlbiI6IlRPSyIsInVzZXJJRCI6InUxIiwicGxhdGZvcm1JRCI6NSwib3BlcmF0aW9uSUQiOiJvcDEiLCJjb21wcm\
    Vzc2lvbiI6Imd6aXAiLCJzZGtUeXBlIjoianMiLCJzZW5kUmVzcG9uc2UiOnRydWUsImJhY2tncm91bmQiOmZhbHNlfQ";

#[test]
fn v_holds_all_arguments() {
    let login = strict(&format!("sendID=other&platformID=x&isBackground=x&{VECTOR}"));
    assert_eq!((&*login.user, &*login.token, &*login.operation_id), ("u1", "TOK", "op1"));
    assert_eq!(login.platform, Platform::WEB);
    assert_eq!(login.variant, Variant { encoding: Encoding::Json, gzip: true });
    assert!(login.wants_response);

    // Keys have no case, the last wins, null and missing are zero, unknown ones are skipped; the header counts not.
    let mut head = head(&format!(
        "/?{}",
        v(
            r#"{"TOKEN":"a","token":"T","userid":"u","platformID":1,"operationID":"o","sdkType":null,"x":[{}]}"#
        )
    ));
    head.compression = Some("gzip".into());
    let login = self::login(&head, Strictness::Strict);
    assert_eq!((&*login.token, login.variant.gzip, login.wants_response), ("T", false, false));
}

#[test]
fn v_is_refused_with_its_own_words() {
    for query in ["v=%3D%3D", "v=e30=", "v=a", "v=e30%2B"] {
        assert_eq!(refusal(query, Strictness::Strict).1, "data is not base64", "{query}");
    }
    for json in [
        "",
        "[]",
        "{",
        r#"{"platformID":"5"}"#,
        r#"{"platformID":5.0}"#,
        r#"{"platformID":9223372036854775808}"#,
        r#"{"sendResponse":1}"#,
        r#"{"background":"no"}"#,
        r#"{"token":1}"#,
        "{} x",
    ] {
        let query = if json.is_empty() { "v=IA".to_owned() } else { v(json) };
        let (code, detail) = refusal(&query, Strictness::Strict);
        assert!(code == 1602 && detail.starts_with("data is not json, info="), "{json}: {detail}");
    }
    for (json, detail) in [
        ("null", "operationID is empty"),
        (r#"{"operationID":"o"}"#, "token is empty"),
        (r#"{"operationID":"o","token":"t"}"#, "sendID is empty"),
        (r#"{"operationID":"o","token":"t","userID":"u"}"#, "platformID is invalid"),
    ] {
        assert_eq!(refusal(&v(json), Strictness::Strict), (1602, detail.into()));
    }
    assert_eq!(refusal("v=&", Strictness::Strict).1, "platformID is not int", "empty v is no v");
}

#[test]
fn unclean_paths_are_redirected_before_anything_else() {
    for (target, location) in [
        ("//", Some("/")),
        ("//evil.com/a?x=1", Some("/evil.com/a?x=1")),
        ("/a//b/", Some("/a/b/")),
        ("/a/./b?q", Some("/a/b?q")),
        ("/a/../../b/..", Some("/")),
        ("/a/.?", Some("/a")),
        ("/%2e%2e/ü b%3f", Some("/%C3%BC%20b%3F")),
        ("/a%2F%2Fb", Some("/a/b")),
        ("/", None),
        ("/a/b/", None),
        ("/a..b/.c", None),
        ("/a?u=//", None),
        ("/%zz//", None),
    ] {
        match (judge(&head(target), Strictness::Strict), location) {
            (Judgement::Redirect(got), Some(location)) => assert_eq!(&*got, location, "{target}"),
            (Judgement::Refuse(_), None) => {}
            (other, _) => panic!("{target}: {other:?}"),
        }
    }
}

#[test]
fn refusals_are_json_with_gos_escapes() {
    assert_eq!(
        Refusal::connection_limit().json(),
        r#"{"errCode":1601,"errMsg":"ConnOverMaxNumLimit","errDlt":"over max conn num limit"}"#
    );
    let refusal = Refusal::new((1502, "TokenInvalidError"), "token uid <a> != userID \"b\" & more");
    assert_eq!(
        refusal.json(),
        concat!(
            r#"{"errCode":1502,"errMsg":"TokenInvalidError","#,
            r#""errDlt":"token uid \u003ca\u003e != userID \"b\" \u0026 more"}"#
        )
    );
    assert_eq!(Refusal::new((0, ""), "").json(), SUCCESS_JSON);
}

#[test]
fn captured_clients_are_let_in() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/openim-handshake.json");
    let file: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let expected = [
        ("native", "u_alice", 7, Encoding::Gob, true, false),
        ("wasm", "u_web1", 5, Encoding::Gob, true, true),
        ("js", "u_js", 5, Encoding::Json, false, true),
    ];
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), expected.len());
    for (vector, (client, user, platform, encoding, gzip, wants_response)) in vectors.iter().zip(expected) {
        assert_eq!(vector["client"], client);
        let mut text = format!("GET {} HTTP/1.1\r\n", vector["request_target"].as_str().unwrap());
        for header in vector["headers"].as_array().unwrap() {
            text += &format!("{}: {}\r\n", header[0].as_str().unwrap(), header[1].as_str().unwrap());
        }
        text += "\r\n";
        let (head, _) = upgrade::parse(text.as_bytes()).unwrap().unwrap();
        let login = login(&head, Strictness::Strict);
        assert_eq!((&*login.user, login.platform.id()), (user, platform));
        assert_eq!(*login.token, format!("tok_{user}"));
        assert_eq!(login.variant, Variant { encoding, gzip });
        assert_eq!(login.wants_response, wants_response);
        assert!(login.upgrade.is_ok(), "{client}");
    }
}

proptest! {
    #[test]
    fn any_target_is_judged(target in "/[ -~]{0,60}", query in "[a-zA-Z0-9=&;%+_.-]{0,80}") {
        judge(&head(&format!("{target}?{query}")), Strictness::Strict);
        judge(&head(&format!("/?v={query}")), Strictness::Lenient);
        let rules = Rules { compat: Compat::V35, strictness: Strictness::Strict };
        super::judge(&head(&format!("{target}?token=T&sendID=u&{query}")), rules);
    }

    #[test]
    fn a_redirect_leads_to_a_path_that_is_not_redirected(path in "(/|\\.|%2e|%2F|a|é){0,12}") {
        if let Judgement::Redirect(location) = judge(&head(&format!("/{path}")), Strictness::Strict) {
            let again = judge(&head(&location), Strictness::Strict);
            prop_assert!(!matches!(again, Judgement::Redirect(_)), "{} -> {:?}", location, again);
        }
    }
}
