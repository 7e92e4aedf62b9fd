//! Who must leave when somebody logs in (spec 8.2, 8.3): a pure function over platforms and tokens.

use crate::ids::{Platform, PlatformClass};

/// Spec 8.2. Values 2 and 3 are no-ops everywhere and not configurable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum LoginPolicy {
    /// 0: nobody is kicked.
    KickNobody,
    /// 1 (default): one connection per platform.
    OnePerPlatform,
    /// 4: one connection per class of platforms.
    OnePerClass,
    /// 5: PCs are free, one of the others.
    PcAndOther,
}

impl LoginPolicy {
    /// The policy of OpenIM's number, or `None` for anything but 0, 1, 4, 5.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::KickNobody),
            1 => Some(Self::OnePerPlatform),
            4 => Some(Self::OnePerClass),
            5 => Some(Self::PcAndOther),
            _ => None,
        }
    }
}

/// A connection that is there already.
#[derive(Clone, Copy, Debug)]
pub struct Existing {
    /// Its platform.
    pub platform: Platform,
    /// Whether it logged in with the very token of the new login: then it stays (spec 8.3).
    pub same_token: bool,
}

/// What must be told to the auth service afterwards; nobody waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidation {
    /// Nothing.
    None,
    /// `invalidateToken`: all tokens of the new login's user and platform but its own.
    AllButNew,
    /// `kickTokens`: those of the kicked connections.
    OfKicked,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Positions in `existing`, ascending.
    pub kicked: Vec<usize>,
    /// See [`Invalidation`].
    pub invalidation: Invalidation,
}

/// Decides for a login on `platform`. `existing` are the user's registered connections, the new one excluded.
pub fn decide(policy: LoginPolicy, platform: Platform, existing: &[Existing]) -> Verdict {
    let candidates: Vec<usize> = match policy {
        LoginPolicy::KickNobody => Vec::new(),
        LoginPolicy::OnePerPlatform => select(existing, |e| e.platform == platform),
        LoginPolicy::OnePerClass => select(existing, |e| e.platform.class() == platform.class()),
        LoginPolicy::PcAndOther if platform.class() == PlatformClass::Pc => Vec::new(),
        LoginPolicy::PcAndOther => select(existing, |e| e.platform.class() != PlatformClass::Pc),
    };
    let any_candidate = !candidates.is_empty();
    let kicked: Vec<usize> =
        candidates.into_iter().filter(|i| existing.get(*i).is_some_and(|e| !e.same_token)).collect();
    let invalidation = match policy {
        // Upstream makes this call even when nothing was left to kick (spec 8.3, policy 1).
        LoginPolicy::OnePerPlatform | LoginPolicy::PcAndOther if any_candidate => Invalidation::AllButNew,
        LoginPolicy::OnePerClass if !kicked.is_empty() => Invalidation::OfKicked,
        _ => Invalidation::None,
    };
    Verdict { kicked, invalidation }
}

fn select(existing: &[Existing], wanted: impl Fn(&Existing) -> bool) -> Vec<usize> {
    existing.iter().enumerate().filter(|(_, e)| wanted(e)).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn existing(ids: &[(i64, bool)]) -> Vec<Existing> {
        let one = |(id, same_token): &(i64, bool)| Existing {
            platform: Platform::new(*id).unwrap(),
            same_token: *same_token,
        };
        ids.iter().map(one).collect()
    }

    #[test]
    fn each_policy_kicks_whom_the_specification_says() {
        use Invalidation::{AllButNew, None, OfKicked};
        let (ios, web, windows) = (1, 5, 3);
        type Case<'a> = (u8, i64, &'a [(i64, bool)], &'a [usize], Invalidation);
        let cases: &[Case<'_>] = &[
            (0, ios, &[(ios, false)], &[], None),
            (1, ios, &[(ios, false), (2, false), (ios, false)], &[0, 2], AllButNew),
            (1, ios, &[(ios, true)], &[], AllButNew),
            (1, ios, &[(web, false)], &[], None),
            (4, ios, &[(2, false), (web, false)], &[0], OfKicked),
            (4, ios, &[(2, true)], &[], None),
            (5, windows, &[(ios, false), (7, false)], &[], None),
            (5, ios, &[(web, false), (windows, false), (2, true)], &[0], AllButNew),
            (5, ios, &[(windows, false)], &[], None),
        ];
        for (number, platform, there, kicked, invalidation) in cases {
            let policy = LoginPolicy::from_number(*number).unwrap();
            let verdict = decide(policy, Platform::new(*platform).unwrap(), &existing(there));
            let expected = Verdict { kicked: kicked.to_vec(), invalidation: *invalidation };
            assert_eq!(verdict, expected, "policy {number}, login on {platform}, there {there:?}");
        }
    }

    #[test]
    fn only_four_numbers_are_policies() {
        let known: Vec<u8> = (0..=255).filter(|n| LoginPolicy::from_number(*n).is_some()).collect();
        assert_eq!(known, [0, 1, 4, 5]);
    }
}
