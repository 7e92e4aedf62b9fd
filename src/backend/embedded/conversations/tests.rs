//! Counters, trimming and refusals of the conversations.

use super::*;

fn limits() -> HistoryLimits {
    HistoryLimits { history_max: 3, ..HistoryLimits::default() }
}

fn message(send: &str, recv: &str, content: usize) -> MsgData {
    MsgData {
        send_id: send.into(),
        recv_id: recv.into(),
        content: vec![b'x'; content].into(),
        ..MsgData::default()
    }
}

fn window(conversations: &Conversations, id: &str) -> (i64, i64) {
    let history = &conversations.all[conversations.ids[id]].history;
    (history.min_seq(), history.max_seq())
}

/// What the module promises about its counters.
fn audit(conversations: &Conversations) {
    let sum = |of: fn(&History) -> usize| conversations.all.iter().map(|c| of(&c.history)).sum::<usize>();
    assert_eq!(conversations.messages, sum(History::len));
    assert_eq!(conversations.bytes, sum(History::bytes));
    let sizes = conversations
        .all
        .iter()
        .enumerate()
        .filter(|(_, c)| c.history.len() > 0)
        .map(|(position, c)| (c.history.bytes(), position));
    assert_eq!(conversations.by_size, sizes.collect());
}

#[test]
fn a_conversation_keeps_its_newest_messages() {
    let mut conversations = Conversations::default();
    for (sent, expected) in [(1, 1), (2, 1), (3, 1), (4, 2), (5, 3)] {
        let bytes = conversations.append(UnixMs(7), &limits(), "si_a_b", message("a", "b", 10)).unwrap();
        assert_eq!(MsgData::decode(bytes).unwrap().seq, sent);
        assert_eq!(window(&conversations, "si_a_b"), (expected, sent));
        audit(&conversations);
    }
    assert_eq!(conversations.messages(), 3);
}

#[test]
fn bytes_are_taken_from_the_largest_conversation() {
    let mut conversations = Conversations::default();
    let mut limits = limits();
    for (id, recv, content) in [("si_a_b", "b", 1000), ("si_a_c", "c", 10), ("si_a_b", "b", 1000)] {
        conversations.append(UnixMs(7), &limits, id, message("a", recv, content)).unwrap();
    }
    limits.history_bytes = conversations.bytes();
    conversations.append(UnixMs(7), &limits, "si_a_c", message("a", "c", 10)).unwrap();
    audit(&conversations);
    assert_eq!(window(&conversations, "si_a_b"), (2, 2));
    assert_eq!(window(&conversations, "si_a_c"), (1, 2));
    limits.history_bytes = 0;
    let newest = conversations.append(UnixMs(7), &limits, "si_a_c", message("a", "c", 10)).unwrap();
    audit(&conversations);
    assert_eq!((conversations.messages(), conversations.bytes()), (0, 0));
    assert_eq!(MsgData::decode(newest).unwrap().seq, 3, "what cannot be kept still counts");
}

#[test]
fn refusals_change_nothing() {
    let mut conversations = Conversations::default();
    let mut limits = limits();
    limits.conversations_max = limits::EMBEDDED_USER_CONVERSATIONS_MAX + 1;
    for n in 0..limits::EMBEDDED_USER_CONVERSATIONS_MAX {
        conversations
            .append(UnixMs(7), &limits, &format!("si_a_{n}"), message("a", &n.to_string(), 1))
            .unwrap();
    }
    conversations.append(UnixMs(7), &limits, "si_x_y_z", message("x", "y_z", 1)).unwrap();
    let before = conversations.clone();
    let table = [
        ("si_a_new", "a", "new", Refusal::ConversationsFull),
        ("si_x_y_z", "x_y", "z", Refusal::AmbiguousId),
        ("si_x_y_z", "x", "z", Refusal::AmbiguousId),
    ];
    for (id, send, recv, refusal) in table {
        let got = conversations.append(UnixMs(8), &limits, id, message(send, recv, 1));
        assert_eq!(got, Err(refusal), "{id} {send} {recv}");
    }
    limits.conversations_max += 1;
    for (send, recv) in [("a", "new"), ("new", "a")] {
        let got = conversations.append(UnixMs(8), &limits, "si_a_new", message(send, recv, 1));
        assert_eq!(got, Err(Refusal::UserConversationsFull), "{send}");
    }
    assert_eq!(conversations, before);
}

#[test]
fn strangers_find_nothing() {
    let mut conversations = Conversations::default();
    conversations.append(UnixMs(7), &limits(), "si_a_b", message("a", "b", 1)).unwrap();
    assert!(conversations.find("a", "si_a_b").is_some() && conversations.find("b", "si_a_b").is_some());
    assert!(conversations.find("c", "si_a_b").is_none() && conversations.find("a", "si_a_c").is_none());
    assert_eq!((conversations.of_user("b").count(), conversations.of_user("c").count()), (1, 0));
}
