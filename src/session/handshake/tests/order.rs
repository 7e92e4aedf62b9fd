//! Several faults in one request: the first check in the order of spec 1.3 answers, pair by pair, in both forms.

use super::*;

/// One way to spoil a good request, in the order of spec 1.3.
#[derive(Debug)]
struct Fault {
    key: &'static str,
    value: &'static str,
    code: i32,
    detail: &'static str,
}

const fn fault(key: &'static str, value: &'static str, detail: &'static str) -> Fault {
    Fault { key, value, code: 1602, detail }
}

/// The query form.
const QUERY: [Fault; 8] = [
    fault("platformID", "five", "platformID is not int"),
    fault("isMsgResp", "maybe", "isMsgResp is not bool"),
    Fault { key: "isBackground", value: "maybe", code: 500, detail: "invalid syntax" },
    fault("operationID", "", "operationID is empty"),
    fault("token", "", "token is empty"),
    fault("sendID", "", "sendID is empty"),
    fault("platformID", "12", "platformID is invalid"),
    fault("sdkType", "java", "sdkType is invalid"),
];

/// The `v` form: values are JSON.
const V: [Fault; 7] = [
    fault("sendResponse", "1", "data is not json, info="),
    fault("background", "0", "data is not json, info="),
    fault("operationID", "\"\"", "operationID is empty"),
    fault("token", "\"\"", "token is empty"),
    fault("userID", "\"\"", "sendID is empty"),
    fault("platformID", "12", "platformID is invalid"),
    fault("sdkType", "\"java\"", "sdkType is invalid"),
];

/// Good arguments with some replaced; also in reverse, since the order of the pairs must not matter.
fn spoiled(
    good: &[(&str, &str)],
    faults: &[&Fault],
    write: impl Fn(&[(&str, &str)]) -> String,
) -> [String; 2] {
    let mut arguments = good.to_vec();
    for argument in &mut arguments {
        for fault in faults.iter().filter(|fault| fault.key == argument.0) {
            argument.1 = fault.value;
        }
    }
    let forward = write(&arguments);
    arguments.reverse();
    [forward, write(&arguments)]
}

fn query(faults: &[&Fault]) -> [String; 2] {
    let good = [
        ("token", "T"),
        ("sendID", "u1"),
        ("platformID", "5"),
        ("operationID", "op"),
        ("isBackground", "false"),
        ("isMsgResp", "true"),
        ("sdkType", "js"),
    ];
    spoiled(&good, faults, |arguments| {
        let pairs: Vec<String> = arguments.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join("&")
    })
}

fn v_form(faults: &[&Fault]) -> [String; 2] {
    let good = [
        ("token", "\"T\""),
        ("userID", "\"u1\""),
        ("platformID", "5"),
        ("operationID", "\"op\""),
        ("background", "false"),
        ("sendResponse", "true"),
        ("sdkType", "\"js\""),
    ];
    spoiled(&good, faults, |arguments| {
        let pairs: Vec<String> = arguments.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        v(&format!("{{{}}}", pairs.join(",")))
    })
}

#[test]
fn of_two_faults_the_earlier_check_answers() {
    type Form = fn(&[&Fault]) -> [String; 2];
    let forms: [(&[Fault], Form); 2] = [(&QUERY, query), (&V, v_form)];
    let mut pairs = 0;
    for (faults, write) in forms {
        for good in write(&[]) {
            strict(&good);
        }
        for (at, first) in faults.iter().enumerate() {
            for second in faults[at..].iter().filter(|f| f.key != first.key || f.detail == first.detail) {
                for text in write(&[second, first]) {
                    let (code, detail) = refusal(&text, Strictness::Strict);
                    let fits = code == first.code && detail.starts_with(first.detail);
                    assert!(fits, "{first:?} and {second:?}: {code} {detail}");
                    pairs += 1;
                }
            }
        }
    }
    // Of 8 and 7 faults: each alone and each pair, less the one pair that spoils the same argument.
    assert_eq!(pairs, 2 * (8 + 28 - 1 + 7 + 21));
}

#[test]
fn all_argument_errors_go_by_http_also_when_a_frame_was_asked_for() {
    // Spec trap 4: checks 1 to 3 have no frame, whatever isMsgResp says; `judge` has no other way to refuse. What it
    // refuses is written as HTTP 200 by the door, see `shard/tests/smoke.rs`.
    for fault in &QUERY {
        for text in query(&[fault]) {
            assert!(text.contains("isMsgResp=true") || fault.key == "isMsgResp");
            assert_eq!(refusal(&text, Strictness::Strict).0, fault.code);
        }
    }
}

#[test]
fn lenient_changes_two_checks_and_no_order() {
    // Spec trap 2: strict by default; the switch accepts an absent value, never a wrong one.
    for (query, strict, lenient) in [
        ("token=T&sendID=u&platformID=5&isBackground=0", Some("operationID is empty"), None),
        ("token=T&sendID=u&platformID=5&operationID=o", Some("invalid syntax"), None),
        ("token=T&sendID=u&platformID=5&operationID=o&isBackground=", Some("invalid syntax"), None),
        ("token=T&sendID=u&platformID=5", Some("invalid syntax"), None),
        ("token=T&sendID=u&platformID=5&isBackground=2", Some("invalid syntax"), Some("invalid syntax")),
        ("sendID=u&platformID=5", Some("invalid syntax"), Some("token is empty")),
        ("token=T&platformID=5", Some("invalid syntax"), Some("sendID is empty")),
        ("token=T&sendID=u&platformID=0", Some("invalid syntax"), Some("platformID is invalid")),
        ("token=T&sendID=u", Some("platformID is not int"), Some("platformID is not int")),
        (
            "token=T&sendID=u&platformID=5&isMsgResp=x",
            Some("isMsgResp is not bool"),
            Some("isMsgResp is not bool"),
        ),
    ] {
        for (strictness, expected) in [(Strictness::Strict, strict), (Strictness::Lenient, lenient)] {
            match (judge(&head(&format!("/?{query}")), strictness), expected) {
                (Judgement::Login(_), None) => {}
                (Judgement::Refuse(refusal), Some(detail)) => assert_eq!(&*refusal.detail, detail, "{query}"),
                (other, _) => panic!("{query} {strictness:?}: {other:?}"),
            }
        }
    }
    let v_without = v(r#"{"token":"T","userID":"u","platformID":5}"#);
    assert_eq!(refusal(&v_without, Strictness::Strict).1, "operationID is empty");
    assert_eq!(&*login(&head(&format!("/?{v_without}")), Strictness::Lenient).user, "u");
}

#[test]
fn the_flag_is_background_has_gos_spellings_and_no_effect() {
    // Spec trap 2: mandatory and ignored. Two logins that differ in it are equal.
    let with = |value: &str| strict(&GOOD.replace("isBackground=false", &format!("isBackground={value}")));
    for value in ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "False"] {
        assert_eq!(with(value), strict(GOOD), "{value}");
    }
    for value in ["tRUE", "yes", "2", "+1", "-", "null"] {
        let query = GOOD.replace("isBackground=false", &format!("isBackground={value}"));
        assert_eq!(refusal(&query, Strictness::Strict), (500, "invalid syntax".into()), "{value}");
    }
    let v_with = |value: &str| {
        let json = r#"{"token":"T","userID":"u","platformID":5,"operationID":"o","background":VALUE}"#;
        strict(&v(&json.replace("VALUE", value)))
    };
    assert_eq!(v_with("true"), v_with("false"));
    assert_eq!(v_with("true"), v_with("null"));
}

#[test]
fn only_the_first_of_equal_keys_counts_and_only_these_keys_do() {
    for (query, answer) in [
        ("token=&token=T&sendID=u&platformID=5&operationID=o&isBackground=0", Err("token is empty")),
        ("v=&v=e30&token=T&sendID=u&platformID=5&operationID=o&isBackground=0", Ok("u")),
        ("token=T&sendID=u&platformID=5&platformID=x&operationID=o&isBackground=0&isBackground=x", Ok("u")),
        ("Token=T&sendID=u&platformID=5&operationID=o&isBackground=0", Err("token is empty")),
        ("token=T&userID=u&platformID=5&operationID=o&isBackground=0", Err("sendID is empty")),
        ("token=T&sendID=u&platformID=5&operationID=o&isBackground=0&sdkVersion=%ff&x=%", Ok("u")),
        ("token=T&sendID=u&platformID=5&operationID=o&isBackground=0&sdkType=go;js", Ok("u")),
        ("token=T&sendID=u&platformID=5&operationID=+&isBackground=0", Ok("u")),
    ] {
        match (judge(&head(&format!("/?{query}")), Strictness::Strict), answer) {
            (Judgement::Login(login), Ok(user)) => assert_eq!(&*login.user, user, "{query}"),
            (Judgement::Refuse(refusal), Err(detail)) => assert_eq!(&*refusal.detail, detail, "{query}"),
            (other, _) => panic!("{query}: {other:?}"),
        }
    }
}
