//! Pushes that are being served: their queues by source, how far each has come, and what a turn may spend.
//!
//! A send costs the kernel microseconds, one more frame in it next to nothing. So a turn counts sends: frames for
//! connections that send in it anyway ride along, up to a bound. That pushes meet is arranged: one begins its walk
//! where another is that has the same list, and goes round ([`Walk`]).

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::held::Message;
use super::mail::{Audience, PushBody, PushMail, PushRules, RecipientVerdict};
use crate::ids::{RpcTicket, SlotId, SourceId};
use crate::limits;
use crate::wire::envelope::Variant;
use crate::wire::frame::Frame;

/// A push that is being served.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) mail: PushMail,
    /// Over the listed recipients; for a push to everybody over the table of users. `None`: not begun.
    pub(super) walk: Option<Walk>,
    /// The entry that its last slice began with.
    pub(super) slice_from: u32,
    /// For a push to everybody: users that came later are not served. See [`User::number`](super::registry::User).
    pub(super) came_before: u64,
    pub(super) answer: Answer,
    /// Built on first use.
    pub(super) frames: Frames,
    /// The copy that waits for absent users. Made on first use.
    pub(super) held: Option<Rc<Message>>,
    pub(super) cancelled: bool,
    /// Every recipient was served, or will not be: it leaves its queue before the turn ends.
    pub(super) over: bool,
}

pub(super) type Frames = [Option<Frame>; Variant::COUNT];

/// Who hears of it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Nobody,
    /// In one part when all are served ([`Report::Queued`](super::mail::Report::Queued)).
    Whole(RpcTicket, Vec<RecipientVerdict>),
    /// As verdicts become known: its place in [`super::verdicts`].
    Parts(SlotId),
}

/// A push as it is offered to one connection.
pub(super) struct Offer<'a> {
    pub(super) body: &'a PushBody,
    pub(super) rules: PushRules,
    pub(super) frames: &'a mut Frames,
}

/// One lap around a list, begun anywhere. The list may grow at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walk {
    first: u32,
    at: u32,
    wrapped: bool,
}

impl Walk {
    pub(super) fn begin_at(first: u32) -> Self {
        Self { first, at: first, wrapped: false }
    }

    /// What to look at next in a list of `len` entries. `None`: the lap is over.
    pub(super) fn next(&self, len: u32) -> Option<u32> {
        match self.wrapped {
            true => (self.at < self.first).then_some(self.at),
            false if self.at < len => Some(self.at),
            false => (self.first > 0).then_some(0),
        }
    }

    /// What [`Walk::next`] said was looked at.
    pub(super) fn step(&mut self, looked_at: u32) {
        self.wrapped |= looked_at < self.at;
        self.at = looked_at + 1;
    }

    /// Entries that were not looked at.
    pub(super) fn left(&self, len: u32) -> u32 {
        if self.wrapped { self.first - self.at } else { len.saturating_sub(self.at) + self.first }
    }
}

/// What became of a push, or of a source, in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Served {
    /// Every recipient was served, or will not be.
    All,
    /// The turn's budget ended, or what it may follow.
    Some,
    /// The next user needs more than is left of the budget: he is the first of the next turn.
    NoRoom,
}

/// What is left of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// Connections that would send only for a push, and recipients without any.
    pub(super) sends: usize,
    /// Connections altogether, and recipients without any.
    pub(super) frames: usize,
    /// Nothing was spent: one user may have more connections than all of it.
    whole: bool,
    pub(super) rank: Rank,
}

/// Whose recipients a turn is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rank {
    /// This push's: it decides which connections send.
    Leads,
    /// Another's, which went before. Absent recipients cost it no send: the other one paid for them.
    Rides,
}

impl Budget {
    pub(super) fn of_a_turn(push_slice: usize) -> Self {
        let sends = push_slice.max(1);
        Self {
            sends,
            frames: sends.saturating_mul(limits::PUSHES_TOGETHER_MAX),
            whole: true,
            rank: Rank::Leads,
        }
    }

    /// The part that needs no sends.
    pub(super) fn for_rides(self) -> Self {
        Self { sends: 0, whole: false, rank: Rank::Rides, ..self }
    }

    /// As [`Budget::take`] for a recipient without connections.
    pub(super) fn take_absent(&mut self) -> bool {
        self.take(usize::from(self.rank == Rank::Leads), 1)
    }

    /// Whether so much is left; then it is spent.
    pub(super) fn take(&mut self, sends: usize, frames: usize) -> bool {
        let fits = self.whole || (sends <= self.sends && frames <= self.frames);
        if fits {
            self.sends = self.sends.saturating_sub(sends);
            self.frames = self.frames.saturating_sub(frames);
            self.whole = false;
        }
        fits
    }
}

/// What the push before it in the same queue went through in this turn. One that walks behind it there keeps the order
/// of their source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trail<'a> {
    pub(super) audience: &'a Audience,
    /// Of the list.
    pub(super) len: u32,
    /// The entry it began with.
    pub(super) from: u32,
    /// How many it looked at.
    pub(super) steps: u32,
}

impl Trail<'_> {
    /// Whether a push may walk here: it has not begun, or stands where the other one stood, in a list of that length.
    pub(super) fn takes(&self, job: &Job) -> bool {
        let stands = |walk: &Walk| walk.next(self.len) == Some(self.from);
        self.audience.is_as_long_as(&job.mail.audience)
            && self.steps > 0
            && job.walk.as_ref().is_none_or(stands)
    }
}

/// Pushes by source, and whose turn it is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pushes {
    sources: BTreeMap<SourceId, VecDeque<Job>>,
    turns: VecDeque<SourceId>,
    open: usize,
    /// Empty; its memory is used again.
    #[serde(skip)]
    hand: Vec<Job>,
}

impl Pushes {
    pub(super) fn new() -> Self {
        Self { sources: BTreeMap::new(), turns: VecDeque::new(), open: 0, hand: Vec::new() }
    }

    /// Queues a push behind the others of its source.
    pub(super) fn accept(&mut self, job: Job) {
        let source = job.mail.source;
        let jobs = self.sources.entry(source).or_default();
        if jobs.is_empty() {
            self.turns.push_back(source);
        }
        jobs.push_back(job);
        self.open += 1;
    }

    /// The caller is gone. (A scan: cancels are rare, open pushes bounded.)
    pub(super) fn cancel(&mut self, ticket: RpcTicket) {
        let jobs = self.sources.values_mut().flatten();
        for job in jobs.filter(|job| job.mail.ticket == Some(ticket)) {
            job.cancelled = true;
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.open < limits::PUSHES_OPEN_MAX as usize
    }

    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// How many sources wait.
    pub(super) fn waiting(&self) -> usize {
        self.turns.len()
    }

    /// The source whose turn it is, out of its order.
    pub(super) fn next_source(&mut self) -> Option<SourceId> {
        self.turns.pop_front()
    }

    /// The source that is `place` turns away; it keeps its place.
    pub(super) fn source_at(&self, place: usize) -> Option<SourceId> {
        self.turns.get(place).copied()
    }

    /// Takes the first push of a source.
    pub(super) fn pop(&mut self, source: SourceId) -> Option<Job> {
        self.sources.get_mut(&source)?.pop_front()
    }

    /// Makes it the first again.
    pub(super) fn put_back(&mut self, source: SourceId, job: Job) {
        self.sources.entry(source).or_default().push_front(job);
    }

    /// A place for what is popped.
    pub(super) fn empty_hand(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.hand)
    }

    /// What was popped goes back in its order, but for so many pushes that are over. Whether the source has any left.
    pub(super) fn end(&mut self, source: SourceId, mut popped: Vec<Job>, over: usize) -> bool {
        while let Some(job) = popped.pop() {
            self.put_back(source, job);
        }
        self.hand = popped;
        self.open -= over;
        let left = self.sources.get(&source).is_some_and(|jobs| !jobs.is_empty());
        if !left {
            self.sources.remove(&source);
        }
        left
    }

    /// The source's next turn comes after all others, or, if there was no room for its push, first.
    pub(super) fn wait(&mut self, source: SourceId, served: Served) {
        match served {
            Served::NoRoom => self.turns.push_front(source),
            Served::All | Served::Some => self.turns.push_back(source),
        }
    }

    /// Takes a source whose queue is empty out of the order.
    pub(super) fn forget(&mut self, place: usize) {
        self.turns.remove(place);
    }

    /// Where a push should begin: where one is, or in this turn was, that seems to have the same list, so that from
    /// there on both serve a connection in one turn. (Should the lists differ, nothing is lost but that.)
    pub(super) fn meeting_point(&self, audience: &Audience, len: u32, rank: Rank) -> u32 {
        let next_turns = self.turns.iter().take(limits::PUSHES_TOGETHER_MAX);
        let heads = next_turns.filter_map(|source| self.sources.get(source)?.front());
        let mut places = heads.filter_map(|head| {
            let (walk, theirs) = (head.walk.as_ref()?, &head.mail.audience);
            let at = match rank {
                Rank::Leads => walk.next(len),
                Rank::Rides => Some(head.slice_from),
            };
            let same =
                theirs.is_as_long_as(audience) && at.map(|at| theirs.user_at(at) == audience.user_at(at))?;
            at.filter(|_| same)
        });
        places.next().unwrap_or(0)
    }
}
