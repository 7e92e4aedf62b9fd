//! Walks the top level of a protobuf message without copying: each length-delimited value is a slice of the message.
//!
//! Refuses what is truncated, groups (nobody sends them in proto3) and numbers that protobuf does not allow. The walk
//! ends at the first fault.

use bytes::{Buf, Bytes};

use crate::ids::Text;

/// The bytes are not the message they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// They end inside a field.
    Truncated,
    /// A tag, varint or wire type that protobuf does not allow here.
    WireType,
    /// A string that is not UTF-8.
    NotUtf8,
    /// More list entries than the limit.
    TooMany,
}

impl Malformed {
    /// For the caller.
    pub fn text(self) -> &'static str {
        match self {
            Self::Truncated => "unexpected end of the message",
            Self::WireType => "invalid tag or wire type",
            Self::NotUtf8 => "a string field contains invalid UTF-8",
            Self::TooMany => "too many list entries",
        }
    }
}

/// The value of one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Wire type 0.
    Varint(u64),
    /// Wire types 1 and 5: nothing that Pinion reads is one.
    Fixed,
    /// Wire type 2.
    Bytes(Bytes),
}

impl Value {
    /// A varint field; another wire type is a fault.
    pub fn varint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(Malformed::WireType),
        }
    }

    /// An int32 field: protobuf keeps the low 32 bits.
    pub fn int32(self) -> Result<i32, Malformed> {
        let low = self.varint()? & u64::from(u32::MAX);
        Ok(u32::try_from(low).unwrap_or_default().cast_signed())
    }

    /// A bytes or message field; another wire type is a fault.
    pub fn bytes(self) -> Result<Bytes, Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed::WireType),
        }
    }

    /// A string field.
    pub fn text(self) -> Result<Text, Malformed> {
        Text::new(self.bytes()?).ok_or(Malformed::NotUtf8)
    }
}

/// An iterator over field numbers and values.
#[derive(Debug)]
pub struct Fields {
    rest: Bytes,
}

impl Fields {
    /// Starts at the first field.
    pub fn of(message: Bytes) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u32, Value), Malformed> {
        let tag = u32::try_from(self.varint()?).map_err(|_| Malformed::WireType)?;
        let number = tag >> 3;
        if number == 0 {
            return Err(Malformed::WireType);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed::Truncated)?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed::WireType),
        };
        Ok((number, value))
    }

    fn take(&mut self, n: usize) -> Result<Bytes, Malformed> {
        if n > self.rest.len() {
            return Err(Malformed::Truncated);
        }
        Ok(self.rest.split_to(n))
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds the last bit of 64.
            if index == 9 && byte > 1 {
                return Err(Malformed::WireType);
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest.advance(index + 1);
                return Ok(value);
            }
        }
        Err(if self.rest.len() >= 10 { Malformed::WireType } else { Malformed::Truncated })
    }
}

impl Iterator for Fields {
    type Item = Result<(u32, Value), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest.clear();
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wire_type_has_its_outcome() {
        type Row = (&'static [u8], Result<(u32, Value), Malformed>);
        let table: [Row; 12] = [
            (b"\x08\x96\x01", Ok((1, Value::Varint(150)))),
            (b"\x0a\x01x", Ok((1, Value::Bytes(Bytes::from_static(b"x"))))),
            (b"\x09\0\0\0\0\0\0\0\0", Ok((1, Value::Fixed))),
            (b"\x0d\0\0\0\0", Ok((1, Value::Fixed))),
            (b"\x0b", Err(Malformed::WireType)),
            (b"\x0c", Err(Malformed::WireType)),
            (b"\x0e", Err(Malformed::WireType)),
            (b"\x00\x01", Err(Malformed::WireType)),
            (b"\x08", Err(Malformed::Truncated)),
            (b"\x0a\x02x", Err(Malformed::Truncated)),
            (b"\x09\0\0", Err(Malformed::Truncated)),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", Err(Malformed::WireType)),
        ];
        for (bytes, expected) in table {
            let mut fields = Fields::of(Bytes::from_static(bytes));
            assert_eq!(fields.next(), Some(expected), "{bytes:?}");
            assert_eq!(fields.next(), None, "{bytes:?}");
        }
    }

    #[test]
    fn negative_int32_fields_keep_their_sign() {
        let minus_one = Value::Varint(u64::MAX);
        assert_eq!(minus_one.int32(), Ok(-1));
    }
}
