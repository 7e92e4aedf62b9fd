//! The rules of the protocol that a test may take out, one at a time, to show that each is needed
//! (routing-protocol.md section 10.3). Outside tests every rule holds: there is no way to ask for less.

/// One rule. The names in brackets are those of routing-protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// No 101 before the claim's ack (C3).
    AckBeforeGo,
    /// A broken link's promises stay in force until the home can no longer use them (L5).
    VoidWait,
    /// A newcomer greets everybody before its first 101 (M5).
    JoinBarrier,
    /// Under lists, whom those know that it greets is greeted as well (M5, D3).
    GreetingsClosed,
    /// Under lists, a name that is listed is accounted for though its last life has ended, unless the operator has said
    /// so: the next one may be out of reach, and need not wait (M4, M5).
    NamesStayAccounted,
    /// Draining and joining members are greeted as well (M5, D1).
    DrainingGreeted,
    /// A greeting counts for one incarnation (M5, D2).
    GreetingPerIncarnation,
    /// A promise counts only under the home's own placement (P3).
    FingerprintCompared,
    /// Nodes that place differently have different fingerprints (D7).
    AlgorithmInFingerprint,
    /// A home asks for every placement that it has promised (C2).
    ClaimsForPromised,
    /// A promise ends only by an acked newer one (C6, L5).
    PromisesAcked,
    /// The last declaration replaces the former (C6).
    LastDeclarationReplaces,
    /// The shards switch before the node declares (S1).
    ShardsFirst,
    /// Claims and coverage die with the link (L4).
    ClaimsDieWithLink,
    /// Frames of an ended generation are dropped (section 5).
    GenerationChecked,
    /// Coverage runs on a lease (L3).
    CoverLeased,
    /// A home does not prune what peers have claimed (M3).
    NoPruning,
    /// Lost members are accounted for (M4).
    LostAccounted,
    /// Greeted newcomers are accounted for before the view shows them (M4).
    NewcomersAccounted,
    /// Nodes that gave no promise are asked, those that are not linked are named (P3).
    HomeAccounts,
    /// A missing reply is "not complete" (P4).
    SilenceIsNotAbsence,
    /// Only a node with a valid lease says "complete" (M7).
    CompleteWhileLeased,
    /// A holder remembers what it delivered (P7).
    Dedupe,
    /// Placements are taken from the shards only when every promise is for the present one (S2, D4).
    TrimAfterAck,
    /// Whoever has not greeted is left out only if it cannot have passed its barrier (M4, D6).
    ExactNewcomer,
    /// `fence = strict`: only a record whose node has closed its connections is deleted (M10).
    ForgetOnlyEmpty,
    /// `fence = strict`: a node that has only now lost its lease gets the time to close them (M10).
    ForgetAfterClose,
    /// `fence = strict`: an isolated node closes its connections (M9).
    FencesItself,
    /// Times of logins grow past every key heard of (K1).
    FloorKept,
}

/// The rules in force.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    #[cfg(test)]
    without: Option<Rule>,
}

impl Rules {
    /// All but `rule`.
    #[cfg(test)]
    pub(super) fn without(rule: Rule) -> Self {
        Self { without: Some(rule) }
    }

    /// Whether `rule` is in force.
    #[cfg(test)]
    pub(super) fn hold(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Whether `rule` is in force: it is.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test build looks")]
    pub(super) const fn hold(self, _: Rule) -> bool {
        true
    }
}
