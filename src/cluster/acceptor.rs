//! Which views are acted on at once, and which only when the source has said the same for a while.
//!
//! Pure: who reads the source is in `control`. To ignore a view is always safe, it costs messages between nodes
//! (routing-protocol.md section 3); to act on a source that was restored from nothing, or that answers for another
//! prefix, would move every user at once. What always holds: epochs only grow until the source is said to be another
//! one, and a view in which the active members are gone, or half of them, is adopted only after enough observations
//! over enough time. Who leaves by his own word (draining) is not gone.

use super::endpoints::{Confirmation, Doubt};
use crate::placement::view::{Epoch, MemberState, View};
use crate::time::Mono;

/// What came of an observation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is the view now.
    Adopted,
    /// It is the one that was adopted already.
    Unchanged,
    /// A later one was seen before; it is ignored.
    Stale,
    /// It is not believed yet: observe again. Worth a warning that names the suspicion.
    Held(Suspicion),
}

/// Why a view is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspicion {
    /// Nobody is active, and those who were did not say that they leave.
    Empty,
    /// So many of the members that were active are lost or missing: half or more, and not just one.
    Halved {
        /// Active in the view that is believed.
        active: usize,
        /// Of them lost or missing now.
        gone: usize,
    },
    /// The source is another one than before.
    OtherSource,
}

/// The view that is believed, and the doubt about the next.
#[derive(Clone, Debug)]
pub struct Acceptor {
    confirmation: Confirmation,
    view: Option<View>,
    /// The highest epoch of this source, believed or not.
    newest: Epoch,
    source: Source,
    doubt: Option<Doubt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// That of the view.
    Same,
    /// None of its views has been adopted.
    Other,
}

impl Acceptor {
    /// Nothing observed yet: the first view is adopted whatever it says.
    pub fn new(confirmation: Confirmation) -> Self {
        Self { confirmation, view: None, newest: Epoch::default(), source: Source::Same, doubt: None }
    }

    /// The view to act on; `None`: nothing was observed.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// Whether a view waits for confirmation: observe again, even if nothing changes.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt.is_some()
    }

    /// The source is another one (etcd's cluster id changed): its epochs start anew, its first view has to be
    /// confirmed, and every node registers again once it is.
    pub fn source_changed(&mut self) {
        (self.newest, self.doubt) = (Epoch::default(), None);
        if self.view.is_some() {
            self.source = Source::Other;
        }
    }

    /// Takes the view as the source has it now.
    pub fn observe(&mut self, now: Mono, view: View) -> Acceptance {
        if view.epoch() < self.newest {
            return Acceptance::Stale;
        }
        self.newest = view.epoch();
        let suspicion = self.view.as_ref().and_then(|believed| match self.source {
            Source::Other => Some(Suspicion::OtherSource),
            Source::Same => suspicion(believed, &view),
        });
        if let Some(suspicion) = suspicion
            && !self.confirmation.confirms(&mut self.doubt, now)
        {
            return Acceptance::Held(suspicion);
        }
        (self.doubt, self.source) = (None, Source::Same);
        if self.view.as_ref() == Some(&view) {
            return Acceptance::Unchanged;
        }
        self.view = Some(view);
        Acceptance::Adopted
    }
}

/// What is suspicious about `next` after `believed`.
fn suspicion(believed: &View, next: &View) -> Option<Suspicion> {
    let is_gone = |node_id| next.member(node_id).is_none_or(|member| member.state == MemberState::Lost);
    let active = believed.active().count();
    let gone = believed.active().filter(|member| is_gone(&member.node_id)).count();
    if gone == 0 {
        None
    } else if next.active().next().is_none() {
        Some(Suspicion::Empty)
    } else if gone > 1 && gone.saturating_mul(2) >= active {
        // Of two members one is half, and goes in any update of two nodes.
        Some(Suspicion::Halved { active, gone })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::placement::view::{Member, NodeId};

    const CONFIRMATION: Confirmation = Confirmation { observations: 3, over_ms: 1_000 };

    /// `a`, `b` are active, `a-` joins, `a~` drains, `a!` is lost.
    fn view(epoch: u64, members: &str) -> View {
        let member = |text: &str| {
            let (name, state) = match text.split_at(1) {
                (name, "") => (name, MemberState::Active),
                (name, "-") => (name, MemberState::Joining),
                (name, "~") => (name, MemberState::Draining),
                (name, _) => (name, MemberState::Lost),
            };
            Member { state, ..Member::new(NodeId::new(name).unwrap()) }
        };
        View::new(Epoch(epoch), members.split_whitespace().map(member).collect())
    }

    /// When, at which epoch, who is seen, and what comes of it.
    type Step = (u64, u64, &'static str, Acceptance);

    #[track_caller]
    fn check(steps: &[Step]) {
        let mut acceptor = Acceptor::new(CONFIRMATION);
        for (n, &(at, epoch, members, want)) in steps.iter().enumerate() {
            let before = acceptor.view().cloned();
            let seen = view(epoch, members);
            assert_eq!(acceptor.observe(Mono(at), seen.clone()), want, "step {n}");
            let held = matches!(want, Acceptance::Held(_));
            let ignored = held || want == Acceptance::Stale;
            assert_eq!(acceptor.view().cloned(), if ignored { before } else { Some(seen) }, "step {n}");
            assert!(!held || acceptor.is_in_doubt(), "step {n}");
        }
    }

    use Acceptance::{Adopted, Held, Stale, Unchanged};

    const fn halved(active: usize, gone: usize) -> Acceptance {
        Held(Suspicion::Halved { active, gone })
    }

    #[test]
    fn views_follow_their_epochs() {
        check(&[
            (0, 5, "", Adopted), // the first, whatever it says
            (1, 6, "a b", Adopted),
            (2, 6, "a b", Unchanged),
            (3, 5, "a b c", Stale),
            (4, 9, "a b c", Adopted),
        ]);
    }

    #[test]
    fn an_empty_view_waits_until_it_was_seen_often_and_long_enough() {
        let empty = Held(Suspicion::Empty);
        check(&[
            (0, 1, "a", Adopted),
            (10, 2, "", empty),
            (11, 1, "a", Stale), // an old view confirms and refutes nothing
            (20, 2, "a!", empty),
            (1_009, 3, "", empty), // often, and 1 ms too early
            (1_010, 3, "", Adopted),
        ]);
        check(&[
            (0, 1, "a b", Adopted),
            (10, 2, "c-", empty),    // nobody active
            (9_000, 2, "c-", empty), // long enough, and once too few
            (9_001, 2, "c-", Adopted),
        ]);
        check(&[
            (0, 1, "a b", Adopted),
            (10, 2, "", empty),
            (20, 2, "", empty),
            (2_000, 3, "a b", Adopted), // refuted: the count begins anew
            (2_010, 4, "", empty),
            (3_010, 4, "", empty),
            (3_011, 4, "", Adopted),
        ]);
    }

    #[test]
    fn a_view_that_lost_half_of_the_active_members_waits() {
        check(&[
            (0, 1, "a b c d e", Adopted),
            (1, 2, "a b c", Adopted), // two of five
            (2, 3, "a", halved(3, 2)),
            (3, 4, "a b! c!", halved(3, 2)), // lost is gone
            (1_002, 5, "a", Adopted),
        ]);
        check(&[
            (0, 1, "a b c d", Adopted),
            (1, 2, "a b x y", halved(4, 2)), // others do not make up for it
            (2, 3, "a b c", Adopted),
        ]);
        check(&[(0, 1, "a b", Adopted), (1, 2, "b", Adopted)]); // one of two: an ordinary restart
    }

    #[test]
    fn who_leaves_by_his_own_word_is_not_gone() {
        check(&[
            (0, 1, "a b c d", Adopted),
            (1, 2, "a~ b~ c~ d~", Adopted),
            (2, 3, "", Adopted), // nobody was active any more
            (3, 4, "a b", Adopted),
            (4, 5, "a- b-", Adopted), // both restarted
        ]);
    }

    #[test]
    fn another_source_is_confirmed_and_its_epochs_start_anew() {
        let mut acceptor = Acceptor::new(CONFIRMATION);
        acceptor.source_changed(); // before anything was seen: nothing to doubt
        assert_eq!(acceptor.observe(Mono(0), view(900, "a b")), Adopted);
        acceptor.source_changed();
        let other = Held(Suspicion::OtherSource);
        assert_eq!(acceptor.observe(Mono(1), view(7, "a b")), other);
        assert_eq!(acceptor.observe(Mono(2), view(6, "a")), Stale);
        assert_eq!(acceptor.observe(Mono(3), view(8, "a b")), other);
        assert_eq!(acceptor.view().map(View::epoch), Some(Epoch(900)));
        assert_eq!(acceptor.observe(Mono(1_001), view(8, "a b")), Adopted);
        assert_eq!(acceptor.observe(Mono(1_002), view(8, "a b")), Unchanged);
    }

    proptest! {
        /// Whatever comes, half of the active members go only after confirmation or by their own word.
        #[test]
        fn many_go_only_after_confirmation(
            steps in proptest::collection::vec((0_u64..600, 0_u64..2, "[a-e]{0,5}"), 1..60)
        ) {
            let mut acceptor = Acceptor::new(CONFIRMATION);
            let (mut now, mut epoch) = (0, 1);
            let mut suspicious: Vec<u64> = Vec::new();
            for (pause, grow, names) in steps {
                (now, epoch) = (now + pause, epoch + grow);
                let members: String = names.chars().map(|c| format!("{c} ")).collect();
                let before = acceptor.view().cloned();
                let acceptance = acceptor.observe(Mono(now), view(epoch, &members));
                let Some(before) = before else { continue };
                let after = acceptor.view().unwrap();
                let left = before.active().filter(|m| after.member(&m.node_id).is_some()).count();
                let gone = before.active().count() - left;
                match acceptance {
                    Held(_) => {
                        suspicious.push(now);
                        prop_assert_eq!(gone, 0);
                    }
                    _ if gone > 1 && gone * 2 >= gone + left => {
                        prop_assert!(suspicious.len() >= 2 && now - suspicious[0] >= 1_000);
                        suspicious.clear();
                    }
                    _ => suspicious.clear(),
                }
            }
        }
    }
}
