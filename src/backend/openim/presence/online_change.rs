//! The payload of Redis channel `online_change`: `<platform>:<platform>:...:<user id>` (spec 9.2).
//!
//! What is online is before the last colon, so a user id with a colon cannot be told from platforms (spec trap 29):
//! it is an invalid payload or another user's. Upstream lives with it, and so do we.

use super::platforms::Platforms;
use crate::limits::ONLINE_CHANGE_BYTES;

/// Whom it is about and where he is online now; `None`: not such a payload.
pub(super) fn parse(payload: &[u8]) -> Option<(&str, Platforms)> {
    let text = std::str::from_utf8(payload).ok().filter(|text| text.len() <= ONLINE_CHANGE_BYTES)?;
    let (platforms, user) = match text.rsplit_once(':') {
        Some((platforms, user)) => (Some(platforms), user),
        None => (None, text),
    };
    let mut online = Platforms::NONE;
    for platform in platforms.into_iter().flat_map(|platforms| platforms.split(':')) {
        online = online.or(Platforms::one(platform.parse().ok()?)?);
    }
    (!user.is_empty()).then_some((user, online))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_redis_publishes_is_read_back(
            ids in prop::collection::vec(0..16_i32, 0..6),
            user in "[^:]{1,20}",
        ) {
            let payload: String = ids.iter().map(|id| format!("{id}:")).chain([user.clone()]).collect();
            prop_assert_eq!(parse(payload.as_bytes()), Some((&*user, Platforms::of(&ids))));
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            parse(&bytes);
        }
    }

    #[test]
    fn payloads() {
        /// Payload, user, platforms.
        type Row = (&'static str, Option<(&'static str, &'static [i32])>);
        let table: [Row; 17] = [
            ("5:u1", Some(("u1", &[5]))),
            ("1:5:u1", Some(("u1", &[1, 5]))),
            ("u1", Some(("u1", &[]))),
            ("11:5:5:用户", Some(("用户", &[5, 11]))),
            ("5:7", Some(("7", &[5]))),
            // Spec trap 29: `a:b` and `1:b` are user ids.
            ("5:a:b", None),
            ("a:b", None),
            ("5:1:b", Some(("b", &[1, 5]))),
            ("", None),
            (":", None),
            ("5:", None),
            (":u1", None),
            ("5::u1", None),
            (" 5:u1", None),
            ("16:u1", None),
            ("-1:u1", None),
            ("99999999999999999999:u1", None),
        ];
        for (payload, expected) in table {
            let expected = expected.map(|(user, ids)| (user, Platforms::of(ids)));
            assert_eq!(parse(payload.as_bytes()), expected, "{payload}");
        }
        assert_eq!(parse(b"5:\xff"), None);
    }

    #[test]
    fn the_longest_payload_and_one_byte_more() {
        let longest = "u".repeat(ONLINE_CHANGE_BYTES);
        assert!(parse(longest.as_bytes()).is_some());
        assert_eq!(parse(format!("{longest}u").as_bytes()), None);
    }
}
