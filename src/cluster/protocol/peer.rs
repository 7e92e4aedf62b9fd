//! What a node keeps of one peer: whether it greeted, the life of the link, what the peer claims and promises here
//! (home side), and what was promised to it (holder side).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::frame::{Claim, Generation, Known};
use super::placed::Placed;
use crate::ids::Text;
use crate::limits::{BEAT_MS, BEATS_MAX, COVER_MS, VOID_MS};
use crate::placement::Fingerprint;
use crate::placement::view::{Epoch, Incarnation, NodeId};
use crate::time::Mono;

/// A peer.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// The newest incarnation that had a link with us.
    pub(super) greeted: Option<Greeting>,
    /// Whom it counted when it said so.
    pub(super) knows: Vec<Known>,
    /// Incarnations up to this one are proven to be gone.
    pub(super) gone: Option<Incarnation>,
    /// Incarnations up to this one are so by the operator's word.
    pub(super) forgotten: Option<Incarnation>,
    pub(super) link: Link,
    /// The newest generation that the peer dialled.
    pub(super) newest: Option<Generation>,
    /// Since when there is no link, without a break.
    pub(super) down_since: Option<Mono>,
    /// The life whose record is lost, and since when this node has seen that, without a break.
    pub(super) lost: Option<(Incarnation, Mono)>,
    /// When it said last that it does not count us.
    pub(super) uncounting: Option<Mono>,
    /// Last fresh frame of any generation.
    pub(super) contact: Option<Mono>,
    pub(super) claims: Claims,
    /// Placement under which the peer has claimed all that belongs here: the last declared, or none.
    pub(super) cover: Vec<Fingerprint>,
    pub(super) promises: Vec<Promise>,
    /// When the promises are void, if the link is down.
    pub(super) void_at: Option<Mono>,
    /// The newest promise of this generation.
    pub(super) promised: u64,
}

/// A peer that has had a link with us.
#[derive(Clone, Copy, Debug)]
pub(super) struct Greeting {
    pub(super) incarnation: Incarnation,
    pub(super) registered_epoch: Epoch,
    /// The peer has recorded us as well: only then does the barrier count it.
    pub(super) mutual: bool,
    /// It has echoed a beat of ours, so it counts us in its fence.
    pub(super) echoed: bool,
}

#[derive(Debug, Default)]
pub(super) enum Link {
    #[default]
    Down,
    /// Our Hello is on its way.
    Dialling {
        count: u64,
        since: Mono,
    },
    Up(Up),
}

/// A link that is up.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) generation: Generation,
    /// Own beats and when they were sent; number 0 is the Hello or HelloAck.
    beats: VecDeque<(u64, Mono)>,
    /// When the newest own beat was sent that the peer has echoed.
    pub(super) echoed: Option<(u64, Mono)>,
    /// The peer's newest beat.
    pub(super) heard: u64,
    /// Last fresh receipt.
    pub(super) fresh_at: Mono,
}

/// A promise: "all my connections that belong to you under this placement are claimed with you".
#[derive(Clone, Debug)]
pub(super) struct Promise {
    pub(super) number: u64,
    pub(super) placement: Rc<Placed>,
}

/// The connections that a peer has claimed here.
#[derive(Debug, Default)]
pub(super) struct Claims {
    by_number: BTreeMap<u64, Claim>,
    by_user: BTreeMap<Text, BTreeSet<u64>>,
}

impl Peer {
    pub(super) fn up(&self) -> Option<&Up> {
        match &self.link {
            Link::Up(up) => Some(up),
            _ => None,
        }
    }

    pub(super) fn up_mut(&mut self) -> Option<&mut Up> {
        match &mut self.link {
            Link::Up(up) => Some(up),
            _ => None,
        }
    }

    /// When a beat or the end of a wait is due.
    pub(super) fn due(&self) -> Option<Mono> {
        match &self.link {
            Link::Down => self.void_at,
            Link::Dialling { since, .. } => Some(since.plus_ms(COVER_MS)),
            Link::Up(up) => Some(up.beat_at().plus_ms(BEAT_MS)),
        }
    }

    /// Whether some promise in force names `me`, this peer, as the home of `user`.
    pub(super) fn relies_on(&self, me: &NodeId, user: &str) -> bool {
        self.promises.iter().any(|promise| promise.placement.home(user) == Some(me))
    }

    /// The link has ended; what is kept is what the peer may still be using.
    pub(super) fn down(&mut self, now: Mono) {
        let Link::Up(up) = &self.link else {
            self.link = Link::Down;
            return;
        };
        self.void_at = Some(up.fresh_at.plus_ms(VOID_MS));
        self.down_since = Some(now);
        self.link = Link::Down;
    }

    /// What the peer claimed and promised in a generation that has ended.
    pub(super) fn drop_claims(&mut self) {
        self.claims = Claims::default();
        self.cover.clear();
    }
}

impl Up {
    /// A link whose own Hello or HelloAck was sent at `since`.
    pub(super) fn new(generation: Generation, since: Mono, now: Mono) -> Self {
        Self { generation, beats: VecDeque::from([(0, since)]), echoed: None, heard: 0, fresh_at: now }
    }

    /// The number of the next beat, which is sent now.
    pub(super) fn beat(&mut self, now: Mono) -> u64 {
        let number = self.beats.back().map_or(0, |(number, _)| *number) + 1;
        if self.beats.len() >= BEATS_MAX {
            self.beats.pop_front();
        }
        self.beats.push_back((number, now));
        number
    }

    /// When the newest own beat was sent.
    pub(super) fn beat_at(&self) -> Mono {
        self.beats.back().map_or(Mono(0), |(_, at)| *at)
    }

    /// Takes the echo of a beat. Returns false if the frame that carried it is too old to be acted on (L2).
    pub(super) fn take_echo(&mut self, seen: u64, now: Mono) -> bool {
        let Some((_, sent_at)) = self.beats.iter().find(|(number, _)| *number == seen).copied() else {
            return false;
        };
        if now.since_ms(sent_at) > COVER_MS {
            return false;
        }
        self.fresh_at = now;
        if self.echoed.is_none_or(|(number, _)| number <= seen) {
            self.echoed = Some((seen, sent_at));
        }
        true
    }

    /// Until when the peer's promise may be believed: counted from the sending of the beat (L3).
    pub(super) fn covered_until(&self) -> Mono {
        let since =
            self.echoed.map_or_else(|| self.beats.front().map_or(Mono(0), |(_, at)| *at), |(_, at)| at);
        since.plus_ms(COVER_MS)
    }
}

impl Claims {
    pub(super) fn insert(&mut self, claim: Claim) {
        self.remove(claim.number);
        self.by_user.entry(claim.user.clone()).or_default().insert(claim.number);
        self.by_number.insert(claim.number, claim);
    }

    pub(super) fn remove(&mut self, number: u64) {
        let Some(claim) = self.by_number.remove(&number) else { return };
        if let Some(numbers) = self.by_user.get_mut(&claim.user) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.by_user.remove(&claim.user);
            }
        }
    }

    /// With the rule against it taken out.
    pub(super) fn retain(&mut self, keep: impl Fn(&Claim) -> bool) {
        let gone: Vec<u64> = self.by_number.values().filter(|c| !keep(c)).map(|c| c.number).collect();
        for number in gone {
            self.remove(number);
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Claim> {
        self.by_number.get_mut(&number)
    }

    pub(super) fn has_user(&self, user: &Text) -> bool {
        self.by_user.contains_key(user)
    }

    pub(super) fn of_user<'a>(&'a self, user: &Text) -> impl Iterator<Item = &'a Claim> {
        self.by_user.get(user).into_iter().flatten().filter_map(|number| self.by_number.get(number))
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> impl Iterator<Item = &Claim> {
        self.by_number.values()
    }
}
