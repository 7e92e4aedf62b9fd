//! The conversation key of a message (spec 3.3): what clients file it under, and what history is kept by.
//!
//! Pure and total: an unknown session type has the empty key. User ids are joined by `_` as they are, so ids that
//! contain `_` can collide; OpenIM lives with that (spec trap 29) and clients expect the same keys from us.

/// Whether a message is filed as chat or as notification (`options["isNotNotification"]`, spec 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// The option is true **or missing**.
    Chat,
    /// The option is false.
    Notification,
}

/// The parties of a message, as its `MsgData` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parties<'a> {
    /// `sendID`.
    pub sender: &'a str,
    /// `recvID`.
    pub receiver: &'a str,
    /// `groupID`.
    pub group: &'a str,
}

/// `sessionType` of a one-to-one conversation.
pub const SESSION_SINGLE: i32 = 1;
/// `sessionType` of the old groups, whose messages were written once per member.
pub const SESSION_WRITE_GROUP: i32 = 2;
/// `sessionType` of today's groups.
pub const SESSION_GROUP: i32 = 3;
/// `sessionType` of notification chats.
pub const SESSION_NOTIFICATION: i32 = 4;

/// The key of spec 3.3. Empty for unknown session types.
pub fn conversation_key(session_type: i32, parties: Parties<'_>, kind: MessageKind) -> String {
    let prefix = match (session_type, kind) {
        (
            SESSION_SINGLE | SESSION_WRITE_GROUP | SESSION_GROUP | SESSION_NOTIFICATION,
            MessageKind::Notification,
        ) => "n_",
        (SESSION_SINGLE, MessageKind::Chat) => "si_",
        (SESSION_WRITE_GROUP, MessageKind::Chat) => "g_",
        (SESSION_GROUP, MessageKind::Chat) => "sg_",
        (SESSION_NOTIFICATION, MessageKind::Chat) => "sn_",
        _ => return String::new(),
    };
    match session_type {
        SESSION_WRITE_GROUP | SESSION_GROUP => format!("{prefix}{}", parties.group),
        _ => {
            // `str` compares byte-wise, as Go's sort does.
            let (first, second) =
                (parties.sender.min(parties.receiver), parties.sender.max(parties.receiver));
            format!("{prefix}{first}_{second}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MessageKind::{Chat, Notification};

    #[test]
    fn keys_follow_the_table_of_the_specification() {
        let table = [
            (1, "u2", "u1", "", Chat, "si_u1_u2"),
            (1, "u1", "u2", "g", Chat, "si_u1_u2"),
            (1, "B", "a", "", Chat, "si_B_a"), // bytes, not letters: upper case first
            (1, "u10", "u9", "", Chat, "si_u10_u9"),
            (1, "u1", "u1", "", Chat, "si_u1_u1"),
            (1, "ü", "z", "", Chat, "si_z_ü"),
            (1, "u2", "u1", "", Notification, "n_u1_u2"),
            (2, "u1", "", "g1", Chat, "g_g1"),
            (2, "u1", "", "g1", Notification, "n_g1"),
            (3, "u1", "u2", "g1", Chat, "sg_g1"),
            (3, "u1", "u2", "g1", Notification, "n_g1"),
            (4, "sys", "admin", "", Chat, "sn_admin_sys"),
            (4, "sys", "admin", "", Notification, "n_admin_sys"),
            (0, "u1", "u2", "g1", Chat, ""),
            (5, "u1", "u2", "g1", Notification, ""),
            // Spec trap 29: two pairs of users, one key.
            (1, "a_b", "c", "", Chat, "si_a_b_c"),
            (1, "a", "b_c", "", Chat, "si_a_b_c"),
            (-1, "u1", "u2", "g1", Chat, ""),
        ];
        for (session_type, sender, receiver, group, kind, key) in table {
            let parties = Parties { sender, receiver, group };
            assert_eq!(
                conversation_key(session_type, parties, kind),
                key,
                "{session_type} {parties:?} {kind:?}"
            );
        }
    }
}
