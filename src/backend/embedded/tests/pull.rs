//! What clients read: ranges, numbers, read state, and their limits.

use super::*;
use crate::pb::openim::msg::{
    ConversationSeqs, GetConversationsHasReadAndMaxSeqResp, GetLastMessageResp, GetSeqMessageResp,
};
use crate::pb::openim::sdkws::{GetMaxSeqResp, PullMessageBySeqsResp, PullOrder, SeqRange};

#[test]
fn newest_and_read_numbers_follow_the_history() {
    let mut backend = trimmed();
    for (user, read) in [("a", 0), ("b", 10)] {
        let request = GetMaxSeqReq { user_id: user.into() };
        let max: GetMaxSeqResp = reply(&mut backend, user, Method::GetMaxSeq, &request);
        assert_eq!(max.max_seqs.into_iter().collect::<Vec<_>>(), [("si_a_b".into(), 10)]);
        assert_eq!(max.min_seqs.into_iter().collect::<Vec<_>>(), [("si_a_b".into(), 3)]);
        for named in [vec![], vec!["si_a_b".into(), "si_a_c".into()]] {
            let request = GetConversationsHasReadAndMaxSeqReq {
                user_id: user.into(),
                conversation_i_ds: named,
                return_pinned: true,
            };
            let state: GetConversationsHasReadAndMaxSeqResp =
                reply(&mut backend, user, Method::GetConversationsHasReadAndMaxSeq, &request);
            assert_eq!(state.seqs.len(), 1);
            let seqs = &state.seqs["si_a_b"];
            assert_eq!((seqs.max_seq, seqs.has_read_seq, seqs.max_seq_time), (10, read, now().unix.0));
        }
    }
    let request = GetMaxSeqReq { user_id: "c".into() };
    let none: GetMaxSeqResp = reply(&mut backend, "c", Method::GetMaxSeq, &request);
    assert_eq!(none, GetMaxSeqResp::default());
}

#[test]
fn a_range_gives_its_newest_messages() {
    use PullOrder::{Asc, Desc};
    /// (begin, end, num, order) -> (numbers, isEnd, endSeq); 3..=10 are kept, one answer takes 5.
    type Row = ((i64, i64, i64, PullOrder), (&'static [i64], bool, i64));
    let table: [Row; 13] = [
        ((0, 10, 1, Asc), (&[10], true, 10)), // first login
        ((9, 10, 10, Asc), (&[9, 10], true, 10)),
        ((9, 12, 10, Asc), (&[9, 10], true, 10)), // beyond the newest
        ((4, 6, 10, Asc), (&[4, 5, 6], false, 6)),
        ((1, 4, 10, Asc), (&[3, 4], false, 4)), // before the oldest
        ((1, 2, 10, Asc), (&[], false, 2)),
        ((11, 12, 10, Asc), (&[], true, 10)),
        ((6, 4, 10, Asc), (&[], false, 4)),
        ((0, 10, 0, Asc), (&[6, 7, 8, 9, 10], false, 10)), // shortened
        ((1, 5, 10, Desc), (&[3, 4, 5], true, 3)),
        ((5, 7, 2, Desc), (&[6, 7], false, 6)),
        ((0, 10, 0, Desc), (&[6, 7, 8, 9, 10], false, 6)),
        ((i64::MIN, i64::MAX, i64::MIN, Asc), (&[6, 7, 8, 9, 10], false, 10)),
    ];
    let mut backend = trimmed();
    for ((begin, end, num, order), (numbers, is_end, end_seq)) in table {
        let range = SeqRange { conversation_id: "si_a_b".into(), begin, end, num };
        let request =
            PullMessageBySeqsReq { user_id: "a".into(), seq_ranges: vec![range], order: order.into() };
        let answer: PullMessageBySeqsResp = reply(&mut backend, "a", Method::PullMessageBySeqs, &request);
        let part = &answer.msgs["si_a_b"];
        let got = (seqs(part), part.is_end, part.end_seq);
        assert_eq!(got, (numbers.to_vec(), is_end, end_seq), "{begin}..{end} {num} {order:?}");
    }
}

#[test]
fn numbers_are_given_once_each_and_missing_ones_are_absent() {
    use PullOrder::{Asc, Desc};
    /// Numbers wanted, order; numbers given, isEnd, endSeq.
    type Row = (&'static [i64], PullOrder, &'static [i64], bool, i64);
    let table: [Row; 6] = [
        (&[5, 4, 5, 99, 1], Asc, &[4, 5], true, 10),
        (&[5, 4], Asc, &[4, 5], false, 10),
        (&[5, 3], Desc, &[3, 5], true, 3),
        (&[3, 4, 5, 6, 7, 10], Asc, &[3, 4, 5, 6, 7], false, 10), // one answer takes 5
        (&[3, 4, 5, 6, 7, 10], Desc, &[4, 5, 6, 7, 10], false, 3),
        (&[], Asc, &[], false, 10),
    ];
    let mut backend = trimmed();
    for (wanted, order, numbers, is_end, end_seq) in table {
        let request = GetSeqMessageReq {
            user_id: "a".into(),
            conversations: vec![ConversationSeqs { conversation_id: "si_a_b".into(), seqs: wanted.to_vec() }],
            order: order.into(),
        };
        let answer: GetSeqMessageResp = reply(&mut backend, "a", Method::GetSeqMessage, &request);
        let part = &answer.msgs["si_a_b"];
        let got = (seqs(part), part.is_end, part.end_seq);
        assert_eq!(got, (numbers.to_vec(), is_end, end_seq), "{wanted:?} {order:?}");
    }
}

#[test]
fn strangers_and_unknown_conversations_are_absent_from_every_answer() {
    let mut backend = trimmed();
    let ids = ["si_a_b", "si_nobody"];
    let request = PullMessageBySeqsReq {
        user_id: "c".into(),
        seq_ranges: ids
            .map(|id| SeqRange { conversation_id: id.into(), begin: 1, end: 10, num: 10 })
            .to_vec(),
        order: 0,
    };
    let pulled: PullMessageBySeqsResp = reply(&mut backend, "c", Method::PullMessageBySeqs, &request);
    assert_eq!(pulled, PullMessageBySeqsResp::default());
    for (user, found) in [("a", 1), ("c", 0)] {
        let request =
            GetLastMessageReq { user_id: user.into(), conversation_i_ds: ids.map(String::from).to_vec() };
        let last: GetLastMessageResp = reply(&mut backend, user, Method::GetLastMessage, &request);
        assert_eq!(last.msgs.len(), found);
        assert!(last.msgs.values().all(|m| m.seq == 10));
    }
}

#[test]
fn notifications_are_pulled_from_a_map_of_their_own() {
    let mut backend = backend(HistoryLimits::default());
    let tip = MsgData { options: options(&[("isNotNotification", false)]), ..message("a", "b", "tip") };
    send_ok(&mut backend, &tip);
    let range = SeqRange { conversation_id: "n_a_b".into(), begin: 1, end: 1, num: 1 };
    let request = PullMessageBySeqsReq { user_id: "b".into(), seq_ranges: vec![range], order: 0 };
    let answer: PullMessageBySeqsResp = reply(&mut backend, "b", Method::PullMessageBySeqs, &request);
    assert_eq!((answer.msgs.len(), seqs(&answer.notification_msgs["n_a_b"])), (0, vec![1]));
}

#[test]
fn an_answer_fits_one_frame_and_says_that_it_was_shortened() {
    let mut backend = backend(HistoryLimits::default());
    let large = "x".repeat(limits::EMBEDDED_MESSAGE_BYTES - 1024);
    for _ in 0..4 {
        send_ok(&mut backend, &message("a", "b", "small"));
        let content = large.clone().into();
        send_ok(&mut backend, &MsgData { content, ..message("a", "b", "large") });
    }
    let range = SeqRange { conversation_id: "si_a_b".into(), begin: 1, end: 8, num: 100 };
    let request = PullMessageBySeqsReq { user_id: "a".into(), seq_ranges: vec![range], order: 0 };
    let answer: PullMessageBySeqsResp = reply(&mut backend, "a", Method::PullMessageBySeqs, &request);
    assert!(answer.encoded_len() <= limits::EMBEDDED_ANSWER_BYTES);
    let part = &answer.msgs["si_a_b"];
    assert_eq!((seqs(part), part.is_end), (vec![5, 6, 7, 8], false));
}

#[test]
fn requests_that_name_too_much_are_refused() {
    let mut backend = trimmed();
    let many = |n| vec!["si_a_b".to_owned(); n];
    for (items, refused) in [(limits::EMBEDDED_ITEMS_MAX, false), (limits::EMBEDDED_ITEMS_MAX + 1, true)] {
        let user_id = "a".to_owned();
        let range = SeqRange::default();
        let requests = [
            (
                Method::PullMessageBySeqs,
                PullMessageBySeqsReq { user_id: user_id.clone(), seq_ranges: vec![range; items], order: 0 }
                    .encode_to_vec(),
            ),
            (
                Method::GetSeqMessage,
                GetSeqMessageReq {
                    user_id: user_id.clone(),
                    conversations: [1, items - 1]
                        .map(|n| ConversationSeqs { conversation_id: String::new(), seqs: vec![1; n] })
                        .to_vec(),
                    order: 0,
                }
                .encode_to_vec(),
            ),
            (
                Method::GetLastMessage,
                GetLastMessageReq { user_id: user_id.clone(), conversation_i_ds: many(items) }
                    .encode_to_vec(),
            ),
            (
                Method::GetConversationsHasReadAndMaxSeq,
                GetConversationsHasReadAndMaxSeqReq {
                    user_id,
                    conversation_i_ds: many(items),
                    return_pinned: false,
                }
                .encode_to_vec(),
            ),
        ];
        for (method, request) in requests {
            let (outcome, _) = forward(&mut backend, "a", method, request);
            assert_eq!(matches!(outcome, UpstreamOutcome::Failed(_)), refused, "{method:?} {items}");
        }
    }
}
