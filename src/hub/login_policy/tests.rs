//! Every pair of platforms under every policy, with the same and with another token, against tables written by hand
//! from spec 8.1 to 8.3. The code knows classes of platforms; the tables do not.

use super::*;

/// A row per platform of the new login (1 to 11), a column per platform of a connection that is there.
///
/// `.` it stays, nobody is told · `i` it is kicked, then `invalidateToken` · `j` it stays, `invalidateToken` anyway ·
/// `k` it is kicked, then `kickTokens` with its token. With the same token an `i` becomes a `j`, a `k` becomes a `.`.
type Table = [&'static str; 11];

const NOBODY: Table = ["..........."; 11];

const SAME_PLATFORM: Table = [
    "i..........", // iOS
    ".i.........", // Android
    "..i........", // Windows
    "...i.......", // macOS
    "....i......", // Web
    ".....i.....", // MiniWeb
    "......i....", // Linux
    ".......i...", // Android tablet
    "........i..", // iPad
    ".........i.", // Admin
    "..........i", // HarmonyOS
];

const SAME_CLASS: Table = [
    "kk.........", // iOS: with Android
    "kk.........", // Android
    "..kk..k....", // Windows: with macOS and Linux
    "..kk..k....", // macOS
    "....k......", // Web
    ".....k.....", // MiniWeb
    "..kk..k....", // Linux
    ".......kk..", // Android tablet: with iPad
    ".......kk..", // iPad
    ".........k.", // Admin
    "..........k", // HarmonyOS
];

const ONE_BESIDES_PCS: Table = [
    "iijjiijiiii", // iOS
    "iijjiijiiii", // Android
    "...........", // Windows
    "...........", // macOS
    "iijjiijiiii", // Web
    "iijjiijiiii", // MiniWeb
    "...........", // Linux
    "iijjiijiiii", // Android tablet
    "iijjiijiiii", // iPad
    "iijjiijiiii", // Admin
    "iijjiijiiii", // HarmonyOS
];

const TABLES: [(u8, Table); 4] = [(0, NOBODY), (1, SAME_PLATFORM), (4, SAME_CLASS), (5, ONE_BESIDES_PCS)];

/// What the table says about one connection: whether it is kicked, and who is told.
fn expected(table: &Table, new: Platform, there: Existing) -> (bool, Invalidation) {
    let at = |platform: Platform| usize::try_from(platform.id() - 1).unwrap();
    let cell = table[at(new)].as_bytes()[at(there.platform)];
    match (cell, there.spared) {
        (b'i', false) => (true, Invalidation::AllButNew),
        (b'k', false) => (true, Invalidation::OfKicked),
        (b'i', true) | (b'j', _) => (false, Invalidation::AllButNew),
        (b'k', true) | (b'.', _) => (false, Invalidation::None),
        _ => panic!("no such cell"),
    }
}

/// Any one connection that asks for a call is enough for it.
fn expected_of_all(table: &Table, new: Platform, there: &[Existing]) -> Verdict {
    let each: Vec<_> = there.iter().map(|existing| expected(table, new, *existing)).collect();
    let kicked = (0..there.len()).filter(|i| each[*i].0).collect();
    let told = each.iter().map(|(_, told)| *told).find(|told| *told != Invalidation::None);
    Verdict { kicked, invalidation: told.unwrap_or(Invalidation::None) }
}

fn everywhere(tokens: &[bool]) -> Vec<Existing> {
    let on = |platform| tokens.iter().map(move |spared| Existing { platform, spared: *spared });
    Platform::all().flat_map(on).collect()
}

#[test]
fn each_pair_of_platforms_is_decided_as_the_table_says() {
    let mut decided = 0;
    for (number, table) in TABLES {
        let policy = LoginPolicy::from_number(number).unwrap();
        for new in Platform::all() {
            assert_eq!(decide(policy, new, &[]), expected_of_all(&table, new, &[]), "{number} {new:?} alone");
            for there in everywhere(&[false, true]) {
                let verdict = decide(policy, new, &[there]);
                assert_eq!(verdict, expected_of_all(&table, new, &[there]), "{number} {new:?} {there:?}");
                decided += 1;
            }
        }
    }
    assert_eq!(decided, 4 * 11 * 11 * 2);
}

#[test]
fn classes_say_what_the_policy_says_of_two_tokens() {
    let mut seen: Vec<(u8, Class)> = Vec::new();
    for number in [0, 1, 4, 5] {
        let policy = LoginPolicy::from_number(number).unwrap();
        for new in Platform::all() {
            let class = class_of(policy, new);
            for platform in Platform::all() {
                let kicks = !decide(policy, new, &[Existing { platform, spared: false }]).kicked.is_empty();
                let conflicts = class.is_some() && class == class_of(policy, platform);
                assert_eq!(conflicts, kicks, "{number} {new:?} {platform:?}");
            }
            seen.extend(class.map(|class| (number, class)));
        }
    }
    let shared = |(a, b): (&(u8, Class), &(u8, Class))| a.0 != b.0 && a.1 == b.1;
    assert!(!seen.iter().any(|a| seen.iter().any(|b| shared((a, b)))), "policies have classes of their own");
    assert_eq!(seen.len(), 11 + 11 + 8);
}

#[test]
fn several_connections_are_decided_each_by_itself() {
    for (number, table) in TABLES {
        let policy = LoginPolicy::from_number(number).unwrap();
        for new in Platform::all() {
            for tokens in [&[false][..], &[true], &[false, true], &[true, false, false]] {
                let there = everywhere(tokens);
                let expected = expected_of_all(&table, new, &there);
                assert_eq!(decide(policy, new, &there), expected, "{number} {new:?} {tokens:?}");
            }
            // Every two of the 22, in both orders.
            let all = everywhere(&[false, true]);
            for first in &all {
                for second in &all {
                    let there = [*first, *second];
                    let expected = expected_of_all(&table, new, &there);
                    assert_eq!(decide(policy, new, &there), expected, "{number} {new:?} {there:?}");
                }
            }
        }
    }
}

#[test]
fn only_four_numbers_are_policies() {
    let known: Vec<u8> = (0..=255).filter(|n| LoginPolicy::from_number(*n).is_some()).collect();
    assert_eq!(known, [0, 1, 4, 5]);
}
