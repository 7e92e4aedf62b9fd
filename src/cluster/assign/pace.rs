//! How often clients may ask: so often per address, and so often all together. Pure.
//!
//! Per address one moment is kept (the generic cell rate algorithm): when what it has asked would have been asked at
//! the limit's pace. An address that has been quiet for [`ASSIGN_BURST_MS`] has nothing on record. What always holds:
//! the table has at most `ASSIGN_ADDRESSES_MAX` entries; addresses beyond share one record, which makes the limit
//! stricter, never laxer; who is refused is charged nothing.

use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

use hashbrown::HashMap;

use crate::limits::{ASSIGN_ADDRESSES_MAX, ASSIGN_BURST_MS, ASSIGN_SWEEP_MS};
use crate::time::Mono;

/// Requests per second; 0: any number. In a burst there may be as many as in [`ASSIGN_BURST_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Of one address: an IPv4 address, or the first 64 bits of an IPv6 address.
    pub address_per_s: u32,
    /// Of all together.
    pub all_per_s: u32,
}

/// Which limit a request meets, and after how many milliseconds it may come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its address asks too often.
    Address(u64),
    /// All together do.
    All(u64),
}

/// Microseconds since the start of the clock: when all that was asked would have been asked at the limit's pace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Due(u64);

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Pace<S> {
    addresses: HashMap<IpAddr, Due, S>,
    others: Due,
    all: Due,
    swept: Mono,
    /// Requests that were judged by the shared record, and are not told yet.
    shared: u64,
}

impl<S: BuildHasher> Pace<S> {
    /// Nothing was asked yet. The hash of addresses has to be one that nobody outside can aim at.
    pub fn new(hasher: S) -> Self {
        let addresses = HashMap::with_hasher(hasher);
        Self { addresses, others: Due::default(), all: Due::default(), swept: Mono(0), shared: 0 }
    }

    /// Takes a request.
    ///
    /// # Errors
    /// It is one too many: the limit that it meets.
    pub fn take(&mut self, now: Mono, address: IpAddr, rates: Rates) -> Result<(), Over> {
        let mut all = self.all;
        all.take(now, rates.all_per_s).map_err(Over::All)?;
        if rates.address_per_s > 0 {
            self.record(now, address).take(now, rates.address_per_s).map_err(Over::Address)?;
        }
        self.all = all;
        Ok(())
    }

    /// How many requests were judged by the record that addresses beyond the table share, since this was asked last.
    pub fn take_shared(&mut self) -> u64 {
        std::mem::take(&mut self.shared)
    }

    /// Addresses on record.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Whether nobody is on record.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    fn record(&mut self, now: Mono, address: IpAddr) -> &mut Due {
        let key = network(address);
        let full = self.addresses.len() >= ASSIGN_ADDRESSES_MAX && !self.addresses.contains_key(&key);
        if full && now.since_ms(self.swept) >= ASSIGN_SWEEP_MS {
            self.swept = now;
            // Which are dropped depends on the clock only.
            self.addresses.retain(|_, due| due.0 > now.0.saturating_mul(1_000));
        }
        if full && self.addresses.len() >= ASSIGN_ADDRESSES_MAX {
            self.shared += 1;
            return &mut self.others;
        }
        self.addresses.entry(key).or_default()
    }
}

impl Due {
    /// Takes one, or says after how many milliseconds there is one.
    fn take(&mut self, now: Mono, per_s: u32) -> Result<(), u64> {
        let Some(each) = 1_000_000_u64.checked_div(u64::from(per_s)) else {
            return Ok(()); // any number
        };
        let now = now.0.saturating_mul(1_000);
        let after = self.0.max(now).saturating_add(each.max(1));
        // Room for at least one, however slow the pace.
        let most = now.saturating_add((ASSIGN_BURST_MS * 1_000).max(each));
        if after > most {
            return Err((after - most).div_ceil(1_000));
        }
        self.0 = after;
        Ok(())
    }
}

/// What counts as one address: who has an IPv6 network has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { address_per_s: 2, all_per_s: 1_000 };

    fn pace() -> Pace<ahash::RandomState> {
        Pace::new(ahash::RandomState::with_seeds(1, 2, 3, 4))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(pace: &mut Pace<ahash::RandomState>, now: Mono, address: &str, rates: Rates) -> usize {
        (0..100_000).take_while(|_| pace.take(now, ip(address), rates).is_ok()).count()
    }

    #[test]
    fn an_address_has_its_burst_and_then_its_pace() {
        let (mut pace, now) = (pace(), Mono(5_000));
        let burst = usize::try_from(2 * ASSIGN_BURST_MS / 1_000).unwrap();
        assert_eq!(taken(&mut pace, now, "10.0.0.1", RATES), burst);
        assert_eq!(pace.take(now, ip("10.0.0.1"), RATES), Err(Over::Address(500)), "two a second");
        assert_eq!(pace.take(now.plus_ms(499), ip("10.0.0.1"), RATES), Err(Over::Address(1)));
        assert_eq!(
            taken(&mut pace, now.plus_ms(500), "10.0.0.1", RATES),
            1,
            "who is refused is charged nothing"
        );
        assert_eq!(taken(&mut pace, now, "10.0.0.2", RATES), burst, "another address is another matter");
        assert_eq!(
            taken(&mut pace, now.plus_ms(3_600_000), "10.0.0.1", RATES),
            burst,
            "never more than a burst"
        );
    }

    #[test]
    fn all_together_have_theirs_and_a_refused_address_does_not_use_it_up() {
        let rates = Rates { address_per_s: 1, all_per_s: 4 };
        let (mut pace, now) = (pace(), Mono(0));
        let seconds = usize::try_from(ASSIGN_BURST_MS / 1_000).unwrap();
        assert_eq!(taken(&mut pace, now, "10.0.0.1", rates), seconds);
        for _ in 0..1_000 {
            assert!(matches!(pace.take(now, ip("10.0.0.1"), rates), Err(Over::Address(_))));
        }
        let rest: usize = (2..10).map(|n| taken(&mut pace, now, &format!("10.0.0.{n}"), rates)).sum();
        assert_eq!(rest, 3 * seconds);
        assert_eq!(pace.take(now, ip("10.0.1.1"), rates), Err(Over::All(250)));
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() {
        for (text, want) in [
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::9", "2001:db8:1:2::"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(network(ip(text)), ip(want), "{text}");
        }
    }

    #[test]
    fn nought_is_any_number_and_a_slow_pace_still_has_one() {
        let free = Rates { address_per_s: 0, all_per_s: 0 };
        let mut pace = pace();
        assert_eq!(taken(&mut pace, Mono(0), "10.0.0.1", free), 100_000);
        assert!(pace.is_empty(), "nothing is kept that nobody needs");
    }

    #[test]
    fn beyond_the_table_addresses_share_a_record_until_the_quiet_ones_are_forgotten() {
        let (mut pace, now) = (pace(), Mono(10 * ASSIGN_SWEEP_MS));
        let rates = Rates { address_per_s: 1, all_per_s: 0 };
        for n in 0..u32::try_from(ASSIGN_ADDRESSES_MAX).unwrap() {
            pace.take(now, IpAddr::from((0x0a00_0000 + n).to_be_bytes()), rates).unwrap();
        }
        assert_eq!(pace.take_shared(), 0, "the table has room for as many");
        let burst = usize::try_from(ASSIGN_BURST_MS / 1_000).unwrap();
        let beyond: usize = (1..=8).map(|n| taken(&mut pace, now, &format!("192.0.2.{n}"), rates)).sum();
        assert_eq!((beyond, pace.len()), (burst, ASSIGN_ADDRESSES_MAX), "eight strangers have what one has");
        assert_eq!(pace.take_shared(), burst as u64 + 8, "who is taken and who is refused");
        assert_eq!(taken(&mut pace, now.plus_ms(ASSIGN_SWEEP_MS), "192.0.2.9", rates), burst);
        assert!(pace.len() < ASSIGN_ADDRESSES_MAX);
    }
}
