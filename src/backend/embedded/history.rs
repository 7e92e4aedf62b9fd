//! The kept messages of one conversation: a window of consecutive sequence numbers that ends at the newest.
//!
//! What always holds: numbers start at 1 and have no holes; the window only loses messages at its old end;
//! `bytes` is the sum over the window.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Counted on top of a message's bytes: what the window itself needs for it.
const ENTRY_BYTES: usize = 64;

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    /// Serialized `MsgData`, oldest first.
    messages: VecDeque<Bytes>,
    /// Sequence number of the newest message ever; 0 if there was none.
    max_seq: i64,
    bytes: usize,
}

impl History {
    /// The number that the next message gets.
    pub(super) fn next_seq(&self) -> i64 {
        self.max_seq.saturating_add(1)
    }

    /// Of the newest message, kept or not.
    pub(super) fn max_seq(&self) -> i64 {
        self.max_seq
    }

    /// Of the oldest kept message; one above `max_seq` if none is kept.
    pub(super) fn min_seq(&self) -> i64 {
        let kept = i64::try_from(self.messages.len()).unwrap_or(i64::MAX);
        self.max_seq.saturating_sub(kept).saturating_add(1)
    }

    /// Kept messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes that count against the limits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the message with number [`Self::next_seq`].
    pub(super) fn push(&mut self, message: Bytes) {
        self.max_seq = self.next_seq();
        self.bytes += message.len() + ENTRY_BYTES;
        self.messages.push_back(message);
    }

    /// Forgets the oldest message. False if there was none.
    pub(super) fn forget_oldest(&mut self) -> bool {
        let Some(message) = self.messages.pop_front() else {
            return false;
        };
        self.bytes = self.bytes.saturating_sub(message.len() + ENTRY_BYTES);
        true
    }

    /// The message with this number, if it is kept.
    pub(super) fn get(&self, seq: i64) -> Option<&Bytes> {
        let offset = seq.checked_sub(self.min_seq())?;
        self.messages.get(usize::try_from(offset).ok()?)
    }

    /// The newest message, if it is kept.
    pub(super) fn last(&self) -> Option<&Bytes> {
        self.messages.back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_keeps_its_numbers_while_it_is_trimmed() {
        let mut history = History::default();
        assert_eq!((history.min_seq(), history.max_seq(), history.next_seq()), (1, 0, 1));
        assert!(!history.forget_oldest());
        for text in ["a", "bb", "ccc"] {
            history.push(Bytes::from(text));
        }
        assert_eq!((history.min_seq(), history.max_seq(), history.len()), (1, 3, 3));
        assert_eq!(history.bytes(), 6 + 3 * ENTRY_BYTES);
        assert!(history.forget_oldest());
        let table = [
            (i64::MIN, None),
            (-1, None),
            (0, None),
            (1, None),
            (2, Some("bb")),
            (3, Some("ccc")),
            (4, None),
            (i64::MAX, None),
        ];
        for (seq, text) in table {
            assert_eq!(history.get(seq).map(|m| &m[..]), text.map(str::as_bytes), "{seq}");
        }
        assert!(history.forget_oldest() && history.forget_oldest() && !history.forget_oldest());
        assert_eq!((history.min_seq(), history.max_seq(), history.bytes()), (4, 3, 0));
        assert_eq!((history.last(), history.get(3)), (None, None));
        history.push(Bytes::from("d"));
        assert_eq!((history.min_seq(), history.max_seq(), history.get(4).is_some()), (4, 4, true));
    }
}
