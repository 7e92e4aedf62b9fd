//! Send times inside messages: where a script left a place for one, and where one has arrived.

use memchr::memmem::Finder;

use crate::script::{MARK, MARK_PREFIX};

/// Hexadecimal digits of a time.
const TIME_DIGITS: usize = 16;

/// The two searches, prepared once per thread.
pub struct Marks {
    place: Finder<'static>,
    prefix: Finder<'static>,
}

impl Default for Marks {
    fn default() -> Self {
        Self { place: Finder::new(MARK), prefix: Finder::new(MARK_PREFIX) }
    }
}

impl Marks {
    /// Writes the time wherever `data` has [`MARK`].
    pub fn stamp(&self, data: &mut [u8], due_ns: u64) {
        let mut from = 0;
        while let Some(at) = self.place.find(&data[from..]) {
            let place = &mut data[from + at..from + at + MARK.len()];
            place[..MARK_PREFIX.len()].copy_from_slice(MARK_PREFIX);
            write_hex(&mut place[MARK_PREFIX.len()..], due_ns);
            from += at + MARK.len();
        }
    }

    /// The first time that `data` carries.
    pub fn due(&self, data: &[u8]) -> Option<u64> {
        let at = self.prefix.find(data)? + MARK_PREFIX.len();
        let digits = std::str::from_utf8(data.get(at..at + TIME_DIGITS)?).ok()?;
        u64::from_str_radix(digits, 16).ok()
    }
}

fn write_hex(place: &mut [u8], number: u64) {
    for (i, digit) in place.iter_mut().rev().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * i) & 0xf) as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_gets_the_time_and_it_is_found_again() {
        let marks = Marks::default();
        let mut data = [b"a ", MARK, b" b ", MARK].concat();
        let length = data.len();
        marks.stamp(&mut data, 0x1234_5678_9abc);
        assert_eq!(data, b"a ~due:0000123456789abc b ~due:0000123456789abc");
        assert_eq!((data.len(), marks.due(&data)), (length, Some(0x1234_5678_9abc)));
    }

    #[test]
    fn what_is_no_time_is_none() {
        for data in [&b""[..], b"~due:", b"~due:00000000000000", b"~due:zzzzzzzzzzzzzzzz", MARK] {
            assert_eq!(Marks::default().due(data), None, "{data:?}");
        }
    }
}
