//! Who must leave when somebody logs in (spec 8.2, 8.3): a pure function over platforms and tokens.

use super::cluster::Class;
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

/// First class of policy 4.
const CLASSES: u8 = 32;
/// The class of policy 5.
const NOT_PC: u8 = 64;

/// What conflicts between nodes: of a user's connections in one class only the newest stays, and those with its token
/// if it spares them; in no class, all. Between two logins this is [`decide`]'s opinion, under every policy. Classes of
/// two policies differ, so that nodes that have not both read a new policy end nobody by mistake.
pub fn class_of(policy: LoginPolicy, platform: Platform) -> Option<Class> {
    match policy {
        LoginPolicy::KickNobody => None,
        LoginPolicy::OnePerPlatform => u8::try_from(platform.id()).ok().map(Class),
        LoginPolicy::OnePerClass => Some(Class(CLASSES + platform.class() as u8)),
        LoginPolicy::PcAndOther => (platform.class() != PlatformClass::Pc).then_some(Class(NOT_PC)),
    }
}

/// Whether a login of this class must hear of an older connection of that class on another node, because the auth
/// service is told then, spared or not ([`Invalidation::AllButNew`]). Under policy 4 it is told by who ends the other.
pub fn hears_of(new: Class, older: Option<Class>) -> bool {
    match new {
        Class(NOT_PC) => true,
        Class(class) => class < CLASSES && older == Some(new),
    }
}

/// A connection that is there already.
#[derive(Clone, Copy, Debug)]
pub struct Existing {
    /// Its platform.
    pub platform: Platform,
    /// Whether it stays all the same: it logged in with the very token of the new login (spec 8.3; not in 3.5).
    pub spared: bool,
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
    // Upstream asks the auth service even when nothing was left to kick: under policy 1 if a connection is on the same
    // platform, under policy 5 if there is any at all (spec 8.3; its `clientOK`).
    let invalidates = match policy {
        LoginPolicy::OnePerPlatform => !candidates.is_empty(),
        LoginPolicy::PcAndOther => platform.class() != PlatformClass::Pc && !existing.is_empty(),
        LoginPolicy::KickNobody | LoginPolicy::OnePerClass => false,
    };
    let kicked: Vec<usize> =
        candidates.into_iter().filter(|i| existing.get(*i).is_some_and(|e| !e.spared)).collect();
    let invalidation = match policy {
        _ if invalidates => Invalidation::AllButNew,
        LoginPolicy::OnePerClass if !kicked.is_empty() => Invalidation::OfKicked,
        _ => Invalidation::None,
    };
    Verdict { kicked, invalidation }
}

fn select(existing: &[Existing], wanted: impl Fn(&Existing) -> bool) -> Vec<usize> {
    existing.iter().enumerate().filter(|(_, e)| wanted(e)).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests;
