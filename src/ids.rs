//! Names of things: newtypes, so that a shard number cannot be passed for a connection.
//!
//! What always holds: an id with a generation names one life of one slot. A stale id finds nothing, ever.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A shard of this node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId(pub u16);

/// An rpc thread of this node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RpcId(pub u16);

/// A slot of an [`crate::arena::Arena`] in one of its lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId {
    /// Position in the slab; reused.
    pub index: u32,
    /// Which life of that position; differs between any two lives of one slot.
    pub generation: u32,
}

/// A connection of one shard, from accept until its file descriptor is closed. Unique within the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnId(pub SlotId);

impl ConnId {
    /// The slab position, for tables kept beside the hub's slab.
    pub fn index(self) -> usize {
        self.0.index as usize
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0.index, self.0.generation)
    }
}

/// A connection id as OpenIM writes it: lower-case hex.
pub fn connection_id_hex(id: [u8; 16]) -> Box<str> {
    // Not by `format!`: that took half a microsecond, for each login and for each request.
    let mut text = String::with_capacity(2 * id.len());
    for digit in id.into_iter().flat_map(|byte| [byte >> 4, byte & 0xf]) {
        text.extend(char::from_digit(digit.into(), 16));
    }
    text.into()
}

/// The way back; what is no connection id gives zeroes.
pub fn connection_id_of_hex(text: &str) -> [u8; 16] {
    u128::from_str_radix(text, 16).map(u128::to_be_bytes).unwrap_or_default()
}

/// A question that a shard asked upstream and whose reply slot it has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallTicket(pub SlotId);

/// A call that an rpc thread answers and whose verdict slot it has reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RpcTicket {
    /// The rpc thread that waits.
    pub rpc: RpcId,
    /// Its slot.
    pub slot: SlotId,
}

/// The unit of push order: one unary call, one stream, or the embedded backend. FIFO within, round robin between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceId(pub u64);

/// A platform id of OpenIM, 1 to 11 (spec 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform(u8);

/// Name and class of platforms 1..=11, in order (spec 8.1, newest protocol).
const PLATFORMS: [(&str, PlatformClass); 11] = [
    ("IOS", PlatformClass::Mobile),
    ("Android", PlatformClass::Mobile),
    ("Windows", PlatformClass::Pc),
    ("OSX", PlatformClass::Pc),
    ("Web", PlatformClass::Web),
    ("MiniWeb", PlatformClass::MiniWeb),
    ("Linux", PlatformClass::Pc),
    ("APad", PlatformClass::Pad),
    ("IPad", PlatformClass::Pad),
    ("Admin", PlatformClass::Admin),
    ("HarmonyOS", PlatformClass::HarmonyOs),
];

/// What login policy 4 counts as one terminal (spec 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlatformClass {
    /// iOS and Android.
    Mobile,
    /// Windows, macOS, Linux.
    Pc,
    /// Browsers.
    Web,
    /// Mini programs.
    MiniWeb,
    /// Tablets.
    Pad,
    /// Administration.
    Admin,
    /// HarmonyOS.
    HarmonyOs,
}

impl Platform {
    /// iOS: the only platform whose background state stops pushes.
    pub const IOS: Self = Self(1);
    /// Android.
    pub const ANDROID: Self = Self(2);
    /// Web: the only platform that the gateway pings.
    pub const WEB: Self = Self(5);

    /// The platform of an OpenIM id, or `None` outside 1..=11.
    pub fn new(id: i64) -> Option<Self> {
        u8::try_from(id).ok().filter(|id| (1..=11).contains(id)).map(Self)
    }

    /// The id, 1..=11.
    pub fn id(self) -> i32 {
        i32::from(self.0)
    }

    /// The name that goes into metadata and Redis keys.
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// The class that login policy 4 looks at.
    pub fn class(self) -> PlatformClass {
        self.entry().1
    }

    /// A phone in the sense of `onlinePush` (spec 4.3): iOS or Android.
    pub fn is_phone(self) -> bool {
        self == Self::IOS || self == Self::ANDROID
    }

    /// All eleven.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=11).map(Self)
    }

    fn entry(self) -> (&'static str, PlatformClass) {
        // `new` is the only way in, so the index is 0..=10.
        PLATFORMS.get(usize::from(self.0) - 1).copied().unwrap_or(("Unknown", PlatformClass::Admin))
    }
}

/// UTF-8 text that is a slice of a larger buffer (a request's): cloning counts a reference and copies nothing.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Text(Bytes);

impl Text {
    /// Checks the bytes. Returns `None` if they are not UTF-8.
    pub fn new(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// As a string slice.
    pub fn as_str(&self) -> &str {
        // Checked in `new`; re-checking a short id costs nanoseconds and keeps this file free of unsafe code.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Decides which shard owns a user: a keyed 64-bit hash modulo the shard count.
///
/// The key is drawn at start (given in tests), so that nobody outside can aim users at one shard.
#[derive(Clone, Debug)]
pub struct Ownership {
    hasher: ahash::RandomState,
    shards: u16,
}

impl Ownership {
    /// `shards` is at least 1.
    pub fn new(key: [u64; 2], shards: u16) -> Self {
        assert!(shards >= 1, "a node has at least one shard");
        Self { hasher: ahash::RandomState::with_seeds(key[0], key[1], 0x7069_6e69, 0x6f6e), shards }
    }

    /// The shard that holds all sessions of `user` on this node.
    pub fn owner(&self, user: &str) -> ShardId {
        let hash = self.hasher.hash_one(user);
        let shard = hash % u64::from(self.shards);
        ShardId(u16::try_from(shard).unwrap_or(0)) // below a u16 count
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_1_to_11() {
        assert_eq!(Platform::new(0), None);
        assert_eq!(Platform::new(12), None);
        assert_eq!(Platform::new(-1), None);
        assert_eq!(Platform::new(11).map(Platform::name), Some("HarmonyOS"));
        assert_eq!(Platform::all().count(), 11);
        assert!(Platform::all().filter(|p| p.is_phone()).map(Platform::id).eq([1, 2]));
    }

    #[test]
    fn a_connection_id_survives_hex() {
        for (id, text) in [
            (std::array::from_fn(|n| u8::try_from(n).unwrap()), "000102030405060708090a0b0c0d0e0f"),
            ([0xfe; 16], "fefefefefefefefefefefefefefefefe"),
        ] {
            assert_eq!((&*connection_id_hex(id), connection_id_of_hex(text)), (text, id));
        }
        assert_eq!(connection_id_of_hex("no hex"), [0; 16]);
    }

    #[test]
    fn text_refuses_what_is_not_utf8() {
        assert_eq!(Text::new(Bytes::from_static(b"\xff")), None);
        assert_eq!(Text::new(Bytes::from_static("ü".as_bytes())).as_deref(), Some("ü"));
    }

    #[test]
    fn ownership_covers_all_shards_and_is_stable() {
        let ownership = Ownership::new([1, 2], 4);
        let owners: std::collections::BTreeSet<_> =
            (0..200).map(|n| ownership.owner(&format!("user{n}"))).collect();
        assert_eq!(owners.len(), 4);
        assert_eq!(ownership.owner("u1"), Ownership::new([1, 2], 4).owner("u1"));
    }
}
