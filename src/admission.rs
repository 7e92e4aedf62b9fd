//! What the node lets in: one fixed table of relaxed atomics, touched at connect, at close and at state changes only.
//!
//! It counts connections of the whole node and per address, and paces accepts. Not here: what a shard and a user may
//! have (the hub), and handshakes in flight (`shard/door.rs`).

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ahash::RandomState;

use crate::limits::ADDRESS_SLOTS_MAX;
use crate::time::Mono;

/// Counts connections of the whole node against its limits, and says what the node is doing.
#[derive(Debug)]
pub struct Admission {
    connections_max: AtomicU32,
    /// Does not change: whether addresses are counted at all is decided at start.
    address_connections_max: u32,
    accepts_per_second_max: AtomicU32,
    open: AtomicU32,
    state: AtomicU32,
    addresses: Addresses,
    /// Nanoseconds: when the accepts so far would have come at the limit's pace.
    paced_until: AtomicU64,
}

/// What the node lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Connections of the node.
    pub connections_max: u32,
    /// Connections of one address; 0: any number.
    pub address_connections_max: u32,
    /// Accepts per second, and at once after a quiet second; 0: any number.
    pub accepts_per_second_max: u32,
    /// Key of the hash of addresses.
    pub key: [u64; 2],
}

/// Connections by address: a fixed table of counters, found by a keyed hash (nobody outside can aim at another's
/// counter). Addresses that meet in one counter share its limit, which makes the limit stricter, never laxer.
#[derive(Debug)]
struct Addresses {
    hasher: RandomState,
    /// Empty when there is no limit.
    counts: Box<[AtomicU32]>,
}

/// A counted place of an address, to be given back: the number of its counter, from 1. Every connection carries one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPlace(NonZeroU32);

/// What an address is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressVerdict {
    /// There is no limit: nothing is counted.
    Free,
    /// It is counted, until [`Admission::leave_address`].
    Counted(AddressPlace),
    /// It has as many connections as it may (503).
    Full,
}

/// What `/readyz` answers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Not listening yet.
    Starting,
    /// Serving.
    Ready,
    /// Leaving.
    Draining,
}

impl Admission {
    /// A node that is starting, holds nothing, and limits nothing but its connections.
    pub fn new(connections_max: u32) -> Self {
        let (address_connections_max, accepts_per_second_max) = (0, 0);
        Self::with(AdmissionLimits {
            connections_max,
            address_connections_max,
            accepts_per_second_max,
            key: [0; 2],
        })
    }

    /// A node that is starting and holds nothing.
    pub fn with(limits: AdmissionLimits) -> Self {
        let slots = if limits.address_connections_max == 0 { 0 } else { ADDRESS_SLOTS_MAX };
        let [a, b] = limits.key;
        let addresses = Addresses {
            hasher: RandomState::with_seeds(a, b, 0x6164_6472, 0x0065_7373),
            counts: (0..slots).map(|_| AtomicU32::new(0)).collect(),
        };
        Self {
            connections_max: AtomicU32::new(limits.connections_max),
            address_connections_max: limits.address_connections_max,
            accepts_per_second_max: AtomicU32::new(limits.accepts_per_second_max),
            open: AtomicU32::new(0),
            state: AtomicU32::new(0),
            addresses,
            paced_until: AtomicU64::new(0),
        }
    }

    /// Takes a place for a connection; `false`: the node is full (errCode 1601, spec 1.3 check 1).
    #[must_use]
    pub fn enter(&self) -> bool {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        if before < self.connections_max() {
            return true;
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        false
    }

    /// Gives a place back.
    pub fn leave(&self) {
        let before = self.open.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "a place was given back twice");
    }

    /// Places taken.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// Places there are.
    pub fn connections_max(&self) -> u32 {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Changes the limits of the node; who is in stays. Called by the main thread only.
    pub fn set_limits(&self, connections_max: u32, accepts_per_second_max: u32) {
        self.connections_max.store(connections_max, Ordering::Relaxed);
        self.accepts_per_second_max.store(accepts_per_second_max, Ordering::Relaxed);
    }

    /// Takes a place for a connection of this address; all of an IPv6 /64 count as one.
    #[must_use]
    pub fn enter_address(&self, address: IpAddr) -> AddressVerdict {
        let Some((place, count)) = self.addresses.find(address) else {
            return AddressVerdict::Free;
        };
        let before = count.fetch_add(1, Ordering::Relaxed);
        if before < self.address_connections_max {
            return AddressVerdict::Counted(place);
        }
        count.fetch_sub(1, Ordering::Relaxed);
        AddressVerdict::Full
    }

    /// Gives the place of an address back.
    pub fn leave_address(&self, place: AddressPlace) {
        if let Some(count) = self.addresses.counts.get(place.0.get() as usize - 1) {
            let before = count.fetch_sub(1, Ordering::Relaxed);
            assert!(before > 0, "the place of an address was given back twice");
        }
    }

    /// Whether another connection may be accepted now; it is counted if so. `false`: too many per second (503).
    #[must_use]
    pub fn may_accept(&self, now: Mono) -> bool {
        const SECOND_NS: u64 = 1_000_000_000;
        let rate = u64::from(self.accepts_per_second_max.load(Ordering::Relaxed));
        if rate == 0 {
            return true;
        }
        let (now, step) = (now.0.saturating_mul(1_000_000), SECOND_NS / rate);
        let next = |until: u64| {
            let until = until.max(now);
            (until - now <= SECOND_NS.saturating_sub(step)).then_some(until.saturating_add(step))
        };
        self.paced_until.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Announces a new state. Called by the main thread only.
    pub fn set_state(&self, state: NodeState) {
        self.state.store(state as u32, Ordering::Relaxed);
    }

    /// What the node is doing.
    pub fn state(&self) -> NodeState {
        match self.state.load(Ordering::Relaxed) {
            0 => NodeState::Starting,
            1 => NodeState::Ready,
            _ => NodeState::Draining,
        }
    }
}

impl Addresses {
    fn find(&self, address: IpAddr) -> Option<(AddressPlace, &AtomicU32)> {
        let network = match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            // The host half is the client's to choose. An IPv4 address cannot look like such a network.
            IpAddr::V6(v6) => u64::try_from(v6.to_bits() >> 64).unwrap_or(0) | 1 << 63,
        };
        let slots = u64::try_from(self.counts.len()).ok().filter(|n| *n > 0)?;
        let slot = usize::try_from(self.hasher.hash_one(network) % slots).ok()?;
        let place = NonZeroU32::new(u32::try_from(slot + 1).ok()?)?;
        Some((AddressPlace(place), self.counts.get(slot)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_has_its_limit_and_a_network_of_ipv6_is_one_address() {
        let limits = AdmissionLimits {
            connections_max: 100,
            address_connections_max: 2,
            accepts_per_second_max: 0,
            key: [1, 2],
        };
        let admission = Admission::with(limits);
        let mut places = Vec::new();
        for (address, fits) in [
            ("10.0.0.1", true),
            ("10.0.0.1", true),
            ("10.0.0.1", false),
            ("10.0.0.2", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff:2", true),
            ("2001:db8::3", false),
            ("2001:db8:0:1::1", true),
        ] {
            match admission.enter_address(ip(address)) {
                AddressVerdict::Counted(place) if fits => places.push(place),
                AddressVerdict::Full if !fits => {}
                other => panic!("{address}: {other:?}"),
            }
        }
        admission.leave_address(places[0]);
        assert!(matches!(admission.enter_address(ip("10.0.0.1")), AddressVerdict::Counted(_)));
        assert_eq!(admission.enter_address(ip("10.0.0.1")), AddressVerdict::Full);
        assert_eq!(Admission::new(1).enter_address(ip("10.0.0.1")), AddressVerdict::Free);
    }

    #[test]
    fn addresses_seldom_meet_in_one_counter() {
        let limits = AdmissionLimits {
            connections_max: 1,
            address_connections_max: 8,
            accepts_per_second_max: 0,
            key: [3, 4],
        };
        let admission = Admission::with(limits);
        let refused = (0..100_000_u32)
            .filter(|n| admission.enter_address(IpAddr::V4((*n).into())) == AddressVerdict::Full)
            .count();
        assert!(refused < 10, "{refused} of 100000 strangers were refused at a limit of 8");
    }

    #[test]
    fn accepts_are_paced_with_a_second_of_credit() {
        let limits = AdmissionLimits {
            connections_max: 1,
            address_connections_max: 0,
            accepts_per_second_max: 10,
            key: [0; 2],
        };
        let admission = Admission::with(limits);
        let accepted = |at: u64, tries: usize| (0..tries).filter(|_| admission.may_accept(Mono(at))).count();
        assert_eq!(accepted(5_000, 100), 10, "what a quiet second has saved");
        assert_eq!(accepted(5_050, 100), 0);
        assert_eq!(accepted(5_100, 100), 1);
        assert_eq!((0..100).map(|n| accepted(5_100 + 10 * n, 3)).sum::<usize>(), 9, "ten a second");
        assert_eq!(accepted(60_000, 100), 10);
        assert!((0..1_000).all(|_| Admission::new(1).may_accept(Mono(0))), "0 is no limit");
    }

    #[test]
    fn the_limit_holds_at_its_edge_and_places_come_back() {
        let admission = Admission::new(2);
        assert!(admission.enter() && admission.enter());
        assert!(!admission.enter());
        admission.leave();
        assert!(admission.enter());
        assert_eq!(admission.open(), 2);
    }

    #[test]
    fn states_are_told_apart() {
        let admission = Admission::new(1);
        for state in [NodeState::Starting, NodeState::Ready, NodeState::Draining] {
            admission.set_state(state);
            assert_eq!(admission.state(), state);
        }
    }
}
