//! The consistent-hash ring of OpenIM 3.5's push and of its gateway proxy (spec 10.4), point for point.
//!
//! Twenty points for each member: CRC-32 (IEEE) of the decimal number 0 to 19 directly followed by the member's string.
//! A user belongs to the first point strictly greater than the CRC-32 of his id, after the last to the first. Of equal
//! points the member that was added last has it. What is hashed is a string and nothing else: which node it stands
//! for, and where that is dialled, is not known here.

/// Points of each member (spec 10.4).
const POINTS_PER_MEMBER: usize = 20;

/// A ring over strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// In order; each point once, with the member's number.
    points: Vec<(u32, usize)>,
    members: usize,
}

impl Ring {
    /// A ring of these members, numbered from 0 in the order in which they are added.
    pub fn new<'a>(members: impl IntoIterator<Item = &'a str>) -> Self {
        let mut points = Vec::new();
        let mut count = 0;
        for (number, member) in members.into_iter().enumerate() {
            points.extend((0..POINTS_PER_MEMBER).map(|i| (hash(&format!("{i}{member}")), number)));
            count = number + 1;
        }
        // The later member first, so that `dedup` keeps it.
        points.sort_unstable_by_key(|&(point, number)| (point, std::cmp::Reverse(number)));
        points.dedup_by_key(|&mut (point, _)| point);
        Self { points, members: count }
    }

    /// The number of the member that `user` belongs to; `None`: the ring is empty.
    pub fn owner(&self, user: &str) -> Option<usize> {
        self.walk(user).next()
    }

    /// The first `n` different members from the user's point on: his own, then who would have him without it.
    pub fn ranked(&self, user: &str, n: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for number in self.walk(user) {
            if found.len() >= n.min(self.members) {
                break;
            }
            if !found.contains(&number) {
                found.push(number);
            }
        }
        found
    }

    /// The points after the user, once around.
    fn walk(&self, user: &str) -> impl Iterator<Item = usize> {
        let mark = hash(user);
        let at = self.points.partition_point(|&(point, _)| point <= mark);
        let (before, after) = self.points.split_at(at);
        after.iter().chain(before).map(|&(_, number)| number)
    }
}

/// CRC-32 (IEEE 802.3, reflected) byte by byte: strings of a few bytes gain nothing from a library's wide steps.
fn hash(text: &str) -> u32 {
    let step = |crc: u32, byte: u8| {
        let [low, ..] = crc.to_le_bytes();
        (crc >> 8) ^ CRC_TABLE.get(usize::from(low ^ byte)).copied().unwrap_or_default() // 256 entries
    };
    !text.bytes().fold(u32::MAX, step)
}

const CRC_TABLE: [u32; 256] = crc_table();

#[expect(clippy::indexing_slicing, reason = "computed by the compiler, which refuses what is out of bounds")]
const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0_u32;
    while byte < 256 {
        let (mut crc, mut bit) = (byte, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: usize, port: &str) -> Vec<String> {
        let set = "openimserver-openim-msggateway";
        (0..count).map(|i| format!("{set}-{i}.{set}-headless.default.svc.cluster.local{port}")).collect()
    }

    fn ring(members: &[String]) -> Ring {
        Ring::new(members.iter().map(String::as_str))
    }

    /// Spec A.6.
    #[test]
    fn the_vectors_of_the_specification() {
        let (push, proxy) = (ring(&members(3, ":88")), ring(&members(3, "")));
        for (user, crc, with_port, without) in [
            ("imAdmin", 0xb8c5_1fa3, 2, 2),
            ("u1", 0x424f_9f76, 1, 2),
            ("user1", 0x8c51_8555, 2, 0),
            ("user2", 0x1558_d4ef, 1, 0),
            ("3893196195", 0x3d67_aba2, 0, 1),
            ("", 0, 1, 1),
            ("用户", 0x1dea_a2dd, 2, 2),
        ] {
            assert_eq!(hash(user), crc, "{user}");
            assert_eq!((push.owner(user), proxy.owner(user)), (Some(with_port), Some(without)), "{user}");
        }
        let five = ring(&members(5, ":88"));
        let digits: String = (0..60).map(|n| five.owner(&format!("user{n}")).unwrap().to_string()).collect();
        assert_eq!(digits, "441444441434443444343304330433330230013443444344434444444142");
    }

    #[test]
    fn a_point_belongs_to_what_lies_behind_it_and_the_last_to_the_first() {
        let members = members(4, ":88");
        let ring = ring(&members);
        // A user named like a point has that point's hash, and belongs to the next one.
        for (at, &(point, _)) in ring.points.iter().enumerate() {
            let names = (0..POINTS_PER_MEMBER).flat_map(|i| members.iter().map(move |m| format!("{i}{m}")));
            let user = names.into_iter().find(|name| hash(name) == point).unwrap();
            let next = ring.points[(at + 1) % ring.points.len()].1;
            assert_eq!(ring.owner(&user), Some(next));
        }
    }

    #[test]
    fn of_equal_points_the_member_added_last_has_it() {
        // The string twice: every point is shared.
        let twice = Ring::new(["a", "b", "a"]);
        assert_eq!(twice.points.len(), 2 * POINTS_PER_MEMBER);
        assert!(twice.points.iter().all(|&(_, number)| number != 0));
        assert_eq!(twice.ranked("u", 9).len(), 2);
    }

    #[test]
    fn alternatives_are_who_would_have_the_user_without_those_before() {
        let all = members(5, "");
        let whole = ring(&all);
        for user in (0..200).map(|n| format!("user{n}")) {
            let ranked = whole.ranked(&user, 5);
            assert_eq!(ranked.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
            let rest: Vec<_> = all.iter().enumerate().filter(|&(i, _)| i != ranked[0]).collect();
            let without = Ring::new(rest.iter().map(|(_, name)| name.as_str()));
            assert_eq!(rest[without.owner(&user).unwrap()].0, ranked[1], "{user}");
        }
        assert_eq!((Ring::default().owner("u"), Ring::default().ranked("u", 2)), (None, vec![]));
        assert_eq!(whole.ranked("u", 0), [0; 0]);
    }
}
