//! The head of a handshake: parsed wherever it ends, and its arguments judged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pinion::session::handshake::{Judgement, Rules, Strictness, judge};
use pinion::wire::compat::Compat;
use pinion::wire::upgrade::{self, Head};

fuzz_target!(|data: &[u8]| {
    let parsed = upgrade::parse(data);
    let Ok(Some((head, n))) = &parsed else { return };
    assert_eq!(upgrade::parse(&data[..*n]), parsed, "what follows a head changes nothing");
    for cut in [0, 1, n / 2, n - 1] {
        assert_eq!(upgrade::parse(&data[..cut]), Ok(None), "a good head that is cut at {cut} only waits");
    }
    for (_, compat) in Compat::NAMES {
        for strictness in [Strictness::Strict, Strictness::Lenient] {
            judged(head, Rules { compat, strictness });
        }
    }
});

fn judged(head: &Head, rules: Rules) {
    match judge(head, rules) {
        Judgement::Login(login) => {
            assert!(!login.user.is_empty() && !login.token.is_empty());
            if let Ok(accept) = login.upgrade {
                assert!(upgrade::switching(accept).ends_with(b"\r\n\r\n"));
            }
        }
        Judgement::Refuse(refusal) => {
            let json: serde_json::Value = serde_json::from_str(&refusal.json()).expect("JSON");
            assert_eq!(json["errCode"], refusal.code);
        }
        Judgement::Redirect(target) => {
            assert!(!target.bytes().any(|b| b.is_ascii_control()), "a target must not end a header");
            let next = Head { target, ..head.clone() };
            assert!(!matches!(judge(&next, rules), Judgement::Redirect(_)), "one redirect is enough");
        }
    }
}
